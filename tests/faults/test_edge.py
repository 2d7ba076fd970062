"""What goes wrong around an Edge collection: kills, other processes, files that are not ours."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import (
    BackendError,
    CollectionDamaged,
    CollectionMismatch,
    F,
    NestvecError,
    Record,
    Unavailable,
)

from ..vectors import HashEmbedder, nested_vectors, records
from .ingest_child import DIM

ROOT = Path(__file__).parents[2]
KILLS = 24


def python(*arguments: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **settings,
    )  # fmt: skip


def snapshot(directory: Path) -> dict[str, bytes]:
    """Return what every file holds, but for locks."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


def ingest_until_killed(directory: Path, seed: int, seconds: float) -> list[str]:
    """Return the ids that `add_records` had returned when the process was killed."""
    child = python("-m", "tests.faults.ingest_child", str(directory), str(seed))
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == "open\n", child.stderr.read()
    time.sleep(seconds)
    child.kill()
    printed, errors = child.communicate()
    assert errors == ""
    whole_lines = printed[: printed.rfind("\n") + 1]
    return whole_lines.split()


def test_a_kill_in_the_middle_of_add_loses_nothing_that_was_returned(tmp_path: Path) -> None:
    """SIGKILL at random moments; all of them hit the same collection, one after another."""
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    returned: set[str] = set()
    for kill in range(KILLS):
        returned.update(ingest_until_killed(tmp_path, kill, moments.uniform(0, 0.6)))
        with nestvec.connect(f"edge:{tmp_path}") as store:
            seen = {}
            for record in store.scan(vectors=True):
                assert record.text == f"text {record.metadata['n']}"
                assert np.linalg.norm(record.vector) == pytest.approx(1, abs=1e-5)
                seen[record.id] = record.vector
            assert returned <= seen.keys(), f"seed {seed}, kill {kill}"
            assert store.count() == len(seen)
            assert fields_of(store) == {"d8", "d16_int8", "full"}, f"seed {seed}, kill {kill}"
            if seen:
                id, vector = next(iter(seen.items()))
                hits = store.search(vector, k=1, where=F("n") == int(id[2:]))
                assert [hit.id for hit in hits] == [id]
    assert len(returned) > 1_000


def fields_of(store: nestvec.Store) -> set[str]:
    """Return the fields that every point of the shard has, looking past nestvec."""
    import qdrant_edge as qe

    shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]
    total = shard.count(qe.CountRequest(True))
    names = store._collection.nesting.names
    return {
        name
        for name in names
        if shard.count(qe.CountRequest(True, qe.Filter(must=[qe.HasVectorCondition(name)])))
        == total
    }


def test_a_kill_while_a_collection_is_made_leaves_none_or_all(tmp_path: Path) -> None:
    script = (
        "import nestvec, sys; print(1, flush=True); nestvec.connect(sys.argv[1], dims=(8,), dim=64)"
    )
    for pause in np.linspace(0, 0.12, 12):
        child = python("-c", script, f"edge:{tmp_path}")
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(pause)
        child.kill()
        child.communicate()
        with nestvec.connect(f"edge:{tmp_path}", dims=(8,), dim=DIM) as store:
            assert store.count() == 0
        shutil.rmtree(tmp_path / "docs")


def filled(path: Path, **settings: Any) -> nestvec.Store:
    store = nestvec.connect(f"edge:{path}", **{"dims": (2, 4), "dim": 8, **settings})
    store.add_records(records(nested_vectors(20, 8)))
    return store


def test_a_second_process_is_told_who_has_the_collection(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        script = f"import nestvec; nestvec.connect('edge:{tmp_path}')"
        _, errors = python("-c", script).communicate()
        assert "Unavailable" in errors.splitlines()[-1]
        assert "is open in another process or store" in errors
        with pytest.raises(Unavailable, match="is open in another process or store"):
            nestvec.connect(f"edge:{tmp_path}")
        assert store.count() == 20
    with nestvec.connect(f"edge:{tmp_path}") as again:
        assert again.count() == 20


def obey_permissions() -> None:
    """Take from a child that runs as root the right to write what is read-only."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (override, read_search):
        if os.geteuid() == 0 and libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="permissions as on Linux")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    filled(tmp_path).close()
    before = snapshot(tmp_path)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*"))]
    for path in folders:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for script in (
            f"nestvec.connect('edge:{tmp_path}')",
            f"nestvec.connect('edge:{tmp_path}', collection='new', dims=(2,), dim=8)",
            f"nestvec.connect('edge:{tmp_path}/deeper', dims=(2,), dim=8)",
        ):
            child = python("-c", f"import nestvec; {script}", preexec_fn=obey_permissions)
            _, errors = child.communicate()
            last = errors.splitlines()[-1]
            assert last.startswith("nestvec.errors.BackendError: edge:"), errors
            assert "Permission denied" in last
    finally:
        for path in folders:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not what nestvec wrote there"),
        ('{"nestvec": 1, "dim": 8, "di', "is not what nestvec wrote there"),
        ('{"some": "other tool"}', "is not what nestvec wrote there"),
        ("[]", "is not what nestvec wrote there"),
        ("\xff\x00binary", "is not what nestvec wrote there"),
        ('{"nestvec": 1, "dim": 8, "dims": [9], "embedder": null}', "is not what nestvec wrote"),
        ('{"nestvec": 99, "dim": 8, "dims": ["2"], "embedder": null}', "format 99.*upgrade"),
    ],
    ids=["empty", "truncated", "foreign", "list", "binary", "impossible", "newer"],
)
def test_a_manifest_that_is_not_ours(tmp_path: Path, text: str, words: str) -> None:
    filled(tmp_path).close()
    manifest = tmp_path / "docs" / "nestvec.json"
    good = manifest.read_text()
    manifest.write_text(text, encoding="latin-1")
    before = snapshot(tmp_path)
    asked: list[dict[str, Any]] = [{}, {"dims": (2, 4), "dim": 8}]
    for settings in asked:
        with pytest.raises(CollectionDamaged, match=words):
            nestvec.connect(f"edge:{tmp_path}", **settings)
    assert snapshot(tmp_path) == before
    manifest.write_text(good)
    with nestvec.connect(f"edge:{tmp_path}") as store:
        assert store.count() == 20


def test_a_directory_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    before = snapshot(tmp_path)
    with pytest.raises(CollectionDamaged, match="is not a nestvec collection"):
        nestvec.connect(f"edge:{tmp_path}", dims=(2,), dim=8)
    with pytest.raises(BackendError, match=r"file"):
        nestvec.connect(f"edge:{tmp_path}/file", dims=(2,), dim=8)
    assert snapshot(tmp_path) == before


def test_a_shard_that_is_damaged(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "docs" / "shard" / "edge_config.json").write_text("{")
    before = snapshot(tmp_path)
    with pytest.raises(NestvecError, match=r"refused load"):
        nestvec.connect(f"edge:{tmp_path}")
    assert snapshot(tmp_path) == before
    shutil.rmtree(tmp_path / "docs" / "shard")
    with pytest.raises(CollectionDamaged, match=r"no nestvec\.json with a shard beside it"):
        nestvec.connect(f"edge:{tmp_path}", dims=(2, 4), dim=8)


def test_another_model_or_other_dims_change_nothing(tmp_path: Path) -> None:
    store = nestvec.connect(f"edge:{tmp_path}", dims=(2, 4), embedder=HashEmbedder())
    store.add(["one", "two"], ids=["a", "b"])
    store.close()
    before = snapshot(tmp_path)
    wrong: list[dict[str, Any]] = [
        {"embedder": HashEmbedder(name="other")}, {"dims": (4,)}, {"dim": 9},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(CollectionMismatch):
            nestvec.connect(f"edge:{tmp_path}", **settings)
    assert snapshot(tmp_path) == before
    with nestvec.connect(f"edge:{tmp_path}") as again:
        assert again.count() == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\\b", "-x", "a\0", "x" * 129])
def test_a_collection_name_that_cannot_be_a_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(nestvec.ConfigError, match="cannot be a directory's name"):
        nestvec.connect(f"edge:{tmp_path}", collection=name, dims=(2,), dim=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["", "edge", "edge:", "nosuch:x", "memory:x", "EDGE:./x"])
def test_a_url_that_no_engine_understands(url: str) -> None:
    with pytest.raises(nestvec.ConfigError):
        nestvec.connect(url, dims=(2,), dim=8)


GRAPH = 12_000  # documents of 256 numbers that the engine makes a graph of
LEFT = 100  # of them, the last ones, that the graph is to lead to when all others are gone


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[nestvec.Store]:
    """A collection large enough for a graph, in the directory of the test."""
    with nestvec.connect(f"edge:{tmp_path}", dims=("full:int8",), dim=256) as store:
        store.add_records(records(nested_vectors(GRAPH, 256)))
        assert store.info().engine["indexed"] == GRAPH
        assert lost(store) <= 2
        yield store


def lost(store: nestvec.Store) -> int:
    """Return how many of the last documents are not found by their own vectors."""
    firsts = (
        store.search(row, 1, funnel="full:int8:60 ef=60")[0].metadata["n"]
        for row in nested_vectors(GRAPH, 256)[-LEFT:]
    )
    return sum(first != n for n, first in enumerate(firsts, GRAPH - LEFT))


def others() -> list[Record]:
    """Return what replaces all documents but the last ones."""
    return records(nested_vectors(GRAPH, 256, seed=2))[:-LEFT]


def test_what_is_left_of_a_graph_leads_to_all_that_is_left(graph: nestvec.Store) -> None:
    for share in (0.3, 0.5, 0.98):  # the last leaves too little for the engine to build it anew
        graph.delete(where=F("n") < share * GRAPH)
        assert lost(graph) <= 2, share


def test_most_documents_can_be_replaced_while_others_search(graph: nestvec.Store) -> None:
    seen = []

    def source() -> Iterator[Record]:
        yield from others()
        seen.append(lost(graph))

    graph.add_records(source())
    assert seen[0] <= 2
    assert lost(graph) <= 2


def test_an_ingest_that_broke_off_is_remembered(graph: nestvec.Store) -> None:
    def source() -> Iterator[Record]:
        yield from others()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        graph.add_records(source())
    url = graph.url
    graph.close()
    with nestvec.connect(url) as store:
        assert lost(store) <= 2
        store.create_index()
        assert lost(store) <= 2


def test_a_graph_keeps_its_links_and_is_built_anew_with_others(tmp_path: Path) -> None:
    def built() -> set[tuple[int, int]]:
        """Return the links and the candidates of the graphs that the engine has."""
        files = (tmp_path / "docs" / "shard").glob("segments/*/vector_index-*/hnsw_config.json")
        graphs = [json.loads(file.read_text()) for file in files]
        return {(graph["m"], graph["ef_construct"]) for graph in graphs if graph["m"]}

    url = f"edge:{tmp_path}"
    with nestvec.connect(url, dims=(64,), dim=256, m=24, ef_construct=50) as store:
        store.add_records(records(nested_vectors(GRAPH, 256)))
        assert built() == {(24, 50)}
    with nestvec.connect(url) as store:
        store.add_field(32)
        assert built() == {(24, 50)}
        store.drop_field(32)
        store.create_index()
        assert built() == {(24, 50)}
    with nestvec.connect(url, m=20) as store:
        assert built() == {(24, 50)}
        store.create_index()
        assert built() == {(20, 50)}
        assert store.search(nested_vectors(GRAPH, 256)[7], 1)[0].metadata["n"] == 7
    with nestvec.connect(url) as store:
        store.create_index()
        assert built() == {(20, 50)}
    with pytest.raises(nestvec.ConfigError, match="ef_construct at least m, got 60 and 50"):
        nestvec.connect(url, m=60)
    with nestvec.connect(url) as store:
        assert store.count() == GRAPH


def test_a_graph_is_not_built_with_other_links_while_a_field_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    url, rows = f"edge:{tmp_path}", nested_vectors(200, 32)
    with nestvec.connect(url, dims=(8,), dim=32) as store:
        store.add_records(records(rows))
        with monkeypatch.context() as patch:
            patch.setattr("nestvec.backends.edge.EdgeBackend.index_vector", broken)
            with pytest.raises(ZeroDivisionError):
                store.add_field(16)
    with nestvec.connect(url, m=20) as store:
        store.create_index()
        assert store.search(rows[7], 1)[0].metadata["n"] == 7
        store.add_field(16)
        assert store.verify() == {}
        store.create_index()
        assert store.search(rows[7], 1, funnel="16:20")[0].metadata["n"] == 7
