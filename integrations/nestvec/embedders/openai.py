"""Any endpoint that speaks OpenAI's embeddings protocol, through the official client.

What decides, which texts go together and what an answer must look like, is a flow; its requests are
lists of batches, which the drivers send at once, a few at a time.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import ConfigError, EmbedderError, MissingExtra
from ..flow import Flow, arun, run
from ..nesting import Matrix
from .profiles import Profile, find

__all__ = ["OpenAIEmbedder"]

#: Whose key is in which environment variable. No key goes to any other host.
KEYS: Mapping[str, str] = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.mixedbread.com": "MXBAI_API_KEY",
    "api.jina.ai": "JINA_API_KEY",
    "api.voyageai.com": "VOYAGE_API_KEY",
    "api.cohere.ai": "CO_API_KEY",
    "generativelanguage.googleapis.com": "GEMINI_API_KEY",
    "api-atlas.nomic.ai": "NOMIC_API_KEY",
}

_OPENAI = "https://api.openai.com/v1"

#: Statuses of a request that is too large, or of one text in it that cannot be embedded.
_TOO_MUCH = (400, 413, 422)


@dataclass(frozen=True, slots=True)
class _Part:
    """Texts that go into one request, and the row of the first."""

    start: int
    texts: Sequence[str]

    def smaller(self) -> list[_Part]:
        """Return it as its first text alone, which tells whether size mattered, and halves."""
        middle = (len(self.texts) + 1) // 2
        ends = (0, 1, middle, len(self.texts))
        return [
            _Part(self.start + begin, self.texts[begin:end])
            for begin, end in pairwise(ends)
            if begin < end
        ]


class OpenAIEmbedder:
    """A model behind an OpenAI-compatible endpoint: OpenAI, mixedbread, Jina, vLLM, TEI, Ollama.

    The full vector is asked for; prefixes are cut from it here. `base_url` is the endpoint, by
    default OPENAI_BASE_URL or OpenAI's. The key is read from the environment when a request is
    sent: `key_variable`, by default the provider's own, such as OPENAI_API_KEY or MXBAI_API_KEY;
    for any other host `NESTVEC_API_KEY_` and the host, as in NESTVEC_API_KEY_LLM_EXAMPLE_ORG,
    without which none is sent. A request has at most `batch_size` texts and about `batch_tokens`
    tokens; where the endpoint takes less, it is halved and the smaller size kept. `concurrency`
    requests are under way at once. Rate limits, server errors and lost connections are tried
    again `retries` times, as late as the server says or with growing pauses; `timeout` is that of
    one request in seconds.
    Prompts come from the model's profile where they are not given; `query_options` and
    `document_options` are more fields of the request, such as Voyage's input_type. `floats` is for
    endpoints that refuse to write numbers as base64, the protocol's shorter form. `dim` says how
    long full vectors are where no request shall be made to learn it.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str | None = None,
        batch_size: int = 128,
        batch_tokens: int = 100_000,
        concurrency: int = 4,
        retries: int = 5,
        timeout: float = 60.0,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        query_options: Mapping[str, Any] | None = None,
        document_options: Mapping[str, Any] | None = None,
        floats: bool = False,
        dim: int | None = None,
    ) -> None:
        if not model.strip():
            raise EmbedderError("the model has no name; write openai:MODEL")
        self.model, self.base_url = model, _checked_url(base_url)
        self._variable = key_variable
        numbers = {"batch_size": batch_size, "batch_tokens": batch_tokens, "retries": retries + 1,
                   "concurrency": concurrency, "timeout": timeout}  # fmt: skip
        for name, number in numbers.items():
            if isinstance(number, bool) or not number > 0:
                raise ConfigError(f"{name} is too small: {number!r}")
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._concurrency, self._retries, self._timeout = concurrency, retries, timeout
        self._floats = floats
        profile = self.profile = find(model)
        self._query = _how(profile, query_prompt, query_options, query=True)
        self._document = _how(profile, document_prompt, document_options, query=False)
        self._dim = dim
        self._client: Any = None
        self._aclients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The spec string of this model, which opens a collection of it again."""
        return f"openai:{self.model}" + (f"@{self.base_url}" if self.base_url else "")

    @property
    def dim(self) -> int:
        """How many numbers a full vector has: the profile's, or learnt by embedding one text."""
        if self._dim is None:
            known = self.profile if self.base_url is None else None
            self._dim = known.dim if known is not None else len(self.embed_query("width"))
        return self._dim

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that will be stored."""
        return run(self._embed(texts, *self._document), self._send)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that are searched for."""
        return run(self._embed(texts, *self._query), self._send)

    def embed_query(self, text: str) -> Matrix:
        """Return the dim numbers of a text that is searched for."""
        query: Matrix = self.embed_queries([text])[0]
        return query

    async def aembed_documents(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that will be stored."""
        return await arun(self._embed(texts, *self._document), self._asend)

    async def aembed_queries(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that are searched for."""
        return await arun(self._embed(texts, *self._query), self._asend)

    async def aembed_query(self, text: str) -> Matrix:
        """Return the dim numbers of a text that is searched for."""
        query: Matrix = (await self.aembed_queries([text]))[0]
        return query

    def close(self) -> None:
        """Close the connections; the embedder can go on being used."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections that this event loop has opened, and the blocking ones."""
        self.close()
        client = self._aclients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.name!r})"

    # What is asked, and what an answer must be

    def _embed(self, texts: Sequence[str], prompt: str, options: Mapping[str, Any]) -> Flow[Matrix]:
        """Return one row for each text; every request is a list of requests to send at once."""
        texts = [prompt + text for text in texts]
        waiting = self._parts(texts, 0, self._batch_size)
        rows: list[Any] = [None] * len(texts)
        taken, too_large = {0}, len(texts) + 1
        while waiting:
            # Few enough that one refusal of all of them costs little.
            wave, waiting = waiting[: 4 * self._concurrency], waiting[4 * self._concurrency :]
            answers = yield [self._request(part, options) for part in wave]
            refused: list[_Part] = []
            for part, answer in zip(wave, answers, strict=True):
                if not isinstance(answer, Exception):
                    rows[part.start : part.start + len(part.texts)] = self._rows(part, answer)
                    taken.add(len(part.texts))
                elif len(part.texts) > 1:
                    refused.append(part)
                else:
                    raise EmbedderError(
                        f"{self.name} refused text {part.start + 1} of {len(texts)}, of "
                        f"{len(part.texts[0]):,} characters: {self._told(answer)}"
                    ) from self._cause(answer)
            too_large = min([too_large, *(len(part.texts) for part in refused)])
            if len(refused) > 1:  # one alone may be refused for one text in it
                size = too_large // 2
                waiting = [p for part in waiting for p in self._parts(part.texts, part.start, size)]
            waiting = [smaller for part in refused for smaller in part.smaller()] + waiting
        if too_large <= len(texts):  # so all of it was taken in smaller requests
            self._batch_size = max(1, *(size for size in taken if size < too_large))
        made = self._matrix(rows)
        if self.profile is not None:
            made = np.asarray(self.profile.prepared(made), np.float32)
        return made

    def _parts(self, texts: Sequence[str], start: int, most: int) -> list[_Part]:
        """Return texts as requests of at most so many of them, and of so many tokens."""
        parts: list[_Part] = []
        begin = tokens = 0
        for n, text in enumerate(texts):
            size = _tokens(text)
            full = n - begin >= most or tokens + size > self._batch_tokens
            if full and n > begin:
                parts.append(_Part(start + begin, texts[begin:n]))
                begin, tokens = n, 0
            tokens += size
        if begin < len(texts):
            parts.append(_Part(start + begin, texts[begin:]))
        return parts

    def _request(self, part: _Part, options: Mapping[str, Any]) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self.model, "input": list(part.texts)}
        if options:
            request["extra_body"] = dict(options)
        if self._floats:
            request["encoding_format"] = "float"
        return request

    def _rows(self, part: _Part, answer: Any) -> list[Any]:
        """Return the vectors of an answer in the order of the texts."""
        data = list(getattr(answer, "data", None) or ())
        if len(data) != len(part.texts):
            raise EmbedderError(f"{self.name} gave {len(data)} vectors for {len(part.texts)} texts")
        places = [item.index for item in data if isinstance(item.index, int)]
        if not places:
            return [item.embedding for item in data]
        placed = dict(zip(places, data, strict=False))
        if len(places) != len(data) or placed.keys() != set(range(len(data))):
            raise EmbedderError(f"{self.name} numbered its {len(data)} vectors wrongly: {places}")
        return [placed[n].embedding for n in range(len(data))]

    def _matrix(self, rows: Sequence[Any]) -> Matrix:
        made = []
        for n, row in enumerate(rows):
            try:
                vector = np.asarray(row, dtype=np.float32)
            except (TypeError, ValueError):
                vector = np.empty((), np.float32)
            if vector.ndim != 1 or not vector.size:
                raise EmbedderError(
                    f"{self.name} gave no vector of numbers for text {n + 1} of {len(rows)}"
                )
            made.append(vector)
        width = self._dim or (len(made[0]) if made else 0)
        for n, vector in enumerate(made):
            if len(vector) != width:
                raise EmbedderError(
                    f"{self.name} gave {len(vector)} numbers for text {n + 1} of {len(made)}, "
                    f"expected {width}"
                )
        return np.asarray(made, dtype=np.float32).reshape(len(made), width)

    # Sending

    def _send(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        if self._client is None:
            self._client = _package().OpenAI(**self._settings())
        client = self._client
        if len(requests) == 1:
            return [self._asked(client, requests[0])]
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            waiting = [pool.submit(self._asked, client, request) for request in requests]
            return [one.result() for one in waiting]
        finally:
            # No request goes on behind an error, on a client that may be closed by then.
            pool.shutdown(cancel_futures=True)

    def _asked(self, client: Any, request: dict[str, Any]) -> Any:
        try:
            return client.embeddings.create(**request)
        except Exception as error:  # noqa: BLE001  (what the client raises is turned into ours)
            return self._answered(error)

    async def _asend(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        if loop not in self._aclients:  # connections belong to the loop that opened them
            self._aclients[loop] = _package().AsyncOpenAI(**self._settings())
        client, gate = self._aclients[loop], asyncio.Semaphore(self._concurrency)

        async def asked(request: dict[str, Any]) -> Any:
            async with gate:
                try:
                    return await client.embeddings.create(**request)
                except Exception as error:  # noqa: BLE001  (as above)
                    return self._answered(error)

        tasks = [asyncio.ensure_future(asked(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _answered(self, error: Exception) -> Exception:
        """Return an error that a smaller request may not have; raise any other as ours."""
        status = getattr(error, "status_code", None)
        if status in _TOO_MUCH:
            return error
        if status in (401, 403):
            # The server's own words may repeat the key.
            there = "" if self._key() else ", which is not set"
            raise EmbedderError(
                f"{self.name} refused the key ({status}); it is read from "
                f"{self._key_variable()}{there}"
            ) from None
        if status == 404:
            hint = "; is the model there, and does the URL end with /v1?"
        else:
            hint = f"; tried {self._retries + 1} times" if _again(error) else ""
        raise EmbedderError(
            f"{self.name} at {self._url()}: {self._told(error)}{hint}"
        ) from self._cause(error)

    def _told(self, error: BaseException) -> str:
        """Return what an error says in one line, without the key."""
        said = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error.__cause__, Exception) and not hasattr(error, "status_code"):
            said = f"{said.rstrip('.')}: {error.__cause__ or type(error.__cause__).__name__}"
        key = self._key()
        return (said.replace(key, "***") if key else said)[:500]

    def _cause(self, error: BaseException) -> BaseException | None:
        key = self._key()
        return None if key and key in str(error) else error

    # The endpoint and its key

    def _url(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI

    def _key_variable(self) -> str:
        if self._variable is not None:
            return self._variable
        if self.base_url is None:
            return "OPENAI_API_KEY"
        host = urlsplit(self.base_url).hostname or ""
        return KEYS.get(host) or "NESTVEC_API_KEY_" + re.sub(r"\W", "_", host).upper()

    def _key(self) -> str | None:
        return os.environ.get(self._key_variable()) or None

    def _settings(self) -> dict[str, Any]:
        key = self._key()
        if key is None and (self._variable is not None or self._url() == _OPENAI):
            raise EmbedderError(f"{self.name} needs a key: set {self._key_variable()}")
        return {
            "api_key": key or "none",
            "base_url": self._url(),
            "max_retries": self._retries,
            "timeout": self._timeout,
        }


def _how(
    profile: Profile | None, prompt: str | None, options: Mapping[str, Any] | None, *, query: bool
) -> tuple[str, Mapping[str, Any]]:
    """Return the prompt before texts and the fields beside them.

    An API that has fields for it adds its prompts itself.
    """
    if profile is not None:
        if options is None:
            options = profile.query_options if query else profile.document_options
        if prompt is None and not options:
            prompt = profile.query_prompt if query else profile.document_prompt
    return prompt or "", options or {}


def _checked_url(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EmbedderError(f"base_url is http(s)://HOST/…, got {url.partition('@')[0]!r}")
    if parts.username or parts.password or parts.query:
        raise EmbedderError(
            f"base_url of {parts.hostname} carries a user, a password or a query; it is recorded "
            "with collections, so keys are read from the environment"
        )
    return url.rstrip("/")


def _tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many: two bytes are at least one."""
    return len(text.encode(errors="replace")) // 2 + 1


def _again(error: Exception) -> bool:
    """Return whether the client has tried again: on lost connections, limits and server errors."""
    status = getattr(error, "status_code", None)
    if status is None:
        return hasattr(error, "request")
    return status in (408, 409, 429) or status >= 500


def _package() -> Any:
    try:
        import openai
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise MissingExtra("openai", "openai") from error
    return openai
