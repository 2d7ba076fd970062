"""Embedders: text in, full vectors out.

An embedder is anything with `name`, `dim`, `embed_documents` and `embed_query`. Where it also has
`aembed_documents` and `aembed_query`, the async store awaits those; else it uses a thread. Where it
has `embed_images`, images can be stored and searched for beside texts. Where it has
`embed_queries`, evaluations embed several at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..errors import EmbedderError

__all__ = ["SPECS", "Embedder", "embed_queries", "recorded", "resolve"]


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
SPECS = ("static", "st:NAME_OR_DIR[?layers=13]", "openai:MODEL[@BASE_URL]")

#: What may follow the name in st:; all but layers only say how it is computed.
_OPTIONS = ("layers", "dtype", "device", "backend")

_SPEC = re.compile(r"static|st:(?P<st>.+)|openai:(?P<openai>.+?)(?:@(?P<url>https?://.+))?")


def resolve(given: Any) -> Embedder:
    """Return the embedder that a spec string, an embedder of a framework or a function is.

    Raises EmbedderError on what is none of these. Models are loaded when they are first needed.
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


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> Any:
    """Return one row for each text that is searched for, made at once where the embedder can."""
    several = getattr(embedder, "embed_queries", None)
    return [embedder.embed_query(text) for text in texts] if several is None else several(texts)


def recorded(name: str | None) -> Embedder | None:
    """Return the embedder that a collection's recorded name tells how to make, or None."""
    return _from_spec(name) if name is not None and _SPEC.fullmatch(name) else None


def _from_spec(spec: str) -> Embedder:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise EmbedderError(f"unknown embedder {spec!r}; known are {', '.join(SPECS)}")
    if match["openai"]:
        from .openai import OpenAIEmbedder

        return OpenAIEmbedder(match["openai"], base_url=match["url"])
    if match["st"]:
        from .sentence_transformers import SentenceTransformerEmbedder

        model, _, options = match["st"].partition("?")
        return SentenceTransformerEmbedder(model, **_options(spec, options))
    from .static import StaticEmbedder

    return StaticEmbedder()


def _options(spec: str, written: str) -> dict[str, Any]:
    """Return what a spec string says after its question mark."""
    options: dict[str, Any] = {}
    for item in filter(None, written.split("&")):
        name, _, value = item.partition("=")
        if name not in _OPTIONS or not value or (name == "layers" and not value.isdigit()):
            raise EmbedderError(
                f"cannot read {item!r} in embedder {spec!r}; write ?layers=13, and "
                f"{', '.join(_OPTIONS)} joined by &"
            )
        options[name] = int(value) if name == "layers" else value
    return options
