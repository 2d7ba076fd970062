"""What the framework adapters have in common: searches as flows for either colour.

A request of these flows is a call of a method of the store, `methodcaller("search", …)`: `run`
makes it on a Store, `arun` on an AsyncStore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import methodcaller
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from .errors import ConfigError, RecordError
from .flow import Flow
from .funnel import plan
from .nesting import Nesting
from .records import Hit, Record, Trace

__all__ = ["Places", "deleted", "diverse", "explained", "known", "planned"]

_HINTS = {
    "score_threshold": "; a threshold here is min_score, a cosine; score_threshold is a relevance, "
    "for search_type='similarity_score_threshold'",
    "where": "; a filter is given as filter",
}


def known(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a copy of options, or raise ConfigError that names the first that there is not."""
    for name in given:
        if name not in names:
            hint = _HINTS.get(name, "")
            raise ConfigError(f"unknown option {name!r}; known are {', '.join(names)}{hint}")
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
    queries: Sequence[str],
    k: int,
    *,
    nesting: Nesting,
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
    steps = plan(asked["funnel"], nesting, wanted)
    stages = [*((field.name, limit) for field, limit in steps.stages), ("full", wanted)]
    told = {
        "funnel": str(steps),
        "stages": [{"field": field, "limit": limit} for field, limit in stages],
        "queries": len(queries),
        "milliseconds": (perf_counter() - started) * 1000,
    }
    return [(hits, {**told, "hits": len(hits)}) for hits in many]


def explained(
    queries: Sequence[str],
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
