"""Settings for every suite."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from . import postgres, qdrant, qdrant_servers
from .qdrant_servers import Cluster, Server

#: What a test asks for that needs a real server; a parameter says so by the mark real_qdrant.
REAL = {
    "plain_server", "strict_server", "keyed_server", "own_server", "small_server", "three_nodes",
    "own_cluster",
}  # fmt: skip

_left_out = pytest.StashKey[dict[str, int]]()

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
        "--qdrant-binary",
        default=os.environ.get("NESTVEC_QDRANT"),
        metavar="PATH",
        help="Qdrant's server, of which the tests start what they need: plain, strict, with keys, "
        "a cluster, one to kill (or NESTVEC_QDRANT)",
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
    config.stash[_left_out] = {}
    if path := config.getoption("--qdrant-binary"):
        qdrant_servers.use(path)
    qdrant.use(config.getoption("--qdrant-url"), config.getoption("--qdrant-option"))


def pytest_unconfigure() -> None:
    postgres.clean()
    qdrant.clean()
    qdrant_servers.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a real server where there is none to start."""
    if qdrant_servers.binary is not None:
        return
    kept = [item for item in items if not _is_real(item)]
    left_out = [item for item in items if _is_real(item)]
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)
    config.stash[_left_out] = dict(
        Counter(str(item.path.parent.relative_to(config.rootpath)) for item in left_out)
    )
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = config.stash[_left_out]


def _is_real(item: pytest.Item) -> bool:
    asked = REAL & set(getattr(item, "fixturenames", ()))
    return bool(asked) or item.get_closest_marker("real_qdrant") is not None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a worker of xdist what it left out; every worker collects the same tests."""
    told = getattr(node, "workeroutput", {}).get("left_out")
    node.config.stash[_left_out] = told or node.config.stash[_left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left_out := terminalreporter.config.stash[_left_out]:
        told = ", ".join(f"{count} in {folder}" for folder, count in sorted(left_out.items()))
        terminalreporter.write_line(f"not run for want of --qdrant-binary: {told}")


@pytest.fixture
def plain_server() -> Server:
    """A server as it is when nothing is set; shared, so collections need names of their own."""
    return qdrant_servers.plain()


@pytest.fixture
def strict_server() -> Server:
    """A server whose new collections have the limits of qdrant_servers.LIMITS; shared."""
    return qdrant_servers.strict()


@pytest.fixture
def keyed_server() -> Server:
    """A server with KEY, READ_ONLY_KEY and tokens of qdrant_servers; shared."""
    return qdrant_servers.keyed()


@pytest.fixture
def small_server() -> Iterator[Server]:
    """A real server with a disk that a test can fill."""
    with Server(disk=160) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of one test, which may kill it, pause it, or start it again with other settings."""
    with Server() as server:
        yield server


@pytest.fixture
def three_nodes() -> Cluster:
    """A cluster of three; shared."""
    return qdrant_servers.cluster()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster of three of one test, which may lose nodes."""
    with Cluster() as cluster:
        yield cluster


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
