"""Fixtures of the conformance suite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvec import NestingError

from .engines import ENGINES, LACKS, PLACES, Engine, named


@pytest.fixture(params=named(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def engine(
    engine_name: str, colour: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Engine]:
    needed = {word for mark in request.node.iter_markers("needs") for word in mark.args}
    if needed & LACKS.get(engine_name, set()):
        request.applymarker(pytest.mark.xfail(strict=True, raises=NestingError))
    engine = Engine(engine_name, colour, PLACES[engine_name](tmp_path))
    yield engine
    engine.close()


@pytest.fixture
def store(engine: Engine) -> Any:
    """An empty collection of 8 numbers with the prefixes 2 and 4."""
    return engine.connect(dims=(2, 4), dim=8)
