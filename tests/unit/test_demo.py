"""The demo: the docstrings of the standard library, whole and in part."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nestvec
from nestvec import F, cli, demo, stdlib_docs
from nestvec.passages import Document

Captured = pytest.CaptureFixture[str]

BY_KIND = {
    "module": "json",
    "class": "collections.abc.Mapping",
    "function": "json.loads",
    "method": "pathlib.Path.read_text",
}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(stdlib_docs.documents(stdlib_docs.sources()))


@pytest.fixture
def small(documents: list[Document], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A demo of a few modules, in an empty directory."""
    wanted = {"datetime", "tempfile", "difflib", "random", "threading", "builtins"}
    some = [doc for doc in documents if doc.passages[0].metadata["module"] in wanted]
    monkeypatch.setattr(stdlib_docs, "documents", lambda _: some)
    monkeypatch.chdir(tmp_path)


def test_there_are_5000_passages_with_module_name_and_kind(documents: list[Document]) -> None:
    passages = [passage for document in documents for passage in document.passages]
    assert len(passages) >= 5_000
    assert len({passage.id for passage in passages}) == len(passages)
    for passage in passages:
        metadata = passage.metadata
        assert set(metadata) == {"module", "name", "kind", "passage"}
        assert metadata["kind"] in BY_KIND
        assert passage.text.startswith(f"{metadata['name']}: ")


def test_python_and_c_are_both_there(documents: list[Document]) -> None:
    found = {document.id: document.passages[0] for document in documents}
    for kind, name in {**BY_KIND, "class": "int", "function": "math.sqrt"}.items():
        assert found[f"python:{name}"].metadata["kind"] == kind
    for name in (
        "concurrent.futures.Future.result",
        "str.split",
        "os.listdir",
        "datetime.datetime.strptime",
        "itertools.chain",
    ):
        assert f"python:{name}" in found
    modules = {record.metadata["module"] for record in found.values()}
    assert not modules & {"test", "idlelib", "distutils", "numpy", "nestvec"}
    assert not any("site-packages" in module or "._" in module for module in modules)


def test_sources_are_parsed_and_not_imported(tmp_path: Path) -> None:
    before = set(sys.modules)
    list(stdlib_docs.documents(stdlib_docs.sources()[:200]))
    assert not {"antigravity", "this", "turtle", "webbrowser"} & (set(sys.modules) - before)


def test_no_sources_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(nestvec.NestvecError, match="has no Python sources"):
        stdlib_docs.sources()


def test_the_demo_shows_hits_funnel_bytes_and_what_to_type(small: None, capsys: Captured) -> None:
    assert cli.main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert "docstrings of Python's standard library" in out
    for question, _ in demo.QUESTIONS:
        assert question in out
    assert "datetime  datetime.datetime.strptime: string, format" in out
    assert out.count("overlap with exact search ") == len(demo.QUESTIONS)
    assert "wait until it has finished   where F('module') == 'threading'" in out
    assert any(line.split()[:3] == ["d64", "64", "float32"] for line in out.splitlines())
    assert "  nestvec info edge:./nestvec-demo\n" in out


def test_what_the_demo_says_to_type_works(small: None, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n\nwords\n")
    assert cli.main(["demo", "--json"]) == 0
    commands = json.loads(capsys.readouterr().out)["next"]
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "nestvec"
        assert cli.main(arguments) == 0, command


def test_the_demo_runs_again_without_duplicates(small: None, capsys: Captured) -> None:
    made = []
    for _ in range(2):
        assert cli.main(["demo", "--json"]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert made[0]["info"]["count"] == made[1]["info"]["count"] == made[0]["passages"]


def test_the_demo_leaves_other_documents_alone(small: None, capsys: Captured) -> None:
    with nestvec.connect("edge:./nestvec-demo", dims=(64, 128), embedder="static") as store:
        store.add(["mine"], ids=["my own"], metadatas=[{"kind": "function", "module": "x"}])
    assert cli.main(["demo"]) == 2
    assert "holds other documents, such as 'my own'" in capsys.readouterr().err
    with nestvec.connect("edge:./nestvec-demo") as store:
        assert [record.id for record in store.scan()] == ["my own"]


def test_the_demo_leaves_other_collections_and_files_alone(
    small: None, capsys: Captured, tmp_path: Path
) -> None:
    with nestvec.connect("edge:./other", dims=(32,), embedder="static") as store:
        store.add(["mine"], ids=["my own"])
    assert cli.main(["demo", "edge:./other"]) == 2
    assert "has dims 32 of 256; asked for dims 64, 128 of 256" in capsys.readouterr().err
    (tmp_path / "nestvec-demo" / "docs").mkdir(parents=True)
    (tmp_path / "nestvec-demo" / "docs" / "letter.txt").write_text("dear")
    assert cli.main(["demo"]) == 2
    assert "is not a nestvec collection" in capsys.readouterr().err
    assert (tmp_path / "nestvec-demo" / "docs" / "letter.txt").read_text() == "dear"


def test_the_whole_demo_answers_its_questions(tmp_path: Path, capsys: Captured) -> None:
    url = f"edge:{tmp_path}/whole"
    assert cli.main(["demo", url, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["passages"] >= 5_000
    assert made["info"]["count"] == made["passages"]
    best = {a["question"]: [hit["metadata"]["name"] for hit in a["hits"]] for a in made["answers"]}
    assert "datetime.datetime.strptime" in best["how do I parse a date from a string?"]
    assert "random.Random.shuffle" in best["shuffle a list in random order"]
    temporary = best["create a temporary directory that is deleted afterwards"]
    assert "tempfile.TemporaryDirectory" in temporary
    filtered = made["answers"][-1]
    assert {hit["metadata"]["module"] for hit in filtered["hits"]} == {"threading"}
    assert all(answer["overlap"] >= 0.6 for answer in made["answers"])
    with nestvec.connect(url) as store:
        assert store.count(F("kind") == "function") > 1_000


def test_the_first_steps_run(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "first_steps.py"
    command = [sys.executable, "-W", "error", str(example), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "around the world: the arctic tern flies from pole to pole" in out
    assert "['a cat sleeps two thirds of its life', 'bats find" in out
    assert "d64: 12 in, 8 out\nfull: 8 in, 3 out\n" in out
