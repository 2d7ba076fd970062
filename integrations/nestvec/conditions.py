"""Conditions as they are typed: `KEY=VALUE`, and with `!=`, `>=`, `<=`, `>` or `<`."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from .errors import FilterError
from .filter_forms import from_dict
from .filters import And, F, Filter

__all__ = ["condition"]

_OPERATORS: dict[str, Callable[[Any, Any], Filter]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip

_CONDITION = re.compile(r"\s*([^=!<>]*?)\s*(==|!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)


def condition(wheres: Iterable[str], written: str | None = None) -> Filter | None:
    """Return the filter that all of the conditions make, None of none. Raises FilterError.

    `written` is one more, a filter as a dict in JSON.
    """
    parts = tuple(_compared(text) for text in wheres)
    if written is None:
        return And(parts) if parts else None
    return And((*parts, _read(written))) if parts else _read(written)


def _read(written: str) -> Filter:
    try:
        given = json.loads(written, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise FilterError(
            f'cannot read {written[:80]!r}; write JSON such as {{"year": {{"$gte": 2020}}}}'
        ) from None
    return from_dict(given)


def _compared(text: str) -> Filter:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise FilterError(f"cannot read {text!r}; write KEY=VALUE, or one of != >= <= > <")
    key, symbol, value = F(match[1]), match[2], _value(match[3])
    return _OPERATORS[symbol](key, value)


def _value(text: str) -> Any:
    """Return what a JSON text says, or the text itself where it is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON, so they are strings
