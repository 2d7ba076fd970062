"""Postgres under many readers and writers, and killed in the middle of an ingest."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import F, Record, Unavailable

from .. import postgres
from ..postgres import OwnServer
from ..vectors import nested_vectors

DIM = 32
OPERATIONS = 20_000
KILLS = 5

#: A vector for every version of a document: who finds a text beside another's vector finds a
#: document that was half-written.
VERSIONS = nested_vectors(50, DIM)
UNIT = VERSIONS / np.linalg.norm(VERSIONS, axis=1, keepdims=True)


def document(id: str, version: int) -> Record:
    row = VERSIONS[version % len(VERSIONS)]
    return Record(id, f"{id} version {version}", {"version": version, "owner": id[0]}, row)


def check_whole(record: Record) -> None:
    version = record.metadata["version"]
    assert record.text == f"{record.id} version {version}"
    if record.vector is not None:
        assert record.vector == pytest.approx(UNIT[version % len(UNIT)], abs=1e-6)


class Counter:
    """How many operations were done, and whether there were enough."""

    def __init__(self) -> None:
        self.done, self.lock = 0, threading.Lock()

    def more(self) -> bool:
        with self.lock:
            self.done += 1
            return self.done <= OPERATIONS


def reads(rng: random.Random) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return one reading call: its name and its arguments."""
    ids = [f"{rng.choice('ab')}{rng.randrange(200)}" for _ in range(5)]
    query = VERSIONS[rng.randrange(len(VERSIONS))]
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("search", (query,), {"k": 3, "funnel": "8:40"}),
        ("search", (query,), {"k": 3, "where": F("owner") == "a", "funnel": "8:40"}),
        ("get", (ids,), {"vectors": True}),
        ("count", (F("owner") == "b",), {}),
    ]
    return rng.choice(calls)


def judge(found: Any) -> None:
    for each in found if isinstance(found, list) else ():
        if isinstance(each, Record):
            check_whole(each)
        else:
            assert each.text == f"{each.id} version {each.metadata['version']}"


def read(store: nestvec.Store, counter: Counter, seed: int) -> None:
    rng = random.Random(seed)
    while counter.more():
        name, arguments, options = reads(rng)
        judge(getattr(store, name)(*arguments, **options))


async def read_in_tasks(url: str, counter: Counter) -> None:
    async def one(store: nestvec.AsyncStore, seed: int) -> None:
        rng = random.Random(seed)
        while counter.more():
            name, arguments, options = reads(rng)
            judge(await getattr(store, name)(*arguments, **options))

    async with await nestvec.aconnect(url, **postgres.settings) as store:
        await asyncio.gather(*(one(store, seed) for seed in range(64)))


def write(store: nestvec.Store, counter: Counter, owner: str) -> dict[str, int]:
    """Write new versions until there were enough operations; return the last of each id."""
    rng = random.Random(owner)
    last: dict[str, int] = {}
    for version in count(1):
        if not counter.more():
            return last
        ids = [f"{owner}{n}" for n in rng.sample(range(200), 20)]
        assert store.add_records(document(id, version) for id in ids) == ids
        last |= dict.fromkeys(ids, version)
    raise AssertionError


def remove(store: nestvec.Store, counter: Counter) -> int:
    """Delete, by id or by filter, what nobody writes; return how many are left."""
    left = 2_000
    for n in count():
        if left == 0 or not counter.more():
            return left
        if n % 2:
            left -= store.delete(ids=[f"d{n}", f"d{n - 1}"])
        else:
            left -= store.delete(where=(F("owner") == "d") & (F("version") == 5_000 + n))
    raise AssertionError


def test_many_read_while_two_write_and_one_deletes() -> None:
    url = postgres.place()
    counter = Counter()
    opening = {"dims": (8,), "dim": DIM, "pool_size": 12, **postgres.settings}
    with nestvec.connect(url, **opening) as store:
        store.add_records(document(f"{o}{n}", 0) for o in "ab" for n in range(200))
        store.add_records(document(f"d{n}", n) for n in range(2_000))
        store.create_index()
        with ThreadPoolExecutor(16) as threads:
            readers = [threads.submit(read, store, counter, seed) for seed in range(8)]
            readers.append(threads.submit(asyncio.run, read_in_tasks(url, counter)))
            writers = [threads.submit(write, store, counter, owner) for owner in "ab"]
            deleter = threads.submit(remove, store, counter)
            for reader in readers:
                reader.result()
        assert counter.done >= OPERATIONS
        for writer, owner in zip(writers, "ab", strict=True):
            expected = {f"{owner}{n}": 0 for n in range(200)} | writer.result()
            found = {r.id: r for r in store.scan(F("owner") == owner, vectors=True)}
            assert {id: r.metadata["version"] for id, r in found.items()} == expected
            for record in found.values():
                check_whole(record)
        assert store.count(F("owner") == "d") == deleter.result() < 2_000
        with postgres.admin() as connection:
            sql = (
                "SELECT state FROM pg_stat_activity WHERE application_name = 'nestvec'"
                " AND pid <> pg_backend_pid()"  # which a pooler may share
            )
            states = {state for (state,) in connection.execute(sql)}
        assert states == {"idle"}


# Killed


@pytest.fixture
def server() -> Iterator[OwnServer]:
    own = OwnServer()
    yield own
    own.end()


def ingest(store: nestvec.Store, prefix: str, started: Callable[[], None]) -> list[str]:
    """Add records until the server dies; return the ids that are stored for certain."""

    def source() -> Iterator[Record]:
        for n in count():
            if n == 200:
                started()
            yield document(f"{prefix}{n}", n)

    try:
        store.add_records(source())
    except Unavailable as error:
        return list(error.stored)
    raise AssertionError


def test_a_killed_server_loses_nothing_that_was_returned(server: OwnServer) -> None:
    rng = random.Random(1)
    kept: list[str] = []
    url = server.url
    with nestvec.connect(url, dims=(8,), dim=DIM, batch_size=100, timeout=20) as store:
        for round in range(KILLS):
            started = threading.Event()
            with ThreadPoolExecutor(2) as threads:
                writing = threads.submit(ingest, store, f"r{round}-", started.set)
                assert started.wait(30)
                time.sleep(rng.random() / 2)
                server.kill()
                stored = writing.result()
            assert stored
            kept += stored
            server.start()
            again = time.monotonic()
            found = {record.id: record for record in store.scan(vectors=True)}
            assert time.monotonic() - again < 20  # the timeout that connect was given
            assert set(kept) <= set(found)
            for record in found.values():
                check_whole(record)
            # All of the batch that was under way is there, or nothing of it.
            assert len([id for id in found if id.startswith(f"r{round}-")]) % 100 == 0


def test_who_waits_for_a_server_that_is_down_gives_up_in_time_and_recovers(
    server: OwnServer,
) -> None:
    with nestvec.connect(server.url, dims=(8,), dim=DIM, timeout=2) as store:
        store.add_records(document(f"a{n}", n) for n in range(20))
        server.kill()
        for attempt in (store.count, lambda: store.add_records([document("b", 1)])):
            started = time.monotonic()
            with pytest.raises(Unavailable):
                attempt()
            assert time.monotonic() - started < 6
        server.start()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert store.count() == 20
                break
            except Unavailable:
                assert time.monotonic() < deadline
        store.add_records([document("b", 1)])


def test_the_embedded_server_keeps_what_it_was_given() -> None:
    directory = Path(tempfile.mkdtemp(prefix="nestvec-pg-"))
    url = f"postgresql+embedded:{directory}"
    with nestvec.connect(url, dims=(8,), dim=DIM) as store:
        store.add_records([document("a", 1)])
        assert repr(store) == f"<Store 'docs' in {url}: dims 8 of 32>"
    with nestvec.connect(f"{url}?schema=public") as again:
        check_whole(again.get(["a"], vectors=True)[0])
    OwnServer(directory).end()
