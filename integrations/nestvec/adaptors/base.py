"""What an adaptor is, and the vectors that it is fitted on."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain, islice
from os import PathLike
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..embedders import Embedder, embed_queries
from ..errors import AdaptorError, NestingError
from ..nesting import Matrix, unit_rows

__all__ = ["BLOCK", "Adaptor", "blocks", "embedded", "matrix"]

Self = TypeVar("Self", bound="Adaptor")

#: How many vectors a fit reads at once.
BLOCK = 4096


class Adaptor(ABC):
    """A fitted map of full vectors; frozen, and known by a hash of its numbers.

    `embedder` is the name of the model whose vectors it was fitted on, where that is known;
    `about` says how it was fitted, in plain JSON.
    """

    #: The first word of the name, and what a file says it holds.
    kind: ClassVar[str]
    #: Whether full cosines stay what they were, so that the adapted vector can be stored as full.
    orthogonal: ClassVar[bool]

    def __init__(
        self,
        arrays: Mapping[str, Matrix],
        dim: int,
        *,
        embedder: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.arrays, self.dim, self.embedder = dict(arrays), dim, embedder
        self.about = dict(about or {})
        for name, array in self.arrays.items():
            if not np.isfinite(array).all():
                raise AdaptorError(f"the adaptor's {name} has NaN or infinite numbers")
            array.flags.writeable = False

    @classmethod
    @abstractmethod
    def from_arrays(
        cls: type[Self],
        arrays: Mapping[str, Matrix],
        *,
        embedder: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the adaptor that has these numbers. Raises AdaptorError where they make none."""

    @abstractmethod
    def _apply(self, unit: Matrix) -> Matrix:
        """Return unit rows adapted."""

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of its kind and its numbers."""
        made = hashlib.sha256(self.kind.encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            made.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
            made.update(np.ascontiguousarray(array).data)
        return made.hexdigest()

    @property
    def name(self) -> str:
        """What a collection records of it: its kind and the beginning of its hash."""
        return f"{self.kind}-{self.digest[:16]}"

    def apply(self, vectors: Any) -> Matrix:
        """Return vectors adapted, as float32: (n, dim) of them, or one of `dim` numbers.

        They are made unit length before; take a prefix and make it unit length again after, as
        `nest` does. Raises NestingError on zero, NaN or another width.
        """
        return self._on_rows(self._apply, vectors)

    def undo(self, vectors: Any) -> Matrix:  # noqa: ARG002
        """Return what `apply` was given, made unit length. Raises AdaptorError on no rotation."""
        raise AdaptorError(f"{self.name} is no rotation, so it cannot be undone")

    def _on_rows(self, map: Any, vectors: Any) -> Matrix:
        one = np.ndim(vectors) == 1
        rows = [vectors] if one else vectors
        unit = unit_rows(rows, self.dim, [f"vector {i}" for i in range(len(rows))])
        made: Matrix = map(unit)
        return made[0] if one else made

    def save(self, path: str | PathLike[str]) -> None:
        """Write the adaptor as safetensors with a JSON head; it is there whole or not at all."""
        from .files import save

        save(self, path)

    @classmethod
    def load(cls: type[Self], path: str | PathLike[str]) -> Self:  # noqa: PYI019
        """Return the adaptor that `save` wrote. Raises AdaptorError on another kind.

        `nestvec.adaptors.load` takes either kind, and says what else can be wrong.
        """
        from .files import load

        found = load(path)
        if not isinstance(found, cls):
            raise AdaptorError(f"{path} holds a {type(found).__name__}, not a {cls.__name__}")
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.dim}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adaptor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


# What is fitted on


def blocks(vectors: Any, size: int = BLOCK) -> Iterator[Matrix]:
    """Yield unit rows in matrices of `size`, the last one shorter, however they were cut before.

    `vectors` is an (n, dim) matrix, also one in a file, or any iterable of vectors or of matrices.
    Raises AdaptorError, which names the vector, on NaN, zero, and rows of different widths.
    """
    start, rest, dim = 0, None, None
    for part in _parts(vectors, size):
        if dim is None:
            dim = part.shape[1]
        try:
            unit = unit_rows(part, dim, [f"vector {start + i}" for i in range(len(part))])
        except NestingError as error:
            raise AdaptorError(f"{error}; nothing was fitted") from None
        start += len(part)
        rest = unit if rest is None or not len(rest) else np.concatenate([rest, unit])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and len(rest):
        yield rest


def _parts(vectors: Any, size: int) -> Iterator[Any]:
    """Yield matrices of at most about `size` rows."""
    if isinstance(vectors, np.ndarray):
        if vectors.ndim != 2:
            raise AdaptorError(f"vectors is an (n, dim) matrix, got {vectors.ndim} dimensions")
        for i in range(0, len(vectors), size):
            yield vectors[i : i + size]
        return
    try:
        items = iter(vectors)
    except TypeError:
        raise AdaptorError(
            f"vectors is an (n, dim) matrix or an iterable of vectors, got {type(vectors)}"
        ) from None
    for first in items:
        if np.ndim(first) == 2:
            for part in chain([first], items):
                yield from _parts(_rows(part), size)
            return
        taken = [first, *islice(items, size - 1)]
        yield _rows(taken)


def _rows(part: Any) -> Any:
    try:
        made = np.asarray(part)
    except ValueError:
        made = np.empty(0)
    if made.ndim != 2 or made.dtype.kind not in "fiu":
        raise AdaptorError("vectors are flat sequences of numbers, all of one width")
    return made


def matrix(vectors: Any) -> Matrix:
    """Return all of the vectors as one matrix of unit rows. Raises AdaptorError as `blocks`."""
    made = list(blocks(vectors))
    if not made:
        raise AdaptorError("there are no vectors to fit on")
    return np.concatenate(made)


def embedded(
    texts: Iterable[str], embedder: Embedder, *, queries: bool = False, size: int = 256
) -> Iterator[Matrix]:
    """Yield the vectors of texts as an embedder makes them, some texts at a time.

    They are documents, or queries. Raises AdaptorError on a text that is none, by its place.
    """
    what = "queries" if queries else "texts"
    if isinstance(texts, str):
        raise AdaptorError(f"{what} is an iterable of strings, got one string; write [text]")
    items, n = iter(texts), 0
    while taken := list(islice(items, size)):
        for text in taken:
            if not isinstance(text, str) or not text.strip():
                one = "query" if queries else "text"
                raise AdaptorError(f"{one} {n} is blank or no string; leave it out")
            n += 1
        made = embed_queries(embedder, taken) if queries else embedder.embed_documents(taken)
        if len(made) != len(taken):
            raise AdaptorError(
                f"embedder {embedder.name!r}: {len(made)} vectors for {len(taken)} {what}"
            )
        yield _rows(made)
    if not n:
        raise AdaptorError(f"there are no {what} to fit on")
