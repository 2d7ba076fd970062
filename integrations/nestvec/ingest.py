"""Storing documents passage by passage, so that a document added again is updated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from .passages import Document, passage_id
from .store import Store

__all__ = ["Added", "ingest", "passages_from"]

#: How many passages are stored at once.
_GROUP = 512

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
    for group in _groups(documents):
        latest = {document.id: document for document in group}
        records = [record for document in latest.values() for record in document.passages]
        store.add_records(records)
        # Only now, so that an interruption leaves a document too long rather than cut.
        ends = {id: len(doc.passages) for id, doc in latest.items() if not doc.alone}
        if stale := passages_from(store, ends):
            added.removed += store.delete(ids=stale)
        blank = sum(not document.passages for document in latest.values())
        added.documents += len(latest) - blank
        added.blank += blank
        added.passages += len(records)
        for document in group:
            advance(document)
    return added


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += max(1, len(document.passages))
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


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
