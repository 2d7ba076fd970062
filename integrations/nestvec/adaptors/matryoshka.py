"""MatryoshkaAdaptor: a small network that is trained to make prefixes say what full vectors do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..embedders import resolve
from ..errors import AdaptorError
from ..nesting import Matrix
from .base import Adaptor, embedded, matrix
from .judged import Judged
from .rotation import RotationAdaptor
from .training import Training, train

__all__ = ["MatryoshkaAdaptor"]

_LAYERS = ("w1", "b1", "w2", "b2")


class MatryoshkaAdaptor(Adaptor):
    """`c + f(c)` with a shallow network f, for documents and queries alike (arXiv 2407.20243).

    Here `c` is the vector, rotated first where there is a rotation among `arrays`, and
    `f(c) = relu(c w1 + b1) w2 + b2`. It is no rotation, so it makes only the prefixes; the full
    vector stays the model's own, and so does the score. Applying it needs numpy alone.
    """

    kind = "matryoshka"
    orthogonal = False

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Matrix],
        *,
        embedder: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> MatryoshkaAdaptor:
        made = {name: np.array(array, np.float32, order="C") for name, array in arrays.items()}
        if set(made) - {"rotation"} != set(_LAYERS) or made["w1"].ndim != 2:
            raise AdaptorError(f"two layers are {', '.join(_LAYERS)}, got {', '.join(made)}")
        dim, hidden = made["w1"].shape
        shapes = [(dim, hidden), (hidden,), (hidden, dim), (dim,)]
        if [made[name].shape for name in _LAYERS] != shapes:
            raise AdaptorError(
                f"layers of {dim} and {hidden} numbers have the shapes {shapes}, got "
                f"{[made[name].shape for name in _LAYERS]}"
            )
        if "rotation" in made and RotationAdaptor(made["rotation"]).dim != dim:
            raise AdaptorError(f"the rotation is not one of {dim} numbers, as the layers are")
        return cls(made, dim, embedder=embedder, about=about)

    @classmethod
    def fit(
        cls,
        vectors: Any,
        *,
        dims: Sequence[int],
        rotate: bool = True,
        queries: Any = None,
        judgements: Iterable[Any] | None = None,
        training: Training | None = None,
        embedder: str | None = None,
        seed: int = 0,
    ) -> MatryoshkaAdaptor:
        """Return the adaptor trained for the prefixes `dims`, if it beats the rotation.

        `vectors` are documents: an (n, dim) matrix, or an iterable of vectors or of matrices; all
        of them are held in memory. With `rotate` it begins as the rotation that is fitted on them.
        With `queries`, a (q, dim) matrix, and `judgements`, (query, document) or (query,
        document, grade) by rows, it also learns to rank what is relevant higher.

        A fifth of the vectors, and of the judged queries, is held out: half of the held-out
        queries stop the training (`training`, see `Training`), the others compare the result with
        the rotation, by the recall of candidates or, with judgements, by nDCG@10. Raises
        AdaptorError, with these figures, where it is not better; where there are too few vectors,
        with the number needed; and as `RotationAdaptor.fit` does. Needs the extra `torch`.
        """
        if (queries is None) != (judgements is None):
            raise AdaptorError("queries and judgements are given together, or neither is")
        rows = matrix(vectors)
        dim = rows.shape[1]
        judged = None
        if judgements is not None:
            judged = Judged.of(queries, judgements, dim, len(rows))

        def start(seen: Matrix) -> Any:
            rotation = RotationAdaptor.fit(seen)
            numbers = _beginning(dim, rotation if rotate else None, seed)
            return rotation, numbers, lambda numbers: cls.from_arrays(numbers, embedder=embedder)

        made, figures = train(
            rows, dims, start, training=training or Training(), seed=seed, judged=judged
        )
        if figures.gain <= 0:
            raise AdaptorError(
                "the trained adaptor does not beat the rotation on what was held out, so it is "
                f"refused; rotation → trained: {figures}. use RotationAdaptor.fit, or train on "
                "more vectors"
            )
        about = {"fitted_on": len(rows), "dims": list(dims), "over_rotation": str(figures)}
        return cls.from_arrays(made.arrays, embedder=embedder, about=about)

    @classmethod
    def fit_texts(
        cls,
        texts: Iterable[str],
        embedder: Any,
        *,
        dims: Sequence[int],
        queries: Iterable[str] | None = None,
        **settings: Any,
    ) -> MatryoshkaAdaptor:
        """Return the adaptor trained on texts as an embedder embeds documents, and queries.

        `embedder` is what `connect` takes; the rest is as in `fit`, `queries` being texts too.
        Raises as `fit`, and what the embedder raises.
        """
        model = resolve(embedder)
        asked = None if queries is None else matrix(embedded(queries, model, queries=True))
        return cls.fit(
            embedded(texts, model), dims=dims, queries=asked, embedder=model.name, **settings
        )

    def _apply(self, unit: Matrix) -> Matrix:
        numbers = self.arrays
        start = unit @ numbers["rotation"] if "rotation" in numbers else unit
        inner = np.maximum(start @ numbers["w1"] + numbers["b1"], 0)
        return np.asarray(start + inner @ numbers["w2"] + numbers["b2"], dtype=np.float32)


def _beginning(dim: int, rotation: RotationAdaptor | None, seed: int) -> dict[str, Matrix]:
    """Return the numbers that training begins with: f gives zero, so that nothing is lost yet."""
    bound = dim**-0.5
    first = np.random.default_rng(seed).uniform(-bound, bound, (dim, dim)).astype(np.float32)
    zeros = np.zeros(dim, np.float32)
    numbers = {"w1": first, "b1": zeros, "w2": np.zeros((dim, dim), np.float32), "b2": zeros}
    return numbers if rotation is None else {**numbers, "rotation": rotation.arrays["rotation"]}
