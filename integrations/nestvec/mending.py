"""Documents whose fields are not what they should be: found, and mended from their full vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .backends.base import Stored
from .collection import Collection
from .errors import NestvecError
from .flow import Flow
from .nesting import Field, Matrix

__all__ = ["repair", "verify"]

#: How far from 1 a length may be, and a cosine with what the field should be: half precision
#: changes a length by less than 0.0005, whole numbers up to 127 by 0.5 / 127 in each number.
_LENGTH, _COSINE = 2e-3, 1e-4
_COARSE_LENGTH, _COARSE_COSINE = 0.1, 0.02

#: How many documents are looked at, at once.
_PAGE = 500

#: Told how many documents were looked at, and how many there are.
Progress = Callable[[int, int], None]


def verify(
    collection: Collection, *, progress: Progress | None = None
) -> Flow[dict[str, tuple[str, ...]]]:
    """Return the documents with faults, by id, each with what is wrong with it.

    `"d64"` is a field that it lacks, `"d64: not the prefix of full"`, `"full: not unit length"` and
    the like are fields that it has. Others may have written them: what nestvec writes is whole. A
    search through a field does not see documents that lack it. Reads everything, some at a time;
    changes nothing. `progress` is told how many documents were looked at, and how many there are.
    """
    faults = dict((yield from collection.backend.verify()))

    def look(page: list[Stored]) -> Flow[None]:
        for stored, wrong in _wrong(collection, page):
            known = faults.get(stored.id, ())
            faults[stored.id] = (*known, *(fault for fault in wrong if fault not in known))
        return
        yield

    yield from _each(collection, look, progress)
    return faults


def repair(
    collection: Collection, *, progress: Progress | None = None
) -> Flow[dict[str, tuple[str, ...]]]:
    """Mend what `verify` finds, and return what is left, in the same form.

    Fields are made anew from the full vector; where that is lacking or zero it is embedded again
    from the text, if the store has an embedder. What cannot be mended so is left as it was: give
    the document again, or delete it. Others may read and write meanwhile.
    """

    def mend(page: list[Stored]) -> Flow[None]:
        mended = []
        for stored, _ in _wrong(collection, page):
            full = stored.vectors.get("full")
            if full is None or not _usable(full):
                full = yield from _embedded(collection, stored)
            made = None if full is None else _made(collection, full, stored.id)
            if made is not None:
                mended.append((stored, made))
        if mended:
            yield from collection.backend.rewrite(mended)

    yield from _each(collection, mend, progress)
    return (yield from verify(collection))


def _each(
    collection: Collection,
    act: Callable[[list[Stored]], Flow[None]],
    progress: Progress | None,
) -> Flow[None]:
    """Act on all documents, a page at a time."""
    total, done, after = (yield from collection.backend.count(None)), 0, None
    while True:
        page, after = yield from collection.backend.stored(after, _PAGE)
        yield from act(page)
        done += len(page)
        if progress is not None:
            progress(min(done, total), total)
        if after is None:
            return


def _wrong(collection: Collection, page: Sequence[Stored]) -> list[tuple[Stored, list[str]]]:
    """Return the documents of a page that have faults, each with its faults."""
    found: dict[int, list[str]] = {}
    for field in collection.backend.kept(collection.nesting):
        there = [i for i, stored in enumerate(page) if field.name in stored.vectors]
        for i in set(range(len(page))).difference(there):
            found.setdefault(i, []).append(field.name)
        if there:
            rows = np.stack([page[i].vectors[field.name] for i in there]).astype(np.float64)
            # What an adaptor made of its own is no prefix of what is stored as full.
            derived = collection.head.derived
            fulls = [page[i].vectors.get("full") if derived else None for i in there]
            for n, fault in _faults(field, rows, fulls):
                found.setdefault(there[n], []).append(f"{field.name}: {fault}")
    return [(page[i], found[i]) for i in sorted(found)]


def _faults(
    field: Field, rows: np.ndarray, fulls: Sequence[Matrix | None]
) -> list[tuple[int, str]]:
    """Return what is wrong with rows of a field, by their number."""
    lengths = np.linalg.norm(rows, axis=1)
    coarse = field.precision == "uint8"
    near, like = (_COARSE_LENGTH, _COARSE_COSINE) if coarse else (_LENGTH, _COSINE)
    found = []
    for n, (row, length, full) in enumerate(zip(rows, lengths, fulls, strict=True)):
        if not np.isfinite(row).all():
            found.append((n, "NaN or infinite"))
        elif length == 0:
            found.append((n, "all zero"))
        elif abs(length - 1) > near:
            found.append((n, "not unit length"))
        elif not field.full and full is not None and _usable(full):
            cut = np.asarray(full, np.float64)[: field.length]
            if row @ cut < (1 - like) * length * np.linalg.norm(cut):
                found.append((n, "not the prefix of full"))
    return found


def _usable(full: Matrix) -> bool:
    return bool(np.isfinite(full).all() and np.any(full))


def _made(collection: Collection, full: Matrix, id: str) -> Mapping[str, Matrix] | None:
    try:
        return {name: rows[0] for name, rows in collection.nested([full], [id]).items()}
    except NestvecError:  # a prefix that is all zero: there is nothing to mend it with
        return None


def _embedded(collection: Collection, stored: Stored) -> Flow[Matrix | None]:
    if collection.embedder is None or not stored.text.strip():
        return None
    try:
        return (yield from collection.document_vector(stored.id, stored.text))
    except NestvecError:
        return None
