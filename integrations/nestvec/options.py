"""An engine's options, checked against what its dataclass says of them."""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

__all__ = ["chosen"]

T = TypeVar("T")

#: What no engine counts in.
_MOST = 2**31 - 1

_WORDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "True or False",
    Mapping: "a dict", type(None): "None",
}  # fmt: skip


def chosen(kind: type[T], engine: str, given: Mapping[str, Any]) -> T:
    """Return the options that were given, as the dataclass of an engine.

    Raises ConfigError, which names the option, on one that there is not and on a wrong type.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{engine}: unknown option {name!r}; its options are: {', '.join(known) or 'none'}"
            )
    hints = get_type_hints(kind)
    return kind(**{name: _checked(name, value, hints[name]) for name, value in given.items()})


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return a value as the plain type that the hint names. Raises ConfigError."""
    allowed = [get_origin(each) or each for each in _alternatives(hint)]
    for kind in allowed:
        found = _as(kind, value)
        if found is not _NOT:
            _check_inside(name, found, hint)
            return found
    expected = " or ".join(_WORDS[kind] for kind in allowed)
    shown = f" {value!r}"[:40] if isinstance(value, (bool, int, float)) else ""  # no secrets
    raise ConfigError(f"{name} is {expected}, got {type(value).__name__}{shown}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = get_origin(hint) in (Union, types.UnionType)
    return get_args(hint) if union else (hint,)


_NOT = object()


def _as(kind: Any, value: Any) -> Any:
    """Return a value as a plain one of this kind, `_NOT` where it is of another."""
    if kind in (type(None), bool):
        return value if isinstance(value, kind) else _NOT
    if kind is str:
        return str.__str__(value) if isinstance(value, str) else _NOT
    if kind is Mapping:
        return value if isinstance(value, Mapping) else _NOT
    if isinstance(value, bool):
        return _NOT
    try:
        number = operator.index(value) if kind is int else float(operator.pos(value))
    except (TypeError, ValueError, OverflowError):
        return _NOT
    return number if math.isfinite(number) and abs(number) <= _MOST else _NOT


def _check_inside(name: str, value: Any, hint: Any) -> None:
    """Refuse a mapping whose keys or values are not as hinted."""
    if not isinstance(value, Mapping):
        return
    (keyed,) = (each for each in _alternatives(hint) if get_origin(each) is not None)
    # Any is a type since Python 3.11, but not for isinstance.
    kinds = [
        each if isinstance(each, type) and each is not Any else object for each in get_args(keyed)
    ]
    for key, item in value.items():
        if not isinstance(key, kinds[0]) or not isinstance(item, kinds[1]):
            raise ConfigError(f"{name} has {type(item).__name__} for {key!r}; see its docs")
