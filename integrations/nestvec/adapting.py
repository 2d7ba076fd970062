"""What the framework adapters have in common: searches as flows for either colour.

A request of these flows is a call of a method of the store, `methodcaller("search", …)`:
`Stores.run` makes it on a Store, `Stores.arun` on an AsyncStore.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from operator import methodcaller
from threading import Lock, current_thread, main_thread
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

import numpy as np

from .embedders import resolve
from .errors import ConfigError, NestingError, RecordError
from .flow import Flow, arun, run
from .funnel import Plan
from .nesting import unit_rows
from .records import Hit, Record, Trace
from .store import AsyncStore, Store

__all__ = [
    "Places", "Prefixes", "Stores", "awaited", "blocking", "deleted", "diverse", "explained",
    "known", "planned",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


class Stores:
    """A collection in both colours, and what performs flows on it.

    Asynchronous connections belong to one event loop. That is the loop that an AsyncStore was
    given in, else the main thread's when it first awaits something. In any other loop, such as
    those that a framework makes for a single call, the Store does the work in a thread.
    """

    def __init__(self, store: Store | AsyncStore, astore: AsyncStore | None = None) -> None:
        if not isinstance(store, (Store, AsyncStore)):
            raise ConfigError(
                f"an adapter takes a Store or an AsyncStore, got {type(store)}; nestvec.connect "
                "opens one"
            )
        if astore is not None:
            _check_same(store, astore)
        self.store = store.as_sync() if isinstance(store, AsyncStore) else store
        self.astore = astore or (store if isinstance(store, AsyncStore) else store.as_async())
        self._loop = _running() if astore or isinstance(store, AsyncStore) else None

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow whose requests are calls of the store; return what it returns."""
        return run(flow, self._send)

    async def arun(self, flow: Flow[T]) -> T:
        """Drive a flow as `run` does, without blocking the event loop."""
        if self._loop is None and current_thread() is main_thread():
            self._loop = _running()
            _awaiting.add(self)
        if self._loop is _running():
            return await arun(flow, self._asend)
        return await asyncio.to_thread(self.run, flow)

    def _send(self, call: Callable[[Store], Any]) -> Any:
        answer = call(self.store)
        return list(answer) if isinstance(answer, Iterator) else answer

    async def _asend(self, call: Callable[[AsyncStore], Any]) -> Any:
        answer = call(self.astore)
        if isinstance(answer, AsyncIterator):
            return [item async for item in answer]
        return await answer

    def close(self) -> None:
        """Let go of the engine; while an event loop runs, of what is blocking only."""
        _awaiting.discard(self)
        self.store.close()
        loop = self._loop
        if loop is not None and not loop.is_closed() and not loop.is_running() and not _running():
            loop.run_until_complete(self.astore.close())

    async def aclose(self) -> None:
        """Let go of the engine in both colours."""
        if self._loop in (None, _running()):
            await self.astore.close()
        await asyncio.to_thread(self.store.close)


def _check_same(store: Store | AsyncStore, astore: AsyncStore) -> None:
    if not isinstance(astore, AsyncStore):
        raise ConfigError(f"astore is an AsyncStore, got {type(astore)}; nestvec.aconnect opens it")
    if store.collection != astore.collection:
        raise ConfigError(
            f"store is of collection {store.collection!r} and astore of {astore.collection!r}; an "
            "adapter takes one collection in both colours"
        )


#: What may have connections in a loop that nobody will run again, such as a framework's.
_awaiting: WeakSet[Stores] = WeakSet()


@atexit.register
def _close_all() -> None:
    for stores in list(_awaiting):
        with suppress(RuntimeError):  # what would use a thread: there are none any more
            stores.close()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def blocking(flow: Callable[P, Flow[T]]) -> Callable[Concatenate[Any, P], T]:
    """Return the method that runs a flow on the `stores` of its object."""

    @wraps(flow)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        stores: Stores = self.stores
        return stores.run(flow(*args, **kwargs))

    return method


def awaited(
    flow: Callable[P, Flow[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the method that awaits a flow on the `stores` of its object."""

    @wraps(flow)
    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        stores: Stores = self.stores
        return await stores.arun(flow(*args, **kwargs))

    return method


class Prefixes:
    """An embedder's vectors as lists of unit length: the full ones, or their first `dim` numbers.

    `embedder` is what `connect` takes; this is an Embedder itself.
    """

    def __init__(self, embedder: Any = "static", *, dim: int | None = None) -> None:
        self.embedder = resolve(embedder)
        width = self.embedder.dim
        if dim is not None and not (isinstance(dim, int) and 1 <= dim <= width):
            raise NestingError(f"dim is from 1 to {width} with {self.embedder.name!r}, got {dim!r}")
        self.dim = dim or width

    @property
    def name(self) -> str:
        """The embedder's name, and the width where it is not the full one."""
        full = self.dim == self.embedder.dim
        return self.embedder.name if full else f"{self.embedder.name}[:{self.dim}]"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text."""
        return self._cut(self.embedder.embed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self._cut([self.embedder.embed_query(text)])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text."""
        return self._cut(await self._awaited("embed_documents", texts))

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self._cut([await self._awaited("embed_query", text)])[0]

    async def _awaited(self, method: str, given: Any) -> Any:
        if native := getattr(self.embedder, f"a{method}", None):
            return await native(given)
        return await asyncio.to_thread(getattr(self.embedder, method), given)

    def _cut(self, rows: Any) -> list[list[float]]:
        names = [f"text {n}" for n in range(len(rows))]
        full = unit_rows(rows, self.embedder.dim, names)
        made: list[list[float]] = unit_rows(full[:, : self.dim], self.dim, names).tolist()
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


#: Option that there is not → the one that may be meant, and what to say of it.
_RELEVANCE = (
    "; a threshold here is min_score, a cosine; score_threshold is a relevance, for "
    "search_type='similarity_score_threshold'"
)
_HINTS = {
    "score_threshold": ("min_score", _RELEVANCE),
    "where": ("filter", "; a filter is given as filter"),
}


def known(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a copy of options, or raise ConfigError that names the first that there is not."""
    for name in given:
        if name not in names:
            meant, hint = _HINTS.get(name, ("", ""))
            told = f"{', '.join(names) or 'none'}{hint if meant in names else ''}"
            raise ConfigError(f"unknown option {name!r}; known are {told}")
    return dict(given)


def diverse(
    query: Any, k: int, *, fetch_k: int, lambda_mult: float, **asked: Any
) -> Flow[list[Hit]]:
    """Return k of the `fetch_k` best hits, near the query and far from each other."""
    hits = yield methodcaller("search", query, max(k, fetch_k), **asked)
    (chosen,) = yield from _diversified([hits], k, lambda_mult)
    return chosen


def _diversified(
    many: Sequence[Sequence[Hit]], k: int, lambda_mult: float
) -> Flow[list[list[Hit]]]:
    """Return k hits of each query by maximal marginal relevance, in the order of their choice."""
    ids = list(dict.fromkeys(hit.id for hits in many for hit in hits))
    records: list[Record] = yield methodcaller("get", ids, vectors=True)
    rows = {record.id: record.vector for record in records}
    chosen = []
    for hits in many:
        there = [hit for hit in hits if hit.id in rows]  # others were deleted in between
        scores, vectors = [hit.score for hit in there], [rows[hit.id] for hit in there]
        chosen.append([there[i] for i in _mmr(scores, vectors, k, lambda_mult)])
    return chosen


def _mmr(scores: Sequence[float], vectors: Any, k: int, lambda_mult: float) -> list[int]:
    """Return the indices of at most k candidates by maximal marginal relevance.

    `scores` are cosines with the query, `vectors` the candidates' unit rows. Each step takes the
    largest `lambda_mult * score - (1 - lambda_mult) * nearest`, where `nearest` is the largest
    cosine with what was chosen before: 1 is relevance alone, 0 diversity alone (Carbonell and
    Goldstein 1998).
    """
    if not 0 <= lambda_mult <= 1:
        raise ConfigError(f"lambda_mult is between 0 and 1, got {lambda_mult!r}")
    if not len(scores):
        return []
    relevance, rows = np.asarray(scores), np.asarray(vectors)
    chosen = [int(np.argmax(relevance))]
    nearest = rows @ rows[chosen[0]]
    while len(chosen) < min(k, len(relevance)):
        value = lambda_mult * relevance - (1 - lambda_mult) * nearest
        value[chosen] = -np.inf
        chosen.append(int(np.argmax(value)))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return chosen


def deleted(ids: Iterable[Any] | None, where: Any) -> Flow[int]:
    """Delete by ids or by filter; return how many there were. Raises RecordError on neither."""
    if (ids is None) == (where is None):
        raise RecordError("delete needs ids or filter, one of them; nothing was deleted")
    count: int = yield methodcaller("delete", ids, where=where)
    return count


#: The hits of a query, and what is told of how they were found.
Found = tuple[list[Hit], dict[str, Any]]


def planned(
    queries: Sequence[Any],
    k: int,
    *,
    planning: Callable[..., Plan],
    mmr: tuple[int, float] | None,
    **asked: Any,
) -> Flow[list[Found]]:
    """Return the hits of each query by one request, with its plan and the time of all of them.

    `mmr` is how many candidates to choose from, and lambda.
    """
    started = perf_counter()
    wanted = k if mmr is None else max(k, mmr[0])
    many = yield methodcaller("search_many", queries, wanted, **asked)
    if mmr is not None:
        many = yield from _diversified(many, k, mmr[1])
    steps = planning(asked["funnel"], wanted)
    stages = [*((field.name, limit) for field, limit in steps.stages), ("full", wanted)]
    told = {
        "funnel": str(steps),
        "stages": [{"field": field, "limit": limit} for field, limit in stages],
        "queries": len(queries),
        "milliseconds": (perf_counter() - started) * 1000,
    }
    return [(hits, {**told, "hits": len(hits)}) for hits in many]


def explained(
    queries: Sequence[Any],
    k: int,
    *,
    mmr: tuple[int, float] | None,
    min_score: float | None,
    **asked: Any,
) -> Flow[list[Found]]:
    """Return the hits of each query with the trace of `Store.explain`, query by query."""
    wanted = k if mmr is None else max(k, mmr[0])
    found = []
    for query in queries:
        trace: Trace = yield methodcaller("explain", query, wanted, **asked)
        hits = [hit for hit in trace.hits if min_score is None or hit.score >= min_score]
        if mmr is not None:
            (hits,) = yield from _diversified([hits], k, mmr[1])
        told = {
            "funnel": trace.funnel,
            "stages": [asdict(stage) for stage in trace.stages],
            "milliseconds": trace.milliseconds,
            "exact_milliseconds": trace.exact_milliseconds,
            "overlap": trace.overlap,
        }
        found.append((hits, {**told, "hits": len(hits)}))
    return found


class Places:
    """The stores that a retriever has opened, each once, whichever thread was first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """Return what is open already, or None."""
        return self._opened.get(key)

    def open(self, key: Any, opening: Callable[[], Any]) -> Any:
        """Return what is open, or what `opening` opens."""
        with self._lock:
            if key not in self._opened:
                self._opened[key] = opening()
            return self._opened[key]

    def clear(self) -> list[Any]:
        """Forget what is open and return it, for closing."""
        with self._lock:
            opened, self._opened = list(self._opened.values()), {}
        return opened
