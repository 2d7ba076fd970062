"""Queries that users give: a list, or a file such as a log, each query with a filter or without."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FilterError, NestingError, RecordError
from .filter_forms import as_filter
from .filters import Filter

__all__ = ["Given", "given", "naming"]

#: How a query is named in a dict, and its filter.
_QUERY, _WHERE = ("query", "text", "vector"), ("where", "filter")

#: How a line with a vector begins.
_VECTOR = re.compile(r"\[\s*[-\d]")


@dataclass(frozen=True, slots=True)
class Given:
    """One query: a text, an image or a vector; its filter; and where it stands, for errors."""

    query: Any
    where: Filter | None
    place: str


def given(queries: Any, where: Filter | None) -> tuple[list[Given], list[str]]:
    """Return queries in their order, each under `where` too, and the keys that were not read.

    Items are texts, images, vectors, or dicts with `query` (or `text`, or `vector`) and `where` (or
    `filter`). A path is that of a file with one query a line: a text, a vector as a JSON array, or
    a JSON object like those dicts, which may have other keys, as lines of a log do; or of a .npy
    file with one vector a row. Raises RecordError and FilterError, which name the item or the line,
    and OSError.
    """
    if isinstance(queries, PathLike):
        items = _rows(Path(queries)) if Path(queries).suffix == ".npy" else _lines(Path(queries))
        strict = False
    else:
        items, strict = _items(queries), True
    made, unread = [], set[str]()
    for place, item in items:
        with naming(place):
            query, own, others = _parts(item, strict=strict)
            unread |= others
            only = as_filter(own)
            both = where if only is None else only if where is None else only & where
            made.append(Given(query, both, place))
    if not made:
        raise RecordError("queries is empty" if strict else f"there are no queries in {queries}")
    return made, sorted(unread)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say in errors about a query which one it is."""
    try:
        yield
    except (FilterError, NestingError, RecordError) as error:
        raise type(error)(f"{place}: {error}") from error


def _items(queries: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(queries, (str, bytes, Mapping)) or not isinstance(queries, Iterable):
        raise RecordError(
            f"queries is a list of queries or the pathlib.Path of a file, got {type(queries)}; "
            "write [query] for one"
        )
    return ((f"query {n}", item) for n, item in enumerate(queries, 1))


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise RecordError(f"{path} is no .npy file of a matrix of numbers: {error}") from None
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise RecordError(f"{path} is no .npy file of a matrix of numbers, one vector a row")
    return ((f"{path}, row {n}", row) for n, row in enumerate(rows))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for n, raw in enumerate(file, 1):
            place = f"{path}, line {n}"
            try:
                line = raw.decode("utf-8-sig" if n == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise RecordError(f"{place}: not UTF-8 at byte {error.start + 1}") from None
            if line.startswith("{") or _VECTOR.match(line):
                try:
                    yield place, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise RecordError(f"{place}: not JSON: {error}") from None
            elif line:
                yield place, line


def _parts(item: Any, *, strict: bool) -> tuple[Any, Any, set[str]]:
    """Return a query, its filter and the keys beside them."""
    if not isinstance(item, Mapping):
        return item, None, set()
    names, filters = ([key for key in keys if key in item] for keys in (_QUERY, _WHERE))
    others = {str(key) for key in item} - {*_QUERY, *_WHERE}
    if len(names) != 1 or len(filters) > 1 or (strict and others):
        raise RecordError(
            f"a query has one of the keys {', '.join(_QUERY)}, and where or filter; got "
            f"{', '.join(map(str, item)) or 'none'}"
        )
    (name,) = names
    query = item[name]
    if query is None or (name != "query" and isinstance(query, str) != (name == "text")):
        raise RecordError(f"{name} cannot be a {type(query).__name__}")
    return query, item[filters[0]] if filters else None, others
