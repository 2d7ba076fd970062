"""Collections of a stand-in for a Qdrant server: the models of its API over the engine of Edge.

A collection is spread over several shards, as it is in a cluster: each of them answers a query on
its own, and the answers are merged.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import qdrant_edge as qe
from qdrant_client import models

__all__ = ["Engine", "EngineError"]

#: In memory where the system has such a place, since nothing here is kept.
_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None


class EngineError(Exception):
    """What a server refuses, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """All collections of a server."""

    def __init__(self, shards: int = 3) -> None:
        self._shards = shards
        self._root = Path(tempfile.mkdtemp(prefix="nestvec-qdrant-", dir=_DISK))
        self.collections: dict[str, Collection] = {}

    def __getitem__(self, name: str) -> Collection:
        try:
            return self.collections[name]
        except KeyError:
            raise EngineError(404, f"Not found: Collection `{name}` doesn't exist!") from None

    def create(self, name: str, body: models.CreateCollection) -> bool:
        if name in self.collections:
            raise EngineError(409, f"Wrong input: Collection `{name}` already exists!")
        place = self._root / uuid.uuid4().hex
        self.collections[name] = Collection(place, body, self._shards)
        return True

    def drop(self, name: str) -> bool:
        collection = self.collections.pop(name, None)
        if collection is not None:
            collection.drop()
        return collection is not None

    def close(self) -> None:
        for name in list(self.collections):
            self.drop(name)
        shutil.rmtree(self._root)


class Collection:
    """One collection."""

    def __init__(self, place: Path, body: models.CreateCollection, shards: int) -> None:
        self.body = body
        self.metadata = dict(body.metadata or {})
        self.shard_keys: list[Any] = []
        #: The documents whose scores are NaN.
        self.nan: set[str] = set()
        self.indexes: dict[str, models.PayloadIndexInfo] = {}
        self._place = place
        vectors: Any = body.vectors
        self._names = list(vectors) if isinstance(vectors, dict) else [""]
        made: Any = (
            {name: _vector(params) for name, params in vectors.items()}
            if isinstance(vectors, dict)
            else _vector(vectors)
        )
        self._shards = []
        for n in range(shards):
            (place / str(n)).mkdir(parents=True)
            config = qe.EdgeConfig(vectors=made)
            self._shards.append(qe.EdgeShard.create(str(place / str(n)), config))

    def drop(self) -> None:
        for shard in self._shards:
            shard.close()
        shutil.rmtree(self._place)

    def info(self) -> dict[str, Any]:
        told = [shard.info() for shard in self._shards]
        params = {
            "vectors": self.body.vectors,
            "shard_number": len(self._shards),
            "replication_factor": self.body.replication_factor or 1,
            "write_consistency_factor": self.body.write_consistency_factor or 1,
            "on_disk_payload": True,
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": sum(each.points_count for each in told),
            "indexed_vectors_count": sum(each.indexed_vectors_count for each in told),
            "segments_count": sum(each.segments_count for each in told),
            "config": {
                "params": params,
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0, "flush_interval_sec": 5,
                },
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "metadata": self.metadata or None,
            },
            "payload_schema": self.indexes,
        }  # fmt: skip

    def index(self, key: str, kind: Any) -> None:
        simple = isinstance(kind, models.PayloadSchemaType)
        name = kind.value if simple else kind.type.value
        schema: Any = getattr(qe.PayloadSchemaType, name.capitalize())
        if isinstance(kind, models.KeywordIndexParams):
            schema = qe.KeywordIndexParams(is_tenant=kind.is_tenant)
        for shard in self._shards:
            shard.update(qe.UpdateOperation.create_field_index(key, schema))
        self.indexes[key] = models.PayloadIndexInfo(
            data_type=models.PayloadSchemaType(name), points=0, params=None if simple else kind
        )

    # Points

    def upsert(self, points: Iterable[tuple[Any, Any, Any]]) -> None:
        """Write points: their ids, vectors and payloads."""
        parts: list[list[qe.Point]] = [[] for _ in self._shards]
        for id, vector, payload in points:
            made = _id(id)
            parts[self._of(made)].append(qe.Point(made, vector, payload))
        for shard, part in zip(self._shards, parts, strict=True):
            if part:
                shard.update(qe.UpdateOperation.upsert_points(part))

    def new_vector(self, name: str, dense: models.DenseVectorConfig) -> None:
        for shard in self._shards:
            shard.update(
                qe.UpdateOperation.create_dense_vector(
                    name, dense.size, getattr(qe.Distance, dense.distance.value), None,
                    getattr(qe.VectorStorageDatatype, (dense.datatype or "float32").capitalize()),
                )
            )  # fmt: skip
        params = {name: value for name, value in dense.model_dump().items() if value is not None}
        self.body.vectors[name] = models.VectorParams(**params)  # type: ignore[index]
        self._names.append(name)

    def delete_vector(self, name: str) -> None:
        for shard in self._shards:
            shard.update(qe.UpdateOperation.delete_vector_name(name))
        del self.body.vectors[name]  # type: ignore[union-attr]
        self._names.remove(name)

    def update_vectors(self, points: Iterable[models.PointVectors]) -> None:
        for point in points:
            made, vector = _id(point.id), cast("Any", point.vector)
            changed = qe.UpdateOperation.update_vectors([qe.PointVectors(made, vector)])
            self._shards[self._of(made)].update(changed)

    def delete(self, selector: Any) -> None:
        condition: Any = (
            _filter(selector.filter)
            if isinstance(selector, models.FilterSelector)
            else qe.Filter(must=[qe.HasIdCondition(set(map(_id, selector.points)))])
        )
        for shard in self._shards:
            shard.update(qe.UpdateOperation.delete_points_by_filter(condition))

    def retrieve(self, ids: Iterable[Any], payload: Any, vector: Any) -> list[dict[str, Any]]:
        found: list[Any] = []
        wanted: list[Any] = list(map(_id, ids))
        for shard in self._shards:
            found += shard.retrieve(wanted, bool(payload), vector or False)
        return [self._told(point) for point in found]

    def scroll(self, body: models.ScrollRequest) -> dict[str, Any]:
        limit = body.limit or 10
        request = qe.ScrollRequest(
            offset=None if body.offset is None else _id(body.offset), limit=limit + 1,
            filter=_filter(body.filter), with_payload=bool(body.with_payload),
            with_vector=body.with_vector or False,
        )  # fmt: skip
        found = [point for shard in self._shards for point in shard.scroll(request)[0]]
        found.sort(key=lambda point: (isinstance(point.id, uuid.UUID), point.id))
        after = str(found[limit].id) if len(found) > limit else None
        return {"points": list(map(self._told, found[:limit])), "next_page_offset": after}

    def count(self, condition: models.Filter | None) -> int:
        request = qe.CountRequest(True, _filter(condition))
        return sum(shard.count(request) for shard in self._shards)

    def query(self, body: models.QueryRequest) -> dict[str, Any]:
        limit, offset = body.limit or 10, body.offset or 0
        request = qe.QueryRequest(
            limit=limit + offset, query=_nearest(body), prefetches=list(_prefetches(body.prefetch)),
            filter=_filter(body.filter), params=_params(body.params),
            with_payload=bool(body.with_payload), with_vector=body.with_vector or False,
        )  # fmt: skip
        found = [point for shard in self._shards for point in shard.query(request)]
        found.sort(key=attrgetter("score"), reverse=True)
        scored = found[offset : offset + limit]
        return {
            "points": [
                {**self._told(point), "version": point.version, "score": self._score(point)}
                for point in scored
            ]
        }

    def _score(self, point: Any) -> float:
        return math.nan if (point.payload or {}).get("id") in self.nan else float(point.score)

    def _of(self, id: int | uuid.UUID) -> int:
        return int(id) % len(self._shards)

    def _told(self, point: Any) -> dict[str, Any]:
        vector = point.vector
        if isinstance(vector, Mapping):
            vector = {name: list(numbers) for name, numbers in vector.items()}
        if self._names == [""] and isinstance(vector, Mapping):
            vector = vector[""]
        id = point.id if isinstance(point.id, int) else str(point.id)
        return {"id": id, "payload": point.payload, "vector": vector}


# From the models of the API to the engine's own


def _id(id: Any) -> int | uuid.UUID:
    return id if isinstance(id, int) else uuid.UUID(str(id))


def _vector(params: models.VectorParams) -> qe.EdgeVectorParams:
    graph = params.hnsw_config or models.HnswConfigDiff()
    kind: Any = params.datatype and params.datatype.value.capitalize()
    return qe.EdgeVectorParams(
        size=params.size,
        distance=getattr(qe.Distance, params.distance.value),
        datatype=kind and getattr(qe.VectorStorageDatatype, kind),
        on_disk=params.on_disk,
        quantization_config=_quantisation(params.quantization_config),
        hnsw_config=qe.HnswIndexConfig(
            m=16 if graph.m is None else graph.m, ef_construct=graph.ef_construct or 100,
            full_scan_threshold=10_000, payload_m=graph.payload_m,
        ),
    )  # fmt: skip


def _quantisation(config: Any) -> Any:
    if isinstance(config, models.ScalarQuantization):
        scalar = config.scalar
        return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, always_ram=scalar.always_ram)
    if isinstance(config, models.BinaryQuantization):
        return qe.BinaryQuantizationConfig(always_ram=config.binary.always_ram)
    if isinstance(config, models.TurboQuantization):
        assert config.turbo.bits == models.TurboQuantBitSize.BITS4
        bits = qe.TurboQuantBitSize.Bits4
        return qe.TurboQuantQuantizationConfig(always_ram=config.turbo.always_ram, bits=bits)
    assert config is None, config
    return None


def _nearest(body: models.QueryRequest | models.Prefetch) -> qe.Query:
    query: Any = body.query
    numbers: Any = query.nearest if isinstance(query, models.NearestQuery) else query
    return qe.Query.Nearest(numbers, body.using)


def _prefetches(given: Any) -> Iterator[qe.Prefetch]:
    for each in [given] if isinstance(given, models.Prefetch) else given or ():
        yield qe.Prefetch(
            # A server takes 10 where none is given.
            limit=each.limit or 10, query=_nearest(each),
            prefetches=list(_prefetches(each.prefetch)), filter=_filter(each.filter),
            params=_params(each.params),
        )  # fmt: skip


def _params(params: models.SearchParams | None) -> qe.SearchParams | None:
    if params is None:
        return None
    quantised: Any = params.quantization and qe.QuantizationSearchParams(
        ignore=bool(params.quantization.ignore), rescore=params.quantization.rescore,
        oversampling=params.quantization.oversampling,
    )  # fmt: skip
    acorn: Any = params.acorn and qe.AcornSearchParams(
        enable=bool(params.acorn.enable), max_selectivity=params.acorn.max_selectivity
    )
    return qe.SearchParams(
        hnsw_ef=params.hnsw_ef, exact=bool(params.exact), quantization=quantised, acorn=acorn
    )


def _filter(given: models.Filter | None) -> qe.Filter | None:
    if given is None:
        return None
    clauses: dict[str, Any] = {
        name: None if parts is None else [_clause(part) for part in _listed(parts)]
        for name, parts in (
            ("must", given.must), ("should", given.should), ("must_not", given.must_not)
        )
    }  # fmt: skip
    return qe.Filter(**clauses)


def _listed(parts: Any) -> list[Any]:
    return parts if isinstance(parts, list) else [parts]


def _clause(part: Any) -> Any:
    if isinstance(part, models.Filter):
        return _filter(part)
    if isinstance(part, models.HasIdCondition):
        return qe.HasIdCondition(set(map(_id, part.has_id)))
    if isinstance(part, models.HasVectorCondition):
        return qe.HasVectorCondition(part.has_vector)
    if isinstance(part, models.IsEmptyCondition):
        return qe.IsEmptyCondition(part.is_empty.key)
    if isinstance(part, models.IsNullCondition):
        return qe.IsNullCondition(part.is_null.key)
    assert isinstance(part, models.FieldCondition), part
    if part.range is not None:
        dated = isinstance(part.range, models.DatetimeRange)
        ends = part.range.model_dump(exclude_none=True, mode="json" if dated else "python")
        made: Any = (qe.RangeDateTime if dated else qe.RangeFloat)(**ends)
        return qe.FieldCondition(part.key, range=made)
    return qe.FieldCondition(part.key, match=_match(part.match))


def _match(match: Any) -> Any:
    if isinstance(match, models.MatchAny):
        return qe.MatchAny(match.any)
    assert isinstance(match, models.MatchValue), match
    value = match.value
    # The engine's binding takes Python's booleans for integers.
    return qe.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]
