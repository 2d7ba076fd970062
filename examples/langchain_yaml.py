"""A LangChain retriever that is written in a YAML file.

    python examples/langchain_yaml.py

Where the URL has a password it stays out of the file: without `url` it is taken from NESTVEC_URL.
"""

from pathlib import Path

import yaml

import nestvec
from nestvec.langchain import FunnelRetriever

CONFIGURATION = """\
url: edge:./langchain-yaml
collection: notes
k: 2
funnel: "64:100"                # 100 candidates leave the first 64 numbers
filter:
  year: {$gte: 2020}
search_type: mmr                # near the question, and far from each other
fetch_k: 10
lambda_mult: 0.7
"""


def main() -> None:
    file = Path("retriever.yaml")
    file.write_text(CONFIGURATION, encoding="utf-8")
    with nestvec.connect(
        "edge:./langchain-yaml", collection="notes", dims=(64,), embedder="static"
    ) as store:
        store.add(
            [
                "heapq keeps a heap in a list.",
                "bisect searches a sorted list.",
                "Lists can be sorted.",
            ],
            metadatas=[{"year": 2019}, {"year": 2022}, {"year": 2024}],
            ids=["heapq", "bisect", "sort"],
        )
    retriever = FunnelRetriever(**yaml.safe_load(file.read_text(encoding="utf-8")))
    for document in retriever.invoke("sorted lists"):
        print(document.id, document.metadata, document.page_content)
    retriever.close()


if __name__ == "__main__":
    main()
