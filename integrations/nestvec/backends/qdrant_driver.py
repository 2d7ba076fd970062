"""What performs requests on Qdrant, sync and async, and the flows that try again.

What failed for a while is tried again by a flow, so that both ways do it alike and a test needs no
server.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path
from threading import Lock, RLock
from typing import Any, ClassVar, TypeVar

from ..errors import BackendError, NestvecError, Unavailable
from ..flow import Flow, arun, run
from ..processes import abandon, forked, on_fork
from ..secrets import redacted
from .qdrant_clients import (
    UNTIL,
    AnswerTooLarge,
    GrpcToRest,
    QdrantClient,
    ResponseHandlingException,
    RestToGrpc,
    grpc,
    models,
    opened,
    opened_async,
    speaks_grpc,
)
from .qdrant_errors import Missing, Refused, Transient, translated

__all__ = [
    "AnswerTooLarge", "Close", "Driver", "Missing", "Pause", "Refused", "Request", "RestToGrpc",
    "Together", "Transient", "grpc", "limited", "models", "retried",
]  # fmt: skip

T = TypeVar("T")

#: The first wait before another try, in seconds, and the longest.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 60.0

#: How long a server is asked whether it is in recovery mode.
_ASIDE = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request to call a method of the client, or of its raw API, with these arguments.

    `until` is when it must be answered, on the monotonic clock.
    """

    method: str
    arguments: Mapping[str, Any]
    until: float = inf


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


class _OutOfTime(NestvecError):
    """There is no time left for a pause."""


def retried(
    request: Request,
    tries: int,
    seconds: float = inf,
    *,
    there: Callable[[], Flow[bool]] | None = None,
) -> Flow[Any]:
    """Yield a request until it is answered, with growing and uneven pauses between the tries.

    All of it takes so many seconds at most. Every request is safe to send again: points are
    written and deleted by their ids. `there` tells of something that is to be made whether it is
    there now, whatever the server said. Raises Unavailable after the last try, or at once where
    the server asks for more time than there is, and BackendError where it is in recovery mode.
    """
    if seconds < inf:
        request = replace(request, until=min(request.until, time.monotonic() + seconds))
    for done in range(1, tries + 1):
        try:
            return (yield request)
        except BackendError as caught:
            error = caught
        if there is not None and (yield from there()):
            return None
        if not isinstance(error, Transient):
            raise error
        if error.failed and done == 1 and (yield from _recovers(request.until)):
            text = f"{error}; the server is in recovery mode: collections can only be dropped there"
            raise BackendError(text) from error.__cause__
        wait = _wait(done, error.wait)
        late = time.monotonic() + wait > request.until
        try:
            if done < tries and not late:
                yield Pause(wait)
                continue
        except _OutOfTime:
            late = True
        raise _given_up(error, done, seconds if late else None) from error.__cause__
    raise AssertionError


def _given_up(error: Transient, done: int, timeout: float | None) -> Unavailable:
    """Return the error after the last try; with a timeout it was the time that ended."""
    told = "tried once" if done == 1 else f"tried {done} times"
    if error.wait is not None:
        told += f"; it asks to wait {error.wait:g} s"
    if timeout is not None:
        told += f"; timeout={timeout:g} s allows no more"
    return Unavailable(f"{error} ({told})")


def _recovers(until: float) -> Flow[bool]:
    """Return whether the server says that it is in recovery mode, where it does nothing else."""
    aside = min(until, time.monotonic() + _ASIDE)
    try:
        told = yield Request("http.service_api.telemetry", {"details_level": 1}, aside)
    except NestvecError:  # it is not told to everybody
        return False
    features = getattr(getattr(told, "app", None), "features", None)
    return bool(getattr(features, "recovery_mode", False))


def limited(flow: Flow[T], until: float) -> Flow[T]:
    """Drive a flow whose requests, tries and pauses end at a time on the monotonic clock."""
    step: Callable[[], Any] = partial(next, flow)
    while True:
        try:
            request = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        if isinstance(request, Pause) and time.monotonic() + request.seconds > until:
            step = partial(flow.throw, _OutOfTime())
            continue
        if isinstance(request, Request):
            request = replace(request, until=min(request.until, until))
        elif isinstance(request, Together):
            request = Together([limited(each, until) for each in request.flows])
        try:
            step = partial(flow.send, (yield request))
        except BaseException as error:  # noqa: BLE001  (passed on to the flow)
            step = partial(flow.throw, error)


def _wait(done: int, asked: float | None) -> float:
    """Return how long to wait; uneven, so that clients refused together do not return together."""
    longest = min(_FIRST_WAIT * 2 ** (done - 1), _LONGEST_WAIT)
    return (asked or longest / 2) + random.uniform(0, longest / 2)  # noqa: S311


class Driver:
    """The clients of one collection's server or directory, each made when it is first asked.

    They belong to a process: a child that is forked makes its own.
    """

    def __init__(
        self, url: str, settings: Mapping[str, Any], *, secret: str | None, parallel: int
    ) -> None:
        self.url = url
        self._settings, self._secret, self._parallel = settings, secret, parallel
        self._local: _Local | None = None
        self._client: Any = None
        self._aclient: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._opening = Lock()
        on_fork(self, Driver._leave)

    def _leave(self) -> None:
        """Leave the connections to the parent, for whom closing them here would end them."""
        abandon(self._client, self._aclient, self._loop)
        self._client = self._aclient = self._loop = None
        self._opening = Lock()

    @property
    def speaks_grpc(self) -> bool:
        """Whether requests go over gRPC; not in a child of a process that did so."""
        return speaks_grpc(self._settings)

    def send(self, request: Any) -> Any:
        if isinstance(request, Pause):
            return time.sleep(request.seconds)
        if isinstance(request, Together):
            return self._together(request)
        if isinstance(request, Close):
            return self.close()
        try:
            with _ending(request.until):
                return _done(attrgetter(request.method)(self._open())(**request.arguments))
        except Exception as caught:  # noqa: BLE001  (its own, httpx's, grpc's, ValueError)
            error = caught
        # Outside, so that what may hold a secret is not its context either.
        raise self._translated(request, error) from self._shown(error)

    async def asend(self, request: Any) -> Any:
        if isinstance(request, Pause):
            return await asyncio.sleep(request.seconds)
        if isinstance(request, Together):
            return await self._atogether(request)
        if isinstance(request, Close):
            return await self.aclose()
        if _is_local(self._settings):
            return await asyncio.to_thread(self.send, request)  # local mode blocks either way
        try:
            async with _aending(request.until):
                call = attrgetter(request.method)(self._aopen())
                return _done(await call(**request.arguments))
        except Exception as caught:  # noqa: BLE001  (its own, httpx's, grpc's, ValueError)
            error = caught
        raise self._translated(request, error) from self._shown(error)

    def _together(self, request: Together) -> list[Any]:
        if len(request.flows) == 1:
            return [self._outcome(request.flows[0])]
        with ThreadPoolExecutor(min(self._parallel, len(request.flows))) as pool:
            return list(pool.map(self._outcome, request.flows))

    async def _atogether(self, request: Together) -> list[Any]:
        turn = asyncio.Semaphore(self._parallel)
        flows = (self._aoutcome(flow, turn) for flow in request.flows)
        outcomes = await asyncio.gather(*flows, return_exceptions=True)
        # Only now, so that nothing goes on by itself behind an error.
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, NestvecError):
                raise outcome
        return outcomes

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
            self._client = self._client or opened(self._settings)
            return self._client

    def _aopen(self) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._aclient is None or self._loop is not loop:
            # A client lives and dies with its event loop: each asyncio.run has another.
            self._aclient, self._loop = opened_async(self._settings), loop
        return self._aclient

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.url} is closed; connect again")

    def _translated(self, request: Request, error: Exception) -> Exception:
        """Return a driver's error as ours, without the secret wherever it may have come from."""
        if isinstance(error, (NestvecError, Warning)):  # a warning where the user made it an error
            return error
        made = translated(error)
        text = f"{self.url}: {request.method.rpartition('.')[2]}: {made}"
        shown = type(made)(redacted(text, self._secret))
        if isinstance(made, Transient) and isinstance(shown, Transient):
            shown.wait, shown.failed = made.wait, made.failed
        return shown

    def _shown(self, error: Exception) -> BaseException | None:
        """Return the error as a cause that a traceback may print, None where it has the secret."""
        if isinstance(error, (NestvecError, Warning)):
            return error.__cause__
        before: BaseException | None = error
        while before is not None:
            told = f"{before} {before!r}"
            if self._secret and redacted(told, self._secret) != redacted(told):
                return None
            before = before.__cause__ or before.__context__
        return error


@contextmanager
def _ending(until: float) -> Iterator[None]:
    """Give the request that is made here its end. Raises TimeoutError where that is past."""
    token = UNTIL.set(until)
    try:
        if _seconds_until(until) == 0:
            raise TimeoutError
        yield
    finally:
        UNTIL.reset(token)


@asynccontextmanager
async def _aending(until: float) -> AsyncIterator[None]:
    """Cancel what is awaited here at its end. Raises TimeoutError then.

    Not by anyio, which httpx has: it knows its own cancellation by the error's text, and gRPC
    raises another.
    """
    if until == inf:
        yield
        return
    task, fired = asyncio.current_task(), False
    assert task is not None

    def fire() -> None:
        nonlocal fired
        fired = True
        task.cancel()

    before = getattr(task, "cancelling", int)()  # Python 3.10 cannot tell
    timer = asyncio.get_running_loop().call_later(_seconds_until(until) or 0.0, fire)
    try:
        yield
    except asyncio.CancelledError:
        if not fired or getattr(task, "uncancel", int)() > before:
            raise
        raise TimeoutError from None
    finally:
        timer.cancel()


def _seconds_until(until: float) -> float | None:
    return None if until == inf else max(0.0, until - time.monotonic())


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
