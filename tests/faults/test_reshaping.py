"""Kills in the middle of adding and dropping fields; faults that others planted."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qe

import nestvec
from nestvec import Record
from nestvec.backends.points import point_id
from nestvec.backends.postgres_driver import SQL, Query, Statement
from nestvec.backends.postgres_sql import name

from .. import postgres
from ..vectors import HashEmbedder

ROOT = Path(__file__).parents[2]
DIM, COUNT, KILLS = 32, 3_000, 20
ROWS = np.random.default_rng(5).standard_normal((COUNT, DIM)).astype(np.float32)


def filled(url: str, count: int = COUNT, **settings: Any) -> nestvec.Store:
    store = nestvec.connect(url, **{"dims": (8,), "dim": DIM, **settings})
    store.add_records(
        Record(f"id{i}", f"text {i}", {"n": i}, row) for i, row in enumerate(ROWS[:count])
    )
    return store


@pytest.fixture(params=["edge", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"edge:{tmp_path}" if request.param == "edge" else postgres.place()


def test_a_kill_in_the_middle_leaves_what_works_and_can_go_on(url: str) -> None:
    """SIGKILL at random moments of a field that comes and goes, over and over."""
    filled(url).close()
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    finished = 0
    for kill in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.reshape_child", url, "16"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "open\n", child.stderr.read()
        time.sleep(moments.uniform(0, 0.5))
        child.kill()
        printed, errors = child.communicate()
        assert errors == "", f"seed {seed}, kill {kill}"
        finished += len(printed.split())
        with nestvec.connect(url) as store:
            n = moments.randrange(COUNT)
            assert store.count() == COUNT
            assert store.search(ROWS[n], k=1, funnel="8:200")[0].id == f"id{n}", f"seed {seed}"
            if kill % 5 == 4:  # who comes next finishes what was begun
                store.add_field(16) if not _leaving(store) else store.drop_field(16)
                store.add_field(16)
                assert store.verify() == {}, f"seed {seed}, kill {kill}"
                assert store.search(ROWS[n], k=1, funnel="16:50")[0].id == f"id{n}"
    assert finished > 0


def _leaving(store: nestvec.Store) -> bool:
    return (store._collection.head.pending or "").startswith("-")


def wrong(store: nestvec.Store, kind: str, ids: list[str]) -> None:
    """Plant a fault of a kind, past nestvec."""
    shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]
    keys: list[Any] = [point_id(id) for id in ids]
    if kind == "lacking":
        shard.update(qe.UpdateOperation.delete_vectors(keys, ["d8"]))
        return
    rows: dict[str, Any] = {
        "other": lambda n: (-ROWS[n, :8]).tolist(),
        "zero": lambda _: [0.0] * 8,
    }
    changed = [
        qe.PointVectors(key, {"d8": rows[kind](int(id[2:]))})
        for key, id in zip(keys, ids, strict=True)
    ]
    shard.update(qe.UpdateOperation.update_vectors(changed))


def test_every_planted_fault_is_found_and_mended(tmp_path: Path) -> None:
    with filled(f"edge:{tmp_path}") as store:
        drawn = [f"id{i}" for i in random.Random(3).sample(range(COUNT), 150)]
        planted = {kind: drawn[i::3] for i, kind in enumerate(("lacking", "other", "zero"))}
        for kind, ids in planted.items():
            wrong(store, kind, ids)
        told: list[tuple[int, int]] = []
        found = store.verify(progress=lambda done, total: told.append((done, total)))
        expected = {"lacking": "d8", "other": "d8: not the prefix of full", "zero": "d8: all zero"}
        assert found == {id: (expected[kind],) for kind, ids in planted.items() for id in ids}
        assert told[-1] == (COUNT, COUNT)
        assert store.repair() == {}
        assert store.verify() == {}
        n = int(planted["other"][0][2:])
        assert store.search(ROWS[n], k=1, funnel="8:20")[0].id == f"id{n}"


def test_lengths_that_others_wrote_are_mended_in_postgres() -> None:
    with filled(postgres.place(), 200, **postgres.settings) as store:
        table = store._collection.backend._table  # type: ignore[attr-defined]
        three = SQL(
            'UPDATE {} SET "full" = "full" * array_fill(3::real, ARRAY[{}])::{}.vector WHERE '
        )
        ids = [f"id{i}" for i in range(50)]
        only = table.with_ids(ids)
        sql = SQL("{}{}").format(
            three.format(table.table, DIM, name(table.pgvector.schema)),
            only.sql,
        )
        store._send(Query(Statement(sql, only.params), reads=False))
        assert store.verify() == dict.fromkeys(ids, ("full: not unit length",))
        assert store.repair() == {}
        assert store.verify() == {}


def test_what_lacks_its_full_vector_is_embedded_again(tmp_path: Path) -> None:
    url = f"edge:{tmp_path}"
    with nestvec.connect(url, dims=(8,), embedder=HashEmbedder(32)) as store:
        store.add([f"text {i}" for i in range(50)], ids=[f"id{i}" for i in range(50)])
        shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]
        keys: list[Any] = [point_id("id3"), point_id("id4")]
        shard.update(qe.UpdateOperation.delete_vectors(keys, ["full", "d8"]))
        assert store.verify() == {"id3": ("full", "d8"), "id4": ("full", "d8")} or {
            "id3": ("d8", "full"), "id4": ("d8", "full"),
        }  # fmt: skip
    with nestvec.connect(url, embedder=None) as store:
        assert set(store.repair()) == {"id3", "id4"}  # nothing to make it of
    with nestvec.connect(url, embedder=HashEmbedder(32)) as store:
        assert store.repair() == {}
        assert store.search("text 3", k=1)[0].id == "id3"
