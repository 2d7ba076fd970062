"""What an engine offers a store. A new engine is one file beside this one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ..errors import CollectionDamaged, NestingError
from ..filter_nodes import Keyed
from ..filters import Between, Eq, Filter, Ge, Gt, In, Le, Lt, NotIn
from ..flow import Flow
from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record

__all__ = ["FORMAT", "KINDS", "Backend", "Head", "index_kind"]

#: The version of what a collection records of itself.
FORMAT = 1


#: What an index of metadata can hold, by the names that it is asked for by. Whole numbers and
#: others are one kind, because they compare with each other.
KINDS = {
    "int": "number", "float": "number", "number": "number", "str": "str", "bool": "bool",
    "datetime": "datetime",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """What a collection records of itself: its nesting, and what made its vectors.

    `adaptor` is the name of the adaptor. `derived` says whether prefixes are the first numbers of
    what is stored as full, or vectors of their own that an adaptor made.
    """

    nesting: Nesting
    embedder: str | None = None
    format: int = FORMAT
    adaptor: str | None = None
    derived: bool = True

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
            adaptor, derived = head.get("adaptor"), bool(head.get("derived", True))
            return cls(Nesting.of(dims, dim), embedder, version, adaptor, derived)
        except (ValueError, TypeError, KeyError, NestingError) as error:
            raise CollectionDamaged(
                f"{where} is not what nestvec wrote there ({type(error).__name__}); "
                "restore it from a copy, nothing was changed"
            ) from error


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

    url: str
    collection: str
    #: The dataclass of the engine's options, as `connect` made it; secrets are not in its repr.
    options: Any

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
        """Make the collection, which does not exist yet, and open it."""

    @abstractmethod
    def upsert(self, batch: Batch) -> Flow[None]:
        """Store a batch, all of it or nothing; documents with its ids are replaced."""

    @abstractmethod
    def settle(self) -> Flow[None]:
        """Index what was written, where the engine does not do so by itself."""

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
