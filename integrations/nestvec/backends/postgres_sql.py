"""The statements of one collection: its table, its index, and the query that a plan becomes.

Every name is an `Identifier`, every value a parameter. What belongs to pgvector is written with
its schema, so that nothing depends on a search path.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from .postgres_driver import SQL, Composable, Composed, Copy, Identifier, Literal, Statement
from .postgres_wire import VARBIT, Raw, Row, arrays, copied, escape, query_bytes

__all__ = ["HEADS", "Heads", "Pgvector", "Table", "name"]

#: The table in which each collection of a schema records what it knows of itself.
HEADS = "nestvec_collections"

#: What a page of 8 kB leaves to a row, less its header and the shortest forms of its other columns.
_ROOM = 8_000

#: From here on Postgres moves long values out of a row, counted without the vectors kept in it.
_TOAST_FROM = 2_032

_TYPES = {"float32": "vector", "float16": "halfvec"}
_OPERATORS = {"float32": "<#>", "float16": "<#>", "binary": "<~>"}
_CLASSES = {"float32": "vector_ip_ops", "float16": "halfvec_ip_ops", "binary": "bit_hamming_ops"}

EVERYTHING = Statement(SQL("TRUE"))


def name(*parts: str) -> Identifier:
    """Return a name; psycopg takes a percent sign in one for a placeholder unless it is doubled."""
    return Identifier(*(part.replace("%", "%%") for part in parts))


@dataclass(frozen=True, slots=True)
class Pgvector:
    """What a database has of pgvector: its schema, its version, and the oids of its types."""

    schema: str
    version: str
    oids: Mapping[str, int] = dataclasses.field(hash=False)


@dataclass(frozen=True, slots=True)
class Heads:
    """The statements about what collections record of themselves, in one schema."""

    schema: str

    @property
    def table(self) -> Identifier:
        return name(self.schema, HEADS)

    def look(self) -> Statement:
        """Ask for pgvector, and whether the schema and its heads exist."""
        return Statement(
            SQL(
                "SELECT n.nspname, e.extversion,"
                " (SELECT json_object_agg(typname, oid::bigint) FROM pg_type"
                " WHERE typnamespace = n.oid AND typname IN ('vector', 'halfvec')),"
                " EXISTS (SELECT FROM pg_namespace WHERE nspname = %s),"
                " EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE nspname = %s AND relname = %s)"
                " FROM (SELECT) AS once LEFT JOIN pg_extension e ON e.extname = 'vector'"
                " LEFT JOIN pg_namespace n ON n.oid = e.extnamespace"
            ),
            (self.schema, self.schema, HEADS),
        )

    def read(self, collection: str) -> Statement:
        sql = SQL("SELECT head::text FROM {} WHERE name = %s").format(self.table)
        return Statement(sql, (collection,))

    def make(self, schema_too: bool) -> list[Statement]:
        """Make the table of heads; who comes second waits here for who is making it."""
        lock = SQL("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))")
        made = [Statement(lock, (f"nestvec {self.schema}",))]
        if schema_too:
            made.append(Statement(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name(self.schema))))
        sql = (
            'CREATE TABLE IF NOT EXISTS {} (name text COLLATE "C" PRIMARY KEY, head json NOT NULL)'
        )
        made.append(Statement(SQL(sql).format(self.table)))
        return made

    def add(self, collection: str, head: str) -> Statement:
        sql = SQL("INSERT INTO {} (name, head) VALUES (%s, %s::json)").format(self.table)
        return Statement(sql, (collection, head))

    def change(self, collection: str, head: str) -> Statement:
        sql = SQL("UPDATE {} SET head = %s::json WHERE name = %s").format(self.table)
        return Statement(sql, (head, collection))

    def remove(self, collection: str) -> Statement:
        return Statement(SQL("DELETE FROM {} WHERE name = %s").format(self.table), (collection,))


@dataclass(frozen=True, slots=True)
class Table:
    """The statements about the table of one collection.

    Where prefixes are not `derived` from full they are plain columns that are written with it.
    """

    schema: str
    collection: str
    nesting: Nesting
    pgvector: Pgvector
    derived: bool = True
    #: Fields that came after the table was made: expressions of full, as signs are.
    added: tuple[str, ...] = ()

    @property
    def table(self) -> Identifier:
        return name(self.schema, self.collection)

    def _of_pgvector(self, word: str) -> Identifier:
        return name(self.pgvector.schema, word)

    def _type(self, field: Field) -> Composed:
        """Return the type of a field's column, or what its expression is cast to."""
        if field.precision == "binary":
            return SQL("bit({})").format(Literal(field.length))
        kind = self._of_pgvector(_TYPES[field.precision])
        return SQL("{}({})").format(kind, Literal(field.length))

    def _prefix(self, field: Field, source: Composable) -> Composable:
        if field.full:
            return source
        return SQL("{}({}, 1, {})").format(
            self._of_pgvector("subvector"), source, Literal(field.length)
        )

    def _column(self, field: Field) -> Composed:
        """Return the column of a prefix, as the database derives it or as it is written."""
        if not self.derived:
            return SQL("{} {} NOT NULL").format(name(field.name), self._type(field))
        return self._generated(field)

    def _generated(self, field: Field) -> Composed:
        """Return the column that the database derives from full: in float32, then as it is kept."""
        wide = SQL('"full"::{}').format(self._type(Field(self.nesting.dim)))
        prefix = self._prefix(field, wide)
        return SQL("{} {} GENERATED ALWAYS AS ({}({})::{}) STORED").format(
            name(field.name), self._type(field), self._of_pgvector("l2_normalize"), prefix,
            self._type(field),
        )  # fmt: skip

    def _value(self, field: Field) -> Composable:
        """Return what a field is compared by: its column, or an expression of full."""
        if self._is_column(field):
            return name(field.name)
        if field.precision != "binary":
            wide = SQL('"full"::{}').format(self._type(Field(self.nesting.dim)))
            return SQL("({}({})::{})").format(
                self._of_pgvector("l2_normalize"), self._prefix(field, wide), self._type(field)
            )
        signs = self._of_pgvector("binary_quantize")
        prefix = self._prefix(field, SQL('"full"'))
        return SQL("({}({})::{})").format(signs, prefix, self._type(field))

    def distance(self, field: Field) -> Composed:
        """Return what grows as a field's vector is less like the query, its parameter."""
        if field.precision == "binary":
            kind: Composable = SQL("varbit")
        else:
            kind = self._of_pgvector(_TYPES[field.precision])
        # Others may write to the table too, and what they write to full need not be unit length;
        # prefixes always are, so the cheaper inner product orders them.
        operator = "<=>" if field is self.nesting.full else _OPERATORS[field.precision]
        return SQL("{} OPERATOR({}.{}) %b::{}").format(
            self._value(field), name(self.pgvector.schema), SQL(operator), kind
        )

    # Making

    def columns(self) -> list[Field]:
        """Return the fields that are columns, fewest bytes first."""
        return [field for field in self.nesting.fields if self._is_column(field)]

    def _is_column(self, field: Field) -> bool:
        """Return whether a field is stored; what is derived by an expression of full is not."""
        if field.name in self.added:
            return False
        return field.precision != "binary" or not (self.derived or field.full)

    def written(self) -> list[Field]:
        """Return the fields that a row is written with: full, and prefixes that are not derived."""
        return [self.nesting.full, *([] if self.derived else self.columns()[:-1])]

    def make(self) -> list[Statement]:
        """Return the statements that make the table."""
        *prefixes, full = self.columns()
        inline = self._inline()
        target = min(8_160, _TOAST_FROM + sum(field.nbytes for field in inline))
        sql = SQL(
            'CREATE TABLE {} (id text COLLATE "C" PRIMARY KEY, text text NOT NULL DEFAULT {},'
            " metadata jsonb NOT NULL DEFAULT {}, {} {} NOT NULL{}) WITH (toast_tuple_target = {})"
        ).format(
            self.table, Literal(""), Literal("{}"), name(full.name), self._type(full),
            SQL("").join(SQL(", {}").format(self._column(field)) for field in prefixes),
            Literal(target),
        )  # fmt: skip
        return [Statement(sql), *(self._storage(f, inline=f in inline) for f in self.columns())]

    def _inline(self) -> list[Field]:
        """Return the fields that stay in the row: as many as fit its page, shortest first."""
        # Rescoring 250 of 200,000 x 1,024 takes 1.16 times as long (float16; float32: 1.23) where
        # full is kept beside its row, and the table then has 691 MB against 546 (1,242 against
        # 1,639): benchmarks/postgres.py.
        inline, used = [], 0
        for field in self.columns():
            used += field.nbytes + 8
            if used <= _ROOM:
                inline.append(field)
        return inline

    def _storage(self, field: Field, *, inline: bool) -> Statement:
        sql = SQL("ALTER TABLE {} ALTER COLUMN {} SET STORAGE {}").format(
            self.table, name(field.name), SQL("PLAIN" if inline else "EXTERNAL")
        )
        return Statement(sql)

    def drop(self) -> Statement:
        return Statement(SQL("DROP TABLE {}").format(self.table))

    def drop_column(self, field: Field) -> Statement:
        sql = SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}")
        return Statement(sql.format(self.table, name(field.name)))

    # The index

    def index_name(self, field: Field) -> str:
        """Return the name of a field's index: within the 63 bytes that Postgres keeps of one."""
        wanted = f"{self.collection}_{field.name}_ann"
        if len(wanted.encode()) <= 63:
            return wanted
        digest = hashlib.sha256(self.collection.encode()).hexdigest()[:16]
        return f"nestvec_{digest}_{field.name}_ann"

    def make_index(self, field: Field, method: str, options: Mapping[str, int]) -> Statement:
        sql = SQL(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING {} ({} {}) WITH ({})"
        ).format(
            name(self.index_name(field)), self.table, name(method), self._value(field),
            self._of_pgvector(_CLASSES[field.precision]),
            SQL(", ").join(
                SQL("{} = {}").format(name(key), Literal(value)) for key, value in options.items()
            ),
        )  # fmt: skip
        return Statement(sql)

    def drop_index(self, field: Field) -> Statement:
        sql = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
        return Statement(sql.format(name(self.schema, self.index_name(field))))

    def indexes(self) -> Statement:
        """Ask for the vector indexes: name, method, validity, bytes, progress of a build, lists."""
        sql = SQL(
            "SELECT c.relname::text, a.amname::text, i.indisvalid, pg_relation_size(c.oid),"
            " p.phase, p.blocks_done, p.blocks_total, (SELECT option_value::int FROM"
            " pg_options_to_table(c.reloptions) WHERE option_name = 'lists')"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid ="
            " c.relam JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid ="
            " t.relnamespace LEFT JOIN pg_stat_progress_create_index p ON p.index_relid = c.oid"
            " WHERE n.nspname = %s AND t.relname = %s AND a.amname IN ('hnsw', 'ivfflat')"
            " ORDER BY c.relname"
        )
        return Statement(sql, (self.schema, self.collection))

    def sizes(self) -> Statement:
        """Ask for the bytes of the table and of its indexes, its dead rows, and the server."""
        sql = SQL(
            "SELECT pg_table_size(t.oid), pg_indexes_size(t.oid), coalesce(s.n_dead_tup, 0),"
            " current_setting('server_version')"
            " FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
            " LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid"
            " WHERE n.nspname = %s AND t.relname = %s"
        )
        return Statement(sql, (self.schema, self.collection))

    def has(self, rows: int) -> Statement:
        """Ask whether there are at least so many rows, without counting on."""
        sql = SQL("SELECT count(*) >= {n} FROM (SELECT FROM {table} LIMIT {n}) AS first")
        return Statement(sql.format(n=Literal(rows), table=self.table))

    # Writing

    _NAMES = SQL('id, text, metadata, "full"')

    def copy(self, rows: Callable[[], Iterable[Row]]) -> Copy:
        """Copy rows whose ids are all new; they are made when they are sent."""
        names = self._written_names()
        sql = SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(self.table, names)
        return Copy(sql, lambda: copied(rows()))

    def upsert(self, rows: Iterable[Row]) -> list[Statement]:
        """Add rows, or replace what has their ids.

        They go in the order of their ids, so that two writers do not wait for each other in a
        circle. A document that is already there just so is left alone: no dead row, no work for
        the index. JSON is compared as text, because 1 and 1.0 are equal as jsonb.
        """
        # COPY into a temporary table takes 1.3 to 1.7 times as long: benchmarks/postgres.py.
        types = [self._array_type(field) for field in self.written()]
        sql = SQL(
            "INSERT INTO {table} AS kept ({names}) SELECT * FROM"
            " unnest(%b::text[], %b::text[], %b::jsonb[], {given}) AS given ({names})"
            " ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata,"
            " {vectors}"
            " WHERE (kept.text, kept.metadata::text) <> (excluded.text, excluded.metadata::text)"
            " OR {changed}"
        ).format(
            table=self.table, names=self._written_names(),
            given=SQL(", ").join(SQL("%b::{}[]").format(kind) for kind, _ in types),
            vectors=SQL(", ").join(
                SQL("{0} = excluded.{0}").format(name(field.name)) for field in self.written()
            ),
            changed=SQL(" OR ").join(self._changed(field) for field in self.written()),
        )  # fmt: skip
        parts = arrays(sorted(rows), [oid for _, oid in types])
        return [Statement(sql, columns) for columns in parts]

    def _array_type(self, field: Field) -> tuple[Composable, int]:
        """Return the type in whose arrays a field's vectors are sent, and its oid."""
        if field.precision == "binary":
            return SQL("varbit"), VARBIT
        kind = _TYPES[field.precision]
        return self._of_pgvector(kind), self.pgvector.oids[kind]

    def _changed(self, field: Field) -> Composed:
        """Return whether an upsert brings another vector than the row has."""
        schema = "pg_catalog" if field.precision == "binary" else self.pgvector.schema
        return SQL("kept.{0} OPERATOR({1}.<>) excluded.{0}").format(name(field.name), name(schema))

    def _written_names(self) -> Composed:
        columns = [name(field.name) for field in self.written()]
        return SQL(", ").join([SQL("id, text, metadata"), *columns])

    def delete(self, condition: Statement) -> Statement:
        sql = SQL("DELETE FROM {} WHERE {}").format(self.table, condition.sql)
        return Statement(sql, condition.params)

    # Reading

    def with_ids(self, ids: Sequence[str]) -> Statement:
        """Return the condition that the id is one of these."""
        return Statement(SQL("id = ANY(%s::text[])"), ([escape(id) for id in ids],))

    def count(self, condition: Statement) -> Statement:
        sql = SQL("SELECT count(*) FROM {} WHERE {}").format(self.table, condition.sql)
        return Statement(sql, condition.params)

    def documents(self, condition: Statement, vectors: bool) -> Statement:
        """Ask for documents, with their full vectors in binary form or NULL."""
        full = SQL("{}({}::{})").format(
            self._of_pgvector("vector_send"), SQL('"full"'), self._of_pgvector("vector")
        )
        sql = SQL("SELECT id, text, metadata, {} FROM {} WHERE {}").format(
            full if vectors else SQL("NULL"), self.table, condition.sql
        )
        return Statement(sql, condition.params)

    def page(self, condition: Statement, after: str | None, limit: int, vectors: bool) -> Statement:
        """Ask for the next documents in the order of their ids."""
        beyond = Statement(SQL("{} AND id > %s").format(condition.sql), (
            *condition.params, escape(after or ""),
        ))  # fmt: skip
        asked = self.documents(beyond, vectors)
        sql = SQL("{} ORDER BY id LIMIT {}").format(asked.sql, Literal(limit))
        return Statement(sql, asked.params)

    def stored(self, after: str | None, limit: int) -> Statement:
        """Ask for documents with the numbers of all columns, in the order of their ids."""
        send, wide = self._of_pgvector("vector_send"), self._of_pgvector("vector")
        rows = [SQL("{}({}::{})").format(send, name(f.name), wide) for f in self.columns()]
        sql = SQL("SELECT id, text, {} FROM {} WHERE id > %s ORDER BY id LIMIT {}").format(
            SQL(", ").join(rows), self.table, Literal(limit)
        )
        return Statement(sql, (escape(after or ""),))

    def normalise(self, ids: Sequence[str]) -> Statement:
        """Make full vectors unit length; what is derived from them follows."""
        full = self.nesting.full
        sql = SQL('UPDATE {} SET "full" = {}("full"::{})::{} WHERE {}').format(
            self.table, self._of_pgvector("l2_normalize"), self._type(Field(full.length)),
            self._type(full), self.with_ids(ids).sql,
        )  # fmt: skip
        return Statement(sql, self.with_ids(ids).params)

    def sample(self, count: int, seed: int) -> Statement:
        """Ask for documents in an order that looks random, of their ids and a seed."""
        order = Statement(SQL('md5(id || %s) COLLATE "C", id'), (f" {seed}",))
        drawn = SQL("id IN (SELECT id FROM {} ORDER BY {} LIMIT {})").format(
            self.table, order.sql, Literal(count)
        )
        asked = self.documents(Statement(drawn, order.params), vectors=True)
        sql = SQL("{} ORDER BY {}").format(asked.sql, order.sql)
        return Statement(sql, (*asked.params, *order.params))

    def search(self, queries: Mapping[str, Matrix], plan: Plan, condition: Statement) -> Statement:
        """Ask for id, text, metadata and cosine distance of a plan's hits, best first.

        Where there is a filter each row also has how many candidates left the first stage.
        """
        full = query_bytes(queries["full"], self.nesting.full)
        given = self._given(queries, plan)
        where = condition.params
        sql = _search(self, plan, _text(condition.sql), filtered=condition is not EVERYTHING)
        return Statement(sql, (*where, *given, full) if given else (full, *where))

    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, condition: Statement
    ) -> Statement:
        """Ask how many leave the last of a plan's stages."""
        stages, source, where = self.stages(plan, condition.sql)
        sql = SQL("{}SELECT count(*) FROM {} WHERE {}").format(stages, source, where)
        return Statement(sql, (*condition.params, *self._given(queries, plan)))

    def _given(self, queries: Mapping[str, Matrix], plan: Plan) -> list[Raw]:
        """Return the parameters of a plan's stages."""
        return [query_bytes(queries[field.name], field) for field, _ in plan.stages]

    def stages(
        self, plan: Plan, condition: Composable
    ) -> tuple[Composable, Identifier, Composable]:
        """Return one materialised CTE a stage, where full reads from, and the condition there.

        The condition limits the candidates of the first stage. A stage hands on the columns
        themselves: joining the table again costs a look-up for every candidate.
        """
        stages: list[Composed] = []
        source = self.table
        for i, (field, limit) in enumerate(plan.stages):
            later = [f for f, _ in plan.stages[i + 1 :] if self._is_column(f)]
            sql = SQL("{} AS MATERIALIZED (SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {})")
            made = sql.format(
                name(f"stage{i}"), self._handed_on(later), source, condition,
                self.distance(field), Literal(limit),
            )  # fmt: skip
            stages.append(made)
            source, condition = name(f"stage{i}"), EVERYTHING.sql
        if not stages:
            return SQL(""), source, condition
        return SQL("WITH {} ").format(SQL(", ").join(stages)), source, condition

    def _handed_on(self, later: Sequence[Field]) -> Composed:
        columns = dict.fromkeys(field.name for field in later)
        return SQL(", ").join([self._NAMES, *(name(column) for column in columns)])


#: Statements are put together once and kept as text: it takes longer than all else around a query.
@lru_cache(maxsize=256)
def _search(table: Table, plan: Plan, condition: str, *, filtered: bool) -> SQL:
    stages, source, where = table.stages(plan, SQL(condition))
    counted = SQL(", (SELECT count(*) FROM stage0)" if filtered and plan.stages else "")
    sql = SQL(
        "{}SELECT id, text, metadata, {} AS distance{} FROM {} WHERE {}"
        " ORDER BY distance, id LIMIT {} OFFSET {}"
    ).format(
        stages, table.distance(table.nesting.full), counted, source, where, Literal(plan.k),
        Literal(plan.offset),
    )  # fmt: skip
    return SQL(_text(sql))


def _text(sql: SQL | Composed) -> str:
    return sql.as_string(None)


@lru_cache
def _settings(count: int) -> SQL:
    return SQL(f"SELECT {', '.join(['set_config(%s, %s, true)'] * count)}")


def settings(values: Mapping[str, Any]) -> Statement:
    """Return the statement that makes settings for the transaction it is in."""
    sql = _settings(len(values))
    return Statement(sql, tuple(str(part) for pair in values.items() for part in pair))
