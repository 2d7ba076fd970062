"""What a measured plan is: its certificate, the trials beside it, and the bound that it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .funnel import Funnel

__all__ = ["Advice", "Certificate", "Trial", "Tuned", "least_queries", "lower_bound"]

#: Draws of the bound: its own error is then below 0.0001 of recall.
_DRAWS = 100_000


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured of a plan, on queries that had no part in choosing it.

    `recall` is the mean share of the exact best k that the plan found over `n` queries, `bound`
    the one-sided lower confidence bound of that mean, at `confidence`. `p50` and `p95` are
    milliseconds of one query, `qps` what one client gets in a second; warm, on the machine and
    under the load of that hour. `source` says where the queries came from: `collection` or
    `given`. `documents` is how many there were, `memory` the bytes that the plan wants in memory.
    """

    k: int
    target: float
    confidence: float
    recall: float
    bound: float
    n: int
    p50: float
    p95: float
    qps: float
    memory: int
    documents: int
    source: str
    seed: int
    measured: str

    @property
    def reached(self) -> bool:
        """Whether the bound meets the target."""
        return self.bound >= self.target

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Certificate:
        """Return the certificate that a collection recorded."""
        return cls(**{field.name: told[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan that was tried while searching: mean recall and median milliseconds of n queries.

    `memory` is the bytes that it wants in memory, `candidates` how many are read from its first
    field. `whole` says whether all of the choosing queries were asked; a trial that could not win
    was stopped before.
    """

    funnel: Funnel
    recall: float
    p50: float
    n: int
    memory: int
    candidates: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """What would reach the target where no plan did, and what it would cost.

    `candidates` leave the field that is advised, by exact ranking of the vectors as they are;
    `memory` is the further bytes it wants in memory. `p50` is milliseconds where it was measured.
    """

    what: str
    how: str
    candidates: int | None = None
    memory: int | None = None
    p50: float | None = None


@dataclass(frozen=True, slots=True)
class Tuned(Funnel):
    """A funnel with its certificate, and everything that was tried beside it.

    It is searched with like any funnel. `reached` is False where no plan met the target: then this
    is the best there is, the collection keeps the plan that it had, and `advice` says what would.
    `notes` tell what a reader of the certificate should know.
    """

    certificate: Certificate | None = None
    trials: tuple[Trial, ...] = ()
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the certificate's bound meets the target."""
        return self.certificate is not None and self.certificate.reached

    def to_head(self) -> dict[str, Any]:
        """Return what the collection records of it."""
        assert self.certificate is not None
        return {"funnel": str(self), "certificate": asdict(self.certificate)}

    @classmethod
    def from_head(cls, told: Mapping[str, Any]) -> Tuned:
        """Return the plan that a collection recorded, without the trials."""
        funnel = Funnel.parse(told["funnel"])
        return cls(funnel.stages, funnel.knobs, Certificate.of(told["certificate"]))

    def __str__(self) -> str:
        return Funnel.__str__(self)


def lower_bound(recalls: Sequence[float], confidence: float) -> float:
    """Return a one-sided lower confidence bound of the mean recall, from the recall of each query.

    Recalls are in [0, 1] and of queries that are independent of each other; what is found for one
    query is not, so hits are never pooled. The bound is the (1 - confidence) quantile of the mean
    under random weights, uniform on the simplex, of the recalls and of one more query with recall
    0 (Gaffke 2005; Learned-Miller and Thomas 2019). The added zero stands for what was not seen: n
    perfect queries give (1 - confidence) ** (1 / n), not 1, and recalls of only 0 and 1 give
    exactly the bound of Clopper and Pearson. That it holds for every distribution is not proved;
    docs/tuning.md has its measured coverage.
    """
    if not len(recalls):
        return 0.0
    values, counts = np.unique(np.append(np.asarray(recalls, float), 0.0), return_counts=True)
    # The sum of `count` exponentials is one gamma: a draw costs one number per distinct recall.
    weights = np.random.default_rng(0).standard_gamma(counts, (_DRAWS, len(values)))
    means = weights @ values / weights.sum(axis=1)
    return float(np.quantile(means, 1 - confidence))


def least_queries(target: float, confidence: float) -> int:
    """Return how many queries certify a target if the plan finds everything for all of them."""
    return math.ceil(math.log(1 - confidence) / math.log(target))
