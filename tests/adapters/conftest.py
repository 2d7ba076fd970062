"""Fixtures of the adapters' suites: every engine of the conformance suite, in each colour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nestvec
from nestvec import AsyncStore, Store
from nestvec.langchain import NestedVectorStore

from .. import qdrant, qdrant_servers
from ..conformance.engines import ENGINES, PLACES, Place, named

Connecting = Callable[..., Awaitable[Store | AsyncStore]]
Opening = Callable[..., Awaitable[NestedVectorStore]]


@pytest.fixture(params=named(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def place(engine_name: str, tmp_path: Path) -> Iterator[Place]:
    """A place of its own for one test."""
    if engine_name in ("qdrant", "qdrant:GRPC") and qdrant_servers.binary is None:
        yield Place(qdrant.space())
        return
    place = PLACES[engine_name](tmp_path)
    yield place
    if place.server is not None:
        place.server.clean()


@pytest.fixture
def url(place: Place) -> str:
    """The URL of that place, for what takes no more."""
    return place.url


@pytest.fixture
async def connecting(place: Place, colour: str) -> AsyncIterator[Connecting]:
    """Open a Store or an AsyncStore; its collection is dropped after the test."""
    opened: list[AsyncStore] = []

    async def open_one(**settings: Any) -> Store | AsyncStore:
        given = {**place.options, "url": place.url, **settings}
        store = nestvec.connect(**given) if colour == "sync" else await nestvec.aconnect(**given)
        opened.append(store.as_async() if isinstance(store, Store) else store)
        return store

    yield open_one
    for store in opened:
        await store.drop()
        await store.close()
        store.as_sync().close()


@pytest.fixture
def opening(connecting: Connecting) -> Opening:
    """Open LangChain vector stores from a Store or an AsyncStore."""

    async def open_one(**settings: Any) -> NestedVectorStore:
        return NestedVectorStore(await connecting(**settings))

    return open_one
