"""The meaning of filters, as the predicate has it."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from nestvec import And, Eq, F, Filter, FilterError, In, Not, Or, Record

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
    import datetime as dt

    names = {"F": F, "And": And, "Or": Or, "datetime": dt}
    again = eval(repr(where), names)
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
    ],
)
def test_a_filter_without_meaning_is_refused(build: Any, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        build()
