"""What performs requests on Qdrant: its clients, its errors as ours, tries again as flows.

The only file that touches qdrant-client. Requests and pauses are performed in either colour; what
failed for a while is tried again by a flow, so that both colours do it alike and a test needs no
server.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from threading import Lock, RLock
from typing import Any, ClassVar

from qdrant_client import AsyncQdrantClient, QdrantClient, grpc
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http import models
from qdrant_client.http.exceptions import ResponseHandlingException

from ..errors import BackendError, NestvecError, Unavailable
from ..flow import Flow, arun, run
from ..processes import abandon, forked, on_fork

__all__ = [
    "Close",
    "Driver",
    "Pause",
    "Request",
    "RestToGrpc",
    "Together",
    "Transient",
    "grpc",
    "models",
    "retried",
]

#: The first wait before another try, in seconds, and the longest, also where the server names it.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 60.0

#: HTTP statuses and gRPC codes of what may work in a moment.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request to call a method of the client, or of its raw API, with these arguments."""

    method: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """A request to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """A request to drive flows side by side; the response has each one's result or error."""

    flows: Sequence[Flow[Any]]


@dataclass(frozen=True, slots=True)
class Close:
    """A request to let go of the clients."""


class Transient(Unavailable):
    """A failure that may pass: after `wait` seconds where the server said so."""

    wait: float | None = None


def retried(request: Request, tries: int) -> Flow[Any]:
    """Yield a request until it is answered, with growing and uneven pauses between the tries.

    Every request is safe to send again: points are written and deleted by their ids. Raises
    Unavailable after the last try, or at once where the server asks for more than a minute.
    """
    for done in range(1, tries + 1):
        try:
            return (yield request)
        except Transient as error:
            wait = _wait(done, error.wait)
            if done == tries or wait > _LONGEST_WAIT:
                times = "once" if done == 1 else f"{done} times"
                asks = "" if error.wait is None else f"; it asks to wait {error.wait:g} s"
                raise Unavailable(f"{error} (tried {times}{asks})") from error.__cause__
        yield Pause(wait)
    raise AssertionError


def _wait(done: int, asked: float | None) -> float:
    """Return how long to wait; uneven, so that clients refused together do not return together."""
    longest = min(_FIRST_WAIT * 2 ** (done - 1), _LONGEST_WAIT)
    return (asked or longest / 2) + random.uniform(0, longest / 2)  # noqa: S311


class Driver:
    """The clients of one collection's server or directory, each made when it is first asked."""

    def __init__(
        self, url: str, settings: Mapping[str, Any], *, secret: str | None, parallel: int
    ) -> None:
        self.url = url
        self._settings, self._secret, self._parallel = settings, secret, parallel
        self._local: _Local | None = None
        self._client: QdrantClient | None = None
        self._aclient: AsyncQdrantClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._opening = Lock()

    def send(self, request: Any) -> Any:
        if isinstance(request, Pause):
            return time.sleep(request.seconds)
        if isinstance(request, Together):
            if len(request.flows) == 1:
                return [self._outcome(request.flows[0])]
            with ThreadPoolExecutor(min(self._parallel, len(request.flows))) as pool:
                return list(pool.map(self._outcome, request.flows))
        if isinstance(request, Close):
            return self.close()
        try:
            return _done(attrgetter(request.method)(self._open())(**request.arguments))
        except Exception as error:  # noqa: BLE001  (its own, httpx's, grpc's, ValueError)
            raise self._translated(request, error) from self._shown(error)

    async def asend(self, request: Any) -> Any:
        if isinstance(request, Pause):
            return await asyncio.sleep(request.seconds)
        if isinstance(request, Together):
            turn = asyncio.Semaphore(self._parallel)
            flows = (self._aoutcome(flow, turn) for flow in request.flows)
            outcomes = await asyncio.gather(*flows, return_exceptions=True)
            # Only now, so that nothing goes on by itself behind an error.
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, NestvecError):
                    raise outcome
            return outcomes
        if isinstance(request, Close):
            return await self.aclose()
        if _is_local(self._settings):
            return await asyncio.to_thread(self.send, request)  # local mode blocks in any colour
        try:
            return _done(await attrgetter(request.method)(self._aopen())(**request.arguments))
        except Exception as error:  # noqa: BLE001  (its own, httpx's, grpc's, ValueError)
            raise self._translated(request, error) from self._shown(error)

    def _outcome(self, flow: Flow[Any]) -> Any:
        try:
            return run(flow, self.send)
        except NestvecError as error:
            return error

    async def _aoutcome(self, flow: Flow[Any], turn: asyncio.Semaphore) -> Any:
        async with turn:
            return await arun(flow, self.asend)

    def close(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            client.close()
        local, self._local = self._local, None
        if local is not None:
            local.release()

    async def aclose(self) -> None:
        aclient, self._aclient = self._aclient, None
        if aclient is not None and self._loop is asyncio.get_running_loop():
            await aclient.close()
        await asyncio.to_thread(self.close)

    def _open(self) -> Any:
        with self._opening:
            self._check_open()
            if _is_local(self._settings):
                self._local = self._local or _Local.acquire(self.url, self._settings)
                return self._local
            self._client = self._client or QdrantClient(**self._settings)
            return self._client

    def _aopen(self) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._aclient is None or self._loop is not loop:
            # A client lives and dies with its event loop: each asyncio.run has another.
            self._aclient, self._loop = AsyncQdrantClient(**self._settings), loop
        return self._aclient

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.url} is closed; connect again")

    def _translated(self, request: Request, error: Exception) -> Exception:
        """Return a driver's error as ours, without the secret wherever it may have come from."""
        if isinstance(error, (NestvecError, Warning)):  # a warning where the user made it an error
            return error
        made = _translate(error)
        text = f"{self.url}: {request.method.rpartition('.')[2]}: {made}"
        if self._secret:
            text = text.replace(self._secret, "…")
        shown = type(made)(text)
        if isinstance(made, Transient) and isinstance(shown, Transient):
            shown.wait = made.wait
        return shown

    def _shown(self, error: Exception) -> BaseException | None:
        """Return the error as a cause that a traceback may print, None where it has the secret."""
        if isinstance(error, (NestvecError, Warning)):
            return error.__cause__
        told = f"{error} {error!r}"
        return None if self._secret and self._secret in told else error


def _is_local(settings: Mapping[str, Any]) -> bool:
    return "location" in settings or "path" in settings


class _Local:
    """Local mode; one client of a directory serves all stores of this process."""

    opened: ClassVar[dict[Path, _Local]] = {}
    guard: ClassVar[Lock] = Lock()

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path, self.users = path, 1
        self.client = QdrantClient(**settings)
        self.turn = RLock()  # local mode is not made for threads
        self.inherited = False
        on_fork(self, _Local._leave, lock=self.turn if path is None else None)

    def _leave(self) -> None:
        """Leave a directory to the parent; what is in memory is the child's own copy."""
        if self.path is not None:
            self.opened.pop(self.path, None)
            self.inherited, self.turn = True, RLock()
            # It would close the database and unlock the directory when it is finalised.
            abandon(self.client)
            lock = getattr(getattr(self.client, "_client", None), "_flock_file", None)
            if lock is not None:
                os.close(lock.fileno())

    @classmethod
    def acquire(cls, url: str, settings: Mapping[str, Any]) -> _Local:
        if "path" not in settings:
            return cls(None, settings)
        path = Path(settings["path"]).resolve()
        with cls.guard:
            if path in cls.opened:
                cls.opened[path].users += 1
                return cls.opened[path]
            try:
                _try_lock(path / ".lock")
                made = cls(path, settings)
            except (BlockingIOError, RuntimeError) as error:
                raise Unavailable(
                    f"{url} is open in another process, and local mode allows one at a time; "
                    "close the other one, or use a Qdrant server"
                ) from error
            return cls.opened.setdefault(path, made)

    @classmethod
    def close_all(cls) -> None:
        """Close what was left open when the process ends, before Python is half gone."""
        for shared in cls.opened.values():
            shared.client.close()

    def release(self) -> None:
        if self.inherited:
            return
        with self.guard:
            self.users -= 1
            if not self.users:
                if self.path is not None:
                    del self.opened[self.path]
                self.client.close()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if self.inherited:
            raise forked(
                f"qdrant+local:{self.path}",
                "local mode has one process a directory: connect here once the parent has closed "
                "it, or use a Qdrant server",
            )

        def called(**arguments: Any) -> Any:
            with self.turn:
                return getattr(self.client, method)(**_without_advice(arguments))

        return called


atexit.register(_Local.close_all)


def _unguarded(kind: type[_Local]) -> None:
    """Make the lock of all directories anew in a child, where nobody has it."""
    kind.guard = Lock()


on_fork(_Local, _unguarded)


def _try_lock(path: Path) -> None:
    """Raise BlockingIOError where another process has the lock of a directory.

    The client finds out by itself, but only after it has read every collection, and it leaves
    what it has opened till then open.
    """
    if not path.exists():
        return
    import portalocker  # its import fails where nothing can be written

    with path.open("r+") as file:
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException as error:
            raise BlockingIOError(str(path)) from error


def _without_advice(arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out search parameters: local mode is exact, and warns about them."""
    arguments.pop("search_params", None)
    if "requests" in arguments:
        bare = [request.model_copy(update={"params": None}) for request in arguments["requests"]]
        arguments["requests"] = bare
    return arguments


def _done(answer: Any) -> Any:
    """Return an answer. Raises Transient where it says that a write is not applied yet."""
    if isinstance(answer, grpc.PointsOperationResponse):
        answer = GrpcToRest.convert_update_result(answer.result)
    elif hasattr(answer, "result"):  # as the client's `http` gives it
        answer = answer.result
        if answer is None:
            raise ResponseHandlingException(ValueError("it has no result"))
    if isinstance(answer, models.UpdateResult) and answer.status != models.UpdateStatus.COMPLETED:
        raise Transient(f"the write is {answer.status.value}, but not applied yet")
    return answer


def _translate(error: Exception) -> BackendError:
    """Return what a driver's error says; whether it may pass is in its type."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        told = f"answered {status}: {_told(getattr(error, 'content', b''))}"
        return Transient(told) if status in _PASSING else BackendError(told + _advice(status, told))
    asked = getattr(error, "retry_after_s", None)
    if asked is not None or "Retry-After" in str(error):
        made = Transient(f"answered 429: too many requests ({error})")
        made.wait = asked
        return made
    code = getattr(error, "code", None)
    if callable(code):
        name, details = code().name, str(error.details())  # type: ignore[attr-defined]
        passing = name in _PASSING_CODES
        return (Transient if passing else BackendError)(f"answered {name}: {details[:300]}")
    if isinstance(error, ResponseHandlingException):
        source = error.source
        if not isinstance(source, ValueError):
            return Transient(f"no answer ({type(source).__name__}: {source})")
        return Transient("the answer is not one of Qdrant's; is the URL right?")
    if isinstance(error, json.JSONDecodeError):
        return Transient("the answer was cut off, or is not one of Qdrant's; is the URL right?")
    return BackendError(f"refused: {error}")


def _advice(status: int, told: str) -> str:
    """Return what to do about a refusal."""
    if "Index required" in told:  # strict mode, which Qdrant Cloud has by default
        return "; here that is store.index_metadata(key, kind), or payload_indexes"
    if status == 401 or (status == 403 and "trict mode" not in told):
        return "; check api_key, or QDRANT_API_KEY"
    if status == 413:
        return (
            "; a document is too long for one request, or a filter leaves too many documents to "
            "nestvec, as store.explain tells; the server's setting is max_request_size_mb"
        )
    return ""


def _told(content: bytes) -> str:
    """Return what an error's body says."""
    try:
        message = str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace")
    return message[:300]
