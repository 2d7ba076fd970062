"""A test for each defect seen in llama-index-vector-stores-qdrant 0.10.4 or -postgres 0.9.0."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
from llama_index.core.schema import Document, ImageDocument, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

import nestvec
from nestvec import CollectionMismatch, ConfigError, RecordError, Unavailable
from nestvec.llama_index import NestedVectorStore

from .. import postgres, qdrant
from ..conformance.engines import lasting
from ..vectors import nested_vectors
from .conftest import Connecting
from .li import WordEmbedding, ask, bare, nodes, vector


@pytest.fixture
async def vector_store(connecting: Connecting) -> NestedVectorStore:
    made = NestedVectorStore(await connecting(dims=(2, 4), embedder=WordEmbedding()))
    made.add(nodes())
    return made


def only(key: str, operator: str, value: Any, condition: str = "and") -> MetadataFilters:
    part = MetadataFilter(key=key, operator=FilterOperator(operator), value=value)
    return MetadataFilters(filters=[part], condition=FilterCondition(condition))


# Both


async def test_what_is_no_text_node_comes_back_as_one(vector_store: NestedVectorStore) -> None:
    """Documents come back as text nodes, and the bytes of images are not stored."""
    given = [
        Document(id_="whole", text="text", embedding=vector("a")),
        ImageDocument(id_="seen", text="text", image=b"bytes", embedding=vector("b")),
    ]
    vector_store.add(given)
    assert await vector_store.aget_nodes(["whole", "seen"]) == [bare(node) for node in given]


def test_a_users_own_doc_id_is_overwritten(vector_store: NestedVectorStore) -> None:
    node = TextNode(id_="x", text="text", metadata={"doc_id": "mine"}, embedding=vector("x"))
    vector_store.add([node])
    query = ask("x", filters=only("doc_id", "==", "mine"))
    assert vector_store.query(query).nodes == [bare(node)]


@lasting
def test_the_model_of_a_collection_is_not_checked(url: str) -> None:
    store = nestvec.connect(url, dims=(2,), embedder=WordEmbedding(8))
    store.close()
    with pytest.raises(CollectionMismatch, match="WordEmbedding:words-8"):
        NestedVectorStore.from_params(url, embedder=WordEmbedding(16))
    nestvec.connect(url, embedder=WordEmbedding(8)).drop()


def test_a_constructor_has_27_parameters() -> None:
    for made in (NestedVectorStore, NestedVectorStore.from_params):
        assert len(signature(made).parameters) <= 3


# llama-index-vector-stores-qdrant


async def test_delete_nodes_without_arguments_empties_the_collection(
    vector_store: NestedVectorStore,
) -> None:
    with pytest.raises(RecordError, match="nothing was deleted"):
        vector_store.delete_nodes()
    with pytest.raises(RecordError, match="nothing was deleted"):
        await vector_store.adelete_nodes()
    assert vector_store.client.count() == 9


async def test_filters_and_ids_delete_what_has_only_one_of_them(
    vector_store: NestedVectorStore,
) -> None:
    either = MetadataFilters(
        filters=[MetadataFilter(key="n", value=1), MetadataFilter(key="n", value=2)],
        condition=FilterCondition.OR,
    )
    await vector_store.adelete_nodes(["n2", "n5"], either)
    assert {node.node_id for node in vector_store.get_nodes()} == {
        f"n{n}" for n in range(9) if n != 2
    }


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [("any", ["a", "x"], {"1", "2"}), ("all", ["a", "b"], {"1"}), ("contains", "b", {"1", "3"})],
)
def test_operators_of_lists_raise(
    vector_store: NestedVectorStore, operator: str, value: Any, expected: set[str]
) -> None:
    tags = {"1": ["a", "b"], "2": ["a"], "3": ["b", "c"]}
    for id, given in tags.items():
        node = TextNode(id_=id, text="text", metadata={"tags": given}, embedding=vector(id))
        vector_store.add([node])
    result = vector_store.query(ask("text", filters=only("tags", operator, value)))
    assert set(result.ids or ()) == expected


def test_a_missing_key_does_not_satisfy_ne(vector_store: NestedVectorStore) -> None:
    vector_store.add([TextNode(id_="x", text="text", embedding=vector("x"))])
    result = vector_store.query(ask("x", 20, filters=only("noun", "!=", "cat")))
    assert set(result.ids or ()) == {"x", *(f"n{n}" for n in range(3, 9))}


async def test_a_mode_that_there_is_not_searches_as_if_it_were_not_asked_for(
    vector_store: NestedVectorStore,
) -> None:
    """SPARSE, TEXT_SEARCH, MMR and the learners gave the nearest nodes without a word."""
    for mode in ("sparse", "text_search", "semantic_hybrid", "svm"):
        with pytest.raises(NotImplementedError, match="'default' and 'mmr'"):
            vector_store.query(ask("dog runs", mode=mode))
    near = vector_store.query(ask("dog runs", k=3)).ids
    diverse = ask("dog runs", k=3, mode="mmr", mmr_threshold=0.0)
    assert (await vector_store.aquery(diverse)).ids != near


async def test_ids_that_are_no_uuids_are_refused(vector_store: NestedVectorStore) -> None:
    node = TextNode(id_="chapter 1/§2", text="text", embedding=vector("x"))
    assert await vector_store.async_add([node]) == ["chapter 1/§2"]
    assert vector_store.query(ask("x", k=1)).ids == ["chapter 1/§2"]


async def test_clearing_drops_the_collection(vector_store: NestedVectorStore) -> None:
    await vector_store.aclear()
    assert vector_store.query(ask("dog")).ids == []
    assert vector_store.client.info().indexes
    vector_store.clear()


async def test_async_needs_a_client_of_its_own(vector_store: NestedVectorStore) -> None:
    """Or, in local mode, does not see what was written."""
    await vector_store.async_add([TextNode(id_="x", text="text", embedding=vector("x"))])
    assert vector_store.query(ask("x", k=1)).ids == ["x"]
    vector_store.delete_nodes(["x"])
    assert "x" not in ((await vector_store.aquery(ask("x"))).ids or ())


def test_get_nodes_ends_at_9999() -> None:
    rows = nested_vectors(10_050, 4)
    made = NestedVectorStore.from_params("memory:", dims=(2,), dim=4)
    made.add([TextNode(id_=str(n), embedding=row.tolist()) for n, row in enumerate(rows)])
    assert len(made.get_nodes()) == 10_050


def test_unknown_options_are_swallowed(vector_store: NestedVectorStore) -> None:
    with pytest.raises(ConfigError, match="unknown option 'qdrant_filter'"):
        vector_store.query(ask("dog"), qdrant_filter=None)


# llama-index-vector-stores-postgres


INJECTIONS = [
    "x' OR '1'='1",
    "x'); DROP TABLE docs; --",
    "n' = 'n' OR 'a",
    '"; DELETE FROM docs; --',
    "%' OR true --",
    "\\'; SELECT pg_sleep(10); --",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
def test_values_and_keys_of_filters_become_sql(vector_store: NestedVectorStore, text: str) -> None:
    node = TextNode(id_="x", text="text", metadata={"said": text}, embedding=vector("x"))
    vector_store.add([node])
    for operator in ("==", "text_match", "text_match_insensitive", "contains"):
        result = vector_store.query(ask("x", 20, filters=only("said", operator, text)))
        assert result.ids == ["x"], operator
    for operator in ("in", "any", "all"):
        assert vector_store.query(ask("x", 20, filters=only("said", operator, [text]))).ids == ["x"]
    for operator in ("==", "contains"):
        quoted = f'"{text}"'.replace("\\", "\\\\") if '"' not in text else f'"\\"{text[1:]}"'
        assert vector_store.query(ask("x", 20, filters=only(quoted, operator, "1"))).ids == []
    assert vector_store.query(ask("x", doc_ids=[text], node_ids=[text])).ids == []
    vector_store.delete(text)
    assert vector_store.client.count() == 10


def test_adding_again_makes_duplicates(vector_store: NestedVectorStore) -> None:
    vector_store.add(nodes())
    assert vector_store.client.count() == 9
    twice = nodes()[:1] + nodes()[:1]
    assert vector_store.add(twice) == ["n0", "n0"]
    assert vector_store.client.count() == 9


async def test_doc_ids_and_node_ids_are_ignored(vector_store: NestedVectorStore) -> None:
    assert len(vector_store.query(ask("cat", doc_ids=["dog"])).ids or ()) == 3
    assert (await vector_store.aquery(ask("cat", node_ids=["n4"]))).ids == ["n4"]


def test_the_condition_not_raises(vector_store: NestedVectorStore) -> None:
    result = vector_store.query(ask("cat", filters=only("noun", "==", "cat", "not")))
    assert set(result.ids or ()) == {f"n{n}" for n in range(3, 9)}


def test_empty_filters_and_no_ids_get_and_delete_everything(
    vector_store: NestedVectorStore,
) -> None:
    assert vector_store.get_nodes([]) == []
    vector_store.delete_nodes([], only("n", ">=", 0))
    assert vector_store.client.count() == 9


def test_is_empty_knows_only_null(vector_store: NestedVectorStore) -> None:
    vector_store.add([TextNode(id_="x", metadata={"noun": ""}, embedding=vector("x"))])
    vector_store.add([TextNode(id_="y", metadata={"noun": []}, embedding=vector("y"))])
    result = vector_store.query(ask("x", filters=only("noun", "is_empty", None)))
    assert set(result.ids or ()) == {"x", "y"}


def test_a_number_in_a_string_is_compared_as_a_number(vector_store: NestedVectorStore) -> None:
    """And a string among the metadata was an error of the server."""
    vector_store.add([TextNode(id_="x", metadata={"n": "many"}, embedding=vector("x"))])
    assert len(vector_store.query(ask("x", 20, filters=only("n", ">", 3))).ids or ()) == 5
    assert vector_store.query(ask("x", 20, filters=only("n", "==", "3"))).ids == []


SECRET_URLS = [
    "postgresql://me:geheim@host:5432/db",
    "postgresql://me@host/db?password=geheim&schema=papers",
]


PLACES: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "password": lambda: (postgres.with_options(postgres.place(), password="geheim"), {}),
    "api_key": lambda: (qdrant.space(), {"api_key": "geheim", "retries": 3}),
}


@pytest.mark.parametrize("place", PLACES)
def test_to_dict_prints_the_password(place: str) -> None:
    url, options = PLACES[place]()
    made = NestedVectorStore.from_params(url, dims=(2,), dim=8, **options)
    told = made.to_dict()
    for text in (made.to_json(), str(told), repr(made), str(made), str(pickle.dumps(made))):
        assert "geheim" not in text
    assert told["options"] == ({"retries": 3} if options else {})
    again = NestedVectorStore.from_dict(told, url=url, **options)
    assert again.to_dict() == told
    again.close()
    made.client.drop()
    made.close()


@pytest.mark.parametrize("url", SECRET_URLS)
def test_errors_print_the_password(url: str) -> None:
    with pytest.raises((Unavailable, nestvec.BackendError)) as caught:
        NestedVectorStore.from_params(url, dims=(2,), dim=4, timeout=2)
    assert "geheim" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_the_index_of_half_vectors_is_never_used() -> None:
    """Its operator class was that of another distance than the query's."""
    url = postgres.place()
    made = NestedVectorStore.from_params(url, dims=("8:float16",), dim=16)
    rows = nested_vectors(2_000, 16)
    made.add([TextNode(id_=str(n), embedding=row.tolist()) for n, row in enumerate(rows)])
    made.client.create_index()
    query = VectorStoreQuery(query_embedding=rows[7].tolist(), similarity_top_k=1)
    uses = (
        "SELECT max(idx_scan) FROM pg_stat_user_indexes s JOIN pg_indexes i ON i.indexname = "
        "s.indexrelname AND i.schemaname = s.schemaname "
        "WHERE s.schemaname = %s AND i.indexdef LIKE '%%hnsw%%halfvec%%'"
    )
    schema = url.rpartition("schema=")[2]
    with postgres.admin() as connection:
        count = None
        ends = time.monotonic() + 20
        while not count and time.monotonic() < ends:  # the server counts now and then
            assert made.query(query, funnel="8:float16:40").ids == ["7"]
            (count,) = connection.execute(uses, (schema,)).fetchone() or (None,)
            time.sleep(0.05)
    made.client.drop()
    made.close()
    assert count


async def test_async_methods_set_up_in_a_blocking_way(
    vector_store: NestedVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = vector_store.client._collection.backend
    inner = backend.send

    def send(request: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return inner(request)
        raise AssertionError("a blocking call in the event loop")

    monkeypatch.setattr(backend, "send", send)
    made = NestedVectorStore(vector_store.aclient)
    await made.async_add(nodes())
    assert (await made.aquery(ask("dog runs", k=1))).ids == ["n5"]
    assert len(await made.aget_nodes(filters=only("n", ">", 3))) == 5
    await made.adelete("cow")
    await made.adelete_nodes(["n0"])
    assert len(await made.aget_nodes()) == 5
    await made.aclear()
    assert await made.aget_nodes() == []


def test_settings_of_the_caller_are_emptied(tmp_path: Any) -> None:
    settings: dict[str, Any] = {"dims": (2,), "dim": 4, "m": 8}
    given = dict(settings)
    NestedVectorStore.from_params(f"edge:{tmp_path / 'papers'}", **settings).close()
    assert settings == given


def test_nodes_are_changed_by_adding_them(vector_store: NestedVectorStore) -> None:
    given, before = nodes(), nodes()
    vector_store.add(given)
    assert given == before
