"""What goes in and what comes out: Record, Hit, Trace, Info."""

from __future__ import annotations

import enum
import math
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from .errors import RecordError
from .nesting import Matrix

__all__ = [
    "FieldInfo", "FilterTrace", "Hit", "Info", "Record", "StageTrace", "Trace", "check_id",
    "is_image", "plain",
]  # fmt: skip

#: The longest id, in characters.
MAX_ID = 512

#: Levels of lists and dicts in metadata; Qdrant's engine writes deeper ones and cannot read them.
MAX_DEPTH = 100

#: Integers in metadata fit 64 bits, because that is what every engine keeps exactly.
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Record:
    """A document: its id, text and metadata, and its full vector where that is known.

    An id that is left out is a random UUID; integers and UUIDs are taken as their string.
    `vector` is a flat sequence of numbers as the embedding model gave it. `image`, a path or a PIL
    image, is embedded instead of the text by an embedder of images; it is not stored.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Any = field(default=None, compare=False, repr=False)
    image: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", check_id(self.id))
        if not isinstance(self.text, str):
            raise RecordError(f"record {self.id!r}: text is a string, got {type(self.text)}")
        _check_utf8(self.text, f"record {self.id!r}: text")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found; `score` is the cosine of the full vectors, in [-1, 1]."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    score: float


@dataclass(frozen=True, slots=True)
class StageTrace:
    """What one stage did: candidates that entered and left it, and the time it took."""

    field: str
    candidates_in: int
    candidates_out: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class FilterTrace:
    """How the engine finds the `matching` of `total` documents that a filter lets through.

    `method` says what it does with them. `indexes` are the keys whose indexes give the candidates,
    none for a scan. `read` is about how many documents are read to decide the filter, `asked` how
    many of them are left to the predicate because the engine cannot say it of them.
    """

    matching: int
    total: int
    method: str
    indexes: tuple[str, ...] = ()
    read: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened at each stage of one query.

    `overlap` is the share of the exact answer's ids that the funnel found, in [0, 1]; it is None,
    and so is the time of the exact search, where the collection allows none. `warnings`
    say what makes the query slow, such as an index that is lacking, and what to do.
    """

    funnel: str
    stages: tuple[StageTrace, ...]
    hits: tuple[Hit, ...]
    milliseconds: float
    exact_milliseconds: float | None
    overlap: float | None
    filter: FilterTrace | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a collection: `nbytes` is what its numbers take, without any index."""

    name: str
    length: int
    precision: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Info:
    """What a collection knows of itself, and how large it is.

    `engine` holds what only this engine can tell, such as its bytes on disk. `indexes` has the
    metadata keys that are indexed, each with its kind; `*` is every key, compared by `==`.
    `warnings` say which indexes could not be built or are not valid, and what to do.
    """

    url: str
    collection: str
    count: int
    dim: int
    fields: tuple[FieldInfo, ...]
    embedder: str | None
    funnel: str
    format: int
    engine: Mapping[str, Any]
    indexes: Mapping[str, str] = field(default_factory=dict)
    adaptor: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are ready for an engine: ids are unique, metadata is plain JSON.

    `vectors` has one (n, length) matrix of unit rows per field, in the order of the ids.
    """

    ids: list[str]
    texts: list[str]
    metadatas: list[dict[str, Any]]
    vectors: Mapping[str, Matrix]

    def __len__(self) -> int:
        return len(self.ids)


def is_image(value: object) -> bool:
    """Return whether a value is an image: a path, or a PIL image."""
    pil = sys.modules.get("PIL.Image")  # who has such an image has imported it
    return isinstance(value, PurePath) or (pil is not None and isinstance(value, pil.Image))


def check_id(given: object) -> str:
    """Return an id as the string that is stored. Raises RecordError on what cannot be an id."""
    if isinstance(given, bool) or not isinstance(given, (str, int, uuid.UUID)):
        raise RecordError(f"an id is a string, an integer or a UUID, got {given!r}")
    text = str(given)
    if not text:
        raise RecordError("an id is not empty; leave it out to get a random UUID")
    if len(text) > MAX_ID:
        raise RecordError(f"an id has at most {MAX_ID} characters, got {len(text)}: {text[:40]!r}…")
    _check_utf8(text, "an id")
    return text


def _check_utf8(text: str, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{what} has a lone surrogate at character {error.start}") from None


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return metadata as plain JSON: a deep copy with datetimes, UUIDs and such written out.

    Raises RecordError on anything that would not come out as it went in; `where` names the place.
    """
    # Ordered by how often metadata holds them: ingest goes through here for every value.
    kind = type(value)
    if kind is str:
        _check_utf8(value, where)
        return value
    if value is None or kind is bool:
        return value
    if kind is int:
        return _checked_int(value, where)
    if kind is float:
        return _checked_float(value, where)
    if depth > MAX_DEPTH:
        raise RecordError(f"{where[:80]}…: nested more than {MAX_DEPTH} levels deep")
    below = depth + 1
    if kind is dict:
        return {
            # What is seen to be plain is not worth saying where it is.
            k if type(k) is str and k.isascii() else _key(k, where): item
            if type(item) is str and item.isascii()
            else plain(item, f"{where}.{k}", below)
            for k, item in value.items()
        }
    if kind is list:
        return [plain(item, f"{where}[{i}]", below) for i, item in enumerate(value)]
    return _written_out(value, where, below)


def _written_out(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return plain(value.value, where, depth)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _number(value, where)
    if isinstance(value, Mapping):
        return plain(dict(value), where, depth)
    raise RecordError(
        f"{where}: {type(value).__module__}.{type(value).__qualname__} is not JSON; metadata holds "
        "str, int, float, bool, None, lists and dicts of these"
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise RecordError(f"{where}: the key {key!r} is not a string")
    _check_utf8(key, f"{where}: the key {key!r}")
    return key


def _checked_int(value: int, where: str) -> int:
    if not -_INT64 <= value < _INT64:
        raise RecordError(f"{where}: {value} does not fit 64 bits; store it as a string")
    return value


def _checked_float(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise RecordError(f"{where}: {value} is not JSON; leave the key out or store None")
    return value


def _number(value: Decimal, where: str) -> int | float:
    """Return a Decimal as the number that reads the same, so that filters can compare it."""
    if value.is_finite() and value == value.to_integral_value() and "." not in str(value):
        return _checked_int(int(value), where)
    number = _checked_float(float(value), where)
    if Decimal(repr(number)) != value:
        raise RecordError(f"{where}: {value} has more digits than a float keeps; store it as str")
    return number
