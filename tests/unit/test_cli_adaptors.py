"""nestvec adapt and train, and collections with an adaptor, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestvec import cli
from nestvec.adaptors import RotationAdaptor
from nestvec.adaptors import load as load_adaptor


def test_adapt_shows_recall_before_and_after(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    mixing = RotationAdaptor.random(48, seed=2)
    rows = mixing.apply(rng.standard_normal((3_000, 48)) / np.arange(1, 49))
    np.save(tmp_path / "v.npy", rows)
    file = tmp_path / "a.safetensors"
    assert cli.main(["adapt", str(tmp_path / "v.npy"), "-o", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["vectors"], told["held_out"], told["adaptor"]) == (3_000, 600, str(file))
    assert told["plot"] == str(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert [row["length"] for row in told["rows"]] == [32]
    assert told["rows"][0]["after"] > told["rows"][0]["before"]
    assert load_adaptor(file).name == told["name"]
    assert cli.main(["adapt", str(tmp_path / "v.npy"), "-o", str(file), "--no-plot"]) == 0
    shown = capsys.readouterr().out
    assert "fitted on 2,400 vectors" in shown
    assert "before" in shown


def test_a_collection_with_an_adaptor_is_used_with_it(tmp_path: Path, capsys: Any) -> None:
    file, url = tmp_path / "a.safetensors", f"edge:{tmp_path / 'e'}"
    RotationAdaptor.random(256, embedder="static").save(file)
    (tmp_path / "t.txt").write_text("Parse a date from a string.")
    adapted = ["--adaptor", str(file)]
    assert cli.main(["add", url, str(tmp_path / "t.txt"), *adapted]) == 0
    assert cli.main(["search", url, "dates in text", *adapted]) == 0
    assert cli.main(["info", url, *adapted]) == 0
    assert f"adaptor {load_adaptor(file).name}" in capsys.readouterr().out
    assert cli.main(["search", url, "dates in text"]) == 2
    assert "pass --adaptor FILE" in capsys.readouterr().err
    assert cli.main(["adapt", url, *adapted, "-o", str(tmp_path / "b")]) == 2
    assert "at least 1,000 are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["missing.npy"], "no such file"),
        (["v.npy", "--kind", "magic"], "rotation, improved, matryoshka"),
        (["v.npy", "--dims", "x"], "prefix lengths such as 64,128"),
        (["v.npy", "--plot", "a.odd"], "a picture's name ends with"),
        (["v.npy", "-o", "no/such/a"], "cannot be written"),
        (["v.npy", "v.npy"], "fitted on alone"),
        (["text.npy"], "no .npy file"),
        (["v.npy"], "vector 3: vector has NaN"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(
    given: list[str], said: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((2_000, 8))
    rows[3, 3] = np.nan
    np.save("v.npy", rows)
    Path("text.npy").write_text("text")
    assert cli.main(["adapt", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.npy", "v.npy"]


def test_train_is_measured_and_refused_in_one_line(tmp_path: Path, capsys: Any) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"title": "One", "text": "the first"}')
    command = ["train", "static", str(few), "-o", str(tmp_path / "model")]
    assert cli.main(command) == 2
    assert "at least 60 are needed" in capsys.readouterr().err
    rows = [{"title": f"word{n} of {n % 9}", "text": f"about word{n} and more"} for n in range(90)]
    few.write_text("\n".join(map(json.dumps, rows)))
    assert cli.main([*command, "--dims", "32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["embedder"] == f"st:{tmp_path / 'model'}"
    assert told["pairs"] == 70
    assert [row["dims"] for row in told["after"]["rows"]] == ["full", "32"]
