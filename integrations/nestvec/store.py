"""What the user holds: connect, Store, and AsyncStore with the same names, awaited."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import fields
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from .adaptors.base import Adaptor
from .backends.base import Backend
from .certificate import Tuned
from .collection import Collection, EmbedderCall, Width
from .embedders import Embedder
from .filter_forms import Where, as_filter
from .filters import Filter
from .flow import Flow, arun, run
from .funnel import Funnel, Plan
from .mending import repair, verify
from .nesting import Nesting
from .opening import Place
from .records import Record
from .reshaping import add_field, drop_field
from .secrets import hidden
from .sources import Take, atake, take
from .tuning import tune

__all__ = ["AsyncStore", "Store", "aconnect", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


def connect(
    url: str,
    *,
    collection: str = "docs",
    dims: str | Iterable[int | str] | None = None,
    embedder: Any = None,
    adaptor: Any = None,
    dim: int | None = None,
    batch_size: int = 512,
    **options: Any,
) -> Store:
    """Open a collection, or make it where there is none and `dims` says which fields it has.

    `url` is `memory:`, `edge:DIRECTORY`, `postgresql://…`, `postgresql+embedded:DIRECTORY`, a
    Qdrant server's `http(s)://HOST:6333`, or `qdrant+local:DIRECTORY`. `dims` are prefix lengths,
    each with a precision if it is not float32: `(64, "256:int8", "full:binary")`; the full vector
    is always kept, and `"full:float16"` keeps it in half precision. None takes what the collection
    has.
    `embedder` is a spec string (`"static"`, `"st:NAME_OR_DIR[?layers=13]"`,
    `"openai:MODEL[@BASE_URL]"`), an Embedder, a LangChain Embeddings, a LlamaIndex BaseEmbedding,
    or a function of a list of texts; None takes the one that the collection records. Without one,
    `dim` gives the width of the vectors that records bring.
    `adaptor` is an Adaptor, or the file of one: it adapts documents and queries alike, and from
    then on the collection is opened with no other one and never without. `batch_size` is how many
    records an ingest holds at once. Other options are the engine's: on Edge `m` and `ef_construct`
    of its graph, the others' are in docs/postgres.md and docs/servers.md.

    Raises ConfigError, NestingError, AdaptorError, CollectionMissing, CollectionMismatch,
    CollectionDamaged, EmbedderError, or BackendError.
    """
    place = Place.of(
        url, collection=collection, embedder=embedder, adaptor=adaptor, batch_size=batch_size,
        options=options,
    )  # fmt: skip
    backend = place.backend()
    try:
        flow = place.opening(backend, dims, dim)
        return Store(run(flow, lambda request: _opening(backend, request)), place)
    except BaseException as error:
        backend.close()
        hidden(error, *backend.secrets)
        raise


def aconnect(
    url: str,
    *,
    collection: str = "docs",
    dims: str | Iterable[int | str] | None = None,
    embedder: Any = None,
    adaptor: Any = None,
    dim: int | None = None,
    batch_size: int = 512,
    **options: Any,
) -> Opening:
    """Open a collection for asyncio; everything is as in `connect`.

    To be awaited, or entered as it is: `async with aconnect(…) as store`.
    """

    async def opened() -> AsyncStore:
        place = Place.of(
            url, collection=collection, embedder=embedder, adaptor=adaptor, batch_size=batch_size,
            options=options,
        )  # fmt: skip
        backend = place.backend()
        try:
            flow = place.opening(backend, dims, dim)
            made = await arun(flow, lambda request: _aopening(backend, request))
        except BaseException as error:
            await backend.aclose()
            hidden(error, *backend.secrets)
            raise
        return AsyncStore(made, place)

    return Opening(opened())


class Opening(Coroutine[Any, Any, "AsyncStore"]):
    """A collection that is being opened for asyncio: awaited, or entered with `async with`."""

    def __init__(self, opening: Coroutine[Any, Any, AsyncStore]) -> None:
        self._opening = opening
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, Any, AsyncStore]:
        return self._opening.__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._opening
        return self._store

    async def __aexit__(self, *_: object) -> None:
        assert self._store is not None
        await self._store.close()

    # What asyncio.run and create_task ask of a coroutine.

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        return self._opening.throw(*error)

    def close(self) -> None:
        self._opening.close()


def _opening(backend: Backend, request: Any) -> Any:
    if isinstance(request, Width):
        return request.embedder.dim
    return backend.send(request)


async def _aopening(backend: Backend, request: Any) -> Any:
    if isinstance(request, Width):
        return await _in_thread(getattr, request.embedder, "dim")
    return await backend.asend(request)


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    from asyncio import to_thread  # half of what importing nestvec would take, numpy aside

    return await to_thread(function, *args)


def _blocking(
    flow: Callable[Concatenate[Collection, P], Flow[T]],
) -> Callable[Concatenate[Store, P], T]:
    """Return the method of Store that drives a flow of Collection."""

    @wraps(flow)
    def method(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(flow(self._collection, *args, **kwargs))

    return method


def _awaited(
    flow: Callable[Concatenate[Collection, P], Flow[T]],
) -> Callable[Concatenate[AsyncStore, P], Coroutine[Any, Any, T]]:
    """Return the method of AsyncStore that drives a flow of Collection."""

    @wraps(flow)
    async def method(self: AsyncStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._arun(flow(self._collection, *args, **kwargs))

    return method


class _Opened:
    """An open collection, whichever way it is used."""

    def __init__(self, collection: Collection, place: Place) -> None:
        self._collection, self._place = collection, place

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self  # the connections are shared, as between threads

    @property
    def embedder(self) -> Embedder | None:
        """What makes the vectors of texts; None where the store was opened without one."""
        return self._collection.embedder

    @property
    def adaptor(self) -> Adaptor | None:
        """What documents and queries are adapted by; None where the collection has none."""
        return self._collection.adaptor

    @property
    def nesting(self) -> Nesting:
        """The fields of the collection, fewest bytes first, full last."""
        return self._collection.nesting

    def plan(self, funnel: Funnel | str | None = None, k: int = 10, offset: int = 0) -> Plan:
        """Return the plan that a search of this funnel runs; None is the collection's own.

        Raises FunnelError.
        """
        return self._collection.plan(funnel, k, offset)

    @property
    def tuned(self) -> Tuned | None:
        """The measured plan that is the collection's default, None where it was not tuned."""
        return self._collection.tuned

    @property
    def url(self) -> str:
        """Where the collection is, without secrets; paths are absolute."""
        return self._collection.backend.place

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._collection.backend.collection

    @property
    def options(self) -> dict[str, Any]:
        """The engine's options that are not its defaults, without secrets."""
        chosen = self._collection.backend.options
        shown = {field.name: getattr(chosen, field.name) for field in fields(chosen) if field.repr}
        usual = type(chosen)()
        return {name: value for name, value in shown.items() if value != getattr(usual, name)}

    def __repr__(self) -> str:
        backend, nesting = self._collection.backend, self._collection.nesting
        return f"<{type(self).__name__} {backend.collection!r} in {backend.url}: dims {nesting}>"


class Store(_Opened):
    """An open collection; also a context manager that closes it. Safe to share between threads.

    A pickle of it holds what it was opened with, secrets included, and opens it again.
    """

    add = _blocking(Collection.add)
    add_records = _blocking(Collection.add_records)
    search = _blocking(Collection.search)
    search_many = _blocking(Collection.search_many)
    explain = _blocking(Collection.explain)
    get = _blocking(Collection.get)
    delete = _blocking(Collection.delete)
    create_index = _blocking(Collection.create_index)
    count = _blocking(Collection.count)
    index_metadata = _blocking(Collection.index_metadata)
    info = _blocking(Collection.info)
    tune = _blocking(tune)
    add_field = _blocking(add_field)
    drop_field = _blocking(drop_field)
    verify = _blocking(verify)
    repair = _blocking(repair)
    drop = _blocking(Collection.drop)

    def scan(self, where: Where | None = None, *, vectors: bool = False) -> Iterator[Record]:
        """Return an iterator over all documents that match, in no particular order."""
        return self._scan(as_filter(where), vectors)

    def _scan(self, where: Filter | None, vectors: bool) -> Iterator[Record]:
        after = None
        while True:
            records, after = self._run(self._collection.page(where, after, vectors))
            yield from records
            if after is None:
                return

    def as_async(self) -> AsyncStore:
        """Return the same open collection for asyncio.

        Engines keep connections of each colour, so what was used in both is closed in both.
        """
        return AsyncStore(self._collection, self._place)

    def close(self) -> None:
        """Let go of the engine, and of an embedder that was made here; safe to call twice."""
        self._collection.backend.close()
        if close := getattr(self._collection.made, "close", None):
            close()

    def __reduce__(self) -> Any:
        self._place.check_lasting()
        return _again, (self._place,)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        try:
            return run(flow, self._send)
        except Exception as error:
            hidden(error, *self._collection.backend.secrets)
            raise

    def _send(self, request: Any) -> Any:
        if isinstance(request, Take):
            return take(request)
        if isinstance(request, EmbedderCall):
            return getattr(self._collection.embedder, request.method)(*request.args)
        return self._collection.backend.send(request)


class AsyncStore(_Opened):
    """An open collection for asyncio: the names of Store, awaited; also a context manager.

    It pickles as a Store does; what opens it again blocks.
    """

    #: Whether it has blocking connections of its own, which are closed with it.
    _blocking = False

    add = _awaited(Collection.add)
    add_records = _awaited(Collection.add_records)
    search = _awaited(Collection.search)
    search_many = _awaited(Collection.search_many)
    explain = _awaited(Collection.explain)
    get = _awaited(Collection.get)
    delete = _awaited(Collection.delete)
    create_index = _awaited(Collection.create_index)
    count = _awaited(Collection.count)
    index_metadata = _awaited(Collection.index_metadata)
    info = _awaited(Collection.info)
    tune = _awaited(tune)
    add_field = _awaited(add_field)
    drop_field = _awaited(drop_field)
    verify = _awaited(verify)
    repair = _awaited(repair)
    drop = _awaited(Collection.drop)

    def scan(self, where: Where | None = None, *, vectors: bool = False) -> AsyncIterator[Record]:
        """Return an async iterator over all documents that match, in no particular order."""
        return self._scan(as_filter(where), vectors)

    async def _scan(self, where: Filter | None, vectors: bool) -> AsyncIterator[Record]:
        after = None
        while True:
            records, after = await self._arun(self._collection.page(where, after, vectors))
            for record in records:
                yield record
            if after is None:
                return

    def as_sync(self) -> Store:
        """Return the same open collection, blocking; `Store.as_async` says how it is closed."""
        return Store(self._collection, self._place)

    async def close(self) -> None:
        """Let go of the engine, and of an embedder that was made here; safe to call twice."""
        await self._collection.backend.aclose()
        if self._blocking:
            await _in_thread(self._collection.backend.close)
        made = self._collection.made
        if aclose := getattr(made, "aclose", None):
            await aclose()
        elif close := getattr(made, "close", None):
            close()

    def __reduce__(self) -> Any:
        self._place.check_lasting()
        return _aagain, (self._place,)

    async def __aenter__(self) -> AsyncStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _arun(self, flow: Flow[T]) -> T:
        try:
            return await arun(flow, self._asend)
        except Exception as error:
            hidden(error, *self._collection.backend.secrets)
            raise

    async def _asend(self, request: Any) -> Any:
        if isinstance(request, Take):
            return await atake(request)
        if isinstance(request, EmbedderCall):
            return await self._embed(request)
        return await self._collection.backend.asend(request)

    async def _embed(self, request: EmbedderCall) -> Any:
        embedder = self._collection.embedder
        native: Callable[..., Awaitable[Any]] | None
        if native := getattr(embedder, f"a{request.method}", None):
            return await native(*request.args)
        return await _in_thread(getattr(embedder, request.method), *request.args)


def _again(place: Place) -> Store:
    """Open what a pickle tells of."""
    return connect(
        place.url, collection=place.collection, embedder=place.embedder, adaptor=place.adaptor,
        batch_size=place.batch_size, **place.options,
    )  # fmt: skip


def _aagain(place: Place) -> AsyncStore:
    store = _again(place).as_async()
    store._blocking = True  # noqa: SLF001
    return store
