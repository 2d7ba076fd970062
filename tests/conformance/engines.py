"""The engines that the conformance suite runs over, each blocking and asynchronous.

The suite is written once, against the blocking names; `Awaited` gives an AsyncStore these names
by running every coroutine to its end on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nestvec
from nestvec import AsyncStore, Record, Store

from .. import postgres, qdrant

#: name → what makes the URL of a place of its own for one test.
ENGINES: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: "memory:",
    "edge": lambda path: f"edge:{path / 'edge'}",
    "qdrant": lambda _: qdrant.place(),
    "qdrant+local": lambda _: "qdrant+local::memory:",
    "postgres": lambda _: postgres.place(),
}

#: engine → what its stores are opened with besides.
SETTINGS: dict[str, dict[str, Any]] = {"postgres": postgres.settings}

#: engine → what it refuses by name. A test marked `needs` one of these must fail there, and
#: says so when it no longer does.
LACKS: dict[str, set[str]] = {"postgres": {"int8", "turbo"}, "qdrant": qdrant.lacks}

#: The engines that keep a collection after its store is closed. Local mode in a directory commits
#: point by point (3 ms each), so the other tests have it in memory.
LASTING = {name: place for name, place in ENGINES.items() if name not in ("memory", "qdrant+local")}
LASTING["qdrant+local:DIR"] = lambda path: f"qdrant+local:{path / 'qdrant'}"

#: Marks a test for these engines.
lasting = pytest.mark.parametrize("engine_name", list(LASTING), indirect=True)


class Awaited:
    """An AsyncStore behind the names of Store."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: AsyncStore) -> None:
        self._loop, self._store = loop, store

    def scan(self, *args: Any, **kwargs: Any) -> Iterator[Record]:
        records = self._store.scan(*args, **kwargs)

        async def collect() -> list[Record]:
            return [record async for record in records]

        return iter(self._loop.run_until_complete(collect()))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def blocking(*args: Any, **kwargs: Any) -> Any:
            return self._loop.run_until_complete(method(*args, **kwargs))

        return blocking

    def __repr__(self) -> str:
        return repr(self._store)


@dataclass
class Engine:
    """One engine in one colour, with a place of its own."""

    name: str
    colour: str
    url: str
    opened: list[Any] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def connect(self, **settings: Any) -> Any:
        """Return an open store, or one that looks like it; closed after the test."""
        store: Any = self._connect(SETTINGS.get(self.name, {}) | settings)
        self.opened.append(store)
        return store

    def _connect(self, settings: dict[str, Any]) -> Store | Awaited:
        if self.colour == "sync":
            return nestvec.connect(self.url, **settings)
        opening: Coroutine[Any, Any, AsyncStore] = nestvec.aconnect(self.url, **settings)
        return Awaited(self.loop, self.loop.run_until_complete(opening))

    def close(self) -> None:
        """Close every store that was opened."""
        for store in self.opened:
            store.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
