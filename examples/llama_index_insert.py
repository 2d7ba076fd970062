"""Documents that change: inserted, refreshed and deleted, by an index and by a pipeline; offline.

python examples/llama_index_insert.py
"""

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore

from nestvec.llama_index import FunnelRetriever, MatryoshkaEmbedding, NestedVectorStore


def note(name: str, text: str) -> Document:
    return Document(id_=name, text=text)


def shown(vector_store: NestedVectorStore) -> list[str]:
    return sorted(f"{node.ref_doc_id}: {node.get_content()}" for node in vector_store.get_nodes())


def main() -> None:
    Settings.llm = MockLLM()
    Settings.embed_model = MatryoshkaEmbedding("static")
    vector_store = NestedVectorStore.from_params(
        "edge:./llama-index-insert", dims=(64,), embedder=Settings.embed_model
    )
    index = VectorStoreIndex.from_vector_store(vector_store)
    index.insert(note("lists", "Lists can be sorted."))
    index.insert(note("heaps", "A heap has its smallest item first."))
    changed = [
        note("lists", "Lists are sorted in place by sort()."),
        note("sets", "Sets have no order."),
    ]
    print("refreshed:", index.refresh_ref_docs(changed))
    index.delete_ref_doc("heaps", delete_from_docstore=True)
    print(*shown(vector_store), sep="\n")

    # A pipeline with a docstore does it for whole sources: what is as it was is not embedded again.
    vector_store.clear()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=128, chunk_overlap=16), Settings.embed_model],
        docstore=SimpleDocumentStore(),
        vector_store=vector_store,
    )
    for source in ([*changed], [changed[0], note("sets", "Sets have no order, and no doubles.")]):
        print("embedded:", [node.ref_doc_id for node in pipeline.run(documents=source)])
    print(*shown(vector_store), sep="\n")
    found = FunnelRetriever(vector_store, similarity_top_k=1).retrieve("sort a list")
    print(found[0].node.get_content())
    vector_store.close()


if __name__ == "__main__":
    main()
