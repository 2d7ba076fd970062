"""qdrant-client's clients, made so that every request ends: in its time, and within its bytes.

The only file that imports qdrant-client and its transports. The time that a request has is in
`UNTIL`, which the driver sets around each call: httpx would count it anew for every byte that
arrives, and qdrant-client has one for all requests.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import BackendError

__all__ = [
    "UNTIL", "AnswerTooLarge", "GrpcToRest", "LocalProtocolError", "QdrantClient",
    "ResponseHandlingException", "RestToGrpc", "UnsupportedProtocol", "grpc",
    "models", "opened", "opened_async", "speaks_grpc",
]  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep gRPC's C core off the user's stderr, where it tells of connections that were given up.

    It reads its verbosity once, while it is imported; what the user chose for it stands.
    """
    if "grpc" in sys.modules or "GRPC_VERBOSITY" in os.environ:
        yield
        return
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        yield
    finally:
        os.environ.pop("GRPC_VERBOSITY", None)


with _quiet():
    import httpcore
    import httpx
    from httpx import LocalProtocolError, UnsupportedProtocol
    from qdrant_client import QdrantClient, grpc
    from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
    from qdrant_client.http import models
    from qdrant_client.http.exceptions import ResponseHandlingException
    from qdrant_client.qdrant_remote import QdrantRemote

#: When the request that is made here has to be answered, on the monotonic clock.
UNTIL: ContextVar[float] = ContextVar("UNTIL", default=inf)

#: Milliseconds between tries of gRPC to connect, which would be up to two minutes.
_RECONNECT = {"grpc.min_reconnect_backoff_ms": 200, "grpc.initial_reconnect_backoff_ms": 200,
              "grpc.max_reconnect_backoff_ms": 1_000}  # fmt: skip

#: How much is given to the system at once while a body is sent.
_SENT = 65_536


class AnswerTooLarge(BackendError):
    """An answer has more bytes than `max_response_bytes`."""


#: The process in which gRPC was first asked. Its C core cannot be used in a child that is forked
#: then: calls may hang, and where other threads asked at the fork one in twenty children crashed.
_asked: dict[str, int] = {}


def speaks_grpc(settings: Mapping[str, Any]) -> bool:
    """Return whether a client of these settings is asked over gRPC in this process.

    A child of a process that did so asks over REST.
    """
    return bool(settings.get("prefer_grpc")) and _asked.get("by", os.getpid()) == os.getpid()


def opened(settings: Mapping[str, Any]) -> QdrantRemote:
    """Return a blocking client."""
    hooks = _Hooks(settings["max_response_bytes"])
    transport = _Transport(settings["url"])
    events = {"request": [hooks.asked], "response": [hooks.answered]}
    made = _Remote(**_remote(settings), event_hooks=events, transport=transport)
    made.http.client.add_middleware(_scored)
    return made


def opened_async(settings: Mapping[str, Any]) -> AsyncQdrantRemote:
    """Return a client for the event loop that runs."""
    hooks = _Hooks(settings["max_response_bytes"])
    events = {"request": [hooks.aasked], "response": [hooks.aanswered]}
    made = AsyncQdrantRemote(**_remote(settings), event_hooks=events)
    made.http.client.add_middleware(_ascored)
    return made


def _remote(settings: Mapping[str, Any]) -> dict[str, Any]:
    given = {**settings, "prefer_grpc": speaks_grpc(settings)}
    most = given.pop("max_response_bytes")
    given["grpc_options"] = {"grpc.max_receive_message_length": most, **_RECONNECT}
    if given["prefer_grpc"]:
        _asked.setdefault("by", os.getpid())
    return given


class _Remote(QdrantRemote):
    """The blocking client, whose gRPC calls end when the request has to be answered."""

    @property
    def grpc_points(self) -> Any:
        return _Ending(super().grpc_points)

    @property
    def grpc_collections(self) -> Any:
        return _Ending(super().grpc_collections)

    @property
    def grpc_root(self) -> Any:
        return _Ending(super().grpc_root)


class _Ending:
    """A stub of gRPC whose calls have the time that is left."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stub, name)
        left = UNTIL.get() - time.monotonic()

        def ending(request: Any, timeout: float = inf) -> Any:
            return call(request, timeout=min(timeout, max(0.001, left)))

        return ending


# The size of an answer


class _Hooks:
    """What httpx calls before a request and before it reads an answer."""

    def __init__(self, most: int) -> None:
        self._most = most

    def asked(self, request: httpx.Request) -> None:
        """Allow only what `_Bounded` can unpack."""
        request.headers["Accept-Encoding"] = "gzip, deflate"

    def answered(self, response: httpx.Response) -> None:
        """Take the reading of an answer from httpx, which unpacks without end."""
        packed = response.headers.pop("Content-Encoding", "identity").strip().lower()
        if packed not in _WINDOWS:
            raise BackendError(f"the answer is packed by {packed!r}, which was not asked for")
        response.stream = _Bounded(response.stream, packed, self._most)

    async def aasked(self, request: httpx.Request) -> None:
        """Do as `asked`."""
        self.asked(request)

    async def aanswered(self, response: httpx.Response) -> None:
        """Do as `answered`."""
        self.answered(response)


#: Window bits of zlib: 32 more finds out about the header; deflate is sent with one and without.
_WINDOWS = {"identity": None, "gzip": 47, "x-gzip": 47, "deflate": 47}


class _Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer, unpacked, up to its largest size."""

    def __init__(self, body: Any, packed: str, most: int) -> None:
        self._body, self._most, self._seen = body, most, 0
        self._raw = packed == "deflate"
        window = _WINDOWS[packed]
        self._unpacking = None if window is None else zlib.decompressobj(window)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            yield self._taken(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield self._taken(chunk)

    def close(self) -> None:
        self._body.close()

    async def aclose(self) -> None:
        await self._body.aclose()

    def _taken(self, chunk: bytes) -> bytes:
        chunk = self._unpacked(chunk)
        self._seen += len(chunk)
        if self._seen > self._most:
            raise AnswerTooLarge(f"the answer has more than {self._most:,} bytes")
        return chunk

    def _unpacked(self, chunk: bytes) -> bytes:
        if self._unpacking is None:
            return chunk
        room = self._most - self._seen + 1
        try:
            return self._unpacking.decompress(chunk, room)
        except zlib.error as error:
            if not self._raw:
                raise httpx.DecodingError(str(error)) from error
            self._raw, self._unpacking = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self._unpacked(chunk)


# Hits without a score


def _scored(request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> Any:
    """Leave out the hits whose score is null, which a server makes of NaN and no model takes."""
    response = send(request)
    return response if _NULL not in response.content else _without_null(request, response)


async def _ascored(
    request: httpx.Request, send: Callable[[httpx.Request], Awaitable[httpx.Response]]
) -> httpx.Response:
    response = await send(request)
    return response if _NULL not in response.content else _without_null(request, response)


_NULL = b'"score":null'


def _without_null(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    if "/points/query" not in request.url.path:
        return response
    try:
        told = response.json()
        result = told["result"]
        for each in result if isinstance(result, list) else [result]:
            each["points"] = [point for point in each["points"] if point["score"] is not None]
    except (ValueError, LookupError, TypeError):  # not one of Qdrant's, as will be said
        return response
    return httpx.Response(response.status_code, json=told)


# The time of a request


class _Left(float):
    """Seconds that are left, for who asks once; `until` is for who asks again."""

    until: float

    @classmethod
    def of(cls, until: float) -> _Left:
        made = cls(max(0.0, until - time.monotonic()))
        made.until = until
        return made


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """Return the seconds that are left of a timeout. Raises `late` where there are none."""
    if not isinstance(timeout, _Left):
        return timeout
    left = timeout.until - time.monotonic()
    if left <= 0:
        raise late("timed out")
    return left


class _Transport(httpx.HTTPTransport):
    """httpx's transport, with one time for all of a request: connecting, sending and reading.

    A client that is given a transport takes no proxy from the environment, so this does.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        local = host in ("localhost", "127.0.0.1")
        # As qdrant-client has it: connections of this machine are not kept.
        limits = httpx.Limits(max_keepalive_connections=0 if local else None)
        proxy = None
        if not proxy_bypass(host):
            proxy = getproxies().get(parts.scheme) or getproxies().get("all")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        # Certificates take a while to read, and only TLS needs them.
        super().__init__(
            verify=parts.scheme == "https" or bool(proxy),
            limits=limits,
            proxy=httpx.Proxy(proxy) if proxy else None,
        )
        # httpx has no way to give its pool another backend; tests/faults pin that this is one.
        self._pool._network_backend = _Backend()  # noqa: SLF001

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if (until := UNTIL.get()) < inf:
            limits = dict.fromkeys(("connect", "read", "write", "pool"), _Left.of(until))
            request.extensions = {**request.extensions, "timeout": limits}
        return super().handle_request(request)


class _Backend(httpcore.NetworkBackend):
    """httpcore's blocking sockets, of which each does what it does in the time that is left."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _addresses(host, port, _left(timeout, httpcore.ConnectTimeout))
        for n, address in enumerate(addresses):
            left = _left(timeout, httpcore.ConnectTimeout)
            # One that does not answer leaves some time for the others.
            share = left if left is None else left / (len(addresses) - n)
            try:
                made = self._backend.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == addresses[-1]:
                    raise
            else:
                return _Stream(made)
        raise httpcore.ConnectError(f"{host} has no address")

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def _addresses(host: str, port: int, seconds: float | None) -> list[str]:
    """Return the addresses of a host. Raises ConnectTimeout where they are not told in time.

    The system's own call knows no time, so it is made, and where need be left, in a thread.
    """
    found: list[Any] = []

    def look() -> None:
        try:
            told = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.append([str(each[4][0]) for each in told])
        except (OSError, UnicodeError) as error:
            found.append(error)

    if host.replace(".", "").isdigit() or ":" in host:
        look()
    else:
        looking = threading.Thread(target=look, name="nestvec-address", daemon=True)
        looking.start()
        looking.join(seconds)
    if not found:
        raise httpcore.ConnectTimeout(f"the address of {host} is not told")
    if isinstance(found[0], Exception):
        raise httpcore.ConnectError(str(found[0])) from found[0]
    return list(dict.fromkeys(found[0]))


class _Stream(httpcore.NetworkStream):
    """A connection that reads and writes in the time that is left, whatever comes in how small."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _SENT):
            part = view[start : start + _SENT]
            self._stream.write(part, _left(timeout, httpcore.WriteTimeout))  # type: ignore[arg-type]

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
