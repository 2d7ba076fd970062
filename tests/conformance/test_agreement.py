"""Every engine gives the answers of the oracle: exactly where the search is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import F, Hit

from ..vectors import nested_vectors, records
from .engines import Engine

TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-3


def assert_same(hits: list[Hit], expected: list[Hit], tolerance: float) -> None:
    """Same ids, order and scores; hits whose scores are within the tolerance may swap."""
    assert len(hits) == len(expected)
    theirs = {hit.id: hit.score for hit in expected}
    lowest = expected[-1].score if expected else 0.0
    for hit, wanted in zip(hits, expected, strict=True):
        assert hit.score == pytest.approx(wanted.score, abs=tolerance)
        assert hit.score == pytest.approx(theirs.get(hit.id, lowest), abs=tolerance)


@pytest.mark.parametrize(
    "dims",
    [(8,), (4, 16), ("16:float16",), ("full:float16", 8)],
    ids=str,
)
def test_exact_search_agrees_with_the_oracle(engine: Engine, dims: tuple[Any, ...]) -> None:
    documents = records(nested_vectors(400, 32))
    tolerance = HALF_TOLERANCE if "full:float16" in dims else TOLERANCE
    oracle = nestvec.connect("memory:", dims=dims, dim=32)
    store = engine.connect(dims=dims, dim=32)
    assert oracle.add_records(documents) == store.add_records(documents)
    for query in nested_vectors(12, 32, seed=1):
        for where in (None, F("even") == True, F("n") < 30):  # noqa: E712
            for offset in (0, 7):
                asked: dict[str, Any] = {"where": where, "offset": offset, "funnel": "exact"}
                expected = oracle.search(query, **asked)
                assert_same(store.search(query, **asked), expected, tolerance)


@pytest.mark.parametrize(
    "dims",
    [
        pytest.param(("full:int8",), marks=pytest.mark.needs("int8")),
        ("full:binary", 8),
        pytest.param(("16:int8", "24:binary"), marks=pytest.mark.needs("int8")),
        pytest.param(("16:uint8", 24), marks=pytest.mark.needs("uint8")),
        pytest.param(("full:uint8", "24:uint8"), marks=pytest.mark.needs("uint8")),
    ],
    ids=str,
)
def test_quantised_fields_end_in_the_same_scores(engine: Engine, dims: tuple[Any, ...]) -> None:
    assert_scores_are_cosines(engine, dims)


@pytest.mark.parametrize("dims", [("full:turbo",), ("16:turbo", 24)])
@pytest.mark.needs("turbo")
def test_turbo_fields_end_in_the_same_scores(engine: Engine, dims: tuple[Any, ...]) -> None:
    assert_scores_are_cosines(engine, dims)


def assert_scores_are_cosines(engine: Engine, dims: tuple[Any, ...]) -> None:
    vectors = nested_vectors(300, 32, decay=0.1)
    store = engine.connect(dims=dims, dim=32)
    store.add_records(records(vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    query = unit[5] + 0.1
    cosines = unit @ query / np.linalg.norm(query)
    hits = store.search(query, k=5)
    assert [hit.id for hit in hits] == [str(i) for i in np.argsort(-cosines)[:5]]
    for hit in hits:
        assert hit.score == pytest.approx(cosines[int(hit.id)], abs=TOLERANCE)


def test_a_wide_funnel_agrees_with_the_oracle(engine: Engine) -> None:
    documents = records(nested_vectors(300, 32))
    oracle = nestvec.connect("memory:", dims=(4, 16), dim=32)
    store = engine.connect(dims=(4, 16), dim=32)
    for each in (oracle, store):
        each.add_records(documents)
    for query in nested_vectors(10, 32, seed=2):
        expected = oracle.search(query, funnel="4:300 16:60")
        assert_same(store.search(query, funnel="4:300 16:60"), expected, TOLERANCE)


@pytest.mark.parametrize("dims", [(64,), (64, 256)], ids=str)
def test_the_default_funnel_finds_what_the_oracle_finds(
    engine: Engine, dims: tuple[int, ...]
) -> None:
    """20,000 records of 512 numbers; at least 0.95 of the exact top 10 in the mean."""
    vectors = nested_vectors(20_000, 512)
    store = engine.connect(dims=dims, dim=512)
    store.add_records(records(vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = 0
    queries = nested_vectors(50, 512, seed=3)
    for query in queries:
        exact = set(np.argsort(-(unit @ query))[:10])
        found += len(exact & {int(hit.id) for hit in store.search(query, k=10)})
    assert found / (10 * len(queries)) >= 0.95


def test_search_many_gives_what_search_gives(engine: Engine) -> None:
    documents = records(nested_vectors(200, 32))
    store = engine.connect(dims=(4, 16), dim=32)
    store.add_records(documents)
    queries = nested_vectors(5, 32, seed=4)
    asked: dict[str, Any] = {"k": 7, "where": F("n") >= 20, "funnel": "4:200 16:50", "offset": 2}
    found = store.search_many(queries, **asked)
    assert len(found) == 5
    for query, hits in zip(queries, found, strict=True):
        assert_same(hits, store.search(query, **asked), 1e-6)
    assert store.search_many([]) == []
    above = store.search_many(queries, funnel="exact", min_score=0.3)
    assert all(hit.score >= 0.3 for hits in above for hit in hits)
    assert any(above)
