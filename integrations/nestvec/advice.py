"""What to do where a filter makes each query slow."""

from __future__ import annotations

from collections.abc import Mapping

from .backends.base import KINDS, Backend
from .filter_nodes import Keyed, leaves
from .filter_values import path, spelled
from .filters import Eq, Filter, In
from .flow import Flow
from .records import FilterTrace

__all__ = ["filter_advice"]

#: From here on reading documents for a filter is slow.
MANY = 10_000


def filter_advice(where: Filter, served: FilterTrace, backend: Backend) -> Flow[tuple[str, ...]]:
    """Return a warning where a filter reads many documents in each query, and what ends it."""
    if served.read <= MANY:
        return ()
    slow = f"the filter reads about {served.read:,} documents in each query; "
    if not backend.indexes_metadata:
        return (f"{slow}this engine has no indexes: take edge: or a server for so many",)
    there = yield from backend.metadata_indexes()
    calls, helpless = [], False
    for leaf in leaves(where):
        kind = backend.index_for(leaf) if isinstance(leaf, Keyed) else None
        if kind is None or not isinstance(leaf, Keyed):
            helpless = True
        elif not _is_indexed(leaf, kind, there):
            calls.append(f"store.index_metadata({leaf.key!r}, {kind!r})")
    if calls:
        return (f"{slow}try {' or '.join(dict.fromkeys(calls))}",)
    if helpless:
        return (f"{slow}no index can serve it here: put a condition beside it that one can",)
    return ()  # the engine has the indexes, and takes another way for cheaper


def _is_indexed(leaf: Keyed, kind: str, there: Mapping[str, str]) -> bool:
    equality = isinstance(leaf, (Eq, In)) and kind != "datetime"
    return there.get(spelled(path(leaf.key))) == KINDS[kind] or (equality and "*" in there)
