"""The memory backend: exact numpy, for tests and notebooks, and the oracle for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, ConfigError
from ..filters import Filter
from ..flow import Call, Flow
from ..funnel import Plan
from ..nesting import PRECISIONS, Field, Matrix, Nesting, nest
from ..processes import on_fork
from ..records import Batch, FilterTrace, Hit, Record
from .base import Backend, Entry, Head, Stored

__all__ = ["MemoryBackend", "MemoryOptions"]


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Memory has no options."""


class MemoryBackend(Backend):
    """A collection that lives as long as its store."""

    precisions = tuple(PRECISIONS)
    indexes_metadata = False

    def __init__(self, url: str, collection: str, _options: MemoryOptions) -> None:
        if url != "memory:":
            raise ConfigError(f"memory: takes no path, got {url!r}")
        self.url, self.collection = "memory:", collection
        self._table: _Table | None = None
        self._lock = RLock()
        on_fork(self, lambda _: None, lock=self._lock)

    def load(self) -> Flow[Head | None]:
        return None
        yield

    def create(self, head: Head) -> Flow[None]:
        self._table = _Table(head)
        return
        yield

    def record(self, head: Head) -> Flow[None]:  # noqa: ARG002
        return  # nothing is left of it to open again
        yield

    def entries(self) -> Flow[list[Entry]]:
        """Return all fields but full; memory reads everything anyway."""
        fields = yield Call("searched")
        return [Entry(f, indexed=False, oversampling=f.quantised) for f in fields]

    def fill(self, field: Field, after: Any) -> Flow[tuple[int, Any]]:  # noqa: ARG002
        filled: int = yield Call("fill", (field,))
        return filled, None

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:
        yield Call("forget", (head, field))

    def upsert(self, batch: Batch) -> Flow[None]:
        yield Call("upsert", (batch,))

    def settle(self) -> Flow[None]:
        return
        yield

    def search(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[list[Hit]]:
        hits: list[Hit] = yield Call("search", (queries, plan, where))
        return hits

    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[int]:
        rows = yield Call("shortlist", (queries, plan, where))
        return len(rows)

    def get(self, ids: Sequence[str], vectors: bool) -> Flow[list[Record]]:
        records: list[Record] = yield Call("get", (ids, vectors))
        return records

    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> Flow[int]:
        deleted: int = yield Call("delete", (ids, where))
        return deleted

    def count(self, where: Filter | None) -> Flow[int]:
        ids = yield Call("matching", (where,))
        return len(ids)

    def page(
        self, where: Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        ids = yield Call("matching", (where,))
        rest = [id for id in sorted(ids) if after is None or id > after]
        records = yield Call("get", (rest[:limit], vectors))
        return records, rest[limit - 1] if len(rest) > limit else None

    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        yield Call("index", (key, kind))

    def metadata_indexes(self) -> Flow[Mapping[str, str]]:
        indexes: Mapping[str, str] = yield Call("indexes")
        return indexes

    def filtering(
        self,
        queries: Mapping[str, Matrix],  # noqa: ARG002
        plan: Plan,  # noqa: ARG002
        where: Filter,
    ) -> Flow[FilterTrace]:
        total = yield from self.count(None)
        matching = yield from self.count(where)
        return FilterTrace(matching, total, "the predicate, then an exact pass", (), total, total)

    def kept(self, nesting: Nesting) -> list[Field]:
        return [f for f in nesting.fields if f.precision in ("float32", "float16")]

    def info(self) -> Flow[Mapping[str, Any]]:
        return {"engine": "memory"}
        yield

    def stored(self, after: Any, limit: int) -> Flow[tuple[list[Stored], Any]]:
        found: tuple[list[Stored], Any] = yield Call("stored", (after, limit))
        return found

    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> Flow[None]:
        yield Call("rewrite", (mended,))

    def drop(self) -> Flow[None]:
        self.close()
        return
        yield

    def send(self, request: Call) -> Any:
        with self._lock:
            if self._table is None:
                raise BackendError(f"collection {self.collection!r} of memory: is closed")
            return getattr(self._table, request.method)(*request.args)

    def close(self) -> None:
        self._table = None


class _Table:
    """The documents, and per field the numbers as that field keeps them."""

    def __init__(self, head: Head) -> None:
        self.fields = {field.name: field for field in head.nesting.fields}
        self.records: dict[str, Record] = {}
        self.rows: dict[str, dict[str, Matrix]] = {}
        self.matrices: dict[str, Matrix] = {}
        self.indexed: dict[str, str] = {}

    def fill(self, field: Field) -> int:
        """Make a field for the documents that lack it; return for how many."""
        full = self.fields["full"]
        both = Nesting((field, full))
        lacking = [id for id, rows in self.rows.items() if field.name not in rows]
        if lacking:
            names = [f"record {id!r}" for id in lacking]
            made = nest([self.records[id].vector for id in lacking], both, names)[field.name]
            for id, row in zip(lacking, keep(field, made), strict=True):
                self.rows[id][field.name] = row
            self.matrices.clear()
        self.fields = {field.name: field, **self.fields}
        return len(lacking)

    def forget(self, head: Head, field: Field) -> None:
        """Drop a field."""
        self.fields = {kept.name: kept for kept in head.nesting.fields}
        for row in self.rows.values():
            row.pop(field.name, None)
        self.matrices.pop(field.name, None)

    def stored(self, after: str | None, limit: int) -> tuple[list[Stored], str | None]:
        rest = sorted(id for id in self.records if after is None or id > after)
        found = []
        for id in rest[:limit]:
            record, rows = self.records[id], self.rows[id]
            # Quantised numbers are rounded, but no others are kept of them.
            exact = {
                name: row for name, row in rows.items()
                if self.fields[name].precision in ("float32", "float16")
            }  # fmt: skip
            found.append(Stored(record, id, record.text, exact))
        return found, rest[limit - 1] if len(rest) > limit else None

    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> None:
        for stored, vectors in mended:
            record = self.records.get(stored.id)
            if record is not None and record is stored.key:
                self.records[stored.id] = replace(record, vector=vectors["full"])
                self.rows[stored.id] = {
                    name: keep(field, vectors[name][None])[0] for name, field in self.fields.items()
                }
        self.matrices.clear()

    def searched(self) -> list[Field]:
        prefixes = [field for name, field in self.fields.items() if name != "full"]
        return sorted(prefixes, key=lambda field: (field.nbytes, field.length))

    def index(self, key: str, kind: str) -> None:
        """Keep in mind that a key is indexed, which changes nothing here."""
        self.indexed[key] = kind

    def indexes(self) -> dict[str, str]:
        return dict(self.indexed)

    def upsert(self, batch: Batch) -> None:
        vectors = dict(batch.vectors)
        for name, field in self.fields.items():
            if name not in vectors:  # it came after the batch was made
                both = Nesting((field, self.fields["full"]))
                ids = [f"record {id!r}" for id in batch.ids]
                vectors[name] = nest(batch.vectors["full"], both, ids)[name]
        kept = {name: keep(field, vectors[name]) for name, field in self.fields.items()}
        for i, id in enumerate(batch.ids):
            vector = batch.vectors["full"][i]
            self.records[id] = Record(id, batch.texts[i], batch.metadatas[i], vector)
            self.rows[id] = {name: rows[i] for name, rows in kept.items()}
        self.matrices.clear()

    def scores(self, query: Matrix, field: str) -> Matrix:
        """Return the score of every document on one field."""
        if field not in self.matrices:
            rows = [row[field] for row in self.rows.values()]
            self.matrices[field] = np.stack(rows) if rows else np.empty((0, len(query)), "f4")
        return np.asarray(self.matrices[field] @ keep(self.fields[field], query[None])[0])

    def shortlist(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> npt.NDArray[np.intp]:
        """Return the rows that leave the last stage before full, in no particular order."""
        ids = list(self.records)
        matching = set(self.matching(where))
        rows = np.array([i for i, id in enumerate(ids) if id in matching], dtype=np.intp)
        for i, (field, limit) in enumerate(plan.stages):
            query, times = queries[field.name], plan.knobs.oversampling
            scores = self.scores(query, field.name)[rows]
            if i == 0 and times is not None and field.quantised:
                rows = rows[np.argsort(-scores, kind="stable")[: math.ceil(limit * times)]]
                scores = self._own(field, rows) @ query
            rows = rows[np.argsort(-scores, kind="stable")[:limit]]
        return rows

    def _own(self, field: Field, rows: npt.NDArray[np.intp]) -> Matrix:
        """Return the numbers of a quantised field before they were quantised."""
        self.scores(np.zeros(self.fields["full"].length, np.float32), "full")
        cut = self.matrices["full"][rows, : field.length]
        return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True))

    def search(self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None) -> list[Hit]:
        rows = np.sort(self.shortlist(queries, plan, where))
        scores = self.scores(queries["full"], "full")
        best = rows[np.argsort(-scores[rows], kind="stable")][plan.offset : plan.limit]
        ids = list(self.records)
        found = self.get([ids[i] for i in best], vectors=False)
        return [
            Hit(record.id, record.text, record.metadata, float(scores[i]))
            for i, record in zip(best, found, strict=True)
        ]

    def matching(self, where: Filter | None) -> list[str]:
        return [id for id, record in self.records.items() if where is None or where.matches(record)]

    def get(self, ids: Sequence[str], vectors: bool) -> list[Record]:
        return [
            Record(id, kept.text, deepcopy(kept.metadata), kept.vector if vectors else None)
            for id in ids
            if (kept := self.records.get(id)) is not None
        ]

    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> int:
        matching = self.matching(where)
        doomed = matching if ids is None else set(matching).intersection(ids)
        for id in doomed:
            del self.records[id], self.rows[id]
        self.matrices.clear()
        return len(doomed)


#: Steps on either side of zero.
_STEPS = {"int8": 127, "turbo": 7}


def keep(field: Field, rows: Matrix) -> Matrix:
    """Return rows as a field keeps them, as float32 numbers whose dot product is its score."""
    if field.precision == "float16":
        return rows.astype(np.float16).astype(np.float32)
    if field.precision in _STEPS:
        scale = np.abs(rows).max(axis=1, keepdims=True) / _STEPS[field.precision]
        return np.asarray(np.round(rows / scale) * scale, dtype=np.float32)
    if field.precision == "uint8":
        return np.asarray(np.round(rows * 127) / 127, dtype=np.float32)
    if field.precision == "binary":
        return np.where(rows > 0, 1, -1).astype(np.float32) / np.float32(np.sqrt(field.length))
    return rows
