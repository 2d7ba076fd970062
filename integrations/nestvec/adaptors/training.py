"""Training an adaptor: what is held out, what stops it, and what decides whether it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from ..errors import AdaptorError
from ..nesting import Matrix
from .base import Adaptor
from .judged import Judged
from .recall import Figures, Split, checked_dims

__all__ = ["Training", "train"]


@dataclass(frozen=True, slots=True)
class Training:
    """How an adaptor is trained, and how long; the defaults are those of arXiv 2407.20243.

    At most `iterations` batches of `batch` vectors, with Adam at the learning rate `rate`. What is
    held out is asked every `check_every` iterations, and training ends once it was not better for
    `patience` of them. `neighbours` is the k of the top-k loss; `pair`, `topk`, `rec` and `rank`
    weigh the losses.

    With `checkpoint`, a file, training that was interrupted goes on from its last check when it is
    called in the same way again, and ends as it would have; the file is removed at the end.
    """

    iterations: int = 5_000
    patience: int = 500
    batch: int = 128
    rate: float = 1e-3
    neighbours: int = 10
    check_every: int = 100
    pair: float = 1.0
    topk: float = 1.0
    rec: float = 0.1
    rank: float = 1.0
    checkpoint: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        least = {"iterations": 1, "patience": 1, "batch": 2, "neighbours": 1, "check_every": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise AdaptorError(f"{name} is at least {bound}, got {getattr(self, name)}")
        if not self.rate > 0:
            raise AdaptorError(f"rate is above 0, got {self.rate}")


#: What makes an adaptor of the numbers that training has reached.
Maker = Callable[[Mapping[str, Matrix]], Adaptor]


def train(
    vectors: Matrix,
    dims: Sequence[int],
    start: Callable[[Matrix], tuple[Adaptor, Mapping[str, Matrix], Maker]],
    *,
    training: Training,
    seed: int,
    judged: Judged | None = None,
) -> tuple[Adaptor, Figures]:
    """Return what training made, and figures of the adaptor to beat and of it.

    `start` is given the vectors that training sees, and returns the adaptor to beat, the numbers
    to begin with, and what makes an adaptor of such numbers. Half of the held-out queries stop the
    training, the other half give the figures.
    """
    from . import torch_training  # first of all: without torch, nothing else is worth doing

    lengths = checked_dims(dims, vectors.shape[1])
    split = Split([vectors], seed=seed)
    rows = np.concatenate(list(split))
    rival, numbers, make = start(rows)
    stopping, judging = split.held.halves()

    if judged is None:
        learning = None

        def figures(made: Adaptor, *, last: bool) -> Figures:
            return (judging if last else stopping).recall(lengths, rival, made)
    else:
        learning, stop, judge = judged.split(np.random.default_rng(seed))

        def figures(made: Adaptor, *, last: bool) -> Figures:
            return (judge if last else stop).ndcg(vectors, lengths, rival, made)

    settings = replace(training, checkpoint=None)  # wherever the file is
    reached = torch_training.train(
        numbers,
        torch_training.Sample(rows, lengths, vectors, learning),
        training=training,
        seed=seed,
        gain=lambda numbers: figures(make(numbers), last=False).gain,
        key=_key({**numbers, "vectors": vectors}, judged, f"{lengths} {settings} {seed}"),
    )
    made = make(reached)
    return made, figures(made, last=True)


def _key(arrays: Mapping[str, Matrix], judged: Judged | None, settings: str) -> str:
    """Return what tells this training from another one."""
    made = hashlib.sha256(settings.encode())
    if judged is not None:
        arrays = {**arrays, "queries": judged.queries}
        made.update(repr(sorted(judged.grades.items())).encode())
    for name in sorted(arrays):
        made.update(name.encode())
        made.update(np.ascontiguousarray(arrays[name]).data)
    return made.hexdigest()
