"""nestvec on Edge beside the raw engine: the same vectors, the same plan, in one run.

    python benchmarks/edge.py [--records 100000] [--memory-records 200000] [--json FILE]

Ratios are what counts: both sides run in turns, on the same machine, in the same minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

import nestvec
from nestvec import Record
from nestvec.backends.edge_wire import EdgeOptions, config
from nestvec.nesting import Matrix, Nesting

DIM, DIMS, BATCH = 1024, (64, 256), 512
SCALE = ((1.0 + np.arange(DIM)) ** -0.5).astype(np.float32)


def vectors(n: int, seed: int = 0) -> Matrix:
    """Return synthetic nested vectors: number i has the standard deviation (1 + i) ** -0.5."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal((n, DIM), dtype=np.float32) * SCALE)


def payload(i: int) -> dict[str, Any]:
    return {"id": f"id{i}", "text": f"text number {i}", "metadata": {"n": i, "tag": f"t{i % 9}"}}


def unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def raw_ingest(directory: Path, rows: Matrix) -> tuple[float, float]:
    """Write the three fields as somebody would who knows the engine; return two times.

    Seconds until all was written, and until the graph was built too.
    """
    directory.mkdir(parents=True)
    shard = qe.EdgeShard.create(str(directory), config(Nesting.of(DIMS, DIM), EdgeOptions()))
    started = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        fields = {f"d{length}": unit(batch[:, :length]) for length in DIMS} | {"full": unit(batch)}
        points = [
            qe.Point(
                uuid.uuid5(uuid.NAMESPACE_URL, f"id{start + i}"),
                {name: matrix[i].tolist() for name, matrix in fields.items()},
                payload(start + i),
            )
            for i in range(len(batch))
        ]
        shard.update(qe.UpdateOperation.upsert_points(points))
    written = time.perf_counter() - started
    shard.optimize()
    shard.flush()
    total = time.perf_counter() - started
    shard.close()
    return written, total


def nestvec_ingest(directory: Path, rows: Matrix) -> tuple[float, float]:
    """Write the same by one `add_records`; the last batch is written when the source has ended."""
    ended = 0.0

    def source() -> Iterator[Record]:
        nonlocal ended
        for i, row in enumerate(rows):
            made = payload(i)
            yield Record(made["id"], made["text"], made["metadata"], row)
        ended = time.perf_counter()

    with nestvec.connect(f"edge:{directory}", dims=DIMS, dim=DIM, batch_size=BATCH) as store:
        started = time.perf_counter()
        store.add_records(source())
        return ended - started, time.perf_counter() - started


def ingest(rows: Matrix, directory: Path) -> dict[str, float]:
    """Return seconds of both sides, the best of two turns, and nestvec's rate over the raw one."""
    raw = [raw_ingest(directory / f"raw{turn}", rows) for turn in range(2)]
    ours = [nestvec_ingest(directory / f"ours{turn}", rows) for turn in range(2)]
    (raw_written, raw_total), (written, total) = (
        (min(times[0] for times in side), min(times[1] for times in side)) for side in (raw, ours)
    )
    return {
        "records": len(rows),
        "raw_per_s": len(rows) / raw_written,
        "nestvec_per_s": len(rows) / written,
        "rate_ratio": raw_written / written,
        "rate_ratio_with_graph": raw_total / total,
    }


def raw_query(query: Matrix, limit: int) -> qe.QueryRequest:
    """Return the default plan's request, written by hand from a full vector."""
    first = query[: DIMS[0]]
    return qe.QueryRequest(
        limit=10,
        query=qe.Query.Nearest((query / np.linalg.norm(query)).tolist(), "full"),
        prefetches=[
            qe.Prefetch(
                limit=limit,
                query=qe.Query.Nearest((first / np.linalg.norm(first)).tolist(), "d64"),
                params=qe.SearchParams(hnsw_ef=max(128, limit)),
            )
        ],
        params=qe.SearchParams(exact=True),
        with_payload=True,
    )


def search(directory: Path, rounds: int = 1500) -> dict[str, float]:
    """Return the p50 of both sides for one plan, query by query in turns."""
    with nestvec.connect(f"edge:{directory}") as store:
        shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]  # noqa: SLF001
        limit = int(store.info().funnel.rpartition(":")[2])
        sides: dict[str, Callable[[Matrix], Any]] = {
            "raw": lambda query: shard.query(raw_query(query, limit)),
            "nestvec": lambda query: store.search(query, k=10),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for query in vectors(rounds, seed=1):
            for name, run in sides.items():
                started = time.perf_counter()
                found = run(query)
                times[name].append(time.perf_counter() - started)
                assert len(found) == 10
        raw, ours = (statistics.median(times[name]) * 1000 for name in sides)
    return {"candidates": limit, "raw_ms": raw, "nestvec_ms": ours, "time_ratio": ours / raw}


#: Ingests in a process of its own and prints its anonymous memory at each tenth.
MEMORY_CHILD = """
import sys, uuid, numpy as np, nestvec, qdrant_edge as qe
from itertools import islice
from nestvec import Nesting, Record
from nestvec.backends.edge_wire import EdgeOptions, config
side, directory, n, dim = sys.argv[1], sys.argv[2], int(sys.argv[3]), 1024
rng = np.random.default_rng(0)
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
def source():
    for i in range(n):
        if i % (n // 10) == 0:
            print(resident(), flush=True)
        yield Record(f"id{i}", "some text", {"n": i}, rng.standard_normal(dim, dtype=np.float32))
if side == "nestvec":
    with nestvec.connect(f"edge:{directory}", dims=(64, 256), dim=dim) as store:
        store.add_records(source())
else:
    records, nesting = source(), Nesting.of((64, 256), dim)
    shard = qe.EdgeShard.create(directory, config(nesting, EdgeOptions()))
    while batch := list(islice(records, 512)):
        shard.update(qe.UpdateOperation.upsert_points([
            qe.Point(uuid.uuid5(uuid.NAMESPACE_URL, r.id), {"d64": r.vector[:64].tolist(),
                "d256": r.vector[:256].tolist(), "full": r.vector.tolist()},
                {"id": r.id, "text": r.text, "metadata": r.metadata}) for r in batch]))
"""


def memory(n: int, directory: Path) -> dict[str, Any]:
    """Return MB of anonymous memory at each tenth of an ingest, of both sides.

    Page cache is not counted. What grows is the engine's map of ids and, with nestvec, the list of
    ids that is returned; not vectors, texts or metadata.
    """
    results: dict[str, Any] = {"records": n}
    for side in ("raw", "nestvec"):
        (directory / side).mkdir()
        command = [sys.executable, "-c", MEMORY_CHILD, side, str(directory / side), str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        megabytes = [float(line) for line in done.stdout.split()]
        grown = (megabytes[9] - megabytes[1]) * 1024 * 1024 / (0.8 * n)
        results[side] = {"megabytes": megabytes, "bytes_grown_per_record": grown}
    return results


def import_time() -> dict[str, float]:
    """Return the best of ten imports in fresh interpreters, less the interpreter's own start."""

    def best(code: str) -> float:
        times = []
        for _ in range(10):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    bare, numpy, ours = best("pass"), best("import numpy"), best("import nestvec")
    return {"numpy_s": numpy - bare, "nestvec_s": ours - bare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--memory-records", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results: dict[str, Any] = {"import": import_time()}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        results["ingest"] = ingest(vectors(asked.records), directory)
        results["search"] = search(directory / "ours0")
    with tempfile.TemporaryDirectory() as folder:
        results["memory"] = memory(asked.memory_records, Path(folder))
    print(json.dumps(results, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
