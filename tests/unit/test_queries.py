"""Queries that users give: lists, logs and matrices, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestvec import F, FilterError, RecordError
from nestvec.queries import given

LOG = """\
a plain text, as logs have them

{"query": "rain", "where": {"year": {"$gte": 2020}}}
{"text": "bread", "filter": {"lang": "en"}, "user": 7, "at": "2026-01-01T00:00:00Z"}
{"vector": [1, 0.5, 0]}
[0, 1, -2.5]
[sic] a text that only begins like a vector
{"query": [1, 2, 3]}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "log.jsonl"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def test_each_line_of_a_log_is_a_query(write: Callable[[str], Path]) -> None:
    path = write(LOG)
    listed, unread = given(path, None)
    assert [one.query for one in listed] == [
        "a plain text, as logs have them", "rain", "bread", [1, 0.5, 0], [0, 1, -2.5],
        "[sic] a text that only begins like a vector", [1, 2, 3],
    ]  # fmt: skip
    assert [one.where for one in listed[:3]] == [None, F("year") >= 2020, F("lang") == "en"]
    assert listed[2].place == f"{path}, line 4"
    assert unread == ["at", "user"]


def test_a_filter_of_all_is_joined_to_that_of_one(write: Callable[[str], Path]) -> None:
    only = F("n") < 3
    listed, _ = given(write('text\n{"query": "rain", "where": {"year": 2024}}\n'), only)
    assert [one.where for one in listed] == [only, (F("year") == 2024) & only]


def test_lines_end_where_they_end_and_may_begin_with_a_mark(write: Callable[[bytes], Path]) -> None:
    text = '\ufeffone\u2028line\r\n{"query": "a\u2028b"}'
    listed, _ = given(write(text.encode()), None)
    assert [one.query for one in listed] == ["one\u2028line", "a\u2028b"]


def test_a_matrix_holds_a_query_a_row(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "q.npy", rows)
    listed, _ = given(tmp_path / "q.npy", None)
    assert np.array_equal([one.query for one in listed], rows)
    np.save(tmp_path / "q.npy", np.arange(3))
    with pytest.raises(RecordError, match=r"q\.npy is no \.npy file of a matrix"):
        given(tmp_path / "q.npy", None)
    (tmp_path / "q.npy").write_text("rain")
    with pytest.raises(RecordError, match=r"q\.npy is no \.npy file of a matrix"):
        given(tmp_path / "q.npy", None)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('rain\n{"query": "x"', RecordError, r"log\.jsonl, line 2: not JSON"),
        ("[1, 2", RecordError, "line 1: not JSON"),
        (b"rain\ncaf\xe9", RecordError, "line 2: not UTF-8 at byte 4"),
        ('{"question": "x"}', RecordError, "line 1: a query has one of the keys query, text, vec"),
        ('{"query": "x", "text": "y"}', RecordError, "one of the keys .* got query, text"),
        ('{"query": "x", "where": {}, "filter": {}}', RecordError, "and where or filter"),
        ('{"query": null}', RecordError, "line 1: query cannot be a NoneType"),
        ('{"vector": "x"}', RecordError, "line 1: vector cannot be a str"),
        ('{"text": [1, 2]}', RecordError, "text cannot be a list"),
        ('{"query": "x", "where": {"n": {"$near": 1}}}', FilterError, "line 1: .*near"),
        ('{"query": "x", "where": "n=1"}', FilterError, "line 1: "),
        ("\n \n", RecordError, "there are no queries in .*log"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    write: Callable[[str | bytes], Path], content: str | bytes, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        given(write(content), None)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("log.jsonl", r"queries is a list of queries or the pathlib\.Path of a file, got <class"),
        ({"query": "x"}, "write \\[query\\] for one"),
        (7, "got <class 'int'>"),
        ([], "queries is empty"),
        (["x", {"query": "y", "filters": {}}], "query 2: .* got query, filters"),
    ],
)
def test_wrong_lists_are_named(queries: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        given(queries, None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        given(tmp_path / "none.jsonl", None)
