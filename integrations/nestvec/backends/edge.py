"""The Edge backend: Qdrant's engine in process, on disk, without a server.

A collection is a directory: `nestvec.json`, what it knows of itself, and `shard/`, the engine's.
It is made under another name and renamed, so that it is there whole or not at all.

What was measured of qdrant-edge-py 0.9, and shapes this file: an update is in the write-ahead
log before it returns, so it survives SIGKILL; `optimize` blocks searches and holds the GIL while
it runs; a batch of points is refused whole; booleans in conditions must be numpy's, since Python's
are taken for integers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition as Signal
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import qdrant_edge as qe
from filelock import FileLock, Timeout

from ..errors import (
    BackendError,
    CollectionDamaged,
    ConfigError,
    NestvecError,
    Unavailable,
)
from ..filter_nodes import Keyed
from ..filters import Filter
from ..flow import Call, Flow
from ..funnel import Knobs, Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record
from .base import Backend, Entry, Head, Stored
from .point_filters import (
    INDEXES,
    Condition,
    Dialect,
    acorn_below,
    bounds,
    decided,
    filtered,
    incomplete,
    index_for,
    indexable,
    keys_of,
    lacks_hits,
)
from .points import (
    Vector,
    as_stored,
    beam,
    check_in_place,
    coded,
    entries,
    hit,
    in_field,
    made_of,
    nested,
    oversampled,
    payload,
    point_id,
    record,
    rows_of,
    same_numbers,
    stranger,
    vector_name,
    vectors,
)

__all__ = ["EdgeBackend", "EdgeOptions"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

#: Unindexed bytes of full vectors from which a graph pays; the engine's own default.
_INDEXING_BYTES = 10_000_000

#: Kilobytes of vectors that are as fast to read one by one as by the graph.
_FULL_SCAN_KB = 10_000

#: The engine's threads search a segment each, and `optimize` leaves all but nothing in one: more
#: would take twice the CPU to find the same, and the interpreter lets one search in at a time.
_SEARCH_THREADS = 1

#: A graph that lost more than one node in so many is left alone until it is built anew: what is
#: left of it is not connected. It is also where the engine thinks of building it anew.
_GONE = 5

#: How many documents a scroll hands over at once.
_PAGE = 1_000

#: How many documents get another vector at once; nobody else writes meanwhile.
_FILL = 500


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """The graph of the first field: `m` links a node, found among `ef_construct` candidates."""

    m: int = 16
    ef_construct: int = 100

    def __post_init__(self) -> None:
        if self.m < 2 or self.ef_construct < self.m:
            raise ConfigError(
                f"m is at least 2 and ef_construct at least m, got {self.m} and {self.ef_construct}"
            )


class EdgeBackend(Backend):
    """A collection in a directory of its own, which one process at a time may open."""

    precisions = ("float32", "float16", "int8", "uint8", "turbo", "binary")

    def __init__(self, url: str, collection: str, options: EdgeOptions) -> None:
        rest = url.removeprefix("edge:")
        if not rest:
            raise ConfigError("edge: needs a directory, as in 'edge:./papers'")
        if not _NAME.fullmatch(collection):
            raise ConfigError(
                f"collection {collection!r} cannot be a directory's name; use up to 128 letters, "
                "digits, '_', '-' and '.', not starting with '-' or '.'"
            )
        self.url, self.collection = url, collection
        self._options = options
        self._driver = _Driver(Path(rest).expanduser(), collection, options)
        #: Documents written since the graph was built, its nodes then, and those that may be gone.
        self._pending = self._graph = self._gone = 0
        #: How many of those written there were when the engine would not build it.
        self._refused = 0
        self._per_record = 1
        self._vectors: list[Vector] = []
        self._head: Head | None = None
        self._indexes: dict[str, str] = {}

    def check(self, nesting: Nesting) -> None:
        super().check(nesting)
        check_in_place(nesting, self.url)

    def load(self) -> Flow[Head | None]:
        head: Head | None = yield Call("read_head")
        return head

    def ready(self, head: Head) -> Flow[None]:
        yield Call("load", (head,))
        info = yield Call("info")
        self._learn(head)
        self._graph = info.indexed_vectors_count // len(self._vectors)
        self._indexes = {
            key: str(made.data_type).rpartition(".")[2].lower()
            for key, made in info.payload_schema.items()
        }
        noted = yield Call("pending")
        self._pending = max(min(noted, info.points_count), info.points_count - self._graph)
        self._count_gone(info.points_count)

    def create(self, head: Head) -> Flow[None]:
        yield Call("create", (head,))
        self._learn(head)

    def record(self, head: Head) -> Flow[None]:
        yield Call("record", (head,))
        self._learn(head)

    def add_vector(self, head: Head, field: Field) -> Flow[None]:
        name = vector_name(field)
        if name != "full":  # what quantises it is no vector of its own
            (made,) = (vector for vector in vectors(head.written) if vector.name == name)
            yield Call("add_vector", (made,))
            self._vectors = vectors(head.written)

    def fill(self, field: Field, after: Any) -> Flow[tuple[int, Any]]:
        if vector_name(field) == "full":
            return 0, None
        filled: tuple[int, Any] = yield Call("fill", (field, self._per_record // 4, after))
        yield from self._wrote(filled[0])
        return filled

    def index_vector(self, head: Head, field: Field) -> Flow[None]:
        yield Call("reshape", (config(head.nesting, self._options, (*head.added, field.name)),))
        yield from self._optimize()

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:
        if vector_name(field) != "full":
            yield Call("update", (qe.UpdateOperation.delete_vector_name(vector_name(field)),))
            self._vectors = vectors(head.nesting)
        yield Call("reshape", (config(head.nesting, self._options, head.added),))
        yield from self._optimize()

    def entries(self) -> Flow[list[Entry]]:
        assert self._head is not None
        return entries(self._head.nesting, self._head.added)
        yield

    def _learn(self, head: Head) -> None:
        self._per_record = head.nesting.dim * 4
        if self._head is None or self._head.pending != head.pending:
            self._vectors = vectors(head.nesting)
        self._head = head

    def upsert(self, batch: Batch) -> Flow[None]:
        payloads = [
            payload(id, text, metadata)
            for id, text, metadata in zip(batch.ids, batch.texts, batch.metadatas, strict=True)
        ]
        if any("raw" in made for made in payloads):
            yield Call("note_drift")
        while True:
            # What quantises the full vector has no numbers of its own.
            kept = self._vectors
            # The engine reads a memoryview twice as fast as an array's row, and faster than a list.
            matrices = (coded(rows_of(batch, each), each.datatype) for each in kept)
            rows = zip(*([memoryview(row) for row in matrix] for matrix in matrices), strict=True)
            names = [vector.name for vector in kept]
            points = [
                qe.Point(point_id(id), dict(zip(names, row, strict=True)), made)
                for id, row, made in zip(batch.ids, rows, payloads, strict=True)
            ]
            try:
                yield Call("update", (qe.UpdateOperation.upsert_points(points),))
            except BackendError:
                if self._vectors is kept:
                    raise
                continue  # a field was dropped in this moment, and took the batch with it
            break
        yield from self._wrote(len(batch))

    def _wrote(self, count: int) -> Flow[None]:
        """Note that the graph lacks so many documents more."""
        self._pending += count
        self._count_gone((yield Call("note_pending", (self._pending,))))

    def _count_gone(self, points: int) -> None:
        """Learn how many nodes may be gone: what was replaced was written, and is none any more."""
        self._gone = min(self._graph, max(0, self._graph - points + self._pending))

    @property
    def _thin(self) -> bool:
        """Whether so many nodes are gone that the graph may not lead to those which are left."""
        return self._gone * _GONE > self._graph

    def settle(self) -> Flow[None]:
        """Build the graph once enough was written; a tail of a tenth is searched without one."""
        assert self._head is not None
        if self._head.pending is not None:
            return  # whoever changes the fields builds it in the end
        enough = False
        if (self._pending - self._refused) * self._per_record >= _INDEXING_BYTES:
            info = yield Call("info")
            enough = self._pending * 10 >= info.points_count
        if enough or self._thin:
            yield from self._optimize()

    def create_index(self, _field: Field) -> Flow[None]:
        """Build the graph, whichever field is meant: it is on the first one only."""
        yield from self._optimize()

    def _optimize(self) -> Flow[None]:
        if (yield Call("optimize")):
            self._pending = 0
        self._refused = self._pending
        yield Call("flush")
        info = yield Call("info")
        self._graph = info.indexed_vectors_count // len(self._vectors)
        yield from self._wrote(0)

    def search(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[list[Hit]]:
        filtered = yield from self._filtered(where)
        points = yield Call("query", (query(queries, plan, filtered, exact=self._thin),))
        points = yield from self._completed(points, queries, plan, filtered)
        return [hit(point.payload, point.score) for point in points]

    def search_many(
        self, many: Sequence[Mapping[str, Matrix]], plan: Plan, where: Filter | None
    ) -> Flow[list[list[Hit]]]:
        filtered = yield from self._filtered(where)
        requests = [query(queries, plan, filtered, exact=self._thin) for queries in many]
        found = yield Call("query_batch", (qe.QueryBatchRequest(requests),))
        hits = []
        for queries, some in zip(many, found, strict=True):
            points = yield from self._completed(some, queries, plan, filtered)
            hits.append([hit(point.payload, point.score) for point in points])
        return hits

    def _completed(
        self, points: list[Any], queries: Mapping[str, Matrix], plan: Plan, filtered: _Filtered
    ) -> Flow[list[Any]]:
        """Return all hits there are, from an exact pass where the graph lost its way to some."""

        def count() -> Flow[int]:
            counted: int = yield Call("count", (qe.CountRequest(True, filtered.condition),))
            return counted

        if filtered.condition is None or not (yield from lacks_hits(plan, len(points), count)):
            return points
        again: list[Any] = yield Call("query", (query(queries, plan, filtered, exact=True),))
        return again

    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[int]:
        filtered = yield from self._filtered(where)
        if not plan.stages:
            counted: int = yield Call("count", (qe.CountRequest(True, filtered.condition),))
            return counted
        last = nested(
            plan.stages,
            filtered.condition,
            _prefetch(queries, plan.knobs, filtered.acorn, exact=self._thin),
        )
        assert last is not None
        request = qe.QueryRequest(
            limit=last.limit, query=last.query, prefetches=last.prefetches, filter=last.filter,
            params=last.params, with_payload=False,
        )  # fmt: skip
        return len((yield Call("query", (request,))))

    def get(self, ids: Sequence[str], vectors: bool) -> Flow[list[Record]]:
        points = yield Call("retrieve", ([point_id(id) for id in ids], True, _full(vectors)))
        return [_record(point) for point in points]

    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> Flow[int]:
        condition = yield from self._condition(where)
        if ids is not None:
            condition = qe.Filter(must=[qe.HasIdCondition({point_id(id) for id in ids})])
        assert condition is not None
        deleted: int = yield Call("delete", (condition,))
        yield from self._wrote(0)
        yield from self.settle()
        return deleted

    def count(self, where: Filter | None) -> Flow[int]:
        condition = yield from self._condition(where)
        counted: int = yield Call("count", (qe.CountRequest(True, condition),))
        return counted

    def page(
        self, where: Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        condition = yield from self._condition(where)
        points, after = yield from self._scroll(condition, after, limit, vectors)
        return [_record(point) for point in points], after

    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        written = indexable(key)
        schema = getattr(qe.PayloadSchemaType, INDEXES[kind].capitalize())
        yield Call("update", (qe.UpdateOperation.create_field_index(written, schema),))
        self._indexes = {**self._indexes, written: INDEXES[kind]}

    def index_for(self, condition: Keyed) -> str | None:
        return index_for(condition)

    def metadata_indexes(self) -> Flow[Mapping[str, str]]:
        return keys_of(self._indexes)
        yield

    def filtering(
        self,
        queries: Mapping[str, Matrix],  # noqa: ARG002
        plan: Plan,
        where: Filter,
    ) -> Flow[FilterTrace]:
        dialect = yield from self._dialect()
        around = bounds(where, dialect)
        between = 0
        if not around.exact:
            between = yield Call("count", (qe.CountRequest(True, _filter(around.between)),))
        first = plan.stages[0][0] if plan.stages else None
        return filtered(
            around,
            dialect,
            matching=(yield from self.count(where)),
            total=(yield from self.count(None)),
            between=between,
            exact_below=_exact_below(first),
        )

    def info(self) -> Flow[Mapping[str, Any]]:
        shard = yield Call("info")
        disk = yield Call("disk_bytes")
        # The engine counts the vectors of every field.
        searched = shard.indexed_vectors_count // len(self._vectors)
        return {
            "engine": "edge",
            "disk_bytes": disk,
            "segments": shard.segments_count,
            "indexed": searched,
        }

    def verify(self) -> Flow[dict[str, tuple[str, ...]]]:
        def scroll(condition: Condition, after: Any) -> Flow[tuple[list[tuple[Any, Record]], Any]]:
            points, after = yield from self._scroll(_filter(condition), after, _PAGE, vectors=False)
            return [(point.id, stranger(point.id, point.payload)) for point in points], after

        names = [vector.name for vector in self._vectors]
        return (yield from incomplete(names, ("id", "text"), scroll))

    def stored(self, after: Any, limit: int) -> Flow[tuple[list[Stored], Any]]:
        request = qe.ScrollRequest(offset=after, limit=limit, with_payload=True, with_vector=True)
        points, after = yield Call("scroll", (request,))
        return [as_stored(point) for point in points], after

    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> Flow[None]:
        yield Call("rewrite", (mended, self._vectors))
        yield from self._wrote(len(mended))

    def drop(self) -> Flow[None]:
        yield Call("drop")

    def send(self, request: Call) -> Any:
        return self._driver.perform(request)

    def close(self) -> None:
        self._driver.close()

    def _scroll(
        self, condition: qe.Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Any], Any]]:
        request = qe.ScrollRequest(
            offset=after, limit=limit, filter=condition, with_payload=True,
            with_vector=_full(vectors),
        )  # fmt: skip
        found: tuple[list[Any], Any] = yield Call("scroll", (request,))
        return found

    def _condition(self, where: Filter | None) -> Flow[qe.Filter | None]:
        """Return the engine's filter, with the ids of what only the predicate can decide."""
        return (yield from self._filtered(where)).condition

    def _filtered(self, where: Filter | None) -> Flow[_Filtered]:
        if where is None:
            return _Filtered(None, None)
        around = bounds(where, (yield from self._dialect()))
        condition = yield from decided(where, around, self._read)
        acorn = qe.AcornSearchParams(True, acorn_below(condition, self._indexes))
        return _Filtered(_filter(condition), acorn)

    def _dialect(self) -> Flow[Dialect]:
        drift = yield Call("drifts")
        return Dialect(point_id, drift=drift, text=True, indexes=self._indexes)

    def _read(self, condition: Condition, after: Any) -> Flow[tuple[list[tuple[Any, Record]], Any]]:
        points, after = yield from self._scroll(_filter(condition), after, _PAGE, vectors=False)
        return [(point.id, record(point.payload)) for point in points], after


class _Filtered(NamedTuple):
    """A query's filter, and how the graph is walked with it."""

    condition: qe.Filter | None
    acorn: qe.AcornSearchParams | None


def _exact_below(first: Field | None) -> int:
    """Return below how many documents the engine reads a stage's numbers one by one."""
    if first is None:
        return sys.maxsize
    return _FULL_SCAN_KB * 1024 // (first.length * 4)


def _record(point: Any) -> Record:
    return record(point.payload, point.vector and _vector(point))


def _vector(point: Any) -> Matrix:
    return np.array(point.vector["full"], dtype=np.float32)


def _full(vectors: bool) -> bool | list[str]:
    return ["full"] if vectors else False


def query(
    queries: Mapping[str, Matrix], plan: Plan, filtered: _Filtered, *, exact: bool = False
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


def _metric(vector: Vector) -> qe.Distance:
    return qe.Distance.Euclid if vector.datatype == "uint8" else qe.Distance.Cosine


def _vector_params(vector: Vector, options: EdgeOptions) -> qe.EdgeVectorParams:
    searched_as_it_is = vector.first and not vector.quantised
    return qe.EdgeVectorParams(
        size=vector.size,
        distance=_metric(vector),
        datatype=getattr(qe.VectorStorageDatatype, vector.datatype.capitalize()),
        memory=qe.Memory.Cached if searched_as_it_is else qe.Memory.Cold,
        quantization_config=_quantisation(vector.quantised),
        hnsw_config=qe.HnswIndexConfig(
            m=options.m if vector.first else 0,
            ef_construct=options.ef_construct,
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


def _filter(condition: Condition) -> qe.Filter:
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


class _Gate:
    """A context that lets many in at once, or one who must be alone, for whom the others wait."""

    def __init__(self) -> None:
        self._changed = Signal()
        self._inside, self._shut = 0, False

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._shut = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


class _Driver:
    """The directory and the open shard: the only place that touches files or the engine."""

    def __init__(self, root: Path, collection: str, options: EdgeOptions) -> None:
        self.root = root
        self.path = root / collection
        self.options = options
        self.shard: qe.EdgeShard | None = None
        # thread_local would make the lock of one thread invisible to the one that closes.
        self.lock = FileLock(root / f".{collection}.lock", timeout=0, thread_local=False)
        self.writing = Lock()
        self.gate = _Gate()
        self.drift = False

    def perform(self, request: Call) -> Any:
        own = getattr(self, request.method, None)
        try:
            if own is not None:
                return own(*request.args)
            with self.gate:
                return getattr(self._open(), request.method)(*request.args)
        except NestvecError:
            raise
        except OSError as error:
            raise BackendError(f"edge:{self.root}: {error.strerror}: {error.filename}") from error
        except Exception as error:  # the engine raises plain Exception
            raise BackendError(f"edge:{self.path} refused {request.method}: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Rust's, which is no Exception
                raise
            raise BackendError(f"edge:{self.path} failed in {request.method}: {error}") from error

    def _open(self) -> qe.EdgeShard:
        if self.shard is None:
            raise BackendError(f"edge:{self.path} is closed; connect again")
        return self.shard

    def read_head(self) -> Head | None:
        if not self.path.exists():
            return None
        self._acquire()
        try:
            return self._read_head()
        except BaseException:
            self.lock.release()
            raise

    def load(self, head: Head) -> None:
        place = str(self.path / "shard")
        try:
            self.shard = qe.EdgeShard.load(place)
        except Exception:
            # The engine adds and drops a vector segment by segment, and what a kill leaves in
            # between it does not open. It is of a field that is made again or was to go.
            if head.pending is None:
                raise
            pending = Nesting.of((head.pending[1:],), head.nesting.dim).fields[0]
            self._strip(vector_name(pending))
            graphs = (*head.added, head.nesting.fields[0].name)
            self.shard = qe.EdgeShard.load(place, config(head.nesting, self.options, graphs))

    def _strip(self, name: str) -> None:
        """Remove a named vector from the files of all segments."""
        shard = self.path / "shard"
        for file in (shard / "edge_config.json", *shard.glob("segments/*/segment.json")):
            told = json.loads(file.read_text())
            (told["config"]["vector_data"] if "config" in told else told["vectors"]).pop(name, None)
            new = file.with_suffix(".new")
            new.write_text(json.dumps(told))
            new.replace(file)
        for part in ("vector_storage", "vector_index"):
            for directory in shard.glob(f"segments/*/{part}-{name}"):
                shutil.rmtree(directory)

    def create(self, head: Head) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._acquire()
        making = self.root / f".{self.path.name}.making"
        try:
            if self.path.exists():
                raise Unavailable(f"edge:{self.path} was just made by another process; try again")
            shutil.rmtree(making, ignore_errors=True)
            (making / "shard").mkdir(parents=True)
            self._write_head(making, head.to_json())
            qe.EdgeShard.create(str(making / "shard"), config(head.nesting, self.options)).close()
            making.rename(self.path)
            self.shard = qe.EdgeShard.load(str(self.path / "shard"))
        except BaseException:
            self.lock.release()
            raise

    def _acquire(self) -> None:
        try:
            self.lock.acquire()
        except Timeout:
            raise Unavailable(
                f"edge:{self.path} is open in another process or store; Edge has one writer a "
                "directory: close the other one, or use a Qdrant server to share a collection"
            ) from None
        except OSError as error:
            raise BackendError(
                f"edge:{self.root} cannot be written ({error.strerror}); Edge keeps a write-ahead "
                "log there, so it needs write permission also for reading"
            ) from error

    def _read_head(self) -> Head:
        manifest = self.path / "nestvec.json"
        if not manifest.exists() or not (self.path / "shard").is_dir():
            raise CollectionDamaged(
                f"{self.path} exists but is not a nestvec collection (no nestvec.json with a "
                "shard beside it); choose another directory or collection, nothing was changed"
            )
        head = Head.from_json(manifest.read_text(encoding="utf-8", errors="replace"), str(manifest))
        self.drift = (self.path / "drift").exists()
        return head

    def add_vector(self, vector: Vector) -> None:
        """Add a named vector that no point has yet; nothing where it is there."""
        kept = json.loads((self.path / "shard" / "edge_config.json").read_text())
        if vector.name not in kept["vectors"]:
            datatype = getattr(qe.VectorStorageDatatype, vector.datatype.capitalize())
            self.update(
                qe.UpdateOperation.create_dense_vector(
                    vector.name, vector.size, _metric(vector), None, datatype
                )
            )

    def fill(self, field: Field, dim: int, after: Any) -> tuple[int, Any]:
        """Make a vector for some points that lack it; nothing else is written meanwhile."""
        name = vector_name(field)
        lacking = qe.Filter(
            must=[qe.HasVectorCondition("full")], must_not=[qe.HasVectorCondition(name)]
        )
        asked = qe.ScrollRequest(
            offset=after, limit=_FILL, filter=lacking, with_payload=["id"], with_vector=["full"]
        )
        with self.writing:
            shard = self._open()
            points, after = shard.scroll(asked)
            if points:
                full = [_vector(point) for point in points]
                names = [f"record {stranger(p.id, p.payload).id!r}" for p in points]
                rows = coded(made_of(full, field, dim, names), field.precision)
                made: list[Any] = [memoryview(row) for row in rows]
                changed = [
                    qe.PointVectors(point.id, {name: row})
                    for point, row in zip(points, made, strict=True)
                ]
                shard.update(qe.UpdateOperation.update_vectors(changed))
        return len(points), after

    def rewrite(
        self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]], kept: Sequence[Vector]
    ) -> None:
        """Give points other vectors, but for those that were replaced since they were read."""
        with self.writing:
            shard = self._open()
            now = shard.retrieve([stored.key for stored, _ in mended], False, ["full"])
            there = {point.id: as_stored(point).vectors.get("full") for point in now}
            changed = []
            for stored, vectors in mended:
                same = stored.key in there and same_numbers(
                    there[stored.key], stored.vectors.get("full")
                )
                if same:
                    rows: Any = {
                        each.name: coded(vectors[each.name], each.datatype).tolist()
                        for each in kept
                    }
                    changed.append(qe.PointVectors(stored.key, rows))
            if changed:
                shard.update(qe.UpdateOperation.update_vectors(changed))

    def reshape(self, changed: qe.EdgeConfig) -> None:
        """Open the shard anew with another configuration, while nobody uses it."""
        with self.writing, self.gate.alone():
            self._open().flush()
            self.shard, shard = None, self.shard
            assert shard is not None
            shard.close()
            self.shard = qe.EdgeShard.load(str(self.path / "shard"), changed)

    def record(self, head: Head) -> None:
        with self.writing:
            self._open()
            self._write_head(self.path, head.to_json(), "nestvec.json.new")
            (self.path / "nestvec.json.new").replace(self.path / "nestvec.json")

    @staticmethod
    def _write_head(directory: Path, text: str, name: str = "nestvec.json") -> None:
        with (directory / name).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def pending(self) -> int:
        """Return what was noted last; all there is where a kill came between."""
        try:
            return int((self.path / "pending").read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            return sys.maxsize

    def note_pending(self, pending: int) -> int:
        """Remember how many documents the graph lacks; return how many there are."""
        (self.path / "pending").write_text(str(pending))
        with self.gate:
            return self._open().info().points_count

    def drifts(self) -> bool:
        return self.drift

    def note_drift(self) -> None:
        """Remember that some payloads have `raw`, before the first of them is written."""
        if not self.drift:
            (self.path / "drift").touch()
            self.drift = True

    def delete(self, condition: qe.Filter) -> int:
        with self.writing:
            shard = self._open()
            counted = shard.count(qe.CountRequest(True, condition))
            if counted:
                shard.update(qe.UpdateOperation.delete_points_by_filter(condition))
            return counted

    def update(self, operation: qe.UpdateOperation) -> None:
        with self.writing:
            self._open().update(operation)

    def disk_bytes(self) -> int:
        return sum(file.stat().st_blocks * 512 for file in self.path.rglob("*") if file.is_file())

    def drop(self) -> None:
        self._open()
        self.shard, shard = None, self.shard
        if shard is not None:
            shard.close()
        dropping = self.root / f".{self.path.name}.dropping"
        shutil.rmtree(dropping, ignore_errors=True)  # what a kill left of an earlier drop
        self.path.rename(dropping)
        shutil.rmtree(dropping)
        self.lock.release()

    def close(self) -> None:
        self.shard, shard = None, self.shard
        if shard is not None:
            shard.flush()
            shard.close()
        self.lock.release()
