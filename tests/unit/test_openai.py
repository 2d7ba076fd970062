"""OpenAIEmbedder against a real server: batches, retries, refusals, keys, and both colours."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import ConfigError, EmbedderError
from nestvec.embedders import resolve
from nestvec.embedders.openai import OpenAIEmbedder

from ..openai_server import WIDTH, OpenAIServer, running, vector

KEY = "sk-proj-verysecret0123456789"
TEXTS = [f"text number {n}" for n in range(10)]

#: What `made` has made, for its connections are closed before the server goes.
EMBEDDERS: list[OpenAIEmbedder] = []


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with running() as server:
        yield server
        for embedder in EMBEDDERS:
            embedder.close()
        EMBEDDERS.clear()


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[[OpenAIEmbedder, list[str]], Any]:
    """Embed documents in either colour."""

    async def wait(embedder: OpenAIEmbedder, texts: list[str]) -> Any:
        try:
            return await embedder.aembed_documents(texts)
        finally:
            await embedder.aclose()

    def awaited(embedder: OpenAIEmbedder, texts: list[str]) -> Any:
        return asyncio.run(wait(embedder, texts))

    def blocking(embedder: OpenAIEmbedder, texts: list[str]) -> Any:
        try:
            return embedder.embed_documents(texts)
        finally:
            embedder.close()

    return awaited if request.param == "async" else blocking


def made(server: OpenAIServer, model: str = "any", **options: Any) -> OpenAIEmbedder:
    embedder = OpenAIEmbedder(model, base_url=server.url, **{"retries": 2, **options})
    EMBEDDERS.append(embedder)
    return embedder


def expected(texts: list[str]) -> Any:
    return np.stack([vector(text) for text in texts])


def test_vectors_come_in_the_order_of_the_texts(server: OpenAIServer, embed: Any) -> None:
    rows = embed(made(server, batch_size=3), TEXTS)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, expected(TEXTS))
    assert sorted(server.sizes) == [1, 3, 3, 3]
    assert embed(made(server), []).shape[0] == 0
    # The full vector, once: no length is asked for.
    assert all("dimensions" not in seen.body for seen in server.seen)


@pytest.mark.parametrize("floats", [False, True])
def test_numbers_as_text_and_as_bytes(server: OpenAIServer, floats: bool) -> None:
    embedder = made(server, floats=floats)
    assert np.array_equal(embedder.embed_documents(TEXTS), expected(TEXTS))
    assert server.seen[0].body["encoding_format"] == ("float" if floats else "base64")
    embedder.close()


def test_vectors_out_of_order_and_without_numbers(server: OpenAIServer, embed: Any) -> None:
    def backwards(said: dict[str, Any]) -> dict[str, Any]:
        return {**said, "data": said["data"][::-1]}

    def unnumbered(said: dict[str, Any]) -> dict[str, Any]:
        return {**said, "data": [{"embedding": item["embedding"]} for item in said["data"]]}

    for change in (backwards, unnumbered):
        server.faults.append(change)
        assert np.array_equal(embed(made(server), TEXTS), expected(TEXTS))


def test_a_request_has_so_many_texts_and_tokens_at_most(server: OpenAIServer) -> None:
    with nestvec.connect("memory:", dims=(4,), embedder=made(server, batch_tokens=19)) as store:
        store.add(["four", "and twenty blackbirds baked in a pie", "a", "b", "c"])
        assert store.count() == 5
    assert sorted(server.sizes[1:]) == [1, 1, 3]  # the first learns the width
    server.seen.clear()
    made(server, batch_size=2).embed_documents(TEXTS)
    assert server.sizes == [2] * 5


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_endpoint_that_takes_less_is_given_less(
    server: OpenAIServer, embed: Any, status: int
) -> None:
    server.most_texts, server.too_much = 8, status
    texts = [f"text {n}" for n in range(100)]
    embedder = made(server, batch_size=64)
    assert np.array_equal(embed(embedder, texts), expected(texts))
    server.seen.clear()
    assert np.array_equal(embed(embedder, texts), expected(texts))
    assert max(server.sizes) <= 8  # it was learnt


def test_one_text_too_long_is_named(server: OpenAIServer, embed: Any) -> None:
    server.most_characters = 40
    texts = [*TEXTS, "long " * 20, *TEXTS]
    with pytest.raises(EmbedderError, match=r"text 11 of 21, of 100 characters: .*context length"):
        embed(made(server), texts)
    with nestvec.connect("memory:", dims=(4,), embedder=made(server)) as store:
        with pytest.raises(EmbedderError, match="text 11 of 21"):
            store.add(texts)
        assert store.count() == 0


def test_what_no_text_is_taken_for_is_told_soon(server: OpenAIServer, embed: Any) -> None:
    server.most_texts = 0
    texts = [f"text {n}" for n in range(256)]
    with pytest.raises(EmbedderError, match="text 1 of 256"):
        embed(made(server, batch_size=128), texts)
    assert len(server.seen) <= 12


def test_limits_and_server_errors_are_tried_again(server: OpenAIServer, embed: Any) -> None:
    limit = (429, {"retry-after": "0.3"}, {"error": {"message": "slow down"}})
    server.faults = [limit, (500, {"retry-after-ms": "50"}, {"error": {"message": "oops"}})]
    assert np.array_equal(embed(made(server), TEXTS), expected(TEXTS))
    times = [seen.at for seen in server.seen]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.28  # as late as the server said
    server.faults = [(503, {"retry-after-ms": "10"}, "busy")] * 3
    with pytest.raises(EmbedderError, match=r"openai:any@http.*503.*tried 3 times"):
        embed(made(server), TEXTS)


def test_a_time_out_is_tried_again_and_told(server: OpenAIServer, embed: Any) -> None:
    server.faults = [None]
    assert np.array_equal(embed(made(server, timeout=0.3), TEXTS), expected(TEXTS))
    server.faults = [None, None]
    with pytest.raises(EmbedderError, match=r"timed out.*tried 2 times"):
        embed(made(server, timeout=0.3, retries=1), TEXTS)


def test_nobody_there(embed: Any) -> None:
    embedder = OpenAIEmbedder("any", base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(EmbedderError, match=r"127\.0\.0\.1:9/v1: Connection error.*tried 1 times"):
        embed(embedder, TEXTS)


def change(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda said: {**said, **values}


def item(said: dict[str, Any], n: int, **values: Any) -> dict[str, Any]:
    data = [{**entry, **(values if i == n else {})} for i, entry in enumerate(said["data"])]
    return {**said, "data": data}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda said: {**said, "data": said["data"][:7]}, "gave 7 vectors for 10 texts"),
        (lambda said: item(said, 3, embedding=[1.0, 2.0]), "gave 2 numbers for text 4 of 10"),
        (lambda said: item(said, 3, embedding=[]), "gave no vector of numbers for text 4 of 10"),
        (lambda said: item(said, 3, embedding=None), "no vector of numbers for text 4 of 10"),
        (lambda said: item(said, 3, index=5), "numbered its 10 vectors wrongly"),
        (change(data=[]), "."),
        (change(data=None), "."),
        (lambda _: "<html>a proxy's page</html>", "."),
        (lambda _: "", "."),
        (lambda _: "[]", "."),
        ((404, {}, {"error": {"message": "no such model"}}), "no such model.*the model there.*/v1"),
    ],
)
def test_an_answer_that_cannot_be_right(
    server: OpenAIServer, embed: Any, fault: Any, told: str
) -> None:
    server.faults = [fault]
    with pytest.raises(EmbedderError, match=told):
        embed(made(server, retries=0), TEXTS)


def test_nan_is_blamed_on_the_record(server: OpenAIServer) -> None:
    embedder = made(server, dim=WIDTH, floats=True)
    with nestvec.connect("memory:", dims=(4,), embedder=embedder) as store:
        server.faults = [lambda said: item(said, 1, embedding=[float("nan")] * WIDTH)]
        with pytest.raises(EmbedderError, match=r"openai:any@.*record 'b': vector has NaN"):
            store.add(["x", "y"], ids=["a", "b"])
        assert store.count() == 0
    embedder = made(server, dim=7)
    with pytest.raises(EmbedderError, match="gave 24 numbers for text 1 of 1, expected 7"):
        embedder.embed_query("x")


def test_so_many_requests_at_once(server: OpenAIServer, embed: Any) -> None:
    server.pause = 0.05
    embed(made(server, batch_size=1, concurrency=3), TEXTS)
    assert server.busiest == 3


def test_an_error_stops_what_has_not_been_sent(server: OpenAIServer, embed: Any) -> None:
    server.pause = 0.02
    server.faults = [(401, {}, {"error": {"message": "no"}})] * 50
    with pytest.raises(EmbedderError, match="refused the key"):
        embed(made(server, batch_size=1, concurrency=2), TEXTS)
    assert len(server.seen) < 8


# Prompts


def test_prompts_and_options_are_those_of_the_profile(server: OpenAIServer) -> None:
    gemma = made(server, "embeddinggemma")
    gemma.embed_query("a")
    gemma.embed_documents(["a"])
    assert [seen.body["input"] for seen in server.seen] == [
        ["task: search result | query: a"],
        ["title: none | text: a"],
    ]
    server.seen.clear()
    voyage = made(server, "voyage-3.5")
    assert voyage.embed_query("a").shape == (2048,)
    voyage.embed_documents(["a"])
    assert [seen.body["input_type"] for seen in server.seen] == ["query", "document"]
    assert [seen.body["output_dimension"] for seen in server.seen] == [2048, 2048]
    assert [seen.body["input"] for seen in server.seen] == [["a"], ["a"]]
    server.seen.clear()
    own = made(server, "embeddinggemma", query_prompt="q: ", document_prompt="",
               query_options={"task": "x"})  # fmt: skip
    own.embed_query("a")
    own.embed_documents(["a"])
    assert [seen.body["input"] for seen in server.seen] == [["q: a"], ["a"]]
    assert server.seen[0].body["task"] == "x"


def test_layer_norm_comes_before_the_prefix(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nestvec.embedders import profiles

    monkeypatch.setitem(
        profiles._BY_NAME, "small",
        profiles.Profile("small", WIDTH, "here", trained=(WIDTH, 8), layer_norm=True),
    )  # fmt: skip
    rows = made(server, "small").embed_documents(TEXTS)
    raw = expected(TEXTS)
    centred = raw - raw.mean(axis=1, keepdims=True)
    assert rows == pytest.approx(centred / raw.std(axis=1, keepdims=True), abs=1e-4)


# Keys


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "NESTVEC_API_KEY_127_0_0_1"):
        monkeypatch.delenv(name, raising=False)


def test_no_key_goes_where_it_does_not_belong(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made(server).embed_query("a")
    assert KEY not in json.dumps(server.seen[-1].headers)
    monkeypatch.setenv("NESTVEC_API_KEY_127_0_0_1", "of-this-host")
    made(server).embed_query("a")
    assert server.seen[-1].headers["Authorization"] == "Bearer of-this-host"
    monkeypatch.setenv("MINE", "named")
    made(server, key_variable="MINE").embed_query("a")
    assert server.seen[-1].headers["Authorization"] == "Bearer named"
    # As the official client has it: the user has said that this endpoint stands for OpenAI.
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    standing_for = OpenAIEmbedder("any")
    standing_for.embed_query("a")
    standing_for.close()
    assert server.seen[-1].headers["Authorization"] == f"Bearer {KEY}"


def test_a_missing_or_refused_key_is_named_by_its_variable(
    server: OpenAIServer, embed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EmbedderError, match="needs a key: set OPENAI_API_KEY"):
        embed(OpenAIEmbedder("text-embedding-3-small"), ["a"])
    with pytest.raises(EmbedderError, match="needs a key: set MINE"):
        embed(made(server, key_variable="MINE"), ["a"])
    refusal = {"error": {"message": f"Incorrect API key provided: {KEY[:8]}***{KEY[-4:]}"}}
    server.faults = [(401, {}, refusal)] * 2
    with pytest.raises(
        EmbedderError, match=r"\(401\).*NESTVEC_API_KEY_127_0_0_1, which is not set"
    ):
        embed(made(server), ["a"])
    monkeypatch.setenv("NESTVEC_API_KEY_127_0_0_1", KEY)
    with pytest.raises(EmbedderError) as caught:
        embed(made(server), ["a"])
    assert KEY[-4:] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_is_never_shown(
    server: OpenAIServer, embed: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("NESTVEC_API_KEY_127_0_0_1", KEY)
    embedder = made(server, retries=0)
    echoed = {"error": {"message": f"what is {KEY}?"}}
    for status in (400, 404, 418, 500):
        server.faults = [(status, {}, echoed)]
        with pytest.raises(EmbedderError) as caught:
            embed(embedder, ["a"])
        assert KEY not in f"{caught.value} {caught.value.__cause__}"
        assert "what is ***?" in str(caught.value)
    assert KEY not in f"{embedder!r} {embedder.name} {vars(embedder)}"
    with nestvec.connect("memory:", dims=(4,), embedder=embedder) as store:
        assert KEY not in f"{store!r} {store.info()}"
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://me:secret@host/v1", "http://secret@host/v1", "https://host/v1?key=secret"]
)
def test_a_url_that_carries_a_secret_is_refused(url: str) -> None:
    with pytest.raises(EmbedderError, match="read from the environment") as caught:
        resolve(f"openai:any@{url}")
    assert "secret" not in str(caught.value)


# Names and options


def test_a_spec_string_opens_a_collection_again(server: OpenAIServer, tmp_path: Any) -> None:
    url, spec = f"edge:{tmp_path / 'papers'}", f"openai:any@{server.url}"
    with nestvec.connect(url, dims=(8,), embedder=spec) as store:
        store.add(TEXTS)
        assert store.info().embedder == spec
    asked = len(server.seen)
    with nestvec.connect(url) as store:
        assert store.info().count == 10
        assert len(server.seen) == asked  # nothing is asked before it is needed
        assert store.search(TEXTS[3])[0].text == TEXTS[3]


async def test_a_store_closes_the_embedder_that_it_made(server: OpenAIServer) -> None:
    spec = f"openai:any@{server.url}"
    with nestvec.connect("memory:", dims=(8,), embedder=spec) as store:
        embedder: Any = store.embedder
        assert embedder._client is not None
    assert embedder._client is None
    async with await nestvec.aconnect("memory:", dims=(8,), embedder=spec) as astore:
        await astore.add(TEXTS)
        embedder = astore.embedder
        assert len(embedder._aclients) == 1
    assert len(embedder._aclients) == 0
    given = made(server)
    with nestvec.connect("memory:", dims=(8,), embedder=given):
        pass
    assert given._client is not None  # it is the caller's
    given.close()


async def test_an_async_store_awaits_it(server: OpenAIServer) -> None:
    embedder = made(server, dim=WIDTH)
    async with await nestvec.aconnect("memory:", dims=(8,), embedder=embedder) as store:
        await store.add(TEXTS)
        hits = await asyncio.gather(*(store.search(text, 1) for text in TEXTS))
    assert [found[0].text for found in hits] == TEXTS
    assert embedder._client is None  # the blocking client was never needed
    await embedder.aclose()


def test_it_can_be_used_in_one_event_loop_after_another(server: OpenAIServer) -> None:
    embedder = made(server)

    async def once() -> Any:
        try:
            return await embedder.aembed_query("a")
        finally:
            await embedder.aclose()

    assert np.array_equal(asyncio.run(once()), asyncio.run(once()))


def test_models_that_are_known_need_no_request_for_their_width() -> None:
    assert OpenAIEmbedder("text-embedding-3-large").dim == 3072
    assert resolve("openai:text-embedding-3-small").dim == 1536


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch_size": 0}, ConfigError),
        ({"concurrency": 0}, ConfigError),
        ({"retries": -1}, ConfigError),
        ({"timeout": 0}, ConfigError),
        ({"base_url": "localhost:8080"}, EmbedderError),
        ({"base_url": "ftp://host/v1"}, EmbedderError),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        OpenAIEmbedder("any", **options)
    with pytest.raises(EmbedderError, match="no name"):
        OpenAIEmbedder(" ")


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "import nestvec\nfrom nestvec.embedders import resolve\n"
        "try:\n    resolve('openai:x@http://127.0.0.1:9/v1').embed_query('a')\n"
        "except nestvec.MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "openai is not installed; run: pip install 'nestvec[openai]'\n"
