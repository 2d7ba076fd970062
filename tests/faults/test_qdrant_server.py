"""Real Qdrant servers that are killed, fill up, come back, or are a cluster that loses nodes.

They start by --qdrant-binary. What a call returned is there afterwards, whatever happened; what
could not be done is a named error, and the same call again does it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import BackendError, F, NestingError, Record, Unavailable
from nestvec.certificate import Tuned

from ..conformance.engines import Awaited
from ..qdrant_servers import Cluster, Server, until
from ..vectors import nested_vectors

DIM, COUNT = 32, 3_000
ROWS = nested_vectors(COUNT, DIM, seed=5)
KILLS = 5

#: Each in the other form of a request too.
WAYS = [("sync", "REST"), ("async", "gRPC")]

Opening = Callable[..., Any]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    """How a store is used and how it speaks to the server."""
    way: tuple[str, str] = request.param
    return way


@pytest.fixture
def grpc(way: tuple[str, str]) -> bool:
    return way[1] == "gRPC"


@pytest.fixture
def opening(way: tuple[str, str]) -> Iterator[Opening]:
    """Open stores with the blocking names, or those of AsyncStore behind them."""
    opened: list[Any] = []
    loop = asyncio.new_event_loop()

    def open_one(**settings: Any) -> Any:
        if way[0] == "sync":
            store: Any = nestvec.connect(**settings)
        else:
            store = Awaited(loop, loop.run_until_complete(nestvec.aconnect(**settings)))
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def made(rows: Any, start: int = 0) -> list[Record]:
    return [Record(f"id{n}", f"text {n}", {"n": n}, row) for n, row in enumerate(rows, start)]


def filled(opening: Opening, place: dict[str, Any], count: int = COUNT, **settings: Any) -> Any:
    store = opening(**place, **{"dims": (8,), "dim": DIM, **settings})
    store.add_records(made(ROWS[:count]))
    return store


def all_there(store: Any, ids: set[str]) -> None:
    """Check that a collection holds these documents, whole."""
    seen = {}
    for record in store.scan(vectors=True):
        assert record.text == f"text {record.metadata['n']}"
        assert np.linalg.norm(record.vector) == pytest.approx(1, abs=1e-5)
        seen[record.id] = record.vector
    assert ids <= seen.keys()
    assert store.count() == len(seen)
    assert store.verify() == {}
    for id in sorted(ids)[::500]:
        (hit,) = store.search(seen[id], k=1, where=F("n") == int(id[2:]))
        assert hit.id == id


def killed_during(server: Server, work: Callable[[], Any], moments: random.Random) -> Any:
    """Kill a server while a call runs, and start it again; return what the call gave or raised."""
    with ThreadPoolExecutor(1) as pool:
        called: Future[Any] = pool.submit(work)
        Event().wait(moments.uniform(0, 0.4))
        server.kill()
        server.start()
        return called.exception() or called.result()


def test_kills_during_ingest_lose_nothing_that_was_returned(
    own_server: Server, opening: Opening, grpc: bool
) -> None:
    """The writer goes on by itself: its requests are sent again until the server is back."""
    store = opening(**own_server.place(grpc=grpc), dims=(8, "16:int8"), dim=DIM, batch_size=100)
    returned: set[str] = set()
    ended = Event()

    def write() -> None:
        moments = np.random.default_rng(1)
        while not ended.is_set():
            size = int(moments.choice([1, 30, 250, 2_000], p=[0.3, 0.4, 0.25, 0.05]))
            rows = moments.standard_normal((size, DIM)).astype(np.float32)
            returned.update(store.add_records(made(rows, len(returned))))

    def more(seen: int) -> bool:
        return len(returned) > seen or writing.done()

    seed = random.randrange(10**6)
    moments = random.Random(seed)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        for _ in range(KILLS):
            Event().wait(moments.uniform(0.1, 0.5))
            own_server.kill()
            own_server.start()
            seen = len(returned)
            until(partial(more, seen), "ids are returned")
        ended.set()
        writing.result()
    all_there(opening(**own_server.place(grpc=grpc)), returned)


def test_kills_while_the_graph_is_built(own_server: Server, opening: Opening, grpc: bool) -> None:
    # Kilobytes of a field from which on a segment gets its graph.
    few = {"indexing_threshold": 10}
    store = filled(opening, own_server.place(grpc=grpc), optimizers_config=few)
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    for _ in range(KILLS):
        start = moments.randrange(COUNT - 500)
        # What is replaced is indexed anew, after the call has returned.
        store.add_records(made(ROWS[start : start + 500], start))
        killed_during(own_server, lambda: None, moments)
    # A server that was started again builds nothing before the next write.
    store.add_records(made(ROWS[:1]))
    until(lambda: store.info().engine["status"] == "green", "the graph is built")
    assert store.info().engine["indexed"] > 0
    all_there(store, {f"id{n}" for n in range(COUNT)})
    for n in range(0, COUNT, 300):
        assert store.search(ROWS[n], k=1, funnel="8:200")[0].id == f"id{n}", f"seed {seed}"


def test_kills_during_add_field_and_drop_field(
    own_server: Server, opening: Opening, grpc: bool
) -> None:
    """What was begun is finished by the same call."""
    place = own_server.place(grpc=grpc)
    filled(opening, place).close()
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    for kill in range(KILLS):
        for change, there in (("add_field", True), ("drop_field", False)):
            store = opening(**place, retries=0)
            told = killed_during(own_server, partial(getattr(store, change), 16), moments)
            assert told is None or isinstance(told, Unavailable), f"seed {seed}, kill {kill}"
            store = opening(**place)
            if told is not None:
                try:
                    getattr(store, change)(16)
                except NestingError:  # it was dropped, and only the answer was lost
                    assert not there
            assert ("d16" in store.nesting.names) is there, f"seed {seed}, kill {kill}"
            n = moments.randrange(COUNT)
            funnel = "16:50" if there else "8:200"
            assert store.search(ROWS[n], k=1, funnel=funnel)[0].id == f"id{n}"
    all_there(opening(**place), {f"id{n}" for n in range(COUNT)})


def kept(tuned: Tuned) -> Tuned:
    """Return what a collection records of a measurement: not what else was tried."""
    return replace(tuned, trials=(), notes=())


def test_kills_during_tune_leave_the_plan_that_was(
    own_server: Server, opening: Opening, grpc: bool
) -> None:
    place = own_server.place(grpc=grpc)
    filled(opening, place)
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    before = None
    for kill in range(KILLS):
        store = opening(**place, retries=0)
        assert store.tuned == before, f"seed {seed}, kill {kill}"
        told = killed_during(own_server, store.tune, moments)
        if isinstance(told, BaseException):
            assert isinstance(told, Unavailable), f"seed {seed}, kill {kill}"
        else:
            before = kept(told)
    store = opening(**place)
    found = store.tune()
    assert opening(**place).tuned == kept(found)
    all_there(store, {f"id{n}" for n in range(COUNT)})


def test_a_full_disk_is_told_of_and_what_was_returned_stays(
    small_server: Server, opening: Opening, grpc: bool
) -> None:
    store = filled(opening, small_server.place(grpc=grpc), 300)
    small_server.fill(leave=1)
    more = (record for start in range(300, 100_000, 300) for record in made(ROWS[:300], start))
    with pytest.raises(BackendError, match=r"[Nn]o space left"):
        store.add_records(more)
    assert store.search(ROWS[7], k=1)[0].id == "id7"
    small_server.free()
    store.add_records(made(ROWS[300:600], 300))
    all_there(store, {f"id{n}" for n in range(600)})


def test_a_server_in_recovery_mode_says_so(
    own_server: Server, opening: Opening, grpc: bool
) -> None:
    place = own_server.place(grpc=grpc)
    store = filled(opening, place, 300)
    own_server.settings["storage"] = {"recovery_mode": "someone looks into it"}
    own_server.restart()
    with pytest.raises(BackendError, match="someone looks into it"):
        store.search(ROWS[0])
    with pytest.raises(BackendError, match="someone looks into it"):
        store.add_records(made(ROWS[:3]))
    del own_server.settings["storage"]
    own_server.restart()
    all_there(store, {f"id{n}" for n in range(300)})


# Clusters


def test_a_node_lost_and_back(own_cluster: Cluster, opening: Opening, grpc: bool) -> None:
    lost = next(n for n in (1, 2) if n != own_cluster.leader())
    place = own_cluster.place(grpc=grpc, replication_factor=2)
    store = filled(opening, place, 1_000)
    own_cluster.nodes[lost].kill()
    store.add_records(made(ROWS[1_000:2_000], 1_000))
    all_there(store, {f"id{n}" for n in range(2_000)})
    with pytest.raises(Unavailable, match=own_cluster.nodes[lost].url):
        opening(**own_cluster.place(lost, grpc=grpc), retries=1)
    own_cluster.nodes[lost].start()
    own_cluster.wait()
    until(lambda: own_cluster.replicas_are_active("docs"), "every replica is active")
    store.add_records(made(ROWS[2_000:], 2_000))
    back = opening(**own_cluster.place(lost, grpc=grpc), read_consistency="all")
    all_there(back, {f"id{n}" for n in range(COUNT)})


def test_the_leader_lost(own_cluster: Cluster, opening: Opening, grpc: bool) -> None:
    leader = own_cluster.leader()
    node = (leader + 1) % 3
    place = own_cluster.place(node, grpc=grpc, replication_factor=2)
    store = filled(opening, place, 1_000)
    own_cluster.nodes[leader].kill()
    # Collections and fields are changed by consensus, which has no leader for a moment.
    store.index_metadata("n", "int")
    store.add_records(made(ROWS[1_000:2_000], 1_000))
    all_there(store, {f"id{n}" for n in range(2_000)})
    own_cluster.nodes[leader].start()
    own_cluster.wait()
    assert "n" in store.info().indexes
    all_there(store, {f"id{n}" for n in range(2_000)})


def test_a_collection_is_made_on_a_cluster_at_once(
    three_nodes: Cluster, opening: Opening, grpc: bool
) -> None:
    """An empty object in a request to make one is never answered there."""
    three_nodes.clean()
    some: list[dict[str, Any]] = [{}, {"hnsw_config": {"m": 8}}, {"tenant_key": "who"}]
    for n, settings in enumerate(some):
        place = three_nodes.place(n, grpc=grpc, collection=f"c{n}")
        store = opening(**place, dims=(8, "16:int8"), dim=DIM, timeout=20, retries=0, **settings)
        store.add_records(made(ROWS[:30]))
        assert store.count() == 30
        store.drop()
