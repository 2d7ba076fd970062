"""Filters in the forms that users bring: dicts as LangChain has them, and LlamaIndex's filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from .errors import FilterError
from .filter_nodes import MAX_DEPTH
from .filter_values import instant, short
from .filters import And, Eq, F, Filter, Not, Or

__all__ = ["Where", "as_filter", "from_dict", "from_llama_index"]


class MetadataFilters(Protocol):
    """LlamaIndex's MetadataFilters, by what they have."""

    @property
    def filters(self) -> Any: ...
    @property
    def condition(self) -> Any: ...


#: What a store takes as `where`.
Where = Filter | Mapping[str, Any] | MetadataFilters


def as_filter(where: Any) -> Filter | None:
    """Return what was given as `where` as a filter: a Filter, a dict, MetadataFilters, or None.

    Raises FilterError, which names the key, on what has no meaning.
    """
    if where is None or isinstance(where, Filter):
        return where
    return _filter(where, 0)


def from_dict(given: Mapping[str, Any]) -> Filter:
    """Return the filter that a dict in the form of MongoDB writes.

    `{"year": {"$gte": 2020, "$lt": 2024}, "$or": [{"lang": "en"}, {"lang": "de"}]}`: a key with a
    value is `$eq`, and several keys or operators must hold together. Datetimes are Python's, or
    `{"$date": "2024-05-01T12:00:00Z"}`. Raises FilterError, which names the key.
    """
    if not isinstance(given, Mapping):
        raise FilterError(
            f"expected a dict such as {{'year': {{'$gte': 2020}}}}, got {short(given)}"
        )
    return _from_dict(given, 0)


def from_llama_index(given: Any) -> Filter:
    """Return the filter that LlamaIndex's MetadataFilters mean.

    Told by what they have, `filters` and `condition`, or `key`, `operator` and `value`: nothing is
    imported. Raises FilterError.
    """
    return _from_llama_index(given, 0)


def _filter(given: Any, depth: int) -> Filter:
    if isinstance(given, Filter):
        return given
    if isinstance(given, Mapping):
        return _from_dict(given, depth)
    if hasattr(given, "filters") or (hasattr(given, "key") and hasattr(given, "operator")):
        return _from_llama_index(given, depth)
    raise FilterError(
        "a filter is F('year') >= 2020, a dict such as {'year': {'$gte': 2020}}, or LlamaIndex's "
        f"MetadataFilters; got {short(given)}"
    )


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter has at most {MAX_DEPTH} levels of $and, $or, $not")


def _all(parts: Iterator[Filter]) -> Filter:
    """Return the one part as it is, or the conjunction of several or none."""
    made = tuple(parts)
    return made[0] if len(made) == 1 else And(made)


# Dicts


def _from_dict(given: Mapping[Any, Any], depth: int) -> Filter:
    _check_depth(depth)
    return _all(_entry(key, value, depth) for key, value in given.items())


def _entry(key: Any, value: Any, depth: int) -> Filter:
    if not isinstance(key, str):
        raise FilterError(f"a key of a filter is a string, got {short(key)}")
    if not key.startswith("$"):
        return _field(F(key), value, depth)
    if key == "$and":
        return And(tuple(_parts(key, value, depth)))
    if key == "$or":
        return Or(tuple(_parts(key, value, depth)))
    if key == "$not":
        several = _parts(key, value, depth) if isinstance(value, (list, tuple)) else None
        return _all(map(Not, several)) if several else Not(_filter(value, depth + 1))
    if key == "$id_in":
        return F.id_in(value)
    raise FilterError(
        f"unknown key {short(key)}; known are $and, $or, $not and $id_in, and a metadata key that "
        f"starts with $ is written in double quotes: '\"{key[:40]}\"'"
    )


def _parts(key: str, value: Any, depth: int) -> Iterator[Filter]:
    if not isinstance(value, (list, tuple)):
        raise FilterError(f"{key} takes a list of filters, got {short(value)}")
    return (_filter(part, depth + 1) for part in value)


def _field(key: F, value: Any, depth: int) -> Filter:
    """Return the filter that one key's value or operators mean."""
    _check_depth(depth)
    if isinstance(value, (list, tuple)):
        raise FilterError(
            f"key {key.key!r}: a list has no meaning here; write {{'$in': […]}} for any of its "
            "values, or {'$contains_all': […]}"
        )
    if not isinstance(value, Mapping) or "$date" in value:
        return Eq(key.key, _value(key, value))
    if not value:
        raise FilterError(f"key {key.key!r}: {{}} has no operator")
    return _all(_operation(key, name, operand, depth) for name, operand in value.items())


def _operation(key: F, name: Any, operand: Any, depth: int) -> Filter:
    if name == "$not":
        return Not(_field(key, operand, depth + 1))
    if not isinstance(name, str) or name not in _OPERATORS:
        hint = "" if str(name).startswith("$") else f"; below a key write '{key.key}.…'"
        raise FilterError(
            f"key {key.key!r}: unknown operator {short(name)}; known are $not, "
            f"{', '.join(_OPERATORS)}{hint}"
        )
    return _OPERATORS[name](key, operand)


def _value(key: F, given: Any) -> Any:
    """Return a value, where `{"$date": text}` is a datetime."""
    if not (isinstance(given, Mapping) and "$date" in given):
        return given
    text = given["$date"]
    moment = instant(text) if isinstance(text, str) else text
    if len(given) > 1 or not isinstance(moment, datetime):
        raise FilterError(
            f"key {key.key!r}: $date takes a time such as '2024-05-01T12:00:00Z', got "
            f"{short(given)}"
        )
    return moment


def _values(key: F, name: str, given: Any) -> list[Any]:
    if not isinstance(given, (list, tuple, set, frozenset)):
        raise FilterError(f"key {key.key!r}: {name} takes a list of values, got {short(given)}")
    return [_value(key, item) for item in given]


def _between(key: F, given: Any) -> Filter:
    ends = _values(key, "$between", given)
    if len(ends) != 2:
        raise FilterError(f"key {key.key!r}: $between takes [low, high], got {short(given)}")
    return key.between(*ends)


def _truth(name: str, holds: Callable[[F], Filter]) -> Callable[[F, Any], Filter]:
    """Return an operator that takes true or false."""

    def made(key: F, given: Any) -> Filter:
        if not isinstance(given, bool):
            raise FilterError(f"key {key.key!r}: {name} takes true or false, got {short(given)}")
        return holds(key) if given else Not(holds(key))

    return made


_OPERATORS: Mapping[str, Callable[[F, Any], Filter]] = {
    "$eq": lambda key, given: key == _value(key, given),
    "$ne": lambda key, given: key != _value(key, given),
    "$gt": lambda key, given: key > _value(key, given),
    "$gte": lambda key, given: key >= _value(key, given),
    "$lt": lambda key, given: key < _value(key, given),
    "$lte": lambda key, given: key <= _value(key, given),
    "$in": lambda key, given: key.in_(_values(key, "$in", given)),
    "$nin": lambda key, given: key.not_in(_values(key, "$nin", given)),
    "$between": _between,
    "$contains_any": lambda key, given: key.contains_any(_values(key, "$contains_any", given)),
    "$contains_all": lambda key, given: key.contains_all(_values(key, "$contains_all", given)),
    "$exists": _truth("$exists", F.exists),
    "$is_empty": _truth("$is_empty", F.is_empty),
    "$like": lambda key, given: key.like(given),
    "$ilike": lambda key, given: key.ilike(given),
    "$contains_text": lambda key, given: key.contains_text(given),
    "$matches": lambda key, given: key.matches(given),
}


# LlamaIndex


def _from_llama_index(given: Any, depth: int) -> Filter:
    _check_depth(depth)
    if not hasattr(given, "filters"):
        return _comparison(given)
    condition = _plain(getattr(given, "condition", None)) or "and"
    if condition not in ("and", "or", "not"):
        raise FilterError(f"unknown condition {short(condition)}; known are and, or, not")
    parts = tuple(_parts("filters", given.filters, depth))
    if condition == "or":
        return Or(parts)
    return And(parts if condition == "and" else tuple(map(Not, parts)))


def _comparison(given: Any) -> Filter:
    key, name, value = F(given.key), _plain(given.operator), getattr(given, "value", None)
    if not isinstance(name, str) or name not in _FILTER_OPERATORS:
        raise FilterError(
            f"key {key.key!r}: unknown operator {short(name)}; known are "
            f"{', '.join(_FILTER_OPERATORS)}"
        )
    return _FILTER_OPERATORS[name](key, value)


def _plain(given: Any) -> Any:
    """Return the value of an enum's member, or what was given."""
    return getattr(given, "value", given)


_FILTER_OPERATORS: Mapping[Any, Callable[[F, Any], Filter]] = {
    "==": lambda key, value: key == value,
    "!=": lambda key, value: key != value,
    ">": lambda key, value: key > value,
    ">=": lambda key, value: key >= value,
    "<": lambda key, value: key < value,
    "<=": lambda key, value: key <= value,
    "in": lambda key, value: key.in_(value),
    "nin": lambda key, value: key.not_in(value),
    "any": lambda key, value: key.contains_any(value),
    "all": lambda key, value: key.contains_all(value),
    "contains": lambda key, value: key == value,
    "text_match": lambda key, value: key.contains_text(value),
    "text_match_insensitive": lambda key, value: key.contains_text(value, ignore_case=True),
    "is_empty": lambda key, _: key.is_empty() | (key == ""),
}
