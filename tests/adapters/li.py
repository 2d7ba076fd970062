"""LlamaIndex nodes and embed models for tests."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from nestvec.llama_index import NestedVectorStore

from ..vectors import HashEmbedder

TEXTS = [f"{noun} {verb}" for noun in ("cat", "dog", "cow") for verb in ("eats", "sleeps", "runs")]


class WordEmbedding(BaseEmbedding):
    """Vectors that depend on the words of a text only; equal texts get equal vectors."""

    size: int = 8

    def __init__(self, size: int = 8) -> None:
        given: dict[str, Any] = {"model_name": f"words-{size}", "size": size}
        super().__init__(**given)

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = HashEmbedder(self.size).embed_query(text).tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def vector(text: str) -> list[float]:
    return WordEmbedding().get_text_embedding(text)


def nodes() -> list[TextNode]:
    """Return nine nodes n0 to n8 of three documents, cat, dog and cow."""
    return [
        TextNode(
            id_=f"n{n}",
            text=text,
            metadata={"n": n, "noun": text.split()[0]},
            embedding=vector(text),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=text.split()[0])},
        )
        for n, text in enumerate(TEXTS)
    ]


def bare(node: Any) -> Any:
    """Return a node as it comes back: without its embedding."""
    copied = node.model_copy()
    copied.embedding = None
    return copied


def ask(text: str, k: int = 9, **further: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=vector(text), similarity_top_k=k, **further)


class Both:
    """A vector store behind blocking or asynchronous methods, always awaited."""

    def __init__(self, vector_store: NestedVectorStore, asynchronous: bool) -> None:
        self.vector_store, self.asynchronous = vector_store, asynchronous

    def __getattr__(self, name: str) -> Any:
        awaited = getattr(self.vector_store, "async_add" if name == "add" else f"a{name}")
        called = getattr(self.vector_store, name)

        async def either(*args: Any, **kwargs: Any) -> Any:
            if self.asynchronous:
                return await awaited(*args, **kwargs)
            return called(*args, **kwargs)

        return either
