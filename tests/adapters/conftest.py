"""Fixtures of the adapters' suites: every engine of the conformance suite, in each colour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import nestvec
from nestvec.langchain import NestedVectorStore

from .. import qdrant
from ..conformance.engines import ENGINES, LASTING

Opening = Callable[..., Awaitable[NestedVectorStore]]


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(engine_name: str, tmp_path: Path) -> str:
    """A place of its own for one test."""
    if engine_name in ("qdrant", "qdrant:GRPC"):
        return qdrant.space()
    return {**ENGINES, **LASTING}[engine_name](tmp_path).url


@pytest.fixture
async def opening(url: str, colour: str) -> AsyncIterator[Opening]:
    """Open vector stores from a Store or an AsyncStore; they are dropped after the test."""
    opened = []

    async def open_one(**settings: Any) -> NestedVectorStore:
        store = (
            nestvec.connect(url, **settings)
            if colour == "sync"
            else await nestvec.aconnect(url, **settings)
        )
        opened.append(NestedVectorStore(store))
        return opened[-1]

    yield open_one
    for vectorstore in opened:
        await vectorstore.astore.drop()
        await vectorstore.aclose()
