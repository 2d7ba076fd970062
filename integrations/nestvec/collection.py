"""Everything a store does, written once as flows; Store and AsyncStore only drive them."""

from __future__ import annotations

import math
import time
import uuid
import warnings
from collections.abc import (
    AsyncIterable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from .adaptors.base import Adaptor
from .advice import filter_advice
from .backends.base import KINDS, Backend, Head, MadeMeanwhile
from .certificate import Tuned
from .embedders import Embedder, recorded, resolve
from .embedders.profiles import UntrainedPrefix, advice, profile_of
from .errors import (
    AdaptorError,
    CollectionMismatch,
    CollectionMissing,
    ConfigError,
    EmbedderError,
    FunnelError,
    NestingError,
    NestvecError,
    RecordError,
)
from .filter_forms import Where, as_filter
from .filter_values import checked_key, path, spelled
from .filters import And, Filter
from .flow import Call, Flow
from .funnel import Funnel, Plan, check_count, plan, widened
from .nesting import Field, Matrix, Nesting, nest, unit_rows
from .records import (
    Batch,
    FieldInfo,
    FilterTrace,
    Hit,
    Info,
    Record,
    StageTrace,
    Trace,
    check_id,
    is_image,
    plain,
)
from .sources import Take, checked_size, iterator, paired

__all__ = ["Collection", "EmbedderCall", "Width", "open_collection"]

#: The filter that keeps every document.
_EVERYTHING = And(())

_BLANK = "text is blank, so it cannot be embedded"


class EmbedderCall(Call):
    """A request to call a method of the embedder."""


@dataclass(frozen=True, slots=True)
class Width:
    """A request for an embedder's `dim`, which may load a model or embed a first text."""

    embedder: Embedder


def open_collection(
    backend: Backend,
    dims: str | Iterable[int | str] | None,
    embedder: Any,
    *,
    adaptor: Adaptor | None,
    dim: int | None,
    batch_size: int,
) -> Flow[Collection]:
    """Open the backend's collection, or make it if there is none and `dims` says how.

    Without an embedder, what was recorded is made again where its name tells how.
    """
    model = None if embedder is None else resolve(embedder)
    head: Head | None = yield from backend.load()
    if head is None:
        head = yield from _new_head(backend, dims, model, adaptor=adaptor, dim=dim)
        try:
            yield from backend.create(head)
        except MadeMeanwhile:
            if (theirs := (yield from backend.load())) is None:
                raise
            head = yield from _as_found(backend, theirs, dims, model, adaptor=adaptor, dim=dim)
    else:
        head = yield from _as_found(backend, head, dims, model, adaptor=adaptor, dim=dim)
    # Its width is checked when it is used: reading about a collection loads no model.
    model = recorded(head.embedder) if model is None else model
    made_here = model if embedder is None or isinstance(embedder, str) else None
    return Collection(backend, head, model, batch_size, made=made_here, adaptor=adaptor)


def _new_head(
    backend: Backend,
    dims: str | Iterable[int | str] | None,
    model: Embedder | None,
    *,
    adaptor: Adaptor | None,
    dim: int | None,
) -> Flow[Head]:
    """Return what a collection that is to be made records of itself."""
    if dims is None:
        raise CollectionMissing(
            f"no collection {backend.collection!r} in {backend.url}; to make it say which "
            "fields it has, as in dims=(64, 256)"
        )
    name = None if model is None else model.name
    made = None if model is None else (yield Width(model))
    given = adaptor.dim if model is None and dim is None and adaptor is not None else dim
    head = Head(Nesting.of(dims, _width(name, made, given)), name, id=uuid.uuid4().hex)
    if adaptor is not None:
        head = replace(head, adaptor=adaptor.name, derived=adaptor.orthogonal)
        _check_fit(adaptor, head)
    backend.check(head.nesting)
    if adaptor is None:
        _advise(model, head.nesting)
    return head


def _as_found(
    backend: Backend,
    head: Head,
    dims: str | Iterable[int | str] | None,
    model: Embedder | None,
    *,
    adaptor: Adaptor | None,
    dim: int | None,
) -> Flow[Head]:
    """Go on opening a collection that is there, if it is what is asked for."""
    width = dim if model is None else (yield Width(model))
    _check_same(backend, head, dims, model, width=width, adaptor=adaptor)
    yield from backend.ready(head)
    return head


def _width(name: str | None, made: int | None, dim: int | None) -> int:
    """Return how many numbers vectors have: what the embedder makes, or what was asked for."""
    if made is None and dim is None:
        raise EmbedderError(
            "a new collection needs an embedder, such as embedder='static', or, where every "
            "record brings its vector, their width, as in dim=1024"
        )
    if made is not None and dim is not None and made != dim:
        raise NestingError(f"dim={dim}, but {name!r} makes vectors of {made} numbers")
    width = dim if made is None else made
    assert width is not None
    return width


def _check_fit(adaptor: Adaptor, head: Head) -> None:
    """Refuse an adaptor that was fitted on other vectors than a collection's."""
    if adaptor.dim != head.nesting.dim:
        raise AdaptorError(
            f"adaptor {adaptor.name} is for vectors of {adaptor.dim} numbers, here are vectors of "
            f"{head.nesting.dim}"
        )
    if None not in (adaptor.embedder, head.embedder) and adaptor.embedder != head.embedder:
        raise AdaptorError(
            f"adaptor {adaptor.name} was fitted on vectors of {adaptor.embedder!r}, here they are "
            f"of {head.embedder!r}; fit one on these"
        )


def _advise(model: Embedder | None, nesting: Nesting) -> None:
    """Warn of prefixes that the model is known not to be trained for."""
    if model is None:
        return
    layers = getattr(model, "layers", None)
    said = advice(profile_of(model), nesting.dim, nesting.fields, layers)
    if said is not None:
        warnings.warn(said, UntrainedPrefix, stacklevel=6)  # where connect is called


def _check_same(
    backend: Backend,
    head: Head,
    dims: str | Iterable[int | str] | None,
    model: Embedder | None,
    *,
    width: int | None,
    adaptor: Adaptor | None,
) -> None:
    """Refuse to open a collection as something else than it is, showing both sides."""
    recorded, asked = [], []
    if model is not None and head.embedder not in (None, model.name):
        recorded.append(f"embedder {head.embedder!r}")
        asked.append(f"embedder {model.name!r}")
    if (given := None if adaptor is None else adaptor.name) != head.adaptor:
        recorded.append(f"adaptor {head.adaptor}" if head.adaptor else "no adaptor")
        asked.append(f"adaptor {given}" if given else "no adaptor; pass adaptor=… to connect")
    if width not in (None, head.nesting.dim):
        recorded.append(f"vectors of {head.nesting.dim}")
        asked.append(f"vectors of {width}")
    elif dims is not None and (wanted := Nesting.of(dims, head.nesting.dim)) != head.nesting:
        recorded.append(f"dims {head.nesting}")
        asked.append(f"dims {wanted}")
    if recorded:
        raise CollectionMismatch(
            f"collection {backend.collection!r} in {backend.url} has {', '.join(recorded)}; asked "
            f"for {', '.join(asked)}. open it as it is, or choose another collection"
        )


class Collection:
    """An open collection: its nesting, its embedder and its backend."""

    def __init__(
        self,
        backend: Backend,
        head: Head,
        embedder: Embedder | None,
        batch_size: int,
        *,
        made: Embedder | None = None,
        adaptor: Adaptor | None = None,
    ) -> None:
        self.backend, self.head = backend, head
        self.embedder, self.adaptor = embedder, adaptor
        self.made = made  # the embedder, where nobody else has it
        self.batch_size = batch_size
        self.tuned = None if head.tuned is None else Tuned.from_head(head.tuned)
        self._made = head.written

    @property
    def nesting(self) -> Nesting:
        """The fields that can be searched, fewest bytes first, full last."""
        return self.head.nesting

    def plan(self, funnel: Funnel | str | None = None, k: int = 10, offset: int = 0) -> Plan:
        """Return the plan of a query: the given funnel, or the one that was tuned, or a default.

        What was tuned for k hits lets more through for a query of more. Raises FunnelError.
        """
        given = funnel is not None
        if funnel is None and self.tuned is not None and self.tuned.certificate is not None:
            wanted = check_count("k", k, 1) + check_count("offset", offset, 0)
            funnel = widened(self.tuned, self.tuned.certificate.k, wanted)
        steps = replace(plan(funnel, self.nesting, k, offset), given=given)
        return self.backend.within(steps)

    def remember(self, tuned: Tuned) -> Flow[None]:
        """Make a measured plan the collection's default, also for whoever opens it later."""
        head = replace(self.head, tuned=tuned.to_head())
        yield from self.record(head)
        self.tuned = tuned

    def record(self, head: Head) -> Flow[None]:
        """Make the collection record this of itself, and go on with it."""
        yield from self.backend.record(head)
        self._made = head.written
        self.head = head
        self.tuned = None if head.tuned is None else Tuned.from_head(head.tuned)

    def vectors(self, query: Any) -> Flow[dict[str, Matrix]]:
        """Return one unit vector per field for a text or a vector."""
        return (yield from self._queries(query, None))

    # Writing

    def add(
        self,
        texts: Iterable[Any] | AsyncIterable[Any],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        ids: Iterable[Any] | None = None,
        *,
        vectors: Iterable[Any] | None = None,
        batch_size: int | None = None,
    ) -> Flow[list[str]]:
        """Embed and store texts, or images where the embedder takes them; return their ids.

        Any iterable will do, also a generator: it is read one batch at a time. Adding an id
        again replaces the document; within one call the last one wins. Ids that are not given
        are random UUIDs. A text with a vector is not embedded. An image is a `pathlib.Path`, whose
        text is the path, or a PIL image; a string is always a text. Raises RecordError, which names
        the record, EmbedderError, or BackendError; a batch that fails leaves nothing of itself
        behind, and the error's `stored` lists the ids of the batches before it.
        """
        records = paired(texts, metadatas, ids, vectors)
        return (yield from self.add_records(records, batch_size=batch_size))

    def add_records(
        self,
        records: Iterable[Record] | AsyncIterable[Record],
        *,
        batch_size: int | None = None,
    ) -> Flow[list[str]]:
        """Store records and return their ids in order; those with a vector are not embedded.

        A vector has as many numbers as the collection's full vectors; it is made unit length.
        Reads, replaces and fails as `add` does.
        """
        size = self.batch_size if batch_size is None else checked_size(batch_size)
        items = iterator(records)
        stored: list[str] = []
        try:
            while True:
                taken: list[Record] = yield Take(items, size)
                if taken:
                    yield from self.backend.upsert((yield from self._batch(taken)))
                    stored += [record.id for record in taken]
                if len(taken) < size:
                    break
        except NestvecError as error:
            error.stored = (*stored, *error.stored)
            raise
        if stored:
            yield from self._settle()
        return stored

    def _settle(self) -> Flow[None]:
        """Index what is stored; it stays reported as stored where that fails."""
        try:
            yield from self.backend.settle()
        except NestvecError as error:
            name = f"of collection {self.backend.collection!r}"
            self.backend.unbuilt.failed(name, error, "store.create_index()")

    def delete(self, ids: Iterable[Any] | None = None, where: Where | None = None) -> Flow[int]:
        """Delete documents by their ids or by a filter; return how many there were.

        Without either nothing is deleted and RecordError is raised.
        """
        if (ids is None) == (where is None):
            raise RecordError(
                "delete needs ids or where, one of them; to delete everything call drop(), or "
                "delete(where=And(()))"
            )
        if ids is not None:
            ids = _ids(ids)
            if not ids:
                return 0
        only = as_filter(where)
        if only == _EVERYTHING and not isinstance(where, Filter):
            raise RecordError(
                f"where={where!r} matches every document; to delete everything call drop(), or "
                "delete(where=And(()))"
            )
        return (yield from self.backend.delete(ids, only))

    def create_index(self, field: str | None = None) -> Flow[None]:
        """Index a field, by default the one that is searched first, while others read and write.

        An add does so by itself once there are enough documents; this is for doing it before, or
        again after a build that broke off. Raises NestingError where the field cannot have one.
        """
        chosen = self.nesting.fields[0] if field is None else self.nesting[field]
        yield from self.backend.create_index(chosen)

    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        """Index what a metadata key holds, so that filters on it need not read every document.

        `kind` is "int" or "float", which are one kind, "str", "bool" or "datetime". What is
        indexed so already stays as it is. A filter means the same with an index and without.
        Raises FilterError on what is no key, ConfigError on what cannot be indexed.
        """
        if kind not in KINDS:
            raise ConfigError(f"an index is of one of {', '.join(KINDS)}, got {kind!r}")
        key = spelled(path(checked_key(key)))
        there = (yield from self.backend.metadata_indexes()).get(key)
        if there is None:
            yield from self.backend.index_metadata(key, KINDS[kind])
        elif there != KINDS[kind]:
            raise ConfigError(f"key {key!r} is indexed already, as {there!r}")

    def drop(self) -> Flow[None]:
        """Delete the collection with all of its documents; the store is closed then."""
        yield from self.backend.drop()

    # Reading

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        funnel: Funnel | str | None = None,
        min_score: float | None = None,
        offset: int = 0,
    ) -> Flow[list[Hit]]:
        """Return the k best hits for a text, an image or a vector, best first.

        `where` limits the candidates of the first stage. `funnel` is None for the collection's
        own plan, a text such as "64:200 256:40", "exact", or a Funnel. `min_score` is a cosine;
        hits below it are left out. `offset` skips the first hits; past the last document there
        are none. Raises FunnelError, FilterError, NestingError (the vector), EmbedderError (the
        text) before anything is sent.
        """
        steps = self.plan(funnel, k, offset)
        least = _checked_score(min_score)
        where = _limiting(where)
        queries = yield from self._queries(query, steps)
        hits = yield from self.backend.search(queries, steps, where)
        return _at_least(least, hits)

    def search_many(
        self,
        queries: Iterable[Any],
        k: int = 10,
        *,
        where: Where | None = None,
        funnel: Funnel | str | None = None,
        min_score: float | None = None,
        offset: int = 0,
    ) -> Flow[list[list[Hit]]]:
        """Return the hits of each query, as `search` does, asking the engine only once."""
        steps = self.plan(funnel, k, offset)
        least = _checked_score(min_score)
        where = _limiting(where)
        if isinstance(queries, str):
            raise RecordError(f"queries is a list of queries, got one string; write [{queries!r}]")
        many = []
        for query in queries:
            many.append((yield from self._queries(query, steps)))
        found = (yield from self.backend.search_many(many, steps, where)) if many else []
        return [_at_least(least, hits) for hits in found]

    def explain(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        funnel: Funnel | str | None = None,
    ) -> Flow[Trace]:
        """Run a query stage by stage and beside an exact search; return what happened.

        A stage's time is the time of the funnel up to it less that of the funnel before it.
        Raises as `search` does.
        """
        steps = self.plan(funnel, k)
        where = _limiting(where)
        queries = yield from self._queries(query, steps)
        entering = yield from self.backend.count(where)
        # So that no stage pays for a cold start.
        yield from self.backend.search(queries, steps, where)
        stages, before = [], 0.0
        for done in range(1, len(steps.stages) + 1):
            part = replace(steps, stages=steps.stages[:done])
            leaving, ms = yield from _timed(self.backend.candidates(queries, part, where))
            name = part.stages[-1][0].name
            stages.append(StageTrace(name, entering, leaving, max(0.0, ms - before)))
            entering, before = leaving, ms
        hits, ms = yield from _timed(self.backend.search(queries, steps, where))
        stages.append(StageTrace("full", entering, len(hits), max(0.0, ms - before)))
        overlap = exact_ms = None
        if self.backend.scans:
            exact, exact_ms = yield from _timed(self.backend.search(queries, Plan((), k), where))
            found = {hit.id for hit in hits} & {hit.id for hit in exact}
            overlap = len(found) / len(exact) if exact else 1.0
        served: FilterTrace | None = None
        warnings: tuple[str, ...] = ()
        if where is not None:
            served = yield from self.backend.filtering(queries, steps, where)
            warnings = yield from filter_advice(where, served, self.backend)
        if steps.stages:
            warnings += yield from self.backend.warnings(steps)
        return Trace(
            str(steps), tuple(stages), tuple(map(_in_range, hits)), ms, exact_ms, overlap, served,
            warnings,
        )  # fmt: skip

    def get(self, ids: Iterable[Any], *, vectors: bool = False) -> Flow[list[Record]]:
        """Return the documents with these ids in their order; unknown ids are left out.

        With `vectors=True` each has its full vector, of unit length, as float32.
        """
        wanted = _ids(ids)
        records = self._as_given((yield from self.backend.get(wanted, vectors)))
        found = {record.id: record for record in records}
        return [found[id] for id in wanted if id in found]

    def count(self, where: Where | None = None) -> Flow[int]:
        """Return how many documents there are, or how many a filter matches."""
        return (yield from self.backend.count(_limiting(where)))

    def page(
        self, where: Filter | None, after: Any, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        """Return some documents and where to go on, None at the end."""
        records, after = yield from self.backend.page(where, after, self.batch_size, vectors)
        return self._as_given(records), after

    def info(self) -> Flow[Info]:
        """Return what the collection knows of itself, and its size."""
        count = yield from self.backend.count(None)
        engine = yield from self.backend.info()
        fields = tuple(
            FieldInfo(field.name, field.length, field.precision, count * field.nbytes)
            for field in self.nesting.fields
        )
        return Info(
            url=self.backend.url,
            collection=self.backend.collection,
            count=count,
            dim=self.nesting.dim,
            fields=fields,
            embedder=self.head.embedder,
            funnel=str(self.plan()),
            format=self.head.format,
            engine=engine,
            indexes=(yield from self.backend.metadata_indexes()),
            adaptor=self.head.adaptor,
            warnings=(yield from self.backend.warnings()),
        )

    # Vectors

    def _batch(self, taken: list[Record]) -> Flow[Batch]:
        """Return taken records as what the backend stores: the last of each id, embedded."""
        for record in taken:
            if not isinstance(record, Record):
                raise RecordError(f"add_records takes Records, got {type(record)}")
        records = list({record.id: record for record in taken}.values())
        metadatas = [_plain_metadata(record) for record in records]
        vectors: list[Any] = [record.vector for record in records]
        missing = [i for i, vector in enumerate(vectors) if vector is None]
        if missing:
            for images in (False, True):
                which = [i for i in missing if (records[i].image is not None) == images]
                made = yield from self._embed([records[i] for i in which], images)
                for i, vector in zip(which, made, strict=True):
                    vectors[i] = vector
        names = [f"record {record.id!r}" for record in records]
        try:
            nested = self._nest(vectors, names, self._made)
        except NestingError as error:
            raise RecordError(f"{error}") from error
        return Batch([r.id for r in records], [r.text for r in records], metadatas, nested)

    def _embed(self, records: list[Record], images: bool) -> Flow[Matrix | list[Any]]:
        """Return the unit vectors of records, all of them images or all of them texts."""
        if not records:
            return []
        for record in records:
            if not images and not record.text.strip():
                raise RecordError(
                    f"record {record.id!r}: {_BLANK}; give it a vector or leave it out"
                )
        embedder = self._need_embedder()
        if images:
            _need_images(embedder, f"record {records[0].id!r}")
            made = yield EmbedderCall("embed_images", ([record.image for record in records],))
        else:
            made = yield EmbedderCall("embed_documents", ([record.text for record in records],))
        with _blaming(embedder):
            if len(made) != len(records):
                raise NestingError(f"{len(made)} vectors for {len(records)} texts")
            return unit_rows(
                made, self.nesting.dim, [f"record {record.id!r}" for record in records]
            )

    def document_vector(self, id: str, text: str) -> Flow[Matrix]:
        """Return the full vector of a document's text, embedded anew."""
        embedded = yield from self._embed([Record(id, text)], images=False)
        return np.asarray(self._nest(embedded, [id], self._made)["full"][0])

    def _queries(self, query: Any, steps: Plan | None) -> Flow[dict[str, Matrix]]:
        """Return one unit vector for each field of a plan, or of the nesting, and for full.

        The query is a text, an image or a vector.
        """
        if isinstance(query, str) or is_image(query):
            embedder = self._need_embedder()
            if is_image(query):
                _need_images(embedder, "query")
                made = (yield EmbedderCall("embed_images", ([query],)))[0]
            elif query.strip():
                made = yield EmbedderCall("embed_query", (query,))
            else:
                raise RecordError(f"query: {_BLANK}")
            with _blaming(embedder):
                query = unit_rows([made], self.nesting.dim, ["query"])[0]
        nesting = self.nesting
        if steps is not None:  # as it was when the plan was made: fields may go meanwhile
            nesting = _searched(steps.stages, nesting.full)
        made = self._nest([query], ["query"], nesting)
        return {name: rows[0] for name, rows in made.items()}

    def _nest(self, vectors: Any, names: list[str], nesting: Nesting) -> dict[str, Matrix]:
        """Return one matrix of unit rows per field, adapted where there is an adaptor."""
        if self.adaptor is None:
            return nest(vectors, nesting, names)
        unit = unit_rows(vectors, self.nesting.dim, names)
        nested = nest(self.adaptor.apply(unit), nesting, names)
        if self.adaptor.orthogonal:
            return nested
        # Such an adaptor makes only the prefixes: the score stays the model's own.
        return nested | {field.name: unit for field in nesting.fields if field.full}

    def nested(self, stored: Any, names: list[str]) -> dict[str, Matrix]:
        """Return one matrix of unit rows per written field for full vectors as they are stored."""
        if self.head.derived:
            return nest(stored, self._made, names)
        return self._nest(stored, names, self._made)

    def _as_given(self, records: list[Record]) -> list[Record]:
        """Return stored records with their vectors as they were before an adaptor."""
        if self.adaptor is None or not self.adaptor.orthogonal:
            return records
        there = [record for record in records if record.vector is not None]
        if not there:
            return records
        undone = self.adaptor.undo(np.stack([record.vector for record in there]))
        rows = dict(zip((record.id for record in there), undone, strict=True))
        return [replace(record, vector=rows.get(record.id)) for record in records]

    def _need_embedder(self) -> Embedder:
        if self.embedder is None:
            written = self.head.embedder
            hint = f"its texts were embedded by {written!r}; " if written else ""
            raise EmbedderError(
                f"collection {self.backend.collection!r} was opened without an embedder; {hint}"
                "pass embedder=… to connect, or give vectors"
            )
        return self.embedder


@lru_cache(maxsize=256)
def _searched(stages: tuple[tuple[Field, int], ...], full: Field) -> Nesting:
    """Return the fields of a plan, and full."""
    return Nesting((*(field for field, _ in stages if field.name != "full"), full))


def _need_images(embedder: Embedder, what: str) -> None:
    if not hasattr(embedder, "embed_images"):
        raise EmbedderError(f"{what} is an image, but embedder {embedder.name!r} takes texts alone")


@contextmanager
def _blaming(embedder: Embedder) -> Iterator[None]:
    """Say which embedder gave what cannot be right."""
    try:
        yield
    except NestingError as error:
        raise EmbedderError(f"embedder {embedder.name!r}: {error}") from error


def _limiting(where: Where | None) -> Filter | None:
    """Return what was given as `where` as a filter, None where it keeps everything."""
    only = as_filter(where)
    return None if only == _EVERYTHING else only


def _timed(flow: Flow[Any]) -> Flow[tuple[Any, float]]:
    started = time.perf_counter()
    result = yield from flow
    return result, (time.perf_counter() - started) * 1000


def _at_least(least: float | None, hits: Iterable[Hit]) -> list[Hit]:
    return [hit for hit in map(_in_range, hits) if least is None or hit.score >= least]


def _in_range(hit: Hit) -> Hit:
    """Return the hit with its score in [-1, 1], where rounding took it out."""
    if -1.0 <= hit.score <= 1.0:
        return hit
    return Hit(hit.id, hit.text, hit.metadata, max(-1.0, min(1.0, hit.score)))


def _plain_metadata(record: Record) -> dict[str, Any]:
    metadata = plain(record.metadata, f"record {record.id!r}: metadata")
    if not isinstance(metadata, dict):
        raise RecordError(f"record {record.id!r}: metadata is a dict, got {type(record.metadata)}")
    return metadata


def _checked_score(score: Any) -> float | None:
    if score is None:
        return None
    try:
        least = float(score)
    except (TypeError, ValueError):
        least = math.nan
    if not -1 <= least <= 1:
        raise FunnelError(f"min_score is a cosine between -1 and 1, got {score!r}")
    return least


def _ids(ids: Iterable[Any]) -> list[str]:
    if isinstance(ids, str):
        raise RecordError(f"ids is a list of ids, got the string {ids!r}; write [{ids!r}]")
    return [check_id(id) for id in ids]
