"""The Qdrant that tests use: the server of --qdrant-url, else the one of tests/rest_server.py."""

from __future__ import annotations

import atexit
import json
import os
import uuid
from contextlib import ExitStack, closing
from functools import cache
from typing import Any

from qdrant_client import QdrantClient

from .rest_server import running

#: What --qdrant-url gave; QDRANT_API_KEY is its key.
url: str | None = None

#: What --qdrant-option gave: more options of connect.
options: dict[str, Any] = {}

#: What the server refuses by name.
lacks: set[str] = set()

#: How every collection is named that the tests of this process make.
_OURS = f"nestvec-test-{uuid.uuid4().hex[:8]}"


def use(given: str, named: list[str]) -> None:
    """Take a server and options such as `replication_factor=2`; learn what the server lacks."""
    global url  # noqa: PLW0603
    url = given
    for each in named:
        name, _, value = each.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    with closing(admin()) as client:
        major, minor = map(int, client.info().version.split(".")[:2])
    if (major, minor) < (1, 18):
        lacks.add("turbo")


def admin() -> QdrantClient:
    """Return a client beside nestvec."""
    key = os.environ.get("QDRANT_API_KEY")
    headers = {"api-key": key} if key else None
    return QdrantClient(url=server(), headers=headers, check_compatibility=False, timeout=60)


def server() -> str:
    """Return the URL of a server."""
    return stand_in() if url is None else url


@cache
def stand_in() -> str:
    """Return the URL of the server that is not real; it ends with the tests."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running()).url


def space() -> str:
    """Return the URL of a server that is not real and has no collections."""
    return f"{stand_in()}/space-{uuid.uuid4().hex}"


def prefix() -> str:
    """Return what the names of one test's collections begin with, and no others'."""
    return f"{_OURS}-{uuid.uuid4().hex[:8]}-"


def clean(named: str = _OURS) -> None:
    """Delete collections by how their names begin, by default all that were made."""
    if url is None and not stand_in.cache_info().currsize:
        return
    with closing(admin()) as client:
        for made in client.get_collections().collections:
            if made.name.startswith(named):
                client.delete_collection(made.name)
