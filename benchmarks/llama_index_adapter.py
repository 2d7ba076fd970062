"""What the LlamaIndex adapter costs, and how fast it writes beside llama-index-…-postgres.

    pip install -e '.[llama-index,postgres-embedded]' llama-index-vector-stores-postgres==0.9.0
    python benchmarks/llama_index_adapter.py [query] [postgres] [--json FILE]

Ratios are what counts: both sides run in turns, on the same machine, in the same minutes, with the
same nodes, which have their embeddings.
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
import psutil
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

import nestvec
from nestvec.backends.postgres_embedded import get_server
from nestvec.llama_index import NestedVectorStore

DIM, DIMS = 1024, (64, 256)
SCALE = ((1.0 + np.arange(DIM)) ** -0.5).astype(np.float32)
TEXT = "A passage of some sentences, as a splitter leaves it. " * 10


def vectors(n: int, seed: int = 0) -> list[list[float]]:
    """Return synthetic nested vectors: number i has the standard deviation (1 + i) ** -0.5."""
    rng = np.random.default_rng(seed)
    rows: list[list[float]] = (rng.standard_normal((n, DIM), dtype=np.float32) * SCALE).tolist()
    return rows


def nodes(n: int) -> list[TextNode]:
    """Return nodes of 50 to a document, each with its document and two metadata keys."""
    made = []
    for i, row in enumerate(vectors(n)):
        source = RelatedNodeInfo(node_id=f"doc {i // 50}", metadata={"file": f"{i // 50}.txt"})
        node = TextNode(
            text=f"{i} {TEXT}",
            metadata={"n": i, "tag": f"t{i % 9}"},
            embedding=row,
            relationships={NodeRelationship.SOURCE: source},
        )
        made.append(node)
    return made


def query(records: int) -> dict[str, Any]:
    """Return the p50 of `Store.search` and of `query`, in turns, for k = 10."""
    some = nodes(records)
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(f"{folder}/postgres", cleanup_mode="delete")
        places = {"edge": f"edge:{folder}/edge", "postgres": server.get_uri()}
        rounds = {"edge": 1500, "postgres": 300}
        found = {name: _query(url, some, rounds[name]) for name, url in places.items()}
        server.cleanup()
    return {"records": records, **found}


def _query(url: str, some: list[TextNode], rounds: int) -> dict[str, float]:
    store = nestvec.connect(url, dims=DIMS, dim=DIM)
    vector_store = NestedVectorStore(store)
    vector_store.add(some)

    def asked(row: list[float]) -> Any:
        return vector_store.query(VectorStoreQuery(query_embedding=row, similarity_top_k=10)).ids

    sides: dict[str, Callable[[list[float]], Any]] = {
        "store": lambda row: store.search(row, k=10),
        "llama_index": asked,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for n, row in enumerate(vectors(rounds, seed=1)):
        # Who comes second finds the caches warm.
        for name, run in sorted(sides.items(), reverse=bool(n % 2)):
            started = time.perf_counter()
            assert len(run(row)) == 10
            times[name].append(time.perf_counter() - started)
    store.drop()
    ours, theirs = (statistics.median(times[name]) * 1000 for name in ("llama_index", "store"))
    return {"store_ms": theirs, "llama_index_ms": ours, "ratio": ours / theirs}


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def nestvec_add(url: str, some: list[TextNode], **options: Any) -> float:
    """Return the seconds of an `add` into a new collection, its index included."""
    collection = f"c{uuid.uuid4().hex[:8]}"
    vector_store = NestedVectorStore.from_params(
        url, collection=collection, dims=DIMS, dim=DIM, **options
    )
    seconds = timed(lambda: vector_store.add(some))
    assert vector_store.client.count() == len(some)
    vector_store.client.drop()
    return seconds


def postgres_add(dsn: str, some: list[TextNode]) -> float:
    from llama_index.vector_stores.postgres import PGVectorStore
    from sqlalchemy import text

    table = f"t{uuid.uuid4().hex[:8]}"
    theirs = PGVectorStore.from_params(
        connection_string=dsn.replace("postgresql:", "postgresql+psycopg2:", 1),
        async_connection_string=dsn.replace("postgresql:", "postgresql+asyncpg:", 1),
        table_name=table,
        embed_dim=DIM,
        use_jsonb=True,
    )
    theirs.add([])  # makes the table
    seconds = timed(lambda: theirs.add(some))
    with theirs.client.connect() as connection:
        count = connection.execute(text(f"SELECT count(*) FROM data_{table}")).scalar()
    assert count == len(some)
    theirs.clear()
    theirs.client.dispose()
    return seconds


class Server:
    """An embedded server for one run, and the processor time that it has taken."""

    def __init__(self, folder: str) -> None:
        self.server = get_server(folder, cleanup_mode="delete")
        self.dsn = self.server.get_uri()
        pid = int((Path(folder) / "postmaster.pid").read_text().split()[0])
        self.process = psutil.Process(pid)

    def seconds(self) -> float:
        """Return the processor time of the server's processes, also of those that ended."""
        total = 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # it has just ended, and its parent counts it
                continue
            total += sum((*times[:2], *(times[2:4] if process is self.process else ())))
        return total


def postgres(records: int, rounds: int, peer_records: int) -> dict[str, Any]:
    """Return nodes a second into Postgres, the best of some rounds, and processor time a node.

    The other store takes `peer_records` of the nodes: each costs it the same. It makes no index
    of vectors by itself, so nestvec writes once without one and once with it. Processor time, of
    this process and of the server's, is what a busy machine does not change.
    """
    some = nodes(records)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        nestvec_add(server.dsn, some[:100])  # makes the extension that both need
        sides: dict[str, Callable[[], float]] = {
            "llama_index_postgres": lambda: postgres_add(server.dsn, some[:peer_records]),
            "nestvec": lambda: nestvec_add(server.dsn, some, index="none"),
            "nestvec_with_index": lambda: nestvec_add(server.dsn, some),
        }
        wall: dict[str, list[float]] = {name: [] for name in sides}
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, run in sides.items():
                before = time.process_time() + server.seconds()
                wall[name].append(run())
                cpu[name].append(time.process_time() + server.seconds() - before)
        server.server.cleanup()
    theirs = "llama_index_postgres"
    counts = dict.fromkeys(sides, records) | {theirs: min(peer_records, records)}
    per_s = {name: counts[name] / min(wall[name]) for name in sides}
    cpu_us = {name: min(cpu[name]) / counts[name] * 1e6 for name in sides}
    found: dict[str, Any] = {"records": counts, "per_s": per_s, "cpu_us": cpu_us}
    for name in ("nestvec", "nestvec_with_index"):
        found[f"times_{name}"] = per_s[name] / per_s[theirs]
        found[f"times_{name}_cpu"] = cpu_us[theirs] / cpu_us[name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=["query", "postgres", []], help="by default all"
    )
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--peer-records", type=int, default=20_000, help="of the other store")
    parser.add_argument("--rounds", type=int, default=3, help="of writing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "query": lambda: query(asked.records),
        "postgres": lambda: postgres(asked.records, asked.rounds, asked.peer_records),
    }
    results = {name: parts[name]() for name in asked.parts or parts}
    print(json.dumps(results, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
