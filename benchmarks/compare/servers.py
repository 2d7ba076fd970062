"""The Postgres that the contenders share: started for a run, or one that is there."""

from __future__ import annotations

from pathlib import Path

import psutil
import psycopg

from nestvec.backends.postgres_embedded import get_server

from .limits import Group

__all__ = ["Server"]


class Server:
    """An embedded server in a directory, with settings that suit the machine.

    Its buffers are a quarter of the memory, up to 4 GB; autovacuum is off, so that it does not run
    beside one contender and not beside the other, and each table is vacuumed once it is loaded.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._server = get_server(directory, cleanup_mode=None)
        buffers = min(4 << 30, psutil.virtual_memory().total // 4)
        self.settings = {
            "shared_buffers": f"{buffers >> 20}MB",
            "maintenance_work_mem": "3GB",
            "max_wal_size": "8GB",
            "autovacuum": "off",
        }
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        self.restart(self.settings)

    @property
    def url(self) -> str:
        uri: str = self._server.get_uri()
        return uri

    @property
    def versions(self) -> dict[str, str]:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), extversion FROM pg_extension"
                " WHERE extname = 'vector'"
            ).fetchone()
        assert row is not None
        return {"Postgres": str(row[0]).split()[0], "pgvector": str(row[1])}

    def restart(self, settings: dict[str, str], group: Group | None = None) -> None:
        """Start again with settings, in a memory limit if one is given."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        self._server.stop()
        self._start(group)

    def _start(self, group: Group | None) -> None:
        if group is not None:
            group.join()
        try:
            self._server.ensure_postgres_running()
        finally:
            if group is not None:
                group.leave()

    def stop(self) -> None:
        self._server.stop()

    def start(self, group: Group | None = None) -> None:
        self._start(group)

    @property
    def pid(self) -> int | None:
        found: int | None = self._server.get_pid()
        return found
