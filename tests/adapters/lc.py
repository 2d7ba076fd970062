"""LangChain embeddings for tests."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from ..vectors import HashEmbedder


class WordEmbeddings(Embeddings):
    """Vectors that depend on the words of a text only; equal texts get equal vectors."""

    def __init__(self, size: int = 8) -> None:
        self.inner = HashEmbedder(size)
        self.model = f"words-{size}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self.inner.embed_query(text).tolist()
        return vector


class TableEmbeddings(Embeddings):
    """The vectors of a table."""

    def __init__(self, table: dict[str, list[float]]) -> None:
        self.table = table

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.table[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.table[text]
