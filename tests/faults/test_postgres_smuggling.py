"""SQL that a user could smuggle in: hostile strings change nothing but their own record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestvec
from nestvec import Eq, F, Lt, Record
from nestvec.filter_values import spelled

from .. import postgres
from ..vectors import nested_vectors

ROW, OTHER = nested_vectors(2, 8)

FRAGMENTS = [
    "'", '"', "''", '"; DROP TABLE victim; --', "'; DROP TABLE victim; --", "$$", "$1", "%s", "%b",
    "%%", "%(a)s", "{}", "{0}", "\\", "\\'", "\\u0000", "\\x00", "\x00", "\x01", "\x01\x02", "/*",
    "*/", "--", ";", "\n", "') OR TRUE --", "$.a ? (@ == 1)", "@", "[*]", "::text", "COMMIT;", "\b",
    "nestvec_collections", "victim", "\u202e", "é", "😀", "\ufeff", "E'\\047'", "U&'\\0027'", "a",
]  # fmt: skip
hostile = st.lists(
    st.sampled_from(FRAGMENTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    min_size=1, max_size=4,
).map("".join).filter(bool)  # fmt: skip
#: What can be a name in Postgres.
names = hostile.filter(lambda name: "\0" not in name and len(name.encode()) <= 50)


@pytest.fixture(scope="module")
def schema() -> str:
    """A schema with a table that nothing here may touch."""
    name = "nestvec_test_victim"
    postgres.place(name)
    with postgres.admin() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(f"CREATE TABLE {name}.victim AS SELECT 42 AS answer")
    # So that the table of heads is there from the start.
    url = postgres.with_options(postgres.server(), schema=name)
    nestvec.connect(url, collection="first", dims=(2,), dim=8).drop()
    return name


def tables(schema: str) -> list[Any]:
    with postgres.admin() as connection:
        assert connection.execute(f"SELECT answer FROM {schema}.victim").fetchall() == [(42,)]
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        return connection.execute(sql, (schema,)).fetchall()


@pytest.fixture(scope="module")
def store(schema: str) -> Iterator[nestvec.Store]:
    url = postgres.with_options(postgres.server(), schema=schema)
    with nestvec.connect(url, dims=(2,), dim=8) as opened:
        yield opened


@given(id=hostile, text=hostile, steps=st.lists(hostile, min_size=1, max_size=3), value=hostile)
@settings(max_examples=150)
def test_in_ids_texts_metadata_and_filters(
    store: nestvec.Store, schema: str, id: str, text: str, steps: list[str], value: str
) -> None:
    before = tables(schema)
    store.add_records([Record("other", "kept", {"kept": True}, OTHER)])
    nested: Any = [value]
    for step in reversed(steps):
        nested = {step: nested}
    key = spelled(steps)
    mine = Record(id, text, nested, ROW)
    assert store.add_records([mine]) == [id]
    assert store.get([id]) == [mine]
    for where in (F(key) == value, Lt(key, value + "x"), F(key).in_([value, id])):
        assert [hit.id for hit in store.search(ROW, where=where)] == [id]
    assert store.count(Eq(spelled([value, "no"]), key)) == 0
    assert {record.id for record in store.scan()} == {id, "other"}
    assert store.delete(ids=[id]) == 1
    assert store.get(["other"]) == [Record("other", "kept", {"kept": True})]
    assert tables(schema) == before


@given(collection=names, schema_name=names, id=hostile)
@settings(max_examples=60)
def test_in_names_of_collections_and_schemas(
    schema: str, collection: str, schema_name: str, id: str
) -> None:
    before = tables(schema)
    if collection in ("nestvec_collections", "victim"):
        return
    own = f"nestvec_{schema_name}"
    for place in (schema, own):
        if place == own:
            postgres.place(own)
        url = postgres.with_options(postgres.server(), schema=place)
        with nestvec.connect(url, collection=collection, dims=(2,), dim=8) as store:
            store.add_records([Record(id, "", {}, ROW)])
            store.add_records([Record(id, "again", {}, OTHER)])
            store.create_index()
            assert [hit.text for hit in store.search(OTHER)] == ["again"]
            assert store.info().count == 1
            store.drop()
    postgres.clean(own)
    assert tables(schema) == before
