"""Storing documents passage by passage, so that a document added again is updated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from .passages import Document, passage_id
from .records import Record
from .store import Store

__all__ = ["BATCH", "Added", "build_index", "ingest", "passages_from"]

#: How many passages a store that documents are added to takes at once: its `batch_size`.
BATCH = 512

#: Seconds between two looks at how far an index is.
_LOOK_EVERY = 1.0

#: How many passages past its end a document is searched for at a time.
_WINDOW = 8


@dataclass(slots=True)
class Added:
    """What an ingest did; `removed` counts passages of longer versions stored before."""

    documents: int = 0
    passages: int = 0
    blank: int = 0
    removed: int = 0


def ingest(
    store: Store, documents: Iterable[Document], *, advance: Callable[[Document], None]
) -> Added:
    """Store documents, each in place of its earlier version; `advance` is told of each stored one.

    Of documents with the same id the last one wins. Raises what `Store.add_records` raises; the
    documents that `advance` was told of are stored then, and adding all again does no harm.
    """
    added = Added()
    waiting: dict[str, Document] = {}

    def records() -> Iterator[Record]:
        # All in one call, because an engine may build its index anew at the end of each.
        given = 0
        for document in documents:
            for record in document.passages:
                # The store asks for the first record of a batch when it has stored those before.
                if given % BATCH == 0:
                    waiting.pop(document.id, None)  # this one replaces it
                    _finish(store, waiting, added, advance)
                yield record
                given += 1
            waiting[document.id] = document

    store.add_records(records())
    _finish(store, waiting, added, advance)
    return added


def build_index(store: Store, field: str | None, *, advance: Callable[[float], None]) -> None:
    """Index a field; `advance` is told, from time to time, what share more of it is done.

    Raises what `Store.create_index` raises.
    """
    shown = 0.0
    with ThreadPoolExecutor(1) as thread:
        building = thread.submit(store.create_index, field)
        while wait([building], timeout=_LOOK_EVERY).not_done:
            done = _share(store.info().engine)
            if done > shown:
                advance(done - shown)
                shown = done
        building.result()


def _share(engine: Mapping[str, Any]) -> float:
    """Return how much of an index is done, where the engine tells."""
    return max(
        (index.get("done", 0.0) for index in engine.get("indexes", {}).values()), default=0.0
    )


def _finish(
    store: Store,
    stored: dict[str, Document],
    added: Added,
    advance: Callable[[Document], None],
) -> None:
    """Remove what earlier versions of stored documents had beyond their end, and count them."""
    # Only now, so that an interruption leaves a document too long rather than cut.
    ends = {id: len(document.passages) for id, document in stored.items() if not document.alone}
    if stale := passages_from(store, ends):
        added.removed += store.delete(ids=stale)
    for document in stored.values():
        added.documents += bool(document.passages)
        added.blank += not document.passages
        added.passages += len(document.passages)
        advance(document)
    stored.clear()


def passages_from(store: Store, ends: Mapping[str, int]) -> list[str]:
    """Return the ids of the stored passages of documents, each from its given passage on.

    A record is a passage when its metadata says so; another document may have such an id.
    """
    found: list[str] = []
    while ends:
        asked = {
            passage_id(id, n): (id, n)
            for id, end in ends.items()
            for n in range(end, end + _WINDOW)
        }
        going_on = set()
        for record in store.get(asked):
            id, n = asked[record.id]
            if n == 0 or record.metadata.get("passage") == n:
                found.append(record.id)
                going_on.add(id)
        ends = {id: end + _WINDOW for id, end in ends.items() if id in going_on}
    return found
