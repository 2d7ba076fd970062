"""Documents into an index over nestvec, and an answer from it; runs offline.

    python examples/llama_index_documents.py

Put a real model in the place of MockLLM, which repeats its prompt, and a Matryoshka model in the
place of the embedder of the package.
"""

from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from nestvec.llama_index import MatryoshkaEmbedding, NestedVectorStore

DOCUMENTS = [
    Document(
        id_="bisect",
        text="bisect finds where an item belongs in a sorted list.",
        metadata={"topic": "data", "year": 2022},
    ),
    Document(
        id_="heapq",
        text="heapq keeps a list as a heap: its smallest item is always the first.",
        metadata={"topic": "data", "year": 2019},
    ),
    Document(
        id_="semaphore",
        text="A semaphore limits how many tasks enter a section at once.",
        metadata={"topic": "concurrency", "year": 2024},
    ),
]


def main() -> None:
    Settings.llm = MockLLM()
    Settings.embed_model = MatryoshkaEmbedding("static")
    # Two nested fields, 64 and 128 of 256 numbers, are searched before the full vectors.
    vector_store = NestedVectorStore.from_params(
        "edge:./llama-index-documents", dims=(64, 128), embedder=Settings.embed_model
    )
    index = VectorStoreIndex.from_documents(
        DOCUMENTS, storage_context=StorageContext.from_defaults(vector_store=vector_store)
    )
    recent = MetadataFilters(
        filters=[MetadataFilter(key="year", operator=FilterOperator.GTE, value=2020)]
    )
    engine = index.as_query_engine(
        similarity_top_k=1,
        filters=recent,
        vector_store_kwargs={"funnel": "64:50 128:10"},
    )
    answer = engine.query("How do I find the place of an item in a sorted list?")
    for found in answer.source_nodes:
        print(f"{found.score:.2f} {found.node.ref_doc_id}: {found.node.get_content()}")
    print(answer)
    vector_store.close()


if __name__ == "__main__":
    main()
