"""Fields that come and go while a collection is used, made of the full vectors that it has.

A change is recorded before it begins and after it is done. What a kill leaves in between is a
collection that works as before, and the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .collection import Collection
from .errors import CollectionMismatch, NestingError
from .flow import Flow
from .nesting import Field, Nesting

__all__ = ["add_field", "drop_field"]


def add_field(
    collection: Collection,
    field: int | str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Flow[None]:
    """Add a field, such as `128` or `"256:int8"`, made of the full vectors; nothing is embedded.

    Others search and write meanwhile; the field can be searched once it is whole, and is indexed
    then. After a kill the same call goes on where it stopped. Where the field is there already
    nothing is done. Stores that were opened before, in other processes, write documents without
    it until they are opened again: `verify` finds those and `repair` mends them. `progress` is
    told how many documents have it, and how many there are.

    Raises NestingError on a field that cannot be, also where a document's prefix is all zero, and
    CollectionMismatch while another change is half way.
    """
    head = collection.head
    wanted = _parsed(field, head.nesting)
    change = f"+{wanted.spec}"
    if wanted.name in head.nesting.names and head.pending is None:
        return
    _check_pending(collection, change)
    if not head.derived:
        raise NestingError(
            f"the prefixes of collection {collection.backend.collection!r} are made by the adaptor "
            f"{head.adaptor!r}, not of the vectors that are stored; make a new collection for it"
        )
    nesting = Nesting.of((*head.nesting.dims, wanted.spec), head.nesting.dim)
    collection.backend.check(nesting)
    if head.pending is None:
        yield from collection.record(replace(head, pending=change))
    # From here on documents are written with it; those that were under way are filled too.
    yield from collection.backend.add_vector(collection.head, wanted)
    yield from _fill(collection, wanted, progress)
    added = (*(name for name in head.added if name != wanted.name), wanted.name)
    whole = replace(collection.head, nesting=nesting, added=added, pending=None)
    yield from collection.backend.index_vector(whole, wanted)
    yield from collection.record(whole)
    yield from _fill(collection, wanted, progress)  # batches that were made before and came late


def _fill(
    collection: Collection, field: Field, progress: Callable[[int, int], None] | None
) -> Flow[None]:
    """Make a field for all documents that lack it, until a pass over all finds none."""
    total, done = (yield from collection.backend.count(None)), 0
    filled = -1
    while filled:
        filled, after = 0, None
        while True:
            some, after = yield from collection.backend.fill(field, after)
            filled, done = filled + some, done + some
            if progress is not None:
                progress(min(done, total), total)
            if after is None:
                break
    if progress is not None:
        progress(total, total)


def drop_field(collection: Collection, field: int | str) -> Flow[None]:
    """Drop a field; the field that is then searched first is indexed before.

    Others search and write meanwhile, but for searches whose funnel names the field. A tuned plan
    that uses it is forgotten. After a kill the same call goes on where it stopped. Raises
    NestingError on a field that is not there, on full, and on the last prefix, and
    CollectionMismatch while another change is half way.
    """
    head = collection.head
    wanted = _parsed(field, head.nesting)
    change = f"-{wanted.spec}"
    _check_pending(collection, change)
    if head.pending is None:
        doomed = head.nesting[wanted.name]
        if doomed is head.nesting.full:
            raise NestingError("full is what candidates are rescored by; it cannot be dropped")
        rest = tuple(kept for kept in head.nesting.fields if kept is not doomed)
        if len(rest) == 1:
            raise NestingError(f"{doomed.name} is the last field beside full; add another before")
        first = rest[0]
        if head.nesting.fields[0] is doomed and first.name not in head.added:
            yield from collection.backend.index_vector(head, first)
        tuned = None if collection.tuned and _uses(collection.tuned, doomed) else head.tuned
        added = tuple(name for name in head.added if name != doomed.name)
        head = replace(head, nesting=Nesting(rest), added=added, tuned=tuned, pending=change)
        yield from collection.record(head)
    yield from collection.backend.drop_vector(collection.head, wanted)
    yield from collection.record(replace(collection.head, pending=None))


def _parsed(field: int | str, nesting: Nesting) -> Field:
    """Return the field that an item of dims, or a field's name, asks for."""
    for known in nesting.fields:
        if str(field) in (known.name, known.spec):
            return known
    if field in ("full", "full:float32", "full:float16"):
        raise NestingError("full is there already; how it is kept cannot be changed")
    return Nesting.of((field,), nesting.dim).fields[0]


def _check_pending(collection: Collection, change: str) -> None:
    pending = collection.head.pending
    if pending not in (None, change):
        verb = "add_field" if pending.startswith("+") else "drop_field"
        other = "" if verb == "drop_field" else f", or drop_field({pending[1:]!r}) to undo it"
        if change == f"-{pending[1:]}":
            return
        raise CollectionMismatch(
            f"collection {collection.backend.collection!r} in {collection.backend.url} has a "
            f"change half way; finish it by {verb}({pending[1:]!r}){other}"
        )


def _uses(funnel: Any, field: Field) -> bool:
    return any(stage.field in (field.name, field.spec) for stage in funnel.stages)
