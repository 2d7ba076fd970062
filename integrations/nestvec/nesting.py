"""Fields and nestings: which representations of a vector are stored, and how they are made."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NestingError

__all__ = ["PRECISIONS", "Field", "Matrix", "Nesting", "nest", "unit_rows"]

Matrix = npt.NDArray[np.float32]

#: Bits a number, by precision.
PRECISIONS: Mapping[str, int] = {
    "float32": 32, "float16": 16, "int8": 8, "uint8": 8, "turbo": 4, "binary": 1,
}  # fmt: skip

#: Precisions in which the full vector itself may be kept: rescoring needs its numbers.
_FULL = ("float32", "float16")

#: Lengths between which the squares of a row's numbers keep their digits in float64.
_TINY, _HUGE = 1e-100, 1e150

_ITEM = re.compile(r"(?:d?(?P<length>\d+)|full)(?:[:_](?P<precision>[A-Za-z0-9]+))?")


@dataclass(frozen=True, slots=True)
class Field:
    """One stored representation of the vector: its first `length` numbers at a `precision`."""

    length: int
    precision: str = "float32"
    full: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise NestingError(
                f"unknown precision {self.precision!r}; known are {', '.join(PRECISIONS)}"
            )
        if self.length < 1:
            raise NestingError(f"a prefix has at least 1 number, got {self.length}")

    @property
    def name(self) -> str:
        """The name in every engine: `d64`, `d256_int8`, `full_binary`, `full`."""
        if self.full and self.precision in _FULL:
            return "full"
        stem = "full" if self.full else f"d{self.length}"
        return stem if self.precision == "float32" else f"{stem}_{self.precision}"

    @property
    def spec(self) -> str:
        """The item of `dims` that asks for this field: `64`, `256:int8`, `full:float16`."""
        stem = "full" if self.full else str(self.length)
        return stem if self.precision == "float32" else f"{stem}:{self.precision}"

    @property
    def quantised(self) -> bool:
        """Whether an engine keeps codes beside the field's numbers, and can rescore by these."""
        return self.precision in ("int8", "turbo", "binary")

    @property
    def nbytes(self) -> int:
        """Bytes of one vector's numbers in this field, without any index."""
        return -(-self.length * PRECISIONS[self.precision] // 8)


@dataclass(frozen=True, slots=True)
class Nesting:
    """The fields of a collection, fewest bytes first, full last.

    Only a collection that others made may have no field but full.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        if not self.fields or self.fields[-1].name != "full":
            raise NestingError("the last field of a nesting is the full vector")
        names = [field.name for field in self.fields]
        for name in names:
            if names.count(name) > 1:
                raise NestingError(f"dims names the field {name!r} twice")
        for field in self.fields:
            if not field.full and field.length >= self.dim:
                raise NestingError(
                    f"dims has {field.spec}, but prefixes are shorter than the full vector "
                    f"({self.dim}); for the full vector quantised write 'full:int8'"
                )

    @classmethod
    def of(cls, dims: str | Iterable[int | str], dim: int) -> Nesting:
        """Return the nesting that `dims` asks for over full vectors of `dim` numbers.

        Items are a prefix length (`64`), a length and a precision (`"256:int8"`), or the full
        vector quantised (`"full:binary"`). `"full:float16"` sets how the full vector itself is
        kept. A comma-separated string is as good as a tuple. Raises NestingError.
        """
        full = Field(dim, full=True)
        prefixes: list[Field] = []
        for field in (_parse_item(item, dim) for item in _items(dims)):
            if field.name == "full":
                full = field
            else:
                prefixes.append(field)
        if not prefixes:
            raise NestingError(
                "dims is empty: give at least one field to search first, such as 64 or 'full:int8'"
            )
        prefixes.sort(key=lambda field: (field.nbytes, field.length))
        return cls((*prefixes, full))

    @property
    def dim(self) -> int:
        """How many numbers a full vector has."""
        return self.fields[-1].length

    @property
    def full(self) -> Field:
        """The full vector's field."""
        return self.fields[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, fewest bytes first."""
        return tuple(field.name for field in self.fields)

    @property
    def dims(self) -> tuple[str, ...]:
        """The `dims` that ask for this nesting."""
        last = () if self.full.precision == "float32" else (self.full.spec,)
        return (*(field.spec for field in self.fields[:-1]), *last)

    def __getitem__(self, name: str) -> Field:
        """Return a field by its name or by its item of `dims`. Raises NestingError."""
        for field in self.fields:
            if name in (field.name, field.spec):
                return field
        raise NestingError(f"unknown field {name!r}; this collection has {', '.join(self.names)}")

    def __str__(self) -> str:
        prefixes = ", ".join(field.spec for field in self.fields[:-1]) or "full"
        return f"{prefixes} of {self.dim}" + (
            "" if self.full.precision == "float32" else f" ({self.full.precision})"
        )


def _items(dims: str | Iterable[int | str]) -> Sequence[int | str]:
    if isinstance(dims, str):
        return [item.strip() for item in dims.split(",") if item.strip()]
    try:
        return list(dims)
    except TypeError:
        raise NestingError(f"dims is a tuple such as (64, 256), got {dims!r}") from None


def _parse_item(item: object, dim: int) -> Field:
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return Field(int(item))
    match = _ITEM.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        raise NestingError(
            f"dims has {item!r}; items look like 64, '256:int8', '512:binary' or 'full:binary'"
        )
    precision = match["precision"] or "float32"
    if match["length"] is None:
        return Field(dim, precision, full=True)
    return Field(int(match["length"]), precision)


def unit_rows(rows: Any, dim: int, names: Sequence[str]) -> Matrix:
    """Return an (n, dim) float32 matrix of unit rows; `names` say which row an error is about.

    Raises NestingError on a wrong width, on NaN or infinity, and on rows that are all zero.
    """
    return _unit(_matrix(rows, dim, names), names, "vector is all zero, so it has no direction")


def _unit(rows: npt.NDArray[Any], names: Sequence[str], zero: str) -> Matrix:
    """Return rows divided by their lengths; `zero` is said of one that has none."""
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not (norms.min(initial=1) >= _TINY and norms.max(initial=1) <= _HUGE):
        norms = _checked_norms(wide, norms, names, zero)
    wide /= norms[:, None]
    return wide.astype(np.float32)


def _checked_norms(
    rows: npt.NDArray[np.float64], norms: npt.NDArray[np.float64], names: Sequence[str], zero: str
) -> npt.NDArray[np.float64]:
    """Return the length of each row, also where squares overflowed or vanished."""
    for bad in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
        raise NestingError(f"{names[int(bad)]}: vector has NaN or infinite numbers")
    odd = ~((norms >= _TINY) & (norms <= _HUGE))
    scale = np.abs(rows[odd]).max(axis=1, keepdims=True)
    norms[odd] = np.linalg.norm(rows[odd] / np.where(scale > 0, scale, 1), axis=1) * scale[:, 0]
    for bad in np.flatnonzero(norms == 0):
        raise NestingError(f"{names[int(bad)]}: {zero}")
    return norms


def _matrix(rows: Any, dim: int, names: Sequence[str]) -> npt.NDArray[Any]:
    """Return rows as a two-dimensional float matrix, or say which row is not a vector."""
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind in "fiu":
        matrix = rows
    else:
        vectors = [_vector(row, name) for row, name in zip(rows, names, strict=True)]
        for vector, name in zip(vectors, names, strict=True):
            if len(vector) != dim:
                raise NestingError(f"{name}: vector has {len(vector)} numbers, expected {dim}")
        if len(vectors) == 1:
            matrix = vectors[0][None]
        else:
            matrix = np.stack(vectors) if vectors else np.empty((0, dim), np.float32)
    if matrix.shape[1] != dim:
        raise NestingError(f"{names[0]}: vector has {matrix.shape[1]} numbers, expected {dim}")
    return matrix


def _vector(row: Any, name: str) -> npt.NDArray[Any]:
    if type(row) is list and row and type(row[0]) is float:
        try:
            return np.frombuffer(struct.pack(f"{len(row)}d", *row))  # a third of asarray's time
        except (struct.error, OverflowError):
            pass  # something in it is no number that fits
    try:
        vector = np.asarray(row)
    except ValueError:
        vector = np.empty((0, 0))
    if vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise NestingError(f"{name}: a vector is a flat sequence of numbers, got {type(row)}")
    return vector


def nest(full: Any, nesting: Nesting, names: Sequence[str] | None = None) -> dict[str, Matrix]:
    """Return one (n, length) float32 matrix of unit rows per field of the nesting.

    `full` is an (n, dim) matrix, or any sequence of n vectors of dim numbers.

    A prefix of a unit vector is shorter than 1, so each prefix is normalised again
    (Kusupati et al. 2022, section 3). Quantisation is the engine's: every matrix here is
    float32. `names` say which row an error is about. Raises NestingError on rows that are zero,
    not finite, of a wrong width, or zero in a whole prefix.
    """
    names = names or [f"row {i}" for i in range(len(full))]
    unit = unit_rows(full, nesting.dim, names)
    made: dict[int, Matrix] = {nesting.dim: unit}
    for field in nesting.fields:
        if field.length not in made:
            zero = (
                f"the first {field.length} numbers of the vector are zero beside the rest, so that "
                "prefix has no direction"
            )
            made[field.length] = _unit(unit[:, : field.length], names, zero)
    return {field.name: made[field.length] for field in nesting.fields}
