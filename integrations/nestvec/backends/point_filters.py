"""Filters as conditions in the form of Qdrant's REST API, which Qdrant and Edge share.

Where conditions cannot say a filter exactly they say what surely and what possibly matches, and
the predicate is asked of the documents between the two: never an approximation, and no refusal.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..filter_values import path, pattern
from ..filters import (
    And,
    Between,
    Eq,
    Exists,
    Filter,
    Ge,
    Gt,
    IdIn,
    In,
    IsEmpty,
    Le,
    Like,
    Lt,
    Matches,
    Ne,
    Not,
    NotIn,
    Or,
)  # fmt: skip
from ..flow import Flow
from ..funnel import Plan
from ..records import FilterTrace, Record
from .point_indexes import (
    Condition,
    are_uuids,
    json_path,
    key_of,
    lacking,
    serving,
    told,
    written,
)

__all__ = [
    "Bounds", "Dialect", "acorn_below", "bounds", "decided", "filtered", "incomplete",
    "lacks_hits", "misparsed",
]  # fmt: skip

#: A flow that reads documents a page at a time: condition and place → points' ids with their
#: documents, and the next place, None at the end.
Scroll = Callable[[Condition, Any], Flow[tuple[list[tuple[Any, Record]], Any]]]

#: A filter without conditions matches everything, one that asks for no id nothing.
ALL: Condition = {"must": []}
NOTHING: Condition = {"has_id": []}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an engine's conditions can say of a collection.

    `drift`: some payloads have `raw`, because the engine reads them otherwise than they were
    written. `root`: the path of the payload where metadata is, empty for the payload itself.
    `ours`: nestvec writes the payloads, so that `empty` lists the keys of empty lists.
    `text`: there are substring and prefix conditions, and `text` is true wherever all words are,
    in any case. `indexes`: paths with a payload index, and its kind in the engine's words.
    `parsed`: conditions are sent as JSON, whose numbers the engine parses. `depth`: how many levels
    of metadata the engine has; what is deeper is known to `raw` alone. `nulls`: `is_null` surely
    looks into lists, where Qdrant up to 1.19 does so only by an index. `strict`: the engine refuses
    a condition that no index serves.
    """

    point_id: Callable[[str], Any]
    drift: bool = False
    root: str = "metadata"
    ours: bool = True
    text: bool = False
    indexes: Mapping[str, str] = field(default_factory=dict)
    parsed: bool = False
    depth: int = sys.maxsize
    nulls: bool = False
    strict: bool = False


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


def acorn_below(condition: Condition, indexes: Mapping[str, str]) -> float:
    """Return the share of matches below which a graph is walked past what does not match.

    That is ACORN-1 (Patel et al. 2024): by neighbours of neighbours.
    A graph that was built before an index, or without one, has no links of its own between what
    matches, and loses its way: measured with 10 % of 20,000 documents, recall 0.38 without and
    1.00 with. Where no index tells the engine only guesses how many match: always there.
    """
    return _ACORN_BELOW if told(condition, indexes) else 1.0


#: From here on a filter takes too little out of the graph to be worth the second hop.
_ACORN_BELOW = 0.5


def lacks_hits(plan: Plan, found: int, count: Callable[[], Flow[int]]) -> Flow[bool]:
    """Return whether a filtered query found fewer than there are, which `count` tells."""
    if found == plan.k or not plan.stages:
        return False
    return found < (yield from count()) - plan.offset


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


def bounds(where: Filter, dialect: Dialect) -> Bounds:
    """Return the conditions around a filter."""
    if isinstance(where, (And, Or)):
        return _joined(where, [bounds(part, dialect) for part in where.parts])
    if isinstance(where, Not):
        return _negated(bounds(where.part, dialect))
    if isinstance(where, NotIn):
        return _negated(bounds(In(where.key, where.values), dialect))
    if isinstance(where, Ne):
        return _negated(bounds(Eq(where.key, where.value), dialect))
    if isinstance(where, In):
        return _any_of(where, dialect)
    if isinstance(where, IdIn):
        ids = [id for id in map(dialect.point_id, where.ids) if id is not None]
        return _exactly({"has_id": ids})
    assert isinstance(where, (Eq, Lt, Le, Gt, Ge, Between, Exists, IsEmpty, Matches, Like)), where
    key = _known(where.key, dialect)
    return (
        Bounds(NOTHING, ALL)
        if key is None
        else _permitted(key, _keyed(key, where, dialect), dialect)
    )


def _permitted(key: str, around: Bounds, dialect: Dialect) -> Bounds:
    """Leave to the predicate what a strict server refuses, because the key's index is another."""
    if (
        dialect.strict
        and key in dialect.indexes
        and key in lacking(around.possible, dialect.indexes)
    ):
        return _among(key)
    return around


def _exactly(condition: Condition) -> Bounds:
    return Bounds(condition, condition)


def _joined(where: And | Or, parts: Sequence[Bounds]) -> Bounds:
    if isinstance(where, Or) and not parts:
        return _exactly(NOTHING)
    clause = "must" if isinstance(where, And) else "should"
    if all(part.exact for part in parts):
        return _exactly({clause: [part.sure for part in parts]})
    return Bounds(
        {clause: [part.sure for part in parts]}, {clause: [part.possible for part in parts]}
    )


def _negated(inner: Bounds) -> Bounds:
    if inner.exact:
        return _exactly({"must_not": [inner.sure]})
    return Bounds({"must_not": [inner.possible]}, {"must_not": [inner.sure]})


def _any_of(where: In, dialect: Dialect) -> Bounds:
    """Return one condition for all strings, and one for each other value."""
    key = _known(where.key, dialect)
    texts = [value for value in where.values if isinstance(value, str)]
    if key is None or not texts:
        return bounds(Or(tuple(where.equals())), dialect)
    others = (equal for equal in where.equals() if not isinstance(equal.value, str))
    parts = [_permitted(key, _texts(key, texts, dialect), dialect)]
    parts += [bounds(other, dialect) for other in others]
    return parts[0] if len(parts) == 1 else _joined(Or(()), parts)


def _keyed(
    key: str,
    where: Eq | Lt | Le | Gt | Ge | Between | Exists | IsEmpty | Matches | Like,
    dialect: Dialect,
) -> Bounds:
    if isinstance(where, IsEmpty):
        return _exactly({"is_empty": {"key": key}})
    if isinstance(where, Exists):
        return _exists(key, where, dialect)
    if isinstance(where, Matches):
        return _matches(key, where, dialect)
    if isinstance(where, Like):
        return _like(key, where, dialect)
    value = where.low if isinstance(where, Between) else where.value
    if value is None:
        return _null(key, dialect)
    if isinstance(value, datetime):
        return _moments(key, where, dialect)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _numbers(key, where, dialect)
    if isinstance(where, Eq):
        if isinstance(value, bool):
            return _exactly({"key": key, "match": {"value": value}})
        return _texts(key, [value], dialect)
    return _among(key)  # strings have no order here


def _among(key: str, *conditions: Condition) -> Bounds:
    """Leave what holds a value, and satisfies the conditions, to the predicate."""
    some: Condition = {"must_not": [{"is_empty": {"key": key}}]}
    return Bounds(NOTHING, {"must": [*conditions, some]} if conditions else some)


def _known(key: str, dialect: Dialect) -> str | None:
    """Return the engine's path to a key, None where the engine does not have it."""
    # A list there would be a level more.
    return json_path(key, dialect.root) if len(path(key)) < dialect.depth else None


# Presence


def _null(key: str, dialect: Dialect) -> Bounds:
    """Return what finds null, also in a list.

    Some engines look into lists and some do not, and a cluster may have both. Those that do find
    null in a list of lists by the path to its elements, which is another thing.
    """
    null: Condition = {"is_null": {"key": key}}
    if dialect.nulls or dialect.strict or key in dialect.indexes:
        return _exactly(null)
    listed: Condition = {"is_null": {"key": f"{key}[]"}}
    deeper: Condition = {"is_null": {"key": f"{key}[][]"}}
    surely: Condition = {"must": [listed], "must_not": [deeper]}
    return Bounds({"should": [null, surely]}, {"should": [null, listed]})


def _exists(key: str, where: Exists, dialect: Dialect) -> Bounds:
    # is_empty is true also of null, which is_null tells apart, and of empty lists, which only
    # the payload's own list of them does.
    some: Condition = {"must_not": [{"is_empty": {"key": key}}]}
    null: Condition = {"is_null": {"key": key}}
    if not dialect.ours:
        return Bounds({"should": [some, null]}, ALL)
    emptied: Condition = {"key": "empty", "match": {"any": [written(path(where.key))]}}
    return _exactly({"should": [some, null, emptied]})


# Text


def _texts(key: str, texts: Sequence[str], dialect: Dialect) -> Bounds:
    """Return what finds one of some strings.

    As a list also where it is one: an index of numbers or datetimes takes a single string that is
    a UUID for one of its values, and finds nothing. An index of UUIDs takes them in any spelling.
    """
    inner: Condition = {"key": key, "match": {"any": list(texts)}}
    spelt = dialect.indexes.get(key) == "uuid" and are_uuids(texts)
    return Bounds(NOTHING, inner) if spelt else _exactly(inner)


def _matches(key: str, where: Matches, dialect: Dialect) -> Bounds:
    """Leave to the predicate what the engine finds by its own, smaller idea of a word.

    Every character of its words is one of ours, so a word of ours that it does not find is not
    there. But it finds nothing in a word of marks only, and lowers sigma by its place in the word.
    """
    known = [
        word for word in where.words if any(map(str.isalnum, word)) and not _SIGMA.search(word)
    ]
    if not dialect.text or not known:
        return _among(key)
    return _among(key, {"key": key, "match": {"text": " ".join(known)}})


_SIGMA = re.compile("[\u03c3\u03c2]")


def _like(key: str, where: Like, dialect: Dialect) -> Bounds:
    pieces = pattern(where.pattern)
    plain = ["".join(char for char in piece if char) for piece in pieces]
    fixed = not where.ignore_case and not any(None in piece for piece in pieces)
    if fixed and len(plain) == 1:
        return _texts(key, plain, dialect)
    if where.ignore_case or not dialect.text:
        return _among(key)
    if fixed and len(plain) == 3 and plain[0] == plain[2] == "":
        return _exactly({"key": key, "match": {"substring": plain[1]}})
    if fixed and len(plain) == 2 and plain[1] == "":
        return _exactly({"key": key, "match": {"prefix": plain[0]}})
    whole = [
        "".join(char or "" for char in piece) for piece in pieces if piece and None not in piece
    ]
    return _among(key, *({"key": key, "match": {"substring": text}} for text in whole))


# Numbers and moments

_ENDS: Mapping[type[Filter], tuple[str, ...]] = {
    Eq: ("gte", "lte"), Lt: ("lt",), Le: ("lte",), Gt: ("gt",), Ge: ("gte",),
}  # fmt: skip


def _ends(where: Eq | Lt | Le | Gt | Ge | Between) -> dict[str, Any]:
    """Return the comparison as the ends of a range."""
    if isinstance(where, Between):
        return {"gte": where.low, "lte": where.high}
    return dict.fromkeys(_ENDS[type(where)], where.value)


def _moments(key: str, where: Eq | Lt | Le | Gt | Ge | Between, dialect: Dialect) -> Bounds:
    if dialect.indexes.get(key) in ("integer", "float"):
        return _among(key)  # such an index would answer, as if it held seconds
    ends = {name: value.isoformat() for name, value in _ends(where).items()}
    inner: Condition = {"key": key, "range": ends}
    if not dialect.drift:
        return _exactly(inner)
    some: Condition = {"must_not": [{"is_empty": {"key": key}}]}
    return _around(inner, inner, some)


def _numbers(key: str, where: Eq | Lt | Le | Gt | Ge | Between, dialect: Dialect) -> Bounds:
    """Return a range, and where floats are too coarse for it a narrower and a wider one.

    The engine compares as 64-bit floats, so integers from 2**53 on need room, and so do the
    documents whose floats it may have changed in the last bits. Only those within some steps of
    the value are left to the predicate.
    """
    index = dialect.indexes.get(key)
    if index == "datetime":
        return _among(key)  # such an index would answer, as if it held numbers
    ends = _ends(where)
    inner: Condition = {"key": key, "range": {name: float(v) for name, v in ends.items()}}
    steps = _DRIFT if dialect.drift or dialect.parsed else 2
    far: dict[str, float] = {}
    wide: dict[str, float] = {}
    for name, value in ends.items():
        below, above = (_moved(float(value), to, steps) for to in (-math.inf, math.inf))
        lower = name in ("gt", "gte")
        far["gt" if lower else "lt"] = above if lower else below
        wide["gte" if lower else "lte"] = below if lower else above
    sure: Condition = {"key": key, "range": far}
    if index == "integer":  # it has no floats, whatever the payload holds
        return Bounds(sure, _among(key).possible)
    coarse = any(abs(value) >= 2**53 for value in ends.values())
    if coarse or (dialect.parsed and any(misparsed(float(value)) for value in ends.values())):
        return Bounds(sure, {"key": key, "range": wide})
    return _around(inner, sure, {"key": key, "range": wide}) if dialect.drift else _exactly(inner)


def misparsed(value: float) -> bool:
    """Return whether the engine may parse a number to a neighbour of the nearest float.

    It parses decimals fast: exactly only where the digits fit 53 bits and the power of ten is at
    most 22 (Clinger 1990).
    """
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    power = int(exponent or 0) - len(fraction)
    return int(whole + fraction) > 2**53 or abs(power) > 22


#: Floats between a number and what an engine may make of it. It is up to two off each time that it
#: parses one: as it is sent, and as it is read again; and so is the end of a range.
_DRIFT = 16


def _moved(value: float, towards: float, steps: int) -> float:
    for _ in range(steps):
        value = math.nextafter(value, towards)
    return max(-sys.float_info.max, min(sys.float_info.max, value))  # infinity is no JSON


def _around(inner: Condition, sure: Condition, possible: Condition) -> Bounds:
    """Leave the documents with `raw` to the predicate, but for those that surely match."""
    raw: Condition = {"must_not": [{"is_empty": {"key": "raw"}}]}
    plain: Condition = {"is_empty": {"key": "raw"}}
    exact: Condition = {"must": [inner, plain]}
    if sure is inner:
        return Bounds(exact, {"should": [inner, {"must": [possible, raw]}]})
    return Bounds({"should": [sure, exact]}, {"should": [inner, {"must": [possible, raw]}]})


# How it is served


def filtered(
    around: Bounds, dialect: Dialect, *, matching: int, total: int, between: int, exact_below: int
) -> FilterTrace:
    """Return how a filter is served, where `between` documents lie between its bounds.

    The engine reads what matches one by one where that is less than `exact_below` documents.
    """
    keys = serving(around.possible, dialect.indexes)
    method = "the graph, past what does not match"
    if matching < total * acorn_below(around.possible, dialect.indexes):
        method += " (ACORN)"
    if matching <= exact_below:
        method = "an exact pass over what matches"
    if between:
        method = f"the predicate over {between:,} documents, then {method}"
    spelt = tuple(sorted(filter(None, (key_of(key, dialect.root) for key in keys or ()))))
    return FilterTrace(matching, total, method, spelt, total if keys is None else 0, between)
