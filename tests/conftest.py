"""Settings for every suite."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from . import postgres, qdrant

# Engines work on disk, so a slow example says nothing; every case is reproducible by its seed.
settings.register_profile(
    "nestvec", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("nestvec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg-dsn", help="a Postgres to test against, instead of the embedded one")
    parser.addoption(
        "--pg-pooled",
        action="store_true",
        help="what --pg-dsn names is a pooler of transactions, such as PgBouncer",
    )
    parser.addoption(
        "--qdrant-url",
        help="a Qdrant server to test against, with QDRANT_API_KEY; the tests make collections "
        "named nestvec-test-… there, and delete them",
    )
    parser.addoption(
        "--qdrant-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of connect for Qdrant, as replication_factor=2 or prefer_grpc=true",
    )
    parser.addoption(
        "--fuzz-seconds", type=float, default=2.0, help="how long filters are fuzzed, at least"
    )


def pytest_configure(config: pytest.Config) -> None:
    postgres.dsn = config.getoption("--pg-dsn")
    if config.getoption("--pg-pooled"):
        postgres.settings["pgbouncer"] = True
    qdrant.use(config.getoption("--qdrant-url"), config.getoption("--qdrant-option"))


def pytest_unconfigure() -> None:
    postgres.clean()
    qdrant.clean()


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """How long a fuzz test goes on."""
    seconds: float = request.config.getoption("--fuzz-seconds")
    return seconds


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """What the tests of a module left open is blamed on the module, not on one that runs later."""
    yield
    gc.collect()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: several wait for each other where other tests run beside."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
