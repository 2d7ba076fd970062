"""tune, size, add-field, drop-field, verify and repair, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qe

import nestvec
from nestvec import Record, cli
from nestvec.adaptors import RotationAdaptor
from nestvec.backends.points import point_id

from .. import postgres
from ..vectors import nested_vectors

DIM = 32
ROWS = nested_vectors(600, DIM, seed=1)


def typed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return the exit code, the output and the errors of a command."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def filled(url: str, **settings: Any) -> str:
    with nestvec.connect(url, **{"dims": (8, 16), "dim": DIM, **settings}) as store:
        store.add_records(
            Record(f"id{i}", f"text {i}", {"n": i}, row) for i, row in enumerate(ROWS)
        )
    return url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return filled(f"edge:{tmp_path / 'c'}")


# tune


@pytest.mark.parametrize("engine", ["edge", "postgres"])
def test_tune_shows_the_plan_and_draws_it(engine: str, tmp_path: Path, capsys: Any) -> None:
    url = filled(f"edge:{tmp_path / 'c'}" if engine == "edge" else postgres.place())
    log, plots = tmp_path / "log.jsonl", tmp_path / "plots" / "new"
    lines = [json.dumps(row.tolist()) for row in nested_vectors(60, DIM, seed=2)]
    lines += [json.dumps({"vector": json.loads(line), "where": {"n": {"$lt": 400}}})
              for line in lines[:30]]  # fmt: skip
    log.write_text("\n".join(lines))
    command = ["tune", url, "--target", 0.6, "-k", 5, "--budget", 3, "--queries", log]
    code, out, err = typed(capsys, *command, "--plot", plots)
    assert (code, err) == (0, "")
    assert "the collection's default now" in out
    assert "over 63 queries (given)" in out
    drawn = sorted(path.name for path in plots.iterdir())
    assert drawn == [
        f"{name}.{kind}" for name in ("memory", "recall-candidates", "recall-qps")
        for kind in ("png", "svg")
    ]  # fmt: skip
    assert all(path.stat().st_size > 5_000 for path in plots.iterdir())
    code, out, err = typed(capsys, *command, "--json")
    told = json.loads(out)
    assert told["reached"]
    assert told["certificate"]["n"] == 63
    with nestvec.connect(url) as store:
        assert str(store.tuned) == told["funnel"]


def test_tune_ends_with_1_where_nothing_reaches(url: str, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "q.npy", nested_vectors(20, DIM, seed=2))
    code, out, err = typed(
        capsys, "tune", url, "--budget", 3, "--queries", tmp_path / "q.npy", "--optimise", "memory"
    )
    assert (code, err) == (1, "")
    assert "no plan reaches a recall@10 of 0.99" in out
    assert "0.99 needs 299 of them or more" in out
    assert "an exact scan" in out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--target", "2"], "target_recall is a share between 0 and 1, got 2.0"),
        (["--queries", "none.txt"], "none.txt: no such file"),
        (["--queries", "log"], "log, line 2: not JSON"),
        (["--queries", "short"], "short, line 1: query: vector has 2 numbers"),
        (["--optimise", "money"], "optimise is 'speed' or 'memory'"),
        (["--plot", "log"], "log: file exists"),
        (["--collection", "none"], "no collection 'none'"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(
    given: list[str],
    said: str,
    url: str,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("rain\n{")
    Path("short").write_text("[1, 2]\n")
    code, out, err = typed(capsys, "tune", url, *given)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


# size


def test_size_is_shown_beside_single_vectors(capsys: Any) -> None:
    code, out, _ = typed(capsys, "size", 1_000_000, "--dim", 1024, "--dims", "64,256:float16")
    assert code == 0
    for said in ("1,000,000 documents of 1,024 numbers", "64,256:float16", "full binary", "hot"):
        assert said in out
    code, out, _ = typed(
        capsys, "size", 1000, "--dim", 64, "--dims", "8", "--engine", "postgres", "--json"
    )
    told = json.loads(out)
    assert {made["engine"] for made in told} == {"postgres"}
    assert told[0]["dims"] == ["8"]
    assert told[0]["disk"] > told[0]["hot"] > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0, "--dim", 64, "--dims", "8"], "count is a whole number from 1 on, got 0"),
        ([9, "--dim", 64, "--dims", "80"], "prefixes are shorter than the full vector"),
        ([9, "--dim", 64, "--dims", "8:int3"], "int3"),
        ([9, "--dim", 64, "--dims", "8", "--engine", "oracle"], "unknown engine 'oracle'"),
        ([9, "--dim", 64, "--dims", "8:int8", "--engine", "postgres"], "cannot keep 8:int8"),
        ([9, "--dims", "8"], "missing option '--dim'"),
        (["many", "--dim", 64, "--dims", "8"], "invalid value for 'DOCUMENTS'"),
    ],
)
def test_what_has_no_size_is_one_line(given: list[object], said: str, capsys: Any) -> None:
    code, out, err = typed(capsys, "size", *given)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


# add-field, drop-field


@pytest.mark.parametrize("engine", ["edge", "postgres"])
def test_fields_come_and_go(engine: str, tmp_path: Path, capsys: Any) -> None:
    url = filled(f"edge:{tmp_path / 'c'}" if engine == "edge" else postgres.place())
    code, out, err = typed(capsys, "add-field", url, "24")
    assert (code, err) == (0, "")
    assert "d24" in out
    code, out, _ = typed(capsys, "drop-field", url, "8", "--json")
    told = json.loads(out)
    assert [field["name"] for field in told["fields"]] == ["d16", "d24", "full"]
    assert typed(capsys, "add-field", url, "24")[0] == 0  # it is there
    with nestvec.connect(url) as store:
        assert store.search(ROWS[7], k=1, funnel="24:20")[0].id == "id7"
    assert typed(capsys, "verify", url)[:2] == (
        0, "every document has all of its fields, as they should be\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["add-field", "64"], "prefixes are shorter than the full vector"),
        (["add-field", "x"], "items look like"),
        (["add-field", "full:float16"], "how it is kept cannot be changed"),
        (["drop-field", "9"], "unknown field 'd9'"),
        (["drop-field", "full"], "cannot be dropped"),
        (["add-field"], "missing argument"),
    ],
)
def test_fields_that_cannot_be_are_one_line(
    given: list[str], said: str, url: str, capsys: Any
) -> None:
    code, out, err = typed(capsys, given[0], url, *given[1:])
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_collections_with_an_adaptor(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "a.safetensors"
    adaptor = RotationAdaptor.random(DIM)
    adaptor.save(file)
    url = filled(f"edge:{tmp_path / 'c'}", adaptor=adaptor)
    commands: list[list[object]] = [
        ["add-field", url, "24"],
        ["drop-field", url, "24"],
        ["verify", url],
        ["repair", url],
        ["tune", url, "--target", 0.5, "-k", 3, "--budget", 2],
    ]
    for command in commands:
        code, _, err = typed(capsys, *command)
        assert code == 2
        assert "pass --adaptor FILE" in err
        assert typed(capsys, *command, "--adaptor", file)[0] == 0


# verify, repair


def test_faults_are_shown_and_mended(url: str, capsys: Any) -> None:
    with nestvec.connect(url) as store:
        shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]
        lost: list[Any] = [point_id(f"id{i}") for i in range(25)]
        shard.update(qe.UpdateOperation.delete_vectors(lost, ["d8"]))
        wrong: Any = point_id("id30")
        changed = [qe.PointVectors(wrong, {"d16": [0.0] * 16})]
        shard.update(qe.UpdateOperation.update_vectors(changed))
    code, out, err = typed(capsys, "verify", url)
    assert (code, err) == (1, "")
    assert "26 documents, 6 of them not shown" in out
    code, out, _ = typed(capsys, "verify", url, "--json")
    told = json.loads(out)
    assert code == 1
    assert told["id3"] == ["d8"]
    assert told["id30"] == ["d16: all zero"]
    assert typed(capsys, "repair", url, "--json")[:2] == (0, "{}\n")
    assert typed(capsys, "verify", url)[0] == 0


def test_what_cannot_be_mended_is_left_and_told(url: str, capsys: Any) -> None:
    with nestvec.connect(url) as store:
        shard = store._collection.backend._driver.shard  # type: ignore[attr-defined]
        lost: list[Any] = [point_id("id5")]
        shard.update(qe.UpdateOperation.delete_vectors(lost, ["d8", "d16", "full"]))
    code, out, err = typed(capsys, "repair", url)
    assert (code, err) == (1, "")
    assert "id5" in out
    assert "\n1 document\n" in out
    code, _, err = typed(capsys, "verify", url + "x")
    assert code == 2
    assert "no collection 'docs'" in err
