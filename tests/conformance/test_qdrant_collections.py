"""Collections of a Qdrant server that have something of their own: others' ones, old servers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import nestvec
from nestvec import BackendError, CollectionDamaged, CollectionMismatch, F, Record

from .. import qdrant
from ..grpc_server import beside
from ..rest_server import running
from ..vectors import nested_vectors, records

ROWS = nested_vectors(40, 16)
IDS = [str(uuid.UUID(int=n + 1)) for n in range(40)]


@pytest.fixture
def name() -> Iterator[str]:
    """The name of one test's collection."""
    prefix = qdrant.prefix()
    yield f"{prefix}docs"
    qdrant.clean(prefix)


@pytest.fixture
def place(name: str) -> dict[str, Any]:
    """What connect is given for it."""
    return {**qdrant.place(), "collection": name}


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = qdrant.admin()
    yield client
    client.close()


def cosine(size: int, **settings: Any) -> models.VectorParams:
    return models.VectorParams(size=size, distance=models.Distance.COSINE, **settings)


def fill(client: QdrantClient, name: str, vectors: Any, payloads: list[dict[str, Any]]) -> None:
    points = [
        models.PointStruct(id=id, vector=vector, payload=payload)
        for id, vector, payload in zip(IDS, vectors, payloads, strict=True)
    ]
    client.upsert(name, points, wait=True)


def nearest(query: Any) -> str:
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return IDS[int(np.argmax(unit @ query))]


# What others made


def test_a_collection_of_langchain_qdrant_is_read(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, cosine(16))
    payloads = [{"page_content": f"text {n}", "metadata": {"n": n}} for n in range(40)]
    fill(client, name, ROWS.tolist(), payloads)
    with nestvec.connect(**place, vectors={"full": ""}, content_key="page_content") as store:
        assert store.info().fields[0].name == "full"
        (hit,) = store.search(ROWS[7], k=1)
        assert (hit.id, hit.text, hit.metadata) == (IDS[7], "text 7", {"n": 7})
        assert hit.score == pytest.approx(1, abs=1e-4)
        query = nested_vectors(1, 16, seed=1)[0]
        assert store.search(query, k=1)[0].id == nearest(query)
        assert [hit.id for hit in store.search(query)] == [
            hit.id for hit in store.search(query, funnel="exact")
        ]
        assert store.count(F("n") >= 30) == 10
        assert {hit.metadata["n"] for hit in store.search(query, where=F("n") < 3)} == {0, 1, 2}
        (record,) = store.get([IDS[3], "no uuid", "12"], vectors=True)
        assert record.vector == pytest.approx(ROWS[3] / np.linalg.norm(ROWS[3]), abs=1e-6)
        assert len(list(store.scan())) == 40
        assert store.verify() == {}
        trace = store.explain(query, k=3, funnel="full:20")
        assert [stage.field for stage in trace.stages] == ["full", "full"]


def test_a_collection_of_llama_index_is_read(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, {"text-dense": cosine(16)})
    payloads = [
        {"n": n, "_node_content": json.dumps({"text": f"text {n}"}), "_node_type": "TextNode"}
        for n in range(40)
    ]
    fill(client, name, [{"text-dense": row} for row in ROWS.tolist()], payloads)
    settings: dict[str, Any] = {"content_key": "_node_content.text", "metadata_key": ""}
    with nestvec.connect(**place, vectors={"full": "text-dense"}, **settings) as store:
        (hit,) = store.search(ROWS[5], k=1, where=F("n") >= 5)
        assert (hit.text, hit.metadata) == ("text 5", {"n": 5, "_node_type": "TextNode"})


def test_nested_vectors_made_by_hand_are_a_funnel(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, {"small": cosine(4), "large": cosine(16)})
    rows = [{"small": row[:4], "large": row} for row in ROWS.tolist()]
    fill(client, name, rows, [{"text": f"text {n}"} for n in range(40)])
    with nestvec.connect(**place, vectors={"4": "small", "full": "large"}) as store:
        assert repr(store).endswith("dims 4 of 16>")
        (hit,) = store.search(ROWS[9], k=1, funnel="4:40")
        assert (hit.id, hit.text, hit.metadata) == (IDS[9], "text 9", {})


def test_what_others_made_is_only_read(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, cosine(16))
    fill(client, name, ROWS.tolist(), [{"text": "t"}] * 40)
    store = nestvec.connect(**place, vectors={"full": ""})
    for write in (
        lambda: store.add_records([Record("a", "t", {}, ROWS[0])]),
        lambda: store.delete(ids=[IDS[0]]),
        store.drop,
    ):
        with pytest.raises(BackendError, match="others made: it is only read"):
            write()
    assert store.count() == 40
    store.close()


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ({"full": "big"}, "no vector 'big'"),
        ({"8": "small", "full": "large"}, "'small' has 4 numbers, not 8"),
        ({"full": "dot"}, "'dot' compares by Dot, scores here are cosines"),
        ({"full": "bytes"}, "'bytes' keeps whole numbers"),
        ({"4": "small"}, "no vector is named as 'full'"),
    ],
    ids=str,
)
def test_vectors_that_do_not_fit_show_both_sides(
    place: dict[str, Any], name: str, client: QdrantClient, vectors: dict[str, str], words: str
) -> None:
    dot = models.VectorParams(size=16, distance=models.Distance.DOT)
    client.create_collection(
        name,
        {
            "small": cosine(4),
            "large": cosine(16),
            "dot": dot,
            "bytes": cosine(16, datatype=models.Datatype.UINT8),
        },
    )
    with pytest.raises(CollectionMismatch, match=words) as caught:
        nestvec.connect(**place, vectors=vectors)
    for side in ("'small' (4, Cosine)", "'dot' (16, Dot)", repr(vectors)):
        assert side in str(caught.value)


def test_payload_keys_that_do_not_fit_show_both_sides(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, cosine(16))
    fill(client, name, ROWS.tolist(), [{"page_content": "t", "meta": {}}] * 40)
    words = r"keys meta, page_content; .*content_key='text'"
    with (
        nestvec.connect(**place, vectors={"full": ""}) as store,
        pytest.raises(CollectionMismatch, match=words),
    ):
        store.search(ROWS[0])


def test_what_others_made_is_not_taken_for_ours(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    client.create_collection(name, cosine(16))
    with pytest.raises(CollectionMismatch, match=r"not made by nestvec: it has '' \(16, Cosine\)"):
        nestvec.connect(**place, dims=(4,), dim=16)
    assert client.get_collection(name).config.params.vectors == cosine(16)


# What others write into ours


def test_verify_finds_what_others_wrote(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    with nestvec.connect(**place, dims=(4, 8), dim=16) as store:
        store.add_records(records(ROWS))
        half = {"full": ROWS[0].tolist(), "d8": ROWS[0, :8].tolist()}
        payload = {"id": "half", "text": "t", "metadata": {}}
        bare = {**half, "d4": ROWS[0, :4].tolist()}
        points = [
            models.PointStruct(id=IDS[0], vector=half, payload=payload),
            models.PointStruct(id=IDS[1], vector=bare, payload={"x": 1}),
        ]
        client.upsert(name, points, wait=True)
        assert store.verify() == {"half": ("d4",), IDS[1]: ("id", "text")}
        with pytest.raises(CollectionDamaged, match=rf"{IDS[1]}.*verify\(\)"):
            list(store.scan())
        client.delete(name, models.PointIdsList(points=[*IDS[:2]]), wait=True)
        assert store.verify() == {}


def test_a_collection_that_was_altered_is_not_opened(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    with nestvec.connect(**place, dims=(4,), dim=16):
        pass
    kept = client.get_collection(name).config.metadata
    assert kept is not None
    client.delete_collection(name)
    client.create_collection(name, {"full": cosine(16)}, metadata=kept)
    with pytest.raises(CollectionDamaged, match=r"tells of vectors .*the collection has 'full'"):
        nestvec.connect(**place)


# Two clients of one collection, and what a server keeps


def test_another_client_sees_what_was_written(place: dict[str, Any]) -> None:
    with nestvec.connect(**place, dims=(4,), dim=16) as one, nestvec.connect(**place) as two:
        one.add_records(records(ROWS))
        assert two.count() == 40
        assert two.search(ROWS[3], k=1)[0].id == "3"
        one.add_records([Record("f", "t", {"x": 0.1 + 0.2}, ROWS[0])])
        assert two.get(["f"])[0].metadata == {"x": 0.1 + 0.2}
    with nestvec.connect(**place) as three:
        assert three.count(F("x") == 0.1 + 0.2) == 1
        assert three.count(F("x") == 0.3) == 0


@pytest.mark.parametrize("step", [".a", "[]"])
def test_metadata_of_any_depth_is_kept_and_found(
    place: dict[str, Any], name: str, client: QdrantClient, step: str
) -> None:
    """gRPC, over which the nodes of a cluster speak, has no room for deep payloads."""
    depths = [1, 14, 15, 16, 17, 40, 95]
    metadatas: list[Any] = [1 for _ in depths]
    for n, depth in enumerate(depths):
        for _ in range(depth):
            metadatas[n] = {"a": metadatas[n]} if step == ".a" else [metadatas[n]]
    given = [Record(f"{n}", "t", {"k": each, "n": n}, ROWS[n]) for n, each in enumerate(metadatas)]
    with nestvec.connect(**place, dims=(4,), dim=16) as store:
        store.add_records(given)
        assert [record.metadata for record in store.get(range(len(given)))] == [
            record.metadata for record in given
        ]
        for depth in (*depths, 2, 18):
            key = "k" + step * depth
            for where in (F(key) == 1, F(key) > 0, F(key).exists(), F(key).is_empty(), F("n") > 4):
                expected = {record.id for record in given if where.matches(record)}
                assert {hit.id for hit in store.search(ROWS[0], where=where)} == expected, where
    points, _ = client.scroll(name, limit=10)
    assert (
        max(json.dumps((point.payload or {})["metadata"]).count(step[-1]) for point in points) <= 17
    )


def test_payload_indexes_and_tenants(
    place: dict[str, Any], name: str, client: QdrantClient
) -> None:
    settings: dict[str, Any] = {"tenant_key": "tag", "payload_indexes": {"n": "integer"}}
    with nestvec.connect(**place, dims=(4,), dim=16, **settings) as store:
        store.add_records(records(ROWS))
        hits = store.search(ROWS[0], where=(F("tag") == "t3") & (F("n") < 20))
        assert {hit.id for hit in hits} == {"3", "10", "17"}
    assert set(client.get_collection(name).payload_schema) == {"metadata.tag", "metadata.n"}
    with nestvec.connect(**place, payload_indexes={"even": "bool"}):
        pass
    assert "metadata.even" in client.get_collection(name).payload_schema


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_is_too_old_is_refused_by_both_versions(grpc: bool) -> None:
    with running(version="1.15.5") as server, beside(server) as port:
        how: dict[str, Any] = {"prefer_grpc": True, "grpc_port": port} if grpc else {}
        with pytest.raises(BackendError, match=r"is Qdrant 1\.15\.5; nestvec needs 1.16 or newer"):
            nestvec.connect(server.url, dims=(4,), dim=16, **how)
        assert not server.engine.collections
        server.version = "1.16.0"
        with nestvec.connect(server.url, dims=(4,), dim=16, **how) as store:
            assert store.count() == 0
        # The record of an older nestvec, on an older server, was in a point.
        server.version = "1.15.5"
        server.engine["docs"].metadata.clear()
        with pytest.raises(BackendError, match=r"is Qdrant 1\.15\.5; nestvec needs 1.16 or newer"):
            nestvec.connect(server.url, **how)
        with pytest.raises(BackendError, match=r"is Qdrant 1\.15\.5; nestvec needs 1.16 or newer"):
            nestvec.connect(server.url, vectors={"4": "d4", "full": "full"}, **how)
