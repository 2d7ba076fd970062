"""Fitting an adaptor on whatever has vectors, and measuring it on what was held out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .adaptors import Adaptor, Figures, MatryoshkaAdaptor, RotationAdaptor, Training
from .adaptors.base import blocks
from .adaptors.recall import Split, checked_dims
from .errors import AdaptorError, ConfigError
from .store import Store

__all__ = ["KINDS", "Fitted", "fit", "from_file", "from_store"]

#: What can be fitted: a rotation, one that is trained on, a network.
KINDS = ("rotation", "improved", "matryoshka")

#: The prefixes that are measured where nothing else is asked for, as far as they are shorter.
DIMS = (32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Fitted:
    """An adaptor, what it was fitted on, and what it is worth on vectors that it never saw."""

    adaptor: Adaptor
    figures: Figures
    vectors: int
    held_out: int


def fit(
    vectors: Iterable[Any],
    kind: str,
    *,
    dims: Sequence[int] | None = None,
    embedder: str | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> Fitted:
    """Fit an adaptor of one of `KINDS` on four fifths of the vectors; measure it on the others.

    A rotation is fitted in a stream, the others hold all vectors in memory. Raises AdaptorError on
    vectors that are none, too few of them, and where prefixes find no more than before.
    """
    if kind not in KINDS:
        raise ConfigError(f"what can be fitted is {', '.join(KINDS)}, got {kind!r}")
    split = Split(blocks(vectors), seed=seed)
    adaptor: Adaptor
    if kind == "rotation":
        adaptor = RotationAdaptor.fit(split, embedder=embedder)
        lengths = _lengths(dims, adaptor.dim)
    else:
        rows = np.concatenate(list(split))
        lengths = _lengths(dims, rows.shape[1])
        if kind == "improved":
            start = RotationAdaptor.fit(rows, embedder=embedder)
            adaptor = start.improved(rows, dims=lengths, training=training, seed=seed)
        else:
            adaptor = MatryoshkaAdaptor.fit(
                rows, dims=lengths, training=training, embedder=embedder, seed=seed
            )
    figures = split.held.recall(lengths, None, adaptor)
    if figures.gain <= 0:
        raise AdaptorError(
            f"the prefixes of these vectors are no better with this adaptor, so leave it: {figures}"
        )
    return Fitted(adaptor, figures, split.seen, split.seen - split.fitted)


def _lengths(dims: Sequence[int] | None, dim: int) -> Sequence[int]:
    if dims is not None:
        return checked_dims(dims, dim)
    return [length for length in DIMS if length < dim] or [max(1, dim // 2)]


def from_file(path: str | PathLike[str]) -> Any:
    """Return the matrix in a .npy file, which stays on disk. Raises AdaptorError on another one."""
    try:
        found = np.load(Path(path), mmap_mode="r")
    except ValueError as error:
        raise AdaptorError(f"{path} is no .npy file of a matrix of numbers: {error}") from None
    if getattr(found, "ndim", 0) != 2 or found.dtype.kind not in "fiu":
        raise AdaptorError(f"{path} is no .npy file of a matrix of numbers, one vector a row")
    return found


def from_store(store: Store) -> Iterator[Any]:
    """Yield the vectors of a collection as the model gave them."""
    return (record.vector for record in store.scan(vectors=True))
