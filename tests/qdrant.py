"""The Qdrant that tests use: the server of --qdrant-url, else local mode behind the REST API."""

from __future__ import annotations

import atexit
import os
import re
from contextlib import ExitStack, closing
from functools import cache

from qdrant_client import QdrantClient

from .rest_server import running

#: What --qdrant-url gave; QDRANT_API_KEY is its key. What is named as below is deleted there.
url: str | None = None

#: What the server refuses by name.
lacks: set[str] = set()

#: The names of collections that tests make.
OURS = re.compile(r"docs|one|two|other|[cr]\d+")


def use(given: str) -> None:
    """Take a server, and learn what it lacks."""
    global url  # noqa: PLW0603
    url = given
    with closing(admin()) as client:
        major, minor = map(int, client.info().version.split(".")[:2])
    if (major, minor) < (1, 18):
        lacks.add("turbo")


def admin() -> QdrantClient:
    """Return a client beside nestvec."""
    key = os.environ.get("QDRANT_API_KEY")
    headers = {"api-key": key} if key else None
    return QdrantClient(url=server(), headers=headers, check_compatibility=False, timeout=60)


@cache
def server() -> str:
    """Return the URL of a server; the one that is not real ends with the tests."""
    if url is not None:
        return url
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running()).url


def place() -> str:
    """Return the URL of a server that has none of the collections that tests make."""
    with closing(admin()) as client:
        for made in client.get_collections().collections:
            if OURS.fullmatch(made.name):
                client.delete_collection(made.name)
    return server()
