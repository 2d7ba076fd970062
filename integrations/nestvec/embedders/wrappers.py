"""Other people's embedders as nestvec's: told by their methods, so no framework is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from .profiles import Profile, find

__all__ = ["CallableEmbedder", "LangChainEmbedder", "LlamaIndexEmbedder"]


class _Wrapper:
    """An embedder of another kind; its width is learnt by embedding one text.

    What its model wants done before a prefix is cut is done here; prompts are its own matter.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The class, and the model where the embedder names one."""
        for attribute in ("model_name", "model", "model_id"):
            model = getattr(self.inner, attribute, None)
            if isinstance(model, str) and model:
                return f"{type(self.inner).__name__}:{model}"
        return type(self.inner).__name__

    @cached_property
    def dim(self) -> int:
        """How many numbers a full vector has."""
        return len(self.embed_query("width"))

    @cached_property
    def _profile(self) -> Profile | None:
        return find(self.name)

    @property
    def prepares(self) -> bool:
        """Whether vectors are not those of the inner embedder, but what its model wants of them."""
        return self._profile is not None and self._profile.layer_norm

    def _documents(self, vectors: Any) -> Any:
        return vectors if self._profile is None else self._profile.prepared(vectors)

    def _query(self, vector: Any) -> Any:
        return vector if self._profile is None else self._profile.prepared([vector])[0]

    def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        raise NotImplementedError

    def __repr__(self) -> str:  # never the inner embedder's: it may show a key
        return f"{type(self).__name__}({self.name!r})"


class CallableEmbedder(_Wrapper):
    """A function from a list of texts to a list of vectors, for documents and queries alike."""

    inner: Callable[[list[str]], Any]

    @property
    def name(self) -> str:
        """The function's module and name."""
        function = self.inner
        if not hasattr(function, "__qualname__"):
            function = type(function)
        return f"{function.__module__}.{function.__qualname__}"

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """Return one vector for each text."""
        return self._documents(self.inner(list(texts)))

    def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return self._query(self.inner([text])[0])


class LangChainEmbedder(_Wrapper):
    """A LangChain `Embeddings`."""

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """Return one vector for each text."""
        return self._documents(self.inner.embed_documents(list(texts)))

    def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return self._query(self.inner.embed_query(text))

    async def aembed_documents(self, texts: Sequence[str]) -> Any:
        """Return one vector for each text."""
        return self._documents(await self.inner.aembed_documents(list(texts)))

    async def aembed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return self._query(await self.inner.aembed_query(text))


class LlamaIndexEmbedder(_Wrapper):
    """A LlamaIndex `BaseEmbedding`."""

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """Return one vector for each text."""
        return self._documents(self.inner.get_text_embedding_batch(list(texts)))

    def embed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return self._query(self.inner.get_query_embedding(text))

    async def aembed_documents(self, texts: Sequence[str]) -> Any:
        """Return one vector for each text."""
        return self._documents(await self.inner.aget_text_embedding_batch(list(texts)))

    async def aembed_query(self, text: str) -> Any:
        """Return the vector of a query."""
        return self._query(await self.inner.aget_query_embedding(text))
