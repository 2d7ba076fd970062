"""nestvec in LangChain: a vector store, a retriever and embeddings.

    vectorstore = NestedVectorStore(nestvec.connect("edge:./papers"))
    retriever = FunnelRetriever(url="edge:./papers", k=6, funnel="64:200")

Needs `pip install 'nestvec[langchain]'`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from itertools import count, tee
from operator import attrgetter, methodcaller
from typing import Any, Literal

from .adapting import (
    Places,
    Prefixes,
    Stores,
    awaited,
    blocking,
    deleted,
    diverse,
    explained,
    known,
    planned,
)
from .embedders.wrappers import LangChainEmbedder
from .errors import ConfigError, MissingExtra, RecordError
from .filter_forms import as_filter
from .filters import Filter
from .flow import Flow
from .funnel import Funnel, Plan
from .records import Hit, Record
from .store import AsyncStore, Store, aconnect, connect

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
    from langchain_core.runnables import RunnableConfig
    from langchain_core.runnables.config import get_config_list, run_in_executor
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator
except ModuleNotFoundError as error:
    raise MissingExtra("langchain-core", "langchain") from error

__all__ = ["FunnelRetriever", "MatryoshkaEmbeddings", "NestedVectorStore"]


class MatryoshkaEmbeddings(Prefixes, Embeddings):
    """Any nestvec embedder as LangChain's: full vectors, or their first `dim` numbers.

    `embedder` is what `connect` takes. Vectors have unit length, at any width.
    """


def _document(found: Hit | Record, include_score: bool = False) -> Document:
    metadata = dict(found.metadata)
    if include_score and isinstance(found, Hit):
        if "score" in metadata:
            raise ConfigError(
                f"include_score: the metadata of {found.id!r} has a 'score' of its own; use "
                "similarity_search_with_score"
            )
        metadata["score"] = found.score
    return Document(id=found.id, page_content=found.text, metadata=metadata)


# What the methods of the vector store do, as flows that either colour runs. Their options are left
# open by LangChain's signatures.

_DIVERSE = ("filter", "funnel", "min_score", "include_score")
_SEARCH = (*_DIVERSE, "offset")


def _asked(given: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return options as `Store.search` has them, and whether scores are shown."""
    asked = known(given, names)
    shown = asked.pop("include_score", False)
    return {"where": asked.pop("filter", None), **asked}, shown


def _scored(query: Any, k: int = 4, **options: Any) -> Flow[list[tuple[Document, float]]]:
    """Return the k best documents with their cosines, best first, for a text or a vector."""
    asked, shown = _asked(options, _SEARCH)
    hits: list[Hit] = yield methodcaller("search", query, k, **asked)
    return [(_document(hit, shown), hit.score) for hit in hits]


def _similar(query: str, k: int = 4, **options: Any) -> Flow[list[Document]]:
    """Return the k best documents, best first."""
    return [document for document, _ in (yield from _scored(query, k, **options))]


def _similar_to(embedding: Any, k: int = 4, **options: Any) -> Flow[list[Document]]:
    """Return the k best documents for a full vector, best first."""
    return (yield from _similar(embedding, k, **options))


def _diverse(
    query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
) -> Flow[list[Document]]:
    """Return k of the `fetch_k` best, near the query and far from each other.

    In the order of their choice: `lambda_mult` 1 asks for relevance alone, 0 for diversity alone.
    Candidates come through the funnel, diversity is that of the full vectors.
    """
    asked, shown = _asked(options, _DIVERSE)
    hits = yield from diverse(query, k, fetch_k=fetch_k, lambda_mult=lambda_mult, **asked)
    return [_document(hit, shown) for hit in hits]


def _diverse_to(
    embedding: Any, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
) -> Flow[list[Document]]:
    """Return documents as `max_marginal_relevance_search` does, for a full vector."""
    return (yield from _diverse(embedding, k, fetch_k, lambda_mult, **options))


def _got(ids: Sequence[str], /) -> Flow[list[Document]]:
    """Return documents in the order of the ids; unknown ones are left out."""
    return [_document(record) for record in (yield methodcaller("get", ids))]


def _deleted(ids: Iterable[str] | None = None, **options: Any) -> Flow[bool]:
    """Delete by ids or by `filter`. Raises RecordError on neither, and on both."""
    yield from deleted(ids, known(options, ("filter",)).get("filter"))
    return True


def _added(
    texts: Iterable[str] | AsyncIterable[str],
    metadatas: Iterable[dict[str, Any]] | None = None,
    *,
    ids: Iterable[str] | None = None,
    **options: Any,
) -> Flow[list[str]]:
    """Add texts, embedding those without one of `embeddings`; return their ids in order."""
    asked = known(options, ("embeddings", "batch_size"))
    vectors = asked.pop("embeddings", None)
    added: list[str] = yield methodcaller("add", texts, metadatas, ids, vectors=vectors, **asked)
    return added


def _added_documents(
    documents: Iterable[Document] | AsyncIterable[Document], **options: Any
) -> Flow[list[str]]:
    """Add documents as `add_texts` adds texts; `ids` that are given go before their own."""
    texts, metadatas, ids = _columns(documents, options.pop("ids", None))
    return (yield from _added(texts, metadatas, ids=ids, **options))


_COLUMNS = (attrgetter("page_content"), attrgetter("metadata"), attrgetter("id"))


def _columns(
    documents: Iterable[Document] | AsyncIterable[Document], ids: Iterable[str] | None
) -> tuple[Any, Any, Any]:
    """Return texts, metadatas and ids of documents, those of a generator as they are read."""
    if isinstance(documents, AsyncIterable):
        return _acolumns(documents, ids)
    columns: Iterable[Any]
    checked = map(_checked, documents)
    if isinstance(documents, Sized):
        listed = list(checked)
        columns = (list(map(column, listed)) for column in _COLUMNS)
    else:
        columns = map(map, _COLUMNS, tee(checked, 3))
    texts, metadatas, own = columns
    return texts, metadatas, own if ids is None else ids


def _acolumns(
    documents: AsyncIterable[Document], ids: Iterable[str] | None
) -> tuple[Any, Any, Any]:
    beside: deque[Document] = deque()  # read with its text, then its metadata, last its id

    async def texts() -> AsyncIterator[str]:
        async for document in documents:
            beside.append(_checked(document))
            yield document.page_content

    metadatas = (beside[0].metadata for _ in count())
    own = (beside.popleft().id for _ in count())
    return texts(), metadatas, own if ids is None else (id for id, _ in zip(ids, own, strict=False))


def _checked(document: Any) -> Document:
    if not isinstance(document, Document):
        raise RecordError(
            f"documents are a list of LangChain Documents, got one {type(document)}; texts are "
            "taken by add_texts"
        )
    return document


class NestedVectorStore(VectorStore):
    """A collection of nested vectors as LangChain's vector store, blocking and asynchronous.

    Takes a Store or an AsyncStore, which serves both colours, or one of each.

    Searches take by name, also as `search_kwargs` of `as_retriever`: `filter`, a nestvec filter
    or a dict; `funnel`, as in `Store.search`; `min_score`, a cosine; `offset` (not with MMR); and
    `include_score=True`, which adds the score to the metadata. Scores are the cosines of the full
    vectors; a relevance score, and so `score_threshold`, is (1 + cosine) / 2.

    Adding takes `embeddings`, the full vectors where they are known, and `batch_size`. Documents,
    texts and what is beside them may be generators; where it is awaited, documents or texts may
    also be an async one, such as `loader.alazy_load()`.
    """

    def __init__(self, store: Store | AsyncStore, astore: AsyncStore | None = None) -> None:
        self.stores = Stores(store, astore)
        self.store, self.astore = self.stores.store, self.stores.astore

    add_texts, aadd_texts = blocking(_added), awaited(_added)
    add_documents, aadd_documents = blocking(_added_documents), awaited(_added_documents)
    delete, adelete = blocking(_deleted), awaited(_deleted)
    get_by_ids, aget_by_ids = blocking(_got), awaited(_got)
    similarity_search, asimilarity_search = blocking(_similar), awaited(_similar)
    similarity_search_by_vector = blocking(_similar_to)
    asimilarity_search_by_vector = awaited(_similar_to)
    similarity_search_with_score = blocking(_scored)
    asimilarity_search_with_score = awaited(_scored)
    max_marginal_relevance_search = blocking(_diverse)
    amax_marginal_relevance_search = awaited(_diverse)
    max_marginal_relevance_search_by_vector = blocking(_diverse_to)
    amax_marginal_relevance_search_by_vector = awaited(_diverse_to)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2

    @classmethod
    def from_texts(  # type: ignore[override]  # where to store has no default
        cls,
        texts: Iterable[str],
        embedding: Any,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
        url: str,
        **options: Any,
    ) -> NestedVectorStore:
        """Open or make a collection and add texts to it; `url` and options are those of `connect`.

        It is closed again where that fails.
        """
        made = cls(connect(url, embedder=embedding, **options))
        try:
            made.stores.run(_added(texts, metadatas, ids=ids))
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    async def afrom_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str] | AsyncIterable[str],
        embedding: Any,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
        url: str,
        **options: Any,
    ) -> NestedVectorStore:
        made = cls(await aconnect(url, embedder=embedding, **options))
        try:
            await made.stores.arun(_added(texts, metadatas, ids=ids))
        except BaseException:
            await made.aclose()
            raise
        return made

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], embedding: Any, **options: Any
    ) -> NestedVectorStore:
        texts, metadatas, ids = _columns(documents, options.pop("ids", None))
        return cls.from_texts(texts, embedding, metadatas, ids=ids, **options)

    @classmethod
    async def afrom_documents(
        cls, documents: Iterable[Document] | AsyncIterable[Document], embedding: Any, **options: Any
    ) -> NestedVectorStore:
        texts, metadatas, ids = _columns(documents, options.pop("ids", None))
        return await cls.afrom_texts(texts, embedding, metadatas, ids=ids, **options)

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedder as LangChain's, or None where there is none."""
        embedder = self.store.embedder
        if embedder is None or isinstance(embedder, Embeddings):
            return embedder
        if isinstance(embedder, LangChainEmbedder):
            inner: Embeddings = embedder.inner
            return inner
        return MatryoshkaEmbeddings(embedder)

    def close(self) -> None:
        """Let go of the engine, where only blocking methods were used."""
        self.stores.close()

    async def aclose(self) -> None:
        """Let go of the engine in both colours."""
        await self.stores.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"


#: What a call of a retriever may ask for differently than its configuration.
_PER_CALL = (
    "k", "funnel", "filter", "min_score", "search_type", "fetch_k", "lambda_mult",
    "include_score", "explain",
)  # fmt: skip

#: The documents of a query, and what its run is told.
Answer = tuple[list[Document], dict[str, Any]]


class FunnelRetriever(BaseRetriever):
    """A search as configuration: where, for how many, by which plan; opened when it is first used.

    The collection is that of `url` (None: NESTVEC_URL from the environment), which `close` or
    `aclose` lets go of again, or that of a `store` which is open. `embedder` is that of `connect`;
    `api_key` and `options` are the engine's. What does not say where can be given to one call, as
    in `invoke(query, k=3)`.

    Each run carries its plan and time as metadata `nestvec`, and as the custom event `nestvec`.
    With `explain=True` that is the trace of `Store.explain`: candidates and time stage by stage,
    and the overlap with an exact search, for several times the work of the search.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    url: str | None = Field(default=None, repr=False)
    collection: str = "docs"
    embedder: Any = Field(default=None, repr=False)
    api_key: SecretStr | None = None
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    store: NestedVectorStore | None = Field(default=None, exclude=True)
    places: Places = Field(default_factory=Places, exclude=True, repr=False)

    k: int = Field(default=4, ge=1)
    funnel: str | None = None
    filter: Any = None
    min_score: float | None = Field(default=None, ge=-1, le=1)
    search_type: Literal["similarity", "mmr"] = "similarity"
    fetch_k: int = Field(default=20, ge=1)
    lambda_mult: float = Field(default=0.5, ge=0, le=1)
    include_score: bool = False
    explain: bool = False

    @field_validator("store", mode="before")
    @classmethod
    def _as_vector_store(cls, given: Any) -> Any:
        return NestedVectorStore(given) if isinstance(given, (Store, AsyncStore)) else given

    @field_validator("funnel", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        if isinstance(given, str):
            Funnel.parse(given)
        return str(given) if isinstance(given, Funnel) else given

    @field_validator("filter")
    @classmethod
    def _meant(cls, given: Any) -> Any:
        as_filter(given)
        return given

    @model_validator(mode="after")
    def _one_place(self) -> FunnelRetriever:
        if self.store is None and self.url is None:
            self.url = os.environ.get("NESTVEC_URL")
        if "api_key" in self.options:
            raise ValueError("api_key is a field of its own, so that it stays a secret")
        if (self.store is None) == (self.url is None):
            raise ValueError(
                "a retriever needs url or store, one of them; url may come from NESTVEC_URL"
            )
        return self

    # Serialisation

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Return what is replaced by the names of environment variables."""
        secrets = {"api_key": "QDRANT_API_KEY"}
        if self.url is not None and _has_secrets(self.url):
            secrets["url"] = "NESTVEC_URL"
        return secrets

    def to_json(self) -> Any:
        """Return the configuration; a `store`, or an embedder or filter object, is not written."""
        objects = self.store is not None or isinstance(self.filter, Filter)
        if objects or not isinstance(self.embedder, str | None):
            return self.to_json_not_implemented()
        return super().to_json()

    # Where

    def vectorstore(self) -> NestedVectorStore:
        """Return the vector store that is searched, opened where it is not yet."""
        opened: NestedVectorStore = self.store or self.places.open(self._place, self._connect)
        return opened

    async def avectorstore(self) -> NestedVectorStore:
        """Return what `vectorstore` does without blocking the event loop."""
        opened = self.store or self.places.get(self._place)
        return opened or await run_in_executor(None, self.vectorstore)

    @property
    def _place(self) -> Any:
        embedder = self.embedder if isinstance(self.embedder, str) else id(self.embedder)
        return self.url, self.collection, embedder, self.api_key, repr(self.options)

    def _connect(self) -> NestedVectorStore:
        assert self.url is not None
        options = dict(self.options)
        if self.api_key is not None:
            options["api_key"] = self.api_key.get_secret_value()
        store = connect(self.url, collection=self.collection, embedder=self.embedder, **options)
        return NestedVectorStore(store)

    def close(self) -> None:
        """Let go of what this retriever has opened; the next call opens it again."""
        for opened in self.places.clear():
            opened.close()

    async def aclose(self) -> None:
        """Let go of what this retriever has opened, in both colours."""
        for opened in self.places.clear():
            await opened.aclose()

    # Retrieving

    def _answered(self, queries: Sequence[str], asked: Mapping[str, Any]) -> list[Answer]:
        chosen = _chosen(self, asked)
        opened = chosen.vectorstore()
        return opened.stores.run(_answers(chosen, queries, opened.store.plan))

    async def _aanswered(self, queries: Sequence[str], asked: Mapping[str, Any]) -> list[Answer]:
        chosen = _chosen(self, asked)
        opened = await chosen.avectorstore()
        return await opened.stores.arun(_answers(chosen, queries, opened.store.plan))

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        answer: Answer | None = None,
        **asked: Any,
    ) -> list[Document]:
        documents, told = answer or self._answered([query], asked)[0]
        if run_manager.handlers:
            _note(run_manager, told)
            run_manager.get_child().on_custom_event("nestvec", told, run_id=run_manager.run_id)
        return documents

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        answer: Answer | None = None,
        **asked: Any,
    ) -> list[Document]:
        documents, told = answer or (await self._aanswered([query], asked))[0]
        if run_manager.handlers:
            _note(run_manager, told)
            child = run_manager.get_child()
            await child.on_custom_event("nestvec", told, run_id=run_manager.run_id)
        return documents

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **asked: Any,
    ) -> list[list[Document]]:
        """Retrieve for many queries by one request; each is a run of its own.

        Where that fails each is asked by itself, so that the run that it is about has the error.
        """
        try:
            answers = self._answered(inputs, asked) if inputs else []
        except Exception:  # noqa: BLE001  (of the engine or of an embedder)
            return super().batch(inputs, config, return_exceptions=return_exceptions, **asked)
        runs = zip(inputs, get_config_list(config, len(inputs)), answers, strict=True)
        return [self.invoke(query, each, answer=answer) for query, each, answer in runs]

    async def abatch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **asked: Any,
    ) -> list[list[Document]]:
        try:
            answers = await self._aanswered(inputs, asked) if inputs else []
        except Exception:  # noqa: BLE001  (of the engine or of an embedder)
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **asked
            )
        runs = zip(inputs, get_config_list(config, len(inputs)), answers, strict=True)
        return [await self.ainvoke(query, each, answer=answer) for query, each, answer in runs]

    def _get_ls_params(self, **given: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**given)
        params["ls_vector_store_provider"] = "nestvec"
        return params


def _chosen(retriever: FunnelRetriever, asked: Mapping[str, Any]) -> FunnelRetriever:
    """Return the retriever that one call asks for."""
    if not asked:
        return retriever
    return type(retriever)(**{**dict(retriever), **known(asked, _PER_CALL)})


def _answers(
    asked: FunnelRetriever, queries: Sequence[str], planning: Callable[..., Plan]
) -> Flow[list[Answer]]:
    how: dict[str, Any] = {
        "where": asked.filter,
        "funnel": asked.funnel,
        "min_score": asked.min_score,
        "mmr": (asked.fetch_k, asked.lambda_mult) if asked.search_type == "mmr" else None,
    }
    if asked.explain:
        found = yield from explained(queries, asked.k, **how)
    else:
        found = yield from planned(queries, asked.k, planning=planning, **how)
    return [([_document(hit, asked.include_score) for hit in hits], told) for hits, told in found]


def _has_secrets(url: str) -> bool:
    """Return whether a URL may carry a password: in front of the host, or in what follows "?"."""
    _, _, place = url.partition("://")
    return "@" in place or "?" in place


def _note(run: Any, told: dict[str, Any]) -> None:
    """Add to the metadata of the run, in the tracers (LangSmith's is one) that keep it."""
    from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer  # half a second

    for handler in run.handlers:
        if isinstance(handler, (BaseTracer, AsyncBaseTracer)):
            handler.run_map[str(run.run_id)].add_metadata({"nestvec": told})
