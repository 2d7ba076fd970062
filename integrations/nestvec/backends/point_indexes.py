"""Paths into payloads, and the indexes on them, which Qdrant and Edge share."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError
from ..filter_nodes import Keyed
from ..filter_values import Step, path, spelled
from ..filters import Eq, In
from .base import index_kind

__all__ = [
    "INDEXES", "OWN_INDEXES", "Condition", "are_uuids", "by_path", "index_for", "indexable",
    "json_path", "key_of", "keys_of", "lacking", "read", "serving", "told", "written",
]  # fmt: skip

Condition = Mapping[str, Any]

#: The engine's name of each kind of index. Whole numbers are in the one of floats too: the
#: engine's index of integers has no others.
INDEXES = {"number": "float", "str": "keyword", "bool": "bool", "datetime": "datetime"}

#: Payload keys that are not the user's and that conditions look at, with the cheapest index that
#: a server in strict mode takes for them: of `raw` they ask only whether it is there.
OWN_INDEXES = {"raw": "bool", "empty": "keyword"}


# Paths

_BARE_STEP = re.compile(r"[A-Za-z0-9_-]+")
#: A step as an engine shows it: letters of any script are bare there.
_SHOWN_STEP = re.compile(r'(?:^|\.)(?:"([^"\\]*)"|([^."\\\[\]]+))|(\[\])')


def json_path(key: str, root: str = "metadata") -> str | None:
    """Return the engine's path to a metadata key, or None where its syntax has none."""
    return written((*_steps(root), *path(key)))


def _steps(root: str) -> tuple[Step, ...]:
    return tuple(root.split(".")) if root else ()


def written(steps: Iterable[Step]) -> str | None:
    """Return steps as the engine's path, or None where its syntax has none."""
    made = ""
    for step in steps:
        if step is None:
            made += "[]"
        elif '"' in step or "\\" in step:
            return None
        else:
            name = step if _BARE_STEP.fullmatch(step) else f'"{step}"'
            made = f"{made}.{name}" if made else name
    return made


def read(shown: str) -> tuple[Step, ...] | None:
    """Return the steps of an engine's path, None of one that no key leads to, such as `a[0]`."""
    steps: list[Step] = []
    at = 0
    while at < len(shown):
        found = _SHOWN_STEP.match(shown, at)
        if found is None or (at == 0 and shown[0] == "."):
            return None
        quoted, bare, every = found.groups()
        steps.append(None if every else bare if quoted is None else quoted)
        at = found.end()
    return tuple(steps)


# Indexes


def by_path(shown: Mapping[str, str]) -> dict[str, str]:
    """Return the kinds of indexes by path, as `written` writes them.

    An engine shows paths in its own way: letters of any script are without quotes there.
    """
    made = {}
    for key, kind in shown.items():
        steps = read(key)
        made[key if steps is None else written(steps) or key] = kind
    return made


def indexable(key: str, root: str = "metadata") -> str:
    """Return the engine's path to a key. Raises ConfigError where its syntax has none."""
    if (made := json_path(key, root)) is None:
        raise ConfigError(f"key {key!r} has a quote or a backslash: it cannot be indexed here")
    return made


def index_for(condition: Keyed, root: str = "metadata") -> str | None:
    """Return the kind of index that would serve a condition, None where none can."""
    kind = index_kind(condition)
    if kind is None or json_path(condition.key, root) is None:
        return None
    return None if kind == "str" and not isinstance(condition, (Eq, In)) else kind


def keys_of(indexes: Mapping[str, str], root: str = "metadata") -> dict[str, str]:
    """Return indexes by metadata key, with their kinds in nestvec's words where it has them."""
    kinds = {kind: name for name, kind in INDEXES.items()} | {"integer": "number"}
    return {
        key: kinds.get(kind, kind)
        for made, kind in indexes.items()
        if (key := key_of(made, root)) is not None
    }


def key_of(made: str, root: str) -> str | None:
    """Return the metadata key of an engine's path, None where it leads elsewhere."""
    steps, above = read(made), _steps(root)
    if steps is None or len(steps) == len(above) or steps[: len(above)] != above:
        return None
    return None if steps[len(above)] is None else spelled(steps[len(above) :])


# Which index serves which condition


def lacking(condition: Condition, indexes: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the paths that a server in strict mode wants indexed for a condition, and are not.

    Each with the kinds of indexes of which one will do, in the engine's words; none where any will.
    """
    lacks: dict[str, tuple[str, ...]] = {}
    for key, kinds in _looked_at(condition):
        held = indexes.get(key)
        if held is None or (kinds and held not in kinds):
            lacks[key] = lacks.get(key) or kinds
    return lacks


def _looked_at(condition: Condition) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the paths of a condition with the kinds of indexes that hold what it looks for."""
    if "key" in condition:
        yield condition["key"], _served_by(condition)
    elif "is_empty" in condition or "is_null" in condition:
        (looked_at,) = condition.values()
        yield looked_at["key"], ()
    elif "has_id" not in condition and "has_vector" not in condition:
        for parts in condition.values():
            for part in parts:
                yield from _looked_at(part)


def told(condition: Condition, indexes: Mapping[str, str]) -> bool:
    """Return whether payload indexes tell how many satisfy a condition."""
    if "has_id" in condition:
        return True
    if "key" in condition:
        return indexes.get(condition["key"]) in _served_by(condition)
    if "is_empty" in condition or "is_null" in condition:
        return False
    return all(told(part, indexes) for parts in condition.values() for part in parts)


def serving(condition: Condition, indexes: Mapping[str, str]) -> set[str] | None:
    """Return the paths whose indexes give the candidates, None where all are read."""
    if "has_id" in condition:
        return set()
    if "key" in condition:
        key = condition["key"]
        return {key} if indexes.get(key) in _served_by(condition) else None
    for part in condition.get("must", ()):
        if (keys := serving(part, indexes)) is not None:
            return keys
    parts = [serving(part, indexes) for part in condition.get("should", ())]
    if not parts or None in parts:
        return None
    return set().union(*(keys or () for keys in parts))


def _served_by(condition: Condition) -> tuple[str, ...]:
    if "range" in condition:
        dated = isinstance(next(iter(condition["range"].values())), str)
        return ("datetime",) if dated else ("float", "integer")
    ((form, value),) = condition["match"].items()
    if form == "any":
        return ("keyword", "uuid") if are_uuids(value) else ("keyword",)
    return ("bool",) if form == "value" else ()


def are_uuids(texts: Iterable[str]) -> bool:
    """Return whether an index of UUIDs answers for these texts, and not for one of them only."""
    return all(map(_is_uuid, texts))


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
