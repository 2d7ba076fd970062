"""The standard suites of langchain-tests, over every engine and in both colours."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from nestvec.langchain import FunnelRetriever, MatryoshkaEmbeddings, NestedVectorStore

from .conftest import Opening
from .lc import WordEmbeddings


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    async def vectorstore(self, opening: Opening) -> NestedVectorStore:
        return await opening(dims=(2, 4), embedder=self.get_embeddings())


class RetrieverSuite(RetrieversIntegrationTests):
    settings: ClassVar[dict[str, Any]]
    vectorstore: NestedVectorStore

    @pytest.fixture(autouse=True)
    async def filled(self, opening: Opening) -> None:
        self.vectorstore = await opening(dims=(2, 4), embedder=WordEmbeddings())
        await self.vectorstore.aadd_texts([f"text number {n}" for n in range(12)])

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {**self.settings, "store": self.vectorstore}

    @property
    def retriever_query_example(self) -> str:
        return "number 3"


class TestFunnelRetriever(RetrieverSuite):
    settings: ClassVar = {"funnel": "2:10 4:8"}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return FunnelRetriever


class TestFunnelRetrieverByMmr(RetrieverSuite):
    settings: ClassVar = {"search_type": "mmr", "lambda_mult": 0.3}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return FunnelRetriever


class EmbeddingsSuite:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return MatryoshkaEmbeddings


class TestEmbeddingsUnit(EmbeddingsSuite, EmbeddingsUnitTests):
    pass


class TestEmbeddingsUnitAtOneWidth(EmbeddingsSuite, EmbeddingsUnitTests):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": "static", "dim": 64}


class TestEmbeddings(EmbeddingsSuite, EmbeddingsIntegrationTests):
    pass


class TestEmbeddingsAtOneWidth(EmbeddingsSuite, EmbeddingsIntegrationTests):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": "static", "dim": 64}
