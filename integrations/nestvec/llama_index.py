"""nestvec in LlamaIndex: a vector store, a retriever and an embed model.

    vector_store = NestedVectorStore(nestvec.connect("edge:./papers"))
    index = VectorStoreIndex.from_vector_store(vector_store, vector_store.embed_model)
    retriever = FunnelRetriever(vector_store, similarity_top_k=6, funnel="64:200")

Needs `pip install 'nestvec[llama-index]'`.
"""

from __future__ import annotations

import json
import math
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from operator import methodcaller
from typing import Any

from .adapting import (
    Prefixes,
    Stores,
    awaited,
    blocking,
    diverse,
    explained,
    known,
    planned,
)
from .embedders.wrappers import LlamaIndexEmbedder
from .errors import (
    CollectionDamaged,
    ConfigError,
    EmbedderError,
    MissingExtra,
    NestvecError,
    RecordError,
)
from .filter_forms import as_filter
from .filter_nodes import Keyed
from .filters import And, Exists, F, Filter, Not, Or
from .flow import Flow
from .funnel import Funnel, check_count
from .records import Hit, Record
from .sources import iterator
from .store import AsyncStore, Store, aconnect, connect

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
    from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
    from llama_index.core.instrumentation.events.base import BaseEvent  # type: ignore[attr-defined]
    from llama_index.core.schema import (
        BaseNode,
        Document,
        ImageDocument,
        ImageNode,
        IndexNode,
        MediaResource,
        Node,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
except ModuleNotFoundError as error:
    raise MissingExtra("llama-index-core", "llama-index") from error

__all__ = ["FunnelEvent", "FunnelRetriever", "MatryoshkaEmbedding", "NestedVectorStore"]

dispatcher = get_dispatcher(__name__)


class MatryoshkaEmbedding(BaseEmbedding):
    """Any nestvec embedder as LlamaIndex's: full vectors, or their first `dim` numbers.

    `embedder` is what `connect` takes, which takes this too. Queries and texts are embedded each
    in the embedder's own way. Vectors have unit length, at any width.
    """

    embedder: Any = Field(default="static", description="What `nestvec.connect` takes.")
    dim: int = Field(description="How many numbers a vector has.")
    _prefixes: Prefixes = PrivateAttr()

    def __init__(
        self,
        embedder: Any = "static",
        *,
        dim: int | None = None,
        embed_batch_size: int = 64,
        **options: Any,
    ) -> None:
        prefixes = Prefixes(embedder, dim=dim)
        options = known(options, tuple(type(self).model_fields))
        options |= {"model_name": prefixes.name, "embed_batch_size": embed_batch_size}
        super().__init__(**{**options, "embedder": prefixes.embedder, "dim": prefixes.dim})
        self._prefixes = prefixes

    @field_serializer("embedder")
    def _named(self, embedder: Any) -> str:
        name: str = embedder.name
        return name

    @classmethod
    def class_name(cls) -> str:
        return "MatryoshkaEmbedding"

    # As nestvec's Embedder, so that a collection records the model and not this class

    @property
    def name(self) -> str:
        """The embedder's name, and the width where it is not the full one."""
        return self._prefixes.name

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text."""
        return self._prefixes.embed_documents(list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self._prefixes.embed_query(text)

    async def aembed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text."""
        return await self._prefixes.aembed_documents(list(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return await self._prefixes.aembed_query(text)

    # As LlamaIndex's

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.aembed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self.aembed_documents(texts)


# Nodes as records. A node's text is the record's, and its metadata are the record's too, so that
# filters and other readers find them under their own names; the rest is under one key of its own.

#: The metadata key of what else a node is.
REST = "_llama_index"
#: Where in it the id of the node's source document is, for filters.
REF_DOC_ID = f"{REST}.ref_doc_id"

_KINDS: dict[str, type[BaseNode]] = {
    kind.class_name(): kind
    for kind in (TextNode, IndexNode, ImageNode, Node, Document, ImageDocument)
}


def _records(nodes: Any) -> Iterator[Record] | AsyncIterator[Record]:
    """Return the records of nodes, which may be a generator of either kind."""
    if isinstance(nodes, BaseNode):
        raise RecordError("nodes is a list of nodes, got one node; write [node]")
    items = iterator(nodes)
    return _arecords(items) if isinstance(items, AsyncIterator) else map(_record, items)


async def _arecords(nodes: AsyncIterator[Any]) -> AsyncIterator[Record]:
    async for node in nodes:
        yield _record(node)


def _record(node: Any) -> Record:
    """Return the record of a node. Raises RecordError, which names the node."""
    if not isinstance(node, BaseNode):
        raise RecordError(f"expected LlamaIndex nodes, got {type(node)}")
    if node.embedding is None:
        raise RecordError(
            f"node {node.node_id!r} has no embedding; VectorStoreIndex makes it, and so does an "
            "embed model at the end of an IngestionPipeline"
        )
    if REST in node.metadata:
        raise RecordError(
            f"node {node.node_id!r}: metadata has {REST!r}, where the rest of a node is kept; "
            "rename the key"
        )
    try:
        rest = {"node": _packed(node), "order": json.dumps(_order(node.metadata))}
        if (ref_doc_id := node.ref_doc_id) is not None:
            rest["ref_doc_id"] = ref_doc_id
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"node {node.node_id!r} cannot be written as JSON: {error}") from error
    return Record(node.node_id, node.get_content(), {**node.metadata, REST: rest}, node.embedding)


def _packed(node: BaseNode, whole: bool = False) -> str:
    """Return as JSON what a record has no place for, or the whole of a node.

    Fields that have their default are left out. Raises ValueError or TypeError.
    """
    text = node.get_content()
    apart: dict[str, Any] = {"obj": True} if isinstance(node, IndexNode) else {}
    if not whole:
        apart |= dict.fromkeys(("id_", "embedding", "metadata"), True)
        if getattr(node, "text", None) == text:
            apart["text"] = True
        if isinstance(node, Node) and text:
            apart["text_resource"] = {"text"}
    written = node.model_dump_json(exclude=apart, exclude_defaults=True)
    further: dict[str, Any] = {}
    if isinstance(node, Node):
        # LlamaIndex leaves the bytes of images, sounds and films out of what it writes.
        for name in type(node).model_fields:
            resource = getattr(node, name)
            if isinstance(resource, MediaResource) and resource.data is not None:
                further[name] = {"data": resource.data.decode("latin-1")}
    if isinstance(node, IndexNode) and node.obj is not None:
        further["obj"] = _packed_object(node.obj)
    if not further:
        return written
    fields = json.loads(written)
    return json.dumps(fields | {name: _over(fields, name, new) for name, new in further.items()})


def _over(fields: Mapping[str, Any], name: str, new: Any) -> Any:
    old = fields.get(name)
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _packed_object(obj: Any) -> dict[str, Any]:
    """Return what an IndexNode leads to, a node or anything that is JSON, as JSON."""
    if isinstance(obj, BaseNode):
        return {"node": _packed(obj, whole=True)}
    return {"json": obj.model_dump(mode="json") if hasattr(obj, "model_dump") else obj}


def _order(value: Any) -> Any:
    """Return the keys of metadata in their order, which makes the hash; engines may lose it."""
    if isinstance(value, (str, int, float)):  # most of metadata, so asked first
        return 0
    if isinstance(value, Mapping):
        return {key: _order(item) for key, item in value.items()}
    return [_order(item) for item in value] if isinstance(value, list) else 0


def _ordered(value: Any, order: Any) -> Any:
    """Return metadata with its keys in this order; others come last."""
    if isinstance(value, dict) and isinstance(order, dict):
        first = {key: _ordered(value[key], order[key]) for key in order if key in value}
        return first | {key: item for key, item in value.items() if key not in order}
    if isinstance(value, list) and isinstance(order, list) and len(value) == len(order):
        return [_ordered(item, below) for item, below in zip(value, order, strict=True)]
    return value


def _node(found: Hit | Record) -> BaseNode:
    """Return the node that was stored; of a record that is none, a TextNode."""
    metadata = dict(found.metadata)
    rest = metadata.pop(REST, None)
    if rest is None:
        return TextNode(id_=found.id, text=found.text, metadata=metadata)
    try:
        metadata = _ordered(metadata, json.loads(rest["order"]))
        return _unpacked(rest["node"], found.text, id_=found.id, metadata=metadata)
    except NestvecError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CollectionDamaged(
            f"record {found.id!r}: {REST!r} in its metadata is not what was written there "
            f"({type(error).__name__}); add the node again"
        ) from error


def _unpacked(written: str, text: str = "", **own: Any) -> BaseNode:
    fields = json.loads(written) | own
    kind = _kind(fields.pop("class_name"))
    if not issubclass(kind, Node):
        fields.setdefault("text", text)
    elif text:
        fields["text_resource"] = {**(fields.get("text_resource") or {}), "text": text}
    obj = fields.pop("obj", None) if issubclass(kind, IndexNode) else None
    node = kind(**fields)
    if isinstance(node, IndexNode) and obj is not None:
        node.obj = _unpacked(obj["node"]) if "node" in obj else obj["json"]
    return node


def _kind(name: str) -> type[BaseNode]:
    """Return the class of nodes with a `class_name`. Raises ConfigError where it is not loaded."""
    if name in _KINDS:
        return _KINDS[name]
    loaded = BaseNode.__subclasses__()
    for kind in loaded:
        loaded += kind.__subclasses__()
    found = [kind for kind in loaded if kind.class_name() == name]
    if not found:
        raise ConfigError(f"a node is a {name!r}, which is not known; import its class first")
    return found[-1]  # a notebook may have defined it again


# What the methods of the vector store do, as flows that either colour runs.


def _added(nodes: Iterable[BaseNode] | AsyncIterable[BaseNode], **options: Any) -> Flow[list[str]]:
    """Store nodes, which have their embeddings; return their ids in order.

    A generator is read batch by batch (`batch_size`). Raises RecordError, which names the node.
    """
    asked = known(options, ("batch_size",))
    # Documents are deleted and replaced by this key; where it is indexed already nothing is done.
    yield methodcaller("index_metadata", REF_DOC_ID, "str")
    added: list[str] = yield methodcaller("add_records", _records(nodes), **asked)
    return added


def _deleted(ref_doc_id: str, **options: Any) -> Flow[None]:
    """Delete the nodes of a source document."""
    known(options, ())
    if not isinstance(ref_doc_id, str):
        raise RecordError(f"ref_doc_id is the id of a document, got {ref_doc_id!r}")
    yield methodcaller("delete", where=F(REF_DOC_ID) == ref_doc_id)


def _nodes_deleted(
    node_ids: Iterable[str] | None = None, filters: Any = None, **options: Any
) -> Flow[None]:
    """Delete nodes by their ids, by filters, or those that have both.

    Raises RecordError on neither, and on filters that have no condition.
    """
    known(options, ())
    if node_ids is None and filters is None:
        raise RecordError(
            "delete_nodes needs node_ids or filters; nothing was deleted. clear() deletes all"
        )
    if filters is None:
        yield methodcaller("delete", node_ids)
        return
    where = _meant(filters)
    if not _has_condition(where):
        raise RecordError("filters has no condition; nothing was deleted. clear() deletes all")
    ids = _listed(node_ids)
    yield methodcaller("delete", where=_all(where, _among(F.id_in, ids)))


def _has_condition(where: Filter) -> bool:
    if isinstance(where, Not):
        return _has_condition(where.part)
    if isinstance(where, (And, Or)):
        return any(map(_has_condition, where.parts))
    return True


def _listed(node_ids: Iterable[str] | None) -> list[str] | None:
    if isinstance(node_ids, str):
        raise RecordError(f"node_ids is a list of ids, got one string; write [{node_ids!r}]")
    return None if node_ids is None else list(node_ids)


def _cleared() -> Flow[None]:
    """Delete all nodes; the collection and its indexes stay."""
    yield methodcaller("delete", where=And(()))


def _got(
    node_ids: Iterable[str] | None = None, filters: Any = None, *, embeddings: bool = False
) -> Flow[list[BaseNode]]:
    """Return nodes by their ids, in their order, by filters, those that have both, or all.

    Ids that there are not are left out. With `embeddings=True` each node has its full vector, of
    unit length.
    """
    ids = _listed(node_ids)
    where = None if filters is None else _meant(filters)
    if ids is not None and where is None:
        records = yield methodcaller("get", ids, vectors=embeddings)
    else:
        where = _all(where, _among(F.id_in, ids))
        records = yield methodcaller("scan", where, vectors=embeddings)
    if ids is not None:
        found = {record.id: record for record in records}
        records = [found[id] for id in ids if id in found]
    nodes = []
    for record in records:
        nodes.append(_node(record))
        if embeddings:
            nodes[-1].embedding = record.vector.tolist()
    return nodes


_MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
#: What a query may hold for other modes and other stores.
_UNUSED = ("alpha", "sparse_top_k", "hybrid_top_k", "output_fields", "embedding_field")
_SEARCH = ("funnel", "min_score")
_DIVERSE = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")


def _queried(query: VectorStoreQuery, **options: Any) -> Flow[VectorStoreQueryResult]:
    """Return the nodes nearest to a query, with their cosines.

    Options are `funnel` and `min_score`, as in `Store.search`, and `offset`; with MMR, in place
    of the offset, `mmr_threshold` (1 is relevance alone, 0 diversity alone; 0.5), and
    `mmr_prefetch_factor` (4) times the nodes that are asked for, or `mmr_prefetch_k` nodes, to
    choose from. Raises NotImplementedError in other modes, ConfigError on what would be ignored.
    """
    hits = yield from _found(query, options)
    return VectorStoreQueryResult(
        nodes=[_node(hit) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.id for hit in hits],
    )


def _found(query: VectorStoreQuery, options: Mapping[str, Any]) -> Flow[list[Hit]]:
    if not isinstance(query, VectorStoreQuery):
        raise ConfigError(f"query takes a VectorStoreQuery, got {type(query)}")
    mode = _mode(query.mode)
    for name in _UNUSED:
        if getattr(query, name, None) is not None:
            raise ConfigError(f"{name} has no meaning in mode {mode.value!r}; leave it out")
    text = query.query_embedding if query.query_embedding is not None else query.query_str
    if text is None:
        raise ConfigError("a query needs query_embedding or query_str")
    k, where = check_count("similarity_top_k", query.similarity_top_k, 1), _restricted(query)
    threshold = getattr(query, "mmr_threshold", None)
    if mode is VectorStoreQueryMode.DEFAULT:
        asked = known(options, (*_SEARCH, "offset"))
        if threshold is not None:
            raise ConfigError("mmr_threshold has no meaning in mode 'default'; leave it out")
        hits: list[Hit] = yield methodcaller("search", text, k, where=where, **asked)
        return hits
    asked = known(options, (*_SEARCH, *_DIVERSE))
    given = {name: asked.pop(name, None) for name in _DIVERSE}
    if threshold is not None:
        if given["mmr_threshold"] not in (None, threshold):
            raise ConfigError("mmr_threshold is given twice, by the query and as an option")
        given["mmr_threshold"] = threshold
    fetch_k, lambda_mult = _mmr(k, *given.values())
    return (
        yield from diverse(text, k, fetch_k=fetch_k, lambda_mult=lambda_mult, where=where, **asked)
    )


def _mode(given: Any) -> VectorStoreQueryMode:
    """Return a mode. Raises NotImplementedError, which names those that work."""
    mode = VectorStoreQueryMode(given)
    if mode not in _MODES:
        raise NotImplementedError(
            f"mode {mode.value!r} is not implemented; NestedVectorStore has the modes "
            f"{' and '.join(repr(each.value) for each in _MODES)}"
        )
    return mode


def _mmr(k: int, threshold: Any, factor: Any, fetch_k: Any) -> tuple[int, float]:
    """Return from how many candidates to choose, and lambda. Raises ConfigError."""
    threshold = 0.5 if threshold is None else threshold
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise ConfigError(f"mmr_threshold is between 0 and 1, got {threshold!r}")
    if factor is not None and fetch_k is not None:
        raise ConfigError("mmr_prefetch_factor and mmr_prefetch_k exclude each other; give one")
    if fetch_k is not None:
        return check_count("mmr_prefetch_k", fetch_k, 1), threshold
    factor = 4 if factor is None else factor
    if not isinstance(factor, (int, float)) or not 1 <= factor < math.inf:
        raise ConfigError(f"mmr_prefetch_factor is a number from 1 on, got {factor!r}")
    return math.ceil(k * factor), threshold


def _restricted(query: VectorStoreQuery) -> Filter | None:
    """Return what a query's documents, nodes and filters limit it to."""
    return _all(
        _among(F(REF_DOC_ID).in_, query.doc_ids),
        # VectorIndexRetriever gives an empty list where the index keeps no nodes of its own.
        _among(F.id_in, query.node_ids or None),
        None if query.filters is None else _meant(query.filters),
    )


def _among(one_of: Callable[[Sequence[str]], Filter], given: Sequence[str] | None) -> Filter | None:
    """Return the filter that something is one of those given, which nothing is of none."""
    if given is None:
        return None
    return one_of(given) if given else Or(())


def _all(*given: Filter | None) -> Filter | None:
    parts = tuple(part for part in given if part is not None)
    return And(parts) if len(parts) > 1 else parts[0] if parts else None


#: The names that other stores give the id of the source document among the metadata.
_ALIASES = ("ref_doc_id", "doc_id", "document_id")


def _meant(filters: Any) -> Filter:
    """Return MetadataFilters, a dict or a nestvec filter as a filter.

    In MetadataFilters a key that other stores keep the source document's id under means that id,
    for a node whose metadata have no such key of their own.
    """
    where = as_filter(filters)
    assert where is not None
    return _sourced(where) if where is not filters else where


def _sourced(where: Filter) -> Filter:
    if isinstance(where, Not):
        return Not(_sourced(where.part))
    if isinstance(where, (And, Or)):
        return type(where)(tuple(map(_sourced, where.parts)))
    if isinstance(where, Keyed) and where.key in _ALIASES:
        own = Exists(where.key)
        return (own & where) | (~own & replace(where, key=REF_DOC_ID))
    return where


class NestedVectorStore(BasePydanticVectorStore):
    """A collection of nested vectors as LlamaIndex's vector store, blocking and asynchronous.

    Takes a Store or an AsyncStore, which serves both colours, or one of each. Filters are
    MetadataFilters of any nesting, or nestvec's; similarities are the cosines of the full
    vectors. `to_dict` says where the collection is, without secrets, and `from_dict` opens it.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False

    url: str
    collection: str
    options: dict[str, Any] = Field(default_factory=dict)

    _stores: Stores = PrivateAttr()

    def __init__(self, store: Store | AsyncStore, astore: AsyncStore | None = None) -> None:
        stores = Stores(store, astore)
        where: dict[str, Any] = {
            "url": store.url,
            "collection": store.collection,
            "options": store.options,
        }
        super().__init__(**where)
        self._stores = stores

    add, async_add = blocking(_added), awaited(_added)
    delete, adelete = blocking(_deleted), awaited(_deleted)
    delete_nodes, adelete_nodes = blocking(_nodes_deleted), awaited(_nodes_deleted)
    clear, aclear = blocking(_cleared), awaited(_cleared)
    get_nodes, aget_nodes = blocking(_got), awaited(_got)
    query, aquery = blocking(_queried), awaited(_queried)

    @classmethod
    def class_name(cls) -> str:
        return "NestedVectorStore"

    @classmethod
    def from_params(cls, url: str, **options: Any) -> NestedVectorStore:
        """Open a collection, or make it where `dims` is given; all is as in `nestvec.connect`."""
        return cls(connect(url, **options))

    @classmethod
    async def afrom_params(cls, url: str, **options: Any) -> NestedVectorStore:
        """Open a collection as `from_params` does, for asyncio."""
        return cls(await aconnect(url, **options))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **kwargs: Any) -> NestedVectorStore:
        """Open the collection that `to_dict` told of.

        Secrets, and an embedder that the collection does not know by itself, are given by name,
        as in `from_dict(data, api_key=…, embedder=…)`; so is a `url` that has a password.
        """
        given = {**data, **data.get("options", {}), **kwargs}
        for name in ("options", "class_name", *BasePydanticVectorStore.model_fields):
            given.pop(name, None)
        given.pop("flat_metadata", None)
        return cls.from_params(**given)

    def __reduce__(self) -> Any:
        return type(self).from_dict, (self.to_dict(),)

    @property
    def stores(self) -> Stores:
        """The collection in both colours."""
        return self._stores

    @property
    def client(self) -> Store:
        """The Store."""
        return self._stores.store

    @property
    def aclient(self) -> AsyncStore:
        """The AsyncStore."""
        return self._stores.astore

    @property
    def embed_model(self) -> BaseEmbedding | None:
        """The embedder as LlamaIndex's, or None where there is none.

        It is the one that was given, unless its model wants something done before a prefix is cut.
        """
        embedder = self.client.embedder
        if embedder is None or isinstance(embedder, BaseEmbedding):
            return embedder
        if isinstance(embedder, LlamaIndexEmbedder) and not embedder.prepares:
            inner: BaseEmbedding = embedder.inner
            return inner
        return MatryoshkaEmbedding(embedder)

    def close(self) -> None:
        """Let go of the engine, where only blocking methods were used."""
        self._stores.close()

    async def aclose(self) -> None:
        """Let go of the engine in both colours."""
        await self._stores.aclose()


class FunnelEvent(BaseEvent):
    """What a FunnelRetriever did for a query: its plan and its time, or every stage of it."""

    query_str: str
    trace: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        return "FunnelEvent"


#: The metadata key of a trace.
TRACE = "nestvec"


class FunnelRetriever(BaseRetriever):
    """A search by a plan of one's own, without an index.

    Takes a NestedVectorStore, a Store or an AsyncStore. The query is embedded by `embed_model`,
    by default by the collection's own embedder. `mode` is "default" or "mmr".

    Each retrieval dispatches a FunnelEvent with its plan and its time. With `explain=True` that
    is the trace of `Store.explain`: candidates and time stage by stage, and the overlap with an
    exact search, for several times the work. With `include_trace=True` each node has it too, as
    `nestvec` in its metadata, and keeps it from models.
    """

    def __init__(
        self,
        store: NestedVectorStore | Store | AsyncStore,
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        funnel: Funnel | str | None = None,
        filters: Any = None,
        min_score: float | None = None,
        mode: str | VectorStoreQueryMode = VectorStoreQueryMode.DEFAULT,
        mmr_threshold: float | None = None,
        mmr_prefetch_factor: float | None = None,
        explain: bool = False,
        include_trace: bool = False,
        embed_model: BaseEmbedding | None = None,
        **options: Any,
    ) -> None:
        self.similarity_top_k = check_count("similarity_top_k", similarity_top_k, 1)
        self.mode = _mode(mode)
        self.mmr = None
        if self.mode is VectorStoreQueryMode.MMR:
            self.mmr = _mmr(similarity_top_k, mmr_threshold, mmr_prefetch_factor, None)
        elif mmr_threshold is not None or mmr_prefetch_factor is not None:
            raise ConfigError("mmr_threshold and mmr_prefetch_factor need mode='mmr'")
        self.vector_store = (
            store if isinstance(store, NestedVectorStore) else NestedVectorStore(store)
        )
        self.embed_model = embed_model or self.vector_store.embed_model
        self.asked: dict[str, Any] = {
            "where": None if filters is None else _meant(filters),
            "funnel": Funnel.parse(funnel) if isinstance(funnel, str) else funnel,
            "min_score": min_score,
        }
        self.explain, self.include_trace = explain, include_trace
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vector = query_bundle.embedding
        if vector is None:
            vector = self._model().get_agg_embedding_from_queries(_texts(query_bundle))
        return self._told(query_bundle, *self.vector_store.stores.run(self._answer(vector)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vector = query_bundle.embedding
        if vector is None:
            vector = await self._model().aget_agg_embedding_from_queries(_texts(query_bundle))
        return self._told(query_bundle, *await self.vector_store.stores.arun(self._answer(vector)))

    def _model(self) -> BaseEmbedding:
        if self.embed_model is None:
            raise EmbedderError(
                "a text needs an embedder to be searched for; give embed_model, or open the "
                "collection with its embedder"
            )
        return self.embed_model

    def _answer(self, vector: Any) -> Flow[tuple[list[Hit], dict[str, Any]]]:
        how = {**self.asked, "mmr": self.mmr}
        if self.explain:
            found = yield from explained([vector], self.similarity_top_k, **how)
        else:
            planning = self.vector_store.client.plan
            found = yield from planned([vector], self.similarity_top_k, planning=planning, **how)
        return found[0]

    def _told(
        self, query: QueryBundle, hits: list[Hit], trace: dict[str, Any]
    ) -> list[NodeWithScore]:
        dispatcher.event(FunnelEvent(query_str=query.query_str, trace=trace))
        found = [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]
        if self.include_trace:
            for each in found:
                _note(each.node, trace)
        return found


def _texts(query: QueryBundle) -> list[str]:
    """Return what is embedded for a query. Raises RecordError where there is nothing."""
    texts: list[str] = query.embedding_strs
    if not all(text.strip() for text in texts or [""]):
        raise RecordError("query: text is blank, so it cannot be embedded")
    return texts


def _note(node: BaseNode, trace: dict[str, Any]) -> None:
    if TRACE in node.metadata:
        raise ConfigError(
            f"include_trace: the metadata of {node.node_id!r} has a {TRACE!r} of its own; take "
            "the trace from the FunnelEvent"
        )
    node.metadata[TRACE] = trace
    node.excluded_llm_metadata_keys.append(TRACE)
    node.excluded_embed_metadata_keys.append(TRACE)
