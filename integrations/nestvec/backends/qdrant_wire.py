"""What goes over the wire to Qdrant, made of fields, plans, filters and batches; all of it pure.

Models that hold vectors are constructed without validation: the numbers were checked before, and
looking at each again costs more than everything else about a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError
from ..funnel import Knobs, Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch
from .point_indexes import Condition
from .points import (
    Vector,
    beam,
    coded,
    in_field,
    nested,
    oversampled,
    point_id,
    rows_of,
    vectors,
)
from .qdrant_driver import RestToGrpc, grpc, models
from .qdrant_options import QdrantOptions

__all__ = [
    "NUMBER_BYTES", "PRECISIONS", "body", "changed", "changed_params", "filter_of", "messages",
    "new_vector", "points", "query", "stage", "unquantised", "upsert", "vectors_config",
]  # fmt: skip

#: TurboQuant came with client and server 1.18.
_TURBO = ("turbo",) if hasattr(models, "TurboQuantization") else ()
PRECISIONS = ("float32", "float16", "int8", "uint8", *_TURBO, "binary")

#: Scores of the numbers as they are kept, of every candidate: no graph, no quantisation.
_EXACT = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))

#: The same behind a prefetch, where a vector without a graph is scored for every candidate anyway.
_RESCORED = models.SearchParams(quantization=models.QuantizationSearchParams(ignore=True))


def vectors_config(nesting: Nesting, options: QdrantOptions) -> dict[str, models.VectorParams]:
    """Return the named vectors: a graph on the first field, what is only rescored on disk."""
    return {vector.name: _vector_params(vector, options) for vector in vectors(nesting)}


def _distance(vector: Vector) -> models.Distance:
    return models.Distance.EUCLID if vector.datatype == "uint8" else models.Distance.COSINE


def _vector_params(vector: Vector, options: QdrantOptions) -> models.VectorParams:
    return models.VectorParams(
        size=vector.size,
        distance=_distance(vector),
        datatype=models.Datatype(vector.datatype),
        on_disk=not vector.first or vector.quantised is not None,
        quantization_config=_quantisation(vector.quantised),
        hnsw_config=options.graph() if vector.first else models.HnswConfigDiff(m=0, payload_m=0),
    )


def new_vector(vector: Vector) -> Any:
    """Return the settings of a named vector that is added. Raises BackendError without them."""
    if not hasattr(models, "DenseVectorNameConfig"):
        raise BackendError("a field is added by qdrant-client 1.18 or newer; upgrade it")
    dense = models.DenseVectorConfig(
        size=vector.size,
        distance=_distance(vector),
        datatype=models.VectorStorageDatatype(vector.datatype),
    )
    return models.DenseVectorNameConfig(dense=dense)


def changed_params(
    vector: Vector, options: QdrantOptions, m: int
) -> dict[str, models.VectorParamsDiff]:
    """Return the settings of a vector that is there: its graph, its quantisation, its place.

    `m` is what the collection's graphs have where nothing else is said, which has to be said of a
    vector that had none.
    """
    made = _vector_params(vector, options)
    graph = made.hnsw_config
    if vector.first:
        given = {} if graph is None else graph.model_dump(exclude_none=True)
        links = given.get("m", m)
        graph = models.HnswConfigDiff(**{"m": links, "payload_m": links, **given})
    changed = models.VectorParamsDiff(
        hnsw_config=graph,
        quantization_config=made.quantization_config,
        on_disk=made.on_disk,
    )
    return {vector.name: changed}


def unquantised(name: str) -> dict[str, models.VectorParamsDiff]:
    """Return the settings of a vector that is to be quantised no more."""
    return {name: models.VectorParamsDiff(quantization_config=models.Disabled.DISABLED)}


def changed(ids: Sequence[Any], vectors: Mapping[str, Matrix]) -> list[models.PointVectors]:
    """Return other vectors for points that are there."""
    short = {name: _short(rows) for name, rows in vectors.items()}
    return [
        models.PointVectors.model_construct(
            id=id, vector={name: rows[i] for name, rows in short.items()}
        )
        for i, id in enumerate(ids)
    ]


def _quantisation(precision: str | None) -> models.QuantizationConfig | None:
    if precision == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if precision == "turbo":
        return models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(
                always_ram=True, bits=models.TurboQuantBitSize.BITS4
            )
        )
    if precision == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None


def query(
    queries: Mapping[str, Matrix],
    plan: Plan,
    condition: models.Filter | None,
    name_of: Callable[[Field], str],
    *,
    acorn: float | None,
    exact: bool = False,
    walked: bool = False,
    most: float | None = None,
    **settings: Any,
) -> models.QueryRequest:
    """Return the one request that runs a plan: prefetches nested from full inwards.

    `acorn` is the share of matches below which the graph is walked past the others, `exact` is
    for stages without the graph. `walked` says that full has a graph, by which the server would
    look for so many candidates. `most` is the largest oversampling that is allowed.
    """
    past = _past(acorn)
    times, knobs, last = in_field(plan), plan.knobs, None
    if times is not None and most is not None and times > most:
        times = None
    params = _RESCORED if plan.stages and not walked else _EXACT
    if times is None:
        made = _prefetch(queries, name_of, knobs, past, exact=exact)
        last = nested(plan.stages, condition, made)
    else:
        params = _params(plan.stages[0][1], knobs, times, acorn=past, exact=exact)
    full = models.NearestQuery.model_construct(nearest=queries["full"].tolist())
    return models.QueryRequest.model_construct(
        # A single object would do for a server; local mode up to 1.19 evaluates it twice.
        prefetch=None if last is None else [last],
        query=full,
        using=settings.pop("using"),
        filter=condition if last is None else None,
        params=params,
        limit=plan.k,
        offset=plan.offset,
        with_payload=True,
        **settings,
    )


def stage(
    queries: Mapping[str, Matrix],
    plan: Plan,
    condition: models.Filter | None,
    name_of: Callable[[Field], str],
    *,
    acorn: float | None,
    **settings: Any,
) -> models.QueryRequest:
    """Return the request that ends with a plan's last stage before full."""
    past = _past(acorn)
    last = nested(plan.stages, condition, _prefetch(queries, name_of, plan.knobs, past))
    assert last is not None
    return models.QueryRequest.model_construct(
        prefetch=last.prefetch,
        query=last.query,
        using=last.using,
        filter=last.filter,
        params=last.params,
        limit=last.limit,
        offset=0,
        with_payload=False,
        **settings,
    )


def _past(acorn: float | None) -> models.AcornSearchParams | None:
    # Servers before 1.16 do not know it and leave it out.
    return None if acorn is None else models.AcornSearchParams(enable=True, max_selectivity=acorn)


def _params(
    limit: int,
    knobs: Knobs,
    times: float | None,
    *,
    acorn: models.AcornSearchParams | None,
    exact: bool,
) -> models.SearchParams:
    rescored = models.QuantizationSearchParams(rescore=times is not None, oversampling=times)
    return models.SearchParams(
        hnsw_ef=beam(limit, knobs), exact=exact, quantization=rescored, acorn=acorn
    )


def _prefetch(
    queries: Mapping[str, Matrix],
    name_of: Callable[[Field], str],
    knobs: Knobs,
    acorn: models.AcornSearchParams | None,
    *,
    exact: bool = False,
) -> Callable[..., models.Prefetch]:
    def make(
        field: Field, limit: int, inner: models.Prefetch | None, condition: models.Filter | None
    ) -> models.Prefetch:
        numbers = coded(queries[field.name], field.precision).tolist()
        nearest = models.NearestQuery.model_construct(nearest=numbers)
        times = oversampled(field, knobs) if inner is None else None
        return models.Prefetch.model_construct(
            prefetch=None if inner is None else [inner],
            query=nearest,
            using=name_of(field),
            filter=condition,
            params=_params(limit, knobs, times, acorn=acorn, exact=exact),
            limit=limit,
        )

    return make


def points(
    batch: Batch, payloads: list[dict[str, Any]], part: slice, written: Iterable[Vector]
) -> models.Batch:
    """Return a part of a batch as points, column by column, for local mode."""
    columns = {vector.name: _short(_rows(batch, part, vector)) for vector in written}
    return models.Batch.model_construct(
        ids=_point_ids(batch, part), vectors=columns, payloads=payloads[part]
    )


def body(
    batch: Batch,
    payloads: list[dict[str, Any]],
    part: slice,
    written: Iterable[Vector],
    shard_key: str | int | None,
) -> bytes:
    """Return what `points` returns as the JSON of a request.

    The client's models would write the numbers one by one, which takes five times as long and would
    be most of an ingest.
    """
    columns = [
        b'"%b":%b' % (vector.name.encode(), _json(_rows(batch, part, vector), vector.datatype))
        for vector in written
    ]
    bare = models.Batch.model_construct(ids=_point_ids(batch, part), payloads=payloads[part])
    around = models.PointsBatch.model_construct(batch=bare, shard_key=shard_key)
    start = '{"batch":{'
    rest = around.model_dump_json(exclude_unset=True, exclude_none=True).removeprefix(start)
    return b'%b"vectors":{%b},%b' % (start.encode(), b",".join(columns), rest.encode())


def messages(
    batch: Batch, payloads: list[dict[str, Any]], part: slice, written: Iterable[Vector]
) -> list[Any]:
    """Return what `points` returns as the messages of gRPC.

    Protobuf keeps a vector as the bytes of its float32 numbers, so the rows are copied as they are.
    The client would make a list of each and read it number by number, which takes eight times as
    long.
    """
    columns = {vector.name: _rows(batch, part, vector) for vector in written}
    vectors = _named_vectors(columns)
    made = []
    for id, payload in zip(_point_ids(batch, part), payloads[part], strict=True):
        bare = models.PointStruct.model_construct(id=id, vector={}, payload=payload)
        message = RestToGrpc.convert_point_struct(bare)
        message.vectors.MergeFromString(next(vectors))
        made.append(message)
    return made


def upsert(
    collection: str, points: Sequence[Any], shard_key: str | int | None, ordering: str | None
) -> Any:
    """Return gRPC's message that writes points and waits until they are applied."""
    key = None if shard_key is None else RestToGrpc.convert_shard_key_selector(shard_key)
    order = None
    if ordering is not None:
        order = RestToGrpc.convert_write_ordering(models.WriteOrdering(ordering))
    return grpc.UpsertPoints(
        collection_name=collection, wait=True, points=points, ordering=order,
        shard_key_selector=key,
    )  # fmt: skip


#: Fields of Qdrant's messages: Vectors.vectors, NamedVectors.vectors, key and value of such an
#: entry, Vector.dense, DenseVector.data.
_NAMED, _ENTRY, _KEY, _VALUE, _DENSE, _DATA = 2, 1, 1, 2, 101, 1


def _named_vectors(columns: Mapping[str, Matrix]) -> Iterator[bytes]:
    """Yield each point's vectors as a message `Vectors`, in protobuf's encoding.

    All points have vectors of the same lengths, so only the numbers differ between them.
    """
    heads, total = [], 0
    for name, rows in columns.items():
        key = _tag(_KEY, len(name.encode())) + name.encode()
        nbytes = 4 * rows.shape[1]
        data = _tag(_DATA, nbytes)
        dense = _tag(_DENSE, len(data) + nbytes) + data
        entry = key + _tag(_VALUE, len(dense) + nbytes) + dense
        head = _tag(_ENTRY, len(entry) + nbytes) + entry
        heads.append(head)
        total += len(head) + nbytes
    around = _tag(_NAMED, total)
    matrices = [np.ascontiguousarray(rows, "<f4") for rows in columns.values()]
    for each in zip(*matrices, strict=True):
        parts = (part for head, row in zip(heads, each, strict=True) for part in (head, row.data))
        yield b"".join((around, *parts))


def _tag(field: int, nbytes: int) -> bytes:
    """Return what comes before a field's bytes: its number, and how many they are."""
    return _varint(field << 3 | 2) + _varint(nbytes)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes((*made, number))


def _rows(batch: Batch, part: slice, vector: Vector) -> Matrix:
    return coded(rows_of(batch, vector)[part], vector.datatype)


def _point_ids(batch: Batch, part: slice) -> list[str]:
    return [str(point_id(id)) for id in batch.ids[part]]


def _short(rows: Matrix) -> list[list[float]]:
    """Return rows as lists of numbers that are short in JSON.

    Nine decimals are as good as float32 for numbers of unit vectors, and make a body of three
    fifths of the bytes of float32 written out as float64.
    """
    short: list[list[float]] = rows.astype(np.float64).round(9).tolist()
    return short


#: A number of a unit vector in JSON with what parts it from the next: "-0.123456789,". What comes
#: before the decimals is one word with the first of them, the others are two words of four.
_NUMBER = np.dtype([("head", "<u4"), ("mid", "<u4"), ("low", "<u4"), ("comma", "u1")])
NUMBER_BYTES = _NUMBER.itemsize


def _words(texts: Iterable[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode(), "<u4")


#: From 0.0 to 1.9, then from -0.0 to -1.9; JSON may have a space where there is no sign.
_HEADS = _words(f"{sign}{n // 10}.{n % 10}" for sign in " -" for n in range(20))
_DIGITS = _words(f"{n:04}" for n in range(10_000))
_WHOLE = _words(f"{n:3}," for n in range(256))


def _json(rows: Matrix, datatype: str) -> bytes:
    """Return rows of unit vectors, or of bytes, as JSON: the numbers of `_short`."""
    if datatype == "uint8":
        text = _WHOLE.take(rows.astype(np.intp)).view(np.uint8)
    else:
        billionths = np.rint(rows.astype(np.float64) * 1e9).astype(np.int32)
        high, low = np.divmod(np.abs(billionths), 10_000)
        high, mid = np.divmod(high, 10_000)
        numbers = np.empty(rows.shape, _NUMBER)
        numbers["head"] = _HEADS.take(high + 20 * (billionths < 0))
        numbers["mid"] = _DIGITS.take(mid)
        numbers["low"] = _DIGITS.take(low)
        numbers["comma"] = ord(",")
        text = numbers.view(np.uint8)
    return b"[[%b]]" % b"],[".join(text[:, :-1])


def filter_of(condition: Condition) -> models.Filter:
    """Return Qdrant's filter for a condition."""
    made = _clause(condition)
    return made if isinstance(made, models.Filter) else models.Filter(must=[made])


def _clause(condition: Condition) -> Any:
    if "has_id" in condition:
        return models.HasIdCondition.model_construct(has_id=list(condition["has_id"]))
    if "has_vector" in condition:
        return models.HasVectorCondition(has_vector=condition["has_vector"])
    if "is_empty" in condition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(**condition["is_empty"]))
    if "is_null" in condition:
        return models.IsNullCondition(is_null=models.PayloadField(**condition["is_null"]))
    if "match" in condition:
        match = models.MatchAny if "any" in condition["match"] else models.MatchValue
        return models.FieldCondition(key=condition["key"], match=match(**condition["match"]))
    if "range" in condition:
        dated = isinstance(next(iter(condition["range"].values())), str)
        made = (models.DatetimeRange if dated else models.Range)(**condition["range"])
        return models.FieldCondition(key=condition["key"], range=made)
    clauses: dict[str, Any] = {
        name: [_clause(part) for part in parts] for name, parts in condition.items()
    }
    return models.Filter(**clauses)
