"""Exact answers of many queries, by whichever way is faster here: the engine's scan, or one pass.

The pass reads every document once and ranks it for all queries at once, in bounded memory; the
engine's exact search reads every document for each query. Filters are left to the engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .collection import Collection
from .filters import Filter
from .flow import Flow
from .funnel import Plan
from .nesting import Matrix
from .records import Hit, Record

__all__ = ["Answer", "Asked", "Pages", "exact_answers"]

#: Cosines that are so near are the same: another order of adding changes as much.
_SAME = 2e-6

#: How many documents are ranked at once, and how many queries the engine is asked until it is
#: looked at whether another way is faster, or the time is over.
_CHUNK, _TOGETHER = 4_096, 4

#: How many documents are read at once.
_PAGE = 512

#: Seconds of the engine's scans from which another way is looked at.
_WORTH = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A query: one unit vector per field, its filter, and its own id where it is a document."""

    queries: Mapping[str, Matrix]
    where: Filter | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The exact best of a query: their ids, the score of the last of them, and how many."""

    asked: Asked
    ids: tuple[str, ...]
    least: float

    def recall(self, hits: Sequence[Hit]) -> float:
        """Return the share of the best that is among hits, in [0, 1].

        A hit that scores like the last of them is as good. The query itself does not count.
        """
        others = [hit for hit in hits if hit.id != self.asked.id][: len(self.ids)]
        best = set(self.ids)
        found = sum(hit.id in best or hit.score >= self.least - _SAME for hit in others)
        return found / len(self.ids)


def exact_answers(
    collection: Collection,
    asked: Sequence[Asked],
    k: int,
    *,
    seconds: float,
    tell: Callable[[], None],
) -> Flow[list[Answer]]:
    """Return the exact answers of queries in their order, of about as many as `seconds` allow.

    One pass over all documents ends when it ends, and answers no less than half of the queries.
    Queries whose answer is empty, because nothing matches their filter, are left out. Where the
    engine may not scan there is a pass for each filter.
    """
    if not collection.backend.scans:
        return (yield from _by_passes(collection, asked, k, tell))
    engine_time = 0.0
    answers: list[Answer] = []
    free = all(query.where is None for query in asked)
    started = time.perf_counter()
    for start in range(0, len(asked), _TOGETHER):
        some = asked[start : start + _TOGETHER]
        began = time.perf_counter()
        for query in some:
            answers += yield from _by_engine(collection, query, k)
        tell()
        engine_time = (time.perf_counter() - began) / len(some)
        left = len(asked) - start - len(some)
        if start == 0 and free and left * engine_time > _WORTH:
            reading, ranking = yield from _pass_time(collection, left)
            if reading + ranking < left * engine_time:
                share = (seconds - (time.perf_counter() - started) - reading) / max(ranking, 1e-9)
                rest = asked[len(some) : len(some) + math.ceil(left * min(1, max(0.5, share)))]
                return answers + (yield from _by_pass(collection, rest, k, tell))
        if time.perf_counter() - started > seconds:
            break
    return answers


def _by_engine(collection: Collection, asked: Asked, k: int) -> Flow[list[Answer]]:
    steps = Plan((), k if asked.id is None else k + 1)
    hits = yield from collection.backend.search(asked.queries, steps, asked.where)
    best = [hit for hit in hits if hit.id != asked.id][:k]
    return [Answer(asked, tuple(hit.id for hit in best), best[-1].score)] if best else []


def _pass_time(collection: Collection, queries: int) -> Flow[tuple[float, float]]:
    """Return about how long a pass takes, to read and to rank all documents, by a few pages."""
    total = yield from collection.backend.count(None)
    asked = np.zeros((queries, collection.nesting.dim), np.float32)
    best, reading = _Best(queries, 2), Pages(collection, _PAGE)
    counted, spent = 0, [0.0, 0.0]
    for _ in range(3):
        began = time.perf_counter()
        page = yield from reading.next()
        if page is None:
            break
        read = time.perf_counter()
        best.add(page[0], asked @ page[1].T)
        spent = [spent[0] + read - began, spent[1] + time.perf_counter() - read]
        counted += len(page[0])
    return spent[0] * total / max(1, counted), spent[1] * total / max(1, counted)


def _by_passes(
    collection: Collection, asked: Sequence[Asked], k: int, tell: Callable[[], None]
) -> Flow[list[Answer]]:
    alike: dict[str, list[Asked]] = {}
    for query in asked:
        alike.setdefault(repr(query.where), []).append(query)
    found: dict[int, Answer] = {}
    for some in alike.values():
        for answer in (yield from _by_pass(collection, some, k, tell)):
            found[id(answer.asked)] = answer
    return [found[id(query)] for query in asked if id(query) in found]


def _by_pass(
    collection: Collection, asked: Sequence[Asked], k: int, tell: Callable[[], None]
) -> Flow[list[Answer]]:
    """Return the answers of queries with the same filter."""
    queries = np.stack([query.queries["full"] for query in asked])
    best = _Best(len(asked), k + 1)
    reading = Pages(collection, where=asked[0].where)
    while (page := (yield from reading.next())) is not None:
        ids, rows = page
        best.add(ids, queries @ rows.T)
        tell()
    return [answer for i, query in enumerate(asked) for answer in best.answer(i, query, k)]


class Pages:
    """Documents with vectors, some thousands at a time: `next` returns ids and unit rows."""

    def __init__(
        self, collection: Collection, chunk: int = _CHUNK, *, where: Filter | None = None
    ) -> None:
        self.collection, self.after, self.ended = collection, None, False
        self.chunk, self.where = chunk, where

    def next(self) -> Flow[tuple[list[str], Matrix] | None]:
        """Return the next ids and their (n, dim) unit rows, None at the end."""
        records: list[Record] = []
        while not self.ended and len(records) < self.chunk:
            some, self.after = yield from self.collection.backend.page(
                self.where, self.after, _PAGE, vectors=True
            )
            records += [record for record in some if record.vector is not None]
            self.ended = self.after is None
        if not records:
            return None
        rows = np.stack([record.vector for record in records]).astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(lengths > 0, lengths, 1)
        return [record.id for record in records], rows


class _Best:
    """The best documents of each query so far."""

    def __init__(self, queries: int, keep: int) -> None:
        self.scores = np.full((queries, keep), -np.inf, np.float32)
        self.ids: npt.NDArray[Any] = np.full((queries, keep), None, object)

    def add(self, ids: Sequence[str], scores: Matrix) -> None:
        """Take in the (queries, n) scores of n documents."""
        many, keep = self.scores.shape
        names = np.array(ids, object)
        if np.isneginf(self.scores[:, -1]).any():
            some = np.argpartition(-scores, min(keep, scores.shape[1]) - 1, axis=1)[:, :keep]
            owner = np.repeat(np.arange(many), some.shape[1])
            chosen = some.ravel()
        else:  # few are better than the worst of those that are kept
            owner, chosen = np.nonzero(scores > self.scores[:, -1:])
        owners = np.concatenate([np.repeat(np.arange(many), keep), owner])
        both = np.concatenate([self.scores.ravel(), scores[owner, chosen]])
        called = np.concatenate([self.ids.ravel(), names[chosen]])
        order = np.lexsort((-both, owners))
        ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
        kept = order[ranks < keep]
        self.scores, self.ids = (each[kept].reshape(many, keep) for each in (both, called))

    def answer(self, i: int, asked: Asked, k: int) -> list[Answer]:
        """Return the answer of a query, without itself; none where there is nothing else."""
        found = [
            (id, float(score))
            for id, score in zip(self.ids[i], self.scores[i], strict=True)
            if id is not None and id != asked.id
        ][:k]
        return [Answer(asked, tuple(id for id, _ in found), found[-1][1])] if found else []
