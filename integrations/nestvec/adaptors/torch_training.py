"""The losses and the loop, in torch; nothing else in this package's adaptors needs it.

The losses are those of the Matryoshka-Adaptor (arXiv 2407.20243): prefixes are to have the
cosines that full vectors have, over pairs and over nearest neighbours; the correction is to be
small; and, with judgements, what is more relevant is to score higher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import AdaptorError, MissingExtra
from ..nesting import Matrix
from .judged import Judged
from .training import Training

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
    from torch.nn.utils.parametrizations import orthogonal
except ModuleNotFoundError as error:
    raise MissingExtra("torch", "torch") from error

__all__ = ["Sample", "train"]

#: How many vectors are anchors, and among how many their neighbours are looked for, at most.
_ANCHORS, _AMONG = 20_000, 50_000

Numbers = Mapping[str, Matrix]


class Sample(NamedTuple):
    """What is trained on: vectors, prefix lengths, and judged queries over documents."""

    rows: Matrix
    dims: tuple[int, ...]
    documents: Matrix
    judged: Judged | None


class _Rotation(nn.Module):  # type: ignore[misc]
    """A rotation that stays one while it is trained."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        start = torch.tensor(numbers["rotation"])
        linear = nn.Linear(len(start), len(start), bias=False)
        self.linear = orthogonal(linear, orthogonal_map="cayley")
        with torch.no_grad():
            self.linear.weight = start.T.contiguous()

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows rotated; there is no correction to keep small."""
        return self.linear(rows), torch.zeros(())

    def numbers(self) -> dict[str, Matrix]:
        """Return the rotation, orthonormal in double precision before it is rounded."""
        weight = self.linear.weight
        assert isinstance(weight, Tensor)
        wide = weight.detach().numpy().T.astype(np.float64)
        left, _, right = np.linalg.svd(wide)
        return {"rotation": (left @ right).astype(np.float32)}


class _Network(nn.Module):  # type: ignore[misc]
    """c + f(c), with c rotated first where there is a rotation."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self.layers = nn.ParameterDict(
            {name: torch.tensor(rows) for name, rows in numbers.items() if name != "rotation"}
        )
        rotation = numbers.get("rotation")
        self.rotation = None if rotation is None else torch.tensor(rotation)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows adapted, and how large their corrections are, a mean over the rows."""
        start = rows if self.rotation is None else rows @ self.rotation
        inner = functional.relu(start @ self.layers["w1"] + self.layers["b1"])
        correction = inner @ self.layers["w2"] + self.layers["b2"]
        return start + correction, correction.abs().sum(dim=1).mean()

    def numbers(self) -> dict[str, Matrix]:
        """Return the layers, and the rotation as it was."""
        found = {name: rows.detach().numpy().copy() for name, rows in self.layers.items()}
        return found if self.rotation is None else {**found, "rotation": self.rotation.numpy()}


def train(
    numbers: Numbers,
    sample: Sample,
    *,
    training: Training,
    seed: int,
    gain: Callable[[Numbers], float],
    key: str,
) -> dict[str, Matrix]:
    """Return the numbers that `gain` found best, among those at the checks and at the start.

    `numbers` with a rotation alone stay a rotation. `key` tells this training from others, so that
    a checkpoint of another one is refused.
    """
    made: _Rotation | _Network = (
        _Rotation(numbers) if set(numbers) == {"rotation"} else _Network(numbers)
    )
    optimizer = torch.optim.Adam(made.parameters(), lr=training.rate)
    state: dict[str, Any] = {"done": 0, "best": gain(numbers), "at": 0, "numbers": None}
    saved = _Checkpoint(training.checkpoint, key)
    saved.restore(made, optimizer, state)
    losses = _Losses(sample, training, seed)
    while state["done"] < training.iterations:
        if state["done"] - state["at"] >= training.patience:
            break
        optimizer.zero_grad()
        losses(made, state["done"]).backward()
        optimizer.step()
        state["done"] += 1
        if state["done"] % training.check_every == 0 or state["done"] == training.iterations:
            reached = made.numbers()
            better = gain(reached)
            if better > state["best"]:
                state |= {"best": better, "at": state["done"], "numbers": reached}
            saved.write(made, optimizer, state)
    saved.remove()
    return dict(state["numbers"] or numbers)


class _Losses:
    """The loss of one batch, which depends on its number alone, so that training can go on."""

    def __init__(self, sample: Sample, training: Training, seed: int) -> None:
        self.dims, self.training, self.seed = sample.dims, training, seed
        chosen = np.random.default_rng(seed).permutation(len(sample.rows))[:_AMONG]
        self.rows = torch.from_numpy(sample.rows[chosen])
        self.neighbours = _neighbours(self.rows, min(_ANCHORS, len(self.rows)), training.neighbours)
        self.judged = sample.judged
        if sample.judged is not None:
            self.queries = torch.from_numpy(sample.judged.queries)
            self.documents = torch.from_numpy(sample.documents)
            self.pairs = np.array(
                [(q, d) for q, grades in sorted(sample.judged.grades.items()) for d in grades]
            )

    def __call__(self, made: _Rotation | _Network, iteration: int) -> Tensor:
        """Return the weighted sum of the losses, each a mean over the anchors of the batch."""
        rng = np.random.default_rng([self.seed, iteration])
        weights = self.training
        anchors = torch.from_numpy(rng.integers(len(self.neighbours), size=weights.batch))
        rows = self.rows[anchors]
        adapted, correction = made(rows)
        near = self.rows[self.neighbours[anchors]]
        near_adapted, _ = made(near.flatten(0, 1))
        near_adapted = near_adapted.unflatten(0, near.shape[:2])
        every, nearest = rows @ rows.T, torch.einsum("ad,akd->ak", rows, near)
        loss: Tensor = weights.rec * correction
        for m in self.dims:
            mine = _prefix(adapted, m)
            theirs = _prefix(near_adapted, m)
            loss = loss + weights.pair * (every - mine @ mine.T).abs().sum(dim=1).mean()
            made_near = torch.einsum("ad,akd->ak", mine, theirs)
            loss = loss + weights.topk * (nearest - made_near).abs().sum(dim=1).mean()
        if self.judged is not None:
            loss = loss + weights.rank * self._rank(made, rng)
        return loss

    def _rank(self, made: _Rotation | _Network, rng: np.random.Generator) -> Tensor:
        """Return the ranking loss of a batch of judged queries, over the documents of the batch."""
        assert self.judged is not None
        pairs = self.pairs[rng.integers(len(self.pairs), size=self.training.batch)]
        asked, shown = (np.unique(column) for column in pairs.T)
        grades = torch.tensor(
            [[self.judged.grades[q].get(d, 0.0) for d in shown.tolist()] for q in asked.tolist()]
        )
        queries, _ = made(self.queries[torch.from_numpy(asked)])
        documents, _ = made(self.documents[torch.from_numpy(shown)])
        more = (grades[:, :, None] - grades[:, None, :]).clamp(min=0)  # y_ij - y_ik where above 0
        loss = torch.zeros(())
        for m in self.dims:
            scores = _prefix(queries, m) @ _prefix(documents, m).T
            wrong = functional.softplus(scores[:, None, :] - scores[:, :, None])
            loss = loss + (more * wrong).sum(dim=(1, 2)).mean()
        return loss


def _prefix(rows: Tensor, length: int) -> Tensor:
    return functional.normalize(rows[..., :length], dim=-1)


def _neighbours(rows: Tensor, anchors: int, count: int) -> Tensor:
    """Return the (anchors, count) indices of the rows nearest to each of the first rows."""
    count = min(count, len(rows) - 1)
    return torch.cat(list(_nearest(rows, anchors, count)))


def _nearest(rows: Tensor, anchors: int, count: int) -> Iterator[Tensor]:
    for start in range(0, anchors, 1_024):
        scores = rows[start : min(anchors, start + 1_024)] @ rows.T
        own = torch.arange(len(scores))
        scores[own, start + own] = -2.0
        yield scores.topk(count, dim=1).indices


class _Checkpoint:
    """The file that interrupted training goes on from, if there is to be one."""

    def __init__(self, path: str | os.PathLike[str] | None, key: str) -> None:
        self.path, self.key = None if path is None else Path(path), key

    def restore(
        self, made: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Take up what was saved. Raises AdaptorError on a file that is none of this training."""
        if self.path is None or not self.path.exists():
            return
        try:
            found = torch.load(self.path, weights_only=True)
            key = found["key"]
        except Exception as error:  # torch raises whatever its readers raise
            raise AdaptorError(
                f"{self.path} is no checkpoint that can be read ({type(error).__name__}); delete "
                "it to train from the beginning"
            ) from error
        if key != self.key:
            raise AdaptorError(
                f"{self.path} is the checkpoint of training with other vectors or settings; train "
                "with those, or delete it to train from the beginning"
            )
        made.load_state_dict(found["map"])
        optimizer.load_state_dict(found["optimizer"])
        numbers = found["state"]["numbers"]
        if numbers is not None:
            numbers = {name: rows.numpy() for name, rows in numbers.items()}
        state.update({**found["state"], "numbers": numbers})

    def write(
        self, made: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Save how far training is; the file is there whole or not at all."""
        if self.path is None:
            return
        numbers = state["numbers"]
        if numbers is not None:
            numbers = {name: torch.from_numpy(rows) for name, rows in numbers.items()}
        found = {
            "key": self.key,
            "map": made.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": {**state, "numbers": numbers},
        }
        making = self.path.with_name(f".{self.path.name}.making")
        torch.save(found, making)
        making.replace(self.path)

    def remove(self) -> None:
        """Training has ended."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
