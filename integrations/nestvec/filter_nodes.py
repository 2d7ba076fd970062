"""Filters, and their meaning as a predicate over a record.

A comparison with a missing key or a value of another type is false; `!=`, `not_in` and `~` are
the plain negations, so a missing key satisfies them. On a list, a comparison holds when it holds
for any element. Booleans are not numbers; ints and floats compare as numbers; strings compare by
code point; a datetime or date compares by instant with strings in ISO 8601 form (no offset: UTC).
docs/filters.md has the whole of it in one table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import eq, ge, gt, le, lt
from typing import Any, ClassVar, NoReturn, Protocol

from .errors import FilterError, RecordError
from .filter_values import (
    Scalar,
    checked_key,
    checked_pattern,
    checked_text,
    checked_value,
    comparable,
    matcher,
    scalars,
    short,
    values,
    words,
)
from .records import check_id

__all__ = [
    "And", "Between", "Document", "Eq", "Exists", "Filter", "Ge", "Gt", "IdIn", "In", "IsEmpty",
    "Le", "Like", "Lt", "Matches", "Ne", "Not", "NotIn", "Or", "leaves", "listed",
]  # fmt: skip

#: Levels of And, Or and Not within each other. A server reads 128 levels of JSON or 100 of
#: protobuf, and a level here is two or three of those.
MAX_DEPTH = 32


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

    @property
    def depth(self) -> int:
        """How many levels of And, Or and Not there are."""
        return 0

    def __and__(self, other: Filter) -> And:
        return And((*_parts(self, And), *_parts(_filter(other), And)))

    def __or__(self, other: Filter) -> Or:
        return Or((*_parts(self, Or), *_parts(_filter(other), Or)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise FilterError("combine filters with & | ~, not with and, or, not (nor chain a < b < c)")


def _filter(value: object) -> Filter:
    if not isinstance(value, Filter):
        raise FilterError(f"expected a filter such as F('year') >= 2020, got {short(value)}")
    return value


def _parts(node: Filter, kind: type[And | Or]) -> tuple[Filter, ...]:
    return node.parts if isinstance(node, kind) else (node,)


# Comparisons


@dataclass(frozen=True, slots=True)
class Keyed(Filter):
    """A condition on what a key holds: that any of its scalars satisfies it."""

    key: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key(self.key))

    def matches(self, document: Document) -> bool:
        return any(map(self.holds, scalars(document.metadata, self.key)))

    @abstractmethod
    def holds(self, stored: Any) -> bool:
        """Return whether one stored scalar satisfies the condition."""


@dataclass(frozen=True, slots=True)
class _Compare(Keyed):
    """A comparison with one value."""

    value: Any

    symbol: ClassVar[str]
    compare: ClassVar[Callable[[Any, Any], Any]]

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        object.__setattr__(self, "value", _operand(self.key, self.value))
        if self.symbol not in ("==", "!="):
            _check_order(self.key, self.value)

    def holds(self, stored: Any) -> bool:
        return _compared(type(self).compare, stored, self.value)

    def __repr__(self) -> str:
        return f"F({self.key!r}) {self.symbol} {self.value!r}"


def _compared(compare: Callable[[Any, Any], Any], stored: Any, value: Scalar) -> bool:
    pair = comparable(stored, value)
    return pair is not None and bool(compare(*pair))


def _operand(key: str, value: object) -> Scalar:
    if isinstance(value, Filter):
        raise FilterError(f"key {key!r}: compare with a value, not with {short(value)}")
    return checked_value(key, value)


def listed(what: str, given: object) -> list[Any]:
    """Return the values of a list that is not empty. Raises FilterError, which says `what`."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise FilterError(f"{what} takes a list of values, got {short(given)}")
    if not (items := list(given)):
        raise FilterError(f"{what} needs at least one value")
    return items


def _check_order(key: str, value: Scalar) -> None:
    if isinstance(value, (bool, type(None))):
        raise FilterError(f"key {key!r}: {value!r} has no order; use == or !=")


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
class Between(Keyed):
    """`F(key).between(low, high)`: one value is at least `low` and at most `high`."""

    low: Any
    high: Any

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        for name in ("low", "high"):
            object.__setattr__(self, name, _operand(self.key, getattr(self, name)))
            _check_order(self.key, getattr(self, name))
        if type(self.low) is not type(self.high) and not comparable(self.low, self.high):
            raise FilterError(
                f"key {self.key!r}: nothing is between {self.low!r} and {self.high!r}, which have "
                "different types"
            )

    def holds(self, stored: Any) -> bool:
        return _compared(ge, stored, self.low) and _compared(le, stored, self.high)

    def __repr__(self) -> str:
        return f"F({self.key!r}).between({self.low!r}, {self.high!r})"


@dataclass(frozen=True, slots=True)
class In(Keyed):
    """`F(key).in_(values)`: equal to any of them."""

    values: tuple[Any, ...]
    method: ClassVar[str] = "in_"

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        given = listed(f"key {self.key!r}: {self.method}", self.values)
        object.__setattr__(self, "values", tuple(_operand(self.key, value) for value in given))

    def holds(self, stored: Any) -> bool:
        return any(_compared(eq, stored, value) for value in self.values)

    def equals(self) -> Iterator[Eq]:
        """Return the comparisons of which one must hold."""
        return (Eq(self.key, value) for value in self.values)

    def __repr__(self) -> str:
        return f"F({self.key!r}).{self.method}({list(self.values)!r})"


class NotIn(In):
    """`F(key).not_in(values)`: everything that `in_` does not match, so also a missing key."""

    __slots__ = ()
    method = "not_in"

    def matches(self, document: Document) -> bool:
        return not In.matches(self, document)


@dataclass(frozen=True, slots=True)
class IdIn(Filter):
    """`F.id_in(ids)`: the document's id is one of them."""

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "ids", tuple(map(check_id, listed("id_in", self.ids))))
        except RecordError as error:
            raise FilterError(f"id_in: {error}") from None

    def matches(self, document: Document) -> bool:
        return document.id in self.ids

    def __repr__(self) -> str:
        return f"F.id_in({list(self.ids)!r})"


# Presence and text


class Exists(Keyed):
    """`F(key).exists()`: the key is there, whatever it holds, also null."""

    __slots__ = ()

    def matches(self, document: Document) -> bool:
        return any(map(self.holds, values(document.metadata, self.key)))

    def holds(self, stored: Any) -> bool:  # noqa: ARG002
        return True

    def __repr__(self) -> str:
        return f"F({self.key!r}).exists()"


class IsEmpty(Keyed):
    """`F(key).is_empty()`: the key is missing, or holds null or a list of nothing."""

    __slots__ = ()

    def matches(self, document: Document) -> bool:
        return all(map(self.holds, values(document.metadata, self.key)))

    def holds(self, stored: Any) -> bool:
        return stored is None or stored == []

    def __repr__(self) -> str:
        return f"F({self.key!r}).is_empty()"


@dataclass(frozen=True, slots=True)
class Matches(Keyed):
    """`F(key).matches(text)`: one string has every word of the text, in any case and order."""

    text: str

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        object.__setattr__(self, "text", checked_text(self.key, self.text))
        if not words(self.text):
            raise FilterError(f"key {self.key!r}: there is no word in {short(self.text)}")

    @property
    def words(self) -> list[str]:
        """The words that must be there, without case."""
        return sorted(set(words(self.text)))

    def holds(self, stored: Any) -> bool:
        return isinstance(stored, str) and set(words(self.text)) <= set(words(stored))

    def __repr__(self) -> str:
        return f"F({self.key!r}).matches({self.text!r})"


@dataclass(frozen=True, slots=True)
class Like(Keyed):
    r"""`F(key).like(pattern)`: SQL's LIKE, where `%` is any text and `_` any character.

    `\` takes the next character as it is. `ilike` ignores case.
    """

    pattern: str
    ignore_case: bool = False

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        object.__setattr__(self, "pattern", checked_pattern(self.key, self.pattern))

    def holds(self, stored: Any) -> bool:
        return isinstance(stored, str) and matcher(self.pattern, self.ignore_case)(stored)

    def __repr__(self) -> str:
        return f"F({self.key!r}).{'ilike' if self.ignore_case else 'like'}({self.pattern!r})"


# Combinations


def leaves(where: Filter) -> Iterator[Filter]:
    """Yield the conditions that a filter combines by And and Or."""
    if isinstance(where, (And, Or)):
        for part in where.parts:
            yield from leaves(part)
    else:
        yield where


@dataclass(frozen=True, slots=True)
class _Several(Filter):
    """Some filters, combined."""

    parts: tuple[Filter, ...]
    depth: int = field(init=False, compare=False, repr=False)

    symbol: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(_filter(part) for part in self.parts))
        object.__setattr__(self, "depth", _depth(self.parts))

    def __repr__(self) -> str:
        # Operators join one level only, so that what they would flatten is written out.
        if len(self.parts) > 1 and not any(type(part) is type(self) for part in self.parts):
            return f" {self.symbol} ".join(f"({part!r})" for part in self.parts)
        return f"{type(self).__name__}({self.parts!r})"


def _depth(parts: Iterable[Filter]) -> int:
    depth = 1 + max((part.depth for part in parts), default=0)
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter has at most {MAX_DEPTH} levels of & | ~ within each other")
    return depth


class And(_Several):
    """All of the parts; of no parts: everything."""

    __slots__ = ()
    symbol = "&"

    def matches(self, document: Document) -> bool:
        return all(part.matches(document) for part in self.parts)


class Or(_Several):
    """Any of the parts; of no parts: nothing."""

    __slots__ = ()
    symbol = "|"

    def matches(self, document: Document) -> bool:
        return any(part.matches(document) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """Everything that the part does not match."""

    part: Filter
    depth: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth((_filter(self.part),)))

    def matches(self, document: Document) -> bool:
        return not self.part.matches(document)

    def __invert__(self) -> Filter:
        return self.part

    def __repr__(self) -> str:
        # ~~ would be the part itself.
        return f"Not({self.part!r})" if isinstance(self.part, Not) else f"~({self.part!r})"
