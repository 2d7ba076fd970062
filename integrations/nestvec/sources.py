"""What an ingest reads from: any iterable, also an async one, a batch at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any

from .errors import ConfigError, FunnelError, RecordError
from .funnel import check_count
from .records import Record, is_image

__all__ = ["Take", "atake", "checked_size", "iterator", "paired", "take"]


@dataclass(frozen=True, slots=True)
class Take:
    """A request for the next `size` items of an iterator, or fewer at its end."""

    items: Iterator[Any] | AsyncIterator[Any]
    size: int


def take(request: Take) -> list[Any]:
    """Return the items that are asked for. Raises ConfigError on an async iterator."""
    if isinstance(request.items, AsyncIterator):
        raise ConfigError("a Store cannot read an async iterable; use aconnect")
    return list(islice(request.items, request.size))


async def atake(request: Take) -> list[Any]:
    """Return the items that are asked for, of either kind of iterator."""
    if not isinstance(request.items, AsyncIterator):
        return take(request)
    taken: list[Any] = []
    while len(taken) < request.size:
        try:
            taken.append(await anext(request.items))
        except StopAsyncIteration:
            break
    return taken


def iterator(items: Any) -> Iterator[Any] | AsyncIterator[Any]:
    """Return an iterator over records. Raises RecordError on what is not iterable."""
    if isinstance(items, AsyncIterable):
        return aiter(items)
    try:
        made: Iterator[Any] = iter(items)
    except TypeError:
        raise RecordError(f"expected an iterable, got {type(items)}") from None
    return made


def checked_size(batch_size: Any) -> int:
    """Return how many records an ingest holds at once. Raises ConfigError."""
    try:
        return check_count("batch_size", batch_size, 1)
    except FunnelError as error:
        raise ConfigError(str(error)) from None


def paired(
    texts: Any, metadatas: Any, ids: Any, vectors: Any
) -> Iterator[Record] | AsyncIterator[Record]:
    """Return records of texts and what is beside them; sized ones must be equally long."""
    if isinstance(texts, str):
        raise RecordError("texts is a list of strings, got one string; write [text]")
    columns = {"metadata": metadatas, "id": ids, "vector": vectors}
    for name, column in columns.items():
        if isinstance(column, Sized) and isinstance(texts, Sized) and len(column) != len(texts):
            raise RecordError(f"{name}s has {len(column)} items for {len(texts)} texts")
    given = {name: iter(column) for name, column in columns.items() if column is not None}
    items = iterator(texts)
    return _arecords(items, given) if isinstance(items, AsyncIterator) else _records(items, given)


def _records(texts: Iterator[str], given: Mapping[str, Iterator[Any]]) -> Iterator[Record]:
    for n, text in enumerate(texts):
        yield _next_record(n, text, given)


async def _arecords(
    texts: AsyncIterator[str], given: Mapping[str, Iterator[Any]]
) -> AsyncIterator[Record]:
    n = 0
    async for text in texts:
        yield _next_record(n, text, given)
        n += 1


_END = object()


def _next_record(n: int, text: str, given: Mapping[str, Iterator[Any]]) -> Record:
    columns: dict[str, Any] = {name: next(column, _END) for name, column in given.items()}
    for name, value in columns.items():
        if value is _END:
            raise RecordError(f"{name}s ended before text number {n + 1}")
    given_values = {name: value for name, value in columns.items() if value is not None}
    if not is_image(text):
        return Record(text=text, **given_values)
    # A PIL image knows the file that it was read from, unless it was made.
    named = text if isinstance(text, PurePath) else getattr(text, "filename", "")
    return Record(text=str(named), image=text, **given_values)
