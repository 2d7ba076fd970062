"""An index, and a retriever without one, over a collection that is there; runs offline.

    python examples/llama_index_existing.py

The collection may have been written by nestvec, by LangChain or by LlamaIndex.
"""

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM

import nestvec
from nestvec import F
from nestvec.llama_index import FunnelRetriever, NestedVectorStore

TEXTS = {
    "bisect": "bisect finds where an item belongs in a sorted list.",
    "heapq": "heapq keeps a list as a heap: its smallest item is always the first.",
    "semaphore": "A semaphore limits how many tasks enter a section at once.",
}


def main() -> None:
    with nestvec.connect("edge:./llama-index-existing", dims=(64, 128), embedder="static") as store:
        store.add(TEXTS.values(), [{"length": len(text)} for text in TEXTS.values()], TEXTS)

    vector_store = NestedVectorStore(nestvec.connect("edge:./llama-index-existing"))
    index = VectorStoreIndex.from_vector_store(vector_store, vector_store.embed_model)
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("a sorted list")
    print([found.node_id for found in answer.source_nodes])

    # Where no index is needed: a plan of one's own, and what each stage of it did.
    retriever = FunnelRetriever(
        vector_store,
        similarity_top_k=2,
        funnel="64:50 128:10",
        filters=F("length") < 80,
        explain=True,
        include_trace=True,
    )
    for found in retriever.retrieve("many tasks"):
        print(f"{found.score:.2f} {found.node_id}")
        for stage in found.metadata["nestvec"]["stages"]:
            print(f"     {stage['field']}: {stage['candidates_in']} → {stage['candidates_out']}")
    vector_store.close()


if __name__ == "__main__":
    main()
