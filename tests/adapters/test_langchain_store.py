"""NestedVectorStore beyond the standard suite, over every engine; each test in both colours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

import nestvec
from nestvec import CollectionMissing, ConfigError, F, FilterError, FunnelError, RecordError
from nestvec.embedders.profiles import UntrainedPrefix
from nestvec.langchain import MatryoshkaEmbeddings, NestedVectorStore

from .conftest import Opening
from .lc import TableEmbeddings, WordEmbeddings

TEXTS = [f"{noun} {verb}" for noun in ("cat", "dog", "cow") for verb in ("eats", "sleeps", "runs")]


def documents() -> list[Document]:
    return [
        Document(id=f"d{n}", page_content=text, metadata={"n": n, "noun": text.split()[0]})
        for n, text in enumerate(TEXTS)
    ]


class Both:
    """A vector store behind blocking or asynchronous methods, always awaited."""

    def __init__(self, vectorstore: NestedVectorStore, asynchronous: bool) -> None:
        self.vectorstore, self.asynchronous = vectorstore, asynchronous

    def __getattr__(self, name: str) -> Any:
        async def called(*args: Any, **kwargs: Any) -> Any:
            if self.asynchronous:
                return await getattr(self.vectorstore, f"a{name}")(*args, **kwargs)
            return getattr(self.vectorstore, name)(*args, **kwargs)

        return called


@pytest.fixture(params=[False, True], ids=["called", "awaited"])
async def empty(opening: Opening, request: pytest.FixtureRequest) -> Both:
    return Both(await opening(dims=(2, 4), embedder=WordEmbeddings()), request.param)


@pytest.fixture
async def both(empty: Both) -> Both:
    await empty.add_documents(documents())
    return empty


# Adding


async def test_documents_come_back_as_they_went_in(both: Both) -> None:
    for n, document in enumerate(documents()):
        assert (await both.similarity_search(TEXTS[n], k=1)) == [document]
    assert await both.get_by_ids(["d3", "nope", "d1"]) == [documents()[3], documents()[1]]


async def test_any_string_is_an_id_and_ids_beside_go_first(empty: Both) -> None:
    some = [Document(id="own", page_content="cat"), Document(page_content="dog")]
    assert await empty.add_documents(some, ids=["given/1 ü", "given 2"]) == ["given/1 ü", "given 2"]
    ids = await empty.add_documents(some)
    assert ids[0] == "own"
    assert len(ids[1]) == 36
    assert [found.id for found in await empty.get_by_ids(["given/1 ü", *ids])] == [
        "given/1 ü",
        *ids,
    ]
    assert some[1].id is None


async def test_generators_are_read_batch_by_batch(empty: Both) -> None:
    taken = []

    def source() -> Iterator[Document]:
        for document in documents():
            taken.append(document.id)
            yield document
            assert len(taken) <= 4 or empty.vectorstore.store.count() >= len(taken) - 4

    ids = await empty.add_documents(source(), batch_size=2)
    assert ids == taken == [document.id for document in documents()]
    assert await empty.get_by_ids(ids) == documents()
    added = await empty.add_texts((text for text in TEXTS), ({"n": n} for n in range(9)))
    assert [found.metadata for found in await empty.get_by_ids(added)] == [
        {"n": n} for n in range(9)
    ]


async def test_texts_may_come_from_an_async_generator(opening: Opening) -> None:
    vectorstore = await opening(dims=(2,), embedder=WordEmbeddings())

    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    ids = await vectorstore.aadd_texts(source())  # type: ignore[arg-type]
    assert len(ids) == 9


async def test_documents_may_come_from_an_async_generator(opening: Opening, url: str) -> None:
    async def source() -> AsyncIterator[Document]:
        for document in documents():
            yield document

    vectorstore = await opening(dims=(2,), embedder=WordEmbeddings())
    ids = await vectorstore.aadd_documents(source(), batch_size=4)  # type: ignore[arg-type]
    assert vectorstore.get_by_ids(ids) == documents()
    others = list("abcdefghi")
    added = await vectorstore.aadd_documents(source(), ids=iter(others))  # type: ignore[arg-type]
    assert added == others
    assert [each.metadata for each in vectorstore.get_by_ids(others)] == [
        each.metadata for each in documents()
    ]
    with pytest.raises(RecordError, match="ids ended before text number 2"):
        await vectorstore.aadd_documents(source(), ids=["a"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot read an async iterable"):
        vectorstore.add_documents(source())  # type: ignore[arg-type]
    made = await NestedVectorStore.afrom_documents(
        source(), WordEmbeddings(), url=url, collection="other", dims=(2,)
    )
    assert made.get_by_ids(["d4"]) == [documents()[4]]
    await made.astore.drop()
    await made.aclose()


@pytest.mark.parametrize(
    "wrong",
    [lambda: ["a text"], lambda: iter(["a text"]), lambda: documents()[0], lambda: "a text"],
    ids=["list", "iterator", "document", "text"],
)
async def test_what_is_no_document_is_refused(both: Both, wrong: Any) -> None:
    with pytest.raises(RecordError, match="documents are a list of LangChain Documents, got one"):
        await both.add_documents(wrong())
    assert both.vectorstore.store.count() == 9


async def test_embeddings_that_are_ready_are_stored_as_they_are(opening: Opening) -> None:
    vectorstore = await opening(dims=(2,), dim=4)  # no embedder at all
    rows = np.eye(4) + 0.1
    ids = vectorstore.add_documents(documents()[:4], embeddings=rows)
    ids += await vectorstore.aadd_texts(["more"], embeddings=iter([[1.0, 1.0, 0.0, 0.0]]))
    assert vectorstore.similarity_search_by_vector(list(rows[2]), k=1)[0].id == ids[2]
    assert (await vectorstore.asimilarity_search_by_vector([3, 3, 0, 0], k=1))[0].id == ids[4]
    assert vectorstore.embeddings is None
    with pytest.raises(nestvec.EmbedderError, match="opened without an embedder"):
        vectorstore.similarity_search("text")


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"ids": lambda: ["a"]}, "ids has 1 items for 9 texts"),
        ({"embeddings": lambda: [[1.0] * 8]}, "vectors has 1 items for 9 texts"),
        ({"ids": lambda: iter(["a"])}, "ids ended before text number 2"),
    ],
    ids=["ids", "embeddings", "lazy ids"],
)
async def test_what_is_beside_documents_is_as_long(empty: Both, beside: Any, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        await empty.add_documents(documents(), **{name: made() for name, made in beside.items()})
    assert empty.vectorstore.store.count() == 0


async def test_from_texts_and_from_documents(url: str, opening: Opening) -> None:
    settings: dict[str, Any] = {"url": url, "dims": (2, 4), "batch_size": 4}
    made = [
        NestedVectorStore.from_texts(
            TEXTS,
            WordEmbeddings(),
            [{"n": 1}] * 9,
            ids=list("abcdefghi"),
            collection="t1",
            **settings,
        ),
        await NestedVectorStore.afrom_texts(TEXTS, WordEmbeddings(), collection="t2", **settings),
        NestedVectorStore.from_documents(
            (each for each in documents()), WordEmbeddings(), collection="t3", **settings
        ),
        await NestedVectorStore.afrom_documents(
            documents(), WordEmbeddings(), ids=list("abcdefghi"), collection="t4", **settings
        ),
    ]
    for vectorstore in made:
        assert vectorstore.store.count() == 9
        assert vectorstore.similarity_search("cat runs", k=1)[0].page_content == "cat runs"
    assert made[2].get_by_ids(["d4"]) == [documents()[4]]
    assert made[3].get_by_ids(["b"])[0].metadata == documents()[1].metadata
    for vectorstore in made:
        vectorstore.store.drop()
        await vectorstore.aclose()


class Threaded(WordEmbeddings):
    """Embeddings whose blocking methods must not be called where an event loop runs."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [await self.aembed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return super().embed_query(text)

    def embed_query(self, text: str) -> list[float]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return super().embed_query(text)


async def test_opening_does_not_block_the_event_loop(url: str) -> None:
    """The width of an embedder is learnt by embedding one text."""
    for _ in ("new", "there"):
        vectorstore = await NestedVectorStore.afrom_texts(
            TEXTS, Threaded(), url=url, dims=(2, 4), ids=list("abcdefghi")
        )
        found = await vectorstore.asimilarity_search("dog runs", k=1)
        assert [document.id for document in found] == ["f"]
        await vectorstore.aclose()


async def test_from_texts_lets_go_of_the_engine_when_it_fails(url: str) -> None:
    for _ in range(2):  # an engine with one writer would refuse the second
        with pytest.raises(RecordError, match="blank"):
            NestedVectorStore.from_texts([" "], WordEmbeddings(), url=url, dims=(2,))
        with pytest.raises(RecordError, match="blank"):
            await NestedVectorStore.afrom_texts([" "], WordEmbeddings(), url=url, dims=(2,))


async def test_from_texts_makes_nothing_without_dims(url: str) -> None:
    with pytest.raises(CollectionMissing, match="dims="):
        NestedVectorStore.from_texts(["text"], WordEmbeddings(), url=url)


# Searching


async def test_scores_are_cosines_and_relevances_are_their_place_in_0_to_1(both: Both) -> None:
    scored = await both.similarity_search_with_score("cat eats", k=9)
    relevant = await both.similarity_search_with_relevance_scores("cat eats", k=9)
    assert scored[0][1] == pytest.approx(1, abs=1e-4)
    assert scored[-1][1] < 0
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)
    assert [doc for doc, _ in relevant] == [doc for doc, _ in scored]
    for (_, cosine), (_, relevance) in zip(scored, relevant, strict=True):
        assert relevance == pytest.approx((1 + cosine) / 2)
        assert 0 <= relevance <= 1


async def test_thresholds(both: Both) -> None:
    scored = await both.similarity_search_with_score("cat eats", k=9)
    above = [doc for doc, score in scored if score >= 0.3]
    assert 1 < len(above) < 9
    assert await both.similarity_search("cat eats", k=9, min_score=0.3) == above
    relevant = await both.similarity_search_with_relevance_scores(
        "cat eats", k=9, score_threshold=0.65
    )
    assert [doc for doc, _ in relevant] == above


async def test_filters_are_nestvecs_or_dicts(both: Both) -> None:
    for where in (F("n") >= 6, {"n": {"$gte": 6}}, {"noun": "cow"}, {"$not": {"n": {"$lt": 6}}}):
        found = await both.similarity_search("cat eats", k=9, filter=where)
        assert {document.metadata["n"] for document in found} == {6, 7, 8}, where
    with pytest.raises(FilterError):
        await both.similarity_search("cat eats", filter={"n": {"$above": 6}})


async def test_offsets_and_funnels(both: Both) -> None:
    everything = await both.similarity_search("dog runs", k=9, funnel="exact")
    pages = [
        await both.similarity_search("dog runs", k=4, offset=offset, funnel="2:9")
        for offset in (0, 4)
    ]
    assert [*pages[0], *pages[1]] == everything[:8]
    with pytest.raises(FunnelError, match="unknown field '3'"):
        await both.similarity_search("dog runs", funnel="3:10")


async def test_scores_are_in_the_metadata_only_when_asked(both: Both) -> None:
    ((document, score),) = await both.similarity_search_with_score("cow runs", k=1)
    assert document == documents()[8]
    (shown,) = await both.similarity_search("cow runs", k=1, include_score=True)
    assert shown.metadata == {**documents()[8].metadata, "score": score}
    (shown,) = await both.max_marginal_relevance_search("cow runs", k=1, include_score=True)
    assert shown.metadata["score"] == score
    await both.add_texts(["cow runs away"], [{"score": 7}])
    with pytest.raises(ConfigError, match="has a 'score' of its own"):
        await both.similarity_search("cow runs away", k=1, include_score=True)


METHODS: dict[str, Any] = {
    "similarity_search": "cat",
    "similarity_search_with_score": "cat",
    "similarity_search_by_vector": [1.0] * 8,
    "similarity_search_with_relevance_scores": "cat",
    "max_marginal_relevance_search": "cat",
    "max_marginal_relevance_search_by_vector": [1.0] * 8,
    "add_texts": ["cat"],
    "add_documents": [Document(page_content="cat")],
    "delete": ["d1"],
}


@pytest.mark.parametrize("method", METHODS)
async def test_unknown_options_are_refused_by_name(both: Both, method: str) -> None:
    with pytest.raises(ConfigError, match="unknown option 'fliter'; known are"):
        await getattr(both, method)(METHODS[method], fliter={"n": 1})
    assert both.vectorstore.store.count() == 9


async def test_a_threshold_in_the_wrong_place_is_told_its_name(both: Both) -> None:
    with pytest.raises(ConfigError, match="min_score, a cosine"):
        await both.similarity_search("cat", score_threshold=0.5)
    with pytest.raises(ConfigError, match="'offset'"):
        await both.max_marginal_relevance_search("cat", offset=3)


# MMR


@pytest.mark.parametrize("lambda_mult", [0.0, 0.25, 0.5, 0.75, 1.0])
async def test_mmr_chooses_as_langchains_own_does_over_the_exact_vectors(
    both: Both, lambda_mult: float
) -> None:
    embeddings = WordEmbeddings()
    query = embeddings.embed_query("cat eats fast")
    near = await both.similarity_search("cat eats fast", k=7, funnel="exact")
    vectors = embeddings.embed_documents([document.page_content for document in near])
    order = maximal_marginal_relevance(np.array(query), vectors, lambda_mult, k=4)
    asked: dict[str, Any] = {"k": 4, "fetch_k": 7, "lambda_mult": lambda_mult}
    found = await both.max_marginal_relevance_search("cat eats fast", **asked)
    assert found == [near[i] for i in order]
    assert found == await both.max_marginal_relevance_search_by_vector(query, **asked)


async def test_mmr_filters_and_gives_k_also_when_fetch_k_is_less(both: Both) -> None:
    found = await both.max_marginal_relevance_search(
        "cat", k=5, fetch_k=2, filter={"n": {"$gt": 2}}
    )
    assert len({document.id for document in found}) == 5
    assert all(document.metadata["n"] > 2 for document in found)
    assert await both.max_marginal_relevance_search("cat", k=5, filter={"n": 99}) == []
    with pytest.raises(ConfigError, match=r"lambda_mult is between 0 and 1, got 1\.5"):
        await both.max_marginal_relevance_search("cat", lambda_mult=1.5)


# Deleting


async def test_delete_by_ids_and_by_filter(both: Both) -> None:
    assert await both.delete(["d0", "nope"]) is True
    assert both.vectorstore.store.count() == 8
    assert await both.delete(filter={"noun": "dog"}) is True
    assert await both.delete(filter=F("n") == 1) is True
    assert {r.id for r in both.vectorstore.store.scan()} == {"d2", "d6", "d7", "d8"}
    assert await both.delete([]) is True


async def test_delete_without_either_or_with_both_is_an_error(both: Both) -> None:
    for given in ({}, {"ids": ["d1"], "filter": {"n": 1}}):
        with pytest.raises(RecordError, match="ids or filter"):
            await both.delete(**given)
    assert both.vectorstore.store.count() == 9


# as_retriever


async def test_as_retriever(both: Both) -> None:
    vectorstore = both.vectorstore
    asked: dict[str, Any] = {"k": 3, "filter": {"n": {"$gte": 3}}, "funnel": "2:9 4:9"}
    similar = vectorstore.as_retriever(search_kwargs=asked)
    assert similar.invoke("dog runs") == vectorstore.similarity_search("dog runs", **asked)
    assert await similar.ainvoke("dog runs", k=1) == [documents()[5]]
    mmr = vectorstore.as_retriever(
        search_type="mmr", search_kwargs={**asked, "fetch_k": 6, "lambda_mult": 0.2}
    )
    assert mmr.invoke("dog runs") == vectorstore.max_marginal_relevance_search(
        "dog runs", fetch_k=6, lambda_mult=0.2, **asked
    )
    threshold = vectorstore.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={**asked, "score_threshold": 0.99}
    )
    assert await threshold.ainvoke("dog runs") == [documents()[5]]
    assert similar.tags == ["NestedVectorStore", "WordEmbeddings"]


# The object itself


def test_the_embeddings_are_the_ones_that_were_given(url: str) -> None:
    given = WordEmbeddings()
    for embedder, prefix, kind in (
        (given, 2, WordEmbeddings), ("static", 64, MatryoshkaEmbeddings),
    ):  # fmt: skip
        settings: dict[str, Any] = {
            "collection": kind.__name__,
            "dims": (prefix,),
            "embedder": embedder,
        }
        with nestvec.connect(url, **settings) as store:
            assert isinstance(NestedVectorStore(store).embeddings, kind)
            store.drop()
    with nestvec.connect("memory:", dims=(2,), embedder=given) as store:
        assert NestedVectorStore(store).embeddings is given


class Named(WordEmbeddings):
    """Embeddings of a model that is known by its name."""

    def __init__(self, model: str, size: int) -> None:
        super().__init__(size)
        self.model = model


def test_a_known_model_is_recorded_and_its_profile_used() -> None:
    small = Named("text-embedding-3-small", 1536)
    with nestvec.connect("memory:", dims=(512,), embedder=small) as store:
        assert store.info().embedder == "Named:text-embedding-3-small"
    with pytest.warns(UntrainedPrefix, match="trained for prefixes of 512 numbers, not of 100"):
        nestvec.connect("memory:", dims=(100,), embedder=small).close()
    nomic = Named("nomic-ai/nomic-embed-text-v1.5", 768)
    for embeddings in (MatryoshkaEmbeddings(nomic), MatryoshkaEmbeddings(nomic, dim=64)):
        made = np.array(nomic.embed_query("cat"))
        normed = (made - made.mean())[: embeddings.dim]  # its layer_norm comes before the prefix
        assert embeddings.embed_query("cat") == pytest.approx(
            normed / np.linalg.norm(normed), abs=1e-5
        )


def test_a_url_is_no_store() -> None:
    with pytest.raises(ConfigError, match=r"got <class 'str'>; nestvec\.connect opens one"):
        NestedVectorStore("edge:./papers")  # type: ignore[arg-type]


def test_an_embedding_at_one_width_is_an_embedder(url: str) -> None:
    embeddings = MatryoshkaEmbeddings("static", dim=64)
    with nestvec.connect(url, dims=(16,), embedder=embeddings) as store:
        assert store.info().embedder == "static[:64]"
        assert store.nesting.dim == 64
        store.drop()
    full, cut = MatryoshkaEmbeddings().embed_query("text"), embeddings.embed_query("text")
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)
    assert np.array(cut) == pytest.approx(np.array(full[:64]) / np.linalg.norm(full[:64]), abs=1e-6)
    with pytest.raises(nestvec.NestingError, match="dim is from 1 to 256 with 'static', got 300"):
        MatryoshkaEmbeddings("static", dim=300)


async def test_one_store_of_each_colour(url: str, opening: Opening, engine_name: str) -> None:
    first = await opening(dims=(2,), embedder=WordEmbeddings())
    vectorstore = NestedVectorStore(first.store, first.astore)
    assert vectorstore.store is first.store
    assert vectorstore.astore is first.astore
    await vectorstore.aadd_texts(["cat"])
    assert vectorstore.similarity_search("cat", k=1)[0].page_content == "cat"


def test_every_method_of_the_base_class_is_here_and_native() -> None:
    base = [
        name
        for name, value in vars(VectorStore).items()
        if callable(value) or isinstance(value, (classmethod, property))
        if not name.startswith("_")
    ]
    inherited = {name for name in base if name not in vars(NestedVectorStore)}
    # These only call others: search by its type, and relevance scores of scored hits.
    assert inherited == {
        "search", "asearch", "as_retriever", "similarity_search_with_relevance_scores",
        "asimilarity_search_with_relevance_scores",
    }  # fmt: skip


async def test_table(opening: Opening) -> None:
    """Equal vectors are found in any number, and opposite ones have relevance 0."""
    table = {"width": [0.0] * 3, "a": [1.0, 1.0, 1.0], "b": [-1.0, -1.0, -1.0]}
    vectorstore = await opening(dims=(2,), embedder=TableEmbeddings(table))
    await vectorstore.aadd_texts(["a", "b", "a"])
    found = await vectorstore.asimilarity_search_with_relevance_scores("a", k=3)
    assert [round(score, 5) for _, score in found] == [1, 1, 0]
