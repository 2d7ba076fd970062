"""The command line on a Postgres URL: the same commands, and what Postgres tells of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nestvec
from nestvec import Record, cli, ingest

from .. import postgres
from ..vectors import nested_vectors


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command printed."""
    capsys.readouterr()
    code = cli.main(list(arguments))
    printed, errors = capsys.readouterr()
    assert code == 0, errors
    return printed


def test_the_same_commands_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = postgres.place()
    (tmp_path / "cats.txt").write_text("cats purr when they are content")
    (tmp_path / "dogs.txt").write_text("dogs bark at the postman")
    run(capsys, "add", url, str(tmp_path))
    found = json.loads(run(capsys, "search", url, "who barks?", "-k", "1", "--json"))
    assert "dogs bark" in json.dumps(found)
    shown = run(capsys, "index", url)
    for line in ("engine: postgres", "dead rows: ", "table bytes: ", "index bytes: "):
        assert line in shown
    assert "indexes docs_d64_ann state: ready" in shown
    assert run(capsys, "info", url).splitlines()[0] == shown.splitlines()[0]
    assert run(capsys, "delete", url, "--id", "nothing") == "deleted 0 documents\n"


def test_a_build_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_LOOK_EVERY", 0.02)
    seen: list[float] = []
    url = postgres.place()
    with nestvec.connect(url, dims=(128,), dim=256, index="none") as store:
        rows = nested_vectors(6_000, 256)
        store.add_records(Record(f"{i}", "", {}, row) for i, row in enumerate(rows))
    with nestvec.connect(url) as store:
        ingest.build_index(store, None, advance=seen.append)
        assert store.info().engine["indexes"]["docs_d128_ann"]["state"] == "ready"
    assert seen
    assert 0 < sum(seen) <= 1
