"""The filter language on every engine: what it finds is what the predicate says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from nestvec import And, ConfigError, F, Filter, FilterError, Not, Or, Record

from ..strategies import filters, metadatas, samples
from ..vectors import nested_vectors
from .engines import ENGINES, PLACES, Engine, named

ROWS = nested_vectors(60, 8)


class Stocked:
    """One engine with the same records in two collections, one of each colour."""

    def __init__(self, name: str, place: Path, records: list[Record]) -> None:
        self.name, self.records = name, records
        self.engines = {
            colour: Engine(name, colour, PLACES[name](place / colour))
            for colour in ("sync", "async")
        }
        self.stores = {
            colour: engine.connect(collection=f"filters_{colour}", dims=(2,), dim=8)
            for colour, engine in self.engines.items()
        }
        for store in self.stores.values():
            store.add_records(records)

    def agree(self, where: Any, expected: set[str]) -> None:
        """Check what both stores find."""
        for colour, store in self.stores.items():
            hits = store.search(ROWS[0], k=len(ROWS), where=where, funnel="exact")
            found = {hit.id for hit in hits}
            odd = [record for record in self.records if record.id in found ^ expected]
            wrong = [(record.id in found, record.metadata) for record in odd[:3]]
            assert found == expected, (colour, where, wrong)

    def close(self) -> None:
        for store in self.stores.values():
            store.drop()
        for engine in self.engines.values():
            engine.close()


@pytest.fixture(scope="module", params=named(ENGINES))
def stocked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stocked]:
    """An engine with random records."""
    some = enumerate(samples(metadatas, len(ROWS)))
    records = [Record(f"{n}", "text", metadata, ROWS[n]) for n, metadata in some]
    made = Stocked(request.param, tmp_path_factory.mktemp("filters"), records)
    yield made
    made.close()


#: Keys of the filters, with what is indexed; what records hold there is of any type.
INDEXES = {"a": "int", "b": "str", "ü": "datetime", "e": "bool", '"x.y"': "float", "a.b": "str"}


def check(stocked: Stocked, cases: int) -> None:
    @given(filters)
    @settings(max_examples=cases)
    def agree(where: Filter) -> None:
        stocked.agree(where, {r.id for r in stocked.records if where.matches(r)})

    agree()


def test_an_engine_finds_what_the_predicate_says(stocked: Stocked) -> None:
    check(stocked, 2000)


def test_an_index_changes_nothing_of_it(stocked: Stocked) -> None:
    for store in stocked.stores.values():
        for key, kind in INDEXES.items():
            store.index_metadata(key, kind)
            store.index_metadata(key, kind)
        there = store.info().indexes
        assert {"a", "b", "ü", '"x.y"', "a.b"} <= set(there)
        assert there["a"] == there['"x.y"'] == "number"
        with pytest.raises(ConfigError, match="key 'a' is indexed already, as 'number'"):
            store.index_metadata("a", "str")
    # Where an index is only kept in mind there is little to see.
    check(stocked, 50 if stocked.name in ("memory", "qdrant+local") else 1000)
    for store in stocked.stores.values():
        served = store.explain(ROWS[0], where=F("a") > 1).filter
        assert served is not None
        assert served.total == len(stocked.records)


@pytest.mark.parametrize(
    "hostile",
    [
        "'; drop table docs; --", '"', "\\", "\\'", "\0", "\x01", "$", "$.a", "@ ? (1 == 1)", "%s",
        "{}", "a.b", "a..b", ".", "[]", "a[]", "[0]", "*", "/*", "\u202e\u200f", "ﬀ\u0301",
        "k" * 10_000,
        "\n\r\t", "null", "true", " ", "",
    ],
    ids=lambda text: ascii(text)[:24],
)  # fmt: skip
def test_hostile_keys_and_values_are_only_keys_and_values(stocked: Stocked, hostile: str) -> None:
    record = Record("hostile", "text", {hostile: hostile, "in": {hostile: [hostile, 1]}}, ROWS[0])
    quoted = json.dumps(hostile)
    everywhere = [
        F(quoted) == hostile, F(quoted) >= hostile, F(quoted).in_([hostile, 1]), F(quoted).exists(),
        F(f"in.{quoted}") == hostile, F(f"in.{quoted}[]") == hostile, F(f"in.{quoted}") >= 1,
        F(quoted).contains_text(hostile[:4_000]), F(quoted).ilike("%"), ~F(quoted).is_empty(),
        F.id_in(["hostile", hostile[:512] or "x"]),
    ]  # fmt: skip
    for store in stocked.stores.values():
        store.add_records([record])
        for where in everywhere:
            assert where.matches(record), where
            hits = store.search(ROWS[0], k=100, where=where, funnel="exact")
            assert "hostile" in {hit.id for hit in hits}, where
            away = store.search(ROWS[0], k=100, where=~where, funnel="exact")
            assert "hostile" not in {hit.id for hit in away}, where
            assert len(hits) + len(away) == len(stocked.records) + 1
        assert store.delete(ids=["hostile"]) == 1


def test_where_is_a_filter_or_a_dict_or_llama_index_filters(stocked: Stocked) -> None:
    expected = {r.id for r in stocked.records if (F("a") == 1).matches(r)}
    llama = MetadataFilters(filters=[MetadataFilter(key="a", value=1)])
    for where in (F("a") == 1, {"a": 1}, {"a": {"$eq": 1}}, llama):
        stocked.agree(where, expected)
        for store in stocked.stores.values():
            assert store.count(where) == len(expected)
            assert {record.id for record in store.scan(where)} == expected
    for store in stocked.stores.values():
        with pytest.raises(FilterError, match="unknown key"):
            store.count({"$foo": 1})
        with pytest.raises(FilterError, match="unknown operator"):
            store.scan({"a": {"$foo": 1}})
        with pytest.raises(FilterError, match="a filter is"):
            store.delete(where="a = 1")


def test_a_filter_of_any_depth_that_can_be_built_can_be_asked(stocked: Stocked) -> None:
    where: Filter = F("a") == 1
    while where.depth < 29:
        where = And((Or((Not(where), F("b") < "x")), F("a") != 7))
    while where.depth < 32:
        where = Not(where)
    stocked.agree(where, {r.id for r in stocked.records if where.matches(r)})


def test_explain_warns_of_a_long_scan(stocked: Stocked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestvec.advice.MANY", 10)
    cases = [
        (F("x y") <= 3, "try store.index_metadata('x y', 'int')"),
        ((F("x y") > 1.5) & ~(F("e") == 1), "try store.index_metadata('x y', 'float')"),
        (F("x y").matches("foo"), "no index can serve it here"),
    ]
    for store in stocked.stores.values():
        for where, advice in cases:
            (warning,) = store.explain(ROWS[0], where=where).warnings
            bare = stocked.name in ("memory", "qdrant+local")
            assert ("this engine has no indexes" if bare else advice) in warning
        assert store.explain(ROWS[0]).filter is None


@pytest.mark.parametrize(
    ("engine_name", "advice"),
    [("edge", "no index can serve it here"), ("postgres", "store.index_metadata('x', 'str')")],
    indirect=["engine_name"],
)
def test_explain_advises_only_an_index_that_helps(
    engine: Engine, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestvec.advice.MANY", 1)
    store = engine.connect(dims=(2,), dim=8)
    store.add_records(Record(f"{n}", "", {"x": "a"}, row) for n, row in enumerate(ROWS[:9]))
    (warning,) = store.explain(ROWS[0], where=F("x") > "a").warnings
    assert advice in warning


@pytest.mark.parametrize("engine_name", ["edge", "postgres"], indirect=True)
def test_explain_says_which_index_serves_a_filter(engine: Engine) -> None:
    rows = nested_vectors(12_000, 8)
    store = engine.connect(dims=(2,), dim=8)
    store.add_records(
        Record(
            f"{n}",
            "",
            {"n": n, "day": f"2024-01-{n % 28 + 1:02}", "long": f"{n}" * 5_000 * (n < 9)},
            row,
        )
        for n, row in enumerate(rows)
    )
    where = (F("n") < 120) & (F("day") < date(2024, 1, 5))
    before = store.explain(rows[0], where=F("n") < 120)
    assert before.filter.matching == 120
    assert "store.index_metadata('n', 'int')" in before.warnings[0]
    for key, kind in {"n": "int", "day": "datetime", "long": "str"}.items():
        store.index_metadata(key, kind)
    expected = {hit.id for hit in store.search(rows[0], k=120, where=where, funnel="exact")}
    assert expected == {f"{n}" for n in range(120) if n % 28 < 4}
    for each, key in [
        (where, "n"),
        (F("day") == date(2024, 1, 3), "day"),
        (F("n").between(5, 9), "n"),
    ]:
        trace = store.explain(rows[0], where=each)
        assert key in trace.filter.indexes, each
        assert trace.warnings == ()
        assert trace.overlap == 1.0
