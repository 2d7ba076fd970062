"""LangChain's indexing API over every engine: index and aindex, in every cleanup mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from nestvec.langchain import NestedVectorStore

from .conftest import Opening
from .lc import WordEmbeddings


def documents(*versions: tuple[str, str]) -> list[Document]:
    return [Document(page_content=text, metadata={"source": source}) for source, text in versions]


FIRST = documents(("one", "cat eats"), ("one", "cat sleeps"), ("two", "dog runs"), ("three", "cow"))
#: Of "one" a passage changed, "two" is as it was, "three" is gone, "four" is new.
SECOND = documents(("one", "cat eats"), ("one", "cat wakes"), ("two", "dog runs"), ("four", "hen"))

#: What is left of the first version: in every mode the second is there.
LEFT = {
    None: {"cat sleeps", "cow"},
    "incremental": {"cow"},
    "scoped_full": {"cow"},
    "full": set(),
}


@pytest.fixture
async def vectorstore(opening: Opening) -> NestedVectorStore:
    return await opening(dims=(2, 4), embedder=WordEmbeddings())


@pytest.fixture
def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager("tests")
    manager.create_schema()
    return manager


@pytest.fixture(params=[False, True], ids=["index", "aindex"])
def indexing(request: pytest.FixtureRequest) -> Any:
    async def indexed(*args: Any, **kwargs: Any) -> Any:
        kwargs = {"source_id_key": "source", "key_encoder": "sha256", "batch_size": 3, **kwargs}
        return await aindex(*args, **kwargs) if request.param else index(*args, **kwargs)

    return indexed


def texts(vectorstore: NestedVectorStore) -> list[str]:
    return sorted(record.text for record in vectorstore.store.scan())


@pytest.mark.parametrize("cleanup", LEFT)
async def test_the_store_is_left_as_the_mode_says(
    vectorstore: NestedVectorStore, records: Any, indexing: Any, cleanup: Any
) -> None:
    first = await indexing(FIRST, records, vectorstore, cleanup=cleanup)
    assert first == {"num_added": 4, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert texts(vectorstore) == sorted(document.page_content for document in FIRST)
    left = LEFT[cleanup]
    second = await indexing(SECOND, records, vectorstore, cleanup=cleanup)
    assert second == {
        "num_added": 2, "num_updated": 0, "num_skipped": 2, "num_deleted": 2 - len(left)
    }  # fmt: skip
    assert texts(vectorstore) == sorted({document.page_content for document in SECOND} | left)
    found = await vectorstore.asimilarity_search("cat wakes", k=1)
    assert [(each.page_content, each.metadata) for each in found] == [
        ("cat wakes", {"source": "one"})
    ]


async def test_indexing_again_stores_nothing_and_updating_stores_all(
    vectorstore: NestedVectorStore, records: Any, indexing: Any
) -> None:
    await indexing(FIRST, records, vectorstore, cleanup="full")
    again = await indexing(FIRST, records, vectorstore, cleanup="full")
    assert again == {"num_added": 0, "num_updated": 0, "num_skipped": 4, "num_deleted": 0}
    forced = await indexing(FIRST, records, vectorstore, cleanup="full", force_update=True)
    assert forced["num_updated"] == 4
    assert vectorstore.store.count() == 4


async def test_an_empty_source_clears_the_index(
    vectorstore: NestedVectorStore, records: Any, indexing: Any
) -> None:
    await indexing(FIRST, records, vectorstore, cleanup="full")
    cleared = await indexing([], records, vectorstore, cleanup="full", cleanup_batch_size=3)
    assert cleared["num_deleted"] == 4
    assert vectorstore.store.count() == 0


async def test_aindex_reads_an_async_source(vectorstore: NestedVectorStore, records: Any) -> None:
    async def source() -> AsyncIterator[Document]:
        for document in FIRST:
            yield document

    done = await aindex(
        source(), records, vectorstore, cleanup="full", source_id_key="source",
        key_encoder="sha256", batch_size=2,
    )  # fmt: skip
    assert done["num_added"] == 4
    assert vectorstore.store.count() == 4
