"""The one filter language, and its meaning as a predicate over a record's metadata.

    (F("year") >= 2020) & F("lang").in_(["en", "de"]) & ~(F("author.name") == "Ann")

A comparison with a missing key or a value of another type is false; `!=`, `not_in` and `~` are
the plain negations, so a missing key satisfies them. On a list, a comparison holds when it holds
for any element. Booleans are not numbers; ints and floats compare as numbers; strings compare by
code point; a datetime or date compares by instant with strings in ISO 8601 form (no offset: UTC).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from operator import eq, ge, gt, le, lt
from typing import Any, ClassVar, NoReturn, Protocol

from .errors import FilterError, RecordError
from .records import plain

__all__ = ["And", "Eq", "F", "Filter", "Ge", "Gt", "In", "Le", "Lt", "Ne", "Not", "NotIn", "Or"]

#: A value that metadata is compared with; datetimes stay datetimes, to compare by instant.
Scalar = str | int | float | bool | None | datetime


class Document(Protocol):
    """What a filter looks at: a Record, a Hit, or anything else with these."""

    @property
    def id(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


class Filter(ABC):
    """A condition on a document; `&`, `|` and `~` combine conditions."""

    __slots__ = ()

    @abstractmethod
    def matches(self, document: Document) -> bool:
        """Return whether a document, whose metadata is plain JSON, satisfies the filter."""

    def __and__(self, other: Filter) -> And:
        return And((*_parts(self, And), *_parts(_filter(other), And)))

    def __or__(self, other: Filter) -> Or:
        return Or((*_parts(self, Or), *_parts(_filter(other), Or)))

    def __invert__(self) -> Not:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise FilterError("combine filters with & | ~, not with and, or, not (nor chain a < b < c)")


def _filter(value: object) -> Filter:
    if not isinstance(value, Filter):
        raise FilterError(f"expected a filter such as F('year') >= 2020, got {value!r}")
    return value


def _parts(node: Filter, kind: type[And | Or]) -> tuple[Filter, ...]:
    return node.parts if isinstance(node, kind) else (node,)


@dataclass(frozen=True, slots=True)
class _Compare(Filter):
    """A comparison of what a key holds with one value."""

    key: str
    value: Any

    symbol: ClassVar[str]
    compare: ClassVar[Callable[[Any, Any], Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _checked_key(self.key))
        object.__setattr__(self, "value", _checked_value(self.key, self.value))
        if self.symbol not in ("==", "!=") and isinstance(self.value, (bool, type(None))):
            raise FilterError(f"key {self.key!r}: {self.value!r} has no order; use == or !=")

    def matches(self, document: Document) -> bool:
        return any(self.holds(item) for item in scalars(document.metadata, self.key))

    def holds(self, stored: Any) -> bool:
        """Return whether one stored scalar satisfies the comparison."""
        pair = comparable(stored, self.value)
        return pair is not None and bool(type(self).compare(*pair))

    def __repr__(self) -> str:
        return f"F({self.key!r}) {self.symbol} {self.value!r}"


class Eq(_Compare):
    """`F(key) == value`."""

    __slots__ = ()
    symbol, compare = "==", eq


class Lt(_Compare):
    """`F(key) < value`."""

    __slots__ = ()
    symbol, compare = "<", lt


class Le(_Compare):
    """`F(key) <= value`."""

    __slots__ = ()
    symbol, compare = "<=", le


class Gt(_Compare):
    """`F(key) > value`."""

    __slots__ = ()
    symbol, compare = ">", gt


class Ge(_Compare):
    """`F(key) >= value`."""

    __slots__ = ()
    symbol, compare = ">=", ge


class Ne(_Compare):
    """`F(key) != value`: everything that `==` does not match, so also a missing key."""

    __slots__ = ()
    symbol, compare = "!=", eq

    def matches(self, document: Document) -> bool:
        return not _Compare.matches(self, document)


@dataclass(frozen=True, slots=True)
class In(Filter):
    """`F(key).in_(values)`: equal to any of them."""

    key: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _checked_key(self.key))
        object.__setattr__(self, "values", _checked_values(self.key, self.values))

    def matches(self, document: Document) -> bool:
        return any(equal.matches(document) for equal in self.equals())

    def equals(self) -> Iterator[Eq]:
        """Return the comparisons of which one must hold."""
        return (Eq(self.key, value) for value in self.values)

    def __repr__(self) -> str:
        return f"F({self.key!r}).in_({list(self.values)!r})"


class NotIn(In):
    """`F(key).not_in(values)`: everything that `in_` does not match, so also a missing key."""

    __slots__ = ()

    def matches(self, document: Document) -> bool:
        return not In.matches(self, document)

    def __repr__(self) -> str:
        return f"F({self.key!r}).not_in({list(self.values)!r})"


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of the parts; of no parts: everything."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(_filter(part) for part in self.parts))

    def matches(self, document: Document) -> bool:
        return all(part.matches(document) for part in self.parts)

    def __repr__(self) -> str:
        return " & ".join(f"({part!r})" for part in self.parts) if self.parts else "And(())"


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Any of the parts; of no parts: nothing."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(_filter(part) for part in self.parts))

    def matches(self, document: Document) -> bool:
        return any(part.matches(document) for part in self.parts)

    def __repr__(self) -> str:
        return " | ".join(f"({part!r})" for part in self.parts) if self.parts else "Or(())"


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """Everything that the part does not match."""

    part: Filter

    def __post_init__(self) -> None:
        _filter(self.part)

    def matches(self, document: Document) -> bool:
        return not self.part.matches(document)

    def __repr__(self) -> str:
        return f"~({self.part!r})"


class F:
    """A metadata key to build filters from: `F("year") >= 2020`; dots descend: `"author.name"`."""

    __slots__ = ("key",)
    __hash__ = None  # type: ignore[assignment]  # == builds a filter, so F cannot be a dict key

    def __init__(self, key: str) -> None:
        self.key = _checked_key(key)

    def __eq__(self, value: object) -> Eq:  # type: ignore[override]
        return Eq(self.key, value)

    def __ne__(self, value: object) -> Ne:  # type: ignore[override]
        return Ne(self.key, value)

    def __lt__(self, value: Any) -> Lt:
        return Lt(self.key, value)

    def __le__(self, value: Any) -> Le:
        return Le(self.key, value)

    def __gt__(self, value: Any) -> Gt:
        return Gt(self.key, value)

    def __ge__(self, value: Any) -> Ge:
        return Ge(self.key, value)

    def in_(self, values: Iterable[Any]) -> In:
        """Return the filter that the key equals any of the values."""
        return In(self.key, values)  # type: ignore[arg-type]

    def not_in(self, values: Iterable[Any]) -> NotIn:
        """Return the filter that the key equals none of the values."""
        return NotIn(self.key, values)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"F({self.key!r})"


def check_filter(where: Any) -> Filter | None:
    """Return what was given as `where` if it is a filter or None. Raises FilterError."""
    return None if where is None else _filter(where)


def path(key: str) -> tuple[str, ...]:
    """Return the steps of a key: `"author.name"` descends from `author` to `name`."""
    return tuple(key.split("."))


def scalars(metadata: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield what a comparison with `key` looks at: the scalar there, or the scalars of its list."""
    found: Any = metadata
    for step in path(key):
        if not isinstance(found, Mapping) or step not in found:
            return
        found = found[step]
    for item in found if isinstance(found, list) else (found,):
        if not isinstance(item, (list, dict)):
            yield item


def comparable(stored: Any, value: Scalar) -> tuple[Any, Any] | None:
    """Return the pair to compare, or None where the types make the comparison false."""
    if isinstance(value, datetime):
        moment = instant(stored) if isinstance(stored, str) else None
        return None if moment is None else (moment, value)
    if isinstance(value, bool) or value is None:
        return (stored, value) if type(stored) is type(value) else None
    if isinstance(value, str):
        return (stored, value) if isinstance(stored, str) else None
    if isinstance(stored, (int, float)) and not isinstance(stored, bool):
        return stored, value
    return None


_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


def instant(text: str) -> datetime | None:
    """Return the moment that a string in ISO 8601 form names, or None; no offset means UTC."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    day, minutes, seconds, fraction, offset = match.groups()
    if fraction and not seconds:
        return None
    written = f"{day}T{minutes or '00:00'}{seconds or ':00'}"
    zone = "+00:00" if offset in (None, "Z") else offset
    try:
        moment = datetime.fromisoformat(f"{written}.{(fraction or '.')[1:]:0<6}{zone}")
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not all(path(key)):
        raise FilterError(f"a key is a name or a path such as 'author.name', got {key!r}")
    return key


def _checked_value(key: str, value: object) -> Scalar:
    if isinstance(value, date):
        return _moment(value)
    if isinstance(value, F | Filter):
        raise FilterError(f"key {key!r}: compare with a value, not with {value!r}")
    try:
        stored = plain(value, f"key {key!r}")
    except RecordError as error:
        raise FilterError(str(error)) from None
    if isinstance(stored, (list, dict)):
        raise FilterError(f"key {key!r}: compare with one value, not {value!r}; in_ takes several")
    return stored  # type: ignore[no-any-return]


def _moment(value: date) -> datetime:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    try:
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc)
    except OverflowError:
        raise FilterError(f"{value!r} is out of range once it is in UTC") from None


def _checked_values(key: str, values: object) -> tuple[Scalar, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise FilterError(f"key {key!r}: in_ and not_in take a list of values, got {values!r}")
    checked = tuple(_checked_value(key, value) for value in values)
    if not checked:
        raise FilterError(f"key {key!r}: in_ and not_in need at least one value")
    return checked
