"""Embedders: text in, full vectors out.

An embedder is anything with `name`, `dim`, `embed_documents` and `embed_query`. Where it also has
`aembed_documents` and `aembed_query`, the async store awaits those; else it uses a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..errors import EmbedderError

__all__ = ["SPECS", "Embedder", "resolve"]


@runtime_checkable
class Embedder(Protocol):
    """Text in, full vectors out."""

    @property
    def name(self) -> str:
        """The model's name, which the collection records and compares when it is opened."""

    @property
    def dim(self) -> int:
        """How many numbers a full vector has."""

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """Return one row of `dim` numbers for each text that will be stored."""

    def embed_query(self, text: str) -> Any:
        """Return the `dim` numbers of a text that is searched for."""


#: What spec strings look like, for error messages.
SPECS = ("static",)


def resolve(given: Any) -> Embedder:
    """Return the embedder that a spec string, an embedder of a framework or a function is.

    Raises EmbedderError on what is none of these.
    """
    from . import wrappers

    if isinstance(given, str):
        return _from_spec(given)
    if isinstance(given, Embedder):
        return given
    if hasattr(given, "embed_documents") and hasattr(given, "embed_query"):
        return wrappers.LangChainEmbedder(given)
    if hasattr(given, "get_text_embedding_batch") and hasattr(given, "get_query_embedding"):
        return wrappers.LlamaIndexEmbedder(given)
    if callable(given):
        return wrappers.CallableEmbedder(given)
    raise EmbedderError(
        f"embedder is a spec string ({', '.join(SPECS)}), an Embedder, a LangChain Embeddings, "
        f"a LlamaIndex BaseEmbedding or a function of a list of texts, got {type(given)}"
    )


def _from_spec(spec: str) -> Embedder:
    if spec == "static":
        from .static import StaticEmbedder

        return StaticEmbedder()
    raise EmbedderError(f"unknown embedder {spec!r}; known are {', '.join(SPECS)}")
