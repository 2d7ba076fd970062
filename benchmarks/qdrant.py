"""nestvec's requests to Qdrant beside qdrant-client's own, with no server's work in between.

    python benchmarks/qdrant.py [--points 5000]

What is measured: building the request of a three-stage query with a filter (less than 200 µs), and
the pipeline of an ingest against a server that reads and forgets (at least 0.9 of the speed of
`upload_points`, whose points are ready made: vectors cut, made unit length and put into lists
before the clock starts, while nestvec starts from full vectors). Everything is one run, rounds are
interleaved, and a ratio is the median of the rounds' own. Seconds of this process's CPU are beside
those of the clock: they say the same on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

import nestvec
from nestvec import F, Nesting, Record, nest
from nestvec.backends.base import Head
from nestvec.backends.points import payload, point_id
from nestvec.backends.qdrant import QdrantBackend, QdrantOptions
from nestvec.collection import Collection
from nestvec.funnel import plan
from nestvec.opening import Place

NESTING = Nesting.of((64, 256), 1024)
ROUNDS = 11

_ANSWER = b'{"result": {"operation_id": 0, "status": "completed"}, "status": "ok", "time": 0.0}'


def forget(port: Any) -> None:
    """Serve: read every request to its end and say that it is done."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port.send(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        Thread(target=_forget, args=(connection,), daemon=True).start()


def _forget(connection: socket.socket) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
    buffer, seen = bytearray(1 << 20), b""
    with connection:
        while True:
            while b"\r\n\r\n" not in seen:
                got = connection.recv_into(buffer)
                if not got:
                    return
                seen += buffer[:got]
            head, _, body = seen.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            left, seen = length - len(body), b""
            while left > 0:
                left -= connection.recv_into(buffer)
            connection.sendall(answer)


def open_store(url: str) -> nestvec.Store:
    """Return a store on a collection that nobody made: a server that forgets has none."""
    backend = QdrantBackend(url, "docs", QdrantOptions())
    backend._write_as(NESTING)  # noqa: SLF001
    return nestvec.Store(
        Collection(backend, Head(NESTING), None, 512), Place(url, "docs", None, None, 512, {})
    )


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the clock and of the CPU that work takes."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def query_microseconds() -> float:
    backend = QdrantBackend("http://localhost:6333", "docs", QdrantOptions())
    queries = {name: rows[0] for name, rows in nest(np.ones((1, 1024)), NESTING).items()}
    steps = plan("64:400 256:100", NESTING, 10)
    where = (F("year") >= 2020) & F("lang").in_(["en", "de"])

    def build() -> None:
        for _ in range(200):
            next(backend.search(queries, steps, where))

    build()
    return statistics.median(timed(build)[1] for _ in range(21)) / 200 * 1e6


def ingest(url: str, n: int) -> dict[str, list[tuple[float, float]]]:
    rows = np.random.default_rng(0).standard_normal((n, 1024)).astype(np.float32)
    metadata = {"year": 2026, "lang": "en", "tags": ["a", "b"]}
    ids, text = [f"document {i}" for i in range(n)], "some text " * 20
    records = [Record(id, text, metadata, row) for id, row in zip(ids, rows, strict=True)]
    columns = {name: matrix.tolist() for name, matrix in nest(rows, NESTING).items()}
    points = [
        models.PointStruct(
            id=str(point_id(id)), vector=dict(zip(columns, each, strict=True)),
            payload=payload(id, text, metadata),
        )
        for id, each in zip(ids, zip(*columns.values(), strict=True), strict=True)
    ]  # fmt: skip
    store = open_store(url)
    client = QdrantClient(url=url, check_compatibility=False, timeout=60)
    work: dict[str, Callable[[], Any]] = {
        "nestvec": lambda: store.add_records(records),
        "upload_points": lambda: client.upload_points("docs", points, wait=True),
        "upload_points, 512 a request": lambda: client.upload_points(
            "docs", points, batch_size=512, wait=True
        ),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            seconds[name].append(timed(run))
    store.close()
    client.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=5_000)
    n = parser.parse_args().points
    print(
        f"a three-stage query with a filter: {query_microseconds():.0f} µs of CPU (less than 200)"
    )
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=forget, args=(there,), daemon=True)
    server.start()
    seconds = ingest(f"http://127.0.0.1:{here.recv()}", n)
    server.terminate()
    print(f"{n} points of 64 + 256 + 1024 numbers, median of {ROUNDS} rounds:")
    for name, each in seconds.items():
        clock, cpu = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"  {name:30} {n / clock:7.0f} points/s, {cpu / n * 1e6:5.0f} µs of CPU a point")
    for name in [*seconds][1:]:
        rounds = zip(seconds[name], seconds["nestvec"], strict=True)
        ratios = [[a / b for a, b in zip(theirs, ours, strict=True)] for theirs, ours in rounds]
        clock, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"  nestvec at {clock:.2f} of {name}, {cpu:.2f} by CPU")
    print("the ratio to upload_points is at least 0.9")


if __name__ == "__main__":
    main()
