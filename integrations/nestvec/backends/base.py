"""What an engine offers a store. A new engine is one file beside this one."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from ..errors import CollectionDamaged, NestingError, Unavailable
from ..filter_nodes import Keyed
from ..filters import Between, Eq, Filter, Ge, Gt, In, Le, Lt, NotIn
from ..flow import Flow
from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record
from ..unbuilt import Unbuilt

__all__ = [
    "FORMAT", "KINDS", "Backend", "Entry", "Head", "MadeMeanwhile", "Stored", "index_kind",
]  # fmt: skip

#: The version of what a collection records of itself.
FORMAT = 1


#: What an index of metadata can hold, by the names that it is asked for by. Whole numbers and
#: others are one kind, because they compare with each other.
KINDS = {
    "int": "number", "float": "number", "number": "number", "str": "str", "bool": "bool",
    "datetime": "datetime",
}  # fmt: skip


class MadeMeanwhile(Unavailable):
    """Raised by `create` where another process made the collection since `load` found none."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as the engine has it, whatever is wrong with it.

    `key` is what the engine knows it by, `vectors` the numbers of the fields that it has.
    """

    key: Any
    id: str
    text: str
    vectors: Mapping[str, Matrix]


@dataclass(frozen=True, slots=True)
class Entry:
    """A field that a plan may begin with, and what of its search can be chosen.

    `indexed` says whether there is an index; without one the field is read from end to end.
    `most_ef` is the largest ef of its graph, None where it has none; `lists` those of an ivfflat
    index. `oversampling` says whether it can rescore inside itself. `most` is how many candidates
    a stage may let through, and `most_oversampling` how many times as many it may find.
    """

    field: Field
    indexed: bool
    most_ef: int | None = None
    lists: int | None = None
    oversampling: bool = False
    most: int | None = None
    most_oversampling: float | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What a collection records of itself: its nesting, and what made its vectors.

    `adaptor` is the name of the adaptor. `derived` says whether prefixes are the first numbers of
    what is stored as full, or vectors of their own that an adaptor made. `tuned` is the plan that
    was measured on it, as plain JSON. `added` are the fields that came after it was made, `pending`
    the one that is on its way in or out. `id` is random, so that a collection which was made anew
    under the same name is told apart; those made before there were ids have none.
    """

    nesting: Nesting
    embedder: str | None = None
    format: int = FORMAT
    adaptor: str | None = None
    derived: bool = True
    tuned: Mapping[str, Any] | None = None
    added: tuple[str, ...] = ()
    pending: str | None = None
    id: str | None = None

    @property
    def written(self) -> Nesting:
        """The fields that documents are written with, also the one that is on its way in."""
        if self.pending is None or self.pending.startswith("-"):
            return self.nesting
        return Nesting.of((*self.nesting.dims, self.pending[1:]), self.nesting.dim)

    def to_json(self) -> str:
        """Return the head as JSON."""
        head = {
            "nestvec": self.format,
            "dim": self.nesting.dim,
            "dims": self.nesting.dims,
            "embedder": self.embedder,
            "adaptor": self.adaptor,
            "derived": self.derived,
        }
        later = {
            "tuned": self.tuned,
            "added": list(self.added),
            "pending": self.pending,
            "id": self.id,
        }
        head.update({name: value for name, value in later.items() if value})
        return json.dumps(head, indent=2)

    @classmethod
    def from_json(cls, text: str, where: str) -> Head:
        """Return the head that `to_json` wrote. Raises CollectionDamaged, which names `where`."""
        try:
            head = json.loads(text)
            version, dim, dims, embedder = (
                head[key] for key in ("nestvec", "dim", "dims", "embedder")
            )
            if isinstance(version, int) and version > FORMAT:
                raise CollectionDamaged(
                    f"{where} has format {version}, this nestvec reads up to {FORMAT}; upgrade it"
                )
            # Before there were adaptors, every prefix was derived.
            return cls(
                Nesting.of(dims, dim), embedder, version, head.get("adaptor"),
                bool(head.get("derived", True)), head.get("tuned"), tuple(head.get("added", ())),
                head.get("pending"), head.get("id"),
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, NestingError) as error:
            raise CollectionDamaged(
                f"{where} is not what nestvec wrote there ({type(error).__name__}); "
                "restore it from a copy, nothing was changed"
            ) from error


#: How many documents are read at once where all are.
_PAGE = 1_000


def drawn_by(id: str, seed: int) -> str:
    """Return what orders ids as if at random, alike in every engine."""
    return hashlib.md5(f"{id} {seed}".encode(), usedforsecurity=False).hexdigest()


def index_kind(condition: Keyed) -> str | None:
    """Return the kind of index that holds what a condition looks for, None where none does."""
    if isinstance(condition, NotIn) or not isinstance(condition, (Eq, In, Lt, Le, Gt, Ge, Between)):
        return None
    if isinstance(condition, Between):
        values = (condition.low, condition.high)
    else:
        values = condition.values if isinstance(condition, In) else (condition.value,)
    kinds = {_KIND_OF.get(type(value)) for value in values}
    return "float" if kinds == {"int", "float"} else kinds.pop() if len(kinds) == 1 else None


_KIND_OF = {bool: "bool", int: "int", float: "float", str: "str", datetime: "datetime"}


class Backend(ABC):
    """One collection in one engine: every operation as a flow, and a driver to perform it.

    Flows yield requests that only this backend's `send` and `asend` understand.
    """

    #: Precisions that prefixes, and the full vector searched first, can have.
    precisions: ClassVar[Sequence[str]]
    #: Precisions in which the full vector itself can be kept.
    full_precisions: ClassVar[Sequence[str]] = ("float32", "float16")
    #: Whether indexes of metadata are made here, and not only kept in mind.
    indexes_metadata: bool = True

    #: As it was written, for people, and where it leads from anywhere; both without secrets.
    url: str
    place: str
    collection: str
    #: The dataclass of the engine's options, as `connect` made it; secrets are not in its repr.
    options: Any
    #: What is taken out of every error: the secrets among the URL and the options.
    secrets: Sequence[str] = ()

    @cached_property
    def unbuilt(self) -> Unbuilt:
        """The indexes that this store could not build."""
        return Unbuilt()

    def check(self, nesting: Nesting) -> None:
        """Refuse what this engine cannot keep. Raises NestingError that lists what it can."""
        for field in nesting.fields:
            known = self.full_precisions if field is nesting.full else self.precisions
            if field.precision not in known:
                raise NestingError(
                    f"{self.url} cannot keep {field.spec!r}; here are {', '.join(known)}"
                )

    @abstractmethod
    def load(self) -> Flow[Head | None]:
        """Return what the collection knows of itself, or None if there is none; change nothing."""

    def ready(self, head: Head) -> Flow[None]:  # noqa: ARG002
        """Go on opening, once what `load` returned was found to be what is asked for."""
        return
        yield

    @abstractmethod
    def create(self, head: Head) -> Flow[None]:
        """Make the collection, which does not exist yet, and open it. Raises MadeMeanwhile."""

    @abstractmethod
    def record(self, head: Head) -> Flow[None]:
        """Record what the collection knows of itself anew, all of it or nothing."""

    def add_vector(self, head: Head, field: Field) -> Flow[None]:  # noqa: ARG002
        """Make room for a field that the head has pending; from now on it is written too."""
        return
        yield

    def fill(self, field: Field, after: Any) -> Flow[tuple[int, Any]]:  # noqa: ARG002
        """Make a field for some documents that lack it, of their full vectors.

        Return for how many, and where to go on; that is None at the end. What others write
        meanwhile is not undone.
        """
        return 0, None
        yield

    def index_vector(self, head: Head, field: Field) -> Flow[None]:  # noqa: ARG002
        """Index a field that all documents have, so that it can be searched first."""
        return
        yield

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:  # noqa: ARG002
        """Drop what the engine keeps of a field that the head has no more."""
        return
        yield

    @property
    def scans(self) -> bool:
        """Whether vectors may be read from end to end, as an exact search does."""
        return True

    def within(self, plan: Plan) -> Plan:
        """Return a plan as the collection lets it be run: one that was not given is cut.

        Raises FunnelError where one that was given is beyond a limit.
        """
        return plan

    def thins(self, field: Field) -> bool:  # noqa: ARG002
        """Return whether a field can be a stage in between, where few candidates are left of it."""
        return True

    @abstractmethod
    def entries(self) -> Flow[list[Entry]]:
        """Return the fields that a plan may begin with, fewest bytes first."""

    def sample(self, count: int, seed: int) -> Flow[list[Record]]:
        """Return up to `count` documents with their vectors, drawn at random by a seed.

        Whether a document is drawn depends on its id and the seed alone, wherever it is kept.
        """
        drawn: list[tuple[str, str]] = []
        after = None
        while True:
            records, after = yield from self.page(None, after, _PAGE, vectors=False)
            drawn = sorted(drawn + [(drawn_by(record.id, seed), record.id) for record in records])
            drawn = drawn[:count]
            if after is None:
                break
        found = yield from self.get([id for _, id in drawn], vectors=True)
        return sorted(found, key=lambda record: drawn_by(record.id, seed))

    @abstractmethod
    def upsert(self, batch: Batch) -> Flow[None]:
        """Store a batch, all of it or nothing; documents with its ids are replaced."""

    @abstractmethod
    def settle(self) -> Flow[None]:
        """Index what was written, where the engine does not do so by itself.

        An index that could not be built is told by `unbuilt.failed`, and is no error. An error all
        the same is told so by who asked for it.
        """

    def warnings(self, plan: Plan | None = None) -> Flow[tuple[str, ...]]:  # noqa: ARG002
        """Return what is wrong with the indexes; of those that a plan needs, where one is given."""
        return self.unbuilt.texts
        yield

    def create_index(self, _field: Field) -> Flow[None]:
        """Index a field now; an engine that has its index by other means does nothing."""
        return
        yield

    @abstractmethod
    def search(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[list[Hit]]:
        """Return the hits of a plan, best first; `queries` has one unit vector per field."""

    def search_many(
        self, many: Sequence[Mapping[str, Matrix]], plan: Plan, where: Filter | None
    ) -> Flow[list[list[Hit]]]:
        """Return the hits of each query; an engine that can asks for all of them at once."""
        found = []
        for queries in many:
            found.append((yield from self.search(queries, plan, where)))
        return found

    @abstractmethod
    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[int]:
        """Return how many leave the last of the plan's stages, without going on to full."""

    @abstractmethod
    def get(self, ids: Sequence[str], vectors: bool) -> Flow[list[Record]]:
        """Return the documents with these ids that exist, in any order."""

    @abstractmethod
    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> Flow[int]:
        """Delete by ids or by filter, whichever is not None; return how many there were."""

    @abstractmethod
    def count(self, where: Filter | None) -> Flow[int]:
        """Return how many documents match."""

    @abstractmethod
    def page(
        self, where: Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        """Return up to `limit` documents and where to go on; that is None at the end."""

    @abstractmethod
    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        """Index what a key holds, of one of `KINDS`; the key has no index of nestvec's yet."""

    @abstractmethod
    def metadata_indexes(self) -> Flow[Mapping[str, str]]:
        """Return the keys that are indexed, each with its kind; `*` for all of them by `==`."""

    def index_for(self, condition: Keyed) -> str | None:
        """Return the kind of index that would serve a condition on a key, None where none can."""
        return index_kind(condition)

    @abstractmethod
    def filtering(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter
    ) -> Flow[FilterTrace]:
        """Return how a query's filter is served."""

    @abstractmethod
    def info(self) -> Flow[Mapping[str, Any]]:
        """Return what only this engine can tell of the collection."""

    def kept(self, nesting: Nesting) -> list[Field]:
        """Return the fields whose numbers documents have, so that they may be wrong."""
        return [field for field in nesting.fields if field.name == "full" or not field.full]

    @abstractmethod
    def stored(self, after: Any, limit: int) -> Flow[tuple[list[Stored], Any]]:
        """Return up to `limit` documents as they are kept, and where to go on; None at the end."""

    @abstractmethod
    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> Flow[None]:
        """Give documents other vectors, but for those that were replaced since they were read."""

    def verify(self) -> Flow[dict[str, tuple[str, ...]]]:
        """Return the documents that lack fields, where others than nestvec can write."""
        return {}
        yield

    @abstractmethod
    def drop(self) -> Flow[None]:
        """Delete the collection, everything of it."""

    @abstractmethod
    def send(self, request: Any) -> Any:
        """Perform one request."""

    async def asend(self, request: Any) -> Any:
        """Perform one request without blocking the event loop."""
        from asyncio import to_thread  # slow to import, and a Store needs none of it

        return await to_thread(self.send, request)

    @abstractmethod
    def close(self) -> None:
        """Let go of the engine; safe to call twice."""

    async def aclose(self) -> None:
        """Let go of the engine without blocking the event loop."""
        from asyncio import to_thread

        await to_thread(self.close)
