"""Fields that come and go, and documents that are found wrong and mended, on every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nestvec import CollectionMismatch, FunnelError, NestingError, Record

from ..vectors import nested_vectors
from .engines import Engine, lasting

ROWS = nested_vectors(60, 8, seed=3)


def filled(engine: Engine, **settings: Any) -> Any:
    store = engine.connect(**{"dims": (2, 4), "dim": 8, **settings})
    store.add_records([Record(f"id{i}", f"text {i}", {"n": i}, row) for i, row in enumerate(ROWS)])
    return store


def test_an_added_field_is_as_if_it_had_been_there(engine: Engine) -> None:
    store = filled(engine)
    told: list[tuple[int, int]] = []
    store.add_field(6, progress=lambda done, total: told.append((done, total)))
    assert store.nesting.names == ("d2", "d4", "d6", "full")
    assert told[-1] == (60, 60)
    made = filled(engine, collection="made", dims=(2, 4, 6))
    for row in ROWS[:5]:
        for funnel in ("6:12", "2:30 6:12"):
            hits, others = (each.search(row, k=5, funnel=funnel) for each in (store, made))
            assert [hit.id for hit in hits] == [hit.id for hit in others]
    assert store.verify() == {}
    store.add_records([Record("new", "", {}, ROWS[0])])
    assert store.search(ROWS[0], k=2, funnel="6:2")[1].score == pytest.approx(1, abs=1e-4)
    store.add_field(6)  # it is there
    assert store.verify() == {}


@pytest.mark.needs("int8")
def test_a_quantised_field_is_added(engine: Engine) -> None:
    store = filled(engine)
    store.add_field("6:int8")
    assert store.search(ROWS[7], k=1, funnel="6:int8:20")[0].id == "id7"
    assert store.verify() == {}


def test_full_is_quantised_later(engine: Engine) -> None:
    store = filled(engine)
    store.add_field("full:binary")
    assert store.search(ROWS[7], k=1, funnel="full_binary:60")[0].id == "id7"
    store.drop_field("full:binary")
    assert store.search(ROWS[7], k=1, funnel="4:20")[0].id == "id7"
    assert store.verify() == {}


def test_a_dropped_field_is_gone(engine: Engine) -> None:
    store = filled(engine)
    store.drop_field(2)
    assert store.nesting.names == ("d4", "full")
    assert store.search(ROWS[3], k=1)[0].id == "id3"
    with pytest.raises(FunnelError, match="unknown field '2'; this collection has d4, full"):
        store.search(ROWS[3], funnel="2:10")
    store.add_records([Record("new", "", {}, ROWS[0])])
    assert store.verify() == {}
    with pytest.raises(NestingError, match="d4 is the last field beside full"):
        store.drop_field(4)
    store.add_field(2)
    assert store.search(ROWS[3], k=1, funnel="2:30")[0].id == "id3"


def test_what_cannot_be_changed_is_named(engine: Engine) -> None:
    store = filled(engine)
    for field, message in (
        (9, "prefixes are shorter than the full vector"),
        ("x", "items look like"),
        ("full:float16", "how it is kept cannot be changed"),
    ):
        with pytest.raises(NestingError, match=message):
            store.add_field(field)
    for field, message in (("full", "cannot be dropped"), (3, "unknown field 'd3'")):
        with pytest.raises(NestingError, match=message):
            store.drop_field(field)
    assert store.nesting.names == ("d2", "d4", "full")


@lasting
def test_a_change_is_there_for_the_next_one_who_opens(engine: Engine) -> None:
    store = filled(engine)
    store.add_field(6)
    store.drop_field(2)
    store.close()
    again = engine.connect()
    assert again.nesting.names == ("d4", "d6", "full")
    assert again.search(ROWS[5], k=1, funnel="4:20 6:5")[0].id == "id5"
    again.add_records([Record("new", "", {}, ROWS[0])])
    assert again.verify() == {}
    again.close()
    with pytest.raises(CollectionMismatch, match="dims 4, 6 of 8"):
        engine.connect(dims=(2, 4))


def test_a_document_without_a_prefix_leaves_the_collection_as_it_was(engine: Engine) -> None:
    store = engine.connect(dims=(4,), dim=8)
    store.add_records([Record("odd", "", {}, [0, 0, 1, 0, 0, 0, 0, 1])])
    if engine.name == "postgres":  # an expression of a zero prefix is a zero vector
        store.add_field(2)
    else:
        with pytest.raises(NestingError, match="record 'odd': the first 2 numbers"):
            store.add_field(2)
        with pytest.raises(CollectionMismatch, match=r"finish it by add_field\('2'\), or drop_fi"):
            store.add_field(3)
    store.drop_field(2)
    assert store.search([0, 0, 1, 0, 0, 0, 0, 1], k=1)[0].id == "odd"
    assert store.nesting.names == ("d4", "full")


def test_searches_and_writes_go_on_meanwhile(engine: Engine) -> None:
    if engine.colour == "async":
        pytest.skip("one loop drives one call at a time; the threads of the blocking one do it")
    store = filled(engine)
    ended = threading.Event()
    failed: list[Any] = []

    def again_and_again(act: Callable[[int], bool]) -> None:
        n = 0
        while not ended.is_set():
            try:
                if not act(n):
                    failed.append(n)
            except Exception as error:  # noqa: BLE001
                failed.append(error)
            n += 1

    def search(n: int) -> bool:
        found: str = store.search(ROWS[n % 60], k=1, funnel="4:30")[0].id
        return found == f"id{n % 60}"

    def write(n: int) -> bool:
        return bool(store.add_records([Record(f"w{n % 90}", "", {}, -ROWS[n % 60])]))

    acts = (search, search, search, write)
    threads = [threading.Thread(target=again_and_again, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    try:
        store.add_field(6)
        store.drop_field(2)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert store.verify() == {}
