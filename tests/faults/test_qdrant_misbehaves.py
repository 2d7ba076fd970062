"""Servers that never come to an end, or say what cannot be: each a named error, in its time."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import grpc as api

import nestvec
from nestvec import BackendError, F, NestvecError, Record, Unavailable

from ..grpc_server import beside
from ..rest_server import Fault, RestServer, running
from ..vectors import nested_vectors, records

ROWS = nested_vectors(60, 8)

#: Seconds that a store has, and that a call may take until it is said that it never ended.
TIME, FAR = 0.5, 8.0


@pytest.fixture
def server() -> Iterator[RestServer]:
    with running() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: RestServer) -> Callable[..., Any]:
    """Call a method of a new store, either way."""

    def blocking(name: str, *args: Any, **settings: Any) -> Any:
        with nestvec.connect(server.url, dims=(2, 4), dim=8, **settings) as store:
            answer = getattr(store, name)(*args)
            return list(answer) if name == "scan" else answer

    async def awaited(name: str, *args: Any, **settings: Any) -> Any:
        async with nestvec.aconnect(server.url, dims=(2, 4), dim=8, **settings) as store:
            answer = getattr(store, name)(*args)
            return [each async for each in answer] if name == "scan" else await answer

    if request.param == "sync":
        return blocking
    return lambda *args, **settings: asyncio.run(awaited(*args, **settings))


def soon(ask: Callable[[], Any]) -> NestvecError:
    """Return the error that something ends with, soon enough."""
    began = time.monotonic()
    with pytest.raises(NestvecError) as caught:
        ask()
    assert time.monotonic() - began < FAR
    return caught.value


def bytewise(text: bytes) -> Callable[[], Iterator[bytes]]:
    """Return what gives a text a byte at a time, and its last one for ever."""
    return lambda: itertools.chain((bytes([b]) for b in text), itertools.repeat(text[-1:]))


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "a body": OK + b"Content-Length: 1000000\r\n\r\n{",
    "a body of unknown length": OK + b"Connection: close\r\n\r\n{",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1",
    "a header": OK + b"X-Long: a",
    "a status line": b"HTTP/1.1 200 O",
}
PACKED = {
    "chunks of it": OK + b"Transfer-Encoding: chunked\r\n\r\n",
    "gzip of it": OK + b"Content-Encoding: gzip\r\n\r\n",
    "deflate of it": OK + b"Content-Encoding: deflate\r\n\r\n",
}
#: What each operation asks first, with what it is called by.
OPERATIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "search": ("points/query", (ROWS[0],)),
    "count": ("points/count", ()),
    "get": ("docs/points", (["1"],)),
    "scan": ("points/scroll", ()),
    "add_records": ("PUT /collections/docs/points", ([Record("1", "t", {}, ROWS[0])],)),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_comes_a_byte_at_a_time_ends(
    server: RestServer, ask: Callable[..., Any], what: str
) -> None:
    fault = Fault("raw", raw=bytewise(ENDLESS[what]), seconds=0.02, of="points/count")
    server.faults += [fault] * 9
    error = soon(lambda: ask("count", timeout=TIME))
    assert isinstance(error, Unavailable), error
    assert f"timeout={TIME:g} s allows no more" in str(error)


def test_answers_that_lead_to_no_answer_end(server: RestServer, ask: Callable[..., Any]) -> None:
    """Any number of 1xx may come before an answer, by whole ones or byte by byte."""
    early = b"HTTP/1.1 102 Processing\r\n\r\n"
    for pieces in (lambda: itertools.repeat(early), lambda: map(bytes, itertools.cycle(
        [[byte] for byte in early]
    ))):  # fmt: skip
        server.faults += [Fault("raw", raw=pieces, seconds=0.02, of="points/count")] * 9
        error = soon(lambda: ask("count", timeout=TIME))
        assert isinstance(error, Unavailable), error
        server.faults.clear()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["drip", "hang"])
def test_every_operation_ends(
    server: RestServer, ask: Callable[..., Any], name: str, kind: str
) -> None:
    of, args = OPERATIONS[name]
    server.faults += [Fault(kind, seconds=60, of=of) for _ in range(9)]
    assert isinstance(soon(lambda: ask(name, *args, timeout=TIME)), Unavailable)


def test_all_tries_and_pauses_have_one_time(server: RestServer, ask: Callable[..., Any]) -> None:
    server.faults += [Fault("status", 503, of="count") for _ in range(99)]
    error = soon(lambda: ask("count", timeout=TIME, retries=99))
    assert f"timeout={TIME:g} s allows no more" in str(error)
    assert 1 < len(server.lines("count")) < 30


def test_all_parts_of_a_batch_have_one_time(server: RestServer, ask: Callable[..., Any]) -> None:
    server.faults += [
        Fault("hang", seconds=60, of="PUT /collections/docs/points") for _ in range(99)
    ]
    error = soon(lambda: ask("add_records", records(ROWS), timeout=TIME, parallel=1))
    assert error.stored == ()
    assert "of a batch of 60 documents 60 may not be stored" in str(error)


def test_a_filter_that_is_read_for_has_one_time(
    server: RestServer, ask: Callable[..., Any]
) -> None:
    """What only the predicate decides is read by pages before the query."""
    ask("add_records", records(ROWS))
    server.faults += [Fault("drip", of="points/scroll") for _ in range(9)]
    assert isinstance(soon(lambda: ask("count", F("tag") > "t3", timeout=TIME)), Unavailable)


def test_connecting_and_resolving_a_name_have_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()
    real = socket.getaddrinfo

    def slow(host: Any, *args: Any, **settings: Any) -> Any:
        if host == "slow.invalid":
            asked.wait(60)
        return real(host, *args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        error = soon(lambda: nestvec.connect("http://slow.invalid:6333", timeout=TIME))
    finally:
        asked.set()
    assert isinstance(error, Unavailable), error


def test_a_name_with_several_addresses_is_tried_at_each(
    server: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    real = socket.getaddrinfo
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.server_port))
        for address in ("127.0.0.2", "127.0.0.1")
    ]

    def told(host: Any, *args: Any, **settings: Any) -> Any:
        return found if host == "two.invalid" else real(host, *args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", told)
    with nestvec.connect(
        f"http://two.invalid:{server.server_port}", dims=(2,), dim=8, timeout=FAR
    ) as store:
        assert store.count() == 0
    found.clear()
    with pytest.raises(Unavailable, match=r"two\.invalid has no address"):
        nestvec.connect(f"http://two.invalid:{port}", timeout=TIME)


# How long to wait


@pytest.mark.parametrize(
    "wait", ["-5", "0", "9" * 400, "9" * 5_000, "1e400", "inf", "nan", "soon", "-" + "9" * 400]
)
def test_no_retry_after_is_followed_for_longer_than_there_is_time(
    server: RestServer, ask: Callable[..., Any], wait: str
) -> None:
    server.faults += [Fault("status", 429, {"Retry-After": wait}, of="count") for _ in range(99)]
    error = soon(lambda: ask("count", timeout=TIME))
    assert isinstance(error, Unavailable), error
    assert len(str(error)) < 1_000


def test_a_retry_after_that_makes_no_sense_is_a_pause_as_any(
    server: RestServer, ask: Callable[..., Any]
) -> None:
    server.faults += [Fault("status", 429, {"Retry-After": "-5"}, of="count")]
    assert ask("count") == 0


# How large an answer is


def large(how: str) -> Iterator[bytes]:
    """Yield an answer that goes on and on, as it is or packed."""
    yield PACKED[how]
    many = b" " * 2**20
    if how == "chunks of it":
        while True:
            yield b"%x\r\n%b\r\n" % (len(many), many)
    packing = zlib.compressobj(9, zlib.DEFLATED, 31 if how.startswith("gzip") else 15)
    while True:
        yield packing.compress(many)


@pytest.mark.parametrize("how", PACKED)
def test_an_answer_is_read_up_to_its_largest_size(
    server: RestServer, ask: Callable[..., Any], how: str
) -> None:
    fault = Fault("raw", raw=lambda: large(how), seconds=0, of="points/count")
    server.faults.append(fault)
    error = soon(lambda: ask("count", max_response_bytes=3_000_000))
    assert not isinstance(error, Unavailable)  # it would be as large again
    assert "more than 3,000,000 bytes" in str(error)
    assert "max_response_bytes" in str(error)
    assert server.faults == []


def test_a_bomb_in_one_piece_is_not_unpacked(server: RestServer, ask: Callable[..., Any]) -> None:
    packed = gzip.compress(bytes(200_000_000), 1)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    server.faults.append(Fault("raw", raw=lambda: [head + packed], seconds=0, of="points/count"))
    assert "more than 100,000 bytes" in str(soon(lambda: ask("count", max_response_bytes=100_000)))


@pytest.mark.parametrize("how", ["gzip", "deflate", "raw deflate", "x-gzip"])
def test_an_answer_may_be_packed(server: RestServer, ask: Callable[..., Any], how: str) -> None:
    told = b'{"result": {"count": 7}, "status": "ok", "time": 0}'
    packing = zlib.compressobj(wbits={"deflate": 15, "raw deflate": -15}.get(how, 31))
    packed = packing.compress(told) + packing.flush()
    head = OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (
        how.removeprefix("raw ").encode(), len(packed)
    )  # fmt: skip
    server.faults.append(Fault("raw", raw=lambda: [head + packed], seconds=0, of="points/count"))
    assert ask("count") == 7
    (seen,) = (seen for seen in server.seen if "count" in seen.line)
    assert seen.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("how", ["br", "zstd", "gzip, gzip"])
def test_an_answer_that_is_packed_otherwise_is_refused(
    server: RestServer, ask: Callable[..., Any], how: str
) -> None:
    server.faults.append(
        Fault("status", 200, {"Content-Encoding": how}, body="{}", of="points/count")
    )
    assert f"packed by {how!r}, which was not asked for" in str(soon(lambda: ask("count")))


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_pages_become_smaller_until_they_fit(server: RestServer, prefer_grpc: bool) -> None:
    long = [Record(str(n), "x" * 10_000, {}, row) for n, row in enumerate(ROWS)]
    with beside(server) as port:
        how: dict[str, Any] = {"prefer_grpc": prefer_grpc, "grpc_port": port}
        how |= {"max_response_bytes": 70_000}
        with nestvec.connect(server.url, dims=(2, 4), dim=8, **how) as store:
            store.add_records(long)
            assert len(list(store.scan(vectors=True))) == 60
            assert len(store.get(range(60))) == 60
            assert store.verify() == {}
            with pytest.raises(BackendError, match="larger max_response_bytes") as caught:
                store.search(ROWS[0], k=60)
            assert not isinstance(caught.value, Unavailable)
            store.add_records([Record("longest", "x" * 100_000, {}, ROWS[0])])
            with pytest.raises(BackendError, match="larger max_response_bytes"):
                list(store.scan())


# What is not the next page


@pytest.mark.parametrize("pages", ["the same", "in turns", "nothing and on", "back"])
def test_a_scroll_that_does_not_advance_ends(
    server: RestServer, ask: Callable[..., Any], pages: str
) -> None:
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
    payload = {"id": "a", "text": "t", "metadata": {}}

    def page(*points: str, then: str) -> str:
        told = [{"id": point, "payload": payload} for point in points]
        result = {"points": told, "next_page_offset": then}
        return json.dumps({"result": result, "status": "ok", "time": 0})

    answers = {
        "the same": [page(ids[0], then=ids[1]), page(ids[1], then=ids[1])],
        "in turns": [page(ids[0], then=ids[2]), page(ids[2], then=ids[1])],
        "nothing and on": [page(then=ids[1])],
        "back": [page(ids[2], then=ids[1])],
    }[pages]
    for answer in [*answers, *answers, *answers]:
        server.faults.append(Fault("status", 200, body=answer, of="points/scroll"))
    assert "scroll: it does not advance" in str(soon(lambda: ask("scan")))


# What has no score


@pytest.mark.parametrize("prefer_grpc", [False, True])
@pytest.mark.parametrize("funnel", ["4:20", "exact"])
def test_what_scores_nan_is_no_hit(server: RestServer, prefer_grpc: bool, funnel: str) -> None:
    """A server writes NaN as null into JSON."""
    with beside(server) as port:
        how: dict[str, Any] = {"prefer_grpc": prefer_grpc, "grpc_port": port}
        with nestvec.connect(server.url, dims=(2, 4), dim=8, **how) as store:
            given = records(ROWS[:10])
            given[3] = Record("3", "t", {"score": None, 'a "score":null': 1}, ROWS[3])
            store.add_records(given)
            server.engine["docs"].nan = {"5"}
            found = store.search(ROWS[3], k=20, funnel=funnel)
            assert {hit.id for hit in found} == {str(n) for n in range(10)} - {"5"}
            assert found[0].metadata == {"score": None, 'a "score":null': 1}
            assert store.search_many([ROWS[3]], k=20, funnel=funnel) == [found]


# Over gRPC


class Silent(api.PointsServicer, api.CollectionsServicer):
    """Never answers."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.ended.wait(60)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("what", ["silent", "no gRPC", "nobody"])
def test_a_call_by_grpc_ends(kind: str, what: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    async def main(**how: Any) -> None:
        async with nestvec.aconnect("http://127.0.0.1:1", prefer_grpc=True, timeout=TIME, **how):
            pass

    silent = Silent()
    served = grpc.server(ThreadPoolExecutor(4))
    api.add_CollectionsServicer_to_server(silent, served)  # type: ignore[no-untyped-call]
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        how = {"silent": port, "no gRPC": listening.getsockname()[1], "nobody": 1}[what]
        if kind == "sync":
            error = soon(
                lambda: nestvec.connect(
                    "http://127.0.0.1:1", prefer_grpc=True, timeout=TIME, grpc_port=how
                )
            )
        else:
            error = soon(lambda: asyncio.run(main(grpc_port=how)))
    silent.ended.set()
    served.stop(None).wait()
    assert isinstance(error, Unavailable), error


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_every_operation_by_grpc_ends(server: RestServer, name: str, kind: str) -> None:
    of, args = OPERATIONS[name]
    called = {"search": "Query", "count": "Count", "get": "Get", "scan": "Scroll"}.get(
        name, "Upsert"
    )
    with beside(server) as port:
        how: dict[str, Any] = {"prefer_grpc": True, "grpc_port": port, "timeout": TIME}

        def blocking() -> None:
            with nestvec.connect(server.url, **how) as store:
                answer = getattr(store, name)(*args)
                _ = list(answer) if name == "scan" else answer

        async def awaited() -> None:
            async with nestvec.aconnect(server.url, **how) as store:
                answer = getattr(store, name)(*args)
                _ = [each async for each in answer] if name == "scan" else await answer

        nestvec.connect(server.url, dims=(2, 4), dim=8, **{**how, "timeout": 60}).close()
        server.faults += [Fault("hang", seconds=60, of=f"grpc {called}") for _ in range(9)]
        error = soon(blocking if kind == "sync" else lambda: asyncio.run(awaited()))
        assert isinstance(error, Unavailable), error
        assert of  # the same operations as over REST
        server.ended.set()


def goaway(listening: socket.socket) -> None:
    """Speak as much HTTP/2 as to take a connection, and to give it up with an error."""

    def frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 0]) + payload

    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.sendall(frame(4, 0) + frame(4, 1))
            taken = 0
            while taken < 150 and (some := connection.recv(65_536)):
                taken += len(some)
            error = (0).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"too_many_pings"
            connection.sendall(frame(7, 0, error))


@pytest.mark.parametrize("verbosity", [None, "INFO"])
def test_grpc_says_nothing_on_stderr(verbosity: str | None) -> None:
    """Unless the user set its verbosity; and the environment is as it was."""
    script = (
        "import os, sys, nestvec\n"
        "before = dict(os.environ)\n"
        "try:\n"
        "    nestvec.connect('http://127.0.0.1:1', prefer_grpc=True, grpc_port=int(sys.argv[1]), "
        "timeout=1)\n"
        "except nestvec.Unavailable as error:\n"
        "    print('refused')\n"
        "assert dict(os.environ) == before\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=goaway, args=(listening,), daemon=True).start()
        own = {} if verbosity is None else {"GRPC_VERBOSITY": verbosity}
        done = subprocess.run(
            [sys.executable, "-c", script, str(listening.getsockname()[1])],
            check=False, capture_output=True, text=True, env={**_environment(), **own}, timeout=60,
        )  # fmt: skip
    assert done.stdout == "refused\n"
    if verbosity is None:
        assert done.stderr == ""
    else:
        assert "GOAWAY" in done.stderr


def _environment() -> dict[str, str]:
    import os

    return {name: v for name, v in os.environ.items() if not name.startswith("GRPC_VERB")}
