"""Filtered search on every engine: k hits wherever there are k, and those of the exact answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nestvec import F, Filter, Record, Store
from nestvec.backends import edge_wire
from nestvec.backends.postgres import PostgresBackend
from nestvec.nesting import Matrix

from .. import qdrant_servers
from .engines import ENGINES, PLACES, Engine, named

N, DIM, TOPICS, K = 4_000, 704, 100, 10


def made(topics: Any, seed: int) -> Matrix:
    """Return a vector near the centre of each topic."""
    centres = np.random.default_rng(99).standard_normal((TOPICS, DIM))
    rng = np.random.default_rng(seed)
    rows = centres[topics] + rng.standard_normal((len(topics), DIM))
    return np.asarray(rows * (1.0 + np.arange(DIM)) ** -1.0, dtype=np.float32)


RNG = np.random.default_rng(0)
OF = RNG.integers(TOPICS, size=N)
ORDER = RNG.permutation(N)
ROWS = made(OF, 1)
RECORDS = [
    Record(
        f"{i}",
        "",
        {"n": int(ORDER[i]), "one_in_100": int(ORDER[i]) % 100, "topic": int(OF[i])},
        row,
    )
    for i, row in enumerate(ROWS)
]
#: Of the first topics, so that filters on the last ones are far from them.
QUERIES = made(np.arange(4), 2)

#: So few candidates that a graph which loses its way shows.
FUNNEL = "16:120"

FILTERS: list[Filter] = [
    F("n") < N // 10,
    F("n") < N // 100,
    F("n") < N // 1000,
    F("one_in_100") == 7,
    F("topic") < 10,
    F("topic") >= TOPICS - 10,
    F("topic") == TOPICS - 1,
    (F("topic") >= TOPICS - 10) & (F("n") < N // 10),
    F("n") < N // 2,
    F("n") < -1,
]


def best(where: Filter, query: Matrix) -> list[str]:
    """Return the ids of the exact answer, by numpy alone."""
    kept = np.array([i for i, record in enumerate(RECORDS) if where.matches(record)], dtype=int)
    scores = (ROWS[kept] @ query) / np.linalg.norm(ROWS[kept], axis=1)
    return [f"{i}" for i in kept[np.argsort(-scores)[:K]]]


@pytest.fixture(scope="module", params=named(ENGINES))
def stocked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Store]]:
    """An engine with a graph, which Edge has to use where a tenth matches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_wire, "_FULL_SCAN_KB", 12)  # 192 of the 16 numbers
        engine = Engine(
            request.param, "sync", PLACES[request.param](tmp_path_factory.mktemp("recall"))
        )
        # Few links, so that a graph that is not walked past what does not match loses its way.
        links = {"m": 6} if request.param == "edge" else {}
        store = engine.connect(collection="c0", dims=(16,), dim=DIM, batch_size=N, **links)
        store.add_records(RECORDS)
        store.create_index()
        yield request.param, store
        store.drop()
        engine.close()


#: Without a graph, a search reads every document: some of the filters will do.
PLAIN = ("memory", "qdrant+local", *(("qdrant",) if qdrant_servers.binary is None else ()))


def check(store: Store, filters: list[Filter]) -> None:
    for where in filters:
        wanted = [best(where, query) for query in QUERIES]
        found = [
            [hit.id for hit in store.search(query, K, where=where, funnel=FUNNEL)]
            for query in QUERIES
        ]
        assert [len(ids) for ids in found] == [len(ids) for ids in wanted], where
        common = sum(len({*a} & {*b}) for a, b in zip(found, wanted, strict=True))
        assert common >= 0.97 * sum(map(len, wanted)), (where, common)
        (many,) = store.search_many(QUERIES[:1], K, where=where, funnel=FUNNEL)
        assert [hit.id for hit in many] == found[0]
        assert len(store.search(QUERIES[0], K, where=where, funnel=FUNNEL, offset=2)) == max(
            0, min(K, sum(map(where.matches, RECORDS)) - 2)
        )


def test_a_funnel_finds_what_matches_without_an_index(stocked: tuple[str, Store]) -> None:
    name, store = stocked
    check(store, FILTERS[1::4] if name in PLAIN else FILTERS)


def test_a_funnel_finds_what_matches_with_an_index(stocked: tuple[str, Store]) -> None:
    name, store = stocked
    for key in ("n", "one_in_100", "topic"):
        store.index_metadata(key, "int")
    assert {"n", "one_in_100", "topic"} <= set(store.info().indexes)
    check(store, FILTERS[:1] if name in PLAIN else FILTERS)
    for where, method in [
        (F("n") < N // 10, "the graph, past what does not match (ACORN)"),
        (F("n") < N // 100, "an exact pass over what matches"),
    ]:
        served = store.explain(QUERIES[0], where=where).filter
        assert served is not None
        assert served.matching == sum(map(where.matches, RECORDS))
        if name == "edge":
            assert (served.indexes, served.read, served.method) == (("n",), 0, method)


@pytest.mark.parametrize("stocked", ["postgres"], indirect=True)
def test_what_the_graph_does_not_reach_comes_from_an_exact_pass(
    stocked: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = stocked
    settings = PostgresBackend._settings

    def few(self: PostgresBackend, *args: Any, exact: bool) -> dict[str, Any]:
        """Let the graph be used, and go no further than its first candidates."""
        graph = {"enable_seqscan": "off", "enable_bitmapscan": "off", "hnsw.max_scan_tuples": 100}
        return settings(self, *args, exact=exact) | ({} if exact else graph)

    monkeypatch.setattr(PostgresBackend, "_settings", few)
    check(store, [F("topic") >= TOPICS - 10])
    trace = store.explain(QUERIES[0], where=F("topic") >= TOPICS - 10)
    assert trace.filter is not None
    assert trace.filter.method.startswith("the graph, which did not reach enough, then")
    assert trace.overlap == 1.0
