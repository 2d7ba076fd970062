"""The Postgres backend: pgvector, and a table whose prefixes the database itself derives.

A collection is one table. The full vector is a column, each prefix a generated one, so whoever
writes a row writes all of its fields. `binary` is an expression: no column, only its index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import (
    BackendError,
    CollectionDamaged,
    CollectionMissing,
    ConfigError,
    NestingError,
    Unavailable,
)
from ..filter_nodes import Keyed
from ..filters import Filter
from ..flow import Flow
from ..funnel import Plan
from ..nesting import Field, Matrix, Nesting
from ..records import Batch, FilterTrace, Hit, Record
from .base import Backend, Entry, Head, MadeMeanwhile, Stored
from .postgres_driver import SQL, Apart, Close, Driver, Query, Statement, Target, sqlstate
from .postgres_filters import condition
from .postgres_indexes import (
    MetadataIndexes,
    by_graph,
    explain,
    filter_trace,
    index_for,
    read_comments,
)
from .postgres_options import PostgresOptions, check_name
from .postgres_sql import EVERYTHING, HEADS, Heads, Pgvector, Table, settings
from .postgres_wire import binary_rows, read_vector, unescape

__all__ = ["PostgresBackend", "PostgresOptions"]

#: Below so many documents reading all of them is as fast as an index.
_INDEX_FROM = 10_000

#: How often what met another session's DDL is run again, a second later each time.
_TRIES = 10

#: What hnsw.ef_search can be; above it a session takes 40 instead, with a warning.
_MAX_EF = 1_000

#: The longest vectors that pgvector keeps, and the longest that it indexes, by precision.
_MAX_DIM = 16_000
_MAX_INDEXED = {"float32": 2_000, "float16": 4_000, "binary": 64_000}


class PostgresBackend(Backend):
    """A collection in a table of its own, in a schema of any Postgres with pgvector."""

    precisions = ("float32", "float16", "binary")

    def __init__(self, url: str, collection: str, options: PostgresOptions) -> None:
        target = Target(url)
        self._prepare(target, target.shown, collection, options)

    def _prepare(
        self, target: Target, shown: str, collection: str, options: PostgresOptions
    ) -> None:
        check_name("collection", collection)
        check_name("schema", target.schema)
        if collection == HEADS:
            raise ConfigError(f"{HEADS} is where collections are recorded; choose another name")
        self.url, self.collection, self._schema = shown, collection, target.schema
        self._options = options
        self._driver = Driver(
            target.conninfo, shown, size=options.pool_size, timeout=options.timeout,
            prepare=not options.pgbouncer,
        )  # fmt: skip
        self._heads = Heads(target.schema)
        self._held: Table | None = None
        #: Whether ids were new so far, so that rows can go straight into the table.
        self._straight = False
        #: The fields that have an index.
        self._indexed: set[str] = set()
        #: Those whose index is ivfflat, whoever made it.
        self._inverted: set[str] = set()
        #: Whether an index can be read on until a filter let enough through (pgvector 0.8).
        self._iterative = False

    @property
    def _table(self) -> Table:
        if self._held is None:
            raise BackendError(
                f"collection {self.collection!r} of {self.url} is closed; connect again"
            )
        return self._held

    def check(self, nesting: Nesting) -> None:
        super().check(nesting)
        if nesting.dim > _MAX_DIM:
            raise NestingError(
                f"{self.url} keeps vectors of up to {_MAX_DIM:,} numbers, got {nesting.dim:,}"
            )

    # Opening

    def load(self) -> Flow[Head | None]:
        pgvector, _, heads = yield from self._look()
        if not heads:
            return None
        (rows,) = yield Query(self._heads.read(self.collection))
        if not rows:
            return None
        head = Head.from_json(rows[0][0], f"{self.url}: {HEADS} of {self.collection!r}")
        self._take(head, pgvector)
        try:
            ((some,),), indexes = yield Query(self._table.has(1), self._table.indexes())
        except CollectionMissing as error:
            raise CollectionDamaged(
                f"{self.url} records a collection {self.collection!r} whose table is gone; restore "
                f"the table, or delete the collection's row of {HEADS}"
            ) from error.__cause__
        self._straight = not some
        ready = {row[0]: row[1] for row in indexes if row[2]}
        methods = {f.name: ready.get(self._table.index_name(f)) for f in head.nesting.fields}
        self._indexed = {name for name, method in methods.items() if method is not None}
        self._inverted = {name for name, method in methods.items() if method == "ivfflat"}
        return head

    # A prefix that is added later is an expression of full with an index: a generated column would
    # rewrite the table, and let nobody read it until that is done.

    def index_vector(self, head: Head, field: Field) -> Flow[None]:
        if self._options.index != "none" and not _unindexable(field):
            yield from self._index_as(
                replace(self._table, nesting=head.nesting, added=head.added), field
            )

    def drop_vector(self, head: Head, field: Field) -> Flow[None]:  # noqa: ARG002
        table = self._table
        yield from self._persisting(table.drop_index(field), table.drop_column(field))
        self._indexed -= {field.name}
        self._inverted -= {field.name}

    def _persisting(self, *statements: Statement) -> Flow[None]:
        """Run statements, again where they met what a client that is gone still has under way."""
        pause: tuple[Statement, ...] = ()
        for left in reversed(range(_TRIES)):
            try:
                yield Apart(*pause, *statements)
            except BackendError as error:
                # A deadlock, or "tuple concurrently updated" of the same index.
                if sqlstate(error) not in ("40P01", "XX000") or not left:
                    raise
                pause = (Statement(SQL("SELECT pg_sleep(1)")),)
            else:
                return

    def record(self, head: Head) -> Flow[None]:
        (changed,) = yield Query(self._heads.change(self.collection, head.to_json()), reads=False)
        if not changed:
            raise CollectionMissing(f"{self.url}: the collection {self.collection!r} was dropped")
        self._held = replace(self._table, nesting=head.nesting, added=head.added)

    def entries(self) -> Flow[list[Entry]]:
        (rows,) = yield Query(self._table.indexes())
        ready = {row[0]: (row[1], row[7]) for row in rows if row[2]}
        made = []
        for field in self._table.nesting.fields[:-1]:
            method, lists = ready.get(self._table.index_name(field), (None, None))
            most_ef = _MAX_EF if method == "hnsw" else None
            made.append(Entry(field, method is not None, most_ef, lists))
        return made

    def sample(self, count: int, seed: int) -> Flow[list[Record]]:
        (rows,) = yield Query(self._table.sample(count, seed))
        return [_record(row) for row in rows]

    def _look(self) -> Flow[tuple[Pgvector | None, bool, bool]]:
        """Return what there is: pgvector, the schema, and the table of heads."""
        (rows,) = yield Apart(self._heads.look())
        schema, version, oids, made, heads = rows[0]
        return None if version is None else Pgvector(schema, version, oids), made, heads

    def _take(self, head: Head, pgvector: Pgvector | None) -> None:
        if pgvector is None:
            raise CollectionDamaged(
                f"{self.url} records a collection {self.collection!r}, but pgvector is not in this "
                "database any more; restore it from a copy, nothing was changed"
            )
        numbers = tuple(int(part) for part in pgvector.version.split(".")[:2])
        if numbers < (0, 7):
            raise BackendError(
                f"{self.url} has pgvector {pgvector.version}, nestvec needs 0.7; install a newer "
                "one and run ALTER EXTENSION vector UPDATE"
            )
        self._iterative = numbers >= (0, 8)
        self._held = Table(
            self._schema, self.collection, head.nesting, pgvector, derived=head.derived,
            added=head.added,
        )  # fmt: skip

    def create(self, head: Head) -> Flow[None]:
        pgvector, schema, heads = yield from self._look()
        if pgvector is None:
            yield from self._make_extension()
            pgvector, schema, heads = yield from self._look()
        self._take(head, pgvector)
        statements = [] if heads else self._heads.make(schema_too=not schema)
        statements += [self._heads.add(self.collection, head.to_json()), *self._table.make()]
        begin, commit = Statement(SQL("BEGIN")), Statement(SQL("COMMIT"))
        try:
            yield Apart(begin, *statements, commit)
        except BackendError as error:
            raise self._not_made(error) from error.__cause__
        self._straight = True

    def _not_made(self, error: BackendError) -> Exception:
        if sqlstate(error) == "23505":
            return MadeMeanwhile(
                f"collection {self.collection!r} of {self.url} was just made by another process; "
                "connect again"
            )
        if sqlstate(error) == "42P07":
            return CollectionDamaged(
                f"{self.url} has a table {self.collection!r} that is not a nestvec collection; "
                "choose another collection or ?schema=, nothing was changed"
            )
        return error

    def _make_extension(self) -> Flow[None]:
        try:
            yield Apart(Statement(SQL("CREATE EXTENSION IF NOT EXISTS vector")))
        except BackendError as error:
            if sqlstate(error) == "23505":
                return  # another session made it in the same moment
            if isinstance(error, Unavailable):
                raise
            raise BackendError(
                f"{self.url}: pgvector is not in this database and could not be put there "
                f"({str(error.__cause__).splitlines()[0]}); ask an administrator to install it on "
                "the server, and to run CREATE EXTENSION vector in this database"
            ) from error.__cause__

    # Writing

    def upsert(self, batch: Batch) -> Flow[None]:
        table = self._table
        rows = partial(binary_rows, batch, table.written())
        if self._straight:
            try:
                yield table.copy(rows)
            except BackendError as error:
                if sqlstate(error) != "23505":
                    raise
                # Some id is there already, perhaps since a moment: from now on replace.
                self._straight = False
            else:
                return
        yield Query(*table.upsert(rows()), reads=False)

    def settle(self) -> Flow[None]:
        """Index the first field once there are enough documents for it to pay."""
        first = self._table.nesting.fields[0]
        if first.name in self._indexed or self._options.index == "none" or _unindexable(first):
            return
        (rows,) = yield Query(self._table.has(_INDEX_FROM))
        if rows[0][0]:
            yield from self.create_index(first)
            yield from self._make_apart(MetadataIndexes(self._table).make_gin())

    def create_index(self, field: Field) -> Flow[None]:
        """Index a field while others read and write; what is indexed already stays so."""
        yield from self._index_as(self._table, field)

    def _index_as(self, table: Table, field: Field) -> Flow[None]:
        options = self._options
        if options.index == "none":
            raise ConfigError("this store was opened with index='none'; open it with hnsw")
        if problem := _unindexable(field):
            raise NestingError(problem)
        if options.index == "ivfflat" and field.precision == "binary":
            raise NestingError(f"{field.spec}: pgvector's ivfflat of bits is not used; take hnsw")
        (found,) = yield Query(table.indexes())
        state = {row[0]: (row[2], row[4], row[1]) for row in found}.get(table.index_name(field))
        if state is not None and state[1] is not None:
            return  # another session is building it
        method = options.index
        if state is not None and state[0]:
            method = state[2]
        else:
            # Where a build broke off, an invalid index is left of it.
            yield from self._persisting(
                *self._build_settings(),
                *([] if state is None else [table.drop_index(field)]),
                table.make_index(field, options.index, options.index_options),
            )
        self._indexed |= {field.name}
        if method == "ivfflat":
            self._inverted |= {field.name}

    def _build_settings(self) -> list[Statement]:
        if self._options.build_memory is None:
            return []
        sql = SQL("SELECT set_config('maintenance_work_mem', %s, false)")
        return [Statement(sql, (self._options.build_memory,))]

    def delete(self, ids: Sequence[str] | None, where: Filter | None) -> Flow[int]:
        table = self._table
        doomed = _matching(where) if ids is None else table.with_ids(ids)
        (deleted,) = yield Query(table.delete(doomed), reads=False)
        return int(deleted)

    def drop(self) -> Flow[None]:
        yield Query(self._table.drop(), self._heads.remove(self.collection), reads=False)
        self._held = None
        yield Close()

    # Reading

    def search(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[list[Hit]]:
        (hits,) = yield from self.search_many([queries], plan, where)
        return hits

    def search_many(
        self, many: Sequence[Mapping[str, Matrix]], plan: Plan, where: Filter | None
    ) -> Flow[list[list[Hit]]]:
        matching = _matching(where)
        asked = [self._table.search(queries, plan, matching) for queries in many]
        found = yield from self._answers(asked, plan, where, lambda rows: _is_short(rows, plan))
        return [[_hit(row) for row in rows] for rows in found]

    def candidates(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter | None
    ) -> Flow[int]:
        statement = self._table.candidates(queries, plan, _matching(where))
        wanted = plan.stages[-1][1] if plan.stages and where is not None else 0
        (rows,) = yield from self._answers(
            [statement], plan, where, lambda rows: bool(rows[0][0] < wanted)
        )
        return int(rows[0][0])

    def _answers(
        self,
        asked: Sequence[Statement],
        plan: Plan,
        where: Filter | None,
        is_short: Callable[[Any], bool],
    ) -> Flow[list[Any]]:
        """Return the rows of each statement of a plan.

        A graph hands out what it reaches, up to a limit; whom it leaves short gets an exact pass.
        """
        exact = self._reads_all(plan, where)
        found: list[Any]
        _, *found = yield Query(settings(self._settings(plan, where, exact=exact)), *asked)
        short = [] if exact else [i for i, rows in enumerate(found) if is_short(rows)]
        if short and (where is None or (yield from self._by_graph(asked[short[0]], plan, where))):
            again = settings(self._settings(plan, where, exact=True))
            _, *passed = yield Query(again, *(asked[i] for i in short))
            for i, rows in zip(short, passed, strict=True):
                found[i] = rows
        return found

    def _by_graph(self, asked: Statement, plan: Plan, where: Filter) -> Flow[bool]:
        """Return whether the planner has the graph give the candidates of a filtered query."""
        chosen = settings(self._settings(plan, where, exact=False))
        _, planned = yield Query(chosen, explain(asked))
        return by_graph(planned[0][0])

    def _reads_all(self, plan: Plan, where: Filter | None) -> bool:
        """Return whether the first stage has to do without the index.

        Before pgvector 0.8 an index hands out at most ef_search rows, filtered afterwards.
        """
        if not plan.stages:
            return True
        return not self._iterative and (where is not None or plan.stages[0][1] > _MAX_EF)

    def _settings(self, plan: Plan, where: Filter | None, *, exact: bool) -> dict[str, Any]:
        """Return what the server is told for one query."""
        # A plan for any key and value would not see that an index is on just this key.
        chosen: dict[str, Any] = {} if where is None else {"plan_cache_mode": "force_custom_plan"}
        if exact:
            # Where a role has both switched off the planner would take the index after all.
            return chosen | {"enable_indexscan": "off", "enable_seqscan": "on"}
        field, limit = plan.stages[0]
        indexed = field.name in self._indexed
        if indexed and where is None and limit <= _MAX_EF:
            # The planner does not count what it costs to fetch vectors kept beside their rows,
            # and after ANALYZE may take a scan for cheaper: 2.6 queries a second instead of 100.
            chosen["enable_seqscan"] = "off"
        if field.name in self._inverted:
            further = {"ivfflat.iterative_scan": "relaxed_order"} if self._iterative else {}
            probes = plan.knobs.probes or self._options.probes
            return chosen | {"ivfflat.probes": probes, **further}
        ef = plan.knobs.ef or max(40, limit)
        # Only an iterative scan goes on past what ef_search found.
        chosen["hnsw.ef_search"] = min(_MAX_EF, ef if self._iterative else max(ef, limit))
        if self._iterative:
            chosen |= {
                "hnsw.iterative_scan": "strict_order",
                "hnsw.max_scan_tuples": max(20_000, 20 * limit),
                "hnsw.scan_mem_multiplier": 8,
            }
        return chosen

    def get(self, ids: Sequence[str], vectors: bool) -> Flow[list[Record]]:
        (rows,) = yield Query(self._table.documents(self._table.with_ids(ids), vectors))
        return [_record(row) for row in rows]

    def count(self, where: Filter | None) -> Flow[int]:
        (rows,) = yield Query(self._table.count(_matching(where)))
        return int(rows[0][0])

    def page(
        self, where: Filter | None, after: Any, limit: int, vectors: bool
    ) -> Flow[tuple[list[Record], Any]]:
        (rows,) = yield Query(self._table.page(_matching(where), after, limit, vectors))
        records = [_record(row) for row in rows]
        return records, records[-1].id if len(records) == limit else None

    def index_metadata(self, key: str, kind: str) -> Flow[None]:
        indexes = MetadataIndexes(self._table)
        yield from self._make_apart(indexes.make(key, kind))

    def _make_apart(self, statements: list[Statement]) -> Flow[None]:
        """Make indexes while others read and write, without what a build that broke off left."""
        indexes = MetadataIndexes(self._table)
        (rows,) = yield Query(indexes.found())
        yield Apart(*self._build_settings(), *indexes.drop_broken(rows), *statements)

    def index_for(self, condition: Keyed) -> str | None:
        return index_for(condition)

    def metadata_indexes(self) -> Flow[Mapping[str, str]]:
        (rows,) = yield Query(MetadataIndexes(self._table).found())
        return dict(read_comments(rows).values())

    def filtering(
        self, queries: Mapping[str, Matrix], plan: Plan, where: Filter
    ) -> Flow[FilterTrace]:
        exact = self._reads_all(plan, where)
        asked = self._table.search(queries, plan, _matching(where))
        chosen = settings(self._settings(plan, where, exact=exact))
        _, planned, rows, found = yield Query(
            chosen, explain(asked), MetadataIndexes(self._table).found(), asked
        )
        short = by_graph(planned[0][0]) and _is_short(found, plan)
        if short:
            chosen = settings(self._settings(plan, where, exact=True))
            _, planned = yield Query(chosen, explain(asked))
        return filter_trace(
            planned[0][0],
            read_comments(rows),
            matching=(yield from self.count(where)),
            total=(yield from self.count(None)),
            limit=plan.stages[0][1] if plan.stages else plan.limit,
            short=short,
        )

    def kept(self, nesting: Nesting) -> list[Field]:  # noqa: ARG002
        return self._table.columns()

    def stored(self, after: Any, limit: int) -> Flow[tuple[list[Stored], Any]]:
        names = [field.name for field in self._table.columns()]
        (rows,) = yield Query(self._table.stored(after, limit))
        found = []
        for id, text, *sent in rows:
            vectors = {name: read_vector(row) for name, row in zip(names, sent, strict=True)}
            found.append(Stored(unescape(id), unescape(id), unescape(text), vectors))
        return found, found[-1].id if len(found) == limit else None

    def rewrite(self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]]) -> Flow[None]:
        """Make full vectors unit length where they are; the database derives the rest."""
        yield Query(self._table.normalise([stored.id for stored, _ in mended]), reads=False)

    def info(self) -> Flow[Mapping[str, Any]]:
        (sizes,) = yield Query(self._table.sizes())
        if not sizes:
            raise CollectionMissing(f"{self.url}: the collection {self.collection!r} was dropped")
        table, indexes, dead, server = sizes[0]
        (found,) = yield Query(self._table.indexes())
        return {
            "engine": "postgres",
            "server": server,
            "table_bytes": table,
            "index_bytes": indexes,
            "dead_rows": dead,
            "indexes": {row[0]: _index_state(row) for row in found},
        }

    # Driving

    def send(self, request: Any) -> Any:
        return self._driver.send(request)

    async def asend(self, request: Any) -> Any:
        return await self._driver.asend(request)

    def close(self) -> None:
        self._driver.close()

    async def aclose(self) -> None:
        await self._driver.aclose()


def _matching(where: Filter | None) -> Statement:
    return EVERYTHING if where is None else condition(where)


def _is_short(rows: Sequence[tuple[Any, ...]], plan: Plan) -> bool:
    """Return whether the first stage handed on fewer than it was asked for, or full did."""
    return len(rows) < plan.k or (len(rows[0]) > 4 and rows[0][4] < plan.stages[0][1])


def _hit(row: tuple[Any, ...]) -> Hit:
    id, text, metadata, distance = row[:4]
    return Hit(unescape(id), unescape(text), metadata, 1.0 - distance)


def _record(row: tuple[Any, ...]) -> Record:
    id, text, metadata, vector = row
    sent = None if vector is None else read_vector(vector)
    return Record(unescape(id), unescape(text), metadata, sent)


def _unindexable(field: Field) -> str | None:
    """Return why a field cannot have an index, or None where it can."""
    if field.full and field.precision != "binary":
        return "full is what candidates are rescored by, and has no index; index a prefix"
    most = _MAX_INDEXED[field.precision]
    if field.length > most:
        return (
            f"{field.name} has {field.length:,} numbers, and pgvector indexes up to {most:,} of "
            f"{field.precision}; index a shorter prefix, or one of float16 (up to 4,000) or binary"
        )
    return None


def _index_state(row: tuple[Any, ...]) -> dict[str, Any]:
    _, method, valid, size, phase, done, total, _ = row
    if phase is None:
        state = "ready" if valid else "broken off; create_index() makes it anew"
        return {"method": method, "bytes": size, "state": state}
    return {"method": method, "bytes": size, "state": phase, "done": done / total if total else 0.0}
