"""What a user can choose of a Postgres collection, and how things may be called there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["PostgresOptions", "check_name"]


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The index, the connections, and what stands between them and the server.

    `index` is hnsw (with `m` and `ef_construction`), ivfflat (`lists`, of which a query reads
    `probes`; pgvector advises rows / 1000 and the root of that) or none. `build_memory` is the
    maintenance_work_mem of building it, such as "2GB", None the server's own. `timeout` is how
    many seconds a call waits for one of `pool_size` connections, and how long a lost server is
    tried again. `pgbouncer` prepares no statements, as a pool of transactions needs it.
    """

    index: str = "hnsw"
    m: int = 16
    ef_construction: int = 64
    lists: int = 100
    probes: int = 10
    build_memory: str | None = None
    pool_size: int = 8
    timeout: float = 30.0
    pgbouncer: bool = False

    def __post_init__(self) -> None:
        if self.index not in ("hnsw", "ivfflat", "none"):
            raise ConfigError(f"index is hnsw, ivfflat or none, got {self.index!r}")
        for option in ("m", "ef_construction", "lists", "probes", "pool_size"):
            value = getattr(self, option)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{option} is a whole number from 1 on, got {value!r}")
        if self.ef_construction < 2 * self.m:
            raise ConfigError(
                f"ef_construction is at least twice m, got {self.ef_construction} and {self.m}"
            )
        if self.pgbouncer and self.build_memory is not None:
            raise ConfigError(
                "build_memory is set for a session, and with pgbouncer=True a session is shared; "
                "give the role its maintenance_work_mem with ALTER ROLE … SET"
            )
        if not self.timeout > 0:
            raise ConfigError(f"timeout is a number of seconds above 0, got {self.timeout!r}")

    @property
    def index_options(self) -> Mapping[str, int]:
        """What CREATE INDEX is told of the method."""
        if self.index == "ivfflat":
            return {"lists": self.lists}
        return {"m": self.m, "ef_construction": self.ef_construction}


def check_name(what: str, given: str) -> None:
    """Refuse what cannot be the name of a table or a schema. Raises ConfigError."""
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{what} {given!r} has a lone surrogate") from None
    if not 0 < size <= 63 or "\x00" in given:
        raise ConfigError(
            f"{what} {given!r} cannot be a name in Postgres; it has 1 to 63 bytes and no NUL"
        )
