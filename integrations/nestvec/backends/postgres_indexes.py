"""Indexes of metadata in Postgres, and what the planner makes of a query that is filtered.

Equality on any key is served by one GIN index on all of metadata. Order on a key is served by a
btree index on the typed expression that filters compare, beside a small one of the rows that hold
a list there, which the expression leaves out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ConfigError
from ..filter_nodes import Keyed
from ..filter_values import path
from ..filters import Eq, In
from ..records import FilterTrace
from .base import index_kind
from .postgres_driver import SQL, Composed, Literal, Statement
from .postgres_filters import ordered
from .postgres_sql import Table, name
from .postgres_wire import escape

__all__ = ["MetadataIndexes", "by_graph", "explain", "filter_trace", "index_for", "read_comments"]

#: The key under which the index on all of metadata is listed, and what it serves.
GIN = ("*", "==")


class MetadataIndexes:
    """The statements about the metadata indexes of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def _name(self, what: str) -> str:
        """Return the name of an index: within the 63 bytes that Postgres keeps of one."""
        wanted = f"{self.table.collection}_{what}"
        if len(wanted.encode()) <= 63:
            return wanted
        digest = hashlib.sha256(self.table.collection.encode()).hexdigest()[:16]
        return f"nestvec_{digest}_{what}"

    def make_gin(self) -> list[Statement]:
        """Return the statements that make the index on all of metadata."""
        sql = SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING gin ({} jsonb_path_ops)")
        made = self._name("metadata_gin")
        index = Statement(sql.format(name(made), self.table.table, name("metadata")))
        return [index, self._comment(made, *GIN)]

    def make(self, key: str, kind: str) -> list[Statement]:
        """Return the statements that index a key, for order and for equality.

        Raises ConfigError where none can.
        """
        steps = path(key)
        if None in steps:
            raise ConfigError(
                f"key {key!r}: Postgres has no index of the order of what is inside of lists; == "
                "on it is served without one"
            )
        if kind == "bool":
            return self.make_gin()
        descent = [SQL(" -> {}").format(Literal(escape(step or ""))) for step in steps]
        leaf = SQL("(metadata{})").format(SQL("").join(descent))
        # A string in ISO form orders as its day, which is as near as an index has to bring it.
        value = ordered(Statement(leaf), "number" if kind == "number" else "string").sql
        what = f"metadata_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        by_value, listed = self._name(what), self._name(f"{what}_list")
        is_list = SQL("jsonb_typeof({}) = 'array'").format(leaf)
        return [
            *self.make_gin(),
            self._make(by_value, SQL("({})").format(value)),
            self._make(listed, SQL("(id) WHERE {}").format(is_list)),
            self._comment(by_value, key, kind),
            self._comment(listed, key, kind),
            Statement(SQL("ANALYZE {}").format(self.table.table)),
        ]

    def _make(self, made: str, what: Composed) -> Statement:
        sql = SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} {}")
        return Statement(sql.format(name(made), self.table.table, what))

    def _comment(self, made: str, key: str, kind: str) -> Statement:
        told = json.dumps({"nestvec": {"key": key, "kind": kind}})
        sql = SQL("COMMENT ON INDEX {} IS {}")
        return Statement(sql.format(name(self.table.schema, made), Literal(told)))

    def drop_broken(self, rows: list[tuple[Any, ...]]) -> list[Statement]:
        """Drop what builds that broke off left of metadata indexes."""
        sql = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
        broken = [row[0] for row in rows if "_metadata_" in row[0] and not row[2] and not row[3]]
        return [Statement(sql.format(name(self.table.schema, made))) for made in broken]

    def found(self) -> Statement:
        """Ask for all indexes: name, comment, validity, and whether one is being built."""
        sql = SQL(
            "SELECT c.relname::text, obj_description(c.oid, 'pg_class'), i.indisvalid,"
            " EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON"
            " t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace"
            " WHERE n.nspname = %s AND t.relname = %s"
        )
        return Statement(sql, (self.table.schema, self.table.collection))


def read_comments(rows: list[tuple[Any, ...]]) -> dict[str, tuple[str, str]]:
    """Return index → key and kind of the valid indexes that nestvec commented."""
    told = {}
    for made, comment, valid, _ in rows:
        if valid and comment and comment.startswith('{"nestvec": '):
            about = json.loads(comment)["nestvec"]
            told[made] = (about["key"], about["kind"])
    return told


def index_for(condition: Keyed) -> str | None:
    """Return the kind of index that would serve a condition, None where none can."""
    kind = index_kind(condition)
    ordered = kind == "datetime" or not isinstance(condition, (Eq, In))
    return None if ordered and None in path(condition.key) else kind


def explain(search: Statement) -> Statement:
    """Ask how the planner goes about a query."""
    return Statement(SQL("EXPLAIN (FORMAT JSON) {}").format(search.sql), search.params)


def by_graph(plan: Any) -> bool:
    """Return whether a plan has an index hand out rows in the order of a distance."""
    return any("Order By" in node for node in _nodes(plan[0]["Plan"]))


def filter_trace(
    plan: Any,
    told: Mapping[str, tuple[str, str]],
    *,
    matching: int,
    total: int,
    limit: int,
    short: bool,
) -> FilterTrace:
    """Return what a plan says of how a filter is served, its first stage leaving `limit` rows.

    `short`: the plan is the second one, because the graph did not reach so many.
    """
    if by_graph(plan):
        read = min(total, limit * total // max(1, matching))
        method = "the graph, read on until enough match (iterative scan)"
        return FilterTrace(matching, total, method, (), read)
    before = "the graph, which did not reach enough, then " if short else ""
    used = {node["Index Name"] for node in _nodes(plan[0]["Plan"]) if "Index Name" in node}
    if used:
        keys = tuple(sorted({told[index][0] for index in used if index in told}))
        return FilterTrace(matching, total, f"{before}an exact pass over what matches", keys)
    return FilterTrace(matching, total, f"{before}a scan, then an exact pass", (), total)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)
