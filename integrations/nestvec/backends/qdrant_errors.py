"""What Qdrant, its clients and what lies between them say, as errors of ours."""

from __future__ import annotations

import json
import math
import re

from ..errors import BackendError, NestvecError, Unavailable
from .qdrant_clients import (
    AnswerTooLarge,
    LocalProtocolError,
    ResponseHandlingException,
    UnsupportedProtocol,
)

__all__ = ["Missing", "Refused", "Transient", "translated"]

#: HTTP statuses and gRPC codes of what may work in a moment.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN"}
)

#: gRPC codes and the HTTP statuses that say the same.
_STATUSES = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404}

#: How much of what a server says is told.
_LONGEST = 300

_TOO_LARGE = re.compile(
    r"received message .*larger than max|decompress.* larger than", re.IGNORECASE
)
_HOW_TO_TAKE_IT = "ask for fewer documents at once, or give connect a larger max_response_bytes"

_FULL = "the server's disk is full: make room there; what is stored can still be read"
_NO_WRITES = "the server cannot write to its storage: it is mounted for reading only"
_MEMORY = "the server has too little memory: give it more, or remove collections from it"
_BUDGET = (
    "one request costs more than the collection's strict mode allows in a minute, which are "
    "read_rate_limit and write_rate_limit: give connect a smaller batch_size"
)
_QUOTA = "this is a quota: raise it, or remove something"
_LONG = "a document is too long for one request; the server's setting is max_request_size_mb"

#: What is answered as if it might pass though it will not within seconds, and what it means.
_LASTING = {
    re.compile(pattern, re.IGNORECASE): meaning
    for pattern, meaning in {
        r"no space left|os error 28\b|disk quota|os error 122\b|disk is full": _FULL,
        r"read-only file system|os error 30\b": _NO_WRITES,
        r"out[ -]of[ -]memory|os error 12\b|cannot allocate memory": _MEMORY,
        r"larger than rate limiter capacity": _BUDGET,
        r"\bquota\b|max [\w ]+ limit of \S+ reached|exceeding the configured limit": _QUOTA,
        r"message length too large|sent message larger than max": _LONG,
    }.items()
}

#: What is in the error of a certificate that is not trusted.
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"

_NO_COLLECTION = re.compile(
    r"collection.*(doesn't exist|does not exist|not found)", re.IGNORECASE | re.DOTALL
)
#: Every refusal of strict mode ends with what would help.
_STRICT = re.compile(r"\. Help: |strict mode|index required but not found", re.IGNORECASE)


class Transient(Unavailable):
    """A failure that may pass: after `wait` seconds where the server said so.

    `failed` says that the server failed at its work, rather than that it is busy or out of reach.
    """

    wait: float | None = None
    failed: bool = False


class Missing(BackendError):
    """There is no such collection."""


class Refused(BackendError):
    """The collection's strict mode refused what was asked."""


def translated(error: Exception) -> NestvecError:
    """Return what a client's error says; whether it may pass is in its type."""
    if isinstance(error, NestvecError):
        return error
    if isinstance(error, TimeoutError):
        return Transient("no answer in time")
    if isinstance(status := getattr(error, "status_code", None), int):
        return _answered(status, str(status), _told(getattr(error, "content", b"")))
    asked = getattr(error, "retry_after_s", None)
    if asked is not None or "Retry-After" in str(error):
        return _busy(str(error)[:_LONGEST], asked)
    if callable(code := getattr(error, "code", None)):
        details = str(error.details())[:_LONGEST]  # type: ignore[attr-defined]
        return _answered_by_grpc(code().name, details)
    if isinstance(error, ResponseHandlingException):
        return _unanswered(error.source)
    if isinstance(error, json.JSONDecodeError):
        return Transient("the answer was cut off, or is not one of Qdrant's; is the URL right?")
    kind = Missing if _NO_COLLECTION.search(str(error)) else BackendError  # of local mode
    return kind(f"refused: {error}")


def _answered(status: int, name: str, told: str, *, passing: bool | None = None) -> NestvecError:
    text = f"answered {name}: {told}"
    for pattern, meaning in _LASTING.items():
        if pattern.search(told):
            return BackendError(f"{text}; {meaning}")
    if status in _PASSING if passing is None else passing:
        made = Transient(text)
        made.failed = status == 500
        return made
    if status == 404 and _NO_COLLECTION.search(told):
        return Missing(text)
    if status not in (401, 404) and _STRICT.search(told):
        return Refused(text + _advice(400))
    return BackendError(text + _advice(status))


def _answered_by_grpc(name: str, details: str) -> NestvecError:
    if _TOO_LARGE.search(details):
        return AnswerTooLarge(f"{details}; {_HOW_TO_TAKE_IT}")
    status = 500 if name == "INTERNAL" else _STATUSES.get(name, 400)
    return _answered(status, name, details, passing=name in _PASSING_CODES)


def _busy(told: str, asked: float | None) -> Transient:
    """Return the error of a server that asks to wait, also where it says for how long in vain."""
    made = Transient(f"answered 429: too many requests ({told})")
    try:
        wait = float(asked or 0)
    except OverflowError:  # of some hundred digits
        wait = math.inf
    made.wait = wait if wait > 0 else None
    return made


def _unanswered(source: Exception) -> NestvecError:
    if isinstance(source, AnswerTooLarge):
        return AnswerTooLarge(f"{source}; {_HOW_TO_TAKE_IT}")
    if isinstance(source, NestvecError):
        return source
    if not isinstance(source, ValueError):
        told = f"no answer ({type(source).__name__}: {source})"
        lasting = isinstance(source, (LocalProtocolError, UnsupportedProtocol))
        return BackendError(told) if lasting or _UNTRUSTED in told else Transient(told)
    return Transient("the answer is not one of Qdrant's; is the URL right?")


def _advice(status: int) -> str:
    """Return what to do about a refusal."""
    if status in (401, 403):
        return "; check api_key, or QDRANT_API_KEY"
    if status == 404:
        return "; is the URL right?"
    if status == 413:
        return (
            "; a document is too long for one request, or a filter leaves too many documents to "
            "nestvec, as store.explain tells; the server's setting is max_request_size_mb"
        )
    return ""


def _told(content: bytes) -> str:
    """Return what an error's body says."""
    try:
        message = str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = content.decode(errors="replace")
    return message[:_LONGEST]
