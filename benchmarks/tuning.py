"""What tune promises, measured: its time, its choice beside an exhaustive sweep, its certificates.

    python benchmarks/tuning.py time --url edge:/tmp/t [--documents 100000] [--dim 1024]
    python benchmarks/tuning.py sweep --url edge:/tmp/t
    python benchmarks/tuning.py repeat [--repetitions 100 --first 0]
    python benchmarks/tuning.py sizes --url edge:/tmp/s --documents 50000
    python benchmarks/tuning.py field --url edge:/tmp/t
    python benchmarks/tuning.py faults [--documents 20000]

All but `repeat` and `faults` make the collection where there is none. Times are of one client;
plans are timed in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

import nestvec
from nestvec import CollectionMissing, Record, sizing
from nestvec.backends.points import point_id
from nestvec.certificate import Tuned
from nestvec.nesting import Matrix

DIMS = {"edge": (64, 256), "postgresql": ("64:float16", "256:float16", "full:float16")}
TEXT = "text " * 40


def vectors(n: int, dim: int, seed: int = 0) -> Matrix:
    """Return synthetic nested vectors: number i has the standard deviation (1 + i) ** -0.5."""
    scale = ((1.0 + np.arange(dim)) ** -0.5).astype(np.float32)
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal((n, dim), dtype=np.float32) * scale)


def chunks(n: int, dim: int) -> Iterator[Matrix]:
    """Yield the rows of a collection, 10,000 at a time."""
    for start in range(0, n, 10_000):
        yield vectors(min(10_000, n - start), dim, seed=start)


def records(rows: Iterable[Matrix]) -> Iterator[Record]:
    for i, row in enumerate(row for chunk in rows for row in chunk):
        yield Record(f"id{i:07}", TEXT, {"n": i}, row)


def opened(url: str, documents: int, dim: int) -> nestvec.Store:
    """Open the collection of so many documents, or make it."""
    name = f"bench_{documents}_{dim}"
    try:
        return nestvec.connect(url, collection=name)
    except CollectionMissing:
        dims = DIMS["edge" if url.startswith("edge") else "postgresql"]
        store = nestvec.connect(url, collection=name, dims=dims, dim=dim)
        store.add_records(records(chunks(documents, dim)))
        return store


def recall_and_time(
    store: nestvec.Store, plans: list[Any], queries: Matrix, best: list[set[str]]
) -> list[tuple[float, float]]:
    """Return mean recall and median milliseconds of plans that are asked in turns."""
    found: list[list[float]] = [[] for _ in plans]
    times: list[list[float]] = [[] for _ in plans]
    for query, exact in zip(queries, best, strict=True):
        for i, funnel in enumerate(plans):
            started = time.perf_counter()
            hits = store.search(query, 10, funnel=funnel)
            times[i].append((time.perf_counter() - started) * 1000)
            found[i].append(len(exact & {hit.id for hit in hits}) / 10)
    return [(statistics.fmean(f), statistics.median(t)) for f, t in zip(found, times, strict=True)]


def exact_ids(rows: Iterable[Matrix], queries: Matrix) -> list[set[str]]:
    """Return the ids of the ten documents of `records` whose cosine with each query is largest."""
    scores = np.full((len(queries), 10), -2.0, np.float32)
    numbers, done = np.zeros((len(queries), 10), np.int64), 0
    for chunk in rows:
        cosines = queries @ (chunk / np.linalg.norm(chunk, axis=1, keepdims=True)).T
        own = np.broadcast_to(np.arange(done, done + len(chunk)), cosines.shape)
        both = np.concatenate([scores, cosines], axis=1), np.concatenate([numbers, own], axis=1)
        best = np.argpartition(-both[0], 10, axis=1)[:, :10]
        scores, numbers = (np.take_along_axis(each, best, 1) for each in both)
        done += len(chunk)
    return [{f"id{i:07}" for i in row} for row in numbers]


def tuned_in_seconds(store: nestvec.Store) -> tuple[Tuned, float]:
    """Return a tuned plan and how long it took; say when each stage of that began."""
    started, begun = time.perf_counter(), dict[str, float]()

    def told(what: str, _: float) -> None:
        begun.setdefault(what.split(maxsplit=1)[0], round(time.perf_counter() - started, 1))

    tuned = store.tune(0.99, 10, progress=told)
    seconds = time.perf_counter() - started
    print(f"{tuned} in {seconds:.1f} s; stages began at {begun}", file=sys.stderr, flush=True)
    return tuned, seconds


def tuned_in(url: str, documents: int, dim: int) -> dict[str, Any]:
    """Return how long tune took, what it promised, and what held on queries it has not seen."""
    with opened(url, documents, dim) as store:
        tuned, seconds = tuned_in_seconds(store)
        assert tuned.certificate is not None
        queries = vectors(300, dim, seed=99)
        ((unseen, p50),) = recall_and_time(
            store, [tuned], queries, exact_ids(chunks(documents, dim), queries)
        )
        return {
            "seconds": seconds, "funnel": str(tuned), "reached": tuned.reached,
            "recall": tuned.certificate.recall, "bound": tuned.certificate.bound,
            "n": tuned.certificate.n, "p50": tuned.certificate.p50, "qps": tuned.certificate.qps,
            "unseen_recall": unseen, "unseen_p50": p50, "trials": len(tuned.trials),
        }  # fmt: skip


def sweep(url: str, documents: int, dim: int) -> dict[str, Any]:
    """Return the time of the tuned plan over that of the fastest that finds as much.

    All plans of a grid, each asked the same queries; the best are then timed again, in turns.
    """
    with opened(url, documents, dim) as store:
        tuned, seconds = tuned_in_seconds(store)
        queries = vectors(120, dim, seed=77)
        best = exact_ids(chunks(documents, dim), queries)
        first, second = store.nesting.fields[0].name, store.nesting.fields[1].name
        limits = [10, 14, 20, 28, 40, 56, 80, 113, 160, 226, 320, 453, 640, 905, 1280]
        plans: list[Any] = [
            f"{first}:{limit} ef={ef}"
            for limit in limits
            for ef in (16, 32, 64, 128, 256, 512, 1000)
        ]
        plans += [
            f"{first}:{many} {second}:{few} ef={ef}"
            for many in limits[4:]
            for few in (10, 14, 20, 28, 40, 80)
            if few < many
            for ef in (16, 64, 256)
        ]
        measured = recall_and_time(store, plans, queries[:40], best[:40])
        ((goal, _),) = recall_and_time(store, [tuned], queries, best)
        enough = [(p50, p) for p, (r, p50) in zip(plans, measured, strict=True) if r >= goal - 5e-3]
        finalists = [tuned, *(plan for _, plan in sorted(enough)[:12])]
        again = recall_and_time(store, finalists, queries, best)
        fastest = min(p50 for recall, p50 in again if recall >= goal - 1e-9)
        return {
            "seconds": seconds, "plans": len(plans), "funnel": str(tuned), "recall": goal,
            "p50": again[0][1], "fastest_p50": fastest, "ratio": again[0][1] / fastest,
        }  # fmt: skip


def repeat(repetitions: int, first: int) -> dict[str, Any]:
    """Return how often the recall of unseen queries is within 0.005 of the certificate, or above.

    Small collections of 4,000 x 64, each of its own seed, each certified on queries that are given.
    """
    within, above, bound = 0, 0, 0
    for seed in range(first, first + repetitions):
        with tempfile.TemporaryDirectory() as folder:
            rows = vectors(4_000, 64, seed)
            with nestvec.connect(f"edge:{folder}", dims=(16,), dim=64) as store:
                store.add_records(records([rows]))
                tuned = store.tune(0.98, 10, vectors(1_400, 64, 10_000 + seed), budget_s=8)
                assert tuned.certificate is not None
                queries = vectors(1_000, 64, 20_000 + seed)
                best = exact_ids([rows], queries)
                ((unseen, _),) = recall_and_time(store, [tuned], queries, best)
        within += abs(unseen - tuned.certificate.recall) <= 0.005
        above += unseen >= tuned.certificate.recall - 0.005
        bound += unseen >= tuned.certificate.bound
    return {
        "repetitions": repetitions, "within_0.005": within, "no_less_than_0.005": above,
        "above_the_bound": bound,
    }  # fmt: skip


def real_sizes(url: str, documents: int, dim: int) -> dict[str, Any]:
    """Return the real bytes of a collection over the estimated ones."""
    with opened(url, documents, dim) as store:
        told = store.info().engine
        nesting, engine = store.nesting, told["engine"]
    (made, *_) = sizing.sizes(
        documents, dim, nesting.dims, engines=[engine], text_bytes=200, metadata_bytes=12,
        id_bytes=9,
    )  # fmt: skip
    if engine == "edge":
        real = Path(url.removeprefix("edge:")) / f"bench_{documents}_{dim}"
        disk = sum(f.stat().st_blocks * 512 for f in real.rglob("*") if f.is_file())
        parts = ("vector_index-d64", "vector_storage-d64", "vector_storage-d256", "id_tracker")
        hot = sum(
            f.stat().st_blocks * 512
            for f in real.rglob("*")
            if any(part in str(f) for part in parts) and "wal" not in str(f)
        )
        return {"disk": disk, "disk_ratio": disk / made.disk, "hot": hot, "ratio": hot / made.hot}
    disk = told["table_bytes"] + told["index_bytes"]
    (index,) = told["indexes"].values()
    hot = sizing.hot_bytes("postgres", nesting.fields[:1], documents)
    return {
        "disk": disk, "disk_ratio": disk / made.disk, "index": index["bytes"],
        "index_ratio": index["bytes"] / hot,
    }  # fmt: skip


def field(url: str, documents: int, dim: int) -> dict[str, Any]:
    """Return what 4 threads see that search while a field is added, and what verify finds then.

    Each asks for documents by their own vectors. A search is wrong whose first hit is neither that
    document nor, where the graph does not lead to it, what the same search finds before or after.
    """
    rows = next(chunks(documents, dim))[:500]
    with opened(url, documents, dim) as store:
        added, ended = (128 if url.startswith("edge") else "128:float16"), threading.Event()
        first = store.nesting.fields[0].name
        waits: list[float] = []
        failed: list[str] = []
        missed: list[tuple[int, str]] = []

        def first_hit(n: int) -> str:
            return store.search(rows[n], 1, funnel=f"{first}:200 ef=200")[0].id

        def search(seed: int) -> None:
            for n in np.random.default_rng(seed).integers(0, len(rows), 10**7):
                if ended.is_set():
                    return
                began = time.perf_counter()
                try:
                    hit = first_hit(n)
                except Exception as error:  # noqa: BLE001
                    failed.append(repr(error))
                    continue
                waits.append(time.perf_counter() - began)
                if hit != f"id{n:07}":
                    missed.append((int(n), hit))

        before = [first_hit(n) for n in range(len(rows))]
        threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        started = time.perf_counter()
        try:
            store.add_field(added)
        finally:
            seconds = time.perf_counter() - started
            ended.set()
            for thread in threads:
                thread.join()
        after = [first_hit(n) for n in range(len(rows))]
        wrong = [n for n, hit in missed if hit not in (before[n], after[n])]
        found = store.verify()
        store.drop_field(added)
        return {
            "documents": documents, "seconds": seconds, "searches": len(waits),
            "failed": failed[:3], "missed": len(missed),
            "wrong": len(wrong), "median_ms": 1000 * statistics.median(waits),
            "longest_s": max(waits), "verify": len(found),
        }  # fmt: skip


def faults(documents: int) -> dict[str, Any]:
    """Return how many of 50 planted faults of each kind verify finds, and what repair leaves."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"edge:{folder}"
        with nestvec.connect(url, dims=(16,), dim=64) as store:
            rows = vectors(documents, 64)
            store.add_records(Record(f"id{i}", "", {}, row) for i, row in enumerate(rows))
            shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]  # noqa: SLF001
            drawn = np.random.default_rng(1).choice(documents, 150, replace=False)
            keys: list[Any] = [point_id(f"id{i}") for i in drawn]
            shard.update(qe.UpdateOperation.delete_vectors(keys[:50], ["d16"]))
            other = [qe.PointVectors(k, {"d16": [1.0] * 16}) for k in keys[50:100]]
            zero = [qe.PointVectors(k, {"d16": [0.0] * 16}) for k in keys[100:]]
            shard.update(qe.UpdateOperation.update_vectors(other + zero))
            started = time.perf_counter()
            found = store.verify()
            seconds = time.perf_counter() - started
            kinds = [fault for faults in found.values() for fault in faults]
            left = store.repair()
            return {
                "documents": documents, "found": {kind: kinds.count(kind) for kind in set(kinds)},
                "verify_s": seconds, "left_by_repair": len(left),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["time", "sweep", "repeat", "sizes", "field", "faults"])
    parser.add_argument("--url", default="edge:/tmp/nestvec-tuning")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first repetition")
    asked = parser.parse_args()
    where = (asked.url, asked.documents, asked.dim)
    results = {
        "time": lambda: tuned_in(*where),
        "sweep": lambda: sweep(*where),
        "repeat": lambda: repeat(asked.repetitions, asked.first),
        "sizes": lambda: real_sizes(*where),
        "field": lambda: field(*where),
        "faults": lambda: faults(min(asked.documents, 20_000)),
    }[asked.what]()
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
