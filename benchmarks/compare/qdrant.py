"""The contenders on one Qdrant server, by REST and by gRPC.

All write without an index, which the server then builds: beside an ingest it would take as much
time from one contender as it likes, and from the next another. Those whose name ends in REST or
tuned have no collection of their own: they search another contender's and write a sample beside it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

import nestvec
from nestvec import Funnel, Nesting, Store
from nestvec.backends.points import vector_name

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
from .edge import LangChainLocal, LlamaIndexLocal, of_files
from .servers import QdrantPlace
from .vectors import Data, K

__all__ = ["CONTENDERS"]

#: The server's default; 0 is no index.
_INDEXED_FROM = 10_000


@dataclass(frozen=True)
class OnServer(Contender):
    """A collection of the server."""

    grpc: bool = True

    #: The contender whose collection it searches; empty where it has its own.
    within: str = ""

    @property
    def home(self) -> str:
        """The name of the collection that is searched."""
        return replace(self, name=self.within, within="").slug if self.within else self.slug

    def searched(self, dim: int) -> str:  # noqa: ARG002
        """Return the name of the vector that is searched first."""
        return "full"

    def write(self, data: Data, place: QdrantPlace, name: str, rows: int) -> float:
        """Make a collection of so many documents without an index; return the seconds to write."""
        raise NotImplementedError

    def fill(self, data: Data, place: QdrantPlace, start: int) -> None:
        """Write the documents from a number on by a faster way."""
        raise NotImplementedError

    def load(self, data: Data, place: str, sample: int) -> Loaded:
        at = QdrantPlace.of(place)
        with at.client() as client:
            if self.within:
                rows = min(len(data), 4 * sample)
                write_s = self.write(data, at, "sample", rows)
                client.delete_collection("sample")
                return self._loaded(at, data.dim, rows, write_s, 0.0)
            client.delete_collection(self.slug)
            rows = len(data) if self.side != "framework" else min(len(data), sample)
            write_s = self.write(data, at, self.slug, rows)
            if rows < len(data):
                self.fill(data, at, rows)
            started = time.perf_counter()
            client.update_collection(
                self.slug,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=_INDEXED_FROM),
            )
            settled(client, self.slug)
            return self._loaded(at, data.dim, rows, write_s, time.perf_counter() - started)

    def _loaded(
        self, place: QdrantPlace, dim: int, rows: int, write_s: float, build_s: float
    ) -> Loaded:  # fmt: skip
        files = Path(place.storage) / "collections" / self.home
        return of_files(files, self.searched(dim), rows, write_s, build_s)


def settled(client: QdrantClient, name: str) -> None:
    """Wait until the server has built what it wants to."""
    quiet = 0
    while quiet < 10:
        time.sleep(0.2)
        quiet = quiet + 1 if client.get_collection(name).status == "green" else 0


@dataclass(frozen=True)
class ServerNested(OnServer, Nested):
    """A collection of nestvec."""

    def _connect(self, place: QdrantPlace, name: str, **options: Any) -> Store:
        return nestvec.connect(
            place.url, collection=name, prefer_grpc=self.grpc, grpc_port=place.grpc_port, **options
        )

    def searched(self, dim: int) -> str:
        return vector_name(Nesting.of(self.dims(dim), dim).fields[0])

    def write(self, data: Data, place: QdrantPlace, name: str, rows: int) -> float:
        with self._connect(
            place, name, dims=self.dims(data.dim), dim=data.dim,
            hnsw_config={"m": self.links, "ef_construct": candidates(self.links, 100)},
            optimizers_config={"indexing_threshold": 0},
        ) as store:  # fmt: skip
            started = time.perf_counter()
            store.add_records(data.records(0, rows))
            return time.perf_counter() - started

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        with self._connect(QdrantPlace.of(place), self.home) as store:
            yield partial(self.client, store)

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:
        return nested_ladders(self.dims(dim)[0])


@dataclass(frozen=True)
class Tuned(ServerNested):
    """The plan that `tune` finds and keeps as a collection's own."""

    target: float = 0.99

    def load(self, data: Data, place: str, sample: int) -> Loaded:
        with self._connect(QdrantPlace.of(place), self.home) as store:
            store.tune(self.target)
        return super().load(data, place, sample)

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{"funnel": None}]]


@dataclass(frozen=True)
class SamePlan(ServerNested):
    """The plan of a nestvec collection, sent by qdrant-client."""

    side = "same plan"

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:
        with QdrantPlace.of(place).client(grpc=self.grpc) as client:
            yield partial(self._search, client, self.searched(data.dim))

    def _search(self, client: QdrantClient, first_vector: str, setting: Setting) -> Search:
        funnel = Funnel.parse(setting["funnel"])
        (first,) = funnel.stages
        ef, times = funnel.knobs.ef, funnel.knobs.oversampling
        rescored = models.QuantizationSearchParams(rescore=times is not None, oversampling=times)
        params = models.SearchParams(hnsw_ef=ef, quantization=rescored)
        length = None if self.eighths == 8 else int(first.field.partition(":")[0])

        def search(query: Any) -> list[str]:
            full = query.tolist()
            if length is None:
                found = client.query_points(
                    self.home, query=full, using="full", limit=K, search_params=params
                )
                return [(point.payload or {})["id"] for point in found.points]
            prefix = query[:length] / np.linalg.norm(query[:length])
            prefetch = models.Prefetch(
                query=prefix.tolist(), using=first_vector, limit=first.limit, params=params
            )
            found = client.query_points(
                self.home, prefetch=prefetch, query=full, using="full", limit=K
            )
            return [(point.payload or {})["id"] for point in found.points]

        return search


@dataclass(frozen=True)
class Single(OnServer):
    """One full vector by qdrant-client; quantised it is rescored by its float32."""

    quantised: str | None = None

    def _quantisation(self) -> Any:
        if self.quantised == "int8":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        if self.quantised == "binary":
            binary = models.BinaryQuantizationConfig(always_ram=True)
            return models.BinaryQuantization(binary=binary)
        if self.quantised == "turbo":
            turbo = models.TurboQuantQuantizationConfig(
                always_ram=True, bits=models.TurboQuantBitSize.BITS4
            )
            return models.TurboQuantization(turbo=turbo)
        return None

    def write(self, data: Data, place: QdrantPlace, name: str, rows: int) -> float:
        with place.client(grpc=self.grpc) as client:
            client.create_collection(
                name,
                vectors_config={
                    "full": models.VectorParams(
                        size=data.dim, distance=models.Distance.COSINE,
                        on_disk=self.quantised is not None,
                        quantization_config=self._quantisation(),
                        hnsw_config=models.HnswConfigDiff(
                            m=self.links, ef_construct=candidates(self.links, 100)
                        ),
                    )
                },
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
            )  # fmt: skip
            points = (
                models.PointStruct(
                    id=str(uuid.uuid5(uuid.NAMESPACE_URL, record.id)),
                    vector={"full": record.vector.tolist()},
                    payload={
                        "id": record.id, "text": record.text, "metadata": dict(record.metadata)
                    },
                )
                for record in data.records(0, rows)
            )  # fmt: skip
            started = time.perf_counter()
            client.upload_points(name, points, batch_size=256, wait=True)
            return time.perf_counter() - started

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        with QdrantPlace.of(place).client(grpc=self.grpc) as client:

            def made(setting: Setting) -> Search:
                params = models.SearchParams(hnsw_ef=setting["ef"])
                if self.quantised is not None:
                    params.quantization = models.QuantizationSearchParams(
                        rescore=True, oversampling=setting["oversampling"]
                    )

                def search(query: Any) -> list[str]:
                    found = client.query_points(
                        self.home, query=query.tolist(), using="full", limit=K, search_params=params
                    )
                    return [(point.payload or {})["id"] for point in found.points]

                return search

            yield made

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return single_ladders(self.quantised is not None)


@dataclass(frozen=True)
class Framework(OnServer):
    """A framework's store, which leaves the search to the server's defaults."""

    side = "framework"
    store: type[LangChainLocal | LlamaIndexLocal] = LangChainLocal

    def searched(self, dim: int) -> str:  # noqa: ARG002
        return ""  # unnamed

    def _local(self) -> LangChainLocal | LlamaIndexLocal:
        return self.store(self.name)

    def write(self, data: Data, place: QdrantPlace, name: str, rows: int) -> float:
        local = self._local()
        given: list[list[float]] = []
        with place.client(grpc=self.grpc) as client:
            client.create_collection(
                name,
                vectors_config=models.VectorParams(size=data.dim, distance=models.Distance.COSINE),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
            )
            made = local.store(client, given, name)
            parts = in_parts(range(rows), 64)
            return sum((local.add(made, given, data, part) for part in parts), 0.0)

    def fill(self, data: Data, place: QdrantPlace, start: int) -> None:
        with place.client(grpc=True) as client:
            ((pattern,), _) = client.scroll(self.slug, limit=1, with_payload=True)
            points = (
                models.PointStruct(
                    id=str(uuid.UUID(int=n)), vector=record.vector.tolist(),
                    payload={**(pattern.payload or {}), **self._local().payload(record)},
                )
                for n, record in enumerate(data.records(start), start)
            )  # fmt: skip
            client.upload_points(self.slug, points, batch_size=256, wait=True)

    @contextmanager
    def opened(self, data: Data, place: str) -> Iterator[Client]:  # noqa: ARG002
        local = self._local()
        with QdrantPlace.of(place).client(grpc=self.grpc) as client:
            store = local.store(client, [], self.home)
            yield lambda _: partial(local.search, store)

    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:  # noqa: ARG002
        return [[{}]]


def _by_rest(contender: OnServer) -> OnServer:
    name = contender.name
    return replace(contender, name=f"{name}, REST", like=name, within=name, grpc=False)


def _tuned(contender: ServerNested) -> OnServer:
    name = contender.name
    return Tuned(
        f"{name}, tuned", contender.links, within=name,
        eighths=contender.eighths, precision=contender.precision,
    )  # fmt: skip


def _same_plan(contender: ServerNested) -> list[OnServer]:
    """Return who sends a nestvec collection's plan by hand, by gRPC and by REST."""
    name = contender.name.replace("nestvec", "by hand")
    by_hand = SamePlan(
        name, contender.links, contender.name, within=contender.name,
        eighths=contender.eighths, precision=contender.precision,
    )  # fmt: skip
    return [by_hand, replace(by_hand, name=f"{name}, REST", grpc=False)]


_NESTED = (
    ServerNested("nestvec, half turbo", eighths=4, precision="turbo"),
    ServerNested("nestvec, quarter turbo", eighths=2, precision="turbo"),
    ServerNested("nestvec, half binary", eighths=4, precision="binary"),
    ServerNested("nestvec, full turbo", eighths=8, precision="turbo"),
    ServerNested("nestvec, full binary", eighths=8, precision="binary"),
)
_SINGLES = (
    Single("Qdrant float32"),
    Single("Qdrant int8", quantised="int8"),
    Single("Qdrant turbo", quantised="turbo"),
    Single("Qdrant binary", quantised="binary"),
)
_FRAMEWORKS = (
    Framework("langchain-qdrant", store=LangChainLocal),
    Framework("llama-index qdrant", store=LlamaIndexLocal),
)

_OWN: tuple[OnServer, ...] = (
    *_NESTED,
    *(with_more_links(each) for each in _NESTED if each.eighths == 8),
    *_SINGLES,
    *map(with_more_links, _SINGLES),
    *_FRAMEWORKS,
)

CONTENDERS: tuple[Contender, ...] = (
    *_OWN,
    *map(_tuned, (each for each in _OWN if isinstance(each, ServerNested))),
    *map(_by_rest, _OWN),
    *(made for each in _NESTED for made in _same_plan(each)),
)
