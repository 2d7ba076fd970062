"""What Qdrant and Edge share: documents as points, and filters as conditions.

Conditions are dicts in the form of Qdrant's REST API; each engine builds its own classes of them.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..filter_values import path
from ..filters import And, Eq, Filter, Ge, Gt, In, Le, Lt, Ne, Not, NotIn, Or
from ..records import Hit, Record

__all__ = ["Bounds", "Condition", "bounds", "hit", "payload", "point_id", "record"]

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


def hit(payload: Mapping[str, Any], score: float) -> Hit:
    """Return the hit that a payload and its score make."""
    return Hit(payload["id"], payload["text"], _metadata(payload), score)


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    raw = payload.get("raw")
    metadata: dict[str, Any] = payload["metadata"] if raw is None else json.loads(raw)
    return metadata


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


def bounds(where: Filter, drift: bool) -> Bounds:
    """Return the conditions around a filter; `drift` says that some payloads have `raw`."""
    if isinstance(where, (And, Or)):
        parts = [bounds(part, drift) for part in where.parts]
        if isinstance(where, Or) and not parts:
            return _exactly(NOTHING)
        clause = "must" if isinstance(where, And) else "should"
        if all(part.exact for part in parts):
            return _exactly({clause: [part.sure for part in parts]})
        return Bounds(
            {clause: [part.sure for part in parts]}, {clause: [part.possible for part in parts]}
        )
    if isinstance(where, Not):
        return _negated(bounds(where.part, drift))
    if isinstance(where, In):
        any_of = bounds(Or(tuple(where.equals())), drift)
        return _negated(any_of) if isinstance(where, NotIn) else any_of
    if isinstance(where, Ne):
        return _negated(bounds(Eq(where.key, where.value), drift))
    assert isinstance(where, (Eq, Lt, Le, Gt, Ge)), where
    key = _json_path(where.key)
    return Bounds(NOTHING, ALL) if key is None else _comparison(key, where, drift)


def _exactly(condition: Condition) -> Bounds:
    return Bounds(condition, condition)


def _negated(inner: Bounds) -> Bounds:
    if inner.exact:
        return _exactly({"must_not": [inner.sure]})
    return Bounds({"must_not": [inner.possible]}, {"must_not": [inner.sure]})


def _json_path(key: str) -> str | None:
    """Return the engine's path to a metadata key, or None where its syntax has none."""
    steps = path(key)
    if any('"' in step or "\\" in step for step in steps):
        return None
    quoted = (step if _BARE_STEP.fullmatch(step) else f'"{step}"' for step in steps)
    return ".".join(("metadata", *quoted))


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
    documents whose floats it may have changed in the last bit.
    """
    value = where.value
    inner: Condition = {"key": key, "range": _range(where, float(value))}
    coarse = abs(value) >= 2**53
    if not coarse and not drift:
        return _exactly(inner)
    outer: Condition = {"key": key, "range": _widened(where, float(value))}
    if coarse:
        return Bounds(NOTHING, outer)
    kept_raw: Condition = {"must_not": [{"is_empty": {"key": "raw"}}]}
    return Bounds(
        {"must": [inner, {"is_empty": {"key": "raw"}}]},
        {"should": [inner, {"must": [outer, kept_raw]}]},
    )


def _widened(where: Eq | Lt | Le | Gt | Ge, value: float) -> dict[str, float]:
    below = math.nextafter(math.nextafter(value, -math.inf), -math.inf)
    above = math.nextafter(math.nextafter(value, math.inf), math.inf)
    if isinstance(where, Eq):
        return {"gte": below, "lte": above}
    return {"lte": above} if isinstance(where, (Lt, Le)) else {"gte": below}
