"""Choosing settings and measuring with them, each in a process of its own."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from nestvec.nesting import Matrix

from .contenders import Client, Contender, Loaded, Search, Setting
from .limits import Group
from .vectors import Data, K

__all__ = ["Chosen", "Pace", "Way", "apart", "choose", "measure", "prepare"]

Some = TypeVar("Some")

#: A setting is given up after so many queries when it finds so much less than the target.
_FIRST, _MISSED = 100, 0.02

#: So many queries are asked at least, however slow they are.
_FEWEST = 10


@dataclass(frozen=True)
class Chosen:
    """The fastest setting that reached the target on all queries, and the others that did.

    Where none did it is the one that found most, and `reached` is False.
    """

    setting: Setting
    recall: float
    reached: bool
    tried: int
    others: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Pace:
    """What was measured of a contender in one go: milliseconds, queries a second, bytes."""

    p50: float
    p95: float
    qps: float
    qps_clients: float
    resident_bytes: int
    queries: int


def apart(function: Callable[..., Some], *args: Any) -> Some:
    """Return what a function returns in a fresh process. Raises MemoryError where it is killed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise MemoryError("the process was killed, as happens where memory ends") from error


def prepare(
    contender: Contender, data: Data, place: str, target: float, budget: float,
    *, sample: int, setting: Setting | None = None,
) -> tuple[Loaded, Chosen]:  # fmt: skip
    """Load a contender and choose its setting."""
    loaded = contender.load(data, place, sample)
    return loaded, choose(contender, data, place, target, budget, setting=setting)


def choose(
    contender: Contender, data: Data, place: str, target: float, budget: float,
    *, setting: Setting | None = None,
) -> Chosen:  # fmt: skip
    """Try each ladder of settings up to its first that reaches the target; take the fastest.

    With a `setting` that one is tried and no other.

    A ladder whose widest setting finds far too little is left out. After `budget` seconds, as soon
    as one has reached the target, the ladders that are left are not tried.
    """
    until = time.perf_counter() + budget
    tried: list[_Tried] = []
    with contender.opened(data, place) as client:
        ladders = contender.ladders(data.dim) if setting is None else [[setting]]
        asked = _Asked(client, data.queries, data.truth)
        if len(ladders) == len(ladders[0]) == 1:  # there is nothing to choose
            tried, ladders = [asked.all(ladders[0][0])], []
        else:
            asked.first(ladders[0][0])  # what is read for the first time
        for ladder in ladders:
            reached = [each for each in tried if each.recall >= target]
            if reached and time.perf_counter() > until:
                break
            if len(ladders) > 1 and asked.first(ladder[-1]).recall < target - _MISSED:
                continue
            fastest = min((each.p50 for each in reached), default=math.inf)
            tried += _climbed(asked, ladder, target, fastest)
        if not tried:
            tried = [asked.all(ladders[-1][-1])]
    reached = sorted((each for each in tried if each.recall >= target), key=lambda each: each.p50)
    best, *others = reached or [max(tried, key=lambda each: each.recall)]
    return Chosen(
        best.setting, best.recall, bool(reached), len(tried), [asdict(each) for each in others[:5]]
    )


@dataclass(frozen=True)
class _Tried:
    """A setting, what it found of the best K, and the median of its milliseconds."""

    setting: Setting
    recall: float
    p50: float


@dataclass(frozen=True)
class _Asked:
    """Queries that are asked with one setting after the other."""

    client: Client
    queries: Matrix
    truth: Sequence[set[str]]

    def first(self, setting: Setting) -> _Tried:
        return self._tried(setting, self.queries[:_FIRST])

    def all(self, setting: Setting) -> _Tried:
        return self._tried(setting, self.queries)

    def _tried(self, setting: Setting, queries: Matrix) -> _Tried:
        found, times, search = 0, [], self.client(setting)
        for query, best in zip(queries, self.truth, strict=False):
            started = time.perf_counter()
            ids = search(query)
            times.append(time.perf_counter() - started)
            found += len(best.intersection(ids))
        return _Tried(setting, found / K / len(queries), statistics.median(times) * 1000)


def _climbed(
    asked: _Asked, ladder: Sequence[Setting], target: float, fastest: float
) -> Iterator[_Tried]:
    """Yield the settings of a ladder up to one that reaches the target, or is far too slow."""
    for setting in ladder:
        made = asked.first(setting)
        if made.recall >= target - _MISSED:
            if made.p50 > 1.5 * fastest:
                return  # and wider ones are slower yet
            made = asked.all(setting)
            if made.recall >= target:
                yield made
                return
        yield made


@dataclass(frozen=True)
class Way:
    """How to measure: seconds, clients, the pid of the server, and a memory limit to join."""

    seconds: float
    clients: int
    server: int | None = None
    group: Group | None = None


def measure(contender: Contender, data: Data, place: str, setting: Setting, way: Way) -> Pace:
    """Ask for some seconds with one client, then with several.

    Queries are those of the data, over and over, from a place that differs from client to client.
    Memory is that of this process, or of the server and its children.
    """
    queries, seconds, clients = data.queries, way.seconds, way.clients
    if way.group is not None:
        way.group.join()
    with contender.opened(data, place) as client:
        searches = [client(setting) for _ in range(clients)]
        _warm(searches[0], queries, 10 * seconds)
        times = _paced(searches[0], queries, 1, seconds)
        together: list[list[float]] = [[] for _ in searches]

        def ask(n: int) -> None:
            together[n] = _paced(searches[n], queries, n + 2, seconds)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = time.perf_counter() - started
        p50, p95 = np.quantile(times, [0.5, 0.95]) * 1000
        return Pace(
            float(p50), float(p95), _steady(times), sum(map(len, together)) / spent,
            resident(way.server), len(times),
        )  # fmt: skip


def _warm(search: Search, queries: Matrix, seconds: float) -> None:
    """Ask every query once, as far as the time goes: what is read first is not measured."""
    until = time.perf_counter() + seconds
    for query in queries:
        if time.perf_counter() > until:
            return
        search(query)


def _steady(times: Sequence[float]) -> float:
    """Return queries a second: the median of five slices, so that a hiccup decides nothing."""
    return float(statistics.median(len(each) / sum(each) for each in np.array_split(times, 5)))


def _paced(search: Search, queries: Matrix, start: int, seconds: float) -> list[float]:
    """Return the seconds of each of the queries that were asked in so many seconds."""
    times: list[float] = []
    first = start * len(queries) // 7
    until = time.perf_counter() + seconds
    for query in islice(cycle(queries), first, None):
        if len(times) >= _FEWEST and time.perf_counter() > until:
            break
        started = time.perf_counter()
        assert len(search(query)) == K
        times.append(time.perf_counter() - started)
    return times


def resident(server: int | None) -> int:
    """Return the bytes of memory of this process, or of a server; what is shared counts once."""
    process = psutil.Process(server)
    tree = [process, *process.children(recursive=True)] if server is not None else [process]
    total = 0
    for each in tree:
        for line in Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
