"""A process that forks while a store of its own is used, and says what its children had to say.

Usage: python -m tests.faults.fork_parent URL KIND, where KIND is sync or async
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import nestvec
from nestvec import F, NestvecError, Record

ROWS = np.random.default_rng(3).standard_normal((60, 8)).astype(np.float32)


class Used:
    """A store of either kind, behind blocking calls."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def call(self, name: str, *args: Any, **settings: Any) -> Any:
        made = getattr(self.store, name)(*args, **settings)
        return asyncio.run(made) if asyncio.iscoroutine(made) else made


def attempts(used: Used, n: int) -> dict[str, Any]:
    """Return what each operation gives in a child: an error's name, or a value."""
    told: dict[str, Any] = {"n": n}

    def attempt(name: str, *args: Any, **settings: Any) -> Any:
        try:
            told[name] = used.call(name, *args, **settings)
        except NestvecError as error:
            told[name] = f"{type(error).__name__}: {error}"

    attempt("search", ROWS[n], 1, where=F("n") == n)
    if isinstance(told["search"], list):
        told["search"] = [hit.id for hit in told["search"]]
    attempt("add_records", [Record(f"child{n}", "", {"n": -1}, ROWS[n])])
    attempt("count", where=F("n") < 50)
    attempt("delete", ids=[f"child{n}"])
    return told


def close(used: Used) -> None:
    used.call("close")


def drop(used: Used) -> None:
    with suppress(NestvecError):
        used.call("drop")


def forget(used: Used) -> None:
    used.store = None
    gc.collect()


def leave(_: Used) -> None:
    sys.exit()


def fail(_: Used) -> None:
    raise SystemExit(1)


#: What children do in the end, after their attempts; then each runs what runs at exit, or not.
ENDS: list[tuple[Callable[[Used], None], bool]] = [
    (end, at_exit) for end in (close, drop, forget, leave, fail) for at_exit in (True, False)
]


def child(used: Used, n: int, end: Callable[[Used], None], out: int, *, at_exit: bool) -> None:
    os.write(out, json.dumps(attempts(used, n)).encode() + b"\n")
    try:
        end(used)
    finally:
        if not at_exit:
            os._exit(0)
    sys.exit()


def forked(used: Used, n: int) -> dict[str, Any]:
    """Fork a child in the n-th way; return what it had to say."""
    end, at_exit = ENDS[n % len(ENDS)]
    inward, outward = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(inward)
        child(used, n, end, outward, at_exit=at_exit)
    os.close(outward)
    with os.fdopen(inward) as told:
        said = told.read()
    os.waitpid(pid, 0)
    made: dict[str, Any] = json.loads(said)
    return made


def in_a_pool(used: Used) -> list[dict[str, Any]]:
    """Return what children of multiprocessing had to say."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=lambda n=n: queue.put(attempts(used, n))) for n in range(2)]
    for each in children:
        each.start()
    said = [queue.get() for _ in children]
    for each in children:
        each.join()
    return said


def busy(used: Used, stop: threading.Event) -> None:
    """Hold the store's locks as often as can be."""
    n = 0
    while not stop.is_set():
        used.store.add_records([Record(f"busy{n % 5}", "", {"n": 99}, ROWS[50 + n % 5])])
        used.store.search(ROWS[n % 50], 3)
        n += 1


def main(url: str, kind: str) -> None:
    store = nestvec.connect(url, dims=(2, 4), dim=8)
    store.add_records(Record(f"id{n}", "", {"n": n}, row) for n, row in enumerate(ROWS[:50]))
    used = Used(store if kind == "sync" else store.as_async())
    said = []
    stop = threading.Event()
    worker = threading.Thread(target=busy, args=(Used(store), stop))
    worker.start()
    try:
        said = [forked(used, n) for n in range(2 * len(ENDS))]
        said += in_a_pool(used)
    finally:
        stop.set()
        worker.join()
    told = {
        "said": said,
        "count": store.count(where=F("n") < 50),
        "found": [store.search(row, 1)[0].id for row in ROWS[:50]],
        "wrong": store.verify(),
    }
    Path(sys.argv[3]).write_text(json.dumps(told))
    sys.stdin.read()  # so that another process may see whether the collection is open still
    store.add_records([Record("last", "", {"n": 1}, ROWS[0])])
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
