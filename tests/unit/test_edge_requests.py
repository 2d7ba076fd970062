"""What is sent to Edge: one request a query, prefetches nested, the filter innermost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qe

import nestvec
from nestvec import F, Filter, Nesting, nest
from nestvec.backends.edge import EdgeBackend, EdgeOptions
from nestvec.backends.edge_wire import config
from nestvec.backends.point_filters import Dialect, bounds
from nestvec.backends.points import payload, point_id
from nestvec.flow import Call
from nestvec.funnel import plan

NESTING = Nesting.of((2, "4:int8", "full:binary"), 8)
QUERIES = {name: rows[0] for name, rows in nest(np.ones((1, 8)), NESTING).items()}


def requests(
    tmp_path: Path, funnel: str, where: Filter | None = None, there: int = 0
) -> list[Call]:
    """Return the requests of one search, which finds nothing of what is there."""
    backend = EdgeBackend(str(tmp_path), "docs", EdgeOptions())
    flow = backend.search(QUERIES, plan(funnel, NESTING, 3, 2), where)
    answers: dict[str, Any] = {
        "drifts": False, "scroll": ([], None), "query": [], "count": there,
    }  # fmt: skip
    sent = [next(flow)]
    try:
        while True:
            sent.append(flow.send(answers[sent[-1].method]))
    except StopIteration:
        return sent


def test_a_query_is_one_request(tmp_path: Path) -> None:
    (call,) = requests(tmp_path, "full:binary:50 2:20 4:int8:9")
    assert call.method == "query"
    (request,) = call.args
    assert (request.limit, request.offset, request.filter) == (3, 2, None)
    limits = []
    stage = request
    while stage.prefetches:
        (stage,) = stage.prefetches
        limits.append(stage.limit)
    assert limits == [9, 20, 50]


def test_the_filter_goes_innermost(tmp_path: Path) -> None:
    *_, call, _ = requests(tmp_path, "2:20 4:int8:9", F("n") >= 3)
    (outer,) = call.args[0].prefetches
    (inner,) = outer.prefetches
    assert call.args[0].filter is None
    assert outer.filter is None
    assert inner.filter is not None


def test_hits_that_the_graph_lost_its_way_to_come_from_an_exact_pass(tmp_path: Path) -> None:
    *_, query, count, again = requests(tmp_path, "2:20 4:int8:9", F("n") >= 3, there=3)
    assert [query.method, count.method, again.method] == ["query", "count", "query"]
    walks = [call.args[0].prefetches[0].prefetches[0].params for call in (query, again)]
    assert [walk.exact for walk in walks] == [False, True]
    assert walks[0].acorn is not None
    *_, last = requests(tmp_path, "exact", F("n") >= 3, there=3)
    assert last.method == "query"


def test_an_exact_search_is_filtered_where_it_scans(tmp_path: Path) -> None:
    *_, call = requests(tmp_path, "exact", F("n") >= 3)
    assert call.args[0].prefetches == []
    assert call.args[0].filter is not None
    assert call.args[0].params.exact


def test_only_what_cannot_be_said_is_asked_of_the_predicate(tmp_path: Path) -> None:
    said = [call.method for call in requests(tmp_path, "2:20", F("s") == "a")]
    assert said == ["drifts", "query", "count"]
    asked = [call.method for call in requests(tmp_path, "2:20", F("s") < "b")]
    assert asked == ["drifts", "scroll", "query", "count"]


def test_the_graph_is_on_the_first_field_only() -> None:
    vectors = config(NESTING, EdgeOptions(m=8)).vectors
    graphs = {name: params.hnsw_config for name, params in vectors.items()}
    assert {name: graph.m for name, graph in graphs.items() if graph} == {
        "full": 0, "d4_int8": 0, "d2": 0,
    } | {"full": 8}  # fmt: skip
    assert NESTING.names[0] == "full_binary"
    assert vectors["full"].quantization_config is not None
    assert vectors["d2"].memory == qe.Memory.Cold


def test_one_way_at_a_time_to_quantise_the_full_vector(tmp_path: Path) -> None:
    with pytest.raises(nestvec.NestingError, match="choose one of full:binary, full:int8"):
        nestvec.connect(f"edge:{tmp_path}", dims=("full:int8", "full:binary"), dim=8)


@pytest.mark.parametrize("settings", [{"m": 1}, {"m": 0}, {"ef_construct": 4}])
def test_a_graph_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(nestvec.ConfigError, match="m is at least 2"):
        EdgeOptions(**settings)


def test_a_payload_carries_its_json_only_where_the_engine_would_change_it() -> None:
    assert "raw" not in payload("a", "t", {"x": [0.1, 2.5, 1e22, 123456789.125, 3]})
    for odd in (0.30000000000000004, 123456789.123456789, 1e300, 5e-324):
        assert "raw" in payload("a", "t", {"x": [{"y": odd}]})


def test_the_same_id_is_always_the_same_point() -> None:
    assert str(point_id("a")) == str(point_id("a")) != str(point_id("b"))


def test_numbers_are_bracketed_where_floats_are_too_coarse() -> None:
    assert bounds(F("n") < 5, Dialect(point_id, drift=False)).exact
    assert not bounds(F("n") < 5, Dialect(point_id, drift=True)).exact
    assert not bounds(F("n") < 2**53, Dialect(point_id, drift=False)).exact
    assert bounds(F("s") == "a", Dialect(point_id, drift=True)).exact
    assert not bounds(~(F("s") < "a"), Dialect(point_id, drift=False)).exact
