"""LlamaIndex's own machines over NestedVectorStore: indexes, pipelines, fusion, merging."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    TokenTextSplitter,
    get_leaf_nodes,
)
from llama_index.core.postprocessor import PrevNextNodePostprocessor, SimilarityPostprocessor
from llama_index.core.retrievers import (
    AutoMergingRetriever,
    BaseRetriever,
    QueryFusionRetriever,
    RecursiveRetriever,
)
from llama_index.core.schema import Document, IndexNode, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from nestvec import F
from nestvec.llama_index import FunnelRetriever, MatryoshkaEmbedding, NestedVectorStore

from .conftest import Connecting
from .li import TEXTS, WordEmbedding


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Everything offline: words, a model that repeats its prompt, a splitter that needs no data."""
    before = Settings._llm, Settings._embed_model, Settings._node_parser
    Settings.llm, Settings.embed_model = MockLLM(), WordEmbedding()
    Settings.node_parser = TokenTextSplitter()
    yield
    Settings._llm, Settings._embed_model, Settings._node_parser = before


@pytest.fixture
async def vector_store(connecting: Connecting) -> NestedVectorStore:
    return NestedVectorStore(await connecting(dims=(2, 4), embedder=WordEmbedding()))


def documents() -> list[Document]:
    return [
        Document(id_=f"d{n}", text=text, metadata={"n": n}, excluded_embed_metadata_keys=["n"])
        for n, text in enumerate(TEXTS)
    ]


def texts(vector_store: NestedVectorStore) -> list[str]:
    return sorted(record.text for record in vector_store.client.scan())


def index_of(vector_store: NestedVectorStore, **further: Any) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=vector_store)
    return VectorStoreIndex.from_documents(documents(), storage_context=context, **further)


# Indexes


async def test_an_index_of_documents(vector_store: NestedVectorStore) -> None:
    index = index_of(vector_store)
    assert texts(vector_store) == sorted(TEXTS)
    again = VectorStoreIndex.from_vector_store(vector_store)
    for each in (index, again):
        retriever = each.as_retriever(similarity_top_k=2)
        found = retriever.retrieve("dog runs")
        awaited = await retriever.aretrieve("dog runs")
        assert [each.node for each in found] == [each.node for each in awaited]
        assert found[0].node.ref_doc_id == "d5"
        assert found[0].score == pytest.approx(1, abs=1e-4)
        assert found[0].node.excluded_embed_metadata_keys == ["n"]


async def test_what_a_retriever_of_an_index_passes_on(vector_store: NestedVectorStore) -> None:
    index = index_of(vector_store)
    few = index.as_retriever(
        similarity_top_k=9, filters=(F("n") >= 3) & (F("n") <= 6), doc_ids=["d3", "d6", "d8"]
    )
    assert {each.metadata["n"] for each in few.retrieve("cat")} == {3, 6}
    options = {"funnel": "2:9", "mmr_threshold": 0.0, "mmr_prefetch_factor": 3}
    diverse = index.as_retriever(
        similarity_top_k=3, vector_store_query_mode="mmr", vector_store_kwargs=options
    )
    plain = index.as_retriever(similarity_top_k=3).retrieve("dog runs")
    found = diverse.retrieve("dog runs")
    assert found[0].node == plain[0].node
    assert [each.node_id for each in found] != [each.node_id for each in plain]
    assert [each.node_id for each in await diverse.aretrieve("dog runs")] == [
        each.node_id for each in found
    ]
    hybrid = index.as_retriever(vector_store_query_mode="hybrid")
    with pytest.raises(NotImplementedError, match="'default' and 'mmr'"):
        hybrid.retrieve("dog")


async def test_documents_are_inserted_and_deleted(vector_store: NestedVectorStore) -> None:
    index = index_of(vector_store)
    index.insert(Document(id_="hen", text="hen runs"))
    await index.ainsert(Document(id_="owl", text="owl sleeps"))
    assert texts(vector_store) == sorted([*TEXTS, "hen runs", "owl sleeps"])
    index.delete_ref_doc("hen")
    await index.adelete_ref_doc("owl", delete_from_docstore=True)
    assert texts(vector_store) == sorted(TEXTS)
    first, second = vector_store.client.scan(F("n").in_([4, 5]))
    index.delete_nodes([first.id])
    await index.adelete_nodes([second.id])
    assert len(texts(vector_store)) == 7


async def test_documents_are_refreshed(vector_store: NestedVectorStore) -> None:
    index = index_of(vector_store)
    changed = documents()[:3]
    changed[1] = Document(id_="d1", text="cat wakes", metadata={"n": 1})
    changed.append(Document(id_="new", text="hen runs"))
    assert index.refresh_ref_docs(changed) == [False, True, False, True]
    expected = sorted([text for text in TEXTS if text != "cat sleeps"] + ["cat wakes", "hen runs"])
    assert texts(vector_store) == expected
    assert index.refresh_ref_docs(changed) == [False] * 4
    assert texts(vector_store) == expected


async def test_an_index_built_asynchronously_and_queried(vector_store: NestedVectorStore) -> None:
    """use_async and the like run loops of their own, one a call."""
    index = await asyncio.to_thread(index_of, vector_store, use_async=True)
    assert texts(vector_store) == sorted(TEXTS)
    engine = index.as_query_engine(similarity_top_k=1, use_async=True)
    for answer in (
        await asyncio.to_thread(engine.query, "dog runs"),
        await asyncio.to_thread(engine.query, "dog runs"),
        await engine.aquery("dog runs"),
    ):
        assert [each.node.get_content() for each in answer.source_nodes] == ["dog runs"]
        assert "dog runs" in str(answer)


async def test_an_index_node_leads_to_what_it_stands_for(vector_store: NestedVectorStore) -> None:
    table = TextNode(id_="table", text="rows and rows")
    summary = IndexNode(text="dog runs", index_id="table", obj=table)
    index = VectorStoreIndex(
        objects=[summary],
        storage_context=StorageContext.from_defaults(vector_store=vector_store),
    )
    assert [each.node.get_content() for each in index.as_retriever().retrieve("dog runs")] == [
        "rows and rows"
    ]
    inserted = IndexNode(id_="to a retriever", text="owl", index_id="owls", obj=object())
    index.insert_nodes([inserted])  # what cannot be written stays with the index
    root = index.as_retriever(similarity_top_k=1)
    recursive = RecursiveRetriever(
        "root", retriever_dict={"root": root}, node_dict={"table": table}
    )
    assert recursive.retrieve("dog runs")[0].node.get_content() == "rows and rows"


async def test_nodes_beside_the_found_ones(vector_store: NestedVectorStore) -> None:
    parser = TokenTextSplitter(chunk_size=20, chunk_overlap=0, include_metadata=False)
    long = Document(text=" ".join(f"{text} every day of the year." for text in TEXTS))
    nodes = parser.get_nodes_from_documents([long])
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=vector_store))
    middle = nodes[1]
    found = FunnelRetriever(vector_store, similarity_top_k=1).retrieve(middle.get_content())
    assert found[0].node == middle
    more = PrevNextNodePostprocessor(docstore=docstore, mode="both", num_nodes=1)
    around = more.postprocess_nodes(found)
    assert [each.node_id for each in around] == [each.node_id for each in nodes[:3]]
    assert SimilarityPostprocessor(similarity_cutoff=0.99).postprocess_nodes(found) == found


# Pipelines


@pytest.fixture(params=["run", "arun"])
def running(request: pytest.FixtureRequest) -> Any:
    async def ran(pipeline: IngestionPipeline, given: list[Document]) -> Any:
        if request.param == "arun":
            return await pipeline.arun(documents=given)
        return pipeline.run(documents=given)

    return ran


async def test_a_pipeline_upserts(vector_store: NestedVectorStore, running: Any) -> None:
    pipeline = IngestionPipeline(
        transformations=[TokenTextSplitter(), WordEmbedding()],
        docstore=SimpleDocumentStore(),
        vector_store=vector_store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    assert len(await running(pipeline, documents())) == 9
    assert texts(vector_store) == sorted(TEXTS)
    assert not await running(pipeline, documents())
    changed = documents()[:4]
    changed[2].set_content("cat jumps")
    assert len(await running(pipeline, changed)) == 1
    assert texts(vector_store) == sorted([*TEXTS[:2], "cat jumps", TEXTS[3]])
    found = FunnelRetriever(vector_store, similarity_top_k=1).retrieve("cat jumps")
    assert found[0].node.ref_doc_id == "d2"


async def test_a_pipeline_embeds_with_any_embedder(connecting: Connecting) -> None:
    embedding = MatryoshkaEmbedding("static", dim=64)
    store = await connecting(dims=(32,), embedder=embedding)
    vector_store = NestedVectorStore(store)
    pipeline = IngestionPipeline(transformations=[embedding], vector_store=vector_store)
    await pipeline.arun(documents=documents())
    assert store.embedder is embedding
    found = await FunnelRetriever(vector_store, similarity_top_k=1).aretrieve("a dog runs")
    assert found[0].node.get_content() == "dog runs"


# Retrievers of retrievers


async def test_fusion_of_queries(vector_store: NestedVectorStore) -> None:
    index = index_of(vector_store)
    retrievers: list[BaseRetriever] = [
        index.as_retriever(similarity_top_k=4),
        FunnelRetriever(vector_store, similarity_top_k=4, funnel="2:9"),
    ]
    for mode in ("reciprocal_rerank", "relative_score", "dist_based_score", "simple"):
        fusion = QueryFusionRetriever(
            retrievers,
            similarity_top_k=3,
            num_queries=2,
            mode=mode,  # type: ignore[arg-type]
        )
        found = await fusion.aretrieve("dog runs")
        assert found[0].node.get_content() == "dog runs"
        assert len({each.node_id for each in found}) == 3
        # Inside a running loop LlamaIndex makes another one, in a thread, for each call.
        for _ in range(2):
            nested = [each.node_id for each in fusion.retrieve("dog runs")]
            assert nested == [each.node_id for each in found]
        fusion.use_async = False
        assert [each.node_id for each in fusion.retrieve("dog runs")] == nested


def test_fusion_where_no_loop_runs(url: str) -> None:
    """A script that only calls blocking methods; what LlamaIndex awaits for it is let go of."""
    vector_store = NestedVectorStore.from_params(url, dims=(2, 4), embedder=WordEmbedding())
    index_of(vector_store)
    fusion = QueryFusionRetriever(
        [FunnelRetriever(vector_store, similarity_top_k=4)], num_queries=1, similarity_top_k=3
    )
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        for _ in range(2):
            assert fusion.retrieve("dog runs")[0].node.get_content() == "dog runs"
        assert asyncio.run(fusion.aretrieve("dog runs"))[0].node.get_content() == "dog runs"
        vector_store.client.drop()
        vector_store.close()
        assert not asyncio.all_tasks(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def test_leaves_merge_into_their_parents(vector_store: NestedVectorStore) -> None:
    sizes = {f"of {n}": TokenTextSplitter(chunk_size=n, chunk_overlap=0) for n in (80, 20)}
    parser = HierarchicalNodeParser.from_defaults(
        node_parser_ids=list(sizes), node_parser_map=dict(sizes)
    )
    text = " ".join(f"The {each} here every single day of the year." for each in TEXTS)
    all_nodes = parser.get_nodes_from_documents([Document(text=text)])
    leaves = get_leaf_nodes(all_nodes)
    context = StorageContext.from_defaults(vector_store=vector_store)
    context.docstore.add_documents(all_nodes)
    index = VectorStoreIndex(leaves, storage_context=context)
    parent = next(node for node in all_nodes if node.child_nodes)
    retriever: Any = index.as_retriever(similarity_top_k=len(leaves))
    merging = AutoMergingRetriever(retriever, context)
    with contextlib.redirect_stdout(None):
        found = await merging.aretrieve("cat eats")
    assert parent.node_id in {each.node_id for each in found}
    children = vector_store.get_nodes([child.node_id for child in parent.child_nodes or ()])
    assert len(children) > 1
    for child in children:
        assert child.parent_node == parent.as_related_node_info()
        assert NodeRelationship.SOURCE in child.relationships


async def test_storage_contexts_are_written_without_secrets(
    vector_store: NestedVectorStore,
) -> None:
    context = StorageContext.from_defaults(vector_store=vector_store)
    index_of(vector_store)
    assert context.vector_store is vector_store
    assert vector_store.to_dict()["url"] == vector_store.client.url
