"""Real Qdrant servers for the tests: processes of this machine that listen on loopback only.

    with Server() as server:                       # ports and a directory of its own
        store = nestvec.connect(**server.place())  # or server.place(grpc=True)
        server.kill(); server.restart(); server.pause(); server.resume()
        server.settings["storage"]["recovery_mode"] = "why"; server.restart()

`plain()`, `strict()`, `keyed()` and `cluster()` are shared by the tests of a process. All of them
end with that process, however it ends: a watching process kills them once its pipe is closed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qdrant_client import QdrantClient

#: What --qdrant-binary or NESTVEC_QDRANT gave.
binary: Path | None = None

#: The keys of `keyed()`; the first signs its tokens.
KEY, READ_ONLY_KEY = "key-of-the-tests", "read-only-key-of-the-tests"

#: How a new collection of `strict()` is limited, beside what Qdrant Cloud sets for everyone: no
#: filter on a key without an index.
LIMITS: dict[str, Any] = {
    "enabled": True,
    "max_query_limit": 100,
    "max_timeout": 60,
    "unindexed_filtering_retrieve": False,
    "unindexed_filtering_update": False,
    "search_max_hnsw_ef": 128,
    "search_allow_exact": False,
    "search_max_oversampling": 4.0,
    "upsert_max_batchsize": 100,
    "search_max_batchsize": 10,
    "filter_max_conditions": 64,
    "condition_max_size": 256,
    "max_payload_index_count": 10,
}

#: Seconds until a server that was started must answer.
PATIENCE = 60.0

_WATCH = """
import os, shutil, signal, sys
alive = set()
for line in sys.stdin:
    sign, pid = line.split()
    alive.add(int(pid)) if sign == "+" else alive.discard(int(pid))
for pid in alive:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


def use(path: str | Path) -> None:
    """Take a binary, by its path or as a command."""
    global binary  # noqa: PLW0603
    found = shutil.which(path)
    if found is None:
        raise FileNotFoundError(f"--qdrant-binary: there is no program {path}")
    binary = Path(found).resolve()


class _Watch:
    """A directory for servers, and a process that kills them and removes it after our own end."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="nestvec-qdrant-"))
        # A session of its own, so that Ctrl-C in a terminal reaches pytest only.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, str(self.root)],
            stdin=subprocess.PIPE, start_new_session=True, text=True,
        )  # fmt: skip

    def tell(self, sign: str, pid: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{sign} {pid}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@cache
def _watch() -> _Watch:
    return _Watch()


@cache
def _ports() -> Iterator[int]:
    """Ports below those that the system gives to clients, other ones for each process."""
    first = 20_000 + os.getpid() % 100 * 100
    return (first + n % 100 for n in count())


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    for port in _ports():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


def until(holds: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Return what a call returns once that is true. Raises TimeoutError after so many seconds."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if found := holds():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


class Server:
    """One server process; `settings` are those of Qdrant's config.yaml, read at each start.

    With `disk`, in megabytes, its storage is a file system of that size that a test can fill; what
    is there is gone when the process ends. With `cluster`, it is a node: of its own cluster, or of
    the one that `joins` belongs to.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        disk: int | None = None,
        cluster: bool = False,
        joins: Server | None = None,
    ) -> None:
        assert binary is not None, "give --qdrant-binary, or NESTVEC_QDRANT"
        self.port, self.grpc_port, self.p2p_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key, self._disk = key, disk
        self._clustered, self._joins = cluster or joins is not None, joins
        self.settings = _merged(self._usual(), settings or {})
        self.directory = Path(tempfile.mkdtemp(dir=_watch().root))
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _usual(self) -> dict[str, Any]:
        return {
            "log_level": "INFO",
            "telemetry_disabled": True,
            "service": {
                "host": "127.0.0.1",
                "http_port": self.port,
                "grpc_port": self.grpc_port,
                "enable_static_content": False,
                **({"api_key": self.key} if self.key else {}),
            },
            "cluster": {"enabled": self._clustered, "p2p": {"port": self.p2p_port}},
        }

    def _command(self) -> list[str]:
        command = [str(binary), "--disable-telemetry"]
        if self._clustered:
            command += ["--uri", f"http://127.0.0.1:{self.p2p_port}"]
        if self._joins is not None:
            command += ["--bootstrap", f"http://127.0.0.1:{self._joins.p2p_port}"]
        if self._disk is None:
            return command
        # A mount that only this process sees, and that ends with it.
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        mount = f'mount -t tmpfs -o size={self._disk}m tmpfs storage && exec "$@"'
        return ["unshare", *user, "--mount", "sh", "-c", mount, "sh", *command]

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the process."""
        config = self.directory / "config"
        config.mkdir(exist_ok=True)
        (self.directory / "storage").mkdir(exist_ok=True)
        # JSON is YAML too.
        (config / "config.yaml").write_text(json.dumps(self.settings))
        own = {name: v for name, v in os.environ.items() if not name.startswith("QDRANT")}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=self.directory, env=own, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        _watch().tell("+", self.process.pid)

    def wait(self) -> None:
        """Wait until the server is ready, over REST and gRPC."""
        until(self._is_ready, f"{self.url} is ready")

    def _is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self.log()[-4_000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.grpc_port), timeout=1).close()
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and answer of one REST request, made beside every client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {
            "Content-Type": "application/json",
            **({"api-key": self.key} if self.key else {}),
        }
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(told)
        except ValueError:
            return answer.status, told.decode(errors="replace")

    def place(self, *, grpc: bool = False, **options: Any) -> dict[str, Any]:
        """Return the options of connect that lead here."""
        key = {"api_key": self.key} if self.key else {}
        how = {"prefer_grpc": True, "grpc_port": self.grpc_port} if grpc else {}
        return {"url": self.url, **key, **how, **options}

    def client(self) -> QdrantClient:
        """Return a client beside nestvec; the caller closes it."""
        headers = {"api-key": self.key} if self.key else None
        return QdrantClient(url=self.url, headers=headers, check_compatibility=False, timeout=60)

    def collections(self) -> list[str]:
        """Return the names of all collections."""
        return [
            each["name"] for each in self.ask("GET", "/collections")[1]["result"]["collections"]
        ]

    def clean(self, prefix: str = "") -> None:
        """Delete collections by how their names begin, by default all."""
        for name in self.collections():
            if name.startswith(prefix):
                self.ask("DELETE", f"/collections/{quote(name)}")

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor, *_ = self.ask("GET", "/")[1]["version"].split(".")
        return int(major), int(minor)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """Return what the server has written."""
        return (self.directory / "log").read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, as a crash or the system does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        self.signal(number)
        self.resume()  # one that is paused takes no SIGTERM
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _watch().tell("-", self.process.pid)
        self.process = None

    def pause(self) -> None:
        """Stop answering: connections stay open, and new ones are taken by the system."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a pause."""
        self.signal(signal.SIGCONT)

    def restart(self) -> None:
        """End the process if it runs, and start it again on the same ports and directory."""
        self.stop()
        self.start()

    def _filler(self) -> Path:
        assert self._disk is not None
        assert self.process is not None
        return (
            Path(f"/proc/{self.process.pid}/root")
            / self.directory.relative_to("/")
            / ("storage/filler")
        )

    def fill(self, *, leave: int = 0) -> None:
        """Fill the disk up, but for so many megabytes."""
        filler = self._filler()
        with filler.open("wb") as file:
            room = os.statvfs(filler.parent)
            size = room.f_bavail * room.f_frsize - leave * 2**20
            os.posix_fallocate(file.fileno(), 0, size)

    def free(self) -> None:
        """Undo `fill`."""
        self._filler().unlink()

    def close(self) -> None:
        """End the process and remove its directory."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for name, value in other.items():
        inner = both.get(name)
        both[name] = _merged(inner, value) if isinstance(inner, dict) else value
    return both


class Cluster:
    """Nodes of one cluster on this machine; any of them takes any request."""

    def __init__(self, size: int = 3, settings: Mapping[str, Any] | None = None) -> None:
        with ExitStack() as undo:
            self.nodes: list[Server] = []
            for n in range(size):
                node = Server(settings, cluster=True, joins=self.nodes[0] if n else None)
                undo.callback(node.close)
                self.nodes.append(node)
            self.wait()
            undo.pop_all()

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def place(self, node: int = 0, *, grpc: bool = False, **options: Any) -> dict[str, Any]:
        """Return the options of connect that lead to a node."""
        return self.nodes[node].place(grpc=grpc, **options)

    def wait(self) -> None:
        """Wait until the running nodes agree on a leader and know of all nodes."""
        until(self._is_settled, "the nodes are a cluster")

    def _is_settled(self) -> bool:
        told = [_raft(node) for node in self.nodes if node.alive]
        if not all(told):
            return False
        [leader, *others] = {each["raft_info"]["leader"] for each in told}
        return (
            not others
            and leader in {each["peer_id"] for each in told}
            and all(len(each["peers"]) == len(self.nodes) for each in told)
            and not any(each["raft_info"]["pending_operations"] for each in told)
        )

    def leader(self) -> int:
        """Return which of the nodes leads."""
        self.wait()
        told = {n: _raft(node) for n, node in enumerate(self.nodes) if node.alive}
        [found] = [n for n, raft in told.items() if raft["peer_id"] == raft["raft_info"]["leader"]]
        return found

    def replicas_are_active(self, collection: str) -> bool:
        """Whether every replica of a collection has what it must."""
        told = self.nodes[0].ask("GET", f"/collections/{collection}/cluster")[1]["result"]
        shards = [*told["local_shards"], *told["remote_shards"]]
        return not told["shard_transfers"] and all(each["state"] == "Active" for each in shards)

    def clean(self, prefix: str = "") -> None:
        """Delete collections by how their names begin, by default all."""
        self.nodes[0].clean(prefix)

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _raft(node: Server) -> dict[str, Any]:
    """Return what a node says of its cluster, nothing where it does not answer."""
    try:
        status, told = node.ask("GET", "/cluster")
    except OSError:
        return {}
    return dict(told["result"]) if status == 200 else {}


def token(access: str | Sequence[Mapping[str, str]], *, key: str = KEY, **claims: Any) -> str:
    """Return a token that a server with this key takes: "r", "m", or what it says of collections.

    For one collection: `[{"collection": "docs", "access": "rw"}]`, which may be "r", "rw" or "prw".
    """
    parts = ({"alg": "HS256", "typ": "JWT"}, {"access": access, **claims})
    text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    signature = hmac.new(key.encode(), text, hashlib.sha256).digest()
    return b".".join((text, _base64(signature))).decode()


def _base64(told: bytes) -> bytes:
    return base64.urlsafe_b64encode(told).rstrip(b"=")


_shared = ExitStack()


@cache
def plain() -> Server:
    """Return a server as it is when nothing is set."""
    return _shared.enter_context(Server())


@cache
def strict() -> Server:
    """Return a server whose new collections have the LIMITS."""
    return _shared.enter_context(Server({"storage": {"collection": {"strict_mode": LIMITS}}}))


@cache
def keyed() -> Server:
    """Return a server with KEY, READ_ONLY_KEY and tokens."""
    settings = {"service": {"read_only_api_key": READ_ONLY_KEY, "jwt_rbac": True}}
    return _shared.enter_context(Server(settings, key=KEY))


@cache
def cluster() -> Cluster:
    """Return a cluster of three."""
    return _shared.enter_context(Cluster())


def close() -> None:
    """End what is shared."""
    _shared.close()
    if _watch.cache_info().currsize:
        _watch().close()
