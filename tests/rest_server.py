"""A small server that speaks Qdrant's REST API, in front of qdrant-client's local mode.

It is for what goes over the wire: every body must be one of the published OpenAPI models, which
forbid what they do not know, and must come out of that model as it came in. Faults can be put in
front of any answer.

    python -m tests.rest_server 6399 &
    pytest tests/conformance --qdrant-url http://localhost:6399
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models


@dataclass
class Fault:
    """What goes wrong with one request."""

    #: "status", "drop" (before the work), "lose" (after it), "hang", "truncate" or "garble".
    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"status": {"error": "the reason"}, "time": 0}'
    seconds: float = 3.0
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

    def __init__(self, port: int = 0, *, keeps_metadata: bool = True) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine = QdrantClient(":memory:")
        self.turn = Lock()
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.shard_keys: list[Any] = []
        self.indexes: dict[str, models.PayloadIndexInfo] = {}
        #: Servers before 1.16 drop a collection's metadata unread.
        self.keeps_metadata = keeps_metadata

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def lines(self, of: str = "") -> list[str]:
        """Return what was asked, in order."""
        return [seen.line for seen in self.seen if of in seen.line]

    def next_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.of in line:
                self.faults.remove(fault)
                return fault
        return None

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is what the faults are for."""


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


def create(server: RestServer, name: str, body: models.CreateCollection, _: Any) -> Any:
    if not server.keeps_metadata:
        body.metadata = None
    return server.engine.create_collection(
        name, vectors_config=body.vectors, metadata=body.metadata,
        optimizers_config=body.optimizers_config,
    )  # fmt: skip


def update(server: RestServer, name: str, body: models.UpdateCollection, _: Any) -> Any:
    # The graphs and quantisations of vectors say nothing here: local mode is exact.
    if body.vectors is not None and body.metadata is None:
        return True
    return server.engine.update_collection(name, metadata=body.metadata)


def info(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    told = server.engine.get_collection(name)
    told.payload_schema = server.indexes
    return told


def drop(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    server.indexes.clear()
    return server.engine.delete_collection(name)


def upsert(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    made = body.points if isinstance(body, models.PointsList) else body.batch
    return server.engine.upsert(name, made)


def delete(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    return server.engine.delete(name, points_selector=body)


def retrieve(server: RestServer, name: str, body: models.PointRequest, _: Any) -> Any:
    return server.engine.retrieve(
        name, body.ids, with_payload=bool(body.with_payload), with_vectors=body.with_vector or False
    )


def scroll(server: RestServer, name: str, body: models.ScrollRequest, _: Any) -> Any:
    points, after = server.engine.scroll(
        name, scroll_filter=body.filter, limit=body.limit or 10, offset=body.offset,
        with_payload=bool(body.with_payload), with_vectors=body.with_vector or False,
    )  # fmt: skip
    return {"points": points, "next_page_offset": after}


def count(server: RestServer, name: str, body: models.CountRequest, _: Any) -> Any:
    return server.engine.count(name, count_filter=body.filter, exact=True)


def query(server: RestServer, name: str, body: models.QueryRequest, _: Any) -> Any:
    return query_batch(server, name, models.QueryRequestBatch(searches=[body]), {})[0]


def query_batch(server: RestServer, name: str, body: models.QueryRequestBatch, _: Any) -> Any:
    bare = [search.model_copy(update={"params": None}) for search in body.searches]
    return server.engine.query_batch_points(name, bare)


def index(server: RestServer, _name: str, body: models.CreateFieldIndex, _: Any) -> Any:
    kind = body.field_schema
    assert isinstance(kind, (models.PayloadSchemaType, models.KeywordIndexParams))
    data_type = kind if isinstance(kind, models.PayloadSchemaType) else kind.type
    server.indexes[body.field_name] = models.PayloadIndexInfo(
        data_type=models.PayloadSchemaType(data_type.value),
        points=0,
        params=kind if isinstance(kind, models.KeywordIndexParams) else None,
    )
    return {"operation_id": 0, "status": "completed"}


def cluster(server: RestServer, _name: str, _body: Any, _: Any) -> Any:
    shards = [
        {"shard_id": n, "shard_key": key, "points_count": 0, "state": "Active"}
        for n, key in enumerate(server.shard_keys)
    ]
    return {
        "peer_id": 1, "shard_count": len(shards), "local_shards": shards, "remote_shards": [],
        "shard_transfers": [],
    }  # fmt: skip


def new_vector(server: RestServer, name: str, body: Any, params: dict[str, str]) -> Any:
    assert params["wait"] == "true"
    return server.engine.create_vector_name(name, params["vector"], body)


def delete_vector(server: RestServer, name: str, _body: Any, params: dict[str, str]) -> Any:
    return server.engine.delete_vector_name(name, params["vector"])


def update_vectors(
    server: RestServer, name: str, body: models.UpdateVectors, params: dict[str, str]
) -> Any:
    assert params["wait"] == "true"
    return server.engine.update_vectors(name, body.points)


def new_shard(server: RestServer, _name: str, body: models.CreateShardingKey, _: Any) -> Any:
    server.shard_keys.append(body.shard_key)
    return True


def exists(server: RestServer, name: str, _body: Any, _: Any) -> Any:
    return {"exists": server.engine.collection_exists(name)}


def every(server: RestServer, _name: str, _body: Any, _: Any) -> Any:
    return server.engine.get_collections()


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
    model = PARSERS[line].validate_json(body)
    if len(body) > 1_000_000:  # ten thousands of vectors say nothing that a few do not
        return model
    again = json.loads(model.model_dump_json(exclude_unset=True, exclude_none=True))
    assert again == json.loads(body), f"{line}: {again} is not {body!r}"
    return model


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
        if fault is not None and fault.kind in ("status", "drop", "hang"):
            return self._fail(fault)
        params = {name: values[0] for name, values in parse_qs(address.query).items()}
        status, told = self._work(address.path, body, params)
        if fault is not None:
            return self._spoil(fault, told)
        return self._send(status, {}, told)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _work(self, path: str, body: bytes, params: dict[str, str]) -> tuple[int, bytes]:
        if path == "/":
            return 200, b'{"title": "qdrant", "version": "1.18.0"}'
        match = re.fullmatch(r"/collections(?:/([^/]+)(.*))?", path)
        assert match is not None, path
        name, rest = unquote(match[1] or ""), f"/{{}}{match[2]}" if match[1] else ""
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
                result = handle(self.server, name, model, params)
        except ValueError as error:
            status = 404 if "not found" in str(error) else 400
            return status, _error(str(error))
        return 200, TypeAdapter(Any).dump_json({"result": result, "status": "ok", "time": 0.0})

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "status":
            return self._send(fault.status, fault.headers, fault.body.encode())
        if fault.kind == "hang":
            Event().wait(fault.seconds)  # not time.sleep, which tests replace
        return self._hang_up()

    def _spoil(self, fault: Fault, told: bytes) -> None:
        if fault.kind == "lose":
            return self._hang_up()
        if fault.kind == "garble":
            return self._send(200, {}, told[: len(told) // 2])
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told[: len(told) // 2])
        return self._hang_up()

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
