"""The engines that the conformance suite runs over, each blocking and asynchronous.

The suite is written once, against the blocking names; `Awaited` gives an AsyncStore these names
by running every coroutine to its end on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nestvec
from nestvec import AsyncStore, Record, Store

from .. import postgres, qdrant, qdrant_servers
from ..qdrant_servers import Cluster, Server


class Place(NamedTuple):
    """Where the collections of one test are, and how their names begin."""

    url: str
    prefix: str = ""
    #: More options of connect.
    options: Mapping[str, Any] = {}
    #: The server where it is one that these tests have started.
    server: Server | Cluster | None = None

    def settings(self, collection: str = "docs") -> dict[str, Any]:
        """Return what connect is given for a collection of this name."""
        return {**self.options, "url": self.url, "collection": self.prefix + collection}

    def clean(self) -> None:
        """Delete the collections of a server."""
        if self.server is not None:
            self.server.clean(self.prefix)
        elif self.prefix:
            qdrant.clean(self.prefix)


def _on_server(options: Mapping[str, Any]) -> Place:
    return Place(options["url"], qdrant.prefix(), options, qdrant.started())


def _on_own(server: Server | Cluster, **options: Any) -> Place:
    return Place(server.url, qdrant.prefix(), options, server)


#: name → what makes a place of its own for one test.
ENGINES: dict[str, Callable[[Path], Place]] = {
    "memory": lambda _: Place("memory:"),
    "edge": lambda path: Place(f"edge:{path / 'edge'}"),
    "qdrant": lambda _: _on_server(qdrant.place()),
    "qdrant+local": lambda _: Place("qdrant+local::memory:"),
    "postgres": lambda _: Place(postgres.place(), options=postgres.settings),
}

#: Real servers of --qdrant-binary, where "qdrant" is a plain one over REST.
REAL: dict[str, Callable[[Path], Place]] = {
    "qdrant:GRPC": lambda _: _on_server(qdrant.grpc_place()),
    "qdrant:STRICT": lambda _: _on_own(qdrant_servers.strict()),
    "qdrant:CLUSTER": lambda _: _on_own(
        qdrant_servers.cluster(), replication_factor=2, write_consistency_factor=2
    ),
}

#: engine → what it refuses by name. A test marked `needs` one of these must fail there, and
#: says so when it no longer does.
LACKS: dict[str, set[str]] = {
    "postgres": {"int8", "uint8", "turbo"},
    **dict.fromkeys(("qdrant", *REAL), qdrant.lacks),
}

#: The engines that keep a collection after its store is closed. Local mode in a directory commits
#: point by point (3 ms each), so the other tests have it in memory.
LASTING = {name: place for name, place in ENGINES.items() if name not in ("memory", "qdrant+local")}
# Every request in its other form; --qdrant-option prefer_grpc=true does it for the whole suite.
LASTING["qdrant:GRPC"] = REAL["qdrant:GRPC"]  # also on the server that is not real
LASTING["qdrant+local:DIR"] = lambda path: Place(f"qdrant+local:{path / 'qdrant'}")

#: Every engine by its name.
PLACES = {**ENGINES, **LASTING, **REAL}


def named(engines: Mapping[str, Any]) -> list[Any]:
    """Return the names of engines, and those of real servers, as parameters."""
    real = [
        pytest.param(name, marks=pytest.mark.real_qdrant) for name in REAL if name not in engines
    ]
    return [*engines, *real]


#: Marks a test for these engines.
lasting = pytest.mark.parametrize("engine_name", named(LASTING), indirect=True)


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
        if not callable(method):
            return method

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
    place: Place
    opened: list[Any] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def connect(self, *, collection: str = "docs", **settings: Any) -> Any:
        """Return an open store, or one that looks like it; closed after the test."""
        store: Any = self._connect({**self.place.settings(collection), **settings})
        self.opened.append(store)
        return store

    def _connect(self, settings: dict[str, Any]) -> Store | Awaited:
        if self.colour == "sync":
            return nestvec.connect(**settings)
        opening: Coroutine[Any, Any, AsyncStore] = nestvec.aconnect(**settings)
        return Awaited(self.loop, self.loop.run_until_complete(opening))

    def close(self) -> None:
        """Close every store that was opened."""
        for store in self.opened:
            store.close()
        self.place.clean()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
