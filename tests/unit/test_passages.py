"""Reading files, directories, JSON Lines and standard input, and splitting them into passages."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvec import ConfigError, RecordError
from nestvec.passages import PASSAGE, Document, find, passage_id, read, split

LONG = "\n\n".join(f"Paragraph {n} says something that is not said elsewhere." for n in range(60))


def documents(*paths: object, **options: str) -> list[Document]:
    found = find([str(path) for path in paths], **options)
    return [document for source in found.sources for document in read(source)]


#: Puts data into standard input.
Stdin = Callable[[str | bytes], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Stdin:
    def put(data: str | bytes) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    return put


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Splitting


@given(st.text(max_size=3_000), st.booleans())
def test_passages_are_the_text_in_order(text: str, markdown: bool) -> None:
    passages = list(split(text, markdown=markdown))
    assert all(0 < len(passage) <= PASSAGE for _, passage in passages)
    assert all(text[start : start + len(passage)] == passage for start, passage in passages)
    assert "".join("".join(p for _, p in passages).split()) == "".join(text.split())


def test_a_text_of_several_blocks_is_split_in_time_that_grows_with_it() -> None:
    text = "word and more " * 40_000
    passages = list(split(text))
    assert "".join(p for _, p in passages).replace(" ", "") == text.replace(" ", "")
    assert all(text[start : start + len(p)] == p for start, p in passages)
    assert all(p.split()[0] in {"word", "and", "more"} for _, p in passages), "a word was cut"


def test_a_block_without_any_space_is_cut_all_the_same() -> None:
    assert "".join(p for _, p in split("x" * 120_000)) == "x" * 120_000


def test_a_blank_text_has_no_passages() -> None:
    assert list(split(" \n\t\n ")) == []


# Files


def test_a_file_has_its_path_as_id_and_its_passages_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "notes.txt", LONG)
    (document,) = documents(file)
    assert document.id == file.resolve().as_posix()
    assert document.nbytes == len(LONG)
    assert len(document.passages) > 2
    assert [record.id for record in document.passages[:3]] == [
        document.id, f"{document.id}#1", f"{document.id}#2",
    ]  # fmt: skip
    assert document.passages[1].metadata == {"source": document.id, "passage": 1}


def test_root_makes_ids_portable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a" / "b.txt", "text")
    monkeypatch.chdir(tmp_path / "a")
    for path, root in ((file, tmp_path), ("b.txt", ".."), ("../a/b.txt", tmp_path)):
        (document,) = documents(path, root=str(root))
        assert document.id == "a/b.txt"
        assert document.passages[0].metadata["source"] == "a/b.txt"
    with pytest.raises(ConfigError, match="is not below --root"):
        documents(file, root=str(tmp_path / "elsewhere"))


def test_a_link_to_a_file_has_the_id_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "text")
    (tmp_path / "b.txt").symlink_to(file)
    assert documents(tmp_path / "b.txt")[0].id == file.resolve().as_posix()


def test_markdown_passages_know_their_heading(tmp_path: Path) -> None:
    fence = "```sh\n# no heading\n```"
    text = f"intro\n\n# One #\n\n{LONG}\n\n{fence}\n\n## Two *and*\n{LONG}\nlast words\n"
    (document,) = documents(write(tmp_path / "a.md", text))
    headings = [record.metadata.get("heading") for record in document.passages]
    assert headings[0] in (None, "One")
    assert {"One", "Two *and*"} == set(headings) - {None}
    assert headings[-1] == "Two *and*"
    assert document.passages[-1].text.endswith("last words")


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    (plain,) = documents(write(tmp_path / "a.rst", "Title\n=====\n\ntext"), root=str(tmp_path))
    marked = write(tmp_path / "a.rst", b"\xef\xbb\xbfTitle\r\n=====\r\n\r\ntext")
    (other,) = documents(marked, root=str(tmp_path))
    assert other.passages == plain.passages


def test_a_blank_file_is_a_document_without_passages(tmp_path: Path) -> None:
    (document,) = documents(write(tmp_path / "a.txt", " \n"))
    assert document.passages == ()


def test_too_long_ids_are_hashed_and_stay_stable(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(4):
        folder = folder / ("f" * 200)
    file = write(folder / "a.txt", LONG)
    first, second = documents(file)[0], documents(file)[0]
    assert first == second
    assert first.id.startswith("sha256:")
    assert len(first.id) == len("sha256:") + 32
    assert first.passages[1].id == f"{first.id}#1"
    assert first.passages[1].metadata["source"] == file.resolve().as_posix()


def test_a_passage_of_an_id_at_the_limit_is_hashed() -> None:
    assert passage_id("x" * 512, 0) == "x" * 512
    ids = {passage_id("x" * 512, n) for n in range(1, 20)}
    assert len(ids) == 19
    assert all(id.startswith("sha256:") for id in ids)


@pytest.mark.parametrize("name", ["a.pdf", "README", "a.txt.gz"])
def test_an_unknown_kind_of_file_is_refused_with_those_that_are_known(
    tmp_path: Path, name: str
) -> None:
    file = write(tmp_path / name, "text")
    with pytest.raises(ConfigError, match=r"known are \.txt \.md \.markdown \.rst \.jsonl"):
        find([str(file)])


def test_a_missing_file_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find([str(tmp_path / "nothing.txt")])


@pytest.mark.parametrize("data", [b"caf\xe9", "text".encode("utf-16"), b"a\0b"])
def test_what_is_not_utf8_text_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    file = write(tmp_path / "a.txt", data)
    with pytest.raises(RecordError, match=r"a\.txt is not"):
        documents(file)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(name)).write_text("text")
    with pytest.raises(ConfigError, match="the name is not UTF-8"):
        find([str(tmp_path)])


# Directories


def test_a_directory_is_walked_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    for name in (
        "b.txt", "a.md", "sub/c.rst", "sub/deep/D.TXT", "data.jsonl", ".hidden.txt", ".venv/x.txt",
        "node_modules/x.md", "__pycache__/x.txt", "sub/.git/x.txt", "picture.png", "README",
    ):  # fmt: skip
        write(tmp_path / name, '{"text": "one", "id": "line"}')
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    found = find([str(tmp_path)], root=str(tmp_path))
    assert [source.id for source in found.sources] == [
        "a.md", "b.txt", "data.jsonl", "sub/c.rst", "sub/deep/D.TXT",
    ]  # fmt: skip
    assert found.skipped == 4  # .hidden.txt, README, gone.txt, picture.png
    assert found.nbytes == 5 * 29


def test_a_hidden_directory_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path / ".notes" / "a.txt", "text")
    assert len(documents(tmp_path / ".notes")) == 1


# JSON Lines


def test_json_lines_keep_ids_and_metadata(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        '{"text": "one", "id": "x", "metadata": {"year": 2020, "tags": ["a"]}}\n\n'
        '{"text": " two ", "id": 7}\r\n{"text": "three", "metadata": null}\n',
    )
    one, two, three = documents(file)
    assert (one.id, one.passages[0].metadata) == ("x", {"year": 2020, "tags": ["a"]})
    assert (two.id, two.passages[0].text) == ("7", " two ")
    assert three.id == passage_id(three.id, 0) == documents(file)[2].id
    assert three.id.startswith("sha256:")


def test_a_long_line_is_split_and_says_which_passage(tmp_path: Path) -> None:
    line = f'{{"text": {LONG!r}, "id": "x", "metadata": {{"year": 1}}}}'.replace("'", '"')
    (document,) = documents(write(tmp_path / "a.ndjson", line))
    assert [record.id for record in document.passages[:2]] == ["x", "x#1"]
    assert [record.metadata for record in document.passages[:2]] == [
        {"year": 1, "passage": 0}, {"year": 1, "passage": 1},
    ]  # fmt: skip


def test_a_short_line_may_say_itself_which_passage_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "one", "id": "x", "metadata": {"passage": 3}}')
    (document,) = documents(file)
    assert document.passages[0].metadata == {"passage": 3}
    assert document.alone


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON at column 2"),
        ('{"text": NaN}', "NaN is no JSON number"),
        ("[" * 100_000, "not JSON that can be stored"),
        ("[1]", "expected an object"),
        ('{"id": "x"}', "text is missing"),
        ('{"text": 3}', "text is a string, got 3"),
        ('{"text": "x", "vector": [1]}', "unknown key 'vector'"),
        ('{"text": "x", "id": ""}', "an id is not empty"),
        ('{"text": "x", "id": 1.5}', "an id is a string"),
        ('{"text": "x", "id": true}', "an id is a string"),
        ('{"text": "x", "id": "%s"}' % ("i" * 513), "at most 512"),
        ('{"text": "x", "metadata": [1]}', "metadata is an object"),
        ('{"text": "x", "metadata": {"n": 99999999999999999999}}', "does not fit 64 bits"),
        ('{"text": "\\ud800"}', "lone surrogate"),
        ('{"text": "%s", "metadata": {"passage": "p. 7"}}' % ("x " * 500), "'passage' says"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = write(tmp_path / "a.jsonl", f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl, line 3: ") as caught:
        documents(file)
    assert said in str(caught.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'{"text": "good"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl, line 2 is not UTF-8 at byte 13"):
        documents(file)


# Standard input


@pytest.mark.parametrize("data", ['\n  {"text": "one", "id": 1}\n{"text": "two"}', "{"])
def test_standard_input_that_begins_with_a_brace_is_json_lines(stdin: Stdin, data: str) -> None:
    stdin(data)
    if data == "{":
        with pytest.raises(RecordError, match="standard input, line 1"):
            documents("-")
    else:
        assert [document.passages[0].text for document in documents("-")] == ["one", "two"]


def test_other_standard_input_is_one_text_that_needs_an_id(stdin: Stdin) -> None:
    stdin("# A title\n\nand words")
    (document,) = documents("-", id="mine")
    assert (document.id, len(document.passages)) == ("mine", 1)
    assert document.passages[0].metadata == {"source": "mine", "passage": 0}
    stdin("words")
    with pytest.raises(ConfigError, match="give --id NAME"):
        documents("-")


def test_the_format_of_standard_input_can_be_said(stdin: Stdin) -> None:
    stdin("# A title\n\nand words")
    (document,) = documents("-", id="mine", format="markdown")
    assert document.passages[0].metadata["heading"] == "A title"
    stdin("{braces} begin this text")
    assert documents("-", id="mine", format="text")[0].passages[0].text.startswith("{braces}")
    stdin("\n")
    assert documents("-", format="jsonl") == []


def test_a_line_of_standard_input_is_read_before_the_next_is_there() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as out, os.fdopen(reading, "rb") as file:
        out.write(b'{"text": "one"}\n')
        stream = io.TextIOWrapper(file)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", stream)
            (source,) = find(["-"]).sources
            assert next(read(source)).passages[0].text == "one"


@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        (["-", "-"], {}, "can be read once"),
        (["."], {"id": "x"}, "those of standard input"),
        (["."], {"format": "text"}, "those of standard input"),
        (["-"], {"format": "pdf"}, "known are jsonl, text, markdown"),
    ],
)  # fmt: skip
def test_options_of_standard_input_are_checked(
    paths: list[str], options: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        find(paths, **options)


def test_json_lines_bring_their_own_ids(stdin: Stdin) -> None:
    stdin('{"text": "one"}')
    with pytest.raises(ConfigError, match="each line of JSON Lines brings its own"):
        documents("-", id="x")
