"""The filter language: `F`, the metadata key that filters are built from, and the filters.

    (F("year") >= 2020) & F("lang").in_(["en", "de"]) & ~(F("author.name") == "Ann")

What a filter means is the predicate `matches` of each, in filter_nodes.py; docs/filters.md has it
in one table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .filter_nodes import (
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
    listed,
)
from .filter_values import checked_key, checked_text

__all__ = [
    "And", "Between", "Eq", "Exists", "F", "Filter", "Ge", "Gt", "IdIn", "In", "IsEmpty", "Le",
    "Like", "Lt", "Matches", "Ne", "Not", "NotIn", "Or",
]  # fmt: skip


class F:
    """A metadata key to build filters from: `F("year") >= 2020`.

    Dots descend (`"author.name"`), `[]` goes through the elements of a list (`"tags[].name"`), and
    double quotes keep a step as it is (`'"a.b".c'`).
    """

    __slots__ = ("key",)
    __hash__ = None  # type: ignore[assignment]  # == builds a filter, so F cannot be a dict key

    def __init__(self, key: str) -> None:
        self.key = checked_key(key)

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

    def between(self, low: Any, high: Any) -> Between:
        """Return the filter that one value is at least `low` and at most `high`."""
        return Between(self.key, low, high)

    def in_(self, values: Iterable[Any]) -> In:
        """Return the filter that the key equals any of the values."""
        return In(self.key, values)  # type: ignore[arg-type]

    def not_in(self, values: Iterable[Any]) -> NotIn:
        """Return the filter that the key equals none of the values."""
        return NotIn(self.key, values)  # type: ignore[arg-type]

    def contains_any(self, values: Iterable[Any]) -> In:
        """Return the filter that a list has any of the values: `in_`, by another name."""
        return In(self.key, tuple(listed(f"key {self.key!r}: contains_any", values)))

    def contains_all(self, values: Iterable[Any]) -> And:
        """Return the filter that a list has all of the values."""
        wanted = listed(f"key {self.key!r}: contains_all", values)
        return And(tuple(Eq(self.key, value) for value in wanted))

    def exists(self) -> Exists:
        """Return the filter that the key is there, whatever it holds, also null."""
        return Exists(self.key)

    def is_empty(self) -> IsEmpty:
        """Return the filter that the key is missing, or holds null or a list of nothing."""
        return IsEmpty(self.key)

    def matches(self, text: str) -> Matches:
        """Return the filter that a string has every word of the text, in any case and order."""
        return Matches(self.key, text)

    def contains_text(self, text: str, *, ignore_case: bool = False) -> Like:
        """Return the filter that a string has the text in it."""
        escaped = re.sub(r"([\\%_])", r"\\\1", checked_text(self.key, text))
        return Like(self.key, f"%{escaped}%", ignore_case)

    def like(self, pattern: str) -> Like:
        r"""Return the filter of SQL's LIKE: `%` any text, `_` any character, `\` escapes."""
        return Like(self.key, pattern)

    def ilike(self, pattern: str) -> Like:
        """Return the filter of LIKE in any case."""
        return Like(self.key, pattern, True)

    @staticmethod
    def id_in(ids: Iterable[Any]) -> IdIn:
        """Return the filter that the document's id is one of these."""
        return IdIn(ids)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"F({self.key!r})"
