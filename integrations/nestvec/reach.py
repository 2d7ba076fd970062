"""What would reach a recall where no plan of a collection does, by its own vectors.

Measured by exact ranking on prefixes of the vectors as they are, and after a rotation to their
principal axes: how many candidates have to leave a prefix until the exact best are among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .certificate import Advice
from .collection import Collection
from .flow import Flow
from .nesting import Field, Matrix
from .sizing import hot_bytes
from .truth import Answer, Pages

__all__ = ["reach"]

#: The prefixes that are looked at, and how many queries are asked.
_LENGTHS, _QUERIES = (32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536), 50

#: A first stage that lets more through would be slower than an exact scan of a short prefix.
_MOST = 4_000

#: How many documents a rotation is fitted on.
_FITTED = 5_000


def reach(
    collection: Collection,
    answers: Sequence[Answer],
    *,
    k: int,
    target: float,
    engine: str,
    count: int,
    seed: int,
) -> Flow[list[Advice]]:
    """Return what would reach a recall: more candidates, wider first fields, a rotation."""
    answers = [answer for answer in answers if answer.asked.where is None][:_QUERIES]
    if not answers:
        return []
    dim, nesting = collection.nesting.dim, collection.nesting
    lengths = sorted({n for n in _LENGTHS if n < dim} | {f.length for f in nesting.fields[:-1]})
    axes = yield from _axes(collection, seed)
    ranks = yield from _ranks(collection, answers, lengths, axes)
    held = {field.length: field for field in nesting.fields[:-1] if not field.full}
    advice = []
    for turned in (False, True):
        reaching = [(n, _candidates(ranks[n, turned], target)) for n in lengths]
        for length, needed in [(n, needed) for n, needed in reaching if needed is not None][:2]:
            field = held.get(length, Field(length))
            cost = 0 if field.name in nesting.names else hot_bytes(engine, [field], count)
            what, how = _advised(field, max(k, needed), turned, there=length in held)
            advice.append(Advice(what, how, max(k, needed), cost))
    return advice


def _advised(field: Field, candidates: int, turned: bool, there: bool) -> tuple[str, str]:
    if turned:
        return (
            f"a rotation, and {field.name} first",
            "make the collection anew with adaptor=RotationAdaptor.fit(vectors)",
        )
    if there:
        return f"more candidates from {field.name}", f'funnel="{field.name}:{candidates}"'
    return f"a wider first field, {field.name}", f"store.add_field({field.spec!r})"


def _axes(collection: Collection, seed: int) -> Flow[Matrix]:
    """Return the principal axes of a sample as columns, the widest first."""
    records = yield from collection.backend.sample(_FITTED, seed)
    rows = np.stack([record.vector for record in records]).astype(np.float64)
    _, axes = np.linalg.eigh(rows.T @ rows)
    return np.asarray(axes[:, ::-1], dtype=np.float32)


def _ranks(
    collection: Collection, answers: Sequence[Answer], lengths: Sequence[int], axes: Matrix
) -> Flow[dict[tuple[int, bool], npt.NDArray[np.int64]]]:
    """Return by how many documents each of the exact best is preceded, by prefix and rotation."""
    best = yield from collection.backend.get(
        sorted({id for answer in answers for id in answer.ids}), vectors=True
    )
    vectors = {record.id: record.vector for record in best}
    asked = np.stack([answer.asked.queries["full"] for answer in answers])
    goals = [np.stack([vectors[id] for id in answer.ids if id in vectors]) for answer in answers]
    ranks = {
        (length, turned): [np.zeros(len(goal), np.int64) for goal in goals]
        for length in lengths for turned in (False, True)
    }  # fmt: skip
    longest = max(lengths)
    turning = {False: np.eye(len(axes), longest, dtype=np.float32), True: axes[:, :longest]}
    queries = {turned: asked @ turning[turned] for turned in turning}
    least = {
        (length, turned): [
            _unit((goal @ turning[turned])[:, :length]) @ queries[turned][i, :length] + 1e-6
            for i, goal in enumerate(goals)
        ]
        for length, turned in ranks
    }
    reading = Pages(collection)
    while (page := (yield from reading.next())) is not None:
        ids, rows = page
        own = {id: i for i, id in enumerate(ids)}
        for turned in turning:
            there = rows @ axes[:, :longest] if turned else rows[:, :longest]
            for length in lengths:
                scores = queries[turned][:, :length] @ _unit(there[:, :length]).T
                for i, answer in enumerate(answers):
                    if (itself := own.get(answer.asked.id or "")) is not None:
                        scores[i, itself] = -np.inf
                    before = scores[i] >= least[length, turned][i][:, None]
                    ranks[length, turned][i] += np.count_nonzero(before, axis=1)
    return {key: np.sort(np.concatenate(each)) for key, each in ranks.items()}


def _unit(rows: Matrix) -> Matrix:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def _candidates(ranks: npt.NDArray[np.int64], target: float) -> int | None:
    """Return how many candidates hold the share of the best that is asked for."""
    needed = int(np.sort(ranks)[min(len(ranks) - 1, math.ceil(target * len(ranks)) - 1)]) + 1
    return needed if needed <= _MOST else None
