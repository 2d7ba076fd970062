"""Filters as dicts and as LlamaIndex's MetadataFilters."""

from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

import nestvec
from nestvec import And, F, Filter, FilterError, Not, Or, Record, as_filter

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc)

DICTS: list[tuple[dict[str, Any], Filter]] = [
    ({}, And(())),
    ({"a": 1}, F("a") == 1),
    ({"a": None}, F("a") == None),  # noqa: E711
    ({"a.b": "x", "c[].d": True}, (F("a.b") == "x") & (F("c[].d") == True)),  # noqa: E712
    ({"a": {"$eq": 1}}, F("a") == 1),
    ({"a": {"$ne": 1}}, F("a") != 1),
    ({"a": {"$gt": 1}}, F("a") > 1),
    ({"a": {"$gte": 1, "$lt": 5}}, (F("a") >= 1) & (F("a") < 5)),
    ({"a": {"$lte": "x"}}, F("a") <= "x"),
    ({"a": {"$in": [1, "x"]}}, F("a").in_([1, "x"])),
    ({"a": {"$nin": (1, 2)}}, F("a").not_in([1, 2])),
    ({"a": {"$between": [1, 5]}}, F("a").between(1, 5)),
    ({"a": {"$exists": True}}, F("a").exists()),
    ({"a": {"$exists": False}}, ~F("a").exists()),
    ({"a": {"$like": "x%"}}, F("a").like("x%")),
    ({"a": {"$ilike": "x%"}}, F("a").ilike("x%")),
    ({"a": {"$contains_any": ["x"]}}, F("a").contains_any(["x"])),
    ({"a": {"$contains_all": ["x", "y"]}}, F("a").contains_all(["x", "y"])),
    ({"a": {"$contains_text": "50%"}}, F("a").contains_text("50%")),
    ({"a": {"$matches": "some words"}}, F("a").matches("some words")),
    ({"a": {"$is_empty": True}}, F("a").is_empty()),
    ({"a": {"$not": {"$gt": 5}}}, ~(F("a") > 5)),
    ({"a": {"$not": 5}}, ~(F("a") == 5)),
    ({"$and": []}, And(())),
    ({"$or": []}, Or(())),
    ({"$and": [{"a": 1}, {"b": 2}]}, (F("a") == 1) & (F("b") == 2)),
    ({"$or": [{"a": 1}, {"$and": [{"b": 2}, {"c": 3}]}]},
     (F("a") == 1) | ((F("b") == 2) & (F("c") == 3))),
    ({"$not": {"a": 1, "b": 2}}, ~((F("a") == 1) & (F("b") == 2))),
    ({"$not": [{"a": 1}, {"b": 2}]}, ~(F("a") == 1) & ~(F("b") == 2)),
    ({"$or": [{"a": 1}, F("b") > 2]}, (F("a") == 1) | (F("b") > 2)),
    ({"a": 1, "$or": [{"b": 2}]}, (F("a") == 1) & Or((F("b") == 2,))),
    ({"at": NOON}, F("at") == NOON),
    ({"at": {"$gte": {"$date": "2024-05-01T12:00:00Z"}}}, F("at") >= NOON),
    ({"at": {"$date": "2024-05-01T14:00:00+02:00"}}, F("at") == NOON),
    ({"$id_in": ["x", 3]}, F.id_in(["x", "3"])),
    ({'"$a"': 1}, F('"$a"') == 1),
]  # fmt: skip


@pytest.mark.parametrize(("given_dict", "where"), DICTS, ids=lambda value: repr(value)[:60])
def test_a_dict_is_a_filter(given_dict: dict[str, Any], where: Filter) -> None:
    assert as_filter(given_dict) == where


def deep(levels: int) -> Any:
    made: Any = {"a": 1}
    for _ in range(levels):
        made = {"$and": [made]}
    return made


REFUSED: list[tuple[Any, str]] = [
    ({"$nor": []}, r"unknown key '\$nor'.*known are \$and, \$or, \$not"),
    ({"a": {"$foo": 1}}, r"key 'a': unknown operator '\$foo'"),
    ({"a": {"b": 1}}, r"key 'a': unknown operator 'b'.*below a key write 'a\.…'"),
    ({"a": {}}, "key 'a': {} has no operator"),
    ({"a": [1]}, r"key 'a': a list has no meaning here; write {'\$in'"),
    ({"a": {"$in": []}}, "key 'a': in_ needs at least one value"),
    ({"a": {"$in": "xy"}}, r"key 'a': \$in takes a list"),
    ({"a": {"$eq": [1]}}, "key 'a': compare with one value"),
    ({"a": {"$gt": None}}, "key 'a': None has no order"),
    ({"a": {"$gt": float("nan")}}, "key 'a'.*nan"),
    ({"a": {"$lt": 2**70}}, "key 'a'.*does not fit 64 bits"),
    ({"a": {"$between": [1]}}, r"key 'a': \$between takes \[low, high\]"),
    ({"a": {"$exists": 1}}, r"key 'a': \$exists takes true or false"),
    ({"a": {"$like": 3}}, "key 'a': text is a string"),
    ({"a": {"$date": "noon"}}, r"key 'a': \$date takes a time"),
    ({"a": {"$date": "2024-01-01", "$gt": 3}}, r"key 'a': \$date takes a time"),
    ({"a": object()}, "key 'a'.*is not JSON"),
    ({"": 1}, "a key is a name or a path"),
    ({3: 1}, "a key of a filter is a string"),
    ({"$and": {"a": 1}}, r"\$and takes a list"),
    ({"$or": [3]}, "a filter is F"),
    ({"$id_in": "x"}, "id_in takes a list"),
    ([{"a": 1}], "a filter is F"),
    ("a == 1", "a filter is F"),
    (deep(33), "at most 32 levels"),
    (deep(100_000), "at most 32 levels"),
]


@pytest.mark.parametrize(("wrong", "words"), REFUSED)
def test_a_dict_without_meaning_is_refused_by_its_key(wrong: Any, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        as_filter(wrong)


# LlamaIndex

NAMES = ["a", "b", "c"]
scalars = st.sampled_from(["", "a", "A", "ab", "b"]) | st.integers(-2, 2) | st.floats(-2, 2)
lists = st.lists(st.sampled_from(["a", "A", "ab", "b"]), min_size=1, max_size=3) | st.lists(
    st.integers(-2, 2), min_size=1, max_size=3
)
metadatas = st.dictionaries(st.sampled_from(NAMES), scalars | lists | st.none() | st.just([]))
SEVERAL = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
ON_LISTS = {FilterOperator.ANY, FilterOperator.ALL, FilterOperator.CONTAINS}


@st.composite
def comparisons(draw: st.DrawFn) -> MetadataFilter:
    operator = draw(st.sampled_from(list(FilterOperator)))
    value = draw(lists if operator in SEVERAL else scalars)
    if operator.name.startswith("TEXT"):
        value = draw(st.sampled_from(["a", "A", "b", ""]))
    return MetadataFilter(key=draw(st.sampled_from(NAMES)), value=value, operator=operator)


def argued(filters: MetadataFilters, metadata: dict[str, Any]) -> bool:
    """Return whether a difference that docs/filters.md lists is in play."""
    for each in filters.filters:
        assert isinstance(each, MetadataFilter)
        held = metadata.get(each.key)
        if each.operator in ON_LISTS:
            if not isinstance(held, list):
                return True
        elif isinstance(held, list) and held:
            return True
    return False


@given(
    metadata=metadatas,
    filters=st.lists(comparisons(), min_size=1, max_size=3),
    condition=st.sampled_from(FilterCondition),
)
@settings(max_examples=1000)
def test_llama_index_means_the_same_where_no_difference_is_argued(
    metadata: dict[str, Any], filters: list[MetadataFilter], condition: FilterCondition
) -> None:
    theirs = MetadataFilters(filters=list(filters), condition=condition)
    where = as_filter(theirs)
    assert where is not None
    ours = where.matches(Record("id", "", metadata))
    if argued(theirs, metadata):
        return
    try:
        expected = build_metadata_filter_fn(lambda _: metadata, theirs)("id")
    except TypeError:  # an order of values of two types, where nestvec says no
        return
    assert ours == expected


def llama(operator: FilterOperator, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="k", value=value, operator=operator)])


#: What docs/filters.md argues for: metadata, filter, LlamaIndex's answer or error, nestvec's.
DIFFERENCES: list[tuple[Any, MetadataFilters, Any, bool]] = [
    (["a", "b"], llama(FilterOperator.EQ, "a"), False, True),
    (["a", "b"], llama(FilterOperator.NE, "a"), True, False),
    (["a", "b"], llama(FilterOperator.IN, ["a"]), False, True),
    ("abc", llama(FilterOperator.CONTAINS, "b"), True, False),
    ("abc", llama(FilterOperator.ANY, ["b"]), True, False),
    ("abc", llama(FilterOperator.ALL, ["a", "b"]), True, False),
    (3, llama(FilterOperator.CONTAINS, 3), TypeError, True),
    ("x", llama(FilterOperator.GT, 3), TypeError, False),
    (3, llama(FilterOperator.TEXT_MATCH, "3"), TypeError, False),
    (True, llama(FilterOperator.EQ, 1), True, False),
    ("2024-05-01T12:00:00Z", llama(FilterOperator.IS_EMPTY, None), False, False),
    ([""], llama(FilterOperator.IS_EMPTY, None), False, True),
    (None, llama(FilterOperator.EQ, None), False, True),
    (None, llama(FilterOperator.NE, None), True, False),
    (3, MetadataFilters(filters=[], condition=FilterCondition.OR), True, False),
    ("ΟΔΟΣ", llama(FilterOperator.TEXT_MATCH_INSENSITIVE, "οδος"), True, False),
]


@pytest.mark.parametrize(("held", "filters", "theirs", "ours"), DIFFERENCES)
def test_a_difference_is_as_it_is_argued(
    held: Any, filters: MetadataFilters, theirs: Any, ours: bool
) -> None:
    ask = build_metadata_filter_fn(lambda _: {"k": held}, filters)
    if isinstance(theirs, type):
        with pytest.raises(theirs):
            ask("id")
    else:
        assert ask("id") is theirs
    where = as_filter(filters)
    assert where is not None
    assert where.matches(Record("id", "", {"k": held})) is ours


def test_a_key_with_dots_is_a_path_here() -> None:
    (each,) = llama(FilterOperator.EQ, 1).filters
    cases: list[tuple[str, dict[str, Any], bool, bool]] = [
        ("a.b", {"a.b": 1}, True, False),
        ("a.b", {"a": {"b": 1}}, False, True),
        ('"a.b"', {"a.b": 1}, False, True),
    ]
    for key, metadata, theirs, ours in cases:
        filters = MetadataFilters(filters=[each.model_copy(update={"key": key})])
        assert build_metadata_filter_fn(lambda _: metadata, filters)("id") is theirs  # noqa: B023
        where = as_filter(filters)
        assert where is not None
        assert where.matches(Record("id", "", metadata)) is ours


@pytest.mark.parametrize(("operator", "theirs"), [("in", False), ("nin", True)])
def test_an_empty_list_is_an_error_here(operator: str, theirs: bool) -> None:
    filters = llama(FilterOperator(operator), [])
    assert build_metadata_filter_fn(lambda _: {"k": 1}, filters)("id") is theirs
    with pytest.raises(FilterError, match=r"key 'k': .*needs at least one value"):
        as_filter(filters)


def test_llama_index_filters_nest_here() -> None:
    a, b = (MetadataFilter(key=key, value=1) for key in "ab")
    inner = MetadataFilters(filters=[a, b], condition=FilterCondition.OR)
    with pytest.raises(ValueError, match="Nested MetadataFilters are not supported"):
        build_metadata_filter_fn(lambda _: {}, MetadataFilters(filters=[inner]))("id")
    outer = MetadataFilters(filters=[inner, a], condition=FilterCondition.NOT)
    assert as_filter(outer) == Not((F("a") == 1) | (F("b") == 1)) & ~(F("a") == 1)
    assert as_filter(MetadataFilters(filters=[])) == And(())
    assert as_filter(MetadataFilters(filters=[], condition=FilterCondition.OR)) == Or(())
    assert as_filter(a) == (F("a") == 1)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (SimpleNamespace(filters=[], condition="xor"), "unknown condition 'xor'"),
        (SimpleNamespace(filters=3, condition="and"), "filters takes a list"),
        (SimpleNamespace(key="a", operator="~", value=1), "key 'a': unknown operator '~'"),
        (SimpleNamespace(key=3, operator="==", value=1), "a key is"),
        (llama(FilterOperator.IN, "abc"), "key 'k': in_ takes a list"),
        (llama(FilterOperator.GT, None), "key 'k': None has no order"),
    ],
)
def test_llama_index_filters_without_meaning_are_refused(filters: Any, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        as_filter(filters)


# Whatever comes in

OPERATORS = [
    "$and", "$or", "$not", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$between",
    "$exists", "$like", "$ilike", "$contains_any", "$contains_all", "$is_empty", "$matches",
    "$contains_text", "$id_in", "$date", "$nor", "$", "$$", "$where",
]  # fmt: skip
names = st.sampled_from([*OPERATORS, "a", "a.b", "tags[].x", '"', "..", "[]", "a\0", '"a.b"'])
odd = st.sampled_from(
    [None, True, 0, -1, 2**64, 1.5, float("nan"), float("inf"), "", "%", "\\", "\ud800", b"x",
     Decimal("0.1"), NOON, dt.date(1, 1, 1), dt.date.max, {1, 2}, F("a"), F("a") > 1, object(),
     range(3), int, SimpleNamespace(filters=[], condition=None), "2024-05-01", [[]], {"a": {}}]
)  # fmt: skip
anything = st.recursive(
    odd | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names | st.text(max_size=3), inner, max_size=3)
        | st.builds(lambda f, c: SimpleNamespace(filters=f, condition=c), inner, inner)
        | st.builds(lambda k, o, v: SimpleNamespace(key=k, operator=o, value=v), inner, inner,
                    inner)
    ),
    max_leaves=12,
)  # fmt: skip
shaped = st.dictionaries(
    names,
    anything | st.dictionaries(names, anything, max_size=2)
    | st.lists(st.dictionaries(names, anything, max_size=2), max_size=2),
    max_size=3,
)  # fmt: skip
RECORD = Record("id", "", {"a": {"b": [1, "x"]}, "tags": [{"x": 1}], "b": "2024-05-01"})


def test_fuzz_that_only_filter_errors_escape(fuzz_seconds: float) -> None:
    read = 0

    @given(shaped | anything)
    @settings(max_examples=500, database=None, phases=[Phase.generate, Phase.shrink])
    def parse(given_form: Any) -> None:
        nonlocal read
        try:
            where = as_filter(given_form)
        except FilterError:
            return
        if where is not None:
            read += 1
            again = eval(repr(where), {**vars(nestvec), "datetime": dt})
            assert again == where
            assert again.matches(RECORD) == where.matches(RECORD)

    ends = time.monotonic() + fuzz_seconds
    while True:
        parse()
        if time.monotonic() > ends:
            break
    assert read
