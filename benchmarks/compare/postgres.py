"""The contenders on one Postgres with pgvector."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psycopg
from psycopg.sql import SQL, Identifier, Literal

import nestvec

from .contenders import (
    Client,
    Contender,
    Loaded,
    Nested,
    Search,
    Setting,
    candidates,
    in_parts,
    with_more_links,
)  # fmt: skip
from .edge import llama_nodes
from .vectors import Data, K

__all__ = ["CONTENDERS"]

_EFS = (20, 30, 40, 50, 60, 80, 100, 120, 150, 180, 200, 250, 300, 400, 500, 600, 800, 1000)

#: What langchain-postgres writes at once, and nestvec's own build of an index may take.
_PART, BUILD_MEMORY = 1_000, "3GB"


@dataclass(frozen=True)
class PostgresNested(Nested):
    """A collection of nestvec in the engine."""

    def load(self, data: Data, place: str, sample: int) -> Loaded:  # noqa: ARG002
        connect = partial(
            nestvec.connect, place, collection=self.slug, dims=self.dims(data.dim), dim=data.dim
        )
        with connect(index="none") as store:
            write_s = timed(lambda: store.add_records(data.records()))
        with connect(
            build_memory=BUILD_MEMORY, m=self.links, ef_construction=candidates(self.links, 64)
        ) as store:
            build_s = timed(store.create_index)
        return _loaded(place, self.slug, len(data), write_s, build_s)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        with nestvec.connect(place, collection=self.slug) as store:
            yield partial(self.client, store)

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:
        first = self.dims(dim)[0]
        return [[{"funnel": f"{first}:{ef}"} for ef in (15, *_EFS)]] + [
            [{"funnel": f"{first}:{limit} ef={ef}"} for ef in _EFS if ef > limit]
            for limit in (20, 40, 60, 80, 100)
        ]


@dataclass(frozen=True)
class Single(Contender):
    """One table with one index, through psycopg and the Python package pgvector.

    `kind` is vector, halfvec, or bit: an index on the bits of a halfvec, rescored by it. A halfvec
    is kept in its row, which fits a page, so that rescoring reads no other table.
    """

    kind: str = "vector"

    @property
    def _names(self) -> dict[str, Any]:
        column = "vector" if self.kind == "vector" else "halfvec"
        return {"table": Identifier(self.slug), "column": SQL(column)}

    def load(self, data: Data, place: str, sample: int) -> Loaded:  # noqa: ARG002
        names = {**self._names, "dim": Literal(data.dim)}
        with psycopg.connect(place, autocommit=True) as connection:
            run = partial(_execute, connection)
            register(connection)
            run("DROP TABLE IF EXISTS {table}", names)
            run(
                "CREATE TABLE {table} (id text PRIMARY KEY, text text, metadata jsonb,"
                " embedding {column}({dim}))", names,
            )  # fmt: skip
            if self.kind != "vector":
                run("ALTER TABLE {table} ALTER embedding SET STORAGE PLAIN", names)
            write_s = timed(partial(self._copy, connection, data))
            method = {
                "vector": "embedding vector_ip_ops",
                "halfvec": "embedding halfvec_ip_ops",
                "bit": "(binary_quantize(embedding)::bit({dim})) bit_hamming_ops",
            }[self.kind]
            create = (
                f"CREATE INDEX ON {{table}} USING hnsw ({method})"
                " WITH (m = {links}, ef_construction = {candidates})"
            )
            graph = {
                "links": Literal(self.links),
                "candidates": Literal(candidates(self.links, 64)),
            }
            build_s = timed(partial(run, create, names | graph))
        return _loaded(place, self.slug, len(data), write_s, build_s)

    def _copy(self, connection: psycopg.Connection[Any], data: Data) -> None:
        from pgvector.psycopg import HalfVector
        from psycopg.types.json import Jsonb

        made = np.asarray if self.kind == "vector" else HalfVector
        column = "vector" if self.kind == "vector" else "halfvec"
        copy = SQL("COPY {table} FROM STDIN (FORMAT BINARY)").format(**self._names)
        with connection.cursor() as cursor, cursor.copy(copy) as rows:
            rows.set_types(["text", "text", "jsonb", column])
            for record in data.records():
                rows.write_row(
                    (record.id, record.text, Jsonb(dict(record.metadata)), made(record.vector))
                )

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:
        from pgvector.psycopg import HalfVector

        held: list[psycopg.Connection[Any]] = []
        names = {**self._names, "dim": Literal(data.dim), "k": Literal(K)}
        nearest = (
            "SELECT id, text, metadata, embedding <#> %b AS distance FROM {table}"
            " ORDER BY embedding <#> %b LIMIT {k}"
        )
        rescored = (
            "WITH found AS MATERIALIZED (SELECT id, text, metadata, embedding FROM {table}"
            " ORDER BY binary_quantize(embedding)::bit({dim}) <~> binary_quantize(%b)"
            " LIMIT {ef})"
            " SELECT id, text, metadata, embedding <#> %b AS distance FROM found"
            " ORDER BY distance LIMIT {k}"
        )

        def client(setting: Setting) -> Search:
            connection = psycopg.connect(place, autocommit=True)
            held.append(connection)
            register(connection)
            connection.execute("SET enable_seqscan = off")  # it does not count detoasting
            connection.execute(SQL("SET hnsw.ef_search = {}").format(Literal(setting["ef"])))
            sql = SQL(rescored if self.kind == "bit" else nearest).format(
                **names, ef=Literal(setting["ef"])
            )
            made = np.asarray if self.kind == "vector" else HalfVector

            def search(query: Any) -> list[str]:
                given = made(query)
                cursor = connection.execute(sql, (given, given), binary=True)
                return [row[0] for row in cursor.fetchall()]

            return search

        yield client
        for connection in held:
            connection.close()

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{"ef": ef} for ef in _EFS]]


@dataclass(frozen=True)
class LangChain(Contender):
    """langchain-postgres: a full float32 vector, which is the only kind that it writes."""

    side = "framework"

    def _engine(self, place: str) -> Any:
        from langchain_postgres import PGEngine

        return PGEngine.from_connection_string(_url(place, "postgresql+psycopg:"))

    def _store(self, engine: Any, data: Data, ef: int = 40) -> Any:
        from langchain_core.embeddings import FakeEmbeddings
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.indexes import HNSWQueryOptions

        return PGVectorStore.create_sync(
            engine, FakeEmbeddings(size=data.dim), self.slug,
            metadata_json_column="langchain_metadata",
            index_query_options=HNSWQueryOptions(ef_search=ef),
        )  # fmt: skip

    def load(self, data: Data, place: str, sample: int) -> Loaded:
        from langchain_postgres.v2.indexes import HNSWIndex
        from psycopg.types.json import Json

        engine = self._engine(place)
        engine.init_vectorstore_table(self.slug, data.dim, overwrite_existing=True)
        store = self._store(engine, data)
        spent = 0.0
        for batch in in_parts(range(min(sample, len(data))), _PART):
            records = list(data.records(batch[0], batch[-1] + 1))
            vectors = [record.vector.tolist() for record in records]
            started = time.perf_counter()
            store.add_embeddings(
                [record.text for record in records], vectors,
                [dict(record.metadata) for record in records],
                ids=[str(uuid.UUID(int=n)) for n in batch],
            )  # fmt: skip
            spent += time.perf_counter() - started
        columns = ("langchain_id", "content", "embedding", "langchain_metadata")
        rows = (
            (uuid.UUID(int=n), record.text, np.asarray(record.vector), Json(dict(record.metadata)))
            for n, record in enumerate(data.records(sample), sample)
        )
        _filled(place, self.slug, columns, ("uuid", "text", "vector", "json"), rows)
        graph = HNSWIndex(m=self.links, ef_construction=candidates(self.links, 64))
        build_s = timed(lambda: store.apply_vector_index(graph))
        return _loaded(place, self.slug, min(sample, len(data)), spent, build_s)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:
        engine = self._engine(place)

        def client(setting: Setting) -> Search:
            store = self._store(engine, data, setting["ef"])

            def search(query: Any) -> list[str]:
                found = store.similarity_search_by_vector(query.tolist(), k=K)
                return [f"id{document.metadata['n']}" for document in found]

            return search

        yield client

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{"ef": ef} for ef in _EFS]]


@dataclass(frozen=True)
class LlamaIndex(Contender):
    """llama-index-vector-stores-postgres: a full halfvec, with the operators that fit its queries.

    The operators that it takes for a halfvec by itself are not those that it asks with, and its
    index would not be used.
    """

    side = "framework"

    def _store(self, data: Data, place: str, *, indexed: bool) -> Any:
        from llama_index.vector_stores.postgres import PGVectorStore

        how = {
            "hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40,
            "hnsw_dist_method": "halfvec_cosine_ops",
        }  # fmt: skip
        return PGVectorStore.from_params(
            connection_string=_url(place, "postgresql+psycopg2:"),
            async_connection_string=_url(place, "postgresql+asyncpg:"),
            table_name=self.slug, embed_dim=data.dim, use_jsonb=True, use_halfvec=True,
            hnsw_kwargs=how if indexed else None,
        )  # fmt: skip

    def load(self, data: Data, place: str, sample: int) -> Loaded:
        from llama_index.core.vector_stores.utils import node_to_metadata_dict
        from pgvector.psycopg import HalfVector
        from psycopg.types.json import Jsonb

        table = f"data_{self.slug}"
        with psycopg.connect(place, autocommit=True) as connection:
            _execute(connection, "DROP TABLE IF EXISTS {table}", {"table": Identifier(table)})
        store = self._store(data, place, indexed=False)
        store.add([])
        spent = 0.0
        for batch in in_parts(range(min(sample, len(data))), _PART):
            nodes = llama_nodes(data, batch)
            started = time.perf_counter()
            store.add(nodes)
            spent += time.perf_counter() - started

        def rows() -> Iterator[tuple[Any, ...]]:
            for batch in in_parts(range(sample, len(data)), _PART):
                for node in llama_nodes(data, batch):
                    kept = Jsonb(node_to_metadata_dict(node, remove_text=True, flat_metadata=False))
                    yield node.text, kept, node.node_id, HalfVector(node.embedding)

        columns = ("text", "metadata_", "node_id", "embedding")
        _filled(place, table, columns, ("varchar", "jsonb", "varchar", "halfvec"), rows())
        # A store with hnsw_kwargs makes its index when it is first used.
        build_s = timed(lambda: self._store(data, place, indexed=True).add([]))
        return _loaded(place, table, min(sample, len(data)), spent, build_s)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:
        from llama_index.core.vector_stores.types import VectorStoreQuery

        store = self._store(data, place, indexed=True)

        def client(setting: Setting) -> Search:
            def search(query: Any) -> list[str]:
                asked = VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=K)
                found = store.query(asked, hnsw_ef_search=setting["ef"]).nodes
                return [f"id{node.metadata['n']}" for node in found]

            return search

        yield client

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{"ef": ef} for ef in _EFS]]


def timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def register(connection: psycopg.Connection[Any]) -> None:
    from pgvector.psycopg import register_vector

    register_vector(connection)


def _url(place: str, scheme: str) -> str:
    """Return the URL for a framework; no scan is taken for cheaper than the index."""
    joined = "&" if "?" in place else "?"
    return f"{place.replace('postgresql:', scheme, 1)}{joined}options=-c%20enable_seqscan%3Doff"


def _execute(connection: psycopg.Connection[Any], sql: str, names: dict[str, Any]) -> None:
    connection.execute(SQL(sql).format(**names))


def _filled(
    place: str, table: str, columns: Sequence[str], types: Sequence[str], rows: Iterator[Any]
) -> None:
    """Write the documents that a slow interface was spared."""
    copy = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        Identifier(table), SQL(", ").join(map(Identifier, columns))
    )
    with psycopg.connect(place, autocommit=True) as connection:
        register(connection)  # before there is a cursor, which keeps what it finds
        with connection.cursor().copy(copy) as copied:
            copied.set_types(types)
            for row in rows:
                copied.write_row(row)


def _loaded(place: str, table: str, rows: int, write_s: float, build_s: float) -> Loaded:
    with psycopg.connect(place, autocommit=True) as connection:
        _execute(connection, "VACUUM (ANALYZE) {table}", {"table": Identifier(table)})
        row = connection.execute(
            "SELECT sum(pg_relation_size(i.indexrelid)), pg_total_relation_size(%s::regclass)"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_am a ON a.oid = c.relam"
            " WHERE i.indrelid = %s::regclass AND a.amname = 'hnsw'",
            (table, table),
        ).fetchone()
    assert row is not None
    assert row[0], f"{table} has no HNSW index"
    return Loaded(rows, write_s, build_s, int(row[0]), int(row[0]), int(row[1]))


_QUARTER = PostgresNested("nestvec, quarter float16", eighths=2, precision="float16")
_FLOAT32, _HALFVEC = Single("psycopg float32"), Single("psycopg halfvec", kind="halfvec")
_LANGCHAIN = LangChain("langchain-postgres")

CONTENDERS: tuple[Contender, ...] = (
    PostgresNested("nestvec, half binary", eighths=4, precision="binary"),
    _QUARTER,
    with_more_links(_QUARTER),
    _FLOAT32,
    _HALFVEC,
    Single("psycopg binary + rescore", kind="bit"),
    with_more_links(_FLOAT32),
    with_more_links(_HALFVEC),
    _LANGCHAIN,
    with_more_links(_LANGCHAIN),
    LlamaIndex("llama-index postgres"),
)
