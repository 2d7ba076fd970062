"""The only place that touches psycopg: requests, the pools that perform them, and its errors.

Each request is one transaction. Statements of a `Query` travel together in pipeline mode, where
what stands between two synchronisations is a transaction of its own: one round trip, without
BEGIN and COMMIT, and settings made `LOCAL` end with it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, current_task, get_running_loop, shield
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

import psycopg
from psycopg import conninfo as libpq
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from ..errors import BackendError, CollectionMissing, ConfigError, Unavailable
from .postgres_wire import Raw, loads

__all__ = [
    "SQL", "Apart", "Close", "Composable", "Composed", "Copy", "Driver", "Identifier", "Literal",
    "Query", "Statement", "Target", "sqlstate",
]  # fmt: skip

#: How often a transaction that the server rolled back for the sake of others is begun again.
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its positional parameters."""

    sql: SQL | Composed
    params: tuple[Any, ...] = ()


class Query:
    """A request to run statements in one round trip; the answer is a list, one for each.

    A statement's answer is its rows, or the number of rows that it changed where it returns none.
    What only reads is sent once more when the connection was lost.
    """

    def __init__(self, *statements: Statement, reads: bool = True) -> None:
        self.statements = statements
        self.reads = reads


class Apart(Query):
    """A request to run statements one by one on a connection that ends with the request.

    Settings made for it end with it, and no error leaves a trace in the pool.
    """


@dataclass(frozen=True, slots=True)
class Copy:
    """A request to copy what follows the statement into a table; `parts` makes it, part by part."""

    sql: Composed
    parts: Callable[[], Iterable[bytes]]
    reads = False


class Close:
    """A request to let go of the server."""


class Target:
    """Where a URL leads: what libpq is told, the schema, and the URL without its secrets."""

    def __init__(self, url: str) -> None:
        base, _, query = url.partition("?")
        settings = [part.partition("=") for part in query.split("&") if part]
        schemas = [unquote(value) for name, _, value in settings if name == "schema"]
        rest = [f"{name}={value}" for name, _, value in settings if name != "schema"]
        self.schema = schemas[-1] if schemas else "public"
        self.conninfo = base + ("?" + "&".join(rest) if rest else "")
        try:
            told = libpq.conninfo_to_dict(self.conninfo)
        except psycopg.Error:
            # libpq quotes what it could not read, which may be a part of the password.
            raise ConfigError(
                "the Postgres URL cannot be read; its form is postgresql://user:password@host:port/"
                "database?schema=name&sslmode=…, with special characters percent-encoded"
            ) from None
        self.shown = _shown(told, self.schema)


def _shown(told: dict[str, Any], schema: str) -> str:
    """Return a URL of what says where the server is, and of nothing else."""
    user = f"{quote(str(told['user']))}@" if "user" in told else ""
    hosts, ports = str(told.get("host", "")).split(","), str(told.get("port", "")).split(",")
    options = [f"host={hosts[0]}"] if hosts[0].startswith(("/", "@")) else []
    if options:
        hosts = [""]
    places = [
        f"{host}:{port}" if port else host for host, port in zip_longest(hosts, ports, fillvalue="")
    ]
    options += [f"schema={quote(schema)}"] if schema != "public" else []
    asked = "?" + "&".join(options) if options else ""
    return f"postgresql://{user}{','.join(places)}/{told.get('dbname', '')}{asked}"


class RawDumper(Dumper):
    """Sends `Raw` as it is; the server takes its type from the cast around the parameter."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Raw) -> bytes:
        return bytes(obj)


class _Context:
    """What connections convert: `Raw` parameters, and jsonb as it was stored."""

    def __init__(self) -> None:
        self.adapters = AdaptersMap(psycopg.adapters)
        self.adapters.register_dumper(Raw, RawDumper)
        self.connection = None
        set_json_loads(loads, self)


class Driver:
    """The connections of one store: a pool for threads and one for tasks, each opened when used."""

    def __init__(
        self, conninfo: str, shown: str, *, size: int, timeout: float, prepare: bool
    ) -> None:
        self.shown, self.timeout = shown, timeout
        self._lock = Lock()
        self._pool: ConnectionPool | None = None
        self._apool: AsyncConnectionPool | None = None
        self._loop: AbstractEventLoop | None = None
        self._closed = False
        self._conninfo = conninfo
        self._arguments: dict[str, Any] = {
            "autocommit": True,
            "context": _Context(),
            "client_encoding": "utf8",
            "fallback_application_name": "nestvec",
            "connect_timeout": max(2, int(timeout)),
        }
        # PgBouncer in transaction mode hands the next transaction another session, where what
        # was prepared is unknown; None prepares nothing.
        if not prepare:
            self._arguments["prepare_threshold"] = None
        self._settings: dict[str, Any] = {
            "min_size": 1,
            "max_size": size,
            "timeout": timeout,
            "reconnect_timeout": timeout,
            "open": False,
            "kwargs": self._arguments,
            "name": "nestvec",
        }

    def send(self, request: Any) -> Any:
        """Perform one request. Raises BackendError, Unavailable or CollectionMissing."""
        if isinstance(request, Close):
            return self.close()
        failures = 0
        while True:
            with self._mapped():
                try:
                    if isinstance(request, Apart):
                        with psycopg.connect(self._conninfo, **self._arguments) as connection:
                            return _one_by_one(connection, request)
                    with self._lent() as connection:
                        return _perform(connection, request)
                except psycopg.Error as error:
                    failures += 1
                    if _lost(error) and (pool := self._pool) is not None:
                        pool.check()  # the others may be dead too
                    if not _worth_repeating(request, error, failures):
                        raise

    async def asend(self, request: Any) -> Any:
        """Perform one request as `send` does, without blocking the event loop."""
        if isinstance(request, Close):
            return await self.aclose()
        failures = 0
        while True:
            with self._mapped():
                try:
                    if isinstance(request, Apart):
                        making = psycopg.AsyncConnection.connect(self._conninfo, **self._arguments)
                        async with await making as connection:
                            return await _aone_by_one(connection, request)
                    async with self._alent() as connection:
                        return await _aperform(connection, request)
                except psycopg.Error as error:
                    failures += 1
                    if _lost(error) and (pool := self._apool) is not None:
                        await pool.check()
                    if not _worth_repeating(request, error, failures):
                        raise

    def close(self) -> None:
        """Close the threads' pool."""
        with self._lock:
            self._closed, pool, self._pool = True, self._pool, None
        if pool is not None:
            pool.close()

    async def aclose(self) -> None:
        """Close the tasks' pool."""
        self._closed, pool, self._apool = True, self._apool, None
        # With a loop that has ended its connections have, too.
        if pool is not None and self._loop is not None and not self._loop.is_closed():
            await pool.close()

    def _opened(self) -> ConnectionPool:
        with self._lock:
            self._check_open()
            if self._pool is None:
                self._pool = ConnectionPool(self._conninfo, **self._settings)
                self._pool.open()
            return self._pool

    async def _aopened(self) -> AsyncConnectionPool:
        self._check_open()
        loop = get_running_loop()
        if self._apool is None:
            # Opening gives way to other tasks only after it has taken effect for them too.
            self._apool, self._loop = AsyncConnectionPool(self._conninfo, **self._settings), loop
            await self._apool.open()
        elif self._loop is not loop:
            raise BackendError(
                f"{self.shown} was opened in another event loop; call aconnect() in each"
            )
        return self._apool

    @contextmanager
    def _lent(self) -> Iterator[psycopg.Connection[Any]]:
        with self._opened().connection() as connection:
            try:
                yield connection
            except BaseException as error:
                if _spoils(error):
                    connection.close()
                raise

    @asynccontextmanager
    async def _alent(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        pool = await self._aopened()
        asked = _times_cancelled()
        connection = await pool.getconn()
        try:
            if _times_cancelled() > asked:
                raise CancelledError  # wait_for, on which the pool waits, loses some before 3.12
            async with connection:
                yield connection
        except BaseException as error:
            if _spoils(error):
                await connection.close()
            raise
        finally:
            # A task that is cancelled while it gives its connection back would keep it for good.
            await shield(pool.putconn(connection))

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.shown} is closed; connect again")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn an error of psycopg into the one that says what it means here."""
        try:
            yield
        except PoolClosed as error:
            raise BackendError(f"{self.shown} was closed; connect again") from error
        except PoolTimeout as error:
            raise Unavailable(
                f"{self.shown}: no connection within {self.timeout:g} s; is the server up, and "
                "pool_size enough for what runs at once?"
            ) from error
        except psycopg.errors.UndefinedTable as error:
            raise CollectionMissing(
                f"{self.shown}: {_message(error)}; the collection was dropped"
            ) from error
        except psycopg.Error as error:
            kind = Unavailable if _lost(error) else BackendError
            raise kind(f"{self.shown}: {_message(error)}{_advice(error)}") from error


def sqlstate(error: BaseException) -> str | None:
    """Return the five characters by which Postgres names what was wrong."""
    return getattr(error.__cause__, "sqlstate", None)


def _lost(error: psycopg.Error) -> bool:
    """Return whether the connection is gone, not only the transaction."""
    state = error.sqlstate
    if isinstance(error, (PoolTimeout, PoolClosed)):
        return False
    return isinstance(error, psycopg.OperationalError) and (
        state is None or state.startswith(("08", "57P"))
    )


def _spoils(error: BaseException) -> bool:
    """Return whether a connection must not go on: one that was interrupted may be anywhere.

    And one that lacks a statement which it takes for prepared may lack others.
    """
    lacking = isinstance(error, psycopg.errors.InvalidSqlStatementName)
    return lacking or not isinstance(error, psycopg.Error)


def _worth_repeating(request: Any, error: psycopg.Error, failures: int) -> bool:
    if isinstance(request, Apart):
        return False
    # A deadlock, or what was not prepared: rolled back, nothing was done.
    if (error.sqlstate or "").startswith(("40", _NOT_PREPARED)):
        return failures < _ROUNDS
    return bool(request.reads) and _lost(error) and failures == 1


def _times_cancelled() -> int:
    """Return how often the running task was asked to end; Python 3.10 does not tell."""
    told: Callable[[], int] | None = getattr(current_task(), "cancelling", None)
    return 0 if told is None else told()


def _message(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip()


#: psycopg takes a statement for prepared also where its pipeline broke off before; and behind a
#: pooler it was prepared in another session.
_NOT_PREPARED = "26000"
_POOLED = "; behind a pooler of transactions, such as PgBouncer, connect with pgbouncer=True"


def _advice(error: psycopg.Error) -> str:
    advice = {
        "57014": "; simplify the query or raise statement_timeout",
        "55P03": "; another session holds the table, try again or raise lock_timeout",
        "42501": "; ask for the right, or choose a schema of your own with ?schema=",
        _NOT_PREPARED: _POOLED,
        "42P05": _POOLED,
    }
    return advice.get(error.sqlstate or "", "")


def _verbatim(request: Copy, connection: psycopg.BaseConnection[Any]) -> bytes:
    """Return what cannot have parameters, so that nothing halves its percent signs again."""
    return request.sql.as_bytes(connection).replace(b"%%", b"%")


def _has_rows(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> bool:
    """Return what `description` tells, which describes every column to tell it."""
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0


def _perform(connection: psycopg.Connection[Any], request: Query | Copy) -> Any:
    if isinstance(request, Query):
        with connection.pipeline():
            cursors = [
                connection.execute(statement.sql, statement.params, binary=True)
                for statement in request.statements
            ]
        return [c.fetchall() if _has_rows(c) else c.rowcount for c in cursors]
    with connection.cursor() as cursor, cursor.copy(_verbatim(request, connection)) as copy:
        for part in request.parts():
            copy.write(part)
    return None


async def _aperform(connection: psycopg.AsyncConnection[Any], request: Query | Copy) -> Any:
    if isinstance(request, Query):
        async with connection.pipeline():
            cursors = [
                await connection.execute(statement.sql, statement.params, binary=True)
                for statement in request.statements
            ]
        return [await c.fetchall() if _has_rows(c) else c.rowcount for c in cursors]
    sql = _verbatim(request, connection)
    async with connection.cursor() as cursor, cursor.copy(sql) as copy:
        for part in request.parts():
            await copy.write(part)
    return None


def _one_by_one(connection: psycopg.Connection[Any], request: Apart) -> Any:
    cursors = (connection.execute(s.sql, s.params, binary=True) for s in request.statements)
    return [c.fetchall() if _has_rows(c) else c.rowcount for c in cursors]


async def _aone_by_one(connection: psycopg.AsyncConnection[Any], request: Apart) -> Any:
    answers = []
    for statement in request.statements:
        cursor = await connection.execute(statement.sql, statement.params, binary=True)
        answers.append(await cursor.fetchall() if _has_rows(cursor) else cursor.rowcount)
    return answers
