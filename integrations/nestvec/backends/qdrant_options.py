"""The options of connect for Qdrant: the connection, the collection's shape, what others made."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from .qdrant_driver import models

__all__ = ["QdrantOptions", "local", "remote"]

_CONSISTENCY = ("majority", "quorum", "all")
_ORDERINGS = tuple(order.value for order in models.WriteOrdering)
_INDEX_TYPES = tuple(kind.value for kind in models.PayloadSchemaType)


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """How to reach a server, how to make a collection, and how to read one that others made."""

    # The connection

    #: None takes QDRANT_API_KEY from the environment.
    api_key: str | None = field(default=None, repr=False)
    prefer_grpc: bool = False
    grpc_port: int = 6334
    #: Seconds for one search, get, count or page, or for one batch of a write: for all tries,
    #: pauses, connecting, and reading the answer.
    timeout: float = 60.0
    #: How often a request that failed for a while is sent again; pauses grow from 0.2 s.
    retries: int = 5
    #: How large an answer may be, unpacked.
    max_response_bytes: int = 64 * 2**20
    #: How many requests of one batch of records are under way at once.
    parallel: int = 4
    #: Replicas that must agree on what is read: a number, "majority", "quorum" or "all".
    read_consistency: int | str | None = None
    #: How replicas agree on the order of writes: "weak", "medium" or "strong".
    write_ordering: str | None = None

    # The collection, when it is made

    #: Settings of the first field's graph, as in Qdrant's HnswConfigDiff.
    hnsw_config: Mapping[str, Any] = field(default_factory=dict)
    #: As in Qdrant's OptimizersConfigDiff.
    optimizers_config: Mapping[str, Any] = field(default_factory=dict)
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    #: "auto", or "custom" for shards by shard_key.
    sharding_method: str | None = None
    #: The shard that this store reads and writes; it is made where there is none.
    shard_key: str | int | None = None
    #: The metadata key of the tenant: an index that keeps tenants apart, and a graph for each of
    #: them in place of a common one. Search with `where=F(tenant_key) == …` then.
    tenant_key: str | None = None
    #: Metadata key → type of index: "keyword", "integer", "float", "bool", "datetime", "uuid", …;
    #: made also where the collection exists. `index_metadata` is the same for any engine.
    payload_indexes: Mapping[str, str] = field(default_factory=dict)

    # A collection that others made, which is only read

    #: Field → name of the vector that holds it: {"64": "small", "full": "large"}; "" is a
    #: collection's unnamed vector. Given, the collection is taken as one that others made.
    vectors: Mapping[str, str] = field(default_factory=dict)
    #: The payload key of the text; a path may lead on into a string of JSON.
    content_key: str = "text"
    #: The payload key of the metadata; "" for the payload itself.
    metadata_key: str = "metadata"

    def __post_init__(self) -> None:
        for name, least in (
            ("retries", 0), ("parallel", 1), ("grpc_port", 1), ("max_response_bytes", 65_536)
        ):  # fmt: skip
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is a whole number from {least}, got {_shown(self, name)}"
                )
        if not self.timeout > 0:
            raise ConfigError(f"timeout is in seconds, more than 0, got {self.timeout!r}")
        if isinstance(self.read_consistency, str) and self.read_consistency not in _CONSISTENCY:
            raise ConfigError(
                f"read_consistency is a number or one of {', '.join(_CONSISTENCY)}, "
                f"got {self.read_consistency!r}"
            )
        if self.write_ordering not in (None, *_ORDERINGS):
            raise ConfigError(
                f"write_ordering is one of {', '.join(_ORDERINGS)}, got {self.write_ordering!r}"
            )
        if self.sharding_method not in (None, "auto", "custom"):
            raise ConfigError(f"sharding_method is auto or custom, got {self.sharding_method!r}")
        if self.shard_key is not None and self.sharding_method == "auto":
            raise ConfigError("shard_key needs sharding_method='custom'")
        for key, kind in self.payload_indexes.items():
            if kind not in _INDEX_TYPES:
                raise ConfigError(
                    f"payload_indexes has {kind!r} for {key!r}; types are {', '.join(_INDEX_TYPES)}"
                )
        self.graph()
        self.optimizers()

    def key(self) -> str | None:
        """Return the key, also that of the environment, as a header can have it.

        Raises ConfigError without it: whoever sent it would quote it in an error.
        """
        key = (self.api_key or os.environ.get("QDRANT_API_KEY") or "").strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(
                "api_key, or QDRANT_API_KEY, has a character that no HTTP header can have, such as "
                "a line break; it is one line of printable ASCII"
            )
        return key or None

    def graph(self) -> models.HnswConfigDiff | None:
        """Return the settings of the first field's graph, None for the server's own.

        An empty object would never come out of a cluster's consensus as it went in, so the server
        would wait for it until its time-out.
        """
        given = dict(self.hnsw_config)
        if self.tenant_key is not None:
            # A common graph would link the tenants; theirs are linked apart (is_tenant, payload_m).
            given = {"payload_m": given.get("m", 16), **given, "m": 0}
        made = _model("hnsw_config", models.HnswConfigDiff, given)
        return _said(made)  # type: ignore[no-any-return]

    def optimizers(self) -> models.OptimizersConfigDiff | None:
        """Return the settings of the optimizers, None for the server's own."""
        made = _model("optimizers_config", models.OptimizersConfigDiff, self.optimizers_config)
        return _said(made)  # type: ignore[no-any-return]

    def sharding(self) -> dict[str, Any]:
        """Return how a new collection is spread over a cluster, without what is not given."""
        method = "custom" if self.shard_key is not None else self.sharding_method
        given = {
            "shard_number": self.shard_number,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
            "sharding_method": None if method is None else models.ShardingMethod(method),
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def waiting(self) -> int:
        """Seconds that a server's nodes may take to agree, within those of a request."""
        return max(1, int(self.timeout * 0.9))


def _shown(options: QdrantOptions, name: str) -> str:
    return repr(getattr(options, name))


def _model(name: str, kind: Any, given: Mapping[str, Any]) -> Any:
    try:
        return kind(**given)
    except ValueError as error:  # pydantic's: a headline, then the key and what is wrong with it
        wrong = ": ".join(line.strip() for line in str(error).splitlines()[1:3])
        known = ", ".join(kind.model_fields)
        raise ConfigError(f"{name}: {wrong}; its settings are {known}") from None


def _said(made: Any) -> Any:
    """Return a model, None where nothing is said by it: also where it was given as null."""
    return made if made.model_dump(exclude_none=True) else None


def local(url: str, options: QdrantOptions) -> dict[str, Any]:
    """Return the client's settings for local mode. Raises ConfigError."""
    place = url.removeprefix("qdrant+local:")
    if not place:
        raise ConfigError(
            "qdrant+local: needs a directory, as in 'qdrant+local:./papers', or ':memory:'"
        )
    if options.sharding():
        raise ConfigError(f"{url}: shards and replicas need a Qdrant server")
    if place == ":memory:":
        return {"location": place}
    path = os.path.expanduser(place)  # noqa: PTH111  (the client takes a string)
    return {"path": path, "force_disable_check_same_thread": True}


def remote(url: str, options: QdrantOptions, key: str | None) -> dict[str, Any]:
    """Return the client's settings for a server. Raises ConfigError, which never shows the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the URL of a server is http(s)://host:6333 and, behind a proxy, a path; "
            "a key goes into api_key=… or QDRANT_API_KEY"
        )
    if key and parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        warnings.warn(f"api_key goes to {url} unencrypted; use https", UserWarning, stacklevel=5)
    return {
        "url": url,
        "port": port or 6333,
        "grpc_port": options.grpc_port,
        "prefer_grpc": options.prefer_grpc,
        "timeout": options.timeout,
        "max_response_bytes": options.max_response_bytes,
        # As a header, since the client would warn of its own about http, once a client.
        "headers": {"api-key": key} if key else None,
        # It compares versions in a thread, whose warning nobody can catch.
        "check_compatibility": False,
    }
