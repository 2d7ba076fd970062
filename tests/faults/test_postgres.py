"""Postgres as it is lived with: other writers, small rights, lost connections, odd settings."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import nestvec
from nestvec import (
    AsyncStore,
    BackendError,
    CollectionDamaged,
    CollectionMissing,
    ConfigError,
    F,
    Record,
    Store,
    Unavailable,
)
from nestvec.backends.postgres_driver import Query, Statement

from .. import postgres
from ..vectors import nested_vectors, records

SCHEMA = "nestvec_test_faults"
ROWS = nested_vectors(400, 32)


@pytest.fixture
def url() -> Iterator[str]:
    postgres.clean(SCHEMA)
    yield postgres.place(SCHEMA)
    postgres.clean(SCHEMA)


def connect(url: str, **settings: Any) -> Store:
    return nestvec.connect(url, **{"dims": (8, 16), "dim": 32, **settings})


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with connect(url) as opened:
        opened.add_records(records(ROWS))
        yield opened


def ask(store: Store, sql: str) -> Any:
    """Return what one of the store's own connections answers."""
    (rows,) = store._collection.backend.send(Query(Statement(SQL(sql))))
    return rows[0][0]


def terminate(connection: psycopg.Connection[Any]) -> int:
    """End every session of nestvec and return how many there were."""
    sql = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'nestvec' AND pid <> pg_backend_pid()"
    )
    (ended,) = connection.execute(sql).fetchone() or (0,)
    return int(ended)


# The database keeps the nesting true


def test_a_row_that_others_write_has_all_of_its_fields(store: Store) -> None:
    row = ROWS[7] * 3 + 0.01
    with postgres.admin() as connection:
        connection.execute(
            f'INSERT INTO {SCHEMA}.docs (id, "full") VALUES (%s, %s::real[])',
            ("other", row.tolist()),
        )
        connection.execute(f"UPDATE {SCHEMA}.docs SET metadata = '{{\"x\": 1}}' WHERE id = '3'")
    (hit,) = store.search(row, k=1, funnel="8:40 16:20")
    assert (hit.id, hit.text, hit.metadata) == ("other", "", {})
    assert hit.score == pytest.approx(1)
    assert [record.id for record in store.scan(F("x") == 1)] == ["3"]


def test_an_upsert_of_the_same_documents_leaves_no_dead_rows(url: str) -> None:
    with connect(url, index="none") as store:
        store.add_records(records(ROWS))
        with postgres.admin() as connection:
            sql = f"SELECT array_agg(xmin::text || ctid::text ORDER BY id) FROM {SCHEMA}.docs"
            before = connection.execute(sql).fetchone()
            store.add_records(records(ROWS))
            assert connection.execute(sql).fetchone() == before
            changed = records(ROWS)[0]
            store.add_records([Record("0", changed.text, {"n": 0.0}, changed.vector)])
            store.add_records([Record("1", changed.text, {}, -ROWS[1])])
        (first, second) = store.get(["0", "1"], vectors=True)
        assert repr(first.metadata) == "{'n': 0.0}"
        assert second.vector @ ROWS[1] < 0


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("known", [0, 99], ids=["in its first part", "in its last part"])
async def test_a_copy_in_many_parts_gives_way_to_ids_that_are_there(
    url: str, colour: str, known: int
) -> None:
    """A collection that was opened empty, to which another store has added meanwhile."""
    given = [Record(str(n), f"{n} " * 3_000, {"n": n}, row) for n, row in enumerate(ROWS[:100])]
    with connect(url) as store, connect(url) as other:
        other.add_records([Record(str(known), "old", {}, ROWS[0])])
        if colour == "sync":
            assert store.add_records(given) == [str(n) for n in range(100)]
        else:
            async with store.as_async() as astore:
                assert await astore.add_records(given) == [str(n) for n in range(100)]
        found = other.get([record.id for record in given])
        assert [(record.text, record.metadata) for record in found] == [
            (record.text, record.metadata) for record in given
        ]


def test_the_widest_row_fits(url: str) -> None:
    with nestvec.connect(url, dims=(256, "512:float16"), dim=1024) as store:
        text = "".join(map(chr, range(0x4E00, 0x9000))) * 20
        wide = Record("😀" * 512, text, {"k" * 3000: [text, {"n": text}]}, np.arange(1024) + 1.0)
        store.add_records([wide, Record("b", "", {}, -np.arange(1024) - 1.0)])
        assert store.get([wide.id]) == [wide]


def test_sixteen_thousand_numbers_are_kept_and_rescored(url: str) -> None:
    rows = nested_vectors(30, 16_000)
    with nestvec.connect(url, dims=(64, "1024:binary"), dim=16_000) as store:
        store.add_records(records(rows))
        store.create_index()
        assert [hit.id for hit in store.search(rows[4], k=1, funnel="64:30")] == ["4"]
        unit = rows[4] / np.linalg.norm(rows[4])
        assert store.get(["4"], vectors=True)[0].vector == pytest.approx(unit, abs=1e-6)


def test_full_stays_in_the_row(url: str) -> None:
    with nestvec.connect(url, dims=(256,), dim=1024) as store:
        store.add_records(records(nested_vectors(50, 1024)))
    with postgres.admin() as connection:
        sql = (
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'docs'"
            f" AND relnamespace = '{SCHEMA}'::regnamespace"
        )
        assert connection.execute(sql).fetchone() == (0,)


# Candidates


@pytest.fixture(scope="module")
def indexed() -> Iterator[Store]:
    """12,000 documents that are always searched through the index where there is one to use."""
    url = postgres.with_options(postgres.server(), schema="nestvec_test_indexed",
                                options="-c enable_seqscan=off")  # fmt: skip
    postgres.place("nestvec_test_indexed")
    with connect(url, batch_size=4_000) as store:
        store.add_records(records(nested_vectors(12_000, 32)))
        assert store.info().engine["indexes"]["docs_d8_ann"]["state"] == "ready"
        yield store


def test_a_first_stage_over_a_thousand_is_not_clamped(indexed: Store) -> None:
    trace = indexed.explain(ROWS[0], k=10, funnel="8:2500")
    assert trace.stages[0].candidates_out == 2_500
    assert len(indexed.search(ROWS[0], k=1_500, funnel="8:2500")) == 1_500


@pytest.mark.parametrize(("low", "k"), [(11_990, 10), (11_999, 1), (11_000, 500), (12_000, 5)])
def test_a_filter_leaves_k_hits_whenever_they_exist(indexed: Store, low: int, k: int) -> None:
    there = 12_000 - low
    hits = indexed.search(ROWS[0], k=k, funnel=f"8:{max(k, 20)}", where=F("n") >= low)
    assert len(hits) == min(k, there)
    assert all(hit.metadata["n"] >= low for hit in hits)


def test_without_iterative_scans_the_answers_are_as_complete(
    indexed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed._collection.backend, "_iterative", False)  # as with pgvector 0.7
    assert indexed.explain(ROWS[0], funnel="8:2500").stages[0].candidates_out == 2_500
    assert len(indexed.search(ROWS[0], k=900, funnel="8:900")) == 900
    hits = indexed.search(ROWS[0], k=10, funnel="8:20", where=F("n") >= 11_990)
    assert {hit.metadata["n"] for hit in hits} == set(range(11_990, 12_000))


def test_the_graph_finds_what_a_scan_finds(indexed: Store) -> None:
    found = 0
    for row in ROWS[:50]:
        exact = {hit.id for hit in indexed.search(row, funnel="exact")}
        found += len(exact & {hit.id for hit in indexed.search(row, funnel="8:1000 16:200")})
    assert found / 500 >= 0.95


def test_settings_end_with_the_query(indexed: Store) -> None:
    indexed.search(ROWS[0], funnel="8:500")
    indexed.search(ROWS[0], funnel="exact")
    # A session that has not searched yet does not know the setting.
    assert ask(indexed, "SELECT current_setting('hnsw.ef_search', true)") in ("40", "", None)
    assert ask(indexed, "SELECT current_setting('enable_indexscan')") == "on"


@pytest.mark.parametrize("index", ["ivfflat", "none"])
def test_other_indexes_find_the_same(url: str, index: str) -> None:
    with connect(url, index=index, lists=4, probes=4) as store:
        store.add_records(records(ROWS))
        if index == "none":
            with pytest.raises(ConfigError, match="index='none'"):
                store.create_index()
        else:
            store.create_index()
            assert store.info().engine["indexes"]["docs_d8_ann"]["method"] == "ivfflat"
        for row in ROWS[:5]:
            exact = store.search(row, k=5, funnel="exact")
            assert store.search(row, k=5, funnel="8:400") == exact
            some = store.search(row, k=5, funnel="8:400", where=F("n") < 9)
            assert {hit.metadata["n"] for hit in some} <= set(range(9))
            assert len(some) == 5


def test_an_index_is_built_while_others_write(store: Store) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        n = 0
        try:
            while not stop.is_set():
                store.add_records(records(ROWS[:20], prefix=f"w{n % 5}-"))
                n += 1
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    store.create_index()
    store.create_index("16")
    stop.set()
    writer.join()
    assert errors == []
    states = {name: i["state"] for name, i in store.info().engine["indexes"].items()}
    assert states == {"docs_d8_ann": "ready", "docs_d16_ann": "ready"}


def test_a_broken_index_is_made_anew(store: Store) -> None:
    store.create_index()
    with postgres.admin() as connection:
        connection.execute(
            f"UPDATE pg_index SET indisvalid = false"
            f" WHERE indexrelid = '{SCHEMA}.docs_d8_ann'::regclass"
        )
    assert "broken off" in store.info().engine["indexes"]["docs_d8_ann"]["state"]
    store.create_index()
    assert store.info().engine["indexes"]["docs_d8_ann"]["state"] == "ready"


# Opening


def test_a_table_that_is_not_ours_is_left_alone(url: str) -> None:
    with postgres.admin() as connection:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(f"CREATE TABLE {SCHEMA}.docs AS SELECT 1 AS theirs")
        with pytest.raises(CollectionDamaged, match="not a nestvec collection"):
            connect(url)
        assert connection.execute(f"SELECT * FROM {SCHEMA}.docs").fetchall() == [(1,)]
        heads = f"SELECT to_regclass('{SCHEMA}.nestvec_collections')"
        assert connection.execute(heads).fetchone() == (None,)


def test_a_collection_whose_table_is_gone_is_damaged(store: Store, url: str) -> None:
    with postgres.admin() as connection:
        connection.execute(f"DROP TABLE {SCHEMA}.docs")
    with pytest.raises(CollectionDamaged, match="delete the collection's row of nestvec_coll"):
        connect(url)


def test_two_who_make_a_collection_at_once_get_one(url: str) -> None:
    made: list[Any] = []
    ready = threading.Barrier(6)

    def make() -> None:
        ready.wait()
        try:
            with connect(url) as store:
                made.append(store.count())
        except Unavailable as error:
            assert "just made by another process; connect again" in str(error)  # noqa: PT017
            made.append(None)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert 0 in made
    with connect(url) as store:
        assert store.count() == 0


def test_a_dropped_collection_is_missing_to_who_still_has_it_open(store: Store, url: str) -> None:
    with connect(url) as other:
        other.drop()
    for attempt in (store.count, store.info, lambda: store.search(ROWS[0])):
        with pytest.raises(CollectionMissing, match="dropped"):
            attempt()


def test_who_may_not_make_the_extension_is_told_what_to_ask_for(url: str) -> None:
    if postgres.dsn is not None:
        pytest.skip("needs the right to make databases and roles")  # an own server may not give it
    role, database = "nestvec_reader", "nestvec_bare"
    with postgres.admin() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database}")
        connection.execute(f"DROP ROLE IF EXISTS {role}")
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"CREATE DATABASE {database}")
        connection.execute(f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC")
    there = postgres.server().replace("postgres:@/postgres", f"{role}@/{database}")
    expected = r"pgvector is not in .*permission denied .*CREATE EXTENSION vector"
    with pytest.raises(BackendError, match=expected):
        nestvec.connect(there, dims=(2,), dim=4)
    with pytest.raises(CollectionMissing):
        nestvec.connect(there)


# Connections


@pytest.mark.parametrize("pool_size", [1, 4])
async def test_an_awaited_search_outlives_its_connection(url: str, pool_size: int) -> None:
    opening = nestvec.aconnect(url, dims=(8, 16), dim=32, pool_size=pool_size)
    async with await opening as store:
        await store.add_records(records(ROWS))
        with postgres.admin() as connection:
            for _ in range(5):
                expected = await store.search(ROWS[0])
                assert terminate(connection)
                assert await store.search(ROWS[0]) == expected
            assert terminate(connection)
            with pytest.raises(Unavailable):
                await store.add_records(records(ROWS[:1]))
        assert await store.count() == 400


async def test_cancelled_tasks_take_no_connection_and_leave_no_half_of_a_batch(url: str) -> None:
    async def write(store: AsyncStore, owner: int, version: int) -> None:
        rows = records(ROWS[:50], prefix=f"{owner}-")
        await store.add_records(
            Record(record.id, f"version {version}", {}, record.vector) for record in rows
        )

    async def read(store: AsyncStore) -> None:
        for _ in range(20):
            await store.search(ROWS[0], where=F("n") >= 0)

    rng = random.Random(3)
    opening = nestvec.aconnect(url, dims=(8,), dim=32, pool_size=4, timeout=5)
    async with await opening as store:
        for version in range(30):
            tasks = [asyncio.create_task(write(store, n, version)) for n in range(6)]
            tasks += [asyncio.create_task(read(store)) for _ in range(6)]
            await asyncio.sleep(rng.random() / 10)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in ended} <= {asyncio.CancelledError, type(None)}
            versions: dict[str, set[str]] = {}
            async for record in store.scan():
                versions.setdefault(record.id.partition("-")[0], set()).add(record.text)
            assert all(len(texts) == 1 for texts in versions.values())
        # None of the pool's connections is lost; those that were interrupted are made anew.
        backend: Any = store._collection.backend
        deadline = time.monotonic() + 20
        while (there := backend._driver._apool.get_stats())["pool_available"] < 4:
            assert time.monotonic() < deadline, there
            await store.search(ROWS[0])
            await asyncio.sleep(0.02)
        with postgres.admin() as connection:
            sql = "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'nestvec'"
            assert connection.execute(sql).fetchall() == [("idle",)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task cannot know that it was cancelled")
async def test_no_cancellation_is_lost(url: str) -> None:
    async def read(store: AsyncStore) -> None:
        while True:
            await store.search(ROWS[0], k=3)

    async with await nestvec.aconnect(url, dims=(8,), dim=32, pool_size=4) as store:
        await store.add_records(records(ROWS[:50]))
        for _ in range(40):
            tasks = [asyncio.create_task(read(store)) for _ in range(12)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            _, going_on = await asyncio.wait(tasks, timeout=5)
            assert not going_on


def test_a_store_belongs_to_one_event_loop(url: str) -> None:
    async def opened() -> AsyncStore:
        store = await nestvec.aconnect(url, dims=(8,), dim=32)
        assert await store.count() == 0
        # Before Python 3.12 a pool that is still filling may not hear that its loop ends.
        await asyncio.sleep(0.3)
        return store

    store = asyncio.run(opened())
    with pytest.raises(BackendError, match=r"another event loop; call aconnect\(\) in each"):
        asyncio.run(store.count())
    asyncio.run(store.close())


def test_a_closed_store_says_so_also_to_who_waits(url: str) -> None:
    store = connect(url, pool_size=1)
    with postgres.admin() as connection, ThreadPoolExecutor(2) as threads:
        store.count()
        with connection.transaction():
            connection.execute(f"LOCK TABLE {SCHEMA}.docs IN ACCESS EXCLUSIVE MODE")
            calls = [threads.submit(store.count) for _ in range(2)]
            time.sleep(0.3)
            store.close()
        counted = [call.exception() for call in calls]
    assert sum(error is None for error in counted) == 1  # the one that had the connection
    (error,) = filter(None, counted)
    assert isinstance(error, BackendError)
    assert "was closed; connect again" in str(error)
    with pytest.raises(BackendError, match="is closed; connect again"):
        store.count()


@pytest.mark.parametrize("pool_size", [1, 4])
def test_a_search_outlives_its_connection(url: str, pool_size: int) -> None:
    with connect(url, pool_size=pool_size) as store, postgres.admin() as connection:
        store.add_records(records(ROWS))
        for _ in range(5):
            expected = store.search(ROWS[0])
            assert terminate(connection)
            assert store.search(ROWS[0]) == expected


def test_an_add_says_that_its_connection_was_lost_and_the_next_works(url: str) -> None:
    with connect(url, pool_size=1) as store, postgres.admin() as connection:
        store.add_records(records(ROWS[:10]))
        assert terminate(connection)
        with pytest.raises(Unavailable):
            store.add_records(records(ROWS[10:20], prefix="x"))
        store.add_records(records(ROWS[20:30], prefix="y"))
        assert store.count() == 20


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lock_timeout=100", "lock timeout; another session holds the table"),
        ("statement_timeout=100", "statement timeout; simplify the query"),
    ],
)
def test_a_timeout_of_the_server_has_a_name(
    store: Store, url: str, option: str, message: str
) -> None:
    hurried = postgres.with_options(url, options=f"-c {option}")
    with connect(hurried) as other, postgres.admin() as connection:
        assert other.count() == 400
        with connection.transaction():
            connection.execute(f"LOCK TABLE {SCHEMA}.docs IN ACCESS EXCLUSIVE MODE")
            for attempt in (
                lambda: other.search(ROWS[0]),
                lambda: other.add_records(records(ROWS[:1])),
                lambda: other.delete(ids=["0"]),
            ):
                with pytest.raises(BackendError, match=message) as caught:
                    attempt()
                assert not isinstance(caught.value, Unavailable)
        assert other.count() == 400  # the connection is as good as before


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_statement_that_could_not_be_prepared_is_prepared_again(
    store: Store, url: str, colour: str
) -> None:
    """psycopg 3.3 believes that it was, and asks for what the server does not know."""

    async def searches(store: AsyncStore, times: int) -> list[Any]:
        return [await store.search(ROWS[0]) for _ in range(times)]

    loop = asyncio.new_event_loop()
    hurried = postgres.with_options(url, options="-c lock_timeout=100")
    with connect(hurried, pool_size=1) as other, postgres.admin() as connection:
        awaited = other.as_async()

        def search(times: int) -> list[Any]:
            if colour == "async":
                return loop.run_until_complete(searches(awaited, times))
            return [other.search(ROWS[0]) for _ in range(times)]

        search(5)  # the sixth is prepared
        with connection.transaction():
            connection.execute(f"LOCK TABLE {SCHEMA}.docs IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(BackendError, match="lock timeout"):
                search(1)
        assert search(2) == [store.search(ROWS[0])] * 2
        loop.run_until_complete(awaited.close())
    loop.close()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Any) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no_such"):
        nestvec.connect("postgresql://127.0.0.1:9/no_such", dims=(2,), dim=4, timeout=2)
    assert time.monotonic() - started < 10


def test_a_pooler_of_transactions_gets_no_prepared_statements(url: str) -> None:
    counted = "SELECT count(*) FROM pg_prepared_statements"
    for pgbouncer in (False, True):
        with connect(url, pool_size=1, pgbouncer=pgbouncer) as store:
            store.add_records(records(ROWS[:20]))
            for _ in range(12):
                store.search(ROWS[0])
            assert (ask(store, counted) == 0) is pgbouncer


def test_another_schema_needs_no_search_path(url: str) -> None:
    odd = 'nestvec_test_odd "%s" ü'
    where = postgres.with_options(postgres.server(), options="-c search_path=pg_catalog")
    postgres.place(odd)
    with connect(postgres.with_options(where, schema=odd), collection='d"%b') as store:
        store.add_records(records(ROWS))
        store.add_records(records(ROWS[:5]))
        store.create_index()
        assert store.search(ROWS[3], k=1)[0].id == "3"
        assert store.delete(where=F("n") >= 5) == 395
        assert store.info().count == 5
    with postgres.admin() as connection:
        sql = SQL("SELECT count(*) FROM {}").format(Identifier(odd, 'd"%b'))
        assert connection.execute(sql).fetchone() == (5,)
