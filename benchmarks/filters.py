"""Filtered search beside the same search without a filter: recall, and time as a ratio.

    python benchmarks/filters.py [--records 100000] [--dim 1024] [--engines edge postgres …]
                                 [--queries 100] [--plain] [--json FILE]

Filters keep 10 %, 1 % and 0.1 % of the documents: `random` ones that have nothing to do with the
vectors, by a range and by equality, and `topic` ones, asked from inside of what they keep (near)
and from elsewhere (far), where the graph leads away from it. Recall@10 is that of the default
funnel against numpy's exact answer; a time is the p50 of a filter over the p50 of no filter, in
turns. Keys have a metadata index, unless `--plain`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nestvec
from nestvec import F, Filter, Record, Store
from nestvec.nesting import Matrix

K, TOPICS, SHARES = 10, 1_000, (0.1, 0.01, 0.001)
#: Keys of the metadata, each with the kind of its index.
KEYS = {"n": "int", "topic": "int", **{f"one_in_{round(1 / share)}": "int" for share in SHARES}}


@dataclass(frozen=True)
class Data:
    """Documents and queries: vectors, and their topics as whole numbers."""

    rows: Matrix
    topics: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    queries: Matrix
    asked: npt.NDArray[np.int64]

    def metadata(self, i: int) -> dict[str, Any]:
        n = int(self.order[i])
        equal = {f"one_in_{round(1 / share)}": n % round(1 / share) for share in SHARES}
        return {"n": n, "topic": int(self.topics[i]), **equal, "source": f"file{i % 977}.md"}

    def records(self) -> Iterator[Record]:
        for i, row in enumerate(self.rows):
            yield Record(f"id{i}", f"text number {i}", self.metadata(i), row)


def data(n: int, dim: int, queries: int) -> Data:
    """Return unit synthetic nested vectors of 1,000 topics; number i shrinks as (1 + i) ** -0.5."""
    scale = ((1.0 + np.arange(dim)) ** -0.5).astype(np.float32)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((TOPICS, dim), dtype=np.float32)

    def made(topics: npt.NDArray[np.int64]) -> Matrix:
        rows = (rng.standard_normal((len(topics), dim), dtype=np.float32) + centres[topics]) * scale
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    topics = rng.integers(TOPICS, size=n)
    asked = np.arange(queries) % TOPICS  # the first topics are those that filters keep
    return Data(made(topics), topics, rng.permutation(n), made(asked), asked)


@dataclass(frozen=True)
class Case:
    """A filter, and the queries that it is asked with."""

    name: str
    share: float
    where: Filter
    queries: npt.NDArray[np.int64]


def cases(given: Data) -> Iterator[Case]:
    everyone = np.arange(len(given.queries))
    for share in SHARES:
        yield Case("random range", share, F("n") < round(share * len(given.rows)), everyone)
        yield Case("random ==", share, F(f"one_in_{round(1 / share)}") == 0, everyone)
        kept = round(share * TOPICS)
        inside = given.asked < kept
        yield Case("topic near", share, F("topic") < kept, everyone[inside])
        yield Case("topic far", share, F("topic") >= TOPICS - kept, everyone[inside])


def best(given: Data, where: Filter, queries: npt.NDArray[np.int64]) -> list[set[str]]:
    """Return the ids of the exact answers, by numpy alone."""
    kept = [i for i in range(len(given.rows)) if where.matches(_document(given, i))]
    scores = given.queries[queries] @ given.rows[kept].T
    order = np.argsort(-scores, axis=1)[:, :K]
    return [{f"id{kept[i]}" for i in row} for row in order]


def _document(given: Data, i: int) -> Record:
    return Record(f"id{i}", "", given.metadata(i))


def measure(store: Store, given: Data, case: Case, rounds: int) -> dict[str, Any]:
    """Return recall, how many hits came, both times, and what explain says of the filter."""
    truth = best(given, case.where, case.queries)
    found = [store.search(given.queries[q], K, where=case.where) for q in case.queries]
    hits = [len({hit.id for hit in some} & ids) for some, ids in zip(found, truth, strict=True)]
    asked = np.resize(case.queries, rounds)
    filtered: list[float] = []
    plain: list[float] = []
    for n, q in enumerate(asked):
        for times, where in [(filtered, case.where), (plain, None)][:: 1 if n % 2 else -1]:
            started = time.perf_counter()
            store.search(given.queries[q], K, where=where)
            times.append(time.perf_counter() - started)
    served = store.explain(given.queries[case.queries[0]], K, where=case.where)
    assert served.filter is not None
    filtered_ms, plain_ms = (statistics.median(times) * 1000 for times in (filtered, plain))
    return {
        "filter": case.name,
        "share": case.share,
        "recall": sum(hits) / sum(map(len, truth)),
        "fewest_hits": min(map(len, found)),
        "filtered_ms": filtered_ms,
        "unfiltered_ms": plain_ms,
        "ratio": filtered_ms / plain_ms,
        "method": served.filter.method,
        "indexes": list(served.filter.indexes),
        "warned": bool(served.warnings),
    }


def place(engine: str, directory: Path) -> str:
    """Return the URL of a new place in an engine."""
    if engine == "postgres":
        url: str = import_module("postgres").own_server(directory / "pg")  # beside this file
        return url
    return {
        "memory": "memory:",
        "edge": f"edge:{directory / 'edge'}",
        "qdrant+local": "qdrant+local::memory:",
    }.get(engine, engine)


def run(url: str, given: Data, *, indexed: bool, rounds: int) -> list[dict[str, Any]]:
    """Write the documents, index their keys, and measure every case; print a line of each."""
    dim = given.rows.shape[1]
    measured = []
    with nestvec.connect(url, collection="filters_bench", dims=(64,), dim=dim) as store:
        started = time.perf_counter()
        store.add_records(given.records())
        print(f"# {url}: written in {time.perf_counter() - started:.0f} s", flush=True)
        for key, kind in KEYS.items() if indexed else ():
            store.index_metadata(key, kind)
        print(f"# indexes: {store.info().indexes}")
        for case in cases(given):
            made = measure(store, given, case, rounds)
            measured.append(made)
            print(
                f"{made['share']:6.1%} {made['filter']:13} recall {made['recall']:.3f}  "
                f"{made['filtered_ms']:7.2f} ms / {made['unfiltered_ms']:.2f} = "
                f"{made['ratio']:.2f}  {made['method']}; {', '.join(made['indexes'])}",
                flush=True,
            )
        store.drop()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--engines", nargs="+", default=["edge", "postgres"])
    parser.add_argument("--plain", action="store_true", help="without metadata indexes")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    given = data(asked.records, asked.dim, asked.queries)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="nestvec-bench-") as folder:
        Path(folder).chmod(0o755)  # run as root the embedded server is another user
        for engine in asked.engines:
            url = place(engine, Path(folder))
            results[engine] = run(url, given, indexed=not asked.plain, rounds=asked.queries)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
