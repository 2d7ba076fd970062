"""FunnelRetriever: configuration, runs and their traces, batches, concurrency, composition."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd, load
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.base import BaseTracer
from pydantic import ValidationError

import nestvec
from nestvec import CollectionMissing, ConfigError, EmbedderError, F, Funnel, RecordError
from nestvec.backends.base import Backend
from nestvec.langchain import FunnelRetriever, NestedVectorStore

from .conftest import Opening
from .lc import WordEmbeddings
from .test_langchain_store import TEXTS, documents


@pytest.fixture
async def vectorstore(opening: Opening) -> NestedVectorStore:
    made = await opening(dims=(2, 4), embedder=WordEmbeddings())
    await made.aadd_documents(documents())
    return made


@pytest.fixture
def retriever(vectorstore: NestedVectorStore) -> FunnelRetriever:
    return FunnelRetriever(store=vectorstore, k=3)


@pytest.fixture
def written(tmp_path: Path) -> str:
    """The URL of a collection on disk that needs no embedder to be told."""
    url = f"edge:{tmp_path / 'written'}"
    NestedVectorStore.from_texts(
        TEXTS, "static", [{"n": n} for n in range(9)], url=url, dims=(64,)
    ).close()
    return url


class Runs(BaseTracer):
    """Keeps every run that ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.ended.append(run)


class Events(BaseCallbackHandler):
    """Keeps the custom events and the errors."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, Any]] = []
        self.errors: list[BaseException] = []

    def on_custom_event(self, name: str, data: Any, *, run_id: Any, **_: Any) -> None:
        self.events.append((name, data, run_id))

    def on_retriever_error(self, error: BaseException, **_: Any) -> None:
        self.errors.append(error)


# What is found


async def test_a_call_asks_what_the_vector_store_would(
    vectorstore: NestedVectorStore, retriever: FunnelRetriever
) -> None:
    asked: dict[str, Any] = {"k": 2, "filter": {"n": {"$gte": 3}}, "funnel": "2:9 4:4"}
    expected = vectorstore.similarity_search("dog runs", **asked)
    assert retriever.invoke("dog runs", **asked) == expected
    assert await retriever.ainvoke("dog runs", **asked) == expected
    assert FunnelRetriever(store=vectorstore, **asked).invoke("dog runs") == expected
    assert retriever.invoke("dog runs", min_score=0.99) == [documents()[5]]
    mmr: dict[str, Any] = {"fetch_k": 6, "lambda_mult": 0.2}
    diverse = vectorstore.max_marginal_relevance_search("dog runs", k=3, **mmr)
    assert await retriever.ainvoke("dog runs", search_type="mmr", **mmr) == diverse
    assert retriever.batch(["dog runs"], search_type="mmr", **mmr) == [diverse]
    shown = retriever.invoke("dog runs", include_score=True)
    assert [document.metadata["score"] for document in shown] == pytest.approx(
        [score for _, score in vectorstore.similarity_search_with_score("dog runs", k=3)]
    )


def test_a_filter_or_a_funnel_may_be_an_object(vectorstore: NestedVectorStore) -> None:
    funnel: Any = Funnel.parse("2:9")
    retriever = FunnelRetriever(store=vectorstore, filter=F("n") == 4, funnel=funnel)
    assert retriever.funnel == "2:9"
    assert retriever.invoke("anything") == [documents()[4]]


# Configuration


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"k": 0}, "greater than or equal to 1"),
        ({"fliter": {}}, "fliter"),
        ({"funnel": "64-200"}, "cannot read '64-200'"),
        ({"filter": {"n": {"$above": 1}}}, r"\$above"),
        ({"search_type": "hybrid"}, "'similarity' or 'mmr'"),
        ({"min_score": 2}, "less than or equal to 1"),
        ({"url": None}, "url or store, one of them"),
        ({"options": {"api_key": "geheim"}}, "api_key is a field of its own"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused_when_it_is_made(wrong: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        FunnelRetriever(**{"url": "postgresql://me:geheim@host/db", **wrong})
    assert "geheim" not in str(caught.value)


def test_a_wrong_call_is_refused_by_name(retriever: FunnelRetriever) -> None:
    with pytest.raises(ConfigError, match="unknown option 'top_k'; known are k, funnel"):
        retriever.invoke("dog", top_k=3)
    with pytest.raises(ConfigError, match="unknown option 'collection'"):
        retriever.invoke("dog", collection="other")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        retriever.invoke("dog", k=0)


def test_from_a_yaml_file_and_from_the_environment(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "retriever.yaml"
    file.write_text("k: 2\nfunnel: '64:9'\nfilter: {n: {$lt: 3}}\n")
    monkeypatch.setenv("NESTVEC_URL", written)
    retriever = FunnelRetriever(**yaml.safe_load(file.read_text()))
    found = retriever.invoke("a sleeping cat")
    assert {document.metadata["n"] for document in found} < {0, 1, 2}
    assert len(found) == 2
    retriever.close()


async def test_it_opens_once_and_again_after_closing(written: str) -> None:
    retriever = FunnelRetriever(url=written, k=1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(retriever.invoke, TEXTS))
    assert [each[0].page_content for each in found] == TEXTS
    assert await asyncio.gather(*(retriever.ainvoke(text) for text in TEXTS)) == found
    await retriever.aclose()
    nestvec.connect(written).close()  # nobody else has it
    assert retriever.invoke(TEXTS[0]) == found[0]
    retriever.close()
    retriever.close()


async def test_tasks_that_come_first_together_open_it_once(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return nestvec.connect(*args, **kwargs)

    monkeypatch.setattr(nestvec.langchain, "connect", counting)
    retriever = FunnelRetriever(url=written, k=1)
    found = await asyncio.gather(*(retriever.ainvoke(text) for text in TEXTS * 7))
    assert [each[0].page_content for each in found] == TEXTS * 7
    assert len(opened) == 1
    await retriever.aclose()


async def test_a_task_that_is_cancelled_while_it_opens_leaves_nothing_open(written: str) -> None:
    retriever = FunnelRetriever(url=written, k=1)
    task = asyncio.create_task(retriever.ainvoke(TEXTS[0]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await retriever.ainvoke(TEXTS[0]))[0].page_content == TEXTS[0]
    await retriever.aclose()
    nestvec.connect(written).close()  # nobody else has it


async def test_what_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    url = f"edge:{tmp_path / 'later'}"
    retriever = FunnelRetriever(url=url, k=1)
    for _ in range(2):
        with pytest.raises(CollectionMissing):
            retriever.invoke("cat")
        with pytest.raises(CollectionMissing):
            await retriever.ainvoke("cat")
    NestedVectorStore.from_texts(["cat"], "static", url=url, dims=(64,)).close()
    assert (await retriever.ainvoke("cat"))[0].page_content == "cat"
    await retriever.aclose()


def test_the_embedder_may_be_an_object(tmp_path: Path) -> None:
    url, embeddings = f"edge:{tmp_path / 'words'}", WordEmbeddings()
    NestedVectorStore.from_texts(TEXTS, embeddings, url=url, dims=(2,)).close()
    retriever = FunnelRetriever(url=url, embedder=embeddings, k=1)
    found = [retriever.invoke(text)[0].page_content for text in TEXTS]
    assert found == TEXTS
    assert dumpd(retriever)["type"] == "not_implemented"
    assert "WordEmbeddings" not in repr(retriever)  # whose repr may show a key
    retriever.close()
    without = FunnelRetriever(url=url)
    with pytest.raises(EmbedderError, match="'WordEmbeddings:words-8'"):
        without.invoke("cat")
    without.close()


def test_configurable_fields_share_what_is_open(written: str) -> None:
    retriever = FunnelRetriever(url=written, k=3)
    chosen = retriever.configurable_fields(
        k=ConfigurableField(id="k"), filter=ConfigurableField(id="filter")
    )
    assert len(chosen.invoke("cat")) == 3
    assert len(chosen.with_config(configurable={"k": 1}).invoke("cat")) == 1
    only = chosen.with_config(configurable={"filter": {"n": 4}})
    assert [document.metadata["n"] for document in only.invoke("cat")] == [4]
    assert [len(each) for each in chosen.batch(["cat", "dog"], {"configurable": {"k": 2}})] == [
        2,
        2,
    ]
    retriever.close()
    nestvec.connect(written).close()


# Serialisation


def loaded(dumped: Any, **secrets: str) -> Any:
    allowed: dict[str, Any] = {"allowed_objects": [FunnelRetriever]}
    if "allowed_objects" not in signature(load).parameters:  # older than langchain-core 1.2.5
        allowed = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # load is beta
        return load(dumped, valid_namespaces=["nestvec"], secrets_map=secrets, **allowed)


def test_dumping_and_loading(written: str) -> None:
    retriever = FunnelRetriever(
        url=written, k=2, funnel="64:9", filter={"n": {"$lt": 3}}, search_type="mmr", fetch_k=3
    )
    dumped = json.loads(json.dumps(dumpd(retriever)))
    again = loaded(dumped)
    assert dumpd(again) == dumped
    assert dumped["id"] == ["nestvec", "langchain", "FunnelRetriever"]
    found = retriever.invoke("cat")
    retriever.close()
    assert again.invoke("cat") == found
    again.close()


SECRET_URLS = [
    "postgresql://me:geheim@host:5432/db",
    "postgresql://me:ge/heim@host/geheim",
    "postgresql://host/db?password=geheim",
    "https://host:6333/?key=geheim",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_secrets_are_written_nowhere(url: str) -> None:
    retriever = FunnelRetriever(url=url, api_key="geheim", k=2)  # type: ignore[arg-type]
    dumped = json.dumps(dumpd(retriever))
    chain = retriever | RunnableLambda(len)
    for text in (dumped, json.dumps(dumpd(chain)), repr(retriever), str(retriever), repr(chain)):
        assert "heim" not in text
    again = loaded(json.loads(dumped), NESTVEC_URL=url, QDRANT_API_KEY="geheim")
    assert (again.url, again.api_key, again.k) == (url, retriever.api_key, 2)


def test_what_cannot_be_written_says_so(retriever: FunnelRetriever) -> None:
    assert dumpd(retriever)["type"] == "not_implemented"
    filtered = FunnelRetriever(url="memory:", filter=F("n") == 1)
    assert dumpd(filtered)["type"] == "not_implemented"


# Traces


async def test_every_run_carries_its_plan_in_metadata_and_events(
    retriever: FunnelRetriever,
) -> None:
    runs, events = Runs(), Events()
    retriever.invoke("dog runs", {"callbacks": [runs, events]}, funnel="2:9 4:5")
    await retriever.ainvoke("dog runs", {"callbacks": [runs, events]}, funnel="2:9 4:5")
    for run, (name, data, run_id) in zip(runs.ended, events.events, strict=True):
        assert (run.name, run.run_type, name) == ("FunnelRetriever", "retriever", "nestvec")
        assert run.metadata["nestvec"] == data
        assert run.metadata["ls_vector_store_provider"] == "nestvec"
        assert run_id == run.id
        assert data["funnel"] == "2:9 4:5"
        assert data["stages"] == [
            {"field": "d2", "limit": 9}, {"field": "d4", "limit": 5}, {"field": "full", "limit": 3},
        ]  # fmt: skip
        assert (data["hits"], data["queries"]) == (3, 1)
        assert data["milliseconds"] > 0


async def test_explained_runs_carry_the_trace_of_every_stage(retriever: FunnelRetriever) -> None:
    runs = Runs()
    config: Any = {"callbacks": [runs]}
    plain = retriever.invoke("dog runs", funnel="2:9 4:5")
    for found in (
        retriever.invoke("dog runs", config, funnel="2:9 4:5", explain=True),
        await retriever.ainvoke("dog runs", config, funnel="2:9 4:5", explain=True),
        retriever.batch(["dog runs"], config, funnel="2:9 4:5", explain=True)[0],
    ):
        assert found == plain
        told = runs.ended.pop().metadata["nestvec"]
        stages = [(s["field"], s["candidates_in"], s["candidates_out"]) for s in told["stages"]]
        assert stages == [("d2", 9, 9), ("d4", 9, 5), ("full", 5, 3)]
        assert all(stage["milliseconds"] >= 0 for stage in told["stages"])
        assert 0 <= told["overlap"] <= 1
        json.dumps(told)
    assert retriever.invoke("dog runs", explain=True, min_score=0.99) == [documents()[5]]


# The tracer of langchain-core 1.0 calls what pydantic deprecated.
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_langsmith_is_sent_the_trace(retriever: FunnelRetriever) -> None:
    client = Mock()
    client.tracing_queue = None
    tracer = LangChainTracer(client=client, project_name="test")
    retriever.invoke("dog runs", {"callbacks": [tracer]})
    tracer.wait_for_futures()
    sent = client.update_run.call_args.kwargs
    assert sent["extra"]["metadata"]["nestvec"]["stages"][-1] == {"field": "full", "limit": 3}


async def test_streamed_events_show_the_trace(retriever: FunnelRetriever) -> None:
    shown: list[Any] = [
        event["data"]
        async for event in retriever.astream_events("dog runs", version="v2")
        if event["event"] == "on_custom_event"
    ]
    assert [data["hits"] for data in shown] == [3]


def test_config_names_tags_and_metadata(retriever: FunnelRetriever) -> None:
    runs = Runs()
    configured = retriever.with_config(
        run_name="papers", tags=["one"], metadata={"two": 2}, callbacks=[runs]
    )
    configured.invoke("dog")
    (run,) = runs.ended
    assert (run.name, run.tags, run.metadata["two"]) == ("papers", ["one"], 2)


# Batches


class Counting:
    """Counts what a backend is asked for."""

    def __init__(self, vectorstore: NestedVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = vectorstore.store._collection.backend
        self.many: list[int] = []
        inner = backend.search_many

        def search_many(many: Any, *args: Any) -> Any:
            self.many.append(len(many))
            return inner(many, *args)

        def search(*_: Any) -> Any:
            raise AssertionError("a request for one query")

        monkeypatch.setattr(backend, "search_many", search_many)
        if type(backend).search_many is not Backend.search_many:
            monkeypatch.setattr(backend, "search", search)


async def test_a_batch_is_one_request_and_a_run_for_each_query(
    vectorstore: NestedVectorStore, retriever: FunnelRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [vectorstore.similarity_search(text, k=2) for text in TEXTS]
    counting, runs = Counting(vectorstore, monkeypatch), Runs()
    assert retriever.batch(TEXTS, {"callbacks": [runs]}, k=2) == expected
    assert await retriever.abatch(TEXTS, {"callbacks": [runs]}, k=2) == expected
    assert counting.many == [9, 9]
    assert [run.inputs["query"] for run in runs.ended] == TEXTS * 2
    assert {run.metadata["nestvec"]["queries"] for run in runs.ended} == {9}
    configs: Any = [{"metadata": {"n": n}, "callbacks": [runs]} for n in range(9)]
    retriever.batch(TEXTS, configs)
    assert [run.metadata["n"] for run in runs.ended[18:]] == list(range(9))
    assert retriever.batch([]) == await retriever.abatch([]) == []


async def test_in_a_batch_only_the_wrong_query_fails(retriever: FunnelRetriever) -> None:
    events = Events()
    config: Any = {"callbacks": [events]}
    queries = ["dog runs", " ", "cat eats"]
    for found in (
        retriever.batch(queries, config, return_exceptions=True),
        await retriever.abatch(queries, config, return_exceptions=True),
    ):
        assert found[0][0] == documents()[5]
        assert isinstance(found[1], RecordError)
        assert found[2][0] == documents()[0]
    assert len(events.errors) == 2
    with pytest.raises(RecordError, match="blank"):
        retriever.batch(queries)
    with pytest.raises(RecordError, match="blank"):
        await retriever.abatch(queries)


# Concurrency


def test_32_threads_on_one_retriever(retriever: FunnelRetriever) -> None:
    expected = [retriever.invoke(text) for text in TEXTS]

    def ask(n: int) -> list[Document]:
        return retriever.invoke(TEXTS[n % 9], k=1 + n % 3)

    with ThreadPoolExecutor(32) as pool:
        for n, found in enumerate(pool.map(ask, range(32 * 9))):
            assert found == expected[n % 9][: 1 + n % 3]


async def test_64_tasks_on_one_retriever(retriever: FunnelRetriever) -> None:
    expected = [await retriever.ainvoke(text) for text in TEXTS]

    async def ask(n: int) -> None:
        for turn in range(4):
            m = n + turn
            found = await retriever.ainvoke(TEXTS[m % 9], k=1 + m % 3)
            assert found == expected[m % 9][: 1 + m % 3]

    await asyncio.gather(*map(ask, range(64)))


async def test_awaiting_does_not_block_the_event_loop(
    vectorstore: NestedVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = vectorstore.store._collection.backend

    def blocked(_: Any) -> Any:
        asyncio.get_running_loop()  # only there where the loop runs
        raise AssertionError("a blocking call in the event loop")

    inner: Callable[[Any], Any] = backend.send

    def send(request: Any) -> Any:
        try:
            return blocked(request)
        except RuntimeError:
            return inner(request)

    monkeypatch.setattr(backend, "send", send)
    assert await vectorstore.asimilarity_search("dog runs", k=1) == [documents()[5]]


# Composition


PROMPT = ChatPromptTemplate.from_template("Answer from\n{context}\n\n{input}")


def joined(found: list[Document]) -> str:
    return "\n".join(document.page_content for document in found)


async def test_an_lcel_chain(retriever: FunnelRetriever) -> None:
    model = FakeListChatModel(responses=["it runs"])
    prompts = []

    def keep(prompt: Any) -> Any:
        prompts.append(prompt.to_string())
        return prompt

    chain = (
        {"context": retriever | joined, "input": RunnablePassthrough()}
        | PROMPT
        | RunnableLambda(keep)
        | model
        | StrOutputParser()
    )
    assert chain.invoke("dog runs") == "it runs"
    assert await chain.ainvoke("dog runs") == "it runs"
    assert all("dog runs\n" in prompt for prompt in prompts)
    assert "".join([part async for part in chain.astream("dog runs")]) == "it runs"


async def test_a_retrieval_chain_returns_answer_and_context(
    vectorstore: NestedVectorStore, retriever: FunnelRetriever
) -> None:
    """What create_retrieval_chain of langchain-classic composes."""
    answer = (
        RunnablePassthrough.assign(context=lambda given: joined(given["context"]))
        | PROMPT
        | FakeListChatModel(responses=["it eats"])
        | StrOutputParser()
    )
    chain = RunnablePassthrough.assign(context=(lambda given: given["input"]) | retriever).assign(
        answer=answer
    )
    expected = vectorstore.similarity_search("cow eats", k=3)
    for result in (chain.invoke({"input": "cow eats"}), await chain.ainvoke({"input": "cow eats"})):
        assert result == {"input": "cow eats", "context": expected, "answer": "it eats"}
