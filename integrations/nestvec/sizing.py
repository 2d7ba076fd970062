"""How many bytes a collection takes: hot, in memory and on disk, on each engine, before it exists.

The forms are those that the engines write, page by page and file by file; docs/tuning.md compares
them with real collections.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import ConfigError, NestingError
from .nesting import Field, Nesting

__all__ = ["ENGINES", "Size", "hot_bytes", "size", "sizes"]

#: The engines that are estimated, each with the precisions that its fields can have.
ENGINES = {
    "edge": ("float32", "float16", "int8", "uint8", "turbo", "binary"),
    "qdrant": ("float32", "float16", "int8", "uint8", "turbo", "binary"),
    "postgres": ("float32", "float16", "binary"),
    "memory": ("float32", "float16", "int8", "uint8", "turbo", "binary"),
}

#: Seconds of one core to put a document of so many numbers into a graph of m=16: a share for each
#: document and one for each of its numbers, both growing with the logarithm of their number.
_BUILD = {"edge": (9e-5, 5e-7), "qdrant": (9e-5, 5e-7), "postgres": (2.5e-4, 1.2e-6)}


@dataclass(frozen=True, slots=True)
class Size:
    """The bytes of a collection, estimated.

    `hot` is what must be in memory for speed: what the first field is searched by, its graph, and
    the fields of stages in between. `memory` is what would be in memory where no search reads the
    disk at all. `disk` is all of it, with the write-ahead log where the collection has its own.
    `build` is the class of time that indexing takes on one core: seconds, minutes, hours or days.
    """

    engine: str
    what: str
    dims: tuple[str, ...]
    hot: int
    memory: int
    disk: int
    build: str


def sizes(
    count: int,
    dim: int,
    dims: str | Iterable[int | str],
    *,
    engines: Sequence[str] = ("edge", "qdrant", "postgres"),
    text_bytes: int = 500,
    metadata_bytes: int = 60,
    id_bytes: int = 36,
    m: int = 16,
) -> list[Size]:
    """Return the sizes of a nesting on each engine, beside those of single vectors.

    These are one full float32 index, one of half precision, and one full vector quantised, so that
    the reader sees where two stages do not pay. `text_bytes`, `metadata_bytes` (as JSON) and
    `id_bytes` are the averages of a document, `m` the links of a node of the graph. An engine that
    cannot keep a nesting is left out of its rows. Raises ConfigError, NestingError.
    """
    for name, value, least in (
        ("count", count, 1), ("dim", dim, 1), ("text_bytes", text_bytes, 0),
        ("metadata_bytes", metadata_bytes, 0), ("id_bytes", id_bytes, 1), ("m", m, 2),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is a whole number from {least} on, got {value!r}")
    items = dims if isinstance(dims, str) else list(dims)
    rest = _Rest(id_bytes, text_bytes, metadata_bytes)
    found = []
    for engine in engines:
        if engine not in ENGINES:
            raise ConfigError(f"unknown engine {engine!r}; known are {', '.join(ENGINES)}")
        for what, nesting in _nestings(items, dim):
            if all(field.precision in ENGINES[engine] for field in nesting.fields):
                found.append(size(engine, what, nesting, count, rest=rest, m=m))
        if not any(made.engine == engine and made.what == "nested" for made in found):
            wanted = Nesting.of(items, dim)
            raise NestingError(
                f"{engine} cannot keep {wanted}; here are {', '.join(ENGINES[engine])}"
            )
    return found


@dataclass(frozen=True, slots=True)
class _Rest:
    """The average bytes of what a document has beside its vectors."""

    id: int = 36
    text: int = 500
    metadata: int = 60


def _nestings(dims: str | list[int | str], dim: int) -> list[tuple[str, Nesting]]:
    full, half = Field(dim, full=True), Field(dim, "float16", full=True)
    return [
        ("nested", Nesting.of(dims, dim)),
        ("full float32", Nesting((full,))),
        ("full float16", Nesting((half,))),
        ("full int8", Nesting((Field(dim, "int8", full=True), full))),
        ("full binary", Nesting((Field(dim, "binary", full=True), full))),
    ]


def size(
    engine: str, what: str, nesting: Nesting, count: int, *, rest: _Rest | None = None, m: int = 16
) -> Size:
    """Return the size of one collection; its first field is indexed."""
    rest = rest or _Rest()
    first = nesting.fields[0]
    hot = hot_bytes(engine, nesting.fields[:-1] or nesting.fields, count, m)
    if engine == "postgres":
        table = _heap_bytes(nesting, count, rest)
        keys = _keys_bytes(count, rest)
        index = _pgvector_bytes(first, count, m)
        memory, disk = table + keys + index, table + keys + index
    elif engine == "memory":
        vectors = sum(4 * field.length for field in nesting.fields)
        memory = count * (2 * vectors + rest.id + rest.text + 4 * rest.metadata + 1_000)
        disk = 0
    else:
        stored = _stored_bytes(nesting, count) + _graph_bytes(count, m)
        if nesting.fields[-1] is not first:
            stored += 4 * count  # the empty graphs of the other fields
        payload = count * (128 * math.ceil((rest.id + rest.text + rest.metadata + 60) / 128) + 16)
        memory = stored + payload + count * _ID_BYTES
        disk = memory + (_WAL_BYTES if engine == "edge" else 0)
    return Size(engine, what, nesting.dims or ("full",), hot, memory, disk, _build(
        engine, first, count
    ))  # fmt: skip


def hot_bytes(engine: str, fields: Sequence[Field], count: int, m: int = 16) -> int:
    """Return the bytes that must be in memory for a plan by these fields to be fast.

    The first is searched by its index, the others hold the numbers of stages in between.
    """
    first, *later = fields
    if engine == "postgres":
        return _pgvector_bytes(first, count, m) + sum(f.nbytes + 8 for f in later) * count
    if engine == "memory":
        return sum(4 * field.length for field in fields) * count
    searched = sum(_searched_bytes(field) for field in fields)
    return count * (searched + _ID_BYTES) + _graph_bytes(count, m)


def _build(engine: str, first: Field, count: int) -> str:
    if engine == "memory":
        return "none"
    each, number = _BUILD[engine]
    bits = {"binary": 1 / 8, "int8": 1 / 3, "turbo": 1 / 3}.get(first.precision, 1.0)
    seconds = count * (each + number * first.length * bits) * math.log10(max(10, count)) / 4
    for name, longest in (("seconds", 60), ("minutes", 3_600), ("hours", 86_400)):
        if seconds < longest:
            return name
    return "days"


# Qdrant's engine

#: The bytes of a point in its maps of ids: the id, its place, its version.
_ID_BYTES = 30

#: The write-ahead log: one closed segment of 32 MB and one that is written, half full on average.
_WAL_BYTES = 48_000_000


def _searched_bytes(field: Field) -> int:
    """Return the bytes of the numbers that a field is searched by."""
    extra = {"int8": 4, "turbo": 4}.get(field.precision, 0)
    return field.nbytes + extra


def _stored_bytes(nesting: Nesting, count: int) -> int:
    """Return the bytes of all vectors: the numbers themselves, and the quantised copies."""
    each = 0
    for field in nesting.fields:
        if field.quantised:
            each += _searched_bytes(field)
        if not (field.quantised and field.full):  # full is quantised in place
            number = {"float32": 4, "uint8": 1}.get(field.precision, 2)
            each += number * field.length
    return count * each


def _graph_bytes(count: int, m: int) -> int:
    """Return the bytes of a graph whose links are packed into as few bits as their number needs."""
    bits = max(1, math.ceil(math.log2(max(2, count))))
    return round(count * (1.2 * m * bits / 8 + 5))


# Postgres with pgvector

_PAGE, _HEADER = 8_192, 24


def _vector_bytes(field: Field) -> int:
    return 8 + field.nbytes


def _heap_bytes(nesting: Nesting, count: int, rest: _Rest) -> int:
    """Return the bytes of a table and of what Postgres moved out of its rows."""
    inline, moved, used = 0, 0, 0
    for field in nesting.fields:
        if field.precision == "binary":
            continue
        used += _vector_bytes(field)
        if used <= 8_000:
            inline += _vector_bytes(field)
        else:
            inline += 18
            moved += _toast_bytes(_vector_bytes(field))
    text, metadata = _text_bytes(rest.text), _text_bytes(round(rest.metadata * 1.2))
    row = 24 + _text_bytes(rest.id) + text + metadata + inline
    room = min(8_160, 2_032 + inline)
    if row > room:
        row, moved = row - text + 18, moved + _toast_bytes(text)
    row = _aligned(row) + 4
    return count * moved + math.ceil(count / max(1, (_PAGE - _HEADER) // row)) * _PAGE


def _text_bytes(length: int) -> int:
    return length + (1 if length < 127 else 4)


def _toast_bytes(length: int) -> int:
    """Return the bytes of a value that is kept in chunks, with their index."""
    chunks = math.ceil(length / 1_996)
    return round(chunks * _PAGE / 4 if length > 1_996 else length + 60) + 24 * chunks


def _keys_bytes(count: int, rest: _Rest) -> int:
    """Return the bytes of the index of ids and of the one of metadata."""
    key = _aligned(8 + _text_bytes(rest.id)) + 4
    return round(count * (key / 0.8 + 2 * rest.metadata))


def _aligned(length: int) -> int:
    return -(-length // 8) * 8


def _pgvector_bytes(field: Field, count: int, m: int) -> int:
    """Return the bytes of an HNSW index: pages of elements, each with its neighbours beside it.

    The pages are filled as pgvector fills them, with levels drawn as it draws them.
    """
    sampled = min(count, 4_000)
    levels = np.random.default_rng(0).exponential(1 / math.log(m), sampled).astype(int)
    element = _aligned(72 + _vector_bytes(field))
    room = _PAGE - _HEADER - 8
    pages, free = 1, room
    for level in levels:
        neighbours = _aligned(4 + 6 * m * (int(level) + 2))
        both = element + neighbours + 4
        if free - 4 < element or (both <= room - 4 and free - 4 < both):
            pages, free = pages + 1, room
        free -= element + 4
        if free - 4 < neighbours:
            pages, free = pages + 1, room
        free -= neighbours + 4
    return math.ceil(pages * count / sampled) * _PAGE
