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

from .grpc_server import beside
from .rest_server import running

#: What --qdrant-url gave; QDRANT_API_KEY is its key.
url: str | None = None

#: What --qdrant-option gave: more options of connect.
options: dict[str, Any] = {}

#: What the server refuses by name.
lacks: set[str] = set()

#: How every collection is named that the tests of this process make.
_OURS = f"nestvec-test-{uuid.uuid4().hex[:8]}"


def use(given: str | None, named: list[str]) -> None:
    """Take a server and options such as `replication_factor=2`; learn what the server lacks."""
    global url  # noqa: PLW0603
    url = given
    for each in named:
        name, _, value = each.partition("=")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    if url is None:
        return
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
    return stand_in()[0] if url is None else url


def place() -> dict[str, Any]:
    """Return the URL of a server and the options of connect."""
    if url is None and options.get("prefer_grpc"):
        return {**grpc_place(), **options}
    return {"url": server(), **options}


def grpc_place() -> dict[str, Any]:
    """Return the URL of the server that is not real, and the options to ask it over gRPC."""
    there, port = stand_in()
    return {"url": there, "prefer_grpc": True, "grpc_port": port}


@cache
def stand_in() -> tuple[str, int]:
    """Return URL and gRPC port of the server that is not real; it ends with the tests."""
    stack = ExitStack()
    atexit.register(stack.close)
    server = stack.enter_context(running())
    return server.url, stack.enter_context(beside(server))


def space() -> str:
    """Return the URL of a server that is not real and has no collections."""
    return f"{stand_in()[0]}/space-{uuid.uuid4().hex}"


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
