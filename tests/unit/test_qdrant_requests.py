"""What the flows of the Qdrant backend ask for, without a server.

That every body is one of the published models is checked by tests/rest_server.py, which the
conformance suite goes through.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import TypeAdapter
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http import models

import nestvec
from nestvec import And, BackendError, ConfigError, F, Filter, Nesting, Not, Or, Unavailable, nest
from nestvec.backends import qdrant_wire as wire
from nestvec.backends.base import Head
from nestvec.backends.point_filters import Dialect, bounds
from nestvec.backends.points import Vector, payload, point_id, vector_name, vectors
from nestvec.backends.qdrant import QdrantBackend, QdrantOptions
from nestvec.backends.qdrant_driver import Pause, Request, Together, Transient, retried
from nestvec.backends.qdrant_strict import of_refusal
from nestvec.funnel import plan
from nestvec.nesting import Matrix
from nestvec.records import Batch

NESTING = Nesting.of((2, "4:int8", "full:binary"), 8)
QUERIES = {name: rows[0] for name, rows in nest(np.ones((1, 8)), NESTING).items()}

FILTERS: list[Filter] = [
    F("a") == "x", F("a") == 3, F("a") == 2.5, F("a") == True, F("a") == None,  # noqa: E711, E712
    F("a") > 1.7976931348623157e308, F("a") <= -1.7976931348623155e308,
    F("a b.c") != 1, F("a").in_(["x", 2, None]), F("a").not_in([1.5]), F("a") > 2**60,
    F("t") >= date(2026, 1, 2),
    And(()), Or(()), Not(And(())), ~((F("a") < 3) & (F("b") == "y")) | (F("c") >= 1),
]  # fmt: skip


def backend(**options: Any) -> QdrantBackend:
    made = QdrantBackend("http://localhost:6333", "docs", QdrantOptions(**options))
    made._write_as(NESTING)
    return made


Answers = Mapping[str, Any | Callable[[Request], Any]]


def asked(flow: Any, answers: Answers) -> list[Request]:
    """Return the requests of a flow, each answered by its method's name."""
    sent: list[Request] = []
    try:
        request = next(flow)
        while True:
            if isinstance(request, Together):
                for part in request.flows:
                    sent += asked(part, answers)
                request = flow.send([None] * len(request.flows))
                continue
            sent.append(request)
            answer = answers.get(request.method)
            request = flow.send(answer(request) if callable(answer) else answer)
    except StopIteration:
        return sent


POINT = models.ScoredPoint(
    id=1, version=0, score=0.5, payload={"id": "a", "text": "", "metadata": {}}
)


def search(
    where: Filter | None = None, funnel: str = "2:20 4:int8:9", found: int = 3, there: int = 9
) -> list[Request]:
    """Return the requests of a search that finds some of what is there."""
    flow = backend().search(QUERIES, plan(funnel, NESTING, 3, 2), where)
    answers: Answers = {
        "query_points": models.QueryResponse(points=[POINT] * found),
        "count": models.CountResult(count=there),
        "scroll": ([], None),
    }
    return asked(flow, answers)


# Searching


def test_a_query_is_one_request_of_nested_lists() -> None:
    (request,) = search(F("n") >= 3, "full:binary:500 2:20 4:int8:9")
    said = request.arguments
    assert request.method == "query_points"
    assert (said["limit"], said["offset"], said["using"]) == (3, 2, "full")
    assert said["query_filter"] is None
    stages, prefetch = [], said["prefetch"]
    while prefetch:
        assert isinstance(prefetch, list)
        (stage,) = prefetch
        assert stage.params.quantization.rescore is False
        stages.append((stage.using, stage.limit, stage.params.hnsw_ef, stage.filter is not None))
        prefetch = stage.prefetch
    assert stages == [
        ("d4_int8", 9, 128, False), ("d2", 20, 128, False), ("full", 500, 500, True),
    ]  # fmt: skip
    assert not said["search_params"].exact  # which strict mode may refuse, and nothing needs
    assert said["search_params"].quantization.ignore is True
    assert said["with_payload"] is True
    assert "with_vectors" not in said


def test_a_filter_may_walk_the_graph_past_what_does_not_match() -> None:
    for where, past in [(F("n") >= 3, 1.0), (F.id_in(["a"]), 0.5)]:
        (request,) = search(where, "2:20")
        (stage,) = request.arguments["prefetch"]
        assert stage.params.acorn.enable is True
        assert stage.params.acorn.max_selectivity == past
        assert stage.params.exact is False
    (stage,) = search(None, "2:20")[0].arguments["prefetch"]
    assert stage.params.acorn is None


def test_hits_that_the_graph_lost_its_way_to_come_from_an_exact_pass() -> None:
    first, counted, again = search(F("n") >= 3, "2:20", found=2, there=5)
    assert counted.method == "count"
    assert counted.arguments["count_filter"] == first.arguments["prefetch"][0].filter
    (stage,) = again.arguments["prefetch"]
    assert stage.params.exact is True
    # Two of four follow an offset of two, and nothing was filtered or left to a graph below.
    assert [request.method for request in search(F("n") >= 3, "2:20", found=2, there=4)] == [
        "query_points", "count",
    ]  # fmt: skip
    for where, funnel in [(None, "2:20"), (F("n") >= 3, "exact")]:
        assert len(search(where, funnel, found=2)) == 1


def test_an_exact_search_is_filtered_where_it_scans() -> None:
    (request,) = search(F("n") >= 3, "exact")
    assert request.arguments["prefetch"] is None
    assert request.arguments["query_filter"] is not None


def test_candidates_bring_no_payload() -> None:
    flow = backend().candidates(QUERIES, plan("2:20", NESTING, 3), None)
    (request,) = asked(flow, {"query_points": models.QueryResponse(points=[])})
    assert request.arguments["with_payload"] is False
    assert request.arguments["limit"] == 20


def test_many_queries_are_one_request() -> None:
    many = [QUERIES] * 4
    flow = backend(shard_key="eu").search_many(many, plan("2:20", NESTING, 3), F("a") == 1)
    found = [models.QueryResponse(points=[POINT] * 3)] * 4
    (request,) = asked(flow, {"query_batch_points": found})
    assert len(request.arguments["requests"]) == 4
    assert {each.shard_key for each in request.arguments["requests"]} == {"eu"}


def test_only_what_cannot_be_said_is_asked_of_the_predicate() -> None:
    assert [request.method for request in search(F("s") == "a")] == ["query_points"]
    assert [request.method for request in search(F("s") < "b")] == ["scroll", "query_points"]


@pytest.mark.parametrize("where", FILTERS, ids=str)
@pytest.mark.parametrize("drift", [False, True])
def test_a_filter_is_a_model_of_the_api_over_rest_and_grpc(where: Filter, drift: bool) -> None:
    for condition in bounds(where, Dialect(point_id, drift=drift)):
        made = wire.filter_of(condition)
        written = made.model_dump_json(exclude_unset=True, exclude_none=True)
        read = TypeAdapter(models.Filter).validate_json(written)
        assert read.model_dump_json(exclude_unset=True, exclude_none=True) == written
        again = GrpcToRest.convert_filter(RestToGrpc.convert_filter(made))
        assert RestToGrpc.convert_filter(again) == RestToGrpc.convert_filter(made)


@pytest.mark.parametrize("funnel", ["exact", "2:20", "full:binary:500 2:20 4:int8:9"])
def test_a_query_is_a_model_of_the_api_over_rest_and_grpc(funnel: str) -> None:
    condition = wire.filter_of({"must": [{"key": "metadata.a", "match": {"value": 1}}]})
    made = wire.query(
        QUERIES, plan(funnel, NESTING, 3), condition, backend()._layout.name_of, acorn=0.5,
        using="full",
    )  # fmt: skip
    written = made.model_dump_json(exclude_unset=True, exclude_none=True)
    read = models.QueryRequest.model_validate_json(written)
    assert json.loads(read.model_dump_json(exclude_unset=True, exclude_none=True)) == json.loads(
        written
    )
    assert RestToGrpc.convert_query_request(read, "docs") == RestToGrpc.convert_query_request(
        made, "docs"
    )


# Writing


def batch(n: int, **metadata: Any) -> Batch:
    ids = [f"id{i}" for i in range(n)]
    return Batch(ids, ["t"] * n, [metadata] * n, nest(np.ones((n, 8)), NESTING))


def written(request: Request) -> models.PointsBatch:
    """Return what an upsert over REST writes."""
    assert request.method == "http.points_api.upsert_points"
    return models.PointsBatch.model_validate_json(request.arguments["point_insert_operations"])


def test_a_batch_is_written_in_parts_that_wait() -> None:
    sent = asked(backend(parallel=4, shard_key=1).upsert(batch(10)), {})
    assert all(request.arguments["wait"] is True for request in sent)
    bodies = [written(request) for request in sent]
    assert [len(body.batch.ids) for body in bodies] == [3, 3, 3, 1]
    for body in bodies:
        assert body.shard_key == 1
        assert isinstance(body.batch.vectors, dict)
        assert set(body.batch.vectors) == {"full", "d4_int8", "d2"}
        assert body.batch.vectors["full"][0] == pytest.approx([8**-0.5] * 8, abs=1e-8)


@pytest.mark.parametrize("shard_key", [None, 1, 'a "key"'])
def test_rest_and_grpc_write_the_same(shard_key: Any) -> None:
    """Both are what the client would make of the points, but for how the numbers are put."""
    nesting = Nesting.of((2, "4:int8", "4:uint8", "full:binary"), 8)
    rows = np.random.default_rng(0).standard_normal((9, 8))
    metadata = {"batch": None, '"vectors":{}': [], "ä": ["\u2028", 1e16, 0.5, True, {"\0": '"'}]}
    many = Batch([f"id{i}" for i in range(9)], ['{"batch":{'] * 9, [metadata] * 9, {})
    many = replace(many, vectors=nest(rows, nesting))
    kept = vectors(nesting)

    def sent(**options: Any) -> list[Request]:
        made = backend(shard_key=shard_key, **options)
        made._write_as(nesting)
        made._drift = True
        return asked(made.upsert(many), {})

    payloads = [payload(id, '{"batch":{', metadata) for id in many.ids]
    whole = wire.points(many, payloads, slice(None), kept)
    start = 0
    for rest, grpc in zip(sent(), sent(prefer_grpc=True), strict=True):
        assert grpc.method == "grpc_points.Upsert"
        asked_for = grpc.arguments["request"]
        part = slice(start, start := start + len(asked_for.points))
        points = wire.points(many, payloads, part, kept)
        around = models.PointsBatch(batch=points, shard_key=shard_key)
        assert json.loads(rest.arguments["point_insert_operations"]) == json.loads(
            around.model_dump_json(exclude_unset=True, exclude_none=True)
        )
        assert written(rest).batch.payloads == points.payloads
        messages = wire.messages(many, payloads, part, kept)
        assert asked_for == wire.upsert("docs", messages, shard_key, None)
        assert asked_for.HasField("shard_key_selector") == (shard_key is not None)
    assert start == len(whole.ids) == 9


@pytest.mark.parametrize("n", [1, 31, 32, 33, 4_096])
def test_messages_are_those_of_the_client(n: int) -> None:
    """Lengths take one byte up to 127, then two, then three: 31, 32 and 4,096 numbers."""
    kept = [
        Vector(name, size, "float32", None, first=False)
        for name, size in (("full", n), ("d1", 1), ("é" * 70, n))
    ]
    rng = np.random.default_rng(n)
    columns = {each.name: rng.random((3, each.size), np.float32) for each in kept}
    many = Batch(["a", "b", "c"], ["", "t", "ä"], [{}, {"x": [1, None]}, {}], columns)
    payloads = [payload(*each) for each in zip(many.ids, many.texts, many.metadatas, strict=True)]
    for i, message in enumerate(wire.messages(many, payloads, slice(0, 3), kept)):
        vector = {name: rows[i].tolist() for name, rows in columns.items()}
        point = models.PointStruct(
            id=str(point_id(many.ids[i])), vector=vector, payload=payloads[i]
        )
        assert message == RestToGrpc.convert_point_struct(point)


UNIT_FLOATS = st.floats(-1, 1, width=32)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=UNIT_FLOATS))
@example(
    np.array([[1, -1, 0, -0.0, 1.0000001, -1.0000001, 1e-12, -5e-10, 5e-10, 1 - 6e-8]], np.float32)
)
@example(np.array([[0.1], [0.0999999995], [-0.00009999], [0.99999994], [1e-45]], np.float32))
def test_numbers_are_written_to_nine_decimals(rows: Matrix) -> None:
    text = wire._json(rows, "float32")
    assert json.loads(text) == wire._short(rows) == rows.astype(np.float64).round(9).tolist()
    assert len(text) <= rows.size * wire.NUMBER_BYTES + 2 * len(rows) + 2


def test_bytes_are_written_as_they_are() -> None:
    rows = np.arange(1, 256, dtype=np.float32).reshape(5, 51)
    assert json.loads(wire._json(rows, "uint8")) == rows.tolist()


def test_long_vectors_are_written_in_small_parts() -> None:
    nesting = Nesting.of((64,), 4096)
    rows = nest(np.ones((600, 4096)), nesting)
    many = Batch([f"{i}" for i in range(600)], [""] * 600, [{}] * 600, rows)
    made = backend(parallel=2)
    made._write_as(nesting)
    sent = asked(made.upsert(many), {})
    sizes = [len(request.arguments["point_insert_operations"]) for request in sent]
    assert max(sizes) < 4_000_000  # a server takes 32 MiB
    assert sum(len(written(request).batch.ids) for request in sent) == 600


def test_long_texts_are_written_in_small_parts() -> None:
    texts = ["x" * size for size in (10, 2_900_000, 10, 200_000, 5_000_000, 10, 10)]
    ids = [f"{n}" for n in range(len(texts))]
    many = Batch(ids, texts, [{}] * len(texts), nest(np.ones((len(texts), 8)), NESTING))
    sent = asked(backend(parallel=1).upsert(many), {})
    parts = [
        [len(payload["text"]) for payload in written(request).batch.payloads or ()]
        for request in sent
    ]
    assert parts == [[10, 2_900_000, 10], [200_000], [5_000_000], [10, 10]]


def test_many_queries_are_several_requests_where_one_would_be_too_large() -> None:
    nesting = Nesting.of((64,), 4096)
    queries = {name: rows[0] for name, rows in nest(np.ones((1, 4096)), nesting).items()}
    answer = {
        "query_batch_points": lambda request: [
            models.QueryResponse(points=[]) for _ in request.arguments["requests"]
        ]
    }
    flow = backend().search_many([queries] * 150, plan("64:20", nesting, 3), None)
    sizes = [len(request.arguments["requests"]) for request in asked(flow, answer)]
    assert sizes == [55, 55, 40]


def test_floats_that_the_engine_may_change_are_noted_before_they_are_written() -> None:
    config = models.CollectionConfig.model_construct(metadata={"nestvec": {"head": {}}})
    told = models.CollectionInfo.model_construct(config=config)
    drifting = 0.1 + 0.2
    assert "raw" in payload("a", "", {"x": drifting})
    made = backend()
    sent = asked(made.upsert(batch(1, x=drifting)), {"get_collection": told})
    *learnt, _ = sent
    assert [request.method for request in learnt] == ["get_collection", "update_collection"]
    assert sent[1].arguments["metadata"] == {"nestvec": {"head": {}, "drift": True}}
    for (request,) in ([sent[-1]], asked(made.upsert(batch(1, x=drifting)), {})):
        assert "raw" in (written(request).batch.payloads or [{}])[0]


# Making a collection


def created(dims: Any, **options: Any) -> tuple[dict[str, Any], list[Request]]:
    head = Head(Nesting.of(dims, 8))
    made = models.CollectionInfo.model_construct(
        config=models.CollectionConfig.model_construct(metadata={"nestvec": {}}), payload_schema={}
    )
    cluster = models.CollectionClusterInfo.model_construct(local_shards=[], remote_shards=[])
    version = models.VersionInfo(title="qdrant", version="1.18.2-dev")
    answers = {"get_collection": made, "collection_cluster_info": cluster, "info": version}
    sent = asked(backend(**options).create(head), answers)
    sent = [request for request in sent if request.method != "info"]
    assert sent[0].method == "create_collection"
    arguments = dict(sent[0].arguments)
    body = models.CreateCollection(
        vectors=arguments["vectors_config"], metadata=arguments["metadata"],
        optimizers_config=arguments["optimizers_config"],
    )  # fmt: skip
    written = body.model_dump_json(exclude_unset=True, exclude_none=True)
    assert models.CreateCollection.model_validate_json(written) is not None
    return arguments, sent


def test_the_graph_is_on_the_first_field_only_and_the_others_are_on_disk() -> None:
    arguments, _ = created((2, "4:int8", "6:binary", "full:float16"), hnsw_config={"m": 24})
    vectors = arguments["vectors_config"]
    # Fewest bytes first: 6 bits, then 4 bytes, then 8.
    assert {name: (v.hnsw_config.m, v.on_disk) for name, v in vectors.items()} == {
        "d6_binary": (24, True), "d4_int8": (0, True), "d2": (0, True), "full": (0, True),
    }  # fmt: skip
    assert {v.distance for v in vectors.values()} == {models.Distance.COSINE}
    half = {name for name, v in vectors.items() if v.datatype == models.Datatype.FLOAT16}
    assert half == {"d6_binary", "d4_int8", "full"}
    assert vectors["d4_int8"].quantization_config.scalar.always_ram is True
    assert vectors["d6_binary"].quantization_config.binary.always_ram is True
    plain, _ = created((2, 4))
    assert plain["vectors_config"]["d2"].on_disk is False


def test_bytes_are_compared_by_distance() -> None:
    arguments, _ = created(("4:uint8", "full:uint8"))
    vectors = arguments["vectors_config"]
    assert {name: (v.size, v.datatype, v.distance) for name, v in vectors.items()} == {
        "d4_uint8": (4, models.Datatype.UINT8, models.Distance.EUCLID),
        "full_uint8": (8, models.Datatype.UINT8, models.Distance.EUCLID),
        "full": (8, models.Datatype.FLOAT32, models.Distance.COSINE),
    }
    assert vectors["d4_uint8"].on_disk is False
    nesting = Nesting.of(("4:uint8",), 8)
    queries = {name: rows[0] for name, rows in nest([[1, -1, 0, 0] * 2], nesting).items()}
    made: Any = wire.query(
        queries, plan("4:uint8:9", nesting, 3), None, vector_name, acorn=None, using="full"
    )
    (prefetch,) = made.prefetch
    assert prefetch.query.nearest == [218, 38, 128, 128]


def test_the_full_vector_is_quantised_in_place() -> None:
    arguments, _ = created(("full:turbo",))
    (name,) = arguments["vectors_config"]
    (made,) = arguments["vectors_config"].values()
    assert name == "full"
    assert made.quantization_config.turbo.bits == models.TurboQuantBitSize.BITS4
    assert made.datatype == models.Datatype.FLOAT32
    assert made.hnsw_config is None  # the server's own


def test_turbo_needs_a_server_that_has_it() -> None:
    old = models.VersionInfo(title="qdrant", version="1.17.1")
    with pytest.raises(nestvec.NestingError, match=r"Qdrant 1.17.1; 'turbo' needs 1.18"):
        asked(backend().create(Head(Nesting.of(("full:turbo",), 8))), {"info": old})


def test_a_cluster_is_an_option() -> None:
    arguments, sent = created(
        (2,), shard_number=6, replication_factor=2, write_consistency_factor=2, shard_key="eu",
        optimizers_config={"indexing_threshold": 5},
    )  # fmt: skip
    assert arguments["shard_number"] == 6
    assert arguments["replication_factor"] == 2
    assert arguments["write_consistency_factor"] == 2
    assert arguments["sharding_method"] == models.ShardingMethod.CUSTOM
    assert arguments["optimizers_config"].indexing_threshold == 5
    (made,) = [request for request in sent if request.method == "create_shard_key"]
    assert made.arguments["shard_key"] == "eu"


def test_a_shard_key_that_another_made_meanwhile_is_taken() -> None:
    def cluster(*keys: str) -> models.CollectionClusterInfo:
        shards = [models.LocalShardInfo.model_construct(shard_key=key) for key in keys]
        return models.CollectionClusterInfo.model_construct(local_shards=shards, remote_shards=[])

    for keys, there in ((("eu",), True), ((), False)):
        flow = backend(shard_key="eu").ready(Head(NESTING))
        assert next(flow).method == "collection_cluster_info"
        assert flow.send(cluster()).method == "create_shard_key"
        assert flow.throw(BackendError("already exists")).method == "collection_cluster_info"
        with pytest.raises(StopIteration if there else BackendError):
            flow.send(cluster(*keys))


def test_tenants_have_graphs_of_their_own() -> None:
    arguments, sent = created((2,), tenant_key="team", payload_indexes={"a.b c": "float"})
    graph = arguments["vectors_config"]["d2"].hnsw_config
    assert (graph.m, graph.payload_m) == (0, 16)
    indexes = {
        request.arguments["field_name"]: request.arguments["field_schema"]
        for request in sent
        if request.method == "create_payload_index"
    }
    assert indexes["metadata.team"].is_tenant is True
    assert indexes['metadata.a."b c"'] == "float"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"payload_indexes": {"a": "string"}}, "types are keyword, integer"),
        ({"hnsw_config": {"mm": 3}}, "hnsw_config.*its settings are m, ef_construct"),
        ({"optimizers_config": {"x": 1}}, "optimizers_config.*its settings are"),
        ({"sharding_method": "random"}, "auto or custom"),
        ({"sharding_method": "auto", "shard_key": "a"}, "sharding_method='custom'"),
        ({"read_consistency": "most"}, "majority, quorum, all"),
        ({"write_ordering": "best"}, "weak, medium, strong"),
        ({"retries": -1}, "retries is a whole number from 0"),
        ({"parallel": 0}, "parallel is a whole number from 1"),
        ({"timeout": 0}, "timeout is in seconds"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        QdrantOptions(**options)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "x" * 256])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a name in Qdrant"):
        QdrantBackend("http://localhost", name, QdrantOptions())


def test_local_mode_has_no_cluster_and_needs_a_place() -> None:
    with pytest.raises(ConfigError, match="need a Qdrant server"):
        nestvec.connect("qdrant+local::memory:", dims=(2,), dim=4, shard_number=2)
    with pytest.raises(ConfigError, match="needs a directory"):
        nestvec.connect("qdrant+local:", dims=(2,), dim=4)


def test_reads_agree_where_that_is_asked_for() -> None:
    made = backend(read_consistency="majority")
    flow = made.search(QUERIES, plan("2:20", NESTING, 3), None)
    (request,) = asked(flow, {"query_points": models.QueryResponse(points=[])})
    assert request.arguments["consistency"] == "majority"


def test_writes_are_ordered_where_that_is_asked_for() -> None:
    (rest,) = asked(backend(write_ordering="strong").upsert(batch(1)), {})
    assert rest.arguments["ordering"] == models.WriteOrdering.STRONG
    (grpc,) = asked(backend(write_ordering="strong", prefer_grpc=True).upsert(batch(1)), {})
    strong = RestToGrpc.convert_write_ordering(models.WriteOrdering.STRONG)
    assert grpc.arguments["request"].ordering == strong


def test_what_others_may_have_changed_is_learnt_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("nestvec.backends.qdrant.time.monotonic", lambda: now[0])
    made = backend()
    config = models.CollectionConfig.model_construct(metadata={"nestvec": {"drift": True}})
    index = models.PayloadIndexInfo(data_type=models.PayloadSchemaType.UUID, points=1)
    told = models.CollectionInfo.model_construct(
        config=config, payload_schema={"metadata.a": index}
    )
    answers: Answers = {
        "get_collection": told,
        "count": models.CountResult(count=0),
        "scroll": ([], None),
    }
    where = F("a") == "6F1F4C26-7F0D-5B52-9D0B-6E657374EC00"
    methods = [[r.method for r in asked(made.count(where), answers)]]
    now[0] += 11
    methods += [[r.method for r in asked(made.count(where), answers)] for _ in range(2)]
    # An index of UUIDs has no case, so the predicate decides.
    assert methods == [["count"], ["get_collection", "scroll", "count"], ["scroll", "count"]]
    assert made._drift


def test_a_number_that_a_server_may_parse_to_its_neighbour_is_left_to_the_predicate() -> None:
    where = F("x") >= 0.1 + 0.2
    parsed = bounds(where, Dialect(point_id, parsed=True))
    ends = [condition["range"] for condition in parsed]
    ulp = math.ulp(0.3)
    assert ends == [{"gt": 0.1 + 0.2 + 16 * ulp}, {"gte": 0.1 + 0.2 - 16 * ulp}]
    for plain in (Dialect(point_id), backend(prefer_grpc=True)._dialect):
        assert bounds(where, plain).exact
    assert bounds(F("x") >= 0.3, backend()._dialect).exact
    assert not bounds(where, backend()._dialect).exact


# Trying again


def test_a_request_is_tried_again_after_a_pause() -> None:
    request = Request("count", {})
    flow = retried(request, 3)
    assert next(flow) is request
    assert isinstance(flow.throw(Transient("busy")), Pause)
    assert flow.send(None) is request
    with pytest.raises(StopIteration) as caught:
        flow.send(7)
    assert caught.value.value == 7


def test_what_will_not_pass_is_raised_at_once() -> None:
    flow = retried(Request("count", {}), 3)
    next(flow)
    with pytest.raises(BackendError, match="no such field"):
        flow.throw(BackendError("no such field"))


def test_the_last_error_says_how_often() -> None:
    flow = retried(Request("count", {}), 2)
    next(flow)
    flow.throw(Transient("busy"))
    flow.send(None)
    with pytest.raises(Unavailable, match=r"busy \(tried 2 times\)"):
        flow.throw(Transient("busy"))


@pytest.mark.parametrize("kind", ["keyword", "integer", "float", "bool", "datetime"])
def test_the_options_that_a_refusal_names_are_options_that_connect_takes(kind: str) -> None:
    told = f'Index required but not found for "metadata.w" of one of the following types: [{kind}]'
    error = of_refusal(told, "metadata", "'docs'")
    assert error is not None
    (given,) = re.findall(r"payload_indexes=(\{.*?\})", str(error))
    assert QdrantOptions(payload_indexes=json.loads(given)).payload_indexes
