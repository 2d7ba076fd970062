"""The Qdrant backend: a server, a cluster, Qdrant Cloud, or qdrant-client's local mode.

A collection keeps its own record in its metadata, which came with Qdrant 1.16. Writes wait until
they are applied, so what was written is found.
"""

from __future__ import annotations

import math
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from ..errors import (
    BackendError,
    CollectionDamaged,
    CollectionMismatch,
    ConfigError,
    NestingError,
    NestvecError,
    Unavailable,
)
from ..filter_nodes import Keyed
from ..filters import Filter
from ..flow import Flow
from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record
from . import qdrant_wire as wire
from .base import Backend, Entry, Head, MadeMeanwhile, Stored
from .point_filters import (
    Dialect,
    acorn_below,
    bounds,
    decided,
    filtered,
    incomplete,
    lacks_hits,
)
from .point_indexes import (
    INDEXES,
    OWN_INDEXES,
    Condition,
    by_path,
    index_for,
    indexable,
    keys_of,
    lacking,
)
from .points import (
    Vector,
    as_stored,
    check_in_place,
    coded,
    entries,
    made_of,
    payload,
    same_numbers,
    stranger,
    vector_name,
    vectors,
)
from .qdrant_driver import (
    AnswerTooLarge,
    Close,
    Driver,
    Missing,
    Refused,
    Request,
    Together,
    limited,
    models,
    retried,
)
from .qdrant_layout import (
    ForeignLayout,
    Layout,
    foreign,
    full_scan_kb,
    graphs,
    named_vectors,
    shown,
)
from .qdrant_options import QdrantOptions, local, remote
from .qdrant_strict import Strict, of_refusal, unindexed

__all__ = ["QdrantBackend", "QdrantOptions"]

#: The oldest server, which is the first that keeps a collection's metadata; the first ones with
#: `turbo`, and with vectors that come and go.
_OLDEST, _TURBO, _VECTOR_NAMES = (1, 16), (1, 18), (1, 18)

#: What Qdrant has no room for in a name; a path would be another request.
_NAME = re.compile(r"(?!\.{1,2}$)[^<>:\"/\\|?*\0\x1f]{1,255}")

#: Kilobytes of vectors that a server reads one by one rather than by the graph, by default.
_FULL_SCAN_KB = 10_000

#: How many documents a scroll hands over at once, and how many ids a request asks for.
_PAGE = 1_000

#: How many documents get another vector at once.
_FILL = 500

#: How many ids are counted at once, and how many may match a filter to be searched by their ids.
_IDS, _FEW = 10_000, 2_000

#: Bytes of JSON in one request, about, where a server takes 32 MB.
_BYTES = 3_000_000

#: Levels of metadata in payloads. gRPC takes 100 messages within each other, of which a dict is
#: three, and the nodes of a cluster speak it among themselves.
_DEPTH = 16

#: Seconds for which a store takes what it knows of a collection for true: others may have made an
#: index since, or the first document whose numbers the server may read otherwise.
_FRESH = 10.0


P = ParamSpec("P")
T = TypeVar("T")


def _in_time(
    operation: Callable[Concatenate[QdrantBackend, P], Flow[T]],
) -> Callable[Concatenate[QdrantBackend, P], Flow[T]]:
    """Give all that an operation asks for together the time that is set for one."""

    @wraps(operation)
    def method(self: QdrantBackend, /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        until = time.monotonic() + self._seconds
        return (yield from limited(_within_limits(operation)(self, *args, **kwargs), until))

    return method


def _within_limits(
    operation: Callable[Concatenate[QdrantBackend, P], Flow[T]],
) -> Callable[Concatenate[QdrantBackend, P], Flow[T]]:
    """Do an operation once more where the limits were changed since they were read."""

    @wraps(operation)
    def method(self: QdrantBackend, /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        try:
            return (yield from operation(self, *args, **kwargs))
        except Refused as refused:
            if not (yield from self.learnt_anew()):
                raise self.told_of(refused) from refused.__cause__
        return (yield from operation(self, *args, **kwargs))

    return method


class _Filtered(NamedTuple):
    """A query's filter, and the share of matches below which the graph is walked past others."""

    condition: models.Filter | None
    acorn: float | None


class QdrantBackend(Backend):
    """A collection of a Qdrant server, or of local mode in a directory or in memory."""

    precisions = wire.PRECISIONS

    def __init__(self, url: str, collection: str, options: QdrantOptions) -> None:
        if not _NAME.fullmatch(collection):
            raise ConfigError(
                f"collection {collection!r} cannot be a name in Qdrant; use up to 255 characters "
                'without any of < > : " / \\ | ? *'
            )
        self.url, self.collection = url, collection
        self._options = options
        self._local = url.startswith("qdrant+local:")
        self.indexes_metadata = not self._local
        self._layout: Layout = Layout(f"{collection!r} in {url}")
        self._vectors: Sequence[Vector] = ()  # as they are written
        self._datatypes: dict[str, str] = {}
        self._head: Head | None = None
        self._drift = False
        self._indexes: dict[str, str] = {}
        self._strict = Strict()
        self._graphs: dict[str, int] = {}  # links a node, of each vector
        self._full_scan_kb = _FULL_SCAN_KB
        self._learnt = time.monotonic()
        key = None if self._local else options.key()
        settings = local(url, options) if self._local else remote(url, options, key)
        self._driver = Driver(url, settings, secret=key, parallel=options.parallel)

    def check(self, nesting: Nesting) -> None:
        super().check(nesting)
        check_in_place(nesting, self.url)

    # Opening

    def load(self) -> Flow[Head | None]:
        # Not by /exists, which Qdrant Cloud is said to refuse to tokens for one collection.
        try:
            config, recorded = yield from self._learn()
        except Missing:
            return None
        if self._options.vectors:
            yield from self._need_version()
            return self._foreign(config)
        held = named_vectors(config)
        if recorded is None:
            yield from self._need_version()
            raise CollectionMismatch(
                f"collection {self._layout.where} was not made by nestvec: it has {shown(held)}. "
                "to read it, name its vectors, as in vectors={'full': ''}, and its payload keys, "
                "content_key and metadata_key; to write, choose another collection"
            )
        where = f"the record of collection {self._layout.where}"
        head = Head.from_json(str(recorded.get("head")), where)
        expected = {vector.name: vector.size for vector in vectors(head.nesting)}
        there = {name: params.size for name, params in held.items()}
        if head.pending is not None:  # on its way in or out, so it may be there or not
            spec = head.pending[1:]
            pending = Nesting.of((spec,), head.nesting.dim).fields[0]
            expected |= {name: n for name, n in there.items() if name == vector_name(pending)}
        if there != expected:
            raise CollectionDamaged(
                f"{where} tells of vectors {expected}, the collection has {shown(held)}"
            )
        self._hold(head)
        return head

    def _hold(self, head: Head) -> None:
        if self._head is None or self._head.pending != head.pending:
            self._write_as(head.nesting)
        self._head = head

    def _write_as(self, nesting: Nesting) -> None:
        self._vectors = vectors(nesting)
        self._datatypes = {vector.name: vector.datatype for vector in self._vectors}

    def _foreign(self, config: models.CollectionConfig) -> Head:
        options, where = self._options, self._layout.where
        nesting, names = foreign(config, options.vectors, where)
        self._layout = ForeignLayout(where, names, options.content_key, options.metadata_key)
        # As they are: nothing is written here.
        self._datatypes = dict.fromkeys(names.values(), "")
        self._head = Head(nesting)
        return self._head

    def _learn(self) -> Flow[tuple[models.CollectionConfig, dict[str, Any] | None]]:
        """Learn what may change while a store is open; return the configuration and the record."""
        self._learnt = time.monotonic()
        told = yield from self._ask("get_collection")
        self._indexes = _kinds(told.payload_schema)
        self._strict = Strict.of(told.config)
        self._graphs = graphs(told.config)
        self._full_scan_kb = full_scan_kb(told.config, self._layout.full) or _FULL_SCAN_KB
        if self._options.vectors:
            return told.config, None
        recorded = (told.config.metadata or {}).get("nestvec")
        if recorded is not None and not isinstance(recorded, dict):
            recorded = {}
        self._drift = bool(recorded and recorded.get("drift"))
        return told.config, recorded

    def learnt_anew(self) -> Flow[bool]:
        """Learn what may change while a store is open; return whether limits or indexes did."""
        before = (self._strict, self._indexes)
        yield from self._learn()
        return before != (self._strict, self._indexes)

    def told_of(self, refused: Refused) -> NestvecError:
        """Return the error of what strict mode refused, of a filter where it was one."""
        known = of_refusal(str(refused), self._layout.root, self._layout.where)
        return refused if known is None else known

    def _fresh(self) -> Flow[None]:
        if not self._local and time.monotonic() - self._learnt > _FRESH:
            yield from self._learn()

    def ready(self, head: Head) -> Flow[None]:  # noqa: ARG002
        if self._options.vectors:
            return
        yield from self._shard()
        yield from self._index()
        try:
            yield from self._index_own()
        except NestvecError:
            return  # who may only read is told of what is lacking by the filter that needs it

    def create(self, head: Head) -> Flow[None]:
        self._writable()
        yield from self._need_version()
        if any(field.precision == "turbo" for field in head.nesting.fields):
            yield from self._need_version(_TURBO, "'turbo'", NestingError)

        def there() -> Flow[bool]:
            """Tell whether the collection is there though the server said otherwise, or nothing."""
            try:
                found = yield from self.load()
            except Unavailable:
                return False
            if found is not None and found.id != head.id:
                raise MadeMeanwhile(f"collection {self._layout.where} was made by another just now")
            return found is not None

        yield from self._ask(
            "create_collection",
            there=there,
            vectors_config=wire.vectors_config(head.nesting, self._options),
            optimizers_config=self._options.optimizers(),
            # As text: a server may merge what it takes for a payload, or drop what is null in it.
            metadata={"nestvec": {"head": head.to_json()}},
            timeout=self._waiting,
            **self._options.sharding(),
        )
        self._hold(head)
        yield from self._learn()
        yield from self._shard()
        yield from self._index()
        yield from self._index_own()

    def record(self, head: Head) -> Flow[None]:
        self._writable()
        if head.pending is not None and not self._local:
            yield from self._need_version(_VECTOR_NAMES, "a field that comes or goes", NestingError)
        yield from self._change_record({"head": head.to_json()})
        self._hold(head)

    def add_vector(self, head: Head, field: Field) -> Flow[None]:
        name = vector_name(field)
        if name not in (yield from self._held()):
            (made,) = (vector for vector in vectors(head.written) if vector.name == name)

            def there() -> Flow[bool]:
                return name in (yield from self._held())

            yield from self._ask(
                "create_vector_name", there=there, vector_name=name,
                vector_name_config=wire.new_vector(made),
            )  # fmt: skip
        self._write_as(head.written)

    @_in_time
    def fill(self, field: Field, after: Any) -> Flow[tuple[int, Any]]:
        name = vector_name(field)
        if name == "full":  # what quantises it is no vector of its own
            return 0, None
        lacking: Condition = {
            "must": [{"has_vector": "full"}], "must_not": [{"has_vector": name}]
        }  # fmt: skip
        made = wire.filter_of(lacking)
        points, after = yield from self._scroll(made, after, self._strict.batch(_FILL), ["full"])
        dim, filled = (yield from self._held())["full"].size, len(points)
        while points:
            full = [point.vector["full"] for point in points]
            names = [f"record {stranger(p.id, p.payload).id!r}" for p in points]
            rows = coded(made_of(full, field, dim, names), field.precision)
            changed = wire.changed([point.id for point in points], {name: rows})
            yield from self._ask("update_vectors", points=changed, **self._writes)
            # Whoever replaced a document in between wrote both vectors, and had the new one undone.
            known = {point.id: numbers for point, numbers in zip(points, full, strict=True)}
            again = yield from self._retrieve(
                list(known), with_payload=["id"], with_vectors=["full"]
            )
            points = [point for point in again if point.vector["full"] != known[point.id]]
        return filled, after

    def index_vector(self, head: Head, field: Field) -> Flow[None]:
        graphs = (*head.added, field.name)
        (made,) = (v for v in vectors(head.nesting, graphs) if v.name == vector_name(field))
        if not self._local:  # local mode has no indexes
            config = (yield from self._ask("get_collection")).config
            changed = wire.changed_params(made, self._options, config.hnsw_config.m)
            yield from self._ask("update_collection", vectors_config=changed)

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:
        name = vector_name(field)
        if name == "full":
            yield from self._ask("update_collection", vectors_config=wire.unquantised(name))
        elif name in (yield from self._held()):

            def gone() -> Flow[bool]:
                return name not in (yield from self._held())

            yield from self._ask("delete_vector_name", there=gone, vector_name=name)
        self._write_as(head.nesting)

    def _held(self) -> Flow[dict[str, models.VectorParams]]:
        return named_vectors((yield from self._ask("get_collection")).config)

    @property
    def scans(self) -> bool:
        return self._strict.exact

    def within(self, plan: Plan) -> Plan:
        if self._head is None:
            return plan
        nesting = self._head.nesting
        bare = {field.name for field in nesting.fields if not self._is_walked(field)}
        return self._strict.within(plan, nesting, bare, self._layout.where)

    def thins(self, field: Field) -> bool:
        return self._strict.exact or self._is_walked(field)

    def _is_walked(self, field: Field) -> bool:
        """Return whether a field has a graph, or one for each tenant."""
        return self._graphs.get(self._layout.name_of(field), 1) > 0

    def entries(self) -> Flow[list[Entry]]:
        assert self._head is not None
        strict, found = self._strict, entries(self._head.nesting, self._head.added)
        most = strict.max_query_limit
        return [
            replace(
                entry,
                most_ef=None if entry.most_ef is None else strict.ef(entry.most_ef),
                # A document that is its own query is one hit more.
                most=None if most is None else max(1, most - 1),
                most_oversampling=strict.search_max_oversampling,
            )
            for entry in found
            if strict.exact or self._is_walked(entry.field)
        ]
        yield

    def _need_version(
        self,
        least: tuple[int, int] = _OLDEST,
        what: str = "nestvec",
        error: type[NestvecError] = BackendError,
    ) -> Flow[None]:
        """Refuse a server that is too old, by an error that names both versions."""
        version = yield from self._version()
        known = re.match(r"(\d+)\.(\d+)", version)
        if known is not None and (int(known[1]), int(known[2])) < least:
            raise error(
                f"{self.url} is Qdrant {version}; {what} needs {least[0]}.{least[1]} or newer"
            )

    def _version(self) -> Flow[str]:
        return str((yield from self._tried(Request("info", {}))).version)

    def _shard(self) -> Flow[None]:
        """Make the shard of the shard key where there is none."""
        key = self._options.shard_key
        if key is None:
            return

        def there() -> Flow[bool]:
            return key in (yield from self._shard_keys())

        if not (yield from there()):
            yield from self._ask(
                "create_shard_key",
                there=there,
                shard_key=key,
                timeout=self._waiting,
            )

    def _shard_keys(self) -> Flow[set[Any]]:
        cluster = yield from self._ask("collection_cluster_info")
        return {shard.shard_key for shard in (*cluster.local_shards, *cluster.remote_shards)}

    def _index(self) -> Flow[None]:
        """Make the payload indexes that are asked for and not there."""
        wanted: dict[str, Any] = dict(self._options.payload_indexes)
        if self._options.tenant_key is not None:
            wanted[self._options.tenant_key] = models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, is_tenant=True
            )
        if not wanted or self._local:  # local mode has no indexes
            return
        for key, kind in wanted.items():
            yield from self._index_path(indexable(key), kind)

    def _index_own(self) -> Flow[None]:
        """Make the indexes that strict mode wants for what nestvec itself asks."""
        if self._strict.indexed(writing=True):
            for key, kind in OWN_INDEXES.items():
                if key not in self._indexes:
                    yield from self._index_path(key, kind)

    def _index_path(self, path: str, kind: Any) -> Flow[None]:
        """Make a payload index, unless there is one."""

        def there() -> Flow[bool]:
            self._indexes = _kinds((yield from self._ask("get_collection")).payload_schema)
            return path in self._indexes

        # What is known was read when the collection was opened, or within the last seconds.
        if path not in self._indexes and not (yield from there()):
            most = self._strict.max_payload_index_count
            if most is not None and len(self._indexes) >= most:
                raise ConfigError(
                    f"collection {self._layout.where} has {len(self._indexes)} payload indexes, "
                    f"and its strict mode allows max_payload_index_count={most}"
                )
            yield from self._ask(
                "create_payload_index", there=there, field_name=path, field_schema=kind, wait=True
            )
            yield from there()

    # Writing

    @_in_time
    def upsert(self, batch: Batch) -> Flow[None]:
        self._writable()
        payloads = [
            payload(id, text, metadata, _DEPTH)
            for id, text, metadata in zip(batch.ids, batch.texts, batch.metadatas, strict=True)
        ]
        if not self._drift and any("raw" in made for made in payloads):
            yield from self._note_drift()
        parts = list(self._parts(batch, payloads))
        flows = [self._upsert_part(batch, payloads, part) for part in parts]
        outcomes = yield Together(flows)
        failed = [part for part, made in zip(parts, outcomes, strict=True) if _is_error(made)]
        if failed:
            error = next(made for made in outcomes if _is_error(made))
            raise self._partly(batch, failed, error) from error.__cause__

    def _parts(self, batch: Batch, payloads: list[dict[str, Any]]) -> Iterator[slice]:
        """Yield as many parts as are sent at once, and more where these would be too large."""
        numbers = wire.NUMBER_BYTES * sum(rows.shape[1] for rows in batch.vectors.values())
        most = self._strict.batch(-(-len(batch) // self._options.parallel))
        start = nbytes = 0
        for n, made in enumerate(payloads):
            added = numbers + len(repr(made))
            if n > start and (n - start == most or nbytes + added > _BYTES):
                yield slice(start, n)
                start, nbytes = n, 0
            nbytes += added
        yield slice(start, len(batch))

    def _upsert_part(self, batch: Batch, payloads: list[dict[str, Any]], part: slice) -> Flow[None]:
        while True:
            kept = self._vectors
            try:
                yield from self._send_part(batch, payloads, part, kept)
            except BackendError:
                if self._vectors is kept:
                    raise
                continue  # a field was dropped in this moment, and took the batch with it
            return

    def _send_part(
        self, batch: Batch, payloads: list[dict[str, Any]], part: slice, written: Sequence[Vector]
    ) -> Flow[None]:
        # Made only now, so that memory holds what is sent of the parts under way and of no others.
        # What is ready to be sent goes through the client's raw API: bytes by its `http`, messages
        # by its gRPC stub. Its own `upsert` would read the numbers one by one.
        options = self._options
        if self._local:
            made = wire.points(batch, payloads, part, written)
            yield from self._ask("upsert", points=made, **self._writes)
        elif self._driver.speaks_grpc:
            messages = wire.messages(batch, payloads, part, written)
            request = wire.upsert(
                self.collection, messages, options.shard_key, options.write_ordering
            )
            arguments = {"request": request, "timeout": options.timeout}
            yield from self._tried(Request("grpc_points.Upsert", arguments))
        else:
            body = wire.body(batch, payloads, part, written, options.shard_key)
            yield from self._ask(
                "http.points_api.upsert_points", point_insert_operations=body, **self._ordered
            )

    def _partly(self, batch: Batch, failed: list[slice], error: NestvecError) -> NestvecError:
        missing = [id for part in failed for id in batch.ids[part]]
        lost = set(missing)
        made = type(error)(
            f"{error}; of a batch of {len(batch)} documents {len(missing)} may not be stored, "
            f"from {missing[0]!r} to {missing[-1]!r}: add them again, which is safe"
        )
        made.stored = tuple(id for id in batch.ids if id not in lost)
        return made

    def _note_drift(self) -> Flow[None]:
        """Remember that some payloads have `raw`, before the first of them is written."""
        yield from self._change_record({"drift": True})
        self._drift = True

    def _change_record(self, changes: dict[str, Any]) -> Flow[None]:
        """Write some of what the collection records, and leave the rest as it is."""
        config = (yield from self._ask("get_collection")).config
        recorded = {**config.metadata["nestvec"], **changes}

        def there() -> Flow[bool]:
            config = (yield from self._ask("get_collection")).config
            return bool(config.metadata["nestvec"] == recorded)

        yield from self._ask("update_collection", there=there, metadata={"nestvec": recorded})

    def settle(self) -> Flow[None]:
        return  # every write waited until it was applied
        yield

    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> Flow[int]:
        self._writable()
        if ids is None:
            return (yield from self._delete_where(where))
        deleted = 0
        for start in range(0, len(ids), _PAGE):
            deleted += yield from self._delete_ids(ids[start : start + _PAGE])
        return deleted

    @_in_time
    def _delete_where(self, where: Filter | None) -> Flow[int]:
        filtered = yield from self._filtered(where, writing=True)
        condition = filtered.condition or models.Filter(must=[])
        counted = yield from self._count(condition)
        if counted:
            selector = models.FilterSelector(filter=condition)
            yield from self._ask("delete", points_selector=selector, **self._writes)
        return counted

    @_in_time
    def _delete_ids(self, ids: Sequence[str]) -> Flow[int]:
        points = list({self._layout.point_id(id) for id in ids})
        there = yield from self._retrieve(points, with_payload=False)
        if there:
            selector = models.PointIdsList(points=[point.id for point in there])
            yield from self._ask("delete", points_selector=selector, **self._writes)
        return len(there)

    def drop(self) -> Flow[None]:
        self._writable()

        def gone() -> Flow[bool]:
            try:
                yield from self._ask("get_collection")
            except Missing:
                return True
            return False

        yield from self._ask("delete_collection", there=gone, timeout=self._waiting)
        yield Close()

    # Reading

    @_in_time
    def search(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[list[Hit]]:
        filtered = yield from self._filtered(where)
        plan = self.within(plan)
        found = yield from self._query(self._request(queries, plan, filtered))
        points = yield from self._completed(found.points, queries, plan, filtered)
        return self._hits(points)

    @_within_limits
    def search_many(
        self, many: Sequence[Mapping[str, Matrix]], plan: Plan, where: Filter | None
    ) -> Flow[list[list[Hit]]]:
        filtered = yield from self._filtered(where)
        plan = self.within(plan)
        requests = [
            self._request(queries, plan, filtered, shard_key=self._options.shard_key)
            for queries in many
        ]
        # One request, unless it would be too large for a server.
        numbers = sum(len(vector) for queries in many[:1] for vector in queries.values())
        size = self._strict.searches(max(1, _BYTES // (wire.NUMBER_BYTES * numbers)))
        found: list[models.QueryResponse] = []
        for start in range(0, len(requests), size):
            found += yield from self._ask(
                "query_batch_points", requests=requests[start : start + size], **self._agreed
            )
        hits = []
        for queries, each in zip(many, found, strict=True):
            points = yield from self._completed(each.points, queries, plan, filtered)
            hits.append(self._hits(points))
        return hits

    def _hits(self, points: Sequence[Any]) -> list[Hit]:
        # A vector that others wrote may score NaN, which is no hit.
        return [self._layout.hit(point) for point in points if not math.isnan(point.score)]

    def _request(
        self, queries: Mapping[str, Matrix], plan: Plan, filtered: _Filtered, **settings: Any
    ) -> models.QueryRequest:
        return wire.query(
            queries, self._searched(plan), filtered.condition, self._layout.name_of,
            acorn=filtered.acorn, using=self._full, walked=self._walks_full(plan),
            most=self._strict.search_max_oversampling, **settings,
        )  # fmt: skip

    def _searched(self, plan: Plan) -> Plan:
        """Return a plan with an ef that is allowed."""
        if not plan.stages:
            return plan
        return replace(plan, knobs=self._strict.knobs(plan.stages[0][1], plan.knobs))

    def _walks_full(self, plan: Plan) -> bool:
        """Return whether the server would look for candidates by the graph of full itself.

        It reads them one by one only below its threshold, and loses some in the graph.
        """
        if not plan.stages or not self._graphs.get(self._layout.full) or not self._strict.exact:
            return False
        assert self._head is not None
        return plan.stages[-1][1] * self._head.nesting.full.nbytes > self._full_scan_kb * 1024

    def _completed(
        self, points: list[Any], queries: Mapping[str, Matrix], plan: Plan, filtered: _Filtered
    ) -> Flow[list[Any]]:
        """Return all hits there are, from an exact pass where the graph lost its way to some."""

        def count() -> Flow[int]:
            return (yield from self._count(filtered.condition))

        # Local mode has no graph.
        if self._local or filtered.acorn is None:
            return points
        if not self._strict.exact:
            return (yield from self._completed_by_id(points, queries, plan, filtered))
        if not (yield from lacks_hits(plan, len(points), count)):
            return points
        return (yield from self._query(self._request(queries, plan, filtered, exact=True))).points

    def _completed_by_id(
        self, points: list[Any], queries: Mapping[str, Matrix], plan: Plan, filtered: _Filtered
    ) -> Flow[list[Any]]:
        """Return the hits among what matches, where that is little: the server reads it by id."""
        if len(points) == plan.k:
            return points
        found, after = yield from self._scroll(
            filtered.condition, None, self._strict.page(_FEW), False, with_payload=False
        )
        if after is not None or len(found) <= len(points) + plan.offset:
            return points
        only = self._strict.fitted({"has_id": [point.id for point in found]})
        made = self._request(queries, plan, _Filtered(wire.filter_of(only), None))
        return (yield from self._query(made)).points

    @_in_time
    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[int]:
        if not plan.stages:
            return (yield from self.count(where))
        filtered = yield from self._filtered(where)
        made = wire.stage(
            queries, self._searched(self.within(plan)), filtered.condition, self._layout.name_of,
            acorn=filtered.acorn,
        )  # fmt: skip
        return len((yield from self._query(made)).points)

    def _query(self, made: models.QueryRequest) -> Flow[models.QueryResponse]:
        found: models.QueryResponse = yield from self._ask(
            "query_points",
            query=made.query, using=made.using, prefetch=made.prefetch, query_filter=made.filter,
            search_params=made.params, limit=made.limit, offset=made.offset,
            with_payload=made.with_payload, **self._reads,
        )  # fmt: skip
        return found

    @_in_time
    def get(self, ids: Sequence[str], vectors: bool) -> Flow[list[Record]]:
        wanted = [id for id in map(self._layout.point_id, ids) if id is not None]
        found: list[Record] = []
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            points = yield from self._retrieve(some, with_vectors=self._with(vectors))
            found += map(self._layout.record, points)
        return found

    @_in_time
    def count(self, where: Filter | None) -> Flow[int]:
        return (yield from self._count((yield from self._condition(where))))

    def _count(self, condition: models.Filter | None) -> Flow[int]:
        if not self._strict.exact:
            return (yield from self._counted(condition))
        counted = yield from self._ask(
            "count", count_filter=condition, exact=True, **self._shard_of
        )
        return int(counted.count)

    def _counted(self, condition: models.Filter | None) -> Flow[int]:
        """Return how many points match by reading their ids, where nothing may be exact."""
        counted, after = 0, None
        while True:
            ids, after = yield from self._scroll(
                condition, after, self._strict.page(_IDS), False, with_payload=False
            )
            counted += len(ids)
            if after is None:
                return counted

    @_in_time
    def page(
        self, where: Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        condition = yield from self._condition(where)
        points, after = yield from self._scroll(condition, after, limit, self._with(vectors))
        return [self._layout.record(point) for point in points], after

    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        self._writable()
        written = indexable(key, self._layout.root)
        if self._local:  # it has no indexes, so this is only kept in mind
            self._indexes = {**self._indexes, written: INDEXES[kind]}
        else:
            yield from self._index_path(written, INDEXES[kind])

    def index_for(self, condition: Keyed) -> str | None:
        return index_for(condition, self._layout.root)

    def metadata_indexes(self) -> Flow[Mapping[str, str]]:
        return keys_of(self._indexes, self._layout.root)
        yield

    def filtering(
        self,
        queries: Mapping[str, Matrix],  # noqa: ARG002
        plan: Plan,
        where: Filter,
    ) -> Flow[FilterTrace]:
        around = bounds(where, self._dialect)
        between = 0
        if not around.exact:
            condition = yield from self._served(where, around.between, writing=False)
            between = yield from self._count(wire.filter_of(condition))
        first = plan.stages[0][0] if plan.stages else None
        return filtered(
            around,
            self._dialect,
            matching=(yield from self.count(where)),
            total=(yield from self.count(None)),
            between=between,
            exact_below=sys.maxsize if first is None else self._full_scan_kb * 256 // first.length,
        )

    def verify(self) -> Flow[dict[str, tuple[str, ...]]]:
        def scroll(condition: Condition, after: Any) -> Flow[tuple[list[tuple[Any, Record]], Any]]:
            made = wire.filter_of(condition)
            points, after = yield from self._scroll(made, after, _PAGE, with_vectors=False)
            return [(point.id, stranger(point.id, point.payload)) for point in points], after

        yield from self._fresh()
        keys = () if self._options.vectors else ("id", "text")
        if not self._strict.indexed(writing=False):
            return (yield from incomplete(self._datatypes, keys, scroll))
        found = yield from incomplete(self._datatypes, (), scroll)
        after = None
        while keys:  # without a condition on them, which would need indexes
            points, after = yield from self._scroll(None, after, _PAGE, with_vectors=False)
            for point in points:
                payload = point.payload or {}
                if lacks := tuple(key for key in keys if payload.get(key) in (None, [])):
                    id = stranger(point.id, point.payload).id
                    found[id] = (*lacks, *found.get(id, ()))
            if after is None:
                break
        return found

    def kept(self, nesting: Nesting) -> list[Field]:
        # Those of others have the names that they gave them, and are only read.
        return [] if self._options.vectors else super().kept(nesting)

    @_in_time
    def stored(self, after: Any, limit: int) -> Flow[tuple[list[Stored], Any]]:
        points, after = yield from self._scroll(None, after, limit, with_vectors=True)
        return [as_stored(point) for point in points], after

    @_in_time
    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> Flow[None]:
        self._writable()
        now = yield from self._retrieve(
            [stored.key for stored, _ in mended], with_payload=["id"], with_vectors=["full"]
        )
        there = {point.id: as_stored(point).vectors.get("full") for point in now}
        good = [
            (stored.key, vectors)
            for stored, vectors in mended
            if stored.key in there and same_numbers(there[stored.key], stored.vectors.get("full"))
        ]
        size = self._strict.batch(_FILL)
        for start in range(0, len(good), size):
            some = good[start : start + size]
            rows = {
                name: coded(np.stack([made[name] for _, made in some]), datatype)
                for name, datatype in self._datatypes.items()
            }
            changed = wire.changed([key for key, _ in some], rows)
            yield from self._ask("update_vectors", points=changed, **self._writes)

    def info(self) -> Flow[Mapping[str, Any]]:
        told = yield from self._ask("get_collection")
        version = yield from self._version()
        params = told.config.params
        return {
            "engine": "qdrant+local" if self._local else "qdrant",
            "version": version,
            "status": told.status.value,
            "segments": told.segments_count,
            "indexed": (told.indexed_vectors_count or 0) // len(self._datatypes),
            "shards": params.shard_number,
            "replicas": params.replication_factor,
        }

    def _scroll(
        self,
        condition: models.Filter | None,
        after: Any,
        limit: int,
        with_vectors: Any,
        *,
        with_payload: Any = True,
    ) -> Flow[tuple[list[Any], Any]]:
        """Return a page of points and where to go on; where it is too large, a smaller one."""
        limit = self._strict.page(limit)
        while True:
            try:
                points, then = yield from self._ask(
                    "scroll", scroll_filter=condition, offset=after, limit=limit,
                    with_payload=with_payload, with_vectors=with_vectors, **self._reads,
                )  # fmt: skip
            except AnswerTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            if not self._local:
                self._check_advance(after, points, then)
            return points, then

    def _check_advance(self, after: Any, points: Sequence[Any], then: Any) -> None:
        """Refuse a page that leads back, or nowhere; a server hands points over by their ids."""
        if then is None:
            return
        places = [None if after is None else _place(after), *(_place(p.id) for p in points)]
        if not points or any(place is not None and place >= _place(then) for place in places):
            raise BackendError(
                f"{self.url}: scroll: it does not advance: after {after} comes {then} with "
                f"{len(points)} points; a proxy may answer in the server's place"
            )

    def _retrieve(
        self, ids: list[Any], *, with_payload: Any = True, with_vectors: Any = False
    ) -> Flow[list[Any]]:
        """Return points by their ids, in parts where they are too large together."""
        try:
            found: list[Any] = yield from self._ask(
                "retrieve", ids=ids, with_payload=with_payload, with_vectors=with_vectors,
                **self._reads,
            )  # fmt: skip
        except AnswerTooLarge:
            if len(ids) == 1:
                raise
            found, size = [], -(-len(ids) // 4)
            for start in range(0, len(ids), size):
                found += yield from self._retrieve(
                    ids[start : start + size], with_payload=with_payload, with_vectors=with_vectors
                )
        return found

    def _condition(self, where: Filter | None) -> Flow[models.Filter | None]:
        """Return the engine's filter, with the ids of what only the predicate can decide."""
        return (yield from self._filtered(where)).condition

    def _filtered(self, where: Filter | None, *, writing: bool = False) -> Flow[_Filtered]:
        yield from self._fresh()
        if where is None:
            return _Filtered(None, None)
        dialect = replace(self._dialect, strict=self._strict.indexed(writing=writing))

        def read(condition: Condition, after: Any) -> Flow[tuple[list[tuple[Any, Record]], Any]]:
            condition = yield from self._served(where, condition, writing=False)
            made = wire.filter_of(condition)
            points, after = yield from self._scroll(made, after, _PAGE, with_vectors=False)
            return [(point.id, self._layout.record(point)) for point in points], after

        condition = yield from decided(where, bounds(where, dialect), read)
        below = acorn_below(condition, dialect.indexes)
        condition = yield from self._served(where, condition, writing=writing)
        return _Filtered(wire.filter_of(condition), below)

    def _served(self, where: Filter, condition: Condition, *, writing: bool) -> Flow[Condition]:
        """Return a condition as strict mode allows it. Raises FilterError where it does not."""
        if self._strict.indexed(writing=writing):
            if any(key in OWN_INDEXES for key in lacking(condition, self._indexes)):
                yield from self._index_own()
            place = self._layout.where
            error = unindexed(where, condition, self._indexes, self._layout.root, place)
            if error is not None:
                raise error
        return self._strict.fitted(condition)

    @property
    def _dialect(self) -> Dialect:
        layout, indexes = self._layout, {} if self._local else self._indexes
        return Dialect(
            layout.point_id, drift=self._drift, root=layout.root, ours=not self._options.vectors,
            indexes=indexes, depth=_DEPTH, parsed=not self._local and not self._driver.speaks_grpc,
        )  # fmt: skip

    # Requests

    def _ask(
        self, method: str, *, there: Callable[[], Flow[bool]] | None = None, **arguments: Any
    ) -> Flow[Any]:
        """Ask until it is answered; what `there` finds has been done, whatever the answer was."""
        request = Request(method, {"collection_name": self.collection, **arguments})
        return (yield from self._tried(request, there))

    def _tried(self, request: Request, there: Callable[[], Flow[bool]] | None = None) -> Flow[Any]:
        return (yield from retried(request, self._options.retries + 1, self._seconds, there=there))

    @property
    def _waiting(self) -> int:
        return self._strict.seconds(self._options.waiting)

    @property
    def _seconds(self) -> float:
        return math.inf if self._local else self._options.timeout

    @property
    def _full(self) -> str | None:
        """The named vector of full; None for a collection's unnamed one."""
        return self._layout.full or None

    def _with(self, vectors: bool) -> Any:
        return vectors and ([self._layout.full] if self._layout.full else True)

    def _writable(self) -> None:
        if self._options.vectors:
            raise BackendError(
                f"collection {self._layout.where} was opened by vectors=…, as one that others "
                "made: it is only read"
            )

    @property
    def _shard_of(self) -> dict[str, Any]:
        key = self._options.shard_key
        return {} if key is None else {"shard_key_selector": key}

    @property
    def _agreed(self) -> dict[str, Any]:
        agreed = self._options.read_consistency
        if isinstance(agreed, str):
            agreed = models.ReadConsistencyType(agreed)  # over gRPC a plain string is an error
        return {} if agreed is None else {"consistency": agreed}

    @property
    def _reads(self) -> dict[str, Any]:
        return {**self._shard_of, **self._agreed}

    @property
    def _ordered(self) -> dict[str, Any]:
        ordering = self._options.write_ordering
        ordered = {} if ordering is None else {"ordering": models.WriteOrdering(ordering)}
        return {"wait": True, **ordered}

    @property
    def _writes(self) -> dict[str, Any]:
        return {**self._ordered, **self._shard_of}

    # Driving

    def send(self, request: Any) -> Any:
        return self._driver.send(request)

    async def asend(self, request: Any) -> Any:
        return await self._driver.asend(request)

    def close(self) -> None:
        self._driver.close()

    async def aclose(self) -> None:
        await self._driver.aclose()


def _kinds(schema: Mapping[str, models.PayloadIndexInfo]) -> dict[str, str]:
    """Return the kind of each payload index by path."""
    return by_path({shown: _kind(info) for shown, info in schema.items()})


def _kind(info: models.PayloadIndexInfo) -> str:
    """Return the kind of a payload index; one of integers may be for equality alone."""
    only = getattr(info.params, "range", None) is False
    return f"{info.data_type.value}_lookup" if only else str(info.data_type.value)


def _place(id: Any) -> tuple[int, int]:
    """Return what orders points as a server does: numbers first, then UUIDs."""
    return (0, id) if isinstance(id, int) else (1, uuid.UUID(str(id)).int)


def _is_error(outcome: Any) -> bool:
    return isinstance(outcome, NestvecError)
