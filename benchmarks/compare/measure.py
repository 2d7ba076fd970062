"""Choosing settings and measuring with them, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from nestvec.nesting import Matrix

from .contenders import Contender, Search, Setting
from .limits import Group
from .vectors import Data, K

__all__ = ["Chosen", "Pace", "Way", "apart", "choose", "load", "measure"]

Some = TypeVar("Some")

#: A setting is given up after so many queries when it finds so much less than the target.
_FIRST, _MISSED = 100, 0.02

#: Queries of which each client has its own share, from another place in the list.
_FEWEST = 30


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


def load(contender: Contender, data: Data, place: str, sample: int) -> dict[str, Any]:
    return asdict(contender.load(data, place, sample))


def choose(contender: Contender, data: Data, place: str, target: float, budget: float) -> Chosen:
    """Try each ladder of settings up to its first that reaches the target; take the fastest.

    After `budget` seconds the ladders that are left are not tried.
    """
    until = time.perf_counter() + budget
    queries, truth = data.queries, data.truth
    reached: list[tuple[float, float, Setting]] = []
    missed: list[tuple[float, Setting]] = [(-1.0, {})]
    tried = 0
    with contender.opened(data, place) as client:
        for ladder in contender.ladders(data.dim):
            if time.perf_counter() > until and (reached or len(missed) > 1):
                break
            for setting in ladder:
                tried += 1
                search = client(setting)
                if tried == 1:
                    _asked(search, queries[:_FIRST], truth)  # what is read for the first time
                recall, first = _asked(search, queries[:_FIRST], truth)
                if recall < target - _MISSED:
                    missed.append((recall, setting))
                    continue
                if reached and first > 1.5 * min(reached)[0]:
                    break  # wider ones are slower yet
                recall, p50 = _asked(search, queries, truth)
                if recall >= target:
                    reached.append((p50, recall, setting))
                    break
                missed.append((recall, setting))
    if not reached:
        recall, setting = max(missed, key=lambda each: each[0])
        return Chosen(setting, recall, reached=False, tried=tried)
    reached.sort(key=lambda each: each[0])
    others = [{"p50": p50, "recall": recall, **setting} for p50, recall, setting in reached[1:6]]
    return Chosen(reached[0][2], reached[0][1], reached=True, tried=tried, others=others)


def _asked(search: Search, queries: Matrix, truth: Sequence[set[str]]) -> tuple[float, float]:
    """Return the mean recall of the best K, and the median of milliseconds."""
    found, times = 0, []
    for query, best in zip(queries, truth, strict=False):
        started = time.perf_counter()
        ids = search(query)
        times.append(time.perf_counter() - started)
        found += len(best.intersection(ids))
    return found / K / len(queries), statistics.median(times) * 1000


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
        _paced(searches[0], queries, 0, seconds / 2)  # what is read for the first time
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
            float(p50), float(p95), len(times) / sum(times), sum(map(len, together)) / spent,
            resident(way.server), len(times),
        )  # fmt: skip


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
