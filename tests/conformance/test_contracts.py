"""The contracts of docs/design.md, on every engine in both colours."""

from __future__ import annotations

import copy
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from nestvec import And, CollectionMissing, F, NestvecError, Record, RecordError

from ..vectors import HashEmbedder, nested_vectors, records
from .engines import Engine, lasting


def filled(store: Any, n: int = 20) -> Any:
    store.add_records(records(nested_vectors(n, 8)))
    return store


class Colour(enum.Enum):
    RED = "red"


# Scores


def test_a_score_is_the_cosine_of_the_full_vectors(store: Any) -> None:
    vectors = nested_vectors(20, 8)
    store.add_records(records(vectors * 7))  # lengths do not matter
    query = nested_vectors(1, 8, seed=1)[0] * 3
    for hit in store.search(query, k=20, funnel="2:20 4:20"):
        row = vectors[int(hit.id)]
        cosine = row @ query / np.linalg.norm(row) / np.linalg.norm(query)
        assert hit.score == pytest.approx(cosine, abs=1e-4)
        assert -1 <= hit.score <= 1


def test_min_score_speaks_of_the_cosine(store: Any) -> None:
    filled(store)
    query = nested_vectors(1, 8, seed=1)[0]
    every = store.search(query, k=20, funnel="exact")
    above = store.search(query, k=20, funnel="exact", min_score=0.2)
    assert [hit.id for hit in above] == [hit.id for hit in every if hit.score >= 0.2]
    assert 0 < len(above) < len(every)
    assert len(store.search(query, k=20, funnel="exact", min_score=-1)) == 20


def test_offsets_page_through_everything_once(store: Any) -> None:
    filled(store)
    query = nested_vectors(1, 8, seed=1)[0]
    every = [hit.id for hit in store.search(query, k=20)]
    pages = [[hit.id for hit in store.search(query, k=6, offset=o)] for o in range(0, 20, 6)]
    assert [len(page) for page in pages] == [6, 6, 6, 2]
    assert [id for page in pages for id in page] == every
    assert store.search(query, k=6, offset=20) == []
    assert store.search(query, k=6, offset=500) == []


# Writing


def test_ids_come_back_in_order_and_as_given(store: Any) -> None:
    number, unique = 7, uuid.uuid4()
    ids: list[Any] = ["é/ü #1", number, unique, "x" * 512, " "]
    rows = nested_vectors(5, 8)
    stored = store.add_records(Record(id, "t", {}, row) for id, row in zip(ids, rows, strict=True))
    assert stored == ["é/ü #1", "7", str(unique), "x" * 512, " "]
    assert [record.id for record in store.get(stored)] == stored
    assert {record.id for record in store.scan()} == set(stored)


def test_ids_that_are_not_given_are_random_uuids(engine: Engine) -> None:
    store = engine.connect(dims=(2,), embedder=HashEmbedder())
    ids = store.add(["one", "two", "two"], ids=[None, "b", None])
    assert len(set(ids)) == 3
    assert ids[1] == "b"
    assert str(uuid.UUID(ids[0])) == ids[0]


def test_adding_an_id_again_replaces_the_document(store: Any) -> None:
    filled(store)
    row = nested_vectors(1, 8, seed=9)[0]
    store.add_records([Record("3", "new", {"only": "this"}, row)])
    assert store.count() == 20
    (record,) = store.get(["3"])
    assert (record.text, record.metadata) == ("new", {"only": "this"})
    assert store.search(row, k=1)[0].id == "3"
    assert store.count(F("n") == 3) == 0


def test_within_a_call_the_last_of_an_id_wins(engine: Engine) -> None:
    store = engine.connect(dims=(2, 4), dim=8, batch_size=4)
    rows = nested_vectors(9, 8)
    ids = ["a", "b", "a", "c", "a", "b", "d", "e", "f"]
    given = [Record(id, f"{n}", {}, rows[n]) for n, id in enumerate(ids)]
    assert store.add_records(given) == ids
    assert {record.id: record.text for record in store.scan()} == {
        "a": "4", "b": "5", "c": "3", "d": "6", "e": "7", "f": "8",
    }  # fmt: skip


def test_a_generator_is_read_one_batch_at_a_time(engine: Engine) -> None:
    store = engine.connect(dims=(2, 4), dim=8, batch_size=10)
    seen: list[int] = []

    def source() -> Iterator[Record]:
        for n, row in enumerate(nested_vectors(35, 8)):
            seen.append(store.count() if engine.colour == "sync" else 0)
            yield Record(f"{n}", f"{n}", {}, row)

    assert len(store.add_records(source())) == 35
    assert store.count() == 35
    if engine.colour == "sync":
        assert seen == [n // 10 * 10 for n in range(35)]


def test_texts_are_embedded_in_batches(engine: Engine) -> None:
    embedder = HashEmbedder()
    store = engine.connect(dims=(2,), embedder=embedder, batch_size=10)
    embedder.calls.clear()
    store.add(f"text {n}" for n in range(25))
    assert embedder.calls == [10, 10, 5]
    assert store.search("text 7", k=1)[0].text == "text 7"


def test_an_async_iterable_is_read_by_the_async_store(engine: Engine) -> None:
    store = engine.connect(dims=(2,), embedder=HashEmbedder(), batch_size=4)

    async def texts() -> AsyncIterator[str]:
        for n in range(10):
            yield f"text {n}"

    ids = [f"id{n}" for n in range(10)]
    if engine.colour == "sync":
        with pytest.raises(NestvecError, match="aconnect"):
            store.add(texts(), ids=ids)
        assert store.count() == 0
    else:
        assert store.add(texts(), ids=ids) == ids
        assert store.count() == 10


def test_an_empty_ingest_stores_nothing(store: Any) -> None:
    assert store.add_records([]) == []
    assert store.add([]) == []
    assert store.count() == 0
    assert store.search(nested_vectors(1, 8)[0]) == []
    assert list(store.scan()) == []
    assert store.get(["a"]) == []


def test_a_batch_that_fails_leaves_nothing_of_itself(engine: Engine) -> None:
    store = engine.connect(dims=(2, 4), dim=8, batch_size=5)
    given = records(nested_vectors(12, 8))
    given[8] = Record("8", "t", {"bad": object()}, given[8].vector)
    with pytest.raises(RecordError, match=r"'8'.*bad.*object is not JSON") as caught:
        store.add_records(given)
    assert caught.value.stored == ("0", "1", "2", "3", "4")
    assert {record.id for record in store.scan()} == set(caught.value.stored)


def test_a_source_that_fails_keeps_its_own_error(engine: Engine) -> None:
    store = engine.connect(dims=(2, 4), dim=8, batch_size=5)

    def source() -> Iterator[Record]:
        yield from records(nested_vectors(7, 8))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_records(source())
    assert store.count() == 5


# Metadata


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else ["bottom"]


METADATA: list[dict[str, Any]] = [
    {},
    {"s": "ü\n\"'\\\u202e", "": "empty key", "a b": 1, "a.b": 2, '"': 3, "$x": [4]},
    {"i": 2**63 - 1, "j": -(2**63), "zero": 0, "neg": -1},
    {"f": 0.1, "g": 1e300, "h": 5e-324, "one": 1.0, "z": -0.0, "long": 123456789.123456789},
    {"deep": nested(98)},
    {"t": True, "n": None, "l": [1, "a", None, [2.5, {"x": []}], {}], "d": {"e": {"f": [False]}}},
]


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same type all the way down: 1, 1.0 and True are three things."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


def test_metadata_comes_out_as_it_went_in(store: Any) -> None:
    given = copy.deepcopy(METADATA)
    rows = nested_vectors(len(given), 8)
    store.add_records(Record(f"{n}", "t", given[n], rows[n]) for n in range(len(given)))
    assert given == METADATA  # inputs are never mutated
    for record in store.get(range(len(given))):
        assert same(record.metadata, METADATA[int(record.id)]), record.metadata
    for hit in store.search(rows[0], k=len(given)):
        assert same(hit.metadata, METADATA[int(hit.id)])


def test_what_comes_out_is_not_what_is_kept(store: Any) -> None:
    filled(store)
    store.get(["1"])[0].metadata["n"] = "changed"
    store.search(nested_vectors(20, 8)[1], k=1)[0].metadata["n"] = "changed"
    assert store.get(["1"])[0].metadata["n"] == 1


def test_dates_and_such_are_written_out(store: Any) -> None:
    unique = uuid.uuid4()
    given = {
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "on": date(2026, 1, 2),
        "uuid": unique,
        "price": Decimal("9.99"),
        "colour": Colour.RED,
        "all": [date(2026, 1, 2), {"x": Decimal(3)}],
    }
    store.add_records([Record("a", "t", given, nested_vectors(1, 8)[0])])
    assert store.get(["a"])[0].metadata == {
        "at": "2026-01-02T03:04:05+00:00",
        "on": "2026-01-02",
        "uuid": str(unique),
        "price": 9.99,
        "colour": "red",
        "all": ["2026-01-02", {"x": 3}],
    }
    for where in (F("at") == given["at"], F("on") <= given["on"], F("price") == Decimal("9.99"),
                  F("uuid") == unique, F("colour") == Colour.RED):  # fmt: skip
        assert store.count(where) == 1, where


# Reading and deleting


def test_get_keeps_the_order_and_leaves_out_the_unknown(store: Any) -> None:
    filled(store)
    assert [record.id for record in store.get(["7", "nope", "2"])] == ["7", "2"]
    (record,) = store.get(["7"], vectors=True)
    row = nested_vectors(20, 8)[7]
    assert record.vector == pytest.approx(row / np.linalg.norm(row), abs=1e-6)
    assert store.get(["7"])[0].vector is None


def test_scan_returns_everything_once(engine: Engine) -> None:
    store = filled(engine.connect(dims=(2, 4), dim=8, batch_size=6))
    assert sorted(int(record.id) for record in store.scan()) == list(range(20))
    assert {record.id for record in store.scan(F("n") >= 15)} == {str(n) for n in range(15, 20)}
    assert all(record.vector is not None for record in store.scan(vectors=True))


def test_delete_by_ids(store: Any) -> None:
    filled(store)
    assert store.delete(ids=["1", "2", "nope", "1"]) == 2
    assert store.count() == 18
    assert store.get(["1", "3"])[0].id == "3"
    assert store.delete([]) == 0
    assert store.count() == 18


def test_delete_by_filter(store: Any) -> None:
    filled(store)
    assert store.delete(where=F("n") >= 15) == 5
    assert store.count() == 15
    assert store.delete(where=And(())) == 15
    assert store.count() == 0


def test_delete_without_either_is_an_error_and_deletes_nothing(store: Any) -> None:
    filled(store)
    for arguments in ({}, {"ids": ["1"], "where": F("n") == 1}):
        with pytest.raises(RecordError, match="ids or where"):
            store.delete(**arguments)
    assert store.count() == 20


def test_a_filter_limits_the_first_stage(store: Any) -> None:
    filled(store)
    query = nested_vectors(20, 8)[3]
    hits = store.search(query, k=3, where=F("n") >= 17, funnel="2:3")
    assert {hit.id for hit in hits} == {"17", "18", "19"}


def test_explain_shows_every_stage(store: Any) -> None:
    filled(store)
    trace = store.explain(nested_vectors(1, 8, seed=1)[0], k=3, funnel="2:10 4:5")
    stages = [(stage.field, stage.candidates_in, stage.candidates_out) for stage in trace.stages]
    assert stages == [("d2", 20, 10), ("d4", 10, 5), ("full", 5, 3)]
    assert trace.funnel == "2:10 4:5"
    assert all(stage.milliseconds >= 0 for stage in trace.stages)
    assert 0 <= trace.overlap <= 1
    assert len(trace.hits) == 3
    exact = store.explain(nested_vectors(1, 8, seed=1)[0], where=F("n") < 4, funnel="exact")
    assert [(s.field, s.candidates_in, s.candidates_out) for s in exact.stages] == [("full", 4, 4)]
    assert exact.overlap == 1


def test_what_nestvec_wrote_has_all_of_its_fields(store: Any) -> None:
    filled(store)
    assert store.verify() == {}


def test_info_tells_the_fields_and_their_bytes(engine: Engine) -> None:
    store = filled(engine.connect(dims=("4:binary", "2"), dim=8))
    info = store.info()
    assert info.collection == engine.place.settings()["collection"]
    assert (info.count, info.dim, info.embedder) == (20, 8, None)
    assert [(field.name, field.nbytes) for field in info.fields] == [
        ("d4_binary", 20), ("d2", 160), ("full", 640),
    ]  # fmt: skip
    assert info.engine["engine"] == engine.name.partition(":")[0]


# The collection knows itself


def test_a_missing_collection_is_not_made_by_opening_it(engine: Engine) -> None:
    with pytest.raises(CollectionMissing, match=r"no collection '.*docs'.*dims="):
        engine.connect()


@lasting
def test_a_collection_is_still_there_after_closing(engine: Engine) -> None:
    query = nested_vectors(1, 8, seed=1)[0]
    store = filled(engine.connect(dims=(2, 4), dim=8))
    before = store.search(query)
    store.close()
    again = engine.connect()
    assert repr(again) == repr(store)
    after = again.search(query)
    assert [hit.id for hit in after] == [hit.id for hit in before]
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-6)
    assert again.count() == 20


@lasting
def test_drop_deletes_the_collection_and_no_other(engine: Engine) -> None:
    one = filled(engine.connect(collection="one", dims=(2,), dim=8))
    two = filled(engine.connect(collection="two", dims=(2,), dim=8))
    one.drop()
    with pytest.raises(NestvecError, match="closed"):
        one.count()
    assert two.count() == 20
    with pytest.raises(CollectionMissing):
        engine.connect(collection="one")


def test_a_closed_store_says_so(store: Any) -> None:
    store.close()
    with pytest.raises(NestvecError, match="closed"):
        store.count()
    store.close()
