"""Random metadata and random filters over the same keys and values, so that they often meet."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nestvec import (
    And,
    Between,
    Eq,
    Exists,
    Filter,
    Ge,
    Gt,
    IdIn,
    In,
    IsEmpty,
    Le,
    Like,
    Lt,
    Matches,
    Ne,
    Not,
    NotIn,
    Or,
)  # fmt: skip

#: Names of metadata keys, and keys of filters, some of which lead to them.
NAMES = ["a", "b", "ü", "x y", 'q"t', "a-b", "$k", "[0]", "x.y", "", "b\0", "back\\slash", "e"]
KEYS = [
    "a", "b", "a.b", "ü", "x y", 'q"t', "a-b", "$k", "[0]", "a[]", "a[].b", "b[].a.b", "a.b[].a",
    "a[][]", '"x.y"', '"x.y".b', '""', '"".a', '"b\0"', "back\\slash", "b.x y", '"a"."b"', "e",
]  # fmt: skip

#: One UUID in several spellings, and what comes near to one.
UUIDS = [
    "550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000",
    "550e8400e29b41d4a716446655440000", "{550e8400-e29b-41d4-a716-446655440000}",
    "urn:uuid:550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-44665544000g",
    "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000000",
]  # fmt: skip
TEXTS = [
    "", "1", "a", "b", "Foo bar", "foo_bar BAR", "FOO-bar baz", "bar", "ΟΔΟΣ οδος", "nai\u0308ve",
    "naïve", "İstanbul i\u0307", "straße STRAẞE", "50%_off\\", "Ⓐfoo ①", "हिन्दी foo", "don't",
    "K k K", "ſt st", "日本語 foo", "\u202efoo\u202c", "a\nb", "'; drop table docs; --",
    "$.a ? (@ > 1)",
    "\0", "a\0b", "\u0301", "𝔘 foo", *UUIDS,
]  # fmt: skip
DATES = [
    "2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00", "2026-01-02 03:04",
    "2026-01-02T03:04", "2026-01-02T03:04Z", "2026-01-02T03:04:05.123456-00:30", "2026-1-2",
    "2026-01-02T03:04:05 UTC", "2026-01-02T03:04:05-0530", "2026-02-30",
    "2026-01-02T03:04:05.1234567Z", "0001-01-01",
    "9999-12-31T23:59:59.999999Z", "2026-01-02T03:04:05+02:60", "2026-01-02T23:59:60Z",
]  # fmt: skip
NUMBERS = [
    0, -0.0, 1, 1.0, 2, 2.5, 2**53, 2**53 + 1, -(2**53) - 1, -(2**63), 2**63 - 1, 2**63 - 2, 0.1,
    0.30000000000000004, 0.3, 123456789.123456789, 1e300, float(2**63), 5e-324,
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = (
    st.sampled_from(NUMBERS)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
strings = st.sampled_from(TEXTS) | st.sampled_from(DATES) | texts
scalars = st.sampled_from([True, False, None]) | numbers | strings
lists = st.lists(scalars, max_size=3)
values = (
    scalars
    | lists
    | st.dictionaries(st.sampled_from(["a", "b"]), scalars | lists, max_size=2)
    | st.lists(lists | st.dictionaries(st.sampled_from(["a", "b"]), scalars | lists), max_size=2)
)
metadatas: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(NAMES) | st.sampled_from(["a", "b", "e"]), values, min_size=1, max_size=8
)

zones = st.sampled_from([timezone.utc, timezone(timedelta(hours=-5, minutes=30))])
moments = st.datetimes(
    datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=zones,  # noqa: DTZ001
) | st.sampled_from(
    [datetime(2026, 1, 2, tzinfo=timezone.utc), datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
     datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=timezone(timedelta(minutes=-30)))]
)  # fmt: skip

keys = st.sampled_from(KEYS)
operands = scalars | moments
ordered = st.sampled_from([Lt, Le, Gt, Ge])
some_operands = st.lists(operands, min_size=1, max_size=3).map(tuple)
spans = st.tuples(numbers, numbers) | st.tuples(strings, strings) | st.tuples(moments, moments)
words = st.sampled_from(
    ["foo", "BAR", "bar foo", "ναι foo", "nai\u0308ve", "ist", "οδος", "ΟΔΟΣ", "straße", "k", "st",
     "हिन्दी", "İstanbul", "a b", "1", "日本語"]
)  # fmt: skip
patterns = st.lists(
    st.sampled_from(
        ["%", "_", "a", "foo", "BAR", "\\%", "\\\\", " ", "ß", "\u212a", "é", "0", "'"]
    ),
    max_size=5,
).map("".join) | st.sampled_from(["%", "foo%", "%bar", "%oo%", "", "50\\%\\_off\\\\"])

leaves: st.SearchStrategy[Filter] = st.one_of(
    st.tuples(st.sampled_from([Eq, Eq, Ne]), keys, operands),
    st.tuples(ordered, keys, numbers | strings | moments),
    st.tuples(st.just(Between), keys, spans).map(lambda made: (*made[:2], *made[2])),
    st.tuples(st.sampled_from([In, NotIn]), keys, some_operands),
    st.tuples(st.sampled_from([Exists, IsEmpty]), keys),
    st.tuples(st.just(Matches), keys, words),
    st.tuples(st.just(Like), keys, patterns, st.booleans()),
    st.tuples(st.just(IdIn), st.just(range(60)) | st.lists(st.integers(0, 99), min_size=1)),
).map(lambda made: made[0](*made[1:]))
trees: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.tuples(inner, inner).map(And),
        st.tuples(inner, inner).map(Or),
        st.tuples(st.sampled_from([And, Or]), st.lists(inner, max_size=3).map(tuple)).map(
            lambda made: made[0](made[1])
        ),
    ),
    max_leaves=5,
).filter(lambda where: where.depth <= 4)
filters = leaves | trees | st.tuples(trees, leaves).map(Or) | st.tuples(leaves, leaves).map(And)


def samples(strategy: st.SearchStrategy[Any], n: int) -> list[Any]:
    """Return n random examples of a strategy, others in each run."""
    found: list[Any] = []

    @settings(max_examples=n, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found
