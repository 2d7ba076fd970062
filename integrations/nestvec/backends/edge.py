"""The Edge backend: Qdrant's engine in process, on disk, without a server.

A collection is a directory: `nestvec.json`, what it knows of itself, and `shard/`, the engine's.
It is made under another name and renamed, so that it is there whole or not at all.

What was measured of qdrant-edge-py 0.9, and shapes this file: an update is in the write-ahead
log before it returns, so it survives SIGKILL; `optimize` blocks searches and holds the GIL while
it runs; a batch of points is refused whole; booleans in conditions must be numpy's, since Python's
are taken for integers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BackendError, ConfigError
from ..filter_nodes import Keyed
from ..filters import Filter
from ..flow import Call, Flow
from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record
from .base import Backend, Entry, Head, Stored
from .edge_driver import Driver
from .edge_wire import (
    EdgeOptions,
    Filtered,
    engine_filter,
    exact_below,
    full_of,
    qe,
    query,
    query_candidates,
)
from .point_filters import (
    Dialect,
    acorn_below,
    bounds,
    decided,
    filtered,
    incomplete,
    lacks_hits,
)
from .point_indexes import INDEXES, Condition, by_path, index_for, indexable, keys_of
from .points import (
    Vector,
    as_stored,
    check_in_place,
    coded,
    entries,
    hit,
    payload,
    point_id,
    record,
    rows_of,
    stranger,
    vector_name,
    vectors,
)

__all__ = ["EdgeBackend", "EdgeOptions"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

#: Unindexed bytes of full vectors from which a graph pays; the engine's own default.
_INDEXING_BYTES = 10_000_000

#: A graph that lost more than one node in so many is left alone until it is built anew: what is
#: left of it is not connected. It is also where the engine thinks of building it anew.
_GONE = 5

#: How many documents a scroll hands over at once.
_PAGE = 1_000


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
        self._driver = Driver(Path(rest).expanduser(), collection, options)
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
        kinds = {key: str(made.data_type) for key, made in info.payload_schema.items()}
        self._indexes = by_path({k: kind.rpartition(".")[2].lower() for k, kind in kinds.items()})
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
        yield Call("reshape", (head.nesting, (*head.added, field.name)))
        yield from self._optimize()

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:
        if vector_name(field) != "full":
            yield Call("update", (qe.UpdateOperation.delete_vector_name(vector_name(field)),))
            self._vectors = vectors(head.nesting)
        yield Call("reshape", (head.nesting, head.added))
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
        """Build the graph, whichever field is meant: it is on the first one only.

        One that is there is built anew where the options ask for other links, unless a field is
        on its way: whoever changes the fields builds it in the end.
        """
        head = self._head
        assert head is not None
        if head.pending is None and (yield Call("asks_for_another_graph")):
            yield Call("reshape", (head.nesting, head.added))
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
        self, points: list[Any], queries: Mapping[str, Matrix], plan: Plan, filtered: Filtered
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
        request = query_candidates(queries, plan, filtered, exact=self._thin)
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
            between = yield Call("count", (qe.CountRequest(True, engine_filter(around.between)),))
        first = plan.stages[0][0] if plan.stages else None
        return filtered(
            around,
            dialect,
            matching=(yield from self.count(where)),
            total=(yield from self.count(None)),
            between=between,
            exact_below=exact_below(first),
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
            points, after = yield from self._scroll(
                engine_filter(condition), after, _PAGE, vectors=False
            )
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

    def _filtered(self, where: Filter | None) -> Flow[Filtered]:
        if where is None:
            return Filtered(None, None)
        around = bounds(where, (yield from self._dialect()))
        condition = yield from decided(where, around, self._read)
        acorn = qe.AcornSearchParams(True, acorn_below(condition, self._indexes))
        return Filtered(engine_filter(condition), acorn)

    def _dialect(self) -> Flow[Dialect]:
        drift = yield Call("drifts")
        return Dialect(point_id, drift=drift, text=True, indexes=self._indexes, nulls=True)

    def _read(self, condition: Condition, after: Any) -> Flow[tuple[list[tuple[Any, Record]], Any]]:
        points, after = yield from self._scroll(
            engine_filter(condition), after, _PAGE, vectors=False
        )
        return [(point.id, record(point.payload)) for point in points], after


def _record(point: Any) -> Record:
    return record(point.payload, point.vector and full_of(point))


def _full(vectors: bool) -> bool | list[str]:
    return ["full"] if vectors else False
