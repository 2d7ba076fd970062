"""The meaning of filters, as the predicate has it."""

from __future__ import annotations

import datetime as dt
import re
import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nestvec
from nestvec import And, Eq, F, Filter, FilterError, In, Not, Or, Record
from nestvec.filter_values import path, spelled, words

from .. import strategies

DOCUMENT = {
    "year": 2020,
    "score": 2.5,
    "lang": "de",
    "draft": True,
    "nothing": None,
    "tags": ["a", "b", 3, None, ["nested"]],
    "author": {"name": "Ann", "born": {"year": 1980}},
    "at": "2026-01-02T03:04:05+02:00",
    "day": "2026-01-02",
    "big": 2**63 - 1,
    "empty": [],
    "text": "The nai\u0308ve_approach: don't STOP",
    "people": [{"name": "Ann", "langs": ["de", "en"]}, {"name": "Bob"}, {"langs": []}, 3],
    "a.b": {"c": "dotted"},
    "": "no name",
}

HOLD: list[Filter] = [
    F("year") == 2020,
    F("year") == 2020.0,
    F("year") >= 2020,
    F("year") < 2020.5,
    F("score") > 2,
    F("lang") == "de",
    F("lang") < "e",
    F("lang") >= "D",
    F("draft") == True,  # noqa: E712
    F("nothing") == None,  # noqa: E711
    F("tags") == "a",
    F("tags") == 3,
    F("tags") > 2,
    F("tags") == None,  # noqa: E711
    F("author.name") == "Ann",
    F("author.born.year") < 2000,
    F("year").in_([1, 2020]),
    F("tags").in_(["z", "b"]),
    F("at") == datetime(2026, 1, 2, 1, 4, 5, tzinfo=timezone.utc),
    F("at") < datetime(2026, 1, 2, 1, 4, 6, tzinfo=timezone.utc),
    F("at") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    F("day") == date(2026, 1, 2),
    F("day") <= datetime(2026, 1, 2),  # noqa: DTZ001
    F("big") > 2**63 - 2,
    F("big") != float(2**63),
    F("missing") != 1,
    F("missing").not_in([1]),
    F("year") != "2020",
    ~(F("missing") == 1),
    F("year").between(2019.5, 2020),
    F("lang").between("d", "df"),
    F("at").between(date(2026, 1, 2), date(2026, 1, 3)),
    F("tags").contains_any(["z", "a"]),
    F("tags").contains_all(["a", "b", 3]),
    F("lang").contains_all(["de"]),
    F("nothing").exists(),
    F("empty").exists(),
    F("people[].name").exists(),
    F("missing").is_empty(),
    F("nothing").is_empty(),
    F("empty").is_empty(),
    F("people[].missing").is_empty(),
    F("text").matches("stop THE"),
    F("text").matches("NAI\u0308VE approach"),
    F("text").matches("don t"),
    F("text").contains_text("_approach: d"),
    F("text").contains_text("STOP"),
    F("text").contains_text("stop", ignore_case=True),
    F("text").like("The%STOP"),
    F("text").like("The nai_ve\\_%"),
    F("text").ilike("%stop"),
    F("tags").like("_"),
    F("people[].name") == "Bob",
    F("people[].langs") == "en",
    F("people[].name") > "Ann",
    F("tags[]") == 3,
    F("tags[]") == "nested",
    F('"a.b".c') == "dotted",
    F('""') == "no name",
    F.id_in(["other", "id"]),
    And(()),
    (F("year") == 2020) & (F("lang") == "de"),
    (F("year") == 1) | (F("lang") == "de"),
]

FAIL: list[Filter] = [
    F("year") == "2020",
    F("year") == True,  # noqa: E712
    F("draft") == 1,
    F("draft") == "True",
    F("missing") == None,  # noqa: E711
    F("missing") < 5,
    F("nothing") < 5,
    F("lang") == 5,
    F("lang") > 5,
    F("tags") == "nested",
    F("empty") == None,  # noqa: E711
    F("author") == "Ann",
    F("author.name.x") == "Ann",
    F("tags.a") == 1,
    F("author.missing") == 1,
    F("lang") > datetime(2026, 1, 1, tzinfo=timezone.utc),
    F("year") > date(2026, 1, 1),
    F("at") > datetime(2026, 1, 2, 1, 4, 5, tzinfo=timezone.utc),
    F("big") == float(2**63),
    F("tags") != "a",
    F("tags").not_in(["a", "zz"]),
    F("year").between(2021, 2019),
    F("tags").between(4, 9),
    F("missing").between(0, 9),
    F("lang").between(0, 9),
    F("tags").contains_all(["a", "z"]),
    F("missing").exists(),
    F("people[].born").exists(),
    F("people.name").exists(),
    F("year").is_empty(),
    F("lang").is_empty(),
    F("people[].langs").is_empty(),
    F("text").matches("nai"),
    F("text").matches("approach missing"),
    F("year").matches("2020"),
    F("text").contains_text("stop"),
    F("text").like("The"),
    F("text").like("the%"),
    F("year").like("%"),
    F("people.name") == "Ann",
    F("people[].name") == "Cid",
    F("year[]") == 2020,
    F("a.b.c") == "dotted",
    F.id_in(["other"]),
    Or(()),
]


def holds(where: Filter) -> bool:
    return where.matches(Record("id", "text", DOCUMENT))


@pytest.mark.parametrize("where", HOLD, ids=repr)
def test_holds(where: Filter) -> None:
    assert holds(where)
    assert not holds(~where)


@pytest.mark.parametrize("where", FAIL, ids=repr)
def test_does_not_hold(where: Filter) -> None:
    assert not holds(where)
    assert holds(~where)


@pytest.mark.parametrize("where", HOLD + FAIL, ids=repr)
def test_a_filter_writes_what_builds_it_again(where: Filter) -> None:
    again = eval(repr(where), {**vars(nestvec), "datetime": dt})
    assert again == where
    assert holds(again) == holds(where)


@pytest.mark.parametrize(
    "text",
    ["2026-13-01", "2026-01-02T", "2026-01-02T25:00", "20260102", "2026-W01", "noon", "",
     "2026-01-02T03:04.5", "2026-01-02 03:04:05+0200", "٢٠٢٦-01-02"],
)  # fmt: skip
def test_a_string_that_names_no_moment_is_not_compared_with_one(text: str) -> None:
    record = Record("id", "text", {"at": text})
    assert not (F("at") >= date(1, 1, 2)).matches(record)
    assert not (F("at") < date(9999, 1, 1)).matches(record)


def test_parts_are_flat() -> None:
    a, b, c = F("a") == 1, F("b") == 2, F("c") == 3
    assert (a & b) & c == a & (b & c) == And((a, b, c))
    assert (a | b) | c == a | (b | c) == Or((a, b, c))
    assert F("a").in_([1, 2]) == In("a", (1, 2))
    assert ~a == Not(Eq("a", 1))


def use_and() -> Any:
    return (F("a") == 1) and (F("b") == 2)


def use_a_chain() -> Any:
    return 1 < F("a") < 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (use_and, "combine filters with"),
        (use_a_chain, "combine filters with"),
        (lambda: F("a") < None, "None has no order"),
        (lambda: F("a") == [1], "in_ takes several"),
        (lambda: F("a") == {1}, "set is not JSON"),
        (lambda: F("a").in_([float("nan")]), "nan"),
        (lambda: F("a") == (F("b") == 1), "compare with a value"),
        (lambda: F("a").in_([]), "at least one value"),
        (lambda: F("a").in_(3), "takes a list"),  # type: ignore[arg-type]
        (lambda: F(""), "a key is"),
        (lambda: F(3), "a key is"),  # type: ignore[arg-type]
        (lambda: (F("a") == 1) & True, "expected a filter"),  # type: ignore[operator]
        (lambda: And((1,)), "expected a filter"),  # type: ignore[arg-type]
        (lambda: Not("a"), "expected a filter"),  # type: ignore[arg-type]
        (lambda: F("a").between(1, "b"), "key 'a': nothing is between 1 and 'b'"),
        (lambda: F("a").between(None, 1), "key 'a': None has no order"),
        (lambda: F("a").contains_any("ab"), "key 'a': contains_any takes a list of values"),
        (lambda: F("a").contains_all([]), "key 'a': contains_all needs at least one value"),
        (lambda: F.id_in([]), "id_in needs at least one"),
        (lambda: F.id_in("ab"), "id_in takes a list"),
        (lambda: F.id_in([""]), "id_in: an id is not empty"),
        (lambda: F("a").matches("..!"), "key 'a': there is no word"),
        (lambda: F("a").matches(3), "key 'a': text is a string"),  # type: ignore[arg-type]
        (lambda: F("a").like("a\\"), "key 'a': pattern 'a.*' ends with a backslash"),
        (lambda: F("a").like("%a" * 3_000), "key 'a': .*at most 4,000 characters, got 5,998"),
        (lambda: F("a").contains_text("%" * 4_001), "key 'a': .*at most 4,000 characters"),
        (lambda: F("a").matches("a " * 2_001), "key 'a': .*at most 4,000 characters"),
        (lambda: F("a").like(None), "key 'a': text is a string"),  # type: ignore[arg-type]
        (lambda: F("a..b"), "a key is"),
        (lambda: F(".a"), "a key is"),
        (lambda: F("a."), "a key is"),
        (lambda: F("[]"), "a key is"),
        (lambda: F("[].a"), "a key is"),
        (lambda: F('"a"b'), "a key is"),
        (lambda: F('"a'), "a key is"),
        (lambda: F(r'"\q"'), "a key is"),
        (lambda: F("\ud800"), "lone surrogate"),
        (lambda: F(r'"\ud800"'), "lone surrogate"),
        (lambda: F(".".join("a" * 200)), "more than 101 steps"),
    ],
)
def test_a_filter_without_meaning_is_refused(build: Any, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        build()


def test_a_filter_nests_to_a_depth_that_every_engine_reads() -> None:
    where: Filter = F("a") == 1
    for _ in range(16):
        where = And((Not(where), where))
    assert where.depth == 32
    assert eval(repr(where), vars(nestvec)) == where
    with pytest.raises(FilterError, match="at most 32 levels"):
        Not(where)


def test_a_chain_does_not_nest() -> None:
    where: Filter = F("a") == 0
    for n in range(1, 2000):
        where |= F("a") == n
    assert where.depth == 1
    assert where.matches(Record("id", "", {"a": 1999}))


def test_not_not_is_what_it_was() -> None:
    where = F("a") == 1
    assert ~~where is where


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("a[].b", ("a", None, "b")),
        ("a[][]", ("a", None, None)),
        ('"a.b"', ("a.b",)),
        (r'"a\"b"[].c', ('a"b', None, "c")),
        ('""', ("",)),
        ('q"t', ('q"t',)),
        ("[0]", ("[0]",)),
        ("a[]b", ("a[]b",)),
        ('"a[]"', ("a[]",)),
        ("a b.$c", ("a b", "$c")),
    ],
)
def test_a_key_is_a_path(key: str, steps: tuple[str | None, ...]) -> None:
    assert path(key) == steps
    assert path(spelled(steps)) == steps


def test_words_are_runs_of_letters_marks_and_numbers() -> None:
    assert words("Foo_bar, it's 3.14 x\u00b2") == ["foo", "bar", "it", "s", "3", "14", "x\u00b2"]
    assert words("NAI\u0308VE हिन्दी 日本語") == ["nai\u0308ve", "हिन्दी", "日本語"]
    assert words("\u200b …") == []


@given(st.text(), st.text(alphabet="ab%_\\", max_size=8).filter(lambda p: not p.endswith("\\")))
def test_like_is_what_a_regular_expression_says(text: str, pattern: str) -> None:
    text = re.sub("[^ab%_\\\\]", lambda m: "ab%_"[ord(m[0]) % 4], text)
    regex = "".join(
        {"%": ".*", "_": "."}.get(piece, re.escape(piece[-1]))
        for piece in re.findall(r"\\.|.", pattern, re.DOTALL)
    )
    expected = re.fullmatch(regex, text, re.DOTALL) is not None
    assert F("a").like(pattern).matches(Record("id", "", {"a": text})) == expected


def test_no_pattern_takes_forever() -> None:
    slow = "%a" * 500 + "b"
    started = time.perf_counter()
    assert not F("a").like(slow).matches(Record("id", "", {"a": "a" * 10_000}))
    assert time.perf_counter() - started < 2


@given(strategies.filters)
def test_any_filter_writes_what_builds_it_again(where: Filter) -> None:
    again = eval(repr(where), {**vars(nestvec), "datetime": dt})
    assert again == where
    assert hash(again) == hash(where)
