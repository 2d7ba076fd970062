"""How much of the exact answer prefixes find, with an adaptor and without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AdaptorError
from ..nesting import Matrix, Nesting, nest, unit_rows
from .base import Adaptor

__all__ = ["Figures", "HeldOut", "Row", "Split", "checked_dims", "recall_by_prefix"]

#: What part of a sample is held out, how many vectors that is at least and at most.
_PART, _LEAST, _MOST = 0.2, 200, 10_000

#: Queries are compared with all documents so many at a time.
_QUERIES = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One prefix length, and what was measured of it before and after adapting."""

    length: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of prefixes before and after adapting; more is better.

    `measure` says what, and of how many queries and documents.
    """

    measure: str
    rows: tuple[Row, ...]

    @property
    def gain(self) -> float:
        """How much more there is after than before, a mean over the prefixes."""
        return float(np.mean([row.after - row.before for row in self.rows]))

    def __str__(self) -> str:
        rows = ", ".join(f"{r.length}: {r.before:.4f} → {r.after:.4f}" for r in self.rows)
        return f"{self.measure}; by prefix {rows}"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Vectors that a fit does not see: some are queries, the others what they are asked of."""

    queries: Matrix
    documents: Matrix

    def halves(self) -> tuple[HeldOut, HeldOut]:
        """Return the queries in two, each to be asked of all the documents."""
        half = len(self.queries) // 2
        return (
            HeldOut(self.queries[:half], self.documents),
            HeldOut(self.queries[half:], self.documents),
        )

    def recall(self, dims: Sequence[int], before: Adaptor | None, after: Adaptor | None) -> Figures:
        """Return the recall of either adaptor, with as many candidates as the documents allow."""
        candidates = max(20, min(100, len(self.documents) // 50))
        return recall_by_prefix(
            self.documents, self.queries, dims, before=before, after=after, candidates=candidates
        )


class Split:
    """Vectors in two: iterating gives those to fit on, and then `held` has the others.

    What is held out is a uniform sample however long the stream turns out to be (Vitter 1985,
    algorithm R). Memory holds it and a block of the rest.
    """

    held: HeldOut

    def __init__(self, blocks: Iterable[Matrix], *, seed: int = 0) -> None:
        self._blocks, self._rng = blocks, np.random.default_rng(seed)
        #: How many vectors there were, and how many of them are to be fitted on.
        self.seen = self.fitted = 0

    def __iter__(self) -> Iterator[Matrix]:
        """Raise AdaptorError, with the number needed, where the stream ends too soon."""
        kept: Matrix | None = None
        for block in self._blocks:
            if kept is None:
                kept = np.empty((0, block.shape[1]), np.float32)
            room = _MOST - len(kept)
            kept = np.concatenate([kept, block[:room]])
            leaving = self._exchange(kept, block[room:], self.seen + len(block[:room]))
            self.seen += len(block)
            if len(leaving):
                self.fitted += len(leaving)
                yield leaving
        if kept is None:
            raise AdaptorError("there are no vectors to fit on")
        self._check(kept.shape[1])
        order = self._rng.permutation(len(kept))
        size = min(_MOST, round(_PART * self.seen))
        if size < len(kept):
            self.fitted += len(kept) - size
            yield kept[np.sort(order[size:])]
        queries = min(1_000, size // 4)
        self.held = HeldOut(kept[order[:queries]], kept[order[queries:size]])

    def _exchange(self, kept: Matrix, block: Matrix, seen: int) -> Matrix:
        """Return a block after each of it had its chance to take the place of a kept vector."""
        leaving = block.copy()
        places = (self._rng.random(len(block)) * (seen + 1 + np.arange(len(block)))).astype(int)
        for i in np.flatnonzero(places < _MOST):
            leaving[i] = kept[places[i]]
            kept[places[i]] = block[i]
        return leaving

    def _check(self, dim: int) -> None:
        least = max(round(2 * dim / (1 - _PART)), round(_LEAST / _PART))
        if self.seen < least:
            raise AdaptorError(
                f"{self.seen:,} vectors of {dim} numbers are too few to fit on and to check the "
                f"fit with: at least {least:,} are needed, {max(2 * least, 10 * dim):,} are a good "
                "sample"
            )


def checked_dims(dims: Sequence[int], dim: int) -> tuple[int, ...]:
    """Return prefix lengths, shortest first. Raises AdaptorError where they cannot be."""
    lengths = sorted(set(dims))
    if not lengths or not all(0 < length < dim for length in lengths):
        raise AdaptorError(
            f"dims are prefix lengths between 1 and {dim - 1}, such as (64, 128), got {dims!r}"
        )
    return tuple(lengths)


def recall_by_prefix(
    documents: Any,
    queries: Any,
    dims: Sequence[int],
    *,
    before: Adaptor | None = None,
    after: Adaptor | None = None,
    k: int = 10,
    candidates: int = 100,
) -> Figures:
    """Return how much of the exact top `k` is among the first `candidates` by each prefix.

    `documents` and `queries` are (n, dim) matrices; an adaptor that is None leaves the vectors as
    they are. Everything is compared exactly. Raises AdaptorError, or NestingError on vectors that
    are none.
    """
    if not 1 <= k <= candidates <= len(documents):
        raise AdaptorError(
            f"k={k} and candidates={candidates}, but 1 ≤ k ≤ candidates ≤ {len(documents)}, the "
            "number of documents"
        )
    dim = np.shape(documents)[-1]
    lengths = checked_dims(dims, dim)
    rows = unit_rows(documents, dim, [f"document {i}" for i in range(len(documents))])
    asked = unit_rows(queries, dim, [f"query {i}" for i in range(len(queries))])
    exact = _best(rows, asked, k)

    def recalls(adaptor: Adaptor | None) -> list[float]:
        made = (rows, asked) if adaptor is None else (adaptor.apply(rows), adaptor.apply(asked))
        return [_shared(exact, _by_prefix(*made, m, candidates)) / k for m in lengths]

    both = zip(lengths, recalls(before), recalls(after), strict=True)
    measure = (
        f"recall of the exact top {k} from {candidates} candidates, {len(asked):,} queries over "
        f"{len(rows):,} documents"
    )
    return Figures(measure, tuple(Row(m, b, a) for m, b, a in both))


def _by_prefix(rows: Matrix, queries: Matrix, length: int, count: int) -> npt.NDArray[np.intp]:
    nesting = Nesting.of((length,), rows.shape[1])
    name = nesting.fields[0].name
    return _best(nest(rows, nesting)[name], nest(queries, nesting)[name], count)


def _best(rows: Matrix, queries: Matrix, count: int) -> npt.NDArray[np.intp]:
    """Return the (queries, count) indices of the rows nearest to each query, in no order."""
    last = min(count, len(rows) - 1)
    found = [
        np.argpartition(-(queries[i : i + _QUERIES] @ rows.T), last, axis=1)[:, :count]
        for i in range(0, len(queries), _QUERIES)
    ]
    return np.concatenate(found)


def _shared(exact: npt.NDArray[np.intp], near: npt.NDArray[np.intp]) -> float:
    """Return how many of the exact rows are among the near ones, a mean over the queries."""
    both = [np.isin(e, n, assume_unique=True).sum() for e, n in zip(exact, near, strict=True)]
    return float(np.mean(both))
