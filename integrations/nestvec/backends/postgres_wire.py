"""Values as Postgres takes and gives them: escaped text, exact JSON, vectors and rows as bytes.

Postgres keeps no NUL in text or jsonb, and its JSON numbers are decimals that do not know whether
they were floats. Both are written so that what went in comes out equal and compares alike.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..nesting import Field, Matrix
from ..records import Batch

__all__ = [
    "VARBIT", "Raw", "arrays", "binary_rows", "copied", "dumps", "escape", "loads", "query_bytes",
    "read_vector", "unescape",
]  # fmt: skip


class Raw(bytes):
    """A parameter that is already in the binary form of its type, which the statement names."""

    __slots__ = ()


def escape(text: str) -> str:
    """Return text without NUL, ordered as before: U+0000 is U+0001 U+0001, U+0001 is U+0001 U+0002.

    Nothing below U+0001 is left, so that code points compare as they did.
    """
    if "\x00" not in text and "\x01" not in text:
        return text
    return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    if "\x01" not in text:
        return text
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")


#: In JSON text, an escape sequence: of a NUL or of U+0001, or any other.
_WRITTEN = re.compile(r"\\(?:u000([01])|.)")
_STORED = re.compile(r"\\(?:u0001\\u000([12])|.)")

#: In JSON text, a string, or a float that a decimal does not keep: a large one, or minus zero.
_ODD = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+|-0\.0(?![0-9e])')
_MINUS_ZERO = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![0-9.])0\.00(?![0-9])')


def dumps(value: Any) -> str:
    """Return plain metadata as the JSON text that is stored."""
    text = json.dumps(value)
    if "\\u000" in text:
        text = _WRITTEN.sub(_escaped, text)
    if "e+" in text or "-0.0" in text:
        text = _ODD.sub(_spelled_out, text)
    return text


def loads(stored: str | bytes) -> Any:
    """Return the metadata of a stored JSON text."""
    text = stored.decode() if isinstance(stored, bytes) else stored
    if "\\u0001" in text:
        text = _STORED.sub(_unescaped, text)
    if "0.00" in text:
        text = _MINUS_ZERO.sub(_signed, text)
    return json.loads(text)


def _escaped(match: re.Match[str]) -> str:
    return {"0": r"\u0001\u0001", "1": r"\u0001\u0002", None: match[0]}[match[1]]


def _unescaped(match: re.Match[str]) -> str:
    return {"1": r"\u0000", "2": r"\u0001", None: match[0]}[match[1]]


def _spelled_out(match: re.Match[str]) -> str:
    """Return a float as a decimal that is told from others and compares alike.

    jsonb would give 1e300 back as an integer, and minus zero as zero; two decimals it does keep.
    """
    if match[0].startswith('"'):
        return match[0]
    return "0.00" if match[0] == "-0.0" else f"{int(float(match[0]))}.0"


def _signed(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else "-0.0"


def query_bytes(vector: Matrix, field: Field) -> Raw:
    """Return a query vector in the binary form of the type in which the field is compared."""
    return Raw(_head(field) + _numbers(vector, field).tobytes())


def _head(field: Field) -> bytes:
    """Return what comes before a vector's numbers, or before its bits."""
    if field.precision == "binary":
        return struct.pack(">i", field.length)
    return struct.pack(">HH", field.length, 0)


def _numbers(rows: Matrix, field: Field) -> npt.NDArray[Any]:
    if field.precision == "binary":
        return np.packbits(rows > 0, axis=-1)
    return rows.astype(">f2" if field.precision == "float16" else ">f4")


def read_vector(sent: bytes) -> Matrix:
    """Return the numbers of a `vector` in its binary form."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


Row = tuple[bytes, ...]

#: The types of id, text, metadata and bits, as every Postgres numbers them.
_TEXT, _JSONB, VARBIT = 25, 3802, 1562

#: Bytes from which on rows go into arrays of their own: what a server sorts without a file.
_PART = 4_000_000


def binary_rows(batch: Batch, fields: Sequence[Field]) -> Iterator[Row]:
    """Yield id, text, metadata and these fields of each record, in their binary forms."""
    heads = [_head(field) for field in fields]
    columns = [_numbers(batch.vectors[field.name], field) for field in fields]
    for id, text, metadata, *vectors in zip(
        batch.ids, batch.texts, batch.metadatas, *columns, strict=True
    ):
        yield (
            escape(id).encode(), escape(text).encode(), _jsonb(metadata),
            *(head + row.tobytes() for head, row in zip(heads, vectors, strict=True)),
        )  # fmt: skip


#: Signature, flags and length of the header's extension, as COPY's binary form begins.
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"

#: Bytes of rows that are sent at once: what a socket takes without waiting for its reader.
_COPIED = 100_000


def copied(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows as binary COPY, in parts: the server stores one while the next is made."""
    part = bytearray(_COPY_HEAD)
    for row in rows:
        part += struct.pack(">h", len(row))
        part += _joined(row)
        if len(part) >= _COPIED:
            yield bytes(part)
            part.clear()
    yield bytes(part + _COPY_END)


def arrays(rows: Iterable[Row], vectors: Sequence[int]) -> Iterator[tuple[Raw, ...]]:
    """Yield rows as an array a column, some of them at a time; `vectors` are oids of types."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(map(len, row))
        if size >= _PART:
            yield _columns(part, vectors)
            part, size = [], 0
    if part:
        yield _columns(part, vectors)


def _columns(rows: Sequence[Row], vectors: Sequence[int]) -> tuple[Raw, ...]:
    types = (_TEXT, _TEXT, _JSONB, *vectors)
    # One dimension, no NULL, the type, how many, counted from 1.
    return tuple(
        Raw(struct.pack(">iiIii", 1, 0, type, len(rows), 1) + _joined(column))
        for type, column in zip(types, zip(*rows, strict=True), strict=True)
    )


_length = struct.Struct(">i").pack


def _joined(values: Iterable[bytes]) -> bytes:
    """Return values one after the other, each after its length."""
    parts: list[bytes] = []
    for value in values:
        parts += (_length(len(value)), value)
    return b"".join(parts)


def _jsonb(metadata: Mapping[str, Any]) -> bytes:
    return b"\x01" + dumps(metadata).encode()  # the version of jsonb's binary form
