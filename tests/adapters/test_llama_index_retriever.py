"""LlamaIndex's FunnelRetriever with its traces, and MatryoshkaEmbedding."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation import root_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers.base import (  # type: ignore[attr-defined]
    BaseEventHandler,
)
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import IndexNode, MetadataMode, QueryBundle, TextNode

import nestvec
from nestvec import ConfigError, EmbedderError, F, FilterError, Funnel, FunnelError, RecordError
from nestvec.llama_index import (
    FunnelEvent,
    FunnelRetriever,
    MatryoshkaEmbedding,
    NestedVectorStore,
)

from ..vectors import HashEmbedder
from .conftest import Connecting
from .li import TEXTS, WordEmbedding, ask, bare, nodes, vector


class Events(BaseEventHandler):
    """Keeps every event."""

    kept: list[Any] = []  # noqa: RUF012  (pydantic copies it)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **_: Any) -> None:
        self.kept.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.kept if isinstance(event, kind)]


@pytest.fixture
def events() -> Iterator[Events]:
    handler = Events()
    root_dispatcher.event_handlers.append(handler)
    yield handler
    root_dispatcher.event_handlers.remove(handler)


@pytest.fixture
async def vector_store(connecting: Connecting) -> NestedVectorStore:
    made = NestedVectorStore(await connecting(dims=(2, 4), embedder=WordEmbedding()))
    await made.async_add(nodes())
    return made


@pytest.fixture
def here() -> NestedVectorStore:
    made = NestedVectorStore.from_params("memory:", dims=(2, 4), embedder=WordEmbedding())
    made.add(nodes())
    return made


async def both_ways(retriever: FunnelRetriever, query: Any) -> list[Any]:
    called, awaited = retriever.retrieve(query), await retriever.aretrieve(query)
    assert [each.node_id for each in called] == [each.node_id for each in awaited]
    return called


def ids(found: list[Any]) -> list[str]:
    return [each.node_id for each in found]


# What is found


async def test_it_finds_what_the_store_would(vector_store: NestedVectorStore) -> None:
    expected = vector_store.query(ask("dog runs", k=3))
    found = await both_ways(FunnelRetriever(vector_store, similarity_top_k=3), "dog runs")
    assert ids(found) == expected.ids
    assert [each.score for each in found] == pytest.approx(expected.similarities)
    assert found[0].node == bare(nodes()[5])
    some = FunnelRetriever(
        vector_store, similarity_top_k=9, funnel="2:9 4:9", filters=F("n") >= 3, min_score=0.2
    )
    expected = vector_store.query(ask("dog runs", filters=F("n") >= 3), min_score=0.2)
    assert ids(await both_ways(some, "dog runs")) == expected.ids
    diverse = FunnelRetriever(
        vector_store, similarity_top_k=3, mode="mmr", mmr_threshold=0.1, mmr_prefetch_factor=2
    )
    expected = vector_store.query(
        ask("dog runs", k=3, mode="mmr", mmr_threshold=0.1), mmr_prefetch_factor=2
    )
    assert ids(await both_ways(diverse, "dog runs")) == expected.ids
    assert len(await both_ways(FunnelRetriever(vector_store), "dog runs")) == 2


async def test_a_store_will_do(here: NestedVectorStore) -> None:
    for store in (here, here.client, here.aclient):
        assert ids(await both_ways(FunnelRetriever(store), "dog runs"))[0] == "n5"


async def test_queries_with_embeddings_of_their_own(here: NestedVectorStore) -> None:
    retriever = FunnelRetriever(here, similarity_top_k=1)
    bundle = QueryBundle("cow eats", embedding=vector("dog runs"))
    assert ids(await both_ways(retriever, bundle)) == ["n5"]
    strings = ["dog runs", "dog eats"]
    mean = np.mean([vector(text) for text in strings], axis=0).tolist()
    expected = FunnelRetriever(here, similarity_top_k=4).retrieve(QueryBundle("", embedding=mean))
    bundle = QueryBundle("cow eats", custom_embedding_strs=strings)
    found = await both_ways(FunnelRetriever(here, similarity_top_k=4), bundle)
    assert ids(found) == ids(expected)
    hyde = HyDEQueryTransform(llm=MockLLM(), include_original=True).run("dog runs")
    assert len(hyde.embedding_strs) == 2
    assert len(await both_ways(retriever, hyde)) == 1


async def test_a_query_without_words_is_refused(here: NestedVectorStore) -> None:
    retriever = FunnelRetriever(here)
    for query in ("", " ", QueryBundle("cat", custom_embedding_strs=[])):
        with pytest.raises(RecordError, match="query: text is blank"):
            retriever.retrieve(query)
        with pytest.raises(RecordError, match="query: text is blank"):
            await retriever.aretrieve(query)


async def test_an_embed_model_of_its_own(here: NestedVectorStore) -> None:
    bare_store = NestedVectorStore.from_params("memory:", dims=(2,), dim=8)
    bare_store.add(nodes())
    retriever = FunnelRetriever(bare_store, similarity_top_k=1)
    with pytest.raises(EmbedderError, match="give embed_model"):
        retriever.retrieve("dog runs")
    given = FunnelRetriever(bare_store, similarity_top_k=1, embed_model=WordEmbedding())
    assert ids(await both_ways(given, "dog runs")) == ["n5"]


def test_nodes_lead_on_to_objects(here: NestedVectorStore) -> None:
    table = TextNode(id_="table", text="rows and rows")
    here.add([IndexNode(id_="i", text="owl", index_id="t", embedding=vector("owl"))])
    retriever = FunnelRetriever(here, similarity_top_k=1, object_map={"t": table})
    assert retriever.retrieve("owl")[0].node == table


def test_a_query_engine(here: NestedVectorStore) -> None:
    engine = RetrieverQueryEngine.from_args(
        FunnelRetriever(here, similarity_top_k=1, include_trace=True), llm=MockLLM()
    )
    answer = engine.query("dog runs")
    assert "dog runs" in str(answer)
    assert "milliseconds" not in str(answer)  # models are not shown the trace
    assert answer.source_nodes[0].metadata["nestvec"]["hits"] == 1


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"similarity_top_k": 0}, FunnelError, "similarity_top_k"),
        ({"funnel": "64-200"}, FunnelError, "cannot read '64-200'"),
        ({"filters": {"n": {"$above": 1}}}, FilterError, r"\$above"),
        ({"mode": "hybrid"}, NotImplementedError, "'default' and 'mmr'"),
        ({"mode": "hybird"}, ValueError, "hybird"),
        ({"mmr_threshold": 0.3}, ConfigError, "need mode='mmr'"),
        ({"mode": "mmr", "mmr_threshold": 3}, ConfigError, "between 0 and 1, got 3"),
        ({"top_k": 3}, TypeError, "top_k"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused_when_it_is_made(
    here: NestedVectorStore, wrong: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        FunnelRetriever(here, **wrong)


# Traces


async def test_each_retrieval_tells_its_plan(
    vector_store: NestedVectorStore, events: Events
) -> None:
    retriever = FunnelRetriever(vector_store, similarity_top_k=3, funnel=Funnel.parse("2:9 4:5"))
    await both_ways(retriever, "dog runs")
    for event, end in zip(events.of(FunnelEvent), events.of(RetrievalEndEvent), strict=True):
        assert (event.class_name(), event.query_str) == ("FunnelEvent", "dog runs")
        assert event.span_id.startswith("FunnelRetriever.")
        assert len(end.nodes) == event.trace["hits"] == 3
        assert event.trace["funnel"] == "2:9 4:5"
        assert event.trace["stages"] == [
            {"field": "d2", "limit": 9}, {"field": "d4", "limit": 5}, {"field": "full", "limit": 3},
        ]  # fmt: skip
        assert event.trace["milliseconds"] > 0
        assert "nestvec" not in end.nodes[0].metadata
        json.dumps(event.model_dump(), default=str)
    assert len(events.of(EmbeddingEndEvent)) == 2


async def test_explained_retrievals_tell_every_stage(
    vector_store: NestedVectorStore, events: Events
) -> None:
    plain = FunnelRetriever(vector_store, similarity_top_k=3, funnel="2:9 4:5")
    retriever = FunnelRetriever(
        vector_store, similarity_top_k=3, funnel="2:9 4:5", explain=True, include_trace=True
    )
    found = await both_ways(retriever, "dog runs")
    assert ids(found) == ids(await both_ways(plain, "dog runs"))
    for event in events.of(FunnelEvent)[:2]:
        stages = [
            (s["field"], s["candidates_in"], s["candidates_out"]) for s in event.trace["stages"]
        ]
        assert stages == [("d2", 9, 9), ("d4", 9, 5), ("full", 5, 3)]
        assert all(stage["milliseconds"] >= 0 for stage in event.trace["stages"])
        assert 0 <= event.trace["overlap"] <= 1
    for each in found:
        assert each.metadata["nestvec"] == events.of(FunnelEvent)[0].trace
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert "nestvec" not in each.node.get_content(mode)
    (stored,) = vector_store.get_nodes(["n5"])
    assert "nestvec" not in stored.metadata


def test_a_trace_never_replaces_metadata(here: NestedVectorStore) -> None:
    node = nodes()[0]
    node.metadata = {"nestvec": "mine"}
    here.add([node])
    with pytest.raises(ConfigError, match="metadata of 'n0' has a 'nestvec' of its own"):
        FunnelRetriever(here, include_trace=True).retrieve("cat eats")


# Concurrency


def test_32_threads_on_one_retriever(vector_store: NestedVectorStore) -> None:
    retriever = FunnelRetriever(vector_store, similarity_top_k=3)
    expected = [ids(retriever.retrieve(text)) for text in TEXTS]
    with ThreadPoolExecutor(32) as pool:
        for n, found in enumerate(pool.map(retriever.retrieve, TEXTS * 16)):
            assert ids(found) == expected[n % 9]


async def test_64_tasks_on_one_retriever(vector_store: NestedVectorStore) -> None:
    retriever = FunnelRetriever(vector_store, similarity_top_k=3)
    expected = [ids(await retriever.aretrieve(text)) for text in TEXTS]
    found = await asyncio.gather(*(retriever.aretrieve(TEXTS[n % 9]) for n in range(144)))
    assert [ids(each) for each in found] == expected * 16


# MatryoshkaEmbedding


class Prompted(HashEmbedder):
    """Queries and documents have their own prompts, blocking and awaited."""

    def embed_documents(self, texts: Any) -> Any:
        self.calls.append(len(texts))
        return [HashEmbedder.embed_query(self, f"passage: {text}") for text in texts]

    def embed_query(self, text: str) -> Any:
        return HashEmbedder.embed_query(self, f"query: {text}")


class Native(Prompted):
    """Has coroutines of its own."""

    awaited = 0

    async def aembed_documents(self, texts: Any) -> Any:
        self.awaited += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> Any:
        self.awaited += 1
        return self.embed_query(text)


@pytest.mark.parametrize("kind", [Prompted, Native])
async def test_queries_and_texts_keep_their_prompts(kind: type[Prompted]) -> None:
    inner = kind(8, "prompted")
    embedding = MatryoshkaEmbedding(inner)
    query, text = (HashEmbedder.embed_query(inner, f"{p}: a cat") for p in ("query", "passage"))
    query, text = query / np.linalg.norm(query), text / np.linalg.norm(text)
    assert embedding.get_query_embedding("a cat") == pytest.approx(query, abs=1e-6)
    assert await embedding.aget_query_embedding("a cat") == pytest.approx(query, abs=1e-6)
    assert embedding.get_text_embedding("a cat") == pytest.approx(text, abs=1e-6)
    assert await embedding.aget_text_embedding("a cat") == pytest.approx(text, abs=1e-6)
    assert isinstance(query, np.ndarray)
    assert all(isinstance(number, float) for number in embedding.get_text_embedding("a cat"))
    if isinstance(inner, Native):
        assert inner.awaited == 2


async def test_texts_are_embedded_in_batches() -> None:
    inner = Prompted(8)
    embedding = MatryoshkaEmbedding(inner, embed_batch_size=4)
    many = embedding.get_text_embedding_batch(TEXTS)
    assert inner.calls == [4, 4, 1]
    assert await embedding.aget_text_embedding_batch(TEXTS) == many
    assert inner.calls == [4, 4, 1, 4, 4, 1]
    embedded = embedding([TextNode(text=text) for text in TEXTS])
    assert [node.embedding for node in embedded] == many


def test_an_embedding_at_one_width_is_unit_length() -> None:
    full, cut = MatryoshkaEmbedding(), MatryoshkaEmbedding("static", dim=64)
    long, short = full.get_query_embedding("text"), cut.get_query_embedding("text")
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-6)
    assert short == pytest.approx(np.array(long[:64]) / np.linalg.norm(long[:64]), abs=1e-6)
    assert (full.model_name, cut.model_name) == ("static", "static[:64]")
    with pytest.raises(nestvec.NestingError, match="dim is from 1 to 256 with 'static', got 300"):
        MatryoshkaEmbedding("static", dim=300)
    wrong: Any = "64"
    with pytest.raises(nestvec.NestingError, match="dim is from 1 to 256 with 'static', got '64'"):
        MatryoshkaEmbedding("static", dim=wrong)
    with pytest.raises(ConfigError, match="unknown option 'dimensions'; known are model_name"):
        MatryoshkaEmbedding("static", dimensions=64)
    with pytest.raises(EmbedderError, match="unknown embedder 'sttaic'"):
        MatryoshkaEmbedding("sttaic")


def test_a_collection_records_the_model_not_the_wrapper(tmp_path: Any) -> None:
    url = f"edge:{tmp_path / 'papers'}"
    with nestvec.connect(url, dims=(64,), embedder=MatryoshkaEmbedding()) as store:
        assert store.info().embedder == "static"
        store.add(["a cat"])
    with nestvec.connect(url) as store:
        assert isinstance(NestedVectorStore(store).embed_model, MatryoshkaEmbedding)
        assert store.search("a cat", 1)[0].score == pytest.approx(1, abs=1e-4)


def test_embeddings_are_written_and_read() -> None:
    embedding = MatryoshkaEmbedding("static", dim=64, embed_batch_size=7)
    told = json.loads(embedding.to_json())
    again = MatryoshkaEmbedding.from_dict(told)
    assert again.to_dict() == told
    assert again.embed_batch_size == 7
    assert again.get_text_embedding("a cat") == embedding.get_text_embedding("a cat")
    pickled = pickle.loads(pickle.dumps(embedding))  # to a pipeline's other processes
    assert pickled.get_text_embedding("a cat") == embedding.get_text_embedding("a cat")
    written = MatryoshkaEmbedding(HashEmbedder(8, "mine")).to_dict()
    with pytest.raises(EmbedderError, match="unknown embedder 'mine'"):
        MatryoshkaEmbedding.from_dict(written)
    assert MatryoshkaEmbedding.from_dict(written, embedder=HashEmbedder(8, "mine")).dim == 8


def test_a_cache_tells_widths_apart() -> None:
    given = [TextNode(id_="a", text="a cat")]
    hashes = {get_transformation_hash(given, MatryoshkaEmbedding(dim=n)) for n in (64, 128, None)}
    assert len(hashes) == 3
