"""URLs of engines: which there are, what each can mean, and where a path in one leads for good."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .errors import ConfigError
from .secrets import redacted

__all__ = ["ENGINES", "absolute", "located", "scheme_of"]

#: URL scheme → module, class of the backend, class of its options, and the extra it needs.
ENGINES = {
    "memory": ("memory", "MemoryBackend", "MemoryOptions", ""),
    "edge": ("edge", "EdgeBackend", "EdgeOptions", ""),
    "http": ("qdrant", "QdrantBackend", "QdrantOptions", "qdrant"),
    "https": ("qdrant", "QdrantBackend", "QdrantOptions", "qdrant"),
    "qdrant+local": ("qdrant", "QdrantBackend", "QdrantOptions", "qdrant"),
    "postgresql": ("postgres", "PostgresBackend", "PostgresOptions", "postgres"),
    "postgres": ("postgres", "PostgresBackend", "PostgresOptions", "postgres"),
    "postgresql+embedded": (
        "postgres_embedded",
        "EmbeddedPostgresBackend",
        "PostgresOptions",
        "postgres-embedded",
    ),
}

#: The engines that keep a collection in a directory.
_LOCAL = ("edge", "qdrant+local", "postgresql+embedded")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}", re.IGNORECASE)

#: What libpq opens by name each time it connects.
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")


def scheme_of(url: Any) -> str:
    """Return the scheme of a URL, one of ENGINES. Raises ConfigError, which shows no secret."""
    if not isinstance(url, str):
        raise _no_text(url)
    if not url.strip():
        raise ConfigError("url is empty; is the variable that it comes from set?")
    if url != url.strip() or "\0" in url or not _encodes(url):
        raise ConfigError(
            f"url {redacted(url)!r} has spaces or a newline around it, a NUL or a lone surrogate"
        )
    scheme, colon, _ = url.partition(":")
    if scheme in ENGINES and colon:
        return scheme
    known = ", ".join(f"{name}:" for name in ENGINES)
    shown = scheme if _SCHEME.fullmatch(scheme) else redacted(url)
    raise ConfigError(f"unknown URL scheme {shown!r}; known are {known}{_meant(url)}")


def _no_text(url: object) -> ConfigError:
    if url is None:
        return ConfigError("url is None; is the variable that it comes from set?")
    if isinstance(url, PathLike):
        return ConfigError(f"url is a text, got {type(url)}; write 'edge:{os.fspath(url)}'")
    return ConfigError(f"url is a text such as 'edge:./papers', got {type(url)}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _meant(url: str) -> str:
    """Return what may have been meant by a URL of no known scheme, as the end of an error."""
    if url.startswith(("/", ".", "~")) or not re.search("[:=]", url):
        return f"; for a directory write 'edge:{redacted(url)}'"
    if url.startswith("file:"):
        return "; for a directory write 'edge:./papers' or 'edge:/data/papers'"
    if "=" in url and re.search(r"\b(host|dbname|user|port|service)\s*=", url):
        return "; for Postgres write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    return ""


def located(url: str) -> str:
    """Return a URL of one of ENGINES with every path in it absolute, from the directory of now.

    Raises ConfigError on a form that cannot mean a path.
    """
    scheme, _, place = url.partition(":")
    if scheme in ("postgresql", "postgres"):
        return _with_files(url)
    if scheme not in _LOCAL or (scheme == "qdrant+local" and place == ":memory:"):
        return url
    path, mark, query = place.partition("?") if scheme.startswith("postgres") else (place, "", "")
    return f"{scheme}:{_directory(scheme, path)}{_with_files(mark + query)}"


def _directory(scheme: str, place: str) -> str:
    if not place.strip() or place == "//":
        raise ConfigError(f"{scheme}: needs a directory, as in '{scheme}:./papers'")
    if place.startswith("///") and not place.startswith("////"):
        place = place[2:]  # as in a file's URL
    if place.startswith("//"):
        name = place.lstrip("/")
        here = name if name.startswith(("./", "../", "~")) or name in (".", "..") else f"./{name}"
        there = "" if here == name else f" or '{scheme}:/{name}'"
        raise ConfigError(
            f"'{scheme}:{place}' names a host, and {scheme} has none; "
            f"write '{scheme}:{here}'{there}"
        )
    if place.startswith("file:"):
        raise ConfigError(f"'{scheme}:{place}' is a URL in a URL; write '{scheme}:' and the path")
    if place != place.strip():
        raise ConfigError(f"'{scheme}:{place}' has spaces around its directory")
    return absolute(place)


def absolute(path: str | PathLike[str]) -> str:
    """Return a path as it leads from the working directory of now, `~` written out.

    Raises ConfigError where that cannot be known.
    """
    given = os.fspath(path)
    try:
        made = Path(given).expanduser().absolute()
        # Only the file system knows what .. means behind a link.
        return str(made.resolve() if ".." in made.parts else made)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"path {given!r} leads nowhere: {error}") from None


def _with_files(url: str) -> str:
    """Return a Postgres URL with the files in its query by their absolute paths."""
    base, mark, query = url.partition("?")
    parts = []
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if name in _FILES and value and not (name == "sslrootcert" and value == "system"):
            value = quote(absolute(unquote(value)))
        parts.append(name + equals + value)
    return base + mark + "&".join(parts)
