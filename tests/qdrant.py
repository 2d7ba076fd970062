"""The Qdrant that tests use: the server of --qdrant-url, one that --qdrant-binary starts, else the
one of tests/rest_server.py."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import uuid
from contextlib import ExitStack, closing
from functools import cache
from typing import Any

from qdrant_client import QdrantClient

from . import qdrant_servers
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
    if (version := _version()) and version < (1, 18):
        lacks.add("turbo")


def _version() -> tuple[int, ...]:
    """Return major and minor version of the server, nothing for the one that is not real."""
    if url is not None:
        with closing(admin()) as client:
            told = client.info().version
    elif qdrant_servers.binary is not None:
        command = [str(qdrant_servers.binary), "--version"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
    else:
        return ()
    return tuple(map(int, told.split(".")[:2]))


def admin() -> QdrantClient:
    """Return a client beside nestvec."""
    key = os.environ.get("QDRANT_API_KEY")
    headers = {"api-key": key} if key else None
    return QdrantClient(url=server(), headers=headers, check_compatibility=False, timeout=60)


def server() -> str:
    """Return the URL of a server."""
    if url is not None:
        return url
    return stand_in()[0] if qdrant_servers.binary is None else qdrant_servers.plain().url


def place() -> dict[str, Any]:
    """Return the URL of a server and the options of connect."""
    if url is None and options.get("prefer_grpc"):
        return {**grpc_place(), **options}
    return {"url": server(), **options}


def grpc_place() -> dict[str, Any]:
    """Return the URL of a server that we run, and the options to ask it over gRPC."""
    if qdrant_servers.binary is not None:
        return qdrant_servers.plain().place(grpc=True)
    there, port = stand_in()
    return {"url": there, "prefer_grpc": True, "grpc_port": port}


@cache
def stand_in() -> tuple[str, int]:
    """Return URL and gRPC port of the server that is not real; it ends with the tests."""
    stack = ExitStack()
    atexit.register(stack.close)
    server = stack.enter_context(running())
    return server.url, stack.enter_context(beside(server))


def started() -> qdrant_servers.Server | None:
    """Return the server where it is one that --qdrant-binary starts."""
    given = url is not None or qdrant_servers.binary is None
    return None if given else qdrant_servers.plain()


def space() -> str:
    """Return the URL of a server that is not real and has no collections."""
    return f"{stand_in()[0]}/space-{uuid.uuid4().hex}"


def prefix() -> str:
    """Return what the names of one test's collections begin with, and no others'."""
    return f"{_OURS}-{uuid.uuid4().hex[:8]}-"


def clean(named: str = _OURS) -> None:
    """Delete collections by how their names begin, by default all that were made."""
    ours = qdrant_servers.plain if qdrant_servers.binary is not None else stand_in
    if url is None and not ours.cache_info().currsize:
        return
    with closing(admin()) as client:
        for made in client.get_collections().collections:
            if made.name.startswith(named):
                client.delete_collection(made.name)
