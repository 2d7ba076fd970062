"""RotationAdaptor: an orthogonal map that puts what tells vectors apart first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..embedders import resolve
from ..errors import AdaptorError
from ..nesting import Matrix
from .base import Adaptor, blocks, embedded, matrix
from .training import Training, train

__all__ = ["RotationAdaptor"]

#: How far products of its columns may be from those of an orthonormal basis.
_TOLERANCE = 1e-5


class RotationAdaptor(Adaptor):
    """A rotation: the cosine of two rotated vectors is that of the vectors.

    So the ranking by full vectors is provably the model's own, the rotated vector is what is
    stored as full, and reading it back undoes the rotation. `rotation` is a (dim, dim) matrix with
    orthonormal columns; rows are multiplied by it from the right.
    """

    kind = "rotation"
    orthogonal = True

    def __init__(
        self,
        rotation: Any,
        *,
        embedder: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        made = np.array(rotation, dtype=np.float32, order="C")
        if made.ndim != 2 or made.shape[0] != made.shape[1]:
            raise AdaptorError(f"a rotation is a square matrix, got the shape {made.shape}")
        super().__init__({"rotation": made}, len(made), embedder=embedder, about=about)
        wide = made.astype(np.float64)
        worst = np.abs(wide.T @ wide - np.eye(self.dim)).max()
        if worst > _TOLERANCE:
            raise AdaptorError(
                f"a rotation has orthonormal columns, here a product is {worst:.1e} off, more than "
                f"{_TOLERANCE:.0e}"
            )

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Matrix],
        *,
        embedder: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> RotationAdaptor:
        if set(arrays) != {"rotation"}:
            raise AdaptorError(f"a rotation is one matrix, got {', '.join(sorted(arrays))}")
        return cls(arrays["rotation"], embedder=embedder, about=about)

    @classmethod
    def fit(cls, vectors: Any, *, embedder: str | None = None) -> RotationAdaptor:
        """Return the rotation onto the right singular vectors of a sample, largest first.

        `vectors` is an (n, dim) matrix, also one in a file (`np.load(…, mmap_mode="r")`), or any
        iterable of vectors or of matrices, which is read once and a block at a time: memory holds
        a block and a (dim, dim) matrix, and the result is the same to the last bit. Vectors are
        made unit length and not centred: the first m numbers of the rotated ones then keep as much
        of the products of the sample as m numbers can (Eckart and Young 1936), and cosines are
        about the origin.

        `embedder` is the name of the model that made the vectors, to be compared when a collection
        is opened. Raises AdaptorError on NaN, zero or ragged vectors, and on fewer different
        vectors than they have numbers, since the rest of the rotation would be arbitrary.
        """
        gram: npt.NDArray[np.float64] | None = None
        different: set[bytes] = set()
        seen = 0
        for block in blocks(vectors):
            wide = block.astype(np.float64)
            product = wide.T @ wide
            gram = product if gram is None else gram + product
            seen += len(block)
            if len(different) < block.shape[1]:
                different.update(row.tobytes() for row in block)
        if gram is None:
            raise AdaptorError("there are no vectors to fit on")
        dim = len(gram)
        if len(different) < dim:
            raise AdaptorError(
                f"a rotation of {dim} numbers needs at least {dim:,} different vectors, got "
                f"{len(different):,} among {seen:,}; {10 * dim:,} are a good sample"
            )
        values, columns = np.linalg.eigh(gram)
        values, columns = values[::-1], columns[:, ::-1]
        # A singular vector is one up to its sign: the largest number is made positive.
        largest = columns[np.abs(columns).argmax(axis=0), np.arange(dim)]
        about = {"fitted_on": seen, "start": "svd"}
        return cls(columns * np.sign(largest), embedder=embedder, about=about)

    @classmethod
    def fit_texts(cls, texts: Iterable[str], embedder: Any) -> RotationAdaptor:
        """Return the rotation fitted on texts as an embedder embeds documents.

        `texts` is any iterable, read some at a time; `embedder` is what `connect` takes. Raises
        as `fit`, and what the embedder raises.
        """
        model = resolve(embedder)
        return cls.fit(embedded(texts, model), embedder=model.name)

    @classmethod
    def random(cls, dim: int, *, seed: int = 0, embedder: str | None = None) -> RotationAdaptor:
        """Return a rotation drawn uniformly: a start for `improved` (Mezzadri 2007, section 5)."""
        if dim < 1:
            raise AdaptorError(f"a vector has at least 1 number, got dim={dim}")
        normal = np.random.default_rng(seed).standard_normal((dim, dim))
        q, r = np.linalg.qr(normal)
        return cls(q * np.sign(np.diag(r)), embedder=embedder, about={"start": "random"})

    def improved(
        self, vectors: Any, *, dims: Sequence[int], training: Training | None = None, seed: int = 0
    ) -> RotationAdaptor:
        """Return a rotation trained on from this one, or this one where that did not help.

        Trained with the top-k similarity loss at the prefixes `dims` (arXiv 2407.20243), staying
        orthogonal, and kept only if the recall of vectors that are held out is better;
        `about["improved"]` has the figures. `vectors` is as in `fit`, and all of them are held in
        memory; `training` is a `Training`. Raises AdaptorError as `fit` does, and where there are
        too few vectors to hold some out. Needs the extra `torch`.
        """
        rows = matrix(vectors)
        if rows.shape[1] != self.dim:
            raise AdaptorError(f"vectors have {rows.shape[1]} numbers, the rotation {self.dim}")
        wanted = replace(training or Training(), pair=0.0)

        def start(_: Matrix) -> Any:
            return self, self.arrays, lambda numbers: RotationAdaptor(numbers["rotation"])

        made, figures = train(rows, dims, start, training=wanted, seed=seed)
        about = {**self.about, "improved": str(figures)}
        best = made if figures.gain > 0 else self
        return RotationAdaptor(best.arrays["rotation"], embedder=self.embedder, about=about)

    def _apply(self, unit: Matrix) -> Matrix:
        return np.asarray(unit @ self.arrays["rotation"])

    def undo(self, vectors: Any) -> Matrix:
        return self._on_rows(lambda unit: np.asarray(unit @ self.arrays["rotation"].T), vectors)
