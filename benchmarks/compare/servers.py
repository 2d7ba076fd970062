"""The servers that the contenders share, started for a run: Postgres, and Qdrant."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
from qdrant_client import QdrantClient

from nestvec.backends.postgres_embedded import get_server

from .limits import Group

__all__ = ["PostgresServer", "QdrantPlace", "QdrantServer", "Server"]


class PostgresServer:
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


class QdrantPlace(NamedTuple):
    """Where a Qdrant server listens, and where it keeps what it has."""

    port: int
    grpc_port: int
    storage: str

    @classmethod
    def of(cls, told: str) -> QdrantPlace:
        return cls(*json.loads(told))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def client(self, *, grpc: bool = True) -> Iterator[QdrantClient]:
        """Open qdrant-client, and close it."""
        made = QdrantClient(
            url=self.url, grpc_port=self.grpc_port, prefer_grpc=grpc, timeout=600,
            check_compatibility=False,
        )  # fmt: skip
        try:
            yield made
        finally:
            made.close()


class QdrantServer:
    """A Qdrant server of a binary that is there, on loopback, in a directory; as it comes."""

    def __init__(self, directory: Path, binary: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._binary = directory.resolve(), binary.resolve()
        self.settings: dict[str, str] = {}
        self._place = QdrantPlace(_free_port(), _free_port(), str(self.directory / "storage"))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return json.dumps(self._place)

    @property
    def versions(self) -> dict[str, str]:
        with urllib.request.urlopen(self._place.url) as answer:
            return {"Qdrant": str(json.load(answer)["version"])}

    def restart(self, settings: dict[str, str], group: Group | None = None) -> None:  # noqa: ARG002
        """Start again; there are no settings that matter."""
        self.stop()
        self.start(group)

    def start(self, group: Group | None = None) -> None:
        if self._process is not None:
            return
        if group is not None:
            group.join()
        place = self._place
        own = {
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(place.port),
            "QDRANT__SERVICE__GRPC_PORT": str(place.grpc_port),
            "QDRANT__SERVICE__ENABLE_STATIC_CONTENT": "false",
            "QDRANT__STORAGE__STORAGE_PATH": place.storage,
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.directory / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }
        try:
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [str(self._binary)], cwd=self.directory, env={**os.environ, **own},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
        finally:
            if group is not None:
                group.leave()
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended; see {self.directory / 'log'}")
            try:
                with urllib.request.urlopen(f"{self._place.url}/readyz"):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the server does not answer")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid


#: What a run starts and stops.
Server = PostgresServer | QdrantServer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
