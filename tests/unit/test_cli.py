"""The command line as a user types it, over real files and real Edge collections."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nestvec
from nestvec import And, F, Filter, FilterError, cli, ingest
from nestvec.conditions import condition
from nestvec.passages import Document
from nestvec.records import Record

PETS = """\
{"text": "cats purr when they are content", "id": 1, "metadata": {"kind": "cat", "year": 2020}}
{"text": "dogs bark at the postman", "id": 2, "metadata": {"kind": "dog", "year": 2021}}
{"text": "puppies chew on shoes", "id": 3, "metadata": {"kind": "dog", "year": 2022}}
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


#: Types a command and returns what happened.
Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def type_(*arguments: object) -> Done:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return type_


@pytest.fixture
def pets(run: Run, tmp_path: Path) -> str:
    (tmp_path / "pets.jsonl").write_text(PETS)
    assert run("add", "edge:./c", "pets.jsonl").code == 0
    return "edge:./c"


def program(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nestvec", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60, **options
    )


def stored(url: str) -> dict[str, str]:
    with nestvec.connect(url) as store:
        return {record.id: record.text for record in store.scan()}


def paragraphs(count: int) -> str:
    return "\n\n".join(f"paragraph {n}: " + "words of it " * 50 for n in range(count))


# add


def test_add_makes_the_collection_and_says_what_it_did(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "long.md").write_text(paragraphs(3))
    (tmp_path / "docs" / "short.rst").write_text("a short one")
    (tmp_path / "docs" / "picture.png").write_bytes(b"\x89PNG")
    done = run("add", "edge:./c", "docs", "--root", "docs")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "collection docs in edge:./c: added 2 documents as 4 passages; "
        "left out 1 file of other kinds\n"
    )
    assert set(stored("edge:./c")) == {"long.md", "long.md#1", "long.md#2", "short.rst"}
    known = run("info", "edge:./c", "--json").json
    assert [field["name"] for field in known["fields"]] == ["d64", "d128", "full"]
    assert (known["embedder"], known["count"]) == ("static", 4)


def test_add_again_updates_and_shrinks_and_grows(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"

    def add(text: str) -> dict[str, Any]:
        file.write_text(text)
        added: dict[str, Any] = run("add", "edge:./c", "a.txt", "--root", ".", "--json").json
        return added

    made = {"url": "edge:./c", "collection": "docs", "documents": 1, "blank": 0, "skipped": 0}
    assert add(paragraphs(40)) == {**made, "passages": 40, "removed": 0}
    assert add(paragraphs(40)) == {**made, "passages": 40, "removed": 0}
    assert add(paragraphs(3)) == {**made, "passages": 3, "removed": 37}
    assert set(stored("edge:./c")) == {"a.txt", "a.txt#1", "a.txt#2"}
    assert add(paragraphs(5)) == {**made, "passages": 5, "removed": 0}
    assert add("other words")["removed"] == 4
    assert stored("edge:./c") == {"a.txt": "other words"}
    assert add(" \n") == {**made, "documents": 0, "blank": 1, "passages": 0, "removed": 1}
    assert stored("edge:./c") == {}


def test_many_documents_are_updated_in_one_go(run: Run, tmp_path: Path) -> None:
    lines = [{"text": paragraphs(1 + n % 3), "id": f"doc {n}"} for n in range(700)]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert run("add", "edge:./c", file, "--json").json["passages"] == 1399
    file.write_text("\n".join(json.dumps({**line, "text": "short"}) for line in lines))
    added = run("add", "edge:./c", file, "--json").json
    assert (added["passages"], added["removed"]) == (700, 699)
    assert set(stored("edge:./c").values()) == {"short"}
    assert len(stored("edge:./c")) == 700


def test_the_last_of_equal_ids_wins(run: Run, tmp_path: Path) -> None:
    lines = [{"text": paragraphs(3), "id": "x"}, {"text": "last", "id": "x"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("add", "edge:./c", "a.jsonl")
    assert stored("edge:./c") == {"x": "last"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, reversed(lines))))
    run("add", "edge:./c", "a.jsonl")
    assert set(stored("edge:./c")) == {"x", "x#1", "x#2"}


def test_documents_that_only_look_like_passages_are_left_alone(run: Run, tmp_path: Path) -> None:
    lines = [
        {"text": "chapter", "id": "http://a/b#1"},
        {"text": "passage of another's", "id": "mine#1", "metadata": {"passage": 1}},
        {"text": "whole", "id": "http://a/b"},
        {"text": "beginning", "id": "mine", "metadata": {"passage": 0}},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("add", "edge:./c", "a.jsonl", "--json").json["removed"] == 0
    assert len(stored("edge:./c")) == 4


def test_a_gap_does_not_hide_the_passages_after_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs(6))
    run("add", "edge:./c", "a.txt", "--root", ".")
    assert run("delete", "edge:./c", "--id", "a.txt#2", "--json").json == {"deleted": 1}
    (tmp_path / "a.txt").write_text("short")
    run("add", "edge:./c", "a.txt", "--root", ".")
    assert stored("edge:./c") == {"a.txt": "short"}


def test_what_was_stored_before_an_error_stays_and_is_told() -> None:
    told: list[str] = []

    def documents() -> Iterator[Document]:
        for n in range(1_500):
            yield Document(f"{n}", (Record(f"{n}", f"text {n}"),))
        raise nestvec.RecordError("line 1,501")

    with nestvec.connect("memory:", dims=(64,), embedder="static") as store:
        with pytest.raises(nestvec.RecordError):
            ingest.ingest(store, documents(), advance=lambda document: told.append(document.id))
        assert store.count() == len(told) == 1_024


@pytest.mark.parametrize("text", ['{"text": "from a pipe", "id": "x"}', "from a pipe"])
def test_add_reads_standard_input(tmp_path: Path, text: str) -> None:
    options = [] if text.startswith("{") else ["--id", "x"]
    done = program("add", "edge:./c", "-", *options, cwd=tmp_path, input=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "collection docs in edge:./c: added 1 document as 1 passage\n"
    assert stored(f"edge:{tmp_path}/c") == {"x": "from a pipe"}


def test_add_takes_the_fields_of_a_new_collection_and_refuses_to_change_them(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert run("add", "edge:./c", "a.txt", "--dims", "32,128:int8").code == 0
    fields = run("info", "edge:./c", "--json").json["fields"]
    assert [field["name"] for field in fields] == ["d32", "d128_int8", "full"]
    assert run("add", "edge:./c", "a.txt").code == 0
    assert run("add", "edge:./c", "a.txt", "--dims", "32,128:int8").code == 0
    done = run("add", "edge:./c", "a.txt", "--dims", "64")
    assert (done.code, done.out) == (2, "")
    assert "has dims 32, 128:int8 of 256; asked for dims 64 of 256" in done.err


def test_add_to_a_collection_by_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    run("add", "edge:./c", "a.txt", "--collection", "other")
    assert run("info", "edge:./c", "--collection", "other", "--json").json["count"] == 1
    assert run("info", "edge:./c").code == 2


# search


def test_search_prints_hits(run: Run, pets: str) -> None:
    done = run("search", pets, "feline", "-k", 1)
    assert (done.code, done.err) == (0, "")
    assert "cats purr when they are content" in done.out
    assert "kind=cat year=2020" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "\x1b" not in done.out


def test_search_prints_json(run: Run, pets: str) -> None:
    (hit,) = run("search", pets, "cats purr when they are content", "-k", 1, "--json").json["hits"]
    assert hit.pop("score") == pytest.approx(1, abs=1e-4)
    assert hit == {
        "id": "1", "text": "cats purr when they are content",
        "metadata": {"kind": "cat", "year": 2020},
    }  # fmt: skip


def test_search_takes_conditions_offset_score_and_funnel(run: Run, pets: str) -> None:
    def ids(*options: object) -> list[str]:
        return [hit["id"] for hit in run("search", pets, "dogs", *options, "--json").json["hits"]]

    everything = ids("--funnel", "exact")
    assert ids("--where", "kind=dog", "--where", "year>=2022") == ["3"]
    assert ids("--offset", 1, "--funnel", "64:3", "-k", 2) == everything[1:]
    assert ids("--min-score", 0.99) == []
    assert run("search", pets, "dogs", "--min-score", 0.99).out == "no hits\n"


def test_explain_shows_the_funnel_as_a_table(run: Run, pets: str) -> None:
    out = run("search", pets, "dogs", "--explain", "-k", 2, "--funnel", "64:3 128:2").out
    rows = [line.split() for line in out.splitlines()]
    assert ["stage", "field", "in", "out", "ms"] in rows
    assert [row[:4] for row in rows if row and row[0] in "123" and len(row) == 5] == [
        ["1", "d64", "3", "3"], ["2", "d128", "3", "2"], ["3", "full", "2", "2"],
    ]  # fmt: skip
    assert "overlap with it: 100%" in out


def test_explain_as_json_has_the_funnel_of_the_offset_too(run: Run, pets: str) -> None:
    options = ("--explain", "-k", 1, "--offset", 1, "--where", "kind=dog", "--json")
    made = run("search", pets, "dogs", *options).json
    assert len(made["hits"]) == 1
    stages = [
        (s["field"], s["candidates_in"], s["candidates_out"]) for s in made["trace"]["stages"]
    ]
    assert stages == [("d64", 2, 2), ("full", 2, 2)]
    assert made["trace"]["overlap"] == 1
    assert made["trace"]["milliseconds"] > 0


def test_documents_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    text = "[red]not markup[/red] :smile: \x1b[31mred\x1b[0m \x07 end"
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text, "id": "\x1bid", "metadata": {"a": text}})
    )
    run("add", "edge:./c", "a.jsonl")
    out = run("search", "edge:./c", "markup").out
    assert "[red]not markup[/red] :smile:" in out
    assert not set(out) & {"\x1b", "\x07"}


@pytest.mark.parametrize(
    ("text", "filter"),
    [
        ("kind=dog", F("kind") == "dog"),
        ("kind == dog", F("kind") == "dog"),
        ("year>=2020", F("year") >= 2020),
        ("year <= 2020.5", F("year") <= 2020.5),
        ("year>2020", F("year") > 2020),
        ("year<-1", F("year") < -1),
        ('year="2020"', F("year") == "2020"),
        ("kind!=dog", F("kind") != "dog"),
        ("draft=true", F("draft") == True),  # noqa: E712
        ("draft=True", F("draft") == "True"),
        ("lang=null", F("lang") == None),  # noqa: E711
        ("author.name=Ann = Bob", F("author.name") == "Ann = Bob"),
        ("a=b=c>=d", F("a") == "b=c>=d"),
        ("day>=2024-01-31", F("day") >= "2024-01-31"),
        ("code=007", F("code") == "007"),
        ("x=NaN", F("x") == "NaN"),
        ("empty=", F("empty") == ""),
        ("two words=x", F("two words") == "x"),
    ],
)  # fmt: skip
def test_conditions_mean_what_they_say(text: str, filter: Filter) -> None:
    assert condition([text]) == And((filter,))


def test_no_condition_is_no_filter() -> None:
    assert condition([]) is None
    assert condition(["a=1", "b=2"]) == (F("a") == 1) & (F("b") == 2)


@pytest.mark.parametrize("text", ["", "kind", "=dog", "a=[1]", 'a={"b":1}', "a>true", "a..b=1"])
def test_conditions_without_meaning_are_refused(text: str) -> None:
    with pytest.raises(FilterError):
        condition([text])


# info, delete


def test_info_shows_the_bytes_of_each_field(run: Run, pets: str) -> None:
    out = run("info", pets).out
    assert "collection docs in edge:./c" in out
    assert "3 documents; embedder static" in out
    assert ["full", "256", "float32", "3,072"] in [line.split() for line in out.splitlines()]


def test_delete_by_id_takes_all_passages(run: Run, pets: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs(30))
    run("add", pets, "a.txt", "--root", ".")
    assert run("delete", pets, "--id", "a.txt", "--id", "2").out == "deleted 31 documents\n"
    assert set(stored(pets)) == {"1", "3"}
    assert run("delete", pets, "--id", "nothing", "--json").json == {"deleted": 0}


def test_a_filter_in_json(run: Run, pets: str) -> None:
    (hit,) = json.loads(
        run("search", pets, "pets", "--filter", '{"kind": {"$in": ["cat"]}}', "--json").out
    )["hits"]
    assert hit["metadata"]["kind"] == "cat"
    for wrong, words in [("{", "cannot read"), ("3", "expected a dict"), ('{"$x": 1}', "unknown")]:
        assert words in run("search", pets, "pets", "--filter", wrong).err
    assert "every document" in run("delete", pets, "--filter", "{}").err
    out = run("delete", pets, "--filter", '{"$not": {"kind": "dog"}}', "--json").out
    assert json.loads(out)["deleted"] > 0


def test_a_metadata_index(run: Run, pets: str) -> None:
    made = json.loads(run("index", pets, "--metadata", "kind=str", "--json").out)
    assert made["indexes"] == {"kind": "str"}
    assert "metadata index: kind (str)" in run("info", pets).out
    assert "takes KEY=KIND" in run("index", pets, "--metadata", "kind:str").err
    out = run("search", pets, "dogs", "--filter", '{"kind": "dog"}', "--explain").out
    assert "by indexes on kind" in out


def test_delete_by_condition(run: Run, pets: str) -> None:
    assert run("delete", pets, "--where", "kind=dog", "--where", "year=2021").out == (
        "deleted 1 document\n"
    )
    assert set(stored(pets)) == {"1", "3"}


@pytest.mark.parametrize("options", [(), ("--id", "1", "--where", "kind=dog")])
def test_delete_needs_ids_or_conditions(run: Run, pets: str, options: tuple[str, ...]) -> None:
    done = run("delete", pets, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: give --id, or --where and --filter; nothing was deleted\n"
    assert len(stored(pets)) == 3


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "no such command 'bogus'; see nestvec --help"),
        (["search", "edge:./c"], "missing argument 'QUESTION'; see nestvec search --help"),
        (["search", "edge:./c", "x", "--bogus"], "no such option: --bogus"),
        (["search", "edge:./c", "two", "words"], "unexpected extra argument"),
        (["search", "edge:./c", "x", "-k", "many"], "invalid value for '-k'"),
        (["search", "edge:./c", "x", "-k", "0"], "k must be at least 1, got 0"),
        (["search", "edge:./c", " "], "text is blank"),
        (["search", "edge:./c", "x", "--where", "kind"], "write KEY=VALUE"),
        (["search", "edge:./c", "x", "--funnel", "65:9"], "unknown field '65'"),
        (["search", "edge:./c", "x", "--min-score", "nan"], "min_score is a cosine"),
        (["search", "edge:./c", "x", "--embedder", "y"], "unknown embedder 'y'"),
        (["search", "edge:./none", "x"], "in edge:./none; make it with: nestvec add"),
        (["info", "bogus:x"], "unknown URL scheme 'bogus'"),
        (["info", "edge:"], "needs a directory"),
        (["delete", "edge:./c", "--id", ""], "an id is not empty"),
        (["add", "edge:./c"], "missing argument 'PATH...'"),
        (["add", "edge:./c", "none.txt"], "none.txt: no such file or directory"),
        (["add", "edge:./c", "pets.jsonl", "--id", "x"], "those of standard input"),
        (["add", "edge:./c", "c/docs/nestvec.json"], "this kind of file is not read"),
        (["add", "edge:./new", "pets.jsonl", "--dims", "0"], "at least 1 number"),
        (["add", "edge:pets.jsonl", "pets.jsonl"], "pets.jsonl"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_exit_code_2(
    run: Run, pets: str, arguments: list[str], said: str
) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert said in done.err
    wrong = run(*arguments, "--json")
    assert (wrong.code, wrong.out) == (2, "")
    assert set(json.loads(wrong.err)) == {"error", "type"}
    assert wrong.err.count("\n") == 1


def test_json_errors_say_their_type(run: Run, pets: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{"tex": "x"}\n')
    error = json.loads(run("add", pets, "bad.jsonl", "--json").err)
    assert error["type"] == "RecordError"
    assert error["error"].startswith("bad.jsonl, line 2: unknown key 'tex'")
    missing = json.loads(run("add", pets, "none.txt", "--json").err)
    assert missing["type"] == "FileNotFoundError"


def test_wrong_paths_make_no_collection(run: Run, tmp_path: Path) -> None:
    assert run("add", "edge:./c", "none.txt").code == 2
    assert run("search", "edge:./c", "x").code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "postgresql://user:s3cret@host/db"],
        ["info", "edge:./c", "postgresql://user:s3cret@host/db"],
        ["add", "edge:./c", "postgresql://user:s3/cret@host/db"],
        ["add", "edge:./c", "http://:s3cret@host"],
        ["add", "edge:./c", "http://host?api_key=s3cret&x=1"],
        ["info", "edge:./c", "host=h password=s3cret"],
        ["info", "http://user:s3cret@host", "--bogus"],
    ],
)  # fmt: skip
def test_passwords_are_never_printed(run: Run, arguments: list[str]) -> None:
    for options in ([], ["--json"]):
        done = run(*arguments, *options)
        assert done.code == 2
        assert "cret" not in done.out + done.err


def test_a_collection_that_is_open_elsewhere_is_one_clear_line(run: Run, pets: str) -> None:
    with nestvec.connect(pets):
        done = run("search", pets, "dogs")
    assert done.code == 2
    assert "is open in another process or store" in done.err


def test_a_bug_is_not_hidden(run: Run, pets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "connect", broken)
    with pytest.raises(ZeroDivisionError):
        run("info", pets)


def test_interrupted_is_130_and_keeps_what_was_stored(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nestvec", "add", f"edge:{tmp_path}/c", "-"]
    how: dict[str, Any] = {
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        # Where a shell runs the tests in the background, they and their children ignore the signal.
        "preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen(command, **how) as child:
        assert child.stdin is not None
        for n in range(600):
            child.stdin.write(json.dumps({"text": f"number {n}", "id": n}).encode() + b"\n")
        child.stdin.flush()
        # A batch is stored then, and nothing is imported any more: there Python may lose a signal.
        wait_for(tmp_path / "c" / "docs" / "pending")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    # Python ends itself by the signal where it came in the midst of an exec(); to a shell that is
    # 130 too.
    assert child.returncode in (130, -signal.SIGINT)
    assert out == b""
    assert err.strip() == b"interrupted; what was stored is kept"
    stored(f"edge:{tmp_path}/c")


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_a_reader_that_has_seen_enough_is_no_error(run: Run, pets: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m nestvec search {pets} dogs --json | true"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


# The program


def test_help_and_version(run: Run) -> None:
    assert "Commands:" in run().out
    assert run("--help").out == run().out
    assert run("--version").out == f"nestvec {nestvec.__version__}\n"
    for command in ("demo", "add", "search", "info", "delete"):
        done = run(command, "--help")
        assert (done.code, done.err) == (0, "")
        assert "--json" in done.out
        assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("package", ["typer", "rich", "semantic_text_splitter"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_without_the_extra_it_says_how_to_install_it(package: str, option: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['nestvec', {option!r}]; "
        "from nestvec.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f"{package} is not installed; run: pip install 'nestvec[cli]'"
    assert (done.returncode, done.stdout) == (2, "")
    if option:
        assert json.loads(done.stderr) == {"error": said, "type": "MissingExtra"}
    else:
        assert done.stderr == f"error: {said}\n"


def test_the_program_is_installed() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("nestvec"), "--version"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == f"nestvec {nestvec.__version__}\n"


def test_a_terminal_sees_a_progress_bar_and_a_pipe_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs(40))
    assert program("add", "edge:./c", "a.txt", cwd=tmp_path).stderr == ""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nestvec", "add", "edge:./c", "a.txt", "--json"]
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False
    )
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as screen:
        assert b"adding" in screen.read(1_000)
    assert json.loads(done.stdout)["passages"] == 40


def test_output_survives_a_terminal_that_knows_only_ascii(
    run: Run, pets: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    (tmp_path / "a.txt").write_text("naïve café — “dogs”")
    program("add", "edge:./c", "a.txt", cwd=tmp_path)
    done = program("search", pets, "cafe", "--explain", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "na?ve caf?" in done.stdout
