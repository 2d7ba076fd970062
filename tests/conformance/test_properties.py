"""Random records and random filters: what every engine finds is what the predicate says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestvec import And, Eq, Filter, Ge, Gt, In, Le, Lt, Ne, Not, NotIn, Or, Record

from ..vectors import nested_vectors
from .engines import Engine
from .test_contracts import same

ROWS = nested_vectors(8, 8)

KEYS = ["a", "b", "a.b", "ü", "x y", 'q"t', "a-b", "$k", "[0]"]
EDGES = [0, -0.0, 1, 1.0, True, False, None, "", "1", "a", "b", 2**53, 2**53 + 1, -(2**63),
         2**63 - 1, 0.1, 0.30000000000000004, 123456789.123456789, 1e300, "2026-01-02",
         "2026-01-02T03:04:05Z"]  # fmt: skip

floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.sampled_from(EDGES) | st.none() | st.booleans() | integers | floats | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "ü", "x y"]) | texts, inner, max_size=3)
    ),
    max_leaves=5,
)
metadatas = st.dictionaries(
    st.sampled_from([key for key in KEYS if "." not in key]), values, max_size=4
)

moments = st.datetimes(
    datetime(1900, 1, 1), datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-5, minutes=30))]),
)  # fmt: skip
keys = st.sampled_from(KEYS)
ordered = st.builds(
    lambda kind, key, value: kind(key, value),
    st.sampled_from([Lt, Le, Gt, Ge]),
    keys,
    scalars.filter(lambda value: value is not None and not isinstance(value, bool)) | moments,
)
comparisons = (
    st.builds(lambda kind, key, value: kind(key, value), st.sampled_from([Eq, Ne]), keys,
              scalars | moments)
    | ordered
    | st.builds(lambda kind, key, some: kind(key, tuple(some)), st.sampled_from([In, NotIn]), keys,
                st.lists(scalars, min_size=1, max_size=3))
)  # fmt: skip
filters: st.SearchStrategy[Filter] = st.recursive(
    comparisons,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=4,
)

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=512)
sizes = count()


@given(
    st.dictionaries(ids, st.tuples(st.text(st.characters(exclude_categories=["Cs"])), metadatas))
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_record_comes_out_as_it_went_in(
    engine: Engine, some: dict[str, tuple[str, dict[str, Any]]]
) -> None:
    store = engine.connect(collection=f"r{next(sizes)}", dims=(2,), dim=8)
    given_records = [Record(id, text, metadata, ROWS[0]) for id, (text, metadata) in some.items()]
    assert store.add_records(given_records) == list(some)
    assert store.count() == len(some)
    for record in store.get(some):
        text, metadata = some[record.id]
        assert record.text == text
        assert same(record.metadata, metadata)
    assert {hit.id for hit in store.search(ROWS[1], k=len(some) + 1)} == set(some)
    assert store.delete(ids=some) == len(some)
    store.drop()


@given(
    some=st.lists(metadatas, min_size=1, max_size=8),
    wheres=st.lists(filters, min_size=1, max_size=6),
)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_filter_means_the_same_everywhere(
    engine: Engine, some: list[dict[str, Any]], wheres: list[Filter]
) -> None:
    store = engine.connect(collection=f"c{next(sizes)}", dims=(2,), dim=8)
    given_records = [Record(f"{n}", "text", metadata, ROWS[n]) for n, metadata in enumerate(some)]
    store.add_records(given_records)
    for record in store.scan():
        assert same(record.metadata, some[int(record.id)])
    for where in wheres:
        expected = {record.id for record in given_records if where.matches(record)}
        found = {hit.id for hit in store.search(ROWS[0], k=8, where=where)}
        assert found == expected, where
        assert store.count(where) == len(expected), where
    store.drop()
