"""Settings for every suite."""

import os

import pytest
from hypothesis import HealthCheck, settings

from . import postgres

# Engines work on disk, so a slow example says nothing; every case is reproducible by its seed.
settings.register_profile(
    "nestvec", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("nestvec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--qdrant-url",
        help="run the conformance suite over this Qdrant server too; it is emptied of the suite's "
        "collections, and QDRANT_API_KEY is its key",
    )
    parser.addoption(
        "--fuzz-seconds", type=float, default=2.0, help="how long filters are fuzzed, at least"
    )
    parser.addoption("--pg-dsn", help="a Postgres to test against, instead of the embedded one")


def pytest_configure(config: pytest.Config) -> None:
    # Suites list their engines when they are imported, before any fixture could tell.
    if url := config.getoption("--qdrant-url"):
        os.environ["NESTVEC_QDRANT_URL"] = url
    postgres.dsn = config.getoption("--pg-dsn")


def pytest_unconfigure() -> None:
    postgres.clean()


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """How long a fuzz test goes on."""
    seconds: float = request.config.getoption("--fuzz-seconds")
    return seconds
