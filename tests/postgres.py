"""The Postgres that tests use: the embedded one, or the one of --pg-dsn."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cache
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier

#: What --pg-dsn gave: a URL without ?schema=, whose role may create schemas.
dsn: str | None = None

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


def clean() -> None:
    """Drop the schemas that were made."""
    if _made:
        with admin() as connection:
            for schema in _made:
                # Many tables in one transaction would need more locks than a server has.
                sql = SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema))
                connection.execute(sql)
        _made.clear()
