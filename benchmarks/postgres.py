"""nestvec on Postgres beside plain pgvector and langchain-postgres: one server, one run.

    pip install 'nestvec[postgres-embedded]' langchain-postgres==0.0.19
    python benchmarks/postgres.py [--records 200000] [--ingest 50000] [--peer 5000]
        [--storage 200000] [--json FILE]

Ratios are what counts: every side runs on the same server, in the same minutes. Without --url an
embedded server is started for the run, with 4 GB of shared buffers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

import nestvec
from nestvec import Record, Store
from nestvec.backends.postgres_embedded import get_server
from nestvec.backends.postgres_wire import Raw, Row, binary_rows, copied, query_bytes
from nestvec.nesting import Field, Matrix, nest
from nestvec.records import Batch

DIM, K, FLOOR, QUERIES = 1024, 10, 0.98, 300
SCALE = ((1.0 + np.arange(DIM)) ** -0.5).astype(np.float32)
BUILD = "3GB"
SHAPES = {
    "256 float16 → full float16": ("256:float16", "full:float16"),
    "512 binary → full float16": ("512:binary", "full:float16"),
}


def vectors(n: int, seed: int = 0) -> Matrix:
    """Return unit synthetic nested vectors: 2,000 topics, number i of all shrinking by SCALE."""
    topics = np.random.default_rng(99).standard_normal((2_000, DIM), dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, DIM), dtype=np.float32)
    rows += topics[rng.integers(len(topics), size=n)]
    rows *= SCALE
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def records(rows: Matrix, change: int = 0) -> Iterator[Record]:
    for i, row in enumerate(rows):
        yield Record(f"id{i}", f"text number {i}", {"n": i + change, "tag": f"t{i % 9}"}, row)


def fresh(url: str, collection: str, **options: Any) -> Store:
    """Return an empty collection; what an earlier run left of it is dropped."""
    with contextlib.suppress(nestvec.CollectionMissing):
        nestvec.connect(url, collection=collection).drop()
    return nestvec.connect(url, collection=collection, dim=DIM, **options)


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# Writing


def peer_adds(url: str) -> Callable[[Sequence[Record]], Any]:
    """Return what adds records to an empty collection of langchain-postgres, vectors given."""
    from langchain_core.embeddings import FakeEmbeddings
    from langchain_postgres import PGEngine, PGVectorStore

    engine = PGEngine.from_connection_string(url.replace("postgresql:", "postgresql+psycopg:"))
    engine.init_vectorstore_table("langchain_peer", DIM, overwrite_existing=True)
    peer = PGVectorStore.create_sync(
        engine,
        FakeEmbeddings(size=DIM),
        "langchain_peer",
        metadata_json_column="langchain_metadata",
    )

    def add(made: Sequence[Record]) -> None:
        peer.add_embeddings(
            [record.text for record in made],
            [record.vector.tolist() for record in made],
            [dict(record.metadata) for record in made],
            ids=[str(uuid5(NAMESPACE_OID, record.id)) for record in made],  # a uuid column
        )

    return add


#: What is written: all documents as new ones, then the same, with other metadata, and with other
#: metadata and vectors.
ROUNDS = (("new", 0, 1), ("same", 0, 1), ("metadata", 1, 1), ("all", 2, -1))
TURNS = 5


def ingest(url: str, rows: Matrix, peer_rows: int) -> dict[str, float]:
    """Return rows a second of both sides, in turns, and how many times the peer's nestvec's are.

    New documents are compared with the peer's new ones, others with its faster of new and again.
    """
    rates: dict[str, float] = {}
    peer_add = peer_adds(url)
    with fresh(url, "ingest", dims=(64, 256), index="none") as store:
        for name, change, sign in ROUNDS:
            given = list(records(rows * sign, change))
            spent = {"peer": 0.0, "nestvec": 0.0}
            for turn in range(TURNS):
                spent["peer"] += timed(partial(peer_add, given[turn:peer_rows:TURNS]))
                spent["nestvec"] += timed(partial(store.add_records, given[turn::TURNS]))
            rates[f"peer_{name}"] = min(peer_rows, len(rows)) / spent["peer"]
            rates[name] = len(rows) / spent["nestvec"]
            print(name, {side: round(s, 2) for side, s in spent.items()}, flush=True)
    rates["new_ratio"] = rates["new"] / rates["peer_new"]
    for name, _, _ in ROUNDS[1:]:
        rates[f"{name}_ratio"] = rates[name] / max(rates["peer_new"], rates[f"peer_{name}"])
    return rates


def merging(url: str, rows: Matrix) -> dict[str, float]:
    """Return the p50 of replacing 512 documents: over arrays, and over a table filled by COPY."""
    merge = SQL(
        'INSERT INTO merging AS kept (id, text, metadata, "full") SELECT * FROM given ORDER BY id'
        " ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata,"
        ' "full" = excluded."full" WHERE kept.text <> excluded.text OR kept.metadata::text <>'
        ' excluded.metadata::text OR kept."full" <> excluded."full"'
    )
    times: dict[str, list[float]] = {"arrays": [], "copy": []}
    with (
        fresh(url, "merging", dims=(64, 256), index="none") as store,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        store.add_records(records(rows))
        connection.adapters.register_dumper(Raw, _raw_dumper())
        table = store._collection.backend._table  # type: ignore[attr-defined]  # noqa: SLF001

        def over_arrays(given: list[Row]) -> None:
            for statement in table.upsert(given):
                connection.execute(statement.sql, statement.params)

        def over_copy(given: list[Row]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(
                    "CREATE TEMPORARY TABLE given ON COMMIT DROP AS"
                    ' SELECT id, text, metadata, "full" FROM merging LIMIT 0'
                )
                with cursor.copy("COPY given FROM STDIN (FORMAT binary)") as copy:
                    copy.write(b"".join(copied(given)))
                cursor.execute(merge)

        sides = {"arrays": over_arrays, "copy": over_copy}
        for change in range(1, 5):
            changed = list(records(rows * (-1) ** change, change))
            for n, start in enumerate(range(0, len(changed) - 511, 512)):
                given = changed[start : start + 512]
                batch = Batch(
                    [record.id for record in given],
                    [record.text for record in given],
                    [dict(record.metadata) for record in given],
                    nest([record.vector for record in given], table.nesting),
                )
                made = list(binary_rows(batch, table.written()))
                name = ("arrays", "copy")[(n + change) % 2]
                times[name].append(timed(partial(sides[name], made)))
        store.drop()
    found = {f"{name}_ms": statistics.median(each) * 1000 for name, each in times.items()}
    return found | {"copy_over_arrays": found["copy_ms"] / found["arrays_ms"]}


# Searching


class Full:
    """One full vector with an HNSW index, as somebody writes it who knows pgvector."""

    def __init__(self, connection: psycopg.Connection[Any], source: str, kind: str) -> None:
        self.connection, self.kind = connection, kind
        self.table, self.field = (
            f"full_{kind}",
            Field(DIM, "float16" if kind == "halfvec" else "float32"),
        )
        names = {"table": Identifier(self.table), "kind": Identifier(kind), "dim": Literal(DIM),
                 "source": Identifier(source), "ops": Identifier(f"{kind}_ip_ops")}  # fmt: skip
        self.execute("DROP TABLE IF EXISTS {table}", names)
        self.execute(
            'CREATE TABLE {table} AS SELECT id, text, metadata, "full"::{kind}({dim}) AS embedding'
            " FROM {source}", names,
        )  # fmt: skip
        self.build = timed(
            lambda: self.execute("CREATE INDEX ON {table} USING hnsw (embedding {ops})", names)
        )
        self.sql = SQL(
            "SELECT id, text, metadata, embedding <#> %b::{kind} FROM {table}"
            " ORDER BY embedding <#> %b::{kind} LIMIT {k}"
        ).format(k=Literal(K), **names)
        size = connection.execute("SELECT pg_indexes_size(%s::regclass)", (self.table,)).fetchone()
        self.size: int = size[0] if size else 0

    def execute(self, sql: str, names: dict[str, Composable]) -> None:
        self.connection.execute(SQL(sql).format(**names))

    def search(self, query: Matrix, width: int) -> list[str]:
        given = query_bytes(query, self.field)
        with self.connection.pipeline():
            self.connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", (str(width),))
            cursor = self.connection.execute(self.sql, (given, given), binary=True)
        return [row[0] for row in cursor.fetchall()]


class Funnel:
    """A collection of nestvec, searched through a first field."""

    def __init__(self, store: Store, first: str) -> None:
        self.store, self.first = store, first
        self.build = timed(store.create_index)
        self.size = sum(index["bytes"] for index in store.info().engine["indexes"].values())

    def search(self, query: Matrix, width: int) -> list[str]:
        return [hit.id for hit in self.store.search(query, K, funnel=f"{self.first}:{width}")]


def width_needed(
    side: Full | Funnel, queries: Matrix, truth: Sequence[set[str]]
) -> tuple[int, float]:
    """Return the narrowest search whose recall reaches the floor, and that recall."""
    for width in (40, 60, 80, 100, 120, 150, 200, 250, 300, 400, 600, 800):
        found = [set(side.search(query, width)) for query in queries]
        recall = sum(len(a & b) for a, b in zip(found, truth, strict=True)) / K / len(truth)
        if recall >= FLOOR:
            break
    return width, recall


def search(url: str, rows: Matrix) -> dict[str, Any]:
    """Build every side, then ask all of them in turns: each sees the same minutes."""
    queries = vectors(QUERIES, seed=1)
    best = np.argsort(-(rows @ queries.T), axis=0)[:K].T
    truth = [{f"id{i}" for i in row} for row in best]
    sides: dict[str, Full | Funnel] = {}
    for n, (name, dims) in enumerate(SHAPES.items()):
        with fresh(url, f"bench{n}", dims=dims, index="none") as store:
            store.add_records(records(rows))
        store = nestvec.connect(url, collection=f"bench{n}", build_memory=BUILD)
        sides[name] = Funnel(store, dims[0])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("SET maintenance_work_mem = {}").format(Literal(BUILD)))
        # After ANALYZE the planner may take a scan for cheaper, since it does not count detoasting.
        connection.execute("SET enable_seqscan = off")
        connection.adapters.register_dumper(Raw, _raw_dumper())
        for kind in ("halfvec", "vector"):
            sides[kind] = Full(connection, "bench0", kind)
        results: dict[str, Any] = {}
        for name, side in sides.items():
            width, recall = width_needed(side, queries, truth)
            results[name] = {"width": width, "recall": recall, "build_s": side.build,
                             "index_mb": side.size / 1e6}  # fmt: skip
            print(name, results[name], flush=True)
        asked = {
            name: partial(side.search, width=results[name]["width"]) for name, side in sides.items()
        }
        for name, milliseconds in zip(sides, in_turns(asked, queries), strict=True):
            results[name] |= {"p50_ms": milliseconds, "qps": 1000 / milliseconds}
    for name in SHAPES:
        for kind in ("vector", "halfvec"):
            for what in ("qps", "index_mb", "build_s"):
                ratio = results[name][what] / results[kind][what]
                results[name][f"{what}_over_{kind}"] = round(ratio, 3)
    (name, dims), *_ = SHAPES.items()
    first = sides[name]
    assert isinstance(first, Funnel)
    funnel = f"{dims[0]}:{results[name]['width']}"
    results["by hand"] = by_hand(url, first.store, funnel, queries)
    return results


def _raw_dumper() -> Any:
    from nestvec.backends.postgres_driver import RawDumper

    return RawDumper


def by_hand(url: str, store: Store, funnel: str, queries: Matrix) -> dict[str, float]:
    """Return the p50 of Store.search and of its own SQL sent with psycopg, in turns."""
    field, full = store._collection.nesting.fields  # noqa: SLF001
    limit = int(funnel.rpartition(":")[2])
    sql = (
        'WITH stage AS MATERIALIZED (SELECT id, text, metadata, "full" FROM bench0'
        f" ORDER BY {field.name} <#> %b::halfvec LIMIT {limit})"
        ' SELECT id, text, metadata, "full" <=> %b::halfvec AS distance FROM stage'
        f" ORDER BY distance, id LIMIT {K}"
    )
    settings = (
        f"SELECT set_config('hnsw.ef_search', '{max(40, limit)}', true),"
        " set_config('hnsw.iterative_scan', 'strict_order', true)"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.adapters.register_dumper(Raw, _raw_dumper())

        def run(query: Matrix) -> Any:
            first = query[: field.length]
            given = (
                query_bytes(first / np.linalg.norm(first), field),
                query_bytes(query / np.linalg.norm(query), full),
            )
            with connection.pipeline():
                connection.execute(settings)
                cursor = connection.execute(sql, given, binary=True)
            return cursor.fetchall()

        mine = partial(store.search, k=K, funnel=funnel)
        raw, ours = in_turns({"raw": run, "nestvec": mine}, queries)
    return {"raw_ms": raw, "nestvec_ms": ours, "time_ratio": ours / raw}


def external(url: str, rows: Matrix, queries: Matrix, width: int) -> dict[str, float]:
    """Return how full kept in its row compares with full kept beside it, in turns."""
    found: dict[str, float] = {}
    for precision in ("float16", "float32"):
        sides: dict[str, Store] = {}
        for name in ("plain", "external"):
            store = fresh(url, name, dims=("256:float16", f"full:{precision}"), index="none")
            if name == "external":
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute('ALTER TABLE external ALTER "full" SET STORAGE EXTERNAL')
                    connection.execute("ALTER TABLE external RESET (toast_tuple_target)")
            store.add_records(records(rows))
            store.close()
            sides[name] = nestvec.connect(url, collection=name, build_memory=BUILD)
            sides[name].create_index()
            found[f"{precision}_{name}_mb"] = sides[name].info().engine["table_bytes"] / 1e6
        ask = partial(Store.search, k=K, funnel=f"256:float16:{width}")
        plain, beside = in_turns(
            {name: partial(ask, store) for name, store in sides.items()}, queries
        )
        found[f"{precision}_external_over_plain_time"] = beside / plain
        for store in sides.values():
            store.drop()
    return found


def in_turns(sides: Mapping[str, Callable[[Matrix], Any]], queries: Matrix) -> list[float]:
    """Return the p50 of each side in milliseconds; who is asked first changes with each query."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for query in np.concatenate([queries] * 4):
        order.reverse()  # who asks second finds the pages in the processor's cache
        for name in order:
            times[name].append(timed(partial(sides[name], query)))
    return [statistics.median(each) * 1000 for each in times.values()]


def own_server(directory: Path) -> str:
    server = get_server(directory, cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_buffers = '4GB'")
        connection.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    server.stop()
    server.ensure_postgres_running()
    uri: str = server.get_uri()
    return uri


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--ingest", type=int, default=50_000)
    parser.add_argument("--peer", type=int, default=5_000)
    parser.add_argument("--storage", type=int, help="as many as --records, if left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    url = options.url or own_server(Path(tempfile.mkdtemp(prefix="nestvec-bench-")))
    results: dict[str, Any] = {}
    if options.ingest:
        results["ingest"] = ingest(url, vectors(options.ingest), options.peer)
        results["ingest"] |= merging(url, vectors(10_000))
        print(json.dumps(results["ingest"], indent=2), flush=True)
    if options.records:
        results["search"] = search(url, vectors(options.records))
        print(json.dumps(results["search"], indent=2, ensure_ascii=False), flush=True)
    if stored := options.records if options.storage is None else options.storage:
        results["storage"] = external(url, vectors(stored), vectors(QUERIES, seed=1), 150)
        print(json.dumps(results["storage"], indent=2))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
