"""The Qdrant that tests use: the server of --qdrant-url, else local mode behind the REST API."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache

from qdrant_client import QdrantClient

from .rest_server import running

#: What --qdrant-url gave; QDRANT_API_KEY is its key. The collections below are deleted there.
url: str | None = None

COLLECTIONS = ("docs", "one", "two", "other")


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
    key = os.environ.get("QDRANT_API_KEY")
    headers = {"api-key": key} if key else None
    client = QdrantClient(url=server(), headers=headers, check_compatibility=False, timeout=60)
    for collection in COLLECTIONS:
        client.delete_collection(collection)
    client.close()
    return server()
