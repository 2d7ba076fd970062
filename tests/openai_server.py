"""A small server that speaks OpenAI's embeddings protocol, with faults in front of its answers."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import numpy as np

WIDTH = 24


def vector(text: str, width: int = WIDTH) -> Any:
    """Return the numbers that the server gives for a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


@dataclass
class Seen:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)


#: What is answered instead: a status, headers, a body. None hangs; a function changes the answer.
Fault = tuple[int, dict[str, str], Any] | Callable[[dict[str, Any]], Any] | None


class OpenAIServer(ThreadingHTTPServer):
    """The server: what it refuses, its faults still to come, and what it has seen."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        #: The most texts and characters that a request may have; a status to refuse more with.
        self.most_texts, self.most_characters, self.too_much = 2048, 10**9, 400
        self.pause = 0.0
        self.busy = self.busiest = 0
        self.lock = Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # else whoever asked has gone
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def sizes(self) -> list[int]:
        """How many texts each request had."""
        return [len(seen.body["input"]) for seen in self.seen]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        payload = self.rfile.read(length)
        if len(payload) < length:  # whoever asks has stopped asking
            self.close_connection = True
            return
        body = json.loads(payload)
        server = self.server
        with server.lock:
            server.seen.append(
                Seen(self.path, {k.title(): v for k, v in self.headers.items()}, body)
            )
            fault = server.faults.pop(0) if server.faults else (200, {}, ...)
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(server.pause)
        try:
            self._reply(body, fault)
        except BrokenPipeError:
            self.close_connection = True  # whoever asked has stopped waiting
        finally:
            with server.lock:
                server.busy -= 1

    def _reply(self, body: dict[str, Any], fault: Fault) -> None:
        if fault is None:
            time.sleep(2)
            self.close_connection = True
            return
        if callable(fault):
            self._send(200, {}, fault(answer(body)))
            return
        status, headers, said = fault
        if said is ...:
            status, said = self._answer(body)
        self._send(status, headers, said)

    def _answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        texts: Sequence[str] = body["input"]
        if self.path != "/v1/embeddings":
            return 404, {"error": {"message": "Not Found"}}
        if len(texts) > self.server.most_texts:
            return self.server.too_much, {"error": {"message": f"batch size {len(texts)} is large"}}
        if any(len(text) > self.server.most_characters for text in texts):
            return self.server.too_much, {"error": {"message": "maximum context length"}}
        return 200, answer(body)

    def _send(self, status: int, headers: dict[str, str], said: Any) -> None:
        payload = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Return what the protocol answers, as base64 where it is asked for."""
    written = body.get("encoding_format") == "base64"
    width = int(body.get("output_dimension", WIDTH))

    def numbers(text: str) -> Any:
        made = vector(text, width)
        return base64.b64encode(made.tobytes()).decode() if written else made.tolist()

    data = [
        {"object": "embedding", "index": n, "embedding": numbers(text)}
        for n, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


@contextmanager
def running() -> Iterator[OpenAIServer]:
    """Run a server for as long as the block."""
    server = OpenAIServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
