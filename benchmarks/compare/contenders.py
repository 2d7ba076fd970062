"""What every contender can do: be loaded, be opened, and be asked with one setting or another."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, ClassVar, TypeVar

from nestvec import Store
from nestvec.nesting import Matrix

from .vectors import Data, K

__all__ = [
    "Client", "Contender", "Loaded", "Nested", "Search", "Setting", "candidates", "in_parts",
    "nested_ladders", "single_ladders", "with_more_links",
]  # fmt: skip

#: What a search is told beside its query, such as {"ef": 100} or {"funnel": "512:binary:120"}.
Setting = dict[str, Any]

#: Unit vector in, ids of the best K out.
Search = Callable[[Matrix], list[str]]

#: A new client with a setting; each thread has its own.
Client = Callable[[Setting], Search]

Some = TypeVar("Some")
Linked = TypeVar("Linked", bound="Contender")

#: Links of a node in a graph that finds more, and among how many candidates they are found.
_MORE_LINKS, _MORE_CANDIDATES = 24, 200


@dataclass(frozen=True)
class Loaded:
    """What writing and indexing took.

    `written_rows` of the documents were written by the contender's own interface, in `write_s`
    seconds; where that is not all of them, the others came by a faster way, and the time of all is
    reckoned from the rate. `hot_bytes` is what the first stage reads: what vectors are searched by,
    their graph, and the engine's map of ids where it has one.
    """

    written_rows: int
    write_s: float
    build_s: float
    index_bytes: int
    hot_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Contender(ABC):
    """One way to store and to search the vectors, with the settings that it can be given."""

    name: str

    #: What a node of the graph is linked to; the engines' own number, or more.
    links: int = 16

    #: The contender whose setting it takes; empty where it chooses its own.
    like: str = ""

    #: nestvec, a single vector written by hand, or a framework's store.
    side = "single"

    #: The most documents that it is asked to hold; None is any number.
    most: ClassVar[int | None] = None

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @abstractmethod
    def load(self, data: Data, place: str, sample: int) -> Loaded:
        """Write and index all documents; a slow interface writes `sample` of them by itself."""

    @abstractmethod
    def opened(self, data: Data, place: str) -> AbstractContextManager[Client]:
        """Open what was loaded."""

    @abstractmethod
    def ladders(self, dim: int) -> Sequence[Sequence[Setting]]:
        """Return settings, in lists from the narrowest search to the widest."""


@dataclass(frozen=True)
class Nested(Contender):
    """A collection of nestvec: some of the full vector at a precision, and full as float16.

    `eighths` 4 is the first half of the numbers; 8 is the full vector itself, quantised.
    """

    eighths: int = 4
    precision: str = "binary"
    side = "nestvec"

    def dims(self, dim: int) -> tuple[str, ...]:
        if self.eighths == 8:
            return (f"full:{self.precision}",)
        return f"{dim * self.eighths // 8}:{self.precision}", "full:float16"

    @staticmethod
    def client(store: Store, setting: Setting) -> Search:
        funnel = setting["funnel"]
        return lambda query: [hit.id for hit in store.search(query, K, funnel=funnel)]


_EFS = (16, 24, 32, 40, 48, 56, 64, 80, 100, 128, 160, 200, 256, 320, 400, 600, 900, 1_200, 1_800)
_TIMES = (1, 1.5, 2, 3, 4, 6, 8, 12, 16)


def candidates(links: int, default: int) -> int:
    """Return among how many candidates a node's links are found: the engine's number, or more."""
    return default if links == Contender.links else _MORE_CANDIDATES


def with_more_links(contender: Linked) -> Linked:
    """Return a contender whose graph takes longer to build and finds more."""
    return replace(contender, name=f"{contender.name}, m {_MORE_LINKS}", links=_MORE_LINKS)


def single_ladders(quantised: bool) -> list[list[Setting]]:
    """Return the settings of one graph on the engine Edge."""
    if not quantised:
        return [[{"ef": ef} for ef in _EFS]]
    return [[{"ef": ef, "oversampling": each} for ef in _EFS if ef >= each * K] for each in _TIMES]


def nested_ladders(first: str) -> list[list[Setting]]:
    """Return the funnels on Edge that begin with a field, and how it is searched.

    The full vector, quantised, has the settings that it has without nestvec.
    """
    if first.startswith("full:"):
        return [
            [
                {"funnel": f"{first}:{K} ef={each['ef']} oversampling={each['oversampling']:g}"}
                for each in ladder
            ]
            for ladder in single_ladders(quantised=True)
        ]
    limits = (15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 400, 600)
    steps = (1, 1.5, 2, 3)
    plain = [
        [{"funnel": f"{first}:{limit} ef={round(limit * step)}"} for step in steps]
        for limit in limits
    ]
    oversampled = [
        [
            {"funnel": f"{first}:{limit} ef={round(limit * times * step)} oversampling={times:g}"}
            for step in steps
        ]
        for limit in (12, 15, 20, 30)
        for times in (2, 3, 4, 6, 8)
    ]
    both = zip_longest(plain, oversampled)  # in turns, since the time to try them may end
    return [ladder for pair in both for ladder in pair if ladder is not None]


def in_parts(some: Sequence[Some], size: int) -> Iterator[Sequence[Some]]:
    for start in range(0, len(some), size):
        yield some[start : start + size]
