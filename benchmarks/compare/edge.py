"""The contenders on Qdrant's engine in this process, and those in qdrant-client's local mode.

The frameworks have no other way to run Qdrant without a server than its client's local mode, which
compares with every vector in numpy. So they are asked for up to 20,000 documents, from which on the
client itself warns. Their figures are of what a user has without a server, and not of a server.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

import nestvec
from nestvec import Record

from .contenders import (
    Client,
    Contender,
    Loaded,
    Nested,
    Search,
    Setting,
    candidates,
    in_parts,
    nested_ladders,
    single_ladders,
    with_more_links,
)  # fmt: skip
from .vectors import Data, K

__all__ = ["CONTENDERS", "llama_nodes", "of_files"]

_BATCH = 512


@dataclass(frozen=True)
class EdgeNested(Nested):
    """A collection of nestvec in the engine."""

    def load(self, data: Data, place: str, sample: int) -> Loaded:  # noqa: ARG002
        ended = 0.0

        def source() -> Iterator[Record]:
            nonlocal ended
            yield from data.records()
            ended = time.perf_counter()

        url = f"edge:{place}"
        with nestvec.connect(
            url, collection=self.slug, dims=self.dims(data.dim), dim=data.dim,
            m=self.links, ef_construct=candidates(self.links, 100),
        ) as store:  # fmt: skip
            started = time.perf_counter()
            store.add_records(source())
            written, total = ended - started, time.perf_counter() - started
            first = store.nesting.fields[0]
            vector = "full" if first.full else first.name
        shard = Path(place) / self.slug / "shard"
        return of_files(shard, vector, len(data), written, total - written)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        with nestvec.connect(f"edge:{place}", collection=self.slug) as store:
            yield partial(self.client, store)

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:
        return nested_ladders(self.dims(dim)[0])


@dataclass(frozen=True)
class Single(Contender):
    """One full vector in the raw engine, with a graph; quantised it is rescored by its float32."""

    quantised: str | None = None

    def _config(self, dim: int) -> qe.EdgeConfig:
        pinned = qe.Memory.Pinned
        quantisation: Any = {
            None: lambda: None,
            "int8": lambda: qe.ScalarQuantizationConfig(qe.ScalarType.Int8, memory=pinned),
            "binary": lambda: qe.BinaryQuantizationConfig(memory=pinned),
            "turbo": lambda: qe.TurboQuantQuantizationConfig(
                bits=qe.TurboQuantBitSize.Bits4, memory=pinned
            ),
        }[self.quantised]
        vector = qe.EdgeVectorParams(
            size=dim,
            distance=qe.Distance.Cosine,
            memory=qe.Memory.Cached if self.quantised is None else qe.Memory.Cold,
            quantization_config=quantisation(),
            hnsw_config=qe.HnswIndexConfig(
                m=self.links,
                ef_construct=candidates(self.links, 100),
                full_scan_threshold=10_000,
            ),
        )
        # As nestvec has it: what is in one segment is searched faster by one thread than by many.
        return qe.EdgeConfig(vectors={"full": vector}, max_search_threads=1)

    def load(self, data: Data, place: str, sample: int) -> Loaded:  # noqa: ARG002
        directory = Path(place) / self.slug
        directory.mkdir(parents=True)
        shard = qe.EdgeShard.create(str(directory), self._config(data.dim))
        started = time.perf_counter()
        for start in range(0, len(data), _BATCH):
            points = [
                qe.Point(
                    uuid.uuid5(uuid.NAMESPACE_URL, record.id),
                    {"full": _read(record.vector)},
                    {"id": record.id, "text": record.text, "metadata": dict(record.metadata)},
                )
                for record in data.records(start, min(start + _BATCH, len(data)))
            ]
            shard.update(qe.UpdateOperation.upsert_points(points))
        written = time.perf_counter() - started
        shard.optimize()
        shard.flush()
        total = time.perf_counter() - started
        shard.close()
        return of_files(directory, "full", len(data), written, total - written)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        shard = qe.EdgeShard.load(str(Path(place) / self.slug))

        def client(setting: Setting) -> Search:
            params = qe.SearchParams(hnsw_ef=setting["ef"], quantization=self._rescored(setting))

            def search(query: Any) -> list[str]:
                nearest = qe.Query.Nearest(query.tolist(), "full")
                request = qe.QueryRequest(limit=K, query=nearest, params=params, with_payload=True)
                return [(point.payload or {})["id"] for point in shard.query(request)]

            return search

        yield client
        shard.close()

    def _rescored(self, setting: Setting) -> qe.QuantizationSearchParams | None:
        if self.quantised is None:
            return None
        return qe.QuantizationSearchParams(rescore=True, oversampling=setting["oversampling"])

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return single_ladders(self.quantised is not None)


def _read(row: Any) -> Any:
    """Return a vector as the engine reads it fastest, which its types do not tell."""
    numbers: Any = np.asarray(row)
    return memoryview(numbers)


def of_files(shard: Path, vector: str, rows: int, written: float, build: float) -> Loaded:
    """Return what the files of a shard say; blocks count, since files are made larger ahead.

    `vector` is the name of the one that is searched, "" the unnamed one.
    """
    index, quantised, raw, ids, disk = 0, 0, 0, 0, 0
    suffix = vector and f"-{vector}"
    for file in shard.rglob("*"):
        if not file.is_file():
            continue
        size, parts = file.stat().st_blocks * 512, set(file.parts)
        disk += size
        if f"vector_index{suffix}" in parts:
            index += size
        elif f"vector_storage{suffix}" in parts:
            if file.name.startswith("quantized"):
                quantised += size
            else:
                raw += size
        elif "id_tracker" in file.name or "id_tracker" in parts:
            ids += size
    searched = quantised or raw
    return Loaded(rows, written, build, index + searched, index + searched + ids, disk)


@dataclass(frozen=True)
class Local(Contender):
    """A framework's store over qdrant-client's local mode.

    What is kept on disk is written there by the store itself, a sample of it, since each point is
    a transaction of its own. Searching is in memory in either case, so what is searched is there.
    """

    side = "framework"
    most = 20_000

    def store(self, client: Any, rows: list[list[float]], collection: str = "docs") -> Any:
        """Return the framework's store; `rows` are the vectors of the texts that come next."""
        raise NotImplementedError

    def payload(self, record: Record) -> dict[str, Any]:
        """Return what differs between a document's payload and another's."""
        raise NotImplementedError

    def add(self, store: Any, rows: list[list[float]], data: Data, batch: Sequence[int]) -> float:
        """Write a batch of documents; return the seconds of the call alone."""
        raise NotImplementedError

    def search(self, store: Any, query: Any) -> list[str]:
        raise NotImplementedError

    def load(self, data: Data, place: str, sample: int) -> Loaded:
        from qdrant_client import QdrantClient

        directory = Path(place) / self.slug
        client = QdrantClient(path=str(directory))
        _collection(client, data.dim)
        rows: list[list[float]] = []
        store = self.store(client, rows)
        some = min(len(data), sample // 10)
        spent = sum(self.add(store, rows, data, each) for each in in_parts(range(some), 64))
        client.close()
        disk = sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())
        return Loaded(some, spent, 0.0, 0, data.rows.nbytes, disk * len(data) // some)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        from qdrant_client import QdrantClient, models

        client = QdrantClient(":memory:")
        _collection(client, data.dim)
        for batch in in_parts(range(len(data)), 1_000):
            points = [
                models.PointStruct(
                    id=n, vector=record.vector.tolist(),
                    payload={"page_content": record.text, "metadata": dict(record.metadata),
                             "text": record.text, **record.metadata},
                )
                for n, record in zip(batch, data.records(batch[0], batch[-1] + 1), strict=True)
            ]  # fmt: skip
            client.upsert("docs", points)
        store = self.store(client, [])
        yield lambda _: partial(self.search, store)
        client.close()

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{}]]


@dataclass(frozen=True)
class LangChainLocal(Local):
    """langchain-qdrant."""

    def store(self, client: Any, rows: list[list[float]], collection: str = "docs") -> Any:
        from langchain_core.embeddings import Embeddings
        from langchain_qdrant import QdrantVectorStore

        class Ready(Embeddings):
            """Hands over the vectors of the batch, in its order."""

            def embed_documents(self, texts: list[str]) -> list[list[float]]:  # noqa: ARG002
                return rows

            def embed_query(self, text: str) -> list[float]:  # noqa: ARG002
                return rows[0]

        return QdrantVectorStore(client, collection, Ready(), validate_collection_config=False)

    def payload(self, record: Record) -> dict[str, Any]:
        return {"page_content": record.text, "metadata": dict(record.metadata)}

    def add(self, store: Any, rows: list[list[float]], data: Data, batch: Sequence[int]) -> float:
        records = list(data.records(batch[0], batch[-1] + 1))
        rows[:] = [record.vector.tolist() for record in records]
        started = time.perf_counter()
        store.add_texts(
            [record.text for record in records],
            [dict(record.metadata) for record in records],
            ids=[str(uuid.UUID(int=n)) for n in batch],
        )
        return time.perf_counter() - started

    def search(self, store: Any, query: Any) -> list[str]:
        found = store.similarity_search_by_vector(query.tolist(), k=K)
        return [f"id{document.metadata['n']}" for document in found]


@dataclass(frozen=True)
class LlamaIndexLocal(Local):
    """llama-index-vector-stores-qdrant."""

    def store(self, client: Any, rows: list[list[float]], collection: str = "docs") -> Any:  # noqa: ARG002
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        return QdrantVectorStore(collection, client=client)

    def payload(self, record: Record) -> dict[str, Any]:
        return dict(record.metadata)

    def add(self, store: Any, rows: list[list[float]], data: Data, batch: Sequence[int]) -> float:  # noqa: ARG002
        nodes = llama_nodes(data, batch)
        started = time.perf_counter()
        store.add(nodes)
        return time.perf_counter() - started

    def search(self, store: Any, query: Any) -> list[str]:
        from llama_index.core.vector_stores.types import VectorStoreQuery

        asked = VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=K)
        return [f"id{node.metadata['n']}" for node in store.query(asked).nodes]


def _collection(client: Any, dim: int) -> None:
    from qdrant_client import models

    params = models.VectorParams(size=dim, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=params)


def llama_nodes(data: Data, batch: Sequence[int]) -> list[Any]:
    """Return documents as nodes with UUIDs, which its stores ask for."""
    from llama_index.core.schema import TextNode

    return [
        TextNode(
            id_=str(uuid.UUID(int=n)), text=record.text, metadata=dict(record.metadata),
            embedding=record.vector.tolist(),
        )
        for n, record in zip(batch, data.records(batch[0], batch[-1] + 1), strict=True)
    ]  # fmt: skip


_HALVES = (
    EdgeNested("nestvec, half binary", eighths=4, precision="binary"),
    EdgeNested("nestvec, half turbo", eighths=4, precision="turbo"),
)

_SINGLES = (
    Single("Edge float32"),
    Single("Edge int8", quantised="int8"),
    Single("Edge binary", quantised="binary"),
    Single("Edge turbo", quantised="turbo"),
)

CONTENDERS: tuple[Contender, ...] = (
    *_HALVES,
    EdgeNested("nestvec, 3/8 turbo", eighths=3, precision="turbo"),
    EdgeNested("nestvec, quarter int8", eighths=2, precision="int8"),
    EdgeNested("nestvec, quarter turbo", eighths=2, precision="turbo"),
    *map(with_more_links, _HALVES),
    EdgeNested("nestvec, full binary", eighths=8, precision="binary"),
    EdgeNested("nestvec, full int8", eighths=8, precision="int8"),
    *_SINGLES,
    *map(with_more_links, _SINGLES),
    LangChainLocal("langchain-qdrant, local"),
    LlamaIndexLocal("llama-index qdrant, local"),
)
