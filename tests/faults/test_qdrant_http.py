"""What goes wrong between nestvec and a Qdrant server: refusals, lost answers, silence."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nestvec
from nestvec import (
    BackendError,
    CollectionMismatch,
    ConfigError,
    F,
    FilterError,
    NestvecError,
    Unavailable,
)

from ..rest_server import Fault, RestServer, running
from ..vectors import nested_vectors, records

ROWS = nested_vectors(60, 8)
KEY = "s3cret-key-0123456789"

UPSERT = "PUT /collections/docs/points"


@pytest.fixture
def server() -> Iterator[RestServer]:
    with running() as server:
        yield server


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; they are not waited for."""
    asked: list[float] = []

    async def asleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("nestvec.backends.qdrant_driver.time.sleep", asked.append)
    monkeypatch.setattr("nestvec.backends.qdrant_driver.asyncio.sleep", asleep)
    return asked


def connect(server: RestServer, **settings: Any) -> nestvec.Store:
    return nestvec.connect(server.url, dims=(2, 4), dim=8, **settings)


FAULTS: dict[str, Callable[[], Fault]] = {
    "429 with Retry-After": lambda: Fault("status", 429, {"Retry-After": "1"}),
    "429 with a date": lambda: Fault(
        "status", 429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    ),
    "429": lambda: Fault("status", 429),
    "500": lambda: Fault("status", 500),
    "503 of a proxy": lambda: Fault("status", 503, body="<html>try later</html>"),
    "dropped": lambda: Fault("drop"),
    "answer lost": lambda: Fault("lose"),
    "answer cut off": lambda: Fault("truncate"),
    "answer not JSON": lambda: Fault("garble"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_not_seen(
    server: RestServer, pauses: list[float], fault: str
) -> None:
    """Whatever is hit, nothing is lost and nothing is there twice."""
    with connect(server) as store:
        for of in ("PUT /coll", "points/query", "points/count", "points/scroll", "points/delete"):
            server.faults += [Fault(**{**vars(FAULTS[fault]()), "of": of}) for _ in range(2)]
        assert store.add_records(records(ROWS)) == [str(n) for n in range(60)]
        assert store.count() == 60
        assert len({record.id for record in store.scan()}) == 60
        assert len(store.search(ROWS[0], k=10)) == 10
        assert store.delete(ids=["1", "2"]) == 2
    assert server.faults == []
    assert len(pauses) == 10


def test_a_fault_that_passes_is_not_seen_by_tasks(server: RestServer, pauses: list[float]) -> None:
    async def main() -> None:
        async with await nestvec.aconnect(server.url, dims=(2, 4), dim=8) as store:
            server.faults += [fault() for fault in FAULTS.values()]
            await store.add_records(records(ROWS))
            assert await store.count() == 60

    asyncio.run(main())
    assert server.faults == []
    assert len(pauses) == len(FAULTS)


def test_pauses_grow_and_are_uneven(server: RestServer, pauses: list[float]) -> None:
    with connect(server) as store:
        server.faults += [Fault("status", 500) for _ in range(5)]
        store.count()
    for n, pause in enumerate(pauses):
        assert 0.1 * 2**n <= pause <= 0.2 * 2**n
    server.faults += [Fault("status", 500, of="count") for _ in range(10)]
    first = list(pauses)
    with nestvec.connect(server.url) as store, pytest.raises(Unavailable):
        store.count()
    assert first != pauses[5:]


def test_the_server_says_how_long_to_wait(server: RestServer, pauses: list[float]) -> None:
    with connect(server) as store:
        server.faults.append(Fault("status", 429, {"Retry-After": "7"}))
        store.count()
        assert 7 <= pauses[0] <= 7.1
        server.faults.append(Fault("status", 429, {"Retry-After": "3600"}))
        with pytest.raises(Unavailable, match=r"asks to wait 3600 s"):
            store.count()
    assert len(pauses) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_unavailable(
    server: RestServer, pauses: list[float], fault: str
) -> None:
    with connect(server, retries=2) as store:
        server.faults += [FAULTS[fault]() for _ in range(3)]
        with pytest.raises(Unavailable, match=rf"{server.url}: count: .*\(tried 3 times") as caught:
            store.count()
        assert isinstance(caught.value, ConnectionError)
        assert store.count() == 0
    assert len(pauses) == 2


def test_a_server_that_hangs_is_left_after_the_timeout(
    server: RestServer, pauses: list[float]
) -> None:
    with connect(server, timeout=0.5, retries=1) as store:
        server.faults += [Fault("hang", seconds=1) for _ in range(2)]
        with pytest.raises(Unavailable, match=r"\(tried once; timeout=0.5 s allows no more\)"):
            store.count()
    assert pauses == []


def test_no_server_is_unavailable(pauses: list[float]) -> None:
    with running() as server:
        url = server.url
    with pytest.raises(Unavailable, match=r"get_collection: no answer \(ConnectError"):
        nestvec.connect(url, dims=(2,), dim=8, retries=1)


def test_what_will_not_pass_is_not_tried_again(server: RestServer, pauses: list[float]) -> None:
    with connect(server) as store:
        for status, words in ((400, "the reason"), (401, "check api_key"), (403, "QDRANT_API_KEY")):
            server.faults.append(Fault("status", status))
            with pytest.raises(BackendError, match=words) as caught:
                store.count()
            assert not isinstance(caught.value, Unavailable)
            assert caught.value.__cause__ is not None
    assert pauses == []


def test_a_batch_that_fails_part_way_is_reported_by_id(
    server: RestServer, pauses: list[float]
) -> None:
    with connect(server, batch_size=20, retries=0, parallel=2) as store:
        store.add_records(records(ROWS[:20]))
        server.faults.append(Fault("status", 500, of=UPSERT))
        with pytest.raises(Unavailable, match=r"of a batch of 20 documents 10 may not") as caught:
            store.add_records(records(ROWS))
        stored = set(caught.value.stored)
        assert len(stored) == 10
        rest = {record.id for record in store.scan()} - stored
        assert rest <= {str(n) for n in range(20)}
        assert store.verify() == {}


def test_a_collection_whose_creation_is_not_answered_is_made_once(
    server: RestServer, pauses: list[float]
) -> None:
    server.faults.append(Fault("lose", of="PUT /collections/docs"))
    with connect(server) as store:
        assert store.count() == 0
    assert server.lines("PUT /collections/docs") == ["PUT /collections/docs"]


def test_a_collection_that_another_made_meanwhile_is_opened_if_it_is_the_same(
    server: RestServer, pauses: list[float]
) -> None:
    with connect(server):
        pass
    told = json.dumps({"status": {"error": "Not found: Collection `docs` doesn't exist!"}})
    missing = Fault("status", 404, body=told)
    server.faults.append(missing)
    with connect(server) as store:
        assert store.count() == 0
    server.faults.append(missing)
    with pytest.raises(CollectionMismatch, match="asked for dims 3 of 8"):
        nestvec.connect(server.url, dims=(3,), dim=8)


def test_an_answer_to_a_write_without_a_result_is_no_answer(
    server: RestServer, pauses: list[float]
) -> None:
    with connect(server, retries=1, parallel=1) as store:
        server.faults += [Fault("status", 200, body='{"status": "ok"}', of=UPSERT)] * 2
        with pytest.raises(Unavailable, match="upsert_points: the answer is not one of Qdrant's"):
            store.add_records(records(ROWS))
    assert len(pauses) == 1


@pytest.mark.parametrize("status", ["acknowledged", "wait_timeout"])
def test_a_write_that_is_not_applied_yet_is_sent_again(
    server: RestServer, pauses: list[float], status: str
) -> None:
    body = f'{{"result": {{"operation_id": 1, "status": "{status}"}}, "status": "ok", "time": 0}}'
    with connect(server, retries=1, parallel=1) as store:
        server.faults.append(Fault("status", 200, body=body, of=UPSERT))
        store.add_records(records(ROWS))
        assert store.count() == 60
        server.faults += [Fault("status", 200, body=body, of=UPSERT) for _ in range(2)]
        with pytest.raises(Unavailable, match=f"the write is {status}, but not applied yet"):
            store.add_records(records(ROWS))
    assert len(pauses) == 2


UNINDEXED = 'Index required but not found for "metadata.n"'
TYPED = f"Bad request: {UNINDEXED} of one of the following types: [integer, float]. Help: Make it."


@pytest.mark.parametrize(
    ("status", "told", "error", "words"),
    [
        (403, f"Strict mode error: {UNINDEXED}", FilterError, r'index_metadata\("n", "str"\)'),
        (400, TYPED, FilterError, r"key 'n' .*store\.index_metadata\(\"n\", \"number\"\)"),
        (413, "Payload too large", BackendError, "max_request_size_mb"),
    ],
)
def test_a_refusal_says_what_to_do(
    server: RestServer,
    pauses: list[float],
    status: int,
    told: str,
    error: type[NestvecError],
    words: str,
) -> None:
    with connect(server) as store:
        body = json.dumps({"status": {"error": told}, "time": 0})
        server.faults.append(Fault("status", status, body=body, of="count"))
        with pytest.raises(error, match=words) as caught:
            store.count(F("n") == 1)
    assert "api_key" not in str(caught.value)
    assert pauses == []


def test_a_shard_key_whose_making_is_not_answered_is_there(
    server: RestServer, pauses: list[float]
) -> None:
    server.faults.append(Fault("lose", of="/shards"))
    with connect(server, shard_key="eu") as store:
        store.add_records(records(ROWS))
        assert store.count() == 60
    assert server.engine["docs"].shard_keys == ["eu"]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_batch_ends_before_its_error_is_raised(
    server: RestServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch, colour: str
) -> None:
    """A defect of our own in one part leaves no other part under way by itself."""
    from nestvec.backends import qdrant_wire

    body, made = qdrant_wire.body, []

    def defective(batch: Any, payloads: Any, part: slice, *how: Any) -> Any:
        if part.start == 0:
            raise ZeroDivisionError
        made.append(part)
        return body(batch, payloads, part, *how)

    async def add() -> None:
        async with await nestvec.aconnect(server.url) as store:
            with pytest.raises(ZeroDivisionError):
                await store.add_records(records(ROWS))

    with connect(server) as store:
        monkeypatch.setattr(qdrant_wire, "body", defective)
        if colour == "async":
            asyncio.run(add())
        else:
            with pytest.raises(ZeroDivisionError):
                store.add_records(records(ROWS))
        # Parts that were not begun may be left, those that were begun have ended.
        assert len(server.lines(UPSERT)) == len(made) <= 3


# Secrets


def texts_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error.args)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_key_is_sent_and_never_shown(
    server: RestServer,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    colour: str,
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    echo = f'{{"status": {{"error": "key {KEY} is not known"}}, "time": 0}}'
    texts: list[str] = []

    async def ask_async() -> None:
        async with await nestvec.aconnect(server.url, dims=(2, 4), dim=8, retries=0) as store:
            texts.append(repr(store) + repr(vars(store)))
            for fault in faults:
                server.faults.append(fault)
                with pytest.raises(NestvecError) as caught:
                    await store.count()
                texts.append(texts_of(caught.value))

    def ask() -> None:
        with connect(server, retries=0) as store:
            texts.append(repr(store) + repr(vars(store)))
            for fault in faults:
                server.faults.append(fault)
                with pytest.raises(NestvecError) as caught:
                    store.count()
                texts.append(texts_of(caught.value))

    faults = [
        *(Fault("status", status, body=echo) for status in (400, 401, 500)),
        Fault("status", 429, {"Retry-After": "1"}, body=echo),
        Fault("drop"),
        Fault("garble"),
    ]
    if colour == "sync":
        ask()
    else:
        asyncio.run(ask_async())
    assert {seen.headers["api-key"] for seen in server.seen} == {KEY}
    assert KEY not in "".join(texts) + caplog.text


def test_the_key_is_not_in_an_option_or_its_error() -> None:
    from nestvec.backends.qdrant import QdrantBackend, QdrantOptions

    options = QdrantOptions(api_key=KEY)
    assert KEY not in repr(options)
    backend = QdrantBackend("https://cloud.example:6333", "docs", options)
    assert KEY not in repr(backend) + repr(backend._driver)
    for url in (f"https://user:{KEY}@host", f"https://host/?api-key={KEY}", f"https://h#{KEY}"):
        with pytest.raises(ConfigError, match="a key goes into api_key") as caught:
            nestvec.connect(url)
        assert KEY not in texts_of(caught.value)
    with pytest.raises(ConfigError) as caught:
        nestvec.connect("http://localhost:6333", api_key=KEY, colour="blue")
    assert KEY not in texts_of(caught.value)


def test_a_key_in_the_clear_is_warned_of_but_not_on_this_machine() -> None:
    from nestvec.backends.qdrant import QdrantBackend, QdrantOptions

    with pytest.warns(UserWarning, match="unencrypted; use https") as caught:
        QdrantBackend("http://qdrant.example:6333", "docs", QdrantOptions(api_key=KEY))
    assert KEY not in str(caught[0].message)
    for url in ("http://localhost:6333", "http://127.0.0.1", "http://[::1]:6333"):
        QdrantBackend(url, "docs", QdrantOptions(api_key=KEY))
