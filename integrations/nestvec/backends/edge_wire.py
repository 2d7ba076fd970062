"""What nestvec asks for in the engine's own types: a shard's configuration, queries, filters.

The only file that imports the engine; the others have it from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import qdrant_edge as qe

from ..errors import ConfigError
from ..funnel import Knobs, Plan
from ..nesting import Field, Matrix, Nesting
from .point_indexes import Condition
from .points import Vector, beam, coded, in_field, nested, oversampled, vector_name, vectors

__all__ = [
    "EdgeOptions", "Filtered", "config", "engine_filter", "exact_below", "full_of", "metric",
    "qe", "query", "query_candidates",
]  # fmt: skip

#: Kilobytes of vectors that are as fast to read one by one as by the graph.
_FULL_SCAN_KB = 10_000

#: The engine's threads search a segment each, and `optimize` leaves all but nothing in one: more
#: would take twice the CPU to find the same, and the interpreter lets one search in at a time.
_SEARCH_THREADS = 1


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """The graph of the first field: `m` links a node, found among `ef_construct` candidates.

    None is what the collection has, and 16 and 100 for a new one.
    """

    m: int | None = None
    ef_construct: int | None = None

    def __post_init__(self) -> None:
        m, candidates = self.graph
        if m < 2 or candidates < m:
            raise ConfigError(
                f"m is at least 2 and ef_construct at least m, got {m} and {candidates}"
            )

    @property
    def graph(self) -> tuple[int, int]:
        """Return both numbers of a graph that is made with these options."""
        m = 16 if self.m is None else self.m
        return m, max(100, m) if self.ef_construct is None else self.ef_construct

    def over(self, kept: EdgeOptions) -> EdgeOptions:
        """Return these options, and for what they leave open those that a collection has."""
        return EdgeOptions(
            kept.m if self.m is None else self.m,
            kept.ef_construct if self.ef_construct is None else self.ef_construct,
        )


class Filtered(NamedTuple):
    """A query's filter, and how the graph is walked with it."""

    condition: qe.Filter | None
    acorn: qe.AcornSearchParams | None


def exact_below(first: Field | None) -> int:
    """Return below how many documents the engine reads a stage's numbers one by one."""
    if first is None:
        return sys.maxsize
    return _FULL_SCAN_KB * 1024 // (first.length * 4)


def full_of(point: Any) -> Matrix:
    """Return the full vector of a point, as the engine keeps it."""
    return np.array(point.vector["full"], dtype=np.float32)


def query(
    queries: Mapping[str, Matrix], plan: Plan, filtered: Filtered, *, exact: bool = False
) -> qe.QueryRequest:
    """Return the one request that runs a plan: prefetches nested from full inwards.

    `exact` is for stages without the graph.
    """
    condition, knobs = filtered.condition, plan.knobs
    if (times := in_field(plan)) is not None:
        limit = plan.stages[0][1]
        return qe.QueryRequest(
            limit=plan.k,
            offset=plan.offset,
            query=_nearest(queries["full"], "full"),
            filter=condition,
            params=_params(limit, knobs, times, acorn=filtered.acorn, exact=exact),
            with_payload=True,
        )
    last = nested(plan.stages, condition, _prefetch(queries, knobs, filtered.acorn, exact=exact))
    return qe.QueryRequest(
        limit=plan.k,
        offset=plan.offset,
        query=_nearest(queries["full"], "full"),
        prefetches=[] if last is None else [last],
        filter=condition if last is None else None,
        params=_EXACT,
        with_payload=True,
    )


def query_candidates(
    queries: Mapping[str, Matrix], plan: Plan, filtered: Filtered, *, exact: bool
) -> qe.QueryRequest:
    """Return the request for what the stages of a plan let through, without its payload."""
    make = _prefetch(queries, plan.knobs, filtered.acorn, exact=exact)
    last = nested(plan.stages, filtered.condition, make)
    assert last is not None
    return qe.QueryRequest(
        limit=last.limit, query=last.query, prefetches=last.prefetches, filter=last.filter,
        params=last.params, with_payload=False,
    )  # fmt: skip


#: Scores of the numbers as they are kept, of every candidate: no graph, no quantisation.
_EXACT = qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))


def _params(
    limit: int,
    knobs: Knobs,
    times: float | None,
    *,
    acorn: qe.AcornSearchParams | None,
    exact: bool,
) -> qe.SearchParams:
    rescored = qe.QuantizationSearchParams(rescore=times is not None, oversampling=times)
    return qe.SearchParams(
        hnsw_ef=beam(limit, knobs), exact=exact, quantization=rescored, acorn=acorn
    )


def _prefetch(
    queries: Mapping[str, Matrix],
    knobs: Knobs,
    acorn: qe.AcornSearchParams | None,
    *,
    exact: bool = False,
) -> Callable[..., qe.Prefetch]:
    """Return what makes a stage of a plan, around the one before it."""

    def make(field: Field, limit: int, inner: qe.Prefetch | None, condition: Any) -> qe.Prefetch:
        times = oversampled(field, knobs) if inner is None else None
        return qe.Prefetch(
            limit=limit,
            query=_nearest(coded(queries[field.name], field.precision), vector_name(field)),
            prefetches=None if inner is None else [inner],
            filter=condition,
            params=_params(limit, knobs, times, acorn=acorn, exact=exact),
        )

    return make


def _nearest(vector: Matrix, name: str) -> qe.Query:
    # Any sequence of numbers will do, which the engine's type stubs do not say.
    return qe.Query.Nearest(memoryview(vector), name)  # type: ignore[arg-type]


def config(nesting: Nesting, options: EdgeOptions, graphs: Sequence[str] = ()) -> qe.EdgeConfig:
    """Return the shard's configuration: a graph on the first field, the others on disk."""
    made = {vector.name: _vector_params(vector, options) for vector in vectors(nesting, graphs)}
    return qe.EdgeConfig(vectors=made, max_search_threads=_SEARCH_THREADS)


def metric(vector: Vector) -> qe.Distance:
    """Return the distance that orders a vector's stored numbers as cosines do."""
    return qe.Distance.Euclid if vector.datatype == "uint8" else qe.Distance.Cosine


def _vector_params(vector: Vector, options: EdgeOptions) -> qe.EdgeVectorParams:
    searched_as_it_is = vector.first and not vector.quantised
    m, candidates = options.graph
    return qe.EdgeVectorParams(
        size=vector.size,
        distance=metric(vector),
        datatype=getattr(qe.VectorStorageDatatype, vector.datatype.capitalize()),
        memory=qe.Memory.Cached if searched_as_it_is else qe.Memory.Cold,
        quantization_config=_quantisation(vector.quantised),
        hnsw_config=qe.HnswIndexConfig(
            m=m if vector.first else 0,
            ef_construct=candidates,
            full_scan_threshold=_FULL_SCAN_KB,
        ),
    )


def _quantisation(precision: str | None) -> Any:
    if precision == "int8":
        return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, memory=qe.Memory.Pinned)
    if precision == "turbo":
        bits = qe.TurboQuantBitSize.Bits4
        return qe.TurboQuantQuantizationConfig(bits=bits, memory=qe.Memory.Pinned)
    if precision == "binary":
        return qe.BinaryQuantizationConfig(memory=qe.Memory.Pinned)
    return None


def engine_filter(condition: Condition) -> qe.Filter:
    """Return the engine's filter for a condition."""
    made = _clause(condition)
    return made if isinstance(made, qe.Filter) else qe.Filter(must=[made])


def _clause(condition: Condition) -> Any:
    if "has_id" in condition:
        return qe.HasIdCondition(set(condition["has_id"]))
    if "has_vector" in condition:
        return qe.HasVectorCondition(condition["has_vector"])
    if "is_empty" in condition:
        return qe.IsEmptyCondition(condition["is_empty"]["key"])
    if "is_null" in condition:
        return qe.IsNullCondition(condition["is_null"]["key"])
    if "match" in condition:
        return qe.FieldCondition(condition["key"], match=_match(condition["match"]))
    if "range" in condition:
        dated = isinstance(next(iter(condition["range"].values())), str)
        made = (qe.RangeDateTime if dated else qe.RangeFloat)(**condition["range"])
        return qe.FieldCondition(condition["key"], range=made)
    clauses: dict[str, Any] = {
        name: [_clause(part) for part in parts] for name, parts in condition.items()
    }
    return qe.Filter(**clauses)


def _match(match: Condition) -> Any:
    ((form, value),) = match.items()
    if form == "value":
        # Python's booleans are taken for integers.
        return qe.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]
    forms: Mapping[str, Any] = {
        "any": qe.MatchAny, "text": qe.MatchText, "substring": qe.MatchSubstring,
        "prefix": qe.MatchPrefix,
    }  # fmt: skip
    return forms[form](value)
