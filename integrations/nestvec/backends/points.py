"""What Qdrant and Edge share: documents as points, fields as vectors, filters as conditions.

Conditions are dicts in the form of Qdrant's REST API; each engine builds its own classes of them.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from ..errors import NestingError
from ..filter_values import path
from ..filters import And, Eq, Filter, Ge, Gt, In, Le, Lt, Ne, Not, NotIn, Or
from ..flow import Flow
from ..nesting import Field, Nesting
from ..records import Hit, Record

__all__ = [
    "Bounds",
    "Condition",
    "Vector",
    "beam",
    "bounds",
    "check_in_place",
    "decided",
    "hit",
    "incomplete",
    "json_path",
    "nested",
    "payload",
    "point_id",
    "record",
    "stranger",
    "vector_name",
    "vectors",
]

T = TypeVar("T")

#: A flow that reads documents a page at a time: condition and place → points' ids with their
#: documents, and the next place, None at the end.
Scroll = Callable[["Condition", Any], Flow[tuple[list[tuple[Any, Record]], Any]]]

Condition = Mapping[str, Any]

#: String ids become uuid5 in this namespace, because a point's id is a UUID or an integer.
NAMESPACE = uuid.UUID("6f1f4c26-7f0d-5b52-9d0b-6e657374ec00")

#: A filter without conditions matches everything, one that asks for no id nothing.
ALL: Condition = {"must": []}
NOTHING: Condition = {"has_id": []}

_BARE_STEP = re.compile(r"[A-Za-z0-9_-]+")


def point_id(id: str) -> uuid.UUID:
    """Return the id of the point that holds the document with this id."""
    return uuid.uuid5(NAMESPACE, id)


def payload(id: str, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document's payload; `raw` is there only when `metadata` would come back changed."""
    made = {"id": id, "text": text, "metadata": metadata}
    if _drifts(metadata):
        made["raw"] = json.dumps(metadata)
    return made


def _drifts(value: Any) -> bool:
    """Return whether the engine may give back another float than it was given.

    It parses decimal numbers fast and not always to the nearest float: exact only where the
    digits fit 53 bits and the power of ten is at most 22 (Clinger 1990).
    """
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")
        whole, _, fraction = mantissa.lstrip("-").partition(".")
        power = int(exponent or 0) - len(fraction)
        return int(whole + fraction) > 2**53 or abs(power) > 22
    if isinstance(value, Mapping):
        return any(map(_drifts, value.values()))
    return isinstance(value, list) and any(map(_drifts, value))


def record(payload: Mapping[str, Any], vector: Any = None) -> Record:
    """Return the document that a payload holds."""
    return Record(payload["id"], payload["text"], _metadata(payload), vector)


def stranger(id: Any, payload: Mapping[str, Any] | None) -> Record:
    """Return what surely can be told of a point that others may have written: an id."""
    return Record(str((payload or {}).get("id") or id))


def hit(payload: Mapping[str, Any], score: float) -> Hit:
    """Return the hit that a payload and its score make."""
    return Hit(payload["id"], payload["text"], _metadata(payload), score)


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    raw = payload.get("raw")
    metadata: dict[str, Any] = payload["metadata"] if raw is None else json.loads(raw)
    return metadata


# Fields


class Vector(NamedTuple):
    """A named vector of a point: how one or two fields are kept."""

    name: str
    size: int
    #: Half precision: asked for, or enough, because only the quantised numbers are scored.
    half: bool
    #: The precision of the quantised copy that is searched, None where there is none.
    quantised: str | None
    #: The first field has the graph, and what it is searched by stays in memory.
    first: bool


def vector_name(field: Field) -> str:
    """Return the named vector of a field: the full vector is quantised in place."""
    return "full" if field.full else field.name


def vectors(nesting: Nesting) -> list[Vector]:
    """Return the named vectors of a nesting."""
    made = {}
    for field in reversed(nesting.fields):  # so that what quantises full comes after full
        precision = nesting.full.precision if field.full else field.precision
        made[vector_name(field)] = Vector(
            vector_name(field),
            field.length,
            precision != "float32",
            field.precision if field.precision in ("int8", "binary", "turbo") else None,
            vector_name(field) == vector_name(nesting.fields[0]),
        )
    return list(made.values())


def check_in_place(nesting: Nesting, url: str) -> None:
    """Refuse a nesting that quantises the full vector twice. Raises NestingError."""
    in_place = [field.spec for field in nesting.fields[:-1] if field.full]
    if len(in_place) > 1:
        raise NestingError(
            f"{url} quantises the full vector in place, one way at a time; "
            f"choose one of {', '.join(in_place)}"
        )


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


def beam(limit: int) -> int:
    """Return how many nodes of the graph a search keeps in view for a shortlist."""
    return max(128, limit)


# Filters


class Bounds(NamedTuple):
    """Two conditions around a filter: what surely matches, and what possibly does.

    Where they are the same object the filter is said exactly. Otherwise the documents between
    the two are to be asked of the predicate, `Filter.matches`.
    """

    sure: Condition
    possible: Condition

    @property
    def exact(self) -> bool:
        return self.sure is self.possible

    @property
    def between(self) -> Condition:
        """What possibly matches and does not surely."""
        return {"must": [self.possible], "must_not": [self.sure]}


def decided(where: Filter, around: Bounds, scroll: Scroll) -> Flow[Condition]:
    """Return the condition that says a filter exactly.

    Where conditions cannot, the predicate is asked of the documents between the two.
    """
    if around.exact:
        return around.sure
    after, ids = None, []
    while True:
        found, after = yield from scroll(around.between, after)
        ids += [id for id, document in found if where.matches(document)]
        if after is None:
            return {"should": [around.sure, {"has_id": ids}]}


def incomplete(
    names: Iterable[str], keys: Iterable[str], scroll: Scroll
) -> Flow[dict[str, tuple[str, ...]]]:
    """Return the documents that lack one of the vectors or payload keys, each with what it lacks.

    `scroll` must bear with points that others wrote: `stranger` does.
    """
    lacking: dict[str, tuple[str, ...]] = {}
    wanted: dict[str, Condition] = {key: {"is_empty": {"key": key}} for key in keys}
    wanted |= {name: {"must_not": [{"has_vector": name}]} for name in names}
    for name, condition in wanted.items():
        after = None
        while True:
            found, after = yield from scroll(condition, after)
            for _, document in found:
                lacking[document.id] = (*lacking.get(document.id, ()), name)
            if after is None:
                break
    return lacking


def bounds(where: Filter, drift: bool, root: str = "metadata") -> Bounds:
    """Return the conditions around a filter; `drift` says that some payloads have `raw`.

    `root` is the path of the payload where metadata is, empty for the payload itself.
    """
    if isinstance(where, (And, Or)):
        parts = [bounds(part, drift, root) for part in where.parts]
        if isinstance(where, Or) and not parts:
            return _exactly(NOTHING)
        clause = "must" if isinstance(where, And) else "should"
        if all(part.exact for part in parts):
            return _exactly({clause: [part.sure for part in parts]})
        return Bounds(
            {clause: [part.sure for part in parts]}, {clause: [part.possible for part in parts]}
        )
    if isinstance(where, Not):
        return _negated(bounds(where.part, drift, root))
    if isinstance(where, In):
        any_of = bounds(Or(tuple(where.equals())), drift, root)
        return _negated(any_of) if isinstance(where, NotIn) else any_of
    if isinstance(where, Ne):
        return _negated(bounds(Eq(where.key, where.value), drift, root))
    assert isinstance(where, (Eq, Lt, Le, Gt, Ge)), where
    key = json_path(where.key, root)
    return Bounds(NOTHING, ALL) if key is None else _comparison(key, where, drift)


def _exactly(condition: Condition) -> Bounds:
    return Bounds(condition, condition)


def _negated(inner: Bounds) -> Bounds:
    if inner.exact:
        return _exactly({"must_not": [inner.sure]})
    return Bounds({"must_not": [inner.possible]}, {"must_not": [inner.sure]})


def json_path(key: str, root: str = "metadata") -> str | None:
    """Return the engine's path to a metadata key, or None where its syntax has none."""
    steps = path(key)
    if any('"' in step or "\\" in step for step in steps):
        return None
    quoted = (step if _BARE_STEP.fullmatch(step) else f'"{step}"' for step in steps)
    return ".".join((root, *quoted) if root else quoted)


def _comparison(key: str, where: Eq | Lt | Le | Gt | Ge, drift: bool) -> Bounds:
    value = where.value
    if isinstance(value, datetime):
        return _exactly({"key": key, "range": _range(where, value.isoformat())})
    if value is None:
        return _exactly({"is_null": {"key": key}})
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(key, where, drift)
    if isinstance(where, Eq):
        return _exactly({"key": key, "match": {"value": value}})
    return Bounds(NOTHING, {"must_not": [{"is_empty": {"key": key}}]})  # strings have no order here


def _range(where: Eq | Lt | Le | Gt | Ge, value: Any) -> dict[str, Any]:
    if isinstance(where, Eq):
        return {"gte": value, "lte": value}
    return {{Lt: "lt", Le: "lte", Gt: "gt", Ge: "gte"}[type(where)]: value}


def _number(key: str, where: Eq | Lt | Le | Gt | Ge, drift: bool) -> Bounds:
    """Return a range, and where floats are too coarse for it a narrower and a wider one.

    The engine compares as 64-bit floats, so integers from 2**53 on need room, and so do the
    documents whose floats it may have changed in the last bit. Only those within two steps of
    the value are left to the predicate.
    """
    value = where.value
    inner: Condition = {"key": key, "range": _range(where, float(value))}
    coarse = abs(value) >= 2**53
    if not coarse and not drift:
        return _exactly(inner)
    below = math.nextafter(math.nextafter(value, -math.inf), -math.inf)
    above = math.nextafter(math.nextafter(value, math.inf), math.inf)
    if isinstance(where, Eq):
        far, wide = NOTHING, {"gte": below, "lte": above}
    elif isinstance(where, (Lt, Le)):
        far, wide = {"key": key, "range": {"lt": below}}, {"lte": above}
    else:
        far, wide = {"key": key, "range": {"gt": above}}, {"gte": below}
    outer: Condition = {"key": key, "range": wide}
    if coarse:
        return Bounds(far, outer)
    kept_raw: Condition = {"must_not": [{"is_empty": {"key": "raw"}}]}
    return Bounds(
        {"should": [far, {"must": [inner, {"is_empty": {"key": "raw"}}]}]},
        {"should": [inner, {"must": [outer, kept_raw]}]},
    )
