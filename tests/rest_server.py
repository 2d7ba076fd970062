"""A small server that speaks Qdrant's REST API, in front of the Qdrant engine of Edge.

It is for what goes over the wire: every body must be one of the published OpenAPI models, which
forbid what they do not know, and must come out of that model as it came in. Faults can be put in
front of any answer. A URL may go on with a path, as /space-1, that has collections of its own.

    python -m tests.rest_server 6399 &
    pytest tests/conformance --qdrant-url http://localhost:6399
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter
from qdrant_client import models

from .qdrant_engine import Engine, EngineError


@dataclass
class Fault:
    """What goes wrong with one request."""

    #: Before the work "status", "drop", "hang", or an answer of bytes in `raw`; after it "answer"
    #: (with the status), "lose", "truncate", "garble" or "drip" (a byte at a time).
    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"status": {"error": "the reason"}, "time": 0}'
    seconds: float = 3.0
    #: What is sent for the whole answer, piece by piece, with so many seconds in between.
    raw: Callable[[], Iterable[bytes]] | None = None
    #: Only requests whose "METHOD /path" this is found in.
    of: str = ""


@dataclass
class Seen:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: Any
    at: float = field(default_factory=time.monotonic)


class RestServer(ThreadingHTTPServer):
    """The server, its faults still to come, and what it has seen."""

    daemon_threads = True

    def __init__(self, port: int = 0, *, version: str = "1.18.3", recovers: bool = False) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine = Engine()
        self.turn = Lock()
        self.faults: list[Fault] = []
        self.ended = Event()
        self.seen: list[Seen] = []
        self.version = version
        #: What telemetry says of recovery mode.
        self.recovers = recovers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def lines(self, of: str = "") -> list[str]:
        """Return what was asked, in order."""
        return [seen.line for seen in self.seen if of in seen.line]

    def next_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            # Telemetry is asked beside what failed, to learn why.
            if fault.of in line and (fault.of or not line.endswith("/telemetry")):
                self.faults.remove(fault)
                return fault
        return None

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is what the faults are for."""

    def server_close(self) -> None:
        self.ended.set()
        super().server_close()
        self.engine.close()


@contextmanager
def running(**settings: Any) -> Iterator[RestServer]:
    """Run a server on a free port."""
    with RestServer(**settings) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


Handle = Callable[[RestServer, str, Any, dict[str, str]], Any]

_DONE = {"operation_id": 0, "status": "completed"}


def create(server: RestServer, name: str, body: models.CreateCollection, _: Any) -> Any:
    return server.engine.create(name, body)


def update(server: RestServer, name: str, body: models.UpdateCollection, _: Any) -> Any:
    # The graphs and quantisations of vectors say nothing here: local mode is exact.
    server.engine[name].metadata.update(body.metadata or {})
    return True


def info(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    return server.engine[name].info()


def drop(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    return server.engine.drop(name)


def upsert(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    server.engine[name].upsert(_points(body))
    return _DONE


def _points(body: Any) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(body, models.PointsList):
        for point in body.points:
            yield point.id, point.vector, point.payload
        return
    batch = body.batch
    payloads = batch.payloads or [None] * len(batch.ids)
    vectors = batch.vectors
    rows = (
        [dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True)]
        if isinstance(vectors, dict)
        else vectors
    )
    yield from zip(batch.ids, rows, payloads, strict=True)


def delete(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    server.engine[name].delete(body)
    return _DONE


def retrieve(server: RestServer, name: str, body: models.PointRequest, _: Any) -> Any:
    return server.engine[name].retrieve(body.ids, body.with_payload, body.with_vector)


def scroll(server: RestServer, name: str, body: models.ScrollRequest, _: Any) -> Any:
    return server.engine[name].scroll(body)


def count(server: RestServer, name: str, body: models.CountRequest, _: Any) -> Any:
    assert body.exact
    return {"count": server.engine[name].count(body.filter)}


def query(server: RestServer, name: str, body: models.QueryRequest, _: Any) -> Any:
    return server.engine[name].query(body)


def query_batch(server: RestServer, name: str, body: models.QueryRequestBatch, _: Any) -> Any:
    return [server.engine[name].query(search) for search in body.searches]


def index(server: RestServer, name: str, body: models.CreateFieldIndex, _: Any) -> Any:
    server.engine[name].index(body.field_name, body.field_schema)
    return _DONE


def cluster(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    shards = [
        {"shard_id": n, "shard_key": key, "points_count": 0, "state": "Active"}
        for n, key in enumerate(server.engine[name].shard_keys)
    ]
    return {
        "peer_id": 1, "shard_count": len(shards), "local_shards": shards, "remote_shards": [],
        "shard_transfers": [],
    }  # fmt: skip


def new_vector(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    server.engine[name].new_vector(params["vector"], body.dense)
    return {"operation_id": 0, "status": "completed"}


def delete_vector(server: RestServer, name: str, _body: Any, params: dict[str, str]) -> Any:
    server.engine[name].delete_vector(params["vector"])
    return {"operation_id": 0, "status": "completed"}


def update_vectors(
    server: RestServer, name: str, body: models.UpdateVectors, params: dict[str, str]
) -> Any:
    assert params["wait"] == "true"
    server.engine[name].update_vectors(body.points)
    return {"operation_id": 0, "status": "completed"}


def new_shard(server: RestServer, name: str, body: models.CreateShardingKey, _: Any) -> Any:
    keys = server.engine[name].shard_keys
    if body.shard_key in keys:
        raise EngineError(400, f"Sharding key {body.shard_key} already exists")
    keys.append(body.shard_key)
    return True


def exists(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    return {"exists": name in server.engine.collections}


def every(server: RestServer, _name: str, _body: Any, _: Any) -> Any:
    return {"collections": [{"name": name} for name in server.engine.collections]}


ROUTES: dict[str, tuple[Any, Handle]] = {
    "GET /collections": (None, every),
    "GET /collections/{}/exists": (None, exists),
    "GET /collections/{}/cluster": (None, cluster),
    "GET /collections/{}": (None, info),
    "PUT /collections/{}": (models.CreateCollection, create),
    "PATCH /collections/{}": (models.UpdateCollection, update),
    "DELETE /collections/{}": (None, drop),
    "PUT /collections/{}/points": (models.PointInsertOperations, upsert),
    "POST /collections/{}/points": (models.PointRequest, retrieve),
    "POST /collections/{}/points/scroll": (models.ScrollRequest, scroll),
    "POST /collections/{}/points/count": (models.CountRequest, count),
    "POST /collections/{}/points/query": (models.QueryRequest, query),
    "POST /collections/{}/points/query/batch": (models.QueryRequestBatch, query_batch),
    "POST /collections/{}/points/delete": (models.PointsSelector, delete),
    "PUT /collections/{}/points/vectors": (models.UpdateVectors, update_vectors),
    "PUT /collections/{}/vectors/{}": (models.VectorNameConfig, new_vector),
    "DELETE /collections/{}/vectors/{}": (None, delete_vector),
    "PUT /collections/{}/index": (models.CreateFieldIndex, index),
    "PUT /collections/{}/shards": (models.CreateShardingKey, new_shard),
}
PARSERS = {line: TypeAdapter(kind) for line, (kind, _) in ROUTES.items() if kind is not None}


def parsed(line: str, body: bytes) -> Any:
    """Return the model that a body is, having checked that it says nothing else."""
    if len(body) > 1_000_000:  # ten thousands of vectors say nothing that a few do not
        return PARSERS[line].validate_json(body)
    read = json.loads(body, parse_float=_roughly)
    assert not list(_empty(read)), f"{line}: an empty object in {body!r}"
    model = PARSERS[line].validate_python(read)
    again = json.loads(model.model_dump_json(exclude_unset=True, exclude_none=True))
    assert again == read, f"{line}: {again} is not {body!r}"
    return model


def _empty(value: Any) -> Iterator[Any]:
    """Yield the objects that say nothing, which a cluster would wait for; payloads may."""
    if isinstance(value, list):
        for item in value:
            yield from _empty(item)
    if isinstance(value, dict):
        if not value:
            yield value
        for key, item in value.items():
            if key not in ("payload", "payloads"):
                yield from _empty(item)


def _roughly(number: str) -> float:
    """Return the number that a server takes a decimal for: fast, and up to two floats off."""
    mantissa, _, exponent = number.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    value, power = float(int(whole + fraction)), int(exponent or 0) - len(fraction)
    while power < -308:
        value, power = value / 1e308, power + 308
    value = value * float(f"1e{power}") if power >= 0 else value / float(f"1e{-power}")
    return math.copysign(value, -1.0 if number.startswith("-") else 1.0)


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        line = f"{self.command} {unquote(address.path)}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = json.loads(body) if body and len(body) < 1_000_000 else None
        self.server.seen.append(Seen(line, headers, told))
        fault = self.server.next_fault(line)
        if fault is not None and fault.kind in ("status", "drop", "hang", "raw"):
            return self._fail(fault)
        params = {name: values[0] for name, values in parse_qs(address.query).items()}
        status, told = self._work(address.path, body, params)
        if fault is not None:
            return self._spoil(fault, told)
        return self._send(status, {}, told)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _work(self, path: str, body: bytes, params: dict[str, str]) -> tuple[int, bytes]:
        match = re.fullmatch(r"(/space-\w+)?/(?:telemetry|collections(?:/([^/]+)(.*))?)?", path)
        assert match is not None, path
        space, name, rest = match[1] or "", unquote(match[2] or ""), match[3]
        if not path.removeprefix(space).strip("/"):
            return 200, json.dumps({"title": "qdrant", "version": self.server.version}).encode()
        if path.endswith("/telemetry"):
            return 200, self._telemetry()
        rest = f"/{{}}{rest}" if name else ""
        if vector := re.fullmatch(r"/{}/vectors/([^/]+)", rest):
            params, rest = {**params, "vector": unquote(vector[1])}, "/{}/vectors/{}"
        line = f"{self.command} /collections{rest}"
        _, handle = ROUTES[line]
        try:
            model = parsed(line, body) if body else None
        except (ValueError, AssertionError) as error:
            return 422, _error(f"not a model of the API: {error}")
        try:
            with self.server.turn:
                result = handle(self.server, space + name, model, params)
        except EngineError as error:
            return error.status, _error(str(error))
        except Exception as error:  # noqa: BLE001  (the engine raises plain Exception)
            return 400, _error(f"Wrong input: {error}")
        return 200, TypeAdapter(Any).dump_json({"result": result, "status": "ok", "time": 0.0})

    def _telemetry(self) -> bytes:
        features = dict.fromkeys(("debug", "service_debug_feature", "gpu", "rocksdb"), False)
        app = {
            "name": "qdrant", "version": self.server.version, "startup": "2026-01-01T00:00:00Z",
            "features": {**features, "recovery_mode": self.server.recovers},
        }  # fmt: skip
        told = {"id": str(uuid.uuid4()), "app": app, "collections": {"number_of_collections": 0}}
        return json.dumps({"result": told, "status": "ok", "time": 0.0}).encode()

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "status":
            return self._send(fault.status, fault.headers, fault.body.encode())
        if fault.kind == "raw":
            assert fault.raw is not None
            return self._piecewise(fault.raw(), fault.seconds)
        if fault.kind == "hang":
            Event().wait(fault.seconds)  # not time.sleep, which tests replace
        return self._hang_up()

    def _spoil(self, fault: Fault, told: bytes) -> None:
        if fault.kind == "lose":
            return self._hang_up()
        if fault.kind == "answer":
            return self._send(fault.status, fault.headers, fault.body.encode())
        if fault.kind == "garble":
            return self._send(200, {}, told[: len(told) // 2])
        if fault.kind == "drip":
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told)
            return self._piecewise(bytes([each]) for each in head + told)
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told[: len(told) // 2])
        return self._hang_up()

    def _piecewise(self, pieces: Iterable[bytes], seconds: float = 0.02) -> None:
        """Send an answer in pieces until the client hangs up, or the server ends."""
        self.close_connection = True
        for piece in pieces:
            self.wfile.write(piece)
            if seconds and self.server.ended.wait(seconds):
                return

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _error(message: str) -> bytes:
    return json.dumps({"status": {"error": message}, "time": 0.0}).encode()


if __name__ == "__main__":
    with RestServer(int(sys.argv[1])) as server:
        server.serve_forever()
