"""Judged queries: what supervised training learns from, and what it is measured by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import AdaptorError
from ..nesting import Matrix, unit_rows
from .base import Adaptor
from .recall import Figures, Row

__all__ = ["Judged"]

#: What part of the judged queries is held out, and how many that are at least.
_PART, _LEAST = 0.2, 20


@dataclass(frozen=True, slots=True)
class Judged:
    """Unit queries, and how relevant which documents are: query → document → grade, by rows."""

    queries: Matrix
    grades: dict[int, dict[int, float]]

    @classmethod
    def of(cls, queries: Any, judgements: Iterable[Any], dim: int, documents: int) -> Judged:
        """Return checked judgements. Raises AdaptorError, which names the one that is wrong."""
        unit = unit_rows(queries, dim, [f"query {i}" for i in range(len(queries))])
        grades: dict[int, dict[int, float]] = {}
        for n, given in enumerate(judgements):
            try:
                query, document, grade = given if len(given) == 3 else (*given, 1.0)
                right = 0 <= query < len(unit) and 0 <= document < documents and grade > 0
            except (TypeError, ValueError):
                right = False
            if not right:
                raise AdaptorError(
                    f"judgement {n} is {given!r}: expected (query, document) or (query, document, "
                    f"grade), rows below {len(unit)} and {documents}, and a grade above 0"
                )
            grades.setdefault(int(query), {})[int(document)] = float(grade)
        if len(grades) < 3 * _LEAST:
            raise AdaptorError(
                f"{len(grades)} judged queries are too few to train on and to check with: at least "
                f"{3 * _LEAST} are needed; training without judgements needs none"
            )
        return cls(unit, grades)

    def split(self, rng: np.random.Generator) -> tuple[Judged, Judged, Judged]:
        """Return what is trained on, what stops the training, and what judges the result."""
        queries = rng.permutation(sorted(self.grades)).tolist()
        held = max(2 * _LEAST, round(_PART * len(queries)))
        parts = (queries[held:], queries[: held // 2], queries[held // 2 : held])
        learning, stopping, judging = (
            Judged(self.queries, {query: self.grades[query] for query in part}) for part in parts
        )
        return learning, stopping, judging

    def ndcg(
        self, documents: Matrix, dims: Sequence[int], before: Adaptor | None, after: Adaptor | None
    ) -> Figures:
        """Return nDCG@10 where a prefix alone ranks all of the documents."""
        asked = sorted(self.grades)
        graded = [self.grades[query] for query in asked]

        def values(adaptor: Adaptor | None) -> list[float]:
            rows, wanted = documents, self.queries[asked]
            if adaptor is not None:
                rows, wanted = adaptor.apply(rows), adaptor.apply(wanted)
            return [_ndcg(rows[:, :m], wanted[:, :m], graded) for m in dims]

        both = zip(dims, values(before), values(after), strict=True)
        measure = f"nDCG@10, {len(asked):,} judged queries over {len(documents):,} documents"
        return Figures(measure, tuple(Row(m, b, a) for m, b, a in both))


def _ndcg(rows: Matrix, queries: Matrix, graded: Sequence[dict[int, float]], k: int = 10) -> float:
    """Return the mean nDCG@k by cosine (Järvelin and Kekäläinen 2002, with linear gains)."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    total = 0.0
    for query, grades in zip(queries, graded, strict=True):
        best = np.argsort(-(unit @ query), kind="stable")[:k]
        gained = np.array([grades.get(int(i), 0.0) for i in best])
        ideal = np.array(sorted(grades.values(), reverse=True)[:k])
        total += float(gained @ discounts[: len(gained)] / (ideal @ discounts[: len(ideal)]))
    return total / len(queries)
