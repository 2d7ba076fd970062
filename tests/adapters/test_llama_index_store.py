"""LlamaIndex's NestedVectorStore over every engine, each test in both colours."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import llama_index.core
import numpy as np
import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from pydantic import AnyUrl

import nestvec
from nestvec import (
    CollectionDamaged,
    CollectionMissing,
    ConfigError,
    EmbedderError,
    F,
    FilterError,
    FunnelError,
    RecordError,
)
from nestvec.llama_index import MatryoshkaEmbedding, NestedVectorStore

from ..conformance.engines import lasting
from .conftest import Connecting
from .li import TEXTS, Both, WordEmbedding, ask, bare, nodes, vector


@pytest.fixture
async def empty(connecting: Connecting, colour: str) -> Both:
    store = await connecting(dims=(2, 4), embedder=WordEmbedding())
    return Both(NestedVectorStore(store), colour == "async")


@pytest.fixture
async def both(empty: Both) -> Both:
    await empty.add(nodes())
    return empty


def filters(*parts: Any, condition: str = "and") -> MetadataFilters:
    """Return filters of (key, operator, value), and of other filters."""
    made = [
        MetadataFilter(key=part[0], operator=FilterOperator(part[1]), value=part[2])
        if isinstance(part, tuple)
        else part
        for part in parts
    ]
    return MetadataFilters(filters=made, condition=FilterCondition(condition))


# Nodes


class Clip(TextNode):
    """A kind of node that a user made."""

    seconds: float = 0.0
    obj: str = ""

    @classmethod
    def class_name(cls) -> str:
        return "Clip"


def related(id: str, kind: ObjectType = ObjectType.TEXT, **metadata: Any) -> RelatedNodeInfo:
    return RelatedNodeInfo(node_id=id, node_type=kind, metadata=metadata, hash=f"hash of {id}")


#: One node of each kind, with every field that it has.
def every_kind() -> list[BaseNode]:
    inner = TextNode(id_="inner", text="in", metadata={"b": 1, "a": 2}, embedding=[1.0, 2.0])
    inner.relationships = {NodeRelationship.SOURCE: related("source")}
    return [
        TextNode(
            id_="text",
            text="some text",
            metadata={"zebra": 1, "b": [{"y": 1.5, "x": None}, "two"], "aa": {"q": True, "p": {}}},
            excluded_embed_metadata_keys=["zebra"],
            excluded_llm_metadata_keys=["b"],
            metadata_template="{key}={value}",
            metadata_separator=" | ",
            text_template="{content} ({metadata_str})",
            mimetype="text/markdown",
            start_char_idx=3,
            end_char_idx=12,
            relationships={
                NodeRelationship.SOURCE: related("doc", ObjectType.DOCUMENT, file="a.txt"),
                NodeRelationship.PREVIOUS: related(
                    "before", nul='a\x00b "\x01" \\u0000 ü', e=1e300
                ),
                NodeRelationship.NEXT: related("after"),
                NodeRelationship.PARENT: related("parent"),
                NodeRelationship.CHILD: [related("one"), related("two")],
            },
        ),
        TextNode(id_="plain"),
        IndexNode(id_="to a node", text="table", index_id="i", obj=inner),
        IndexNode(
            id_="to a picture", index_id="i", obj=ImageDocument(text="seen", image=b"\xffbytes")
        ),
        IndexNode(id_="to JSON", text="table", index_id="j", obj={"rows": [1, "two", None]}),
        IndexNode(id_="to a string", text="table", index_id="j", obj="string"),
        IndexNode(id_="to nothing", text="table", index_id="k"),
        ImageNode(id_="image", text="a cat", image="aGk=", image_path="/cat.png"),
        ImageNode(id_="far image", image_url="https://host/cat.png", text_embedding=[0.5, 0.25]),
        Document(id_="document", text="whole", metadata={"b": 1, "a": 2}),
        ImageDocument(id_="picture", text="seen", image=b"\x00\xffbytes", image_mimetype="a/b"),
        Node(
            id_="mixed",
            text_resource=MediaResource(
                text="words", mimetype="text/html", path=Path("/page.html")
            ),
            audio_resource=MediaResource(data=b"\x01\xfe", mimetype="audio/mpeg"),
            video_resource=MediaResource(url=AnyUrl("https://host/film.mp4")),
        ),
        Node(id_="no text", image_resource=MediaResource(path=Path("/cat.png"))),
        Node(id_="empty text", text_resource=MediaResource(text="")),
        Clip(id_="clip", text="a film", seconds=12.5, obj="mine"),
    ]


async def test_nodes_of_every_kind_come_back_as_they_went_in(empty: Both) -> None:
    given = every_kind()
    for n, node in enumerate(given):
        node.embedding = vector(f"kind {n}")
    before = copy.deepcopy(given)
    ids = await empty.add(given)
    assert given == before
    assert ids == [node.node_id for node in given]
    for node, again in zip(given, await empty.get_nodes(ids), strict=True):
        assert type(again) is type(node)
        assert again == bare(node)
        assert again.hash == node.hash
        assert list(again.metadata) == list(node.metadata)
        assert again.model_dump() == bare(node).model_dump()
        assert again.get_content("all") == node.get_content("all")  # type: ignore[arg-type]
    result = await empty.query(ask("kind 0", k=1))
    assert result.nodes == [bare(given[0])]


async def test_a_node_says_the_same_to_models_wherever_it_was(empty: Both) -> None:
    """Postgres orders the keys of JSON by their length; the prompt and the hash go by theirs."""
    node = TextNode(id_="a", text="text", metadata={"title": 1, "n": 2, "ab": 3}, embedding=[1] * 8)
    await empty.add([node])
    (again,) = await empty.get_nodes(["a"])
    assert again.get_metadata_str() == "title: 1\nn: 2\nab: 3"


async def test_metadata_is_where_other_readers_look_for_it(both: Both) -> None:
    store = both.vector_store.client
    (record,) = store.get(["n4"])
    assert record.text == "dog sleeps"
    assert {key: record.metadata[key] for key in ("n", "noun")} == {"n": 4, "noun": "dog"}
    assert [hit.id for hit in store.search("dog sleeps", 3, where=F("n") == 4)] == ["n4"]
    assert store.count(F("_llama_index.ref_doc_id") == "dog") == 3


async def test_records_of_other_writers_are_text_nodes(empty: Both) -> None:
    store = empty.vector_store.client
    store.add(["plain text"], [{"year": 2024, "doc_id": "own"}], ["plain"])
    expected = TextNode(id_="plain", text="plain text", metadata={"year": 2024, "doc_id": "own"})
    assert await empty.get_nodes(["plain"]) == [expected]
    assert (await empty.query(ask("plain text", k=1))).nodes == [expected]
    assert (await empty.query(ask("text", filters=filters(("doc_id", "==", "own"))))).ids


async def test_keys_of_the_user_are_the_users(empty: Both) -> None:
    metadata = dict.fromkeys(("doc_id", "ref_doc_id", "document_id", "_node_content"), "mine")
    node = nodes()[0]
    node.metadata = metadata
    await empty.add([node])
    assert (await empty.get_nodes(["n0"]))[0].metadata == metadata
    for key in metadata:
        assert (await empty.query(ask("cat", filters=filters((key, "==", "mine"))))).ids == ["n0"]
    assert (await empty.query(ask("cat", doc_ids=["mine"]))).ids == []
    node.metadata = {"_llama_index": 1}
    with pytest.raises(RecordError, match="node 'n0': metadata has '_llama_index'"):
        await empty.add([node])


async def test_someone_changed_the_metadata(both: Both) -> None:
    store = both.vector_store.client
    (record,) = store.get(["n1"], vectors=True)
    changed = {**record.metadata, "new": [1, {"a": 1}]}
    del changed["noun"]
    store.add_records([nestvec.Record("n1", record.text, changed, record.vector)])
    (node,) = await both.get_nodes(["n1"])
    assert node.metadata == {"n": 1, "new": [1, {"a": 1}]}
    assert node.ref_doc_id == "cat"
    for broken in ({"node": "{"}, {}, "text", {"node": '{"class_name": "TextNode"}', "order": 3}):
        changed = {"_llama_index": broken}
        store.add_records([nestvec.Record("n1", record.text, changed, record.vector)])
        with pytest.raises(CollectionDamaged, match="record 'n1': '_llama_index'"):
            await both.get_nodes(["n1"])


async def test_a_class_of_nodes_that_is_not_loaded_is_named(both: Both) -> None:
    store = both.vector_store.client
    rest = {"node": '{"class_name": "Elsewhere"}', "order": "{}"}
    store.add_records([nestvec.Record("x", "text", {"_llama_index": rest}, [1.0] * 8)])
    with pytest.raises(ConfigError, match="'Elsewhere', which is not known; import its class"):
        await both.get_nodes(["x"])


# Adding


async def test_generators_are_read_batch_by_batch(empty: Both) -> None:
    taken = []

    def source() -> Iterator[TextNode]:
        for node in nodes():
            taken.append(node.node_id)
            yield node
            assert len(taken) <= 4 or empty.vector_store.client.count() >= len(taken) - 4

    ids = await empty.add(source(), batch_size=2)
    assert ids == taken
    assert await empty.get_nodes(ids) == [bare(node) for node in nodes()]


async def test_an_async_generator_is_read_too(empty: Both) -> None:
    async def source() -> AsyncIterator[TextNode]:
        for node in nodes():
            yield node

    given: Any = source()
    assert len(await empty.vector_store.async_add(given)) == 9
    assert len(await empty.get_nodes()) == 9


async def test_adding_again_replaces(both: Both) -> None:
    (node,) = nodes()[:1]
    node.text, node.metadata = "changed", {}
    await both.add([node])
    assert both.vector_store.client.count() == 9
    assert (await both.get_nodes(["n0"]))[0].text == "changed"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda node: setattr(node, "embedding", None), "node 'n1' has no embedding"),
        (lambda node: setattr(node, "embedding", [1.0]), "'n1'.*1 numbers"),
        (lambda node: node.metadata.update(when={1, 2}), "'n1'.*when.*set"),
        (lambda node: node.metadata.update(when=object()), "'n1'.*when.*object"),
    ],
    ids=["no embedding", "wrong width", "a set", "no JSON"],
)
async def test_a_wrong_node_is_named_and_nothing_is_stored(
    empty: Both, wrong: Any, words: str
) -> None:
    given = nodes()
    wrong(given[1])
    with pytest.raises(RecordError, match=words):
        await empty.add(given)
    assert empty.vector_store.client.count() == 0


async def test_what_is_no_node_is_refused(empty: Both) -> None:
    with pytest.raises(RecordError, match="expected LlamaIndex nodes, got <class 'str'>"):
        await empty.add(["text"])
    with pytest.raises(RecordError, match=r"got one node; write \[node\]"):
        await empty.add(nodes()[0])
    with pytest.raises(RecordError, match="'i' cannot be written as JSON"):
        await empty.add([IndexNode(id_="i", index_id="j", obj=object(), embedding=[1.0] * 8)])
    twice = TextNode(id_="x", embedding=[1.0] * 8)
    twice.relationships = {NodeRelationship.SOURCE: [related("a"), related("b")]}
    with pytest.raises(RecordError, match="'x' cannot be written as JSON: Source object"):
        await empty.add([twice])
    with pytest.raises(ConfigError, match="unknown option 'shard_identifier'; known are batch_si"):
        await empty.add(nodes(), shard_identifier=1)
    assert await empty.add([]) == []


async def test_dates_are_written_as_iso(empty: Both) -> None:
    node = nodes()[0]
    node.metadata = {"day": date(2024, 5, 1)}
    await empty.add([node])
    assert (await empty.get_nodes(["n0"]))[0].metadata == {"day": "2024-05-01"}


# Querying


async def test_similarities_are_cosines_best_first(both: Both) -> None:
    result = await both.query(ask("cat eats"))
    assert result.ids[0] == "n0"
    assert [node.node_id for node in result.nodes] == result.ids
    assert result.similarities[0] == pytest.approx(1, abs=1e-4)
    assert all(a >= b for a, b in pairwise(result.similarities))
    simple = SimpleVectorStore()
    simple.add(nodes())
    expected = simple.query(ask("cat eats"))
    assert result.ids == expected.ids
    assert result.similarities == pytest.approx(expected.similarities, abs=1e-4)
    assert (await both.query(VectorStoreQuery(query_embedding=vector("cat eats")))).ids == ["n0"]


async def test_a_text_alone_is_embedded(both: Both) -> None:
    result = await both.query(VectorStoreQuery(query_str="dog runs", similarity_top_k=1))
    assert result.ids == ["n5"]
    result = await both.query(ask("cow eats", k=1, query_str="dog runs"))
    assert result.ids == ["n6"]
    with pytest.raises(ConfigError, match="query_embedding or query_str"):
        await both.query(VectorStoreQuery(similarity_top_k=1))
    with pytest.raises(ConfigError, match="takes a VectorStoreQuery, got <class 'str'>"):
        await both.query("dog runs")


async def test_a_text_alone_needs_an_embedder(connecting: Connecting, colour: str) -> None:
    both = Both(NestedVectorStore(await connecting(dims=(2,), dim=8)), colour == "async")
    await both.add(nodes())
    assert (await both.query(ask("dog runs", k=1))).ids == ["n5"]
    with pytest.raises(EmbedderError, match="opened without an embedder"):
        await both.query(VectorStoreQuery(query_str="dog runs"))


async def test_documents_and_nodes_limit_a_query(both: Both) -> None:
    assert set((await both.query(ask("cat", doc_ids=["dog"]))).ids) == {"n3", "n4", "n5"}
    assert set((await both.query(ask("cat", doc_ids=["dog", "cow"]))).ids) == {
        f"n{n}" for n in range(3, 9)
    }
    assert (await both.query(ask("cat", doc_ids=[]))).ids == []
    assert set((await both.query(ask("cat", node_ids=["n1", "n7", "nope"]))).ids) == {"n1", "n7"}
    # An index that keeps no nodes of its own gives an empty list.
    assert len((await both.query(ask("cat", node_ids=[]))).ids) == 9
    few = await both.query(
        ask("cat", doc_ids=["dog"], node_ids=["n4", "n7"], filters=filters(("n", ">", 2)))
    )
    assert few.ids == ["n4"]


async def test_options_of_a_search(both: Both) -> None:
    first = await both.query(ask("dog runs"), funnel="exact")
    pages = [
        (await both.query(ask("dog runs", k=4), offset=offset, funnel="2:9")).ids
        for offset in (0, 4)
    ]
    assert [*pages[0], *pages[1]] == first.ids[:8]
    above = [id for id, score in zip(first.ids, first.similarities, strict=True) if score >= 0.3]
    assert 0 < len(above) < 9
    assert (await both.query(ask("dog runs"), min_score=0.3)).ids == above
    with pytest.raises(FunnelError, match="unknown field '3'"):
        await both.query(ask("dog runs"), funnel="3:10")
    with pytest.raises(ConfigError, match="unknown option 'hnsw_ef'; known are funnel, min_score"):
        await both.query(ask("dog runs"), hnsw_ef=100)
    with pytest.raises(FunnelError, match="0"):
        await both.query(ask("dog runs", k=0))


def in_memory(colour: str) -> Both:
    made = NestedVectorStore.from_params("memory:", dims=(2, 4), embedder=WordEmbedding())
    return Both(made, colour == "async")


@pytest.mark.parametrize(
    "mode", [mode for mode in VectorStoreQueryMode if mode.value not in ("default", "mmr")]
)
async def test_other_modes_say_which_there_are(colour: str, mode: VectorStoreQueryMode) -> None:
    with pytest.raises(NotImplementedError, match=f"'{mode.value}'.*'default' and 'mmr'"):
        await in_memory(colour).query(ask("dog", query_str="dog", mode=mode))


@pytest.mark.parametrize(
    "unused",
    [{"alpha": 0.5}, {"sparse_top_k": 3}, {"hybrid_top_k": 3}, {"output_fields": ["n"]},
     {"embedding_field": "d2"}, {"mmr_threshold": 0.5}],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
async def test_what_would_be_ignored_is_refused(colour: str, unused: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(unused))} has no meaning in mode 'default'"):
        await in_memory(colour).query(ask("dog", **unused))


# MMR


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
async def test_mmr_chooses_far_from_all_that_was_chosen(both: Both, threshold: float) -> None:
    query = ask("cat eats fast", k=4, mode="mmr", mmr_threshold=threshold)
    result = await both.query(query, mmr_prefetch_k=7)
    near = await both.query(ask("cat eats fast", k=7), funnel="exact")
    rows = {node.node_id: np.array(node.embedding) for node in nodes()}
    unit = {id: row / np.linalg.norm(row) for id, row in rows.items()}
    cosines = dict(zip(near.ids, near.similarities, strict=True))
    chosen = near.ids[:1]
    while len(chosen) < 4:
        chosen.append(
            max(
                (name for name in near.ids if name not in chosen),
                key=lambda name: (
                    threshold * cosines[name]
                    - (1 - threshold) * max(float(unit[name] @ unit[other]) for other in chosen)
                ),
            )
        )
    assert result.ids == chosen
    assert result.similarities == pytest.approx([cosines[id] for id in chosen], abs=1e-4)
    option = await both.query(
        ask("cat eats fast", k=4, mode=VectorStoreQueryMode.MMR),
        mmr_prefetch_factor=1.75,
        mmr_threshold=threshold,
    )
    assert option.ids == result.ids


async def test_mmr_with_wrong_settings(both: Both) -> None:
    query = ask("cat", k=3, mode="mmr")
    assert len((await both.query(query)).ids) == 3
    assert (await both.query(ask("cat", mode="mmr", doc_ids=["cow"]))).ids[0] in ("n6", "n7", "n8")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mmr_threshold": 1.5}, "mmr_threshold is between 0 and 1, got 1.5"),
        ({"mmr_threshold": float("nan")}, "mmr_threshold is between 0 and 1, got nan"),
        ({"mmr_prefetch_factor": 0.5}, "mmr_prefetch_factor is a number from 1 on, got 0.5"),
        ({"mmr_prefetch_factor": "4"}, "mmr_prefetch_factor is a number from 1 on, got '4'"),
        ({"mmr_prefetch_factor": float("inf")}, "mmr_prefetch_factor is a number from 1 on"),
        ({"mmr_prefetch_factor": 2, "mmr_prefetch_k": 5}, "exclude each other"),
        ({"offset": 2}, "unknown option 'offset'"),
    ]
    for options, words in wrong:
        with pytest.raises(ConfigError, match=words):
            await both.query(query, **options)
    with pytest.raises(ConfigError, match="given twice"):
        await both.query(ask("cat", mode="mmr", mmr_threshold=0.2), mmr_threshold=0.3)
    for mode in ("default", "mmr"):
        for k in (0, None):
            with pytest.raises(FunnelError, match="similarity_top_k"):
                await both.query(ask("cat", k=k, mode=mode))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown option 'mmr_threshold'"):
        await both.query(ask("cat"), mmr_threshold=0.3)


# Filters


SAMPLES: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["a", "b"], "title": "A Cat", "score": 0.5},
    {"year": 2021, "lang": "de", "tags": ["b"], "title": "a dog", "score": 1.5},
    {"year": 2022, "lang": "en", "tags": [], "title": "", "score": -1.0},
    {"year": 2023, "lang": "fr", "tags": ["c", "a"], "title": "50% of_all", "score": 2.0},
    {"year": 2024, "tags": ["a", "b", "c"], "title": "cat's \"cradle\"; DROP TABLE docs --"},
    {"lang": "en", "title": "Acat", "score": 0.5},
]  # fmt: skip

PLAIN: list[MetadataFilters] = [
    filters(("year", "==", 2021)),
    filters(("year", ">", 2021), ("year", "<=", 2023)),
    filters(("year", "<", 2021), ("year", ">=", 2024), condition="or"),
    filters(("lang", "in", ["en", "fr"])),
    filters(("year", "in", [2020, 2024])),
    filters(("tags", "any", ["a", "c"])),
    filters(("tags", "all", ["a", "b"])),
    filters(("tags", "contains", "b")),
    filters(("title", "text_match", "50% of_")),
    filters(("title", "==", 'cat\'s "cradle"; DROP TABLE docs --')),
    filters(("tags", "is_empty", None)),
    filters(("title", "is_empty", None)),
    filters(("ref_doc_id", "==", "even")),
    filters(("doc_id", "in", ["odd", "other"])),
    filters(("document_id", "!=", "even")),
    filters(),
]

#: What SimpleVectorStore refuses, some of it only before llama-index-core 0.14.
KNOWN: list[tuple[MetadataFilters, set[int]]] = [
    (filters(("year", "!=", 2021)), {0, 2, 3, 4, 5}),
    (filters(("lang", "nin", ["en", "fr"])), {1, 4}),
    (filters(("title", "text_match", "cat")), {4, 5}),
    (filters(("title", "text_match_insensitive", "CAT")), {0, 4, 5}),
    (filters(("lang", "==", "en"), ("year", ">", 2021), condition="not"), {1}),
    (filters(("ref_doc_id", "==", "even"), ("lang", "==", "fr"), condition="not"), {1, 5}),
    (filters(("lang", "==", "en"), filters(("year", ">", 2021), ("year", "<", 2021),
             condition="or")), {0, 2}),
    (filters(filters(("lang", "==", "en")), filters(("year", ">=", 2023)), condition="or"),
     {0, 2, 3, 4, 5}),
    (filters(filters(("lang", "==", "en"), condition="not"), ("year", ">", 2021)), {3, 4}),
    (filters(filters(filters(("year", "==", 2021), condition="not"), condition="not"),
             condition="and"), {1}),
    (filters(filters(("tags", "contains", "a"), ("tags", "contains", "c")),
             ("lang", "==", "en"), condition="not"), {1}),
]  # fmt: skip


if llama_index.core.__version__ >= "0.14":
    PLAIN += [
        each
        for each, _ in KNOWN
        if not any(isinstance(part, MetadataFilters) for part in each.filters)
    ]


@pytest.fixture
async def sampled(empty: Both) -> tuple[Both, SimpleVectorStore]:
    given = [
        TextNode(
            id_=str(n),
            text="text",
            metadata=metadata,
            embedding=vector(str(n)),
            relationships={
                NodeRelationship.SOURCE: RelatedNodeInfo(node_id="odd" if n % 2 else "even")
            },
        )
        for n, metadata in enumerate(SAMPLES)
    ]
    simple = SimpleVectorStore()
    simple.add(given)
    await empty.add(given)
    return empty, simple


async def test_filters_mean_what_simple_vector_store_means(
    sampled: tuple[Both, SimpleVectorStore],
) -> None:
    both, simple = sampled
    for each in PLAIN:
        expected = simple.query(ask("text", filters=each))
        result = await both.query(ask("text", filters=each), funnel="exact")
        assert set(result.ids) == set(expected.ids or ()), each
        assert {node.node_id for node in await both.get_nodes(filters=each)} == set(result.ids)


async def test_filters_may_be_nested_and_keys_may_be_missing(
    sampled: tuple[Both, SimpleVectorStore],
) -> None:
    both, _ = sampled
    for each, expected in KNOWN:
        result = await both.query(ask("text", filters=each))
        assert set(map(int, result.ids)) == expected, each


async def test_filters_of_nestvec_and_wrong_ones(both: Both) -> None:
    query = ask("cat", filters=(F("n") >= 3) & ~(F("noun") == "cow"))
    assert set((await both.query(query)).ids) == {"n3", "n4", "n5"}
    assert (await both.query(ask("cat", filters={"n": {"$lt": 1}}))).ids == ["n0"]
    assert (await both.query(ask("cat", filters=F("doc_id") == "dog"))).ids == []
    with pytest.raises(FilterError, match="n"):
        await both.query(ask("cat", filters=filters(("n", "in", 3))))
    with pytest.raises(FilterError, match="a filter is"):
        await both.query(ask("cat", filters="n > 3"))


# Deleting, getting, clearing


async def test_delete_takes_the_nodes_of_a_document(both: Both) -> None:
    await both.delete("dog")
    await both.delete("nobody")
    assert {node.ref_doc_id for node in await both.get_nodes()} == {"cat", "cow"}
    with pytest.raises(RecordError, match="ref_doc_id is the id of a document, got None"):
        await both.delete(None)
    with pytest.raises(ConfigError, match="unknown option 'refresh'; known are none"):
        await both.delete("cat", refresh=True)
    assert both.vector_store.client.count() == 6


async def test_delete_nodes_by_ids_by_filters_and_by_both(both: Both) -> None:
    await both.delete_nodes(["n0", "nope"])
    await both.delete_nodes(filters=filters(("noun", "==", "cow")))
    await both.delete_nodes(["n1", "n3"], filters(("noun", "==", "dog")))
    await both.delete_nodes([], filters(("noun", "==", "dog")))
    await both.delete_nodes([])
    left = {node.node_id for node in await both.get_nodes()}
    assert left == {"n1", "n2", "n4", "n5"}
    await both.delete_nodes(filters=filters(("ref_doc_id", "==", "cat")))
    assert {node.node_id for node in await both.get_nodes()} == {"n4", "n5"}


async def test_delete_nodes_never_takes_everything(both: Both) -> None:
    with pytest.raises(RecordError, match="got one string"):
        await both.delete_nodes("n3", filters(("n", ">", 0)))
    nothing = [
        filters(),
        filters(filters(), condition="or"),
        filters(filters(condition="or"), condition="not"),
    ]
    with pytest.raises(RecordError, match="node_ids or filters; nothing was deleted"):
        await both.delete_nodes()
    for each in nothing:
        with pytest.raises(RecordError, match="no condition; nothing was deleted"):
            await both.delete_nodes(filters=each)
    assert both.vector_store.client.count() == 9


async def test_clear_keeps_the_collection_and_its_indexes(both: Both) -> None:
    store = both.vector_store.client
    store.index_metadata("n", "int")
    before = store.info()
    await both.clear()
    after = store.info()
    assert (before.count, after.count) == (9, 0)
    assert after.indexes == before.indexes
    assert {"n", "_llama_index.ref_doc_id"} <= set(after.indexes)
    assert after.fields[-1].name == "full"
    await both.add(nodes())
    assert (await both.query(ask("dog runs", k=1))).ids == ["n5"]


async def test_get_nodes(both: Both) -> None:
    got = await both.get_nodes(["n3", "nope", "n1"])
    assert [node.node_id for node in got] == ["n3", "n1"]
    assert await both.get_nodes([]) == []
    with pytest.raises(RecordError, match=r"got one string; write \['n3'\]"):
        await both.get_nodes("n3")
    assert len(await both.get_nodes()) == 9
    some = await both.get_nodes(["n7", "n3", "n1"], filters(("n", ">", 2)))
    assert [node.node_id for node in some] == ["n7", "n3"]
    (node,) = await both.get_nodes(["n0"], embeddings=True)
    expected = np.array(vector("cat eats"))
    assert np.array(node.embedding) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    assert all(len(node.embedding or []) == 8 for node in await both.get_nodes(embeddings=True))


# The object itself


def test_every_method_of_the_base_class_is_here_and_native() -> None:
    base = {
        name
        for name, value in vars(BasePydanticVectorStore).items()
        if callable(value) and not name.startswith("_")
    }
    inherited = {name for name in base if name not in vars(NestedVectorStore)}
    assert inherited == {"persist"}  # every add is kept already
    assert "client" in vars(NestedVectorStore)
    for name in ("async_add", "adelete", "adelete_nodes", "aclear", "aget_nodes", "aquery"):
        assert asyncio.iscoroutinefunction(getattr(NestedVectorStore, name))


def test_what_indexes_ask_of_it() -> None:
    vector_store = NestedVectorStore.from_params("memory:", dims=(2,), dim=4)
    assert vector_store.stores_text
    assert vector_store.is_embedding_query
    assert not vector_store.flat_metadata
    assert vector_store.class_name() == "NestedVectorStore"
    assert isinstance(vector_store.client, nestvec.Store)
    assert isinstance(vector_store.aclient, nestvec.AsyncStore)
    assert vector_store.embed_model is None


def test_what_it_is_made_of_is_checked() -> None:
    store = nestvec.connect("memory:", dims=(2,), dim=4)
    other = nestvec.connect("memory:", collection="other", dims=(2,), dim=4).as_async()
    wrong: Any = "edge:./papers"
    with pytest.raises(ConfigError, match="takes a Store or an AsyncStore, got <class 'str'>"):
        NestedVectorStore(wrong)
    with pytest.raises(ConfigError, match="astore is an AsyncStore, got <class 'str'>"):
        NestedVectorStore(store, wrong)
    with pytest.raises(ConfigError, match="of collection 'docs' and astore of 'other'"):
        NestedVectorStore(store, other)


def test_the_embed_model_is_the_one_that_was_given() -> None:
    words, static = WordEmbedding(), MatryoshkaEmbedding("static", dim=64)
    for given, prefix in ((words, 2), (static, 32)):
        vector_store = NestedVectorStore.from_params("memory:", dims=(prefix,), embedder=given)
        assert vector_store.embed_model is given
    vector_store = NestedVectorStore.from_params("memory:", dims=(64,), embedder="static")
    assert isinstance(vector_store.embed_model, MatryoshkaEmbedding)
    assert vector_store.embed_model.name == "static"


def test_the_embed_model_does_what_its_model_wants_before_a_prefix_is_cut() -> None:
    raw = WordEmbedding(768)
    raw.model_name = "nomic-ai/nomic-embed-text-v1.5"
    vector_store = NestedVectorStore.from_params("memory:", dims=(64,), embedder=raw)
    model = vector_store.embed_model
    assert isinstance(model, MatryoshkaEmbedding)
    row = np.array(raw.get_text_embedding("a cat"))
    normed = (row - row.mean()) / row.std()
    expected = normed / np.linalg.norm(normed)
    assert model.get_text_embedding("a cat") == pytest.approx(expected, abs=1e-5)
    assert vector_store.client.embedder is not None
    assert model.name == vector_store.client.embedder.name


@lasting
async def test_to_dict_and_back(url: str) -> None:
    vector_store = await NestedVectorStore.afrom_params(
        url, collection="one", dims=(2, 4), embedder=WordEmbedding()
    )
    await vector_store.async_add(nodes())
    told = vector_store.to_dict()
    await vector_store.aclose()
    again = NestedVectorStore.from_dict(told, url=url, embedder=WordEmbedding())
    assert again.to_dict() == told
    assert again.query(ask("dog runs", k=1)).ids == ["n5"]
    again.client.drop()
    again.close()


def test_from_dict_needs_a_collection_that_lasts() -> None:
    vector_store = NestedVectorStore.from_params("memory:", dims=(2,), dim=4)
    with pytest.raises(CollectionMissing):
        NestedVectorStore.from_dict(vector_store.to_dict())


def test_options_and_pickles_lead_back(tmp_path: Any) -> None:
    url = f"edge:{tmp_path / 'papers'}"
    vector_store = NestedVectorStore.from_params(url, dims=(2,), dim=8, m=24)
    vector_store.add(nodes())
    told = vector_store.to_dict()
    assert told["options"] == {"m": 24}
    assert told == vector_store.model_dump()
    pickled = pickle.dumps(vector_store)
    vector_store.close()
    again = pickle.loads(pickled)
    assert again.to_dict() == told
    assert again.query(ask("dog runs", k=1)).ids == ["n5"]
    again.close()


async def test_a_store_of_either_colour_serves_both(connecting: Connecting) -> None:
    vector_store = NestedVectorStore(await connecting(dims=(2, 4), embedder=WordEmbedding()))
    vector_store.add(nodes()[:5])
    await vector_store.async_add(nodes()[5:])
    assert vector_store.query(ask("dog runs", k=1)).ids == ["n5"]
    assert (await vector_store.aquery(ask("dog runs", k=1))).ids == ["n5"]
    both = NestedVectorStore(vector_store.client, vector_store.aclient)
    assert both.client is vector_store.client
    assert both.aclient is vector_store.aclient
    assert len(TEXTS) == len(await both.aget_nodes())
