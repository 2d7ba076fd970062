"""What Qdrant and Edge share: documents as points, and fields as vectors."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import NestingError
from ..filter_values import Step, instant
from ..funnel import Knobs, Plan
from ..nesting import Field, Matrix, Nesting, nest
from ..records import Batch, Hit, Record
from .base import Entry, Stored
from .point_filters import misparsed
from .point_indexes import written

__all__ = [
    "Vector",
    "as_stored",
    "beam",
    "check_in_place",
    "coded",
    "entries",
    "hit",
    "in_field",
    "made_of",
    "nested",
    "oversampled",
    "payload",
    "point_id",
    "record",
    "rows_of",
    "same_numbers",
    "stranger",
    "vector_name",
    "vectors",
]

T = TypeVar("T")

#: String ids become uuid5 in this namespace, because a point's id is a UUID or an integer.
NAMESPACE = uuid.UUID("6f1f4c26-7f0d-5b52-9d0b-6e657374ec00")


def point_id(id: str) -> uuid.UUID:
    """Return the id of the point that holds the document with this id."""
    return uuid.uuid5(NAMESPACE, id)


def payload(
    id: str, text: str, metadata: Mapping[str, Any], depth: int | None = None
) -> dict[str, Any]:
    """Return a document's payload; what is deeper in metadata than `depth` is only in `raw`.

    `raw`, the metadata as JSON, is there only where the engine would read it otherwise, and
    `empty`, the paths of empty lists, only where there are any: conditions take them for missing.
    """
    shown = metadata if depth is None or not _deeper(metadata, depth) else _cut(metadata, depth)
    made = {"id": id, "text": text, "metadata": shown}
    if shown is not metadata or _misread(metadata):
        made["raw"] = json.dumps(metadata)
    if empty := [key for steps in _empty_lists(metadata, ()) if (key := written(steps))]:
        made["empty"] = sorted(set(empty))
    return made


def _deeper(value: Any, depth: int) -> bool:
    """Return whether a value has more levels of dicts and lists."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return depth == 0 or any(_deeper(item, depth - 1) for item in value)


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(item, depth - 1) for key, item in value.items()} if depth else {}
    if isinstance(value, list):
        return [_cut(item, depth - 1) for item in value] if depth else []
    return value


def _misread(value: Any) -> bool:
    """Return whether the engine may take a value for another one than it is.

    It may parse a number to another float. And it takes more strings for dates than ISO 8601 has,
    such as "2026-1-2" or "2026-01-02T03:04:05 UTC", and fewer.
    """
    if isinstance(value, str):
        if not _DATE_LIKE.match(value):
            return False
        return instant(value) is None or not _PLAIN_DATE.fullmatch(value)
    if isinstance(value, float):
        return misparsed(value)
    if isinstance(value, Mapping):
        return any(map(_misread, value.values()))
    return isinstance(value, list) and any(map(_misread, value))


#: What the engine may take for a date, and the dates that every version reads as `instant` does:
#: not those with T and without seconds, which 1.16 and 1.17 do not know.
_DATE_LIKE = re.compile(r"\s*[+-]?\d+\s*-\s*\d{1,2}\s*-\s*\d{1,2}\s*(?:$|[Tt\d\s])")
_PLAIN_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?: \d\d:\d\d|[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:[0-5]\d)?)?", re.ASCII
)


def _empty_lists(value: Any, steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the paths in metadata that lead to an empty list."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, (Mapping, list)):
                yield from _empty_lists(item, (*steps, key))
    elif not value:
        yield steps
    else:
        for item in value:
            if isinstance(item, (Mapping, list)):
                yield from _empty_lists(item, (*steps, None))


def record(payload: Mapping[str, Any], vector: Any = None) -> Record:
    """Return the document that a payload holds."""
    return Record(payload["id"], payload["text"], _metadata(payload), vector)


def stranger(id: Any, payload: Mapping[str, Any] | None) -> Record:
    """Return what surely can be told of a point that others may have written: an id."""
    return Record(str((payload or {}).get("id") or id))


def as_stored(point: Any) -> Stored:
    """Return a point as the engine has it, also one that others wrote."""
    payload, vectors = point.payload or {}, point.vector or {}
    if not isinstance(vectors, Mapping):
        vectors = {"full": vectors}
    text = payload.get("text")
    return Stored(
        point.id,
        stranger(point.id, payload).id,
        text if isinstance(text, str) else "",
        {name: _decoded(name, np.array(row, np.float32)) for name, row in vectors.items()},
    )


def _decoded(name: str, row: Matrix) -> Matrix:
    """Return the numbers that `coded` made bytes of, but for their rounding."""
    return (row - np.float32(128)) / np.float32(127) if name.endswith("_uint8") else row


def same_numbers(one: Matrix | None, other: Matrix | None) -> bool:
    """Return whether two vectors are the same, or both are lacking."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=True)


def hit(payload: Mapping[str, Any], score: float) -> Hit:
    """Return the hit that a payload and its score make."""
    return Hit(payload["id"], payload["text"], _metadata(payload), score)


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    raw = payload.get("raw")
    metadata: dict[str, Any] = payload["metadata"] if raw is None else json.loads(raw)
    return metadata


# Fields

#: The largest ef that is worth a try.
_MOST_EF = 4_096


class Vector(NamedTuple):
    """A named vector of a point: how one or two fields are kept."""

    name: str
    size: int
    #: "float32"; "float16" where asked for, or enough, because only the quantised numbers are
    #: scored; or "uint8", compared by distance, which orders bytes as cosine does unit vectors.
    datatype: str
    #: The precision of the quantised copy that is searched, None where there is none.
    quantised: str | None
    #: It has a graph, and what it is searched by stays in memory.
    first: bool


def vector_name(field: Field) -> str:
    """Return the named vector of a field: the full vector is quantised in place.

    But `uint8` is no quantisation to the engine: bytes are all that such a vector has.
    """
    return "full" if field.full and field.precision != "uint8" else field.name


def vectors(nesting: Nesting, graphs: Sequence[str] = ()) -> list[Vector]:
    """Return the named vectors of a nesting; the first field has a graph, and those in `graphs`."""
    made = {}
    searched = {vector_name(nesting.fields[0])}
    searched |= {vector_name(field) for field in nesting.fields if field.name in graphs}
    for field in reversed(nesting.fields):  # so that what quantises full comes after full
        name = vector_name(field)
        precision = nesting.full.precision if name == "full" else field.precision
        made[name] = Vector(
            name,
            field.length,
            precision if precision in ("float32", "uint8") else "float16",
            field.precision if field.precision in ("int8", "binary", "turbo") else None,
            name in searched,
        )
    return list(made.values())


def made_of(full: Sequence[Any], field: Field, dim: int, names: Sequence[str]) -> Matrix:
    """Return the (n, length) numbers of a field for n full vectors. Raises NestingError."""
    return nest(full, Nesting((field, Field(dim, full=True))), names)[field.name]


def rows_of(batch: Batch, vector: Vector) -> Matrix:
    """Return a batch's rows of a vector, also of one that came after the batch was made."""
    if (rows := batch.vectors.get(vector.name)) is not None:
        return rows
    full = batch.vectors["full"]
    if vector.size == full.shape[1]:
        return full
    names = [f"record {id!r}" for id in batch.ids]
    return made_of(list(full), Field(vector.size), full.shape[1], names)


def entries(nesting: Nesting, added: Sequence[str]) -> list[Entry]:
    """Return the fields that a plan may begin with; those that have a graph are indexed."""
    first = vector_name(nesting.fields[0])
    return [
        Entry(
            field,
            indexed=(graph := vector_name(field) == first or field.name in added),
            most_ef=_MOST_EF if graph else None,
            oversampling=field.quantised,
        )
        for field in nesting.fields[:-1] or nesting.fields
    ]


def check_in_place(nesting: Nesting, url: str) -> None:
    """Refuse a nesting that quantises the full vector twice. Raises NestingError."""
    in_place = [field.spec for field in nesting.fields[:-1] if vector_name(field) == "full"]
    if len(in_place) > 1:
        raise NestingError(
            f"{url} quantises the full vector in place, one way at a time; "
            f"choose one of {', '.join(in_place)}"
        )


def coded(rows: Matrix, precision: str) -> Matrix:
    """Return a field's numbers as the engine takes them: for bytes whole ones from 1 to 255."""
    return np.round(rows * np.float32(127)) + np.float32(128) if precision == "uint8" else rows


def nested(
    stages: Sequence[tuple[Field, int]],
    condition: Any,
    make: Callable[[Field, int, T | None, Any], T],
) -> T | None:
    """Return the prefetch that ends with the last of the stages, made by `make` from inside out.

    The filter goes to the innermost: it limits what the first stage looks at.
    """
    inner: T | None = None
    for field, limit in stages:
        inner = make(field, limit, inner, condition if inner is None else None)
    return inner


def beam(limit: int, knobs: Knobs) -> int:
    """Return how many nodes of the graph a search keeps in view for a shortlist."""
    return max(128, limit) if knobs.ef is None else knobs.ef


def oversampled(field: Field, knobs: Knobs) -> float | None:
    """Return how often its limit a stage finds by quantised numbers, to rescore in its field.

    None where it does not: rescoring there would be work twice, since a later stage rescores.
    """
    return knobs.oversampling if field.quantised else None


def in_field(plan: Plan) -> float | None:
    """Return the oversampling of a plan that is one search of full's own quantised numbers.

    Rescoring inside the field is then the last stage, and there is nothing to prefetch.
    """
    if len(plan.stages) != 1 or not plan.stages[0][0].full:
        return None
    ((field, limit),) = plan.stages
    times = oversampled(field, plan.knobs)
    return None if times is None else times * limit / plan.limit
