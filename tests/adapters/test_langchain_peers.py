"""A test named after each defect seen in langchain-qdrant 1.1.0 or langchain-postgres 0.0.19."""

from __future__ import annotations

import asyncio
import threading
from inspect import signature
from typing import Any

import pytest
from langchain_core.documents import Document

import nestvec
from nestvec import CollectionMismatch, CollectionMissing, ConfigError, RecordError
from nestvec.langchain import FunnelRetriever, NestedVectorStore

from ..conformance.engines import lasting
from .conftest import Opening
from .lc import TableEmbeddings, WordEmbeddings
from .test_langchain_store import METHODS, TEXTS, documents


@pytest.fixture
async def vectorstore(opening: Opening) -> NestedVectorStore:
    made = await opening(dims=(2, 4), embedder=WordEmbeddings())
    made.add_documents(documents())
    return made


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


# langchain-qdrant


def test_add_texts_writes_only_one_of_the_vectors(vectorstore: NestedVectorStore) -> None:
    vectorstore.add_texts(["a hen"], ids=["hen"])
    assert vectorstore.store.verify() == {}
    for funnel in ("2:10", "4:10", "2:10 4:10", "exact"):
        assert ids(vectorstore.similarity_search("a hen", k=1, funnel=funnel)) == ["hen"]


async def test_a_generator_silently_stores_nothing(vectorstore: NestedVectorStore) -> None:
    given = ("more a", "more b")
    documents: Any = [(Document(page_content=text) for text in given) for _ in range(2)]
    assert len(vectorstore.add_texts(text for text in given)) == 2
    assert len(vectorstore.add_documents(documents[0])) == 2
    assert len(await vectorstore.aadd_texts(text for text in given)) == 2
    assert len(await vectorstore.aadd_documents(documents[1])) == 2
    assert vectorstore.store.count() == 9 + 8


def test_ids_that_are_no_uuids_are_refused(vectorstore: NestedVectorStore) -> None:
    assert vectorstore.add_texts(["a hen"], ids=["chapter 1/§2"]) == ["chapter 1/§2"]
    vectorstore.delete(["chapter 1/§2"])
    assert vectorstore.get_by_ids(["chapter 1/§2"]) == []


def test_the_id_of_a_document_is_none(vectorstore: NestedVectorStore) -> None:
    found = vectorstore.similarity_search("dog", k=9)
    assert set(ids(found)) == {f"d{n}" for n in range(9)}
    assert ids(vectorstore.max_marginal_relevance_search("cow runs", k=1)) == ["d8"]
    assert ids(vectorstore.get_by_ids(["d2"])) == ["d2"]


#: A query's best, its near twin, and one that is less like the query and unlike both.
TABLE = {
    "width": [0.0] * 3,
    "query": [1.0, 0.0, 0.3],
    "best": [1.0, 0.1, 0.3],
    "twin": [1.0, 0.15, 0.3],
    "other": [0.7, -0.7, 0.3],
}


@pytest.mark.parametrize(("lambda_mult", "second"), [(1.0, "twin"), (0.0, "other")])
async def test_the_lambda_of_mmr_is_inverted(
    opening: Opening, lambda_mult: float, second: str
) -> None:
    vectorstore = await opening(dims=(2,), embedder=TableEmbeddings(TABLE))
    names = ["twin", "other", "best"]
    vectorstore.add_texts(names, ids=names)
    asked: dict[str, Any] = {"k": 2, "lambda_mult": lambda_mult}
    assert ids(vectorstore.max_marginal_relevance_search("query", **asked)) == ["best", second]
    found = await vectorstore.amax_marginal_relevance_search("query", **asked)
    assert ids(found) == ["best", second]


async def test_pages_end_early_at_an_offset(vectorstore: NestedVectorStore) -> None:
    vectorstore.add_texts([f"hen {n}" for n in range(21)])
    sizes = [
        len(vectorstore.similarity_search("hen", k=5, offset=offset)) for offset in (0, 5, 10, 20)
    ]
    assert sizes == [5, 5, 5, 5]
    assert len(await vectorstore.asimilarity_search("hen", k=5, offset=28)) == 2
    assert vectorstore.similarity_search("hen", k=5, offset=30) == []


async def test_there_is_no_native_async(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder's coroutines are awaited, never its blocking methods."""

    class Awaited(WordEmbeddings):
        async def aembed_query(self, text: str) -> list[float]:
            return super().embed_query(text)

        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts)

    embeddings = Awaited()
    vectorstore = await opening(dims=(2,), embedder=embeddings)
    monkeypatch.setattr(embeddings, "embed_documents", None)
    await vectorstore.aadd_texts(["cat", "dog"], ids=["cat", "dog"])
    monkeypatch.setattr(Awaited, "embed_query", None)
    monkeypatch.setattr(Awaited, "aembed_query", lambda _, text: asyncio.sleep(0, [1.0] * 8))
    assert len(await vectorstore.asimilarity_search("cat", k=2)) == 2


# langchain-postgres


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_only_raises(vectorstore: NestedVectorStore, method: str) -> None:
    given = METHODS[method]
    assert getattr(vectorstore, method)(given)
    assert await getattr(vectorstore, f"a{method}")(given)


async def test_the_order_of_mmr_is_lost(opening: Opening) -> None:
    vectorstore = await opening(dims=(2,), embedder=TableEmbeddings(TABLE))
    for names in (["twin", "other", "best"], ["best", "twin", "other"]):
        vectorstore.add_texts(names, ids=names)
        found = vectorstore.max_marginal_relevance_search("query", k=3, lambda_mult=0.0)
        assert ids(found) == ["best", "other", "twin"]


def test_the_best_document_has_the_lowest_relevance(vectorstore: NestedVectorStore) -> None:
    scored = vectorstore.similarity_search_with_relevance_scores("dog runs", k=9)
    assert scored[0][0].id == "d5"
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)


def test_a_batch_that_fails_leaves_its_first_rows(vectorstore: NestedVectorStore) -> None:
    with pytest.raises(RecordError, match="record 'bad'"):
        vectorstore.add_texts(["good", " "], ids=["good", "bad"])
    assert vectorstore.get_by_ids(["good", "bad"]) == []


def test_a_query_is_kept_for_the_next_one(vectorstore: NestedVectorStore) -> None:
    """Hybrid search kept the first query's text in the caller's own configuration."""
    asked: dict[str, Any] = {"k": 1, "filter": {"n": {"$gte": 0}}}
    given = {**asked, "filter": {"n": {"$gte": 0}}}
    retriever = vectorstore.as_retriever(search_kwargs=asked)
    ours = FunnelRetriever(store=vectorstore, **asked)
    for n, text in enumerate(TEXTS):
        assert ids(retriever.invoke(text)) == ids(ours.invoke(text)) == [f"d{n}"]
    assert asked == given


async def test_an_event_loop_is_hidden_in_a_thread(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a second event loop")

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(asyncio, "run", refuse)
    vectorstore = await opening(dims=(2,), embedder=WordEmbeddings())
    vectorstore.add_documents(documents())
    assert ids(vectorstore.similarity_search("dog runs", k=1)) == ["d5"]
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "loop" in name.lower()]


# Both


def test_the_constructor_makes_tables(url: str) -> None:
    with pytest.raises(CollectionMissing):
        nestvec.connect(url, embedder=WordEmbeddings())
    with pytest.raises(CollectionMissing, match="dims="):
        NestedVectorStore.from_texts(["cat"], WordEmbeddings(), url=url)
    with pytest.raises(CollectionMissing):
        nestvec.connect(url, embedder=WordEmbeddings())


async def test_a_delete_without_arguments_empties_the_collection(
    vectorstore: NestedVectorStore,
) -> None:
    with pytest.raises(RecordError, match="nothing was deleted"):
        vectorstore.delete()
    with pytest.raises(RecordError, match="nothing was deleted"):
        await vectorstore.adelete()
    assert vectorstore.store.count() == 9


def test_unknown_keyword_arguments_are_swallowed(vectorstore: NestedVectorStore) -> None:
    with pytest.raises(ConfigError, match="unknown option 'hybrid'"):
        vectorstore.as_retriever(search_kwargs={"hybrid": True}).invoke("dog")
    with pytest.raises(ConfigError, match="collection_name"):
        NestedVectorStore.from_texts(
            ["cat"], "static", url="memory:", dims=(2,), collection_name="x"
        )


def test_a_constructor_has_34_parameters() -> None:
    for made in (NestedVectorStore, NestedVectorStore.from_texts):
        assert len(signature(made).parameters) <= 7


@lasting
def test_the_model_of_a_collection_is_not_checked(url: str) -> None:
    store = nestvec.connect(url, dims=(2,), embedder=WordEmbeddings(8))
    store.add(["cat"])
    store.close()
    with pytest.raises(CollectionMismatch, match="WordEmbeddings:words-8"):
        NestedVectorStore.from_texts(["dog"], WordEmbeddings(16), url=url)
    with nestvec.connect(url, embedder=WordEmbeddings(8)) as same:
        assert same.count() == 1
        same.drop()


def test_the_password_is_shown() -> None:
    retriever = FunnelRetriever(url="postgresql://me:geheim@host/db")
    assert "geheim" not in repr(retriever)
    assert "geheim" not in repr(retriever.to_json())
