"""Wrong input: each has an error that names it, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nestvec import (
    CollectionMismatch,
    ConfigError,
    EmbedderError,
    F,
    FilterError,
    FunnelError,
    NestingError,
    NestvecError,
    Record,
    RecordError,
)

from ..vectors import HashEmbedder, nested_vectors, records
from .engines import Engine, lasting

ROW = nested_vectors(1, 8)[0]
NAN = np.full(8, np.nan)


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


def one(**changes: Any) -> list[Record]:
    return [Record(**{"id": "new", "text": "t", "vector": ROW, **changes})]


WRITES: dict[str, tuple[Callable[[Any], Any], type[NestvecError], str]] = {
    "blank text": (lambda s: s.add(["fine", " \n"], ids=["a", "b"]), RecordError, "'b': text is"),
    "empty text": (lambda s: s.add([""], ids=["a"]), RecordError, "'a': text is blank"),
    "text not a string": (lambda s: s.add([3]), RecordError, "text is a string, got <class 'int'>"),
    "one string as texts": (lambda s: s.add("text"), RecordError, r"write \[text\]"),
    "texts not iterable": (lambda s: s.add(3), RecordError, "iterable"),
    "not a record": (lambda s: s.add_records(["text"]), RecordError, "takes Records"),
    "empty id": (lambda s: s.add(["t"], ids=[""]), RecordError, "not empty"),
    "long id": (lambda s: s.add(["t"], ids=["x" * 513]), RecordError, "512 characters, got 513"),
    "odd id": (lambda s: s.add(["t"], ids=[1.5]), RecordError, "an id is a string"),
    "surrogate": (lambda s: s.add(["\ud800"]), RecordError, "lone surrogate"),
    "few metadatas": (lambda s: s.add(["a", "b"], [{}]), RecordError, "1 items for 2 texts"),
    "few lazy metadatas": (lambda s: s.add(["a", "b"], iter([{}])), RecordError, "text number 2"),
    "few ids": (lambda s: s.add(["a", "b"], ids=["1"]), RecordError, "ids has 1 items"),
    "metadata not JSON": (
        lambda s: s.add_records(one(metadata={"a": [{"b": {1, 2}}]})),
        RecordError,
        r"'new': metadata\.a\[0\]\.b: builtins\.set is not JSON",
    ),
    "metadata not a dict": (lambda s: s.add_records(one(metadata=[1])), RecordError, "is a dict"),
    "metadata key": (lambda s: s.add_records(one(metadata={1: 2})), RecordError, "key 1 is not"),
    "metadata NaN": (lambda s: s.add_records(one(metadata={"a": np.nan})), RecordError, "nan"),
    "metadata int": (lambda s: s.add_records(one(metadata={"a": 2**63})), RecordError, "64 bits"),
    "metadata too deep": (
        lambda s: s.add_records(one(metadata=deep(101))),
        RecordError,
        "nested more than 100 levels",
    ),
    "NaN vector": (lambda s: s.add_records(one(vector=NAN)), RecordError, "'new': vector has NaN"),
    "zero vector": (lambda s: s.add_records(one(vector=[0] * 8)), RecordError, "all zero"),
    "zero prefix": (
        lambda s: s.add_records(one(vector=[0, 0, 1, 1, 1, 1, 1, 1])),
        RecordError,
        "first 2 numbers",
    ),
    "wrong width": (lambda s: s.add_records(one(vector=[1] * 7)), RecordError, "has 7 numbers, ex"),
    "vector of texts": (lambda s: s.add_records(one(vector=["a"] * 8)), RecordError, "sequence of"),
    "nested vector": (lambda s: s.add_records(one(vector=[ROW])), RecordError, "flat sequence"),
}

READS: dict[str, tuple[Callable[[Any], Any], type[NestvecError], str]] = {
    "k = 0": (lambda s: s.search(ROW, k=0), FunnelError, "k must be at least 1, got 0"),
    "k too large": (lambda s: s.search(ROW, k=2**31), FunnelError, "k must be at most 2147483647"),
    "k not whole": (lambda s: s.search(ROW, k=2.5), FunnelError, "k is a whole number"),
    "negative offset": (lambda s: s.search(ROW, offset=-1), FunnelError, "offset must be at least"),
    "offset past the funnel": (
        lambda s: s.search(ROW, k=10, offset=11, funnel="2:20"),
        FunnelError,
        "k=10 with offset=11 needs 21",
    ),
    "rising limits": (lambda s: s.search(ROW, funnel="2:20 4:30"), FunnelError, "limits fall"),
    "narrow funnel": (lambda s: s.search(ROW, k=10, funnel="2:9"), FunnelError, "ends with 9"),
    "unknown field": (
        lambda s: s.search(ROW, funnel="3:20"),
        FunnelError,
        "unknown field '3'; this collection has d2, d4, full",
    ),
    "full as a stage": (lambda s: s.search(ROW, funnel="full:20"), FunnelError, "always 'full'"),
    "unreadable funnel": (lambda s: s.search(ROW, funnel="64-200"), FunnelError, "'64-200'"),
    "empty funnel": (lambda s: s.search(ROW, funnel=" "), FunnelError, "funnel is empty"),
    "zero limit": (lambda s: s.search(ROW, funnel="2:0"), FunnelError, "limit must be at least 1"),
    "funnel type": (lambda s: s.search(ROW, funnel=7), FunnelError, "a funnel is a Funnel"),
    "min_score": (lambda s: s.search(ROW, min_score=2), FunnelError, "between -1 and 1, got 2"),
    "blank query": (lambda s: s.search("  "), RecordError, "query: text is blank"),
    "wrong width": (lambda s: s.search([1, 2]), NestingError, "query: vector has 2 numbers, expec"),
    "NaN query": (lambda s: s.search(NAN), NestingError, "query: vector has NaN"),
    "zero query": (lambda s: s.search([0] * 8), NestingError, "query: vector is all zero"),
    "no query": (lambda s: s.search(None), NestingError, "flat sequence of numbers"),
    "one query of many": (lambda s: s.search_many("text"), RecordError, "list of queries"),
    "one of many wrong": (lambda s: s.search_many([ROW, NAN]), NestingError, "query: vector has N"),
    "where": (lambda s: s.search(ROW, where=3), FilterError, "a filter is F"),
    "where in count": (lambda s: s.count(True), FilterError, "a filter is F"),
    "where in scan": (lambda s: s.scan("n"), FilterError, "a filter is F"),
    "where in delete": (lambda s: s.delete(where=()), FilterError, "a filter is F"),
    "one id": (lambda s: s.get("12"), RecordError, r"write \['12'\]"),
    "ids to delete": (lambda s: s.delete("12"), RecordError, r"write \['12'\]"),
    "order of booleans": (lambda s: s.count(F("a") < True), FilterError, "True has no order"),
    "no values": (lambda s: s.count(F("a").in_([])), FilterError, "'a'.*at least one value"),
    "a string as values": (lambda s: s.count(F("a").in_("ab")), FilterError, "list of values"),
    "no key": (lambda s: s.count(F("a..b") == 1), FilterError, "a key is"),
}


@pytest.fixture
def kept(engine: Engine) -> Any:
    store = engine.connect(dims=(2, 4), embedder=HashEmbedder())
    store.add_records(records(nested_vectors(30, 8)))
    return store


@pytest.mark.parametrize("case", WRITES)
def test_a_wrong_write_is_refused_and_writes_nothing(kept: Any, case: str) -> None:
    call, error, words = WRITES[case]
    with pytest.raises(error, match=words):
        call(kept)
    assert kept.count() == 30


@pytest.mark.parametrize("case", READS)
def test_a_wrong_question_is_refused(kept: Any, case: str) -> None:
    call, error, words = READS[case]
    with pytest.raises(error, match=words):
        call(kept)


DIMS: dict[str, tuple[Any, str]] = {
    "empty": ((), "dims is empty"),
    "only full": (("full:float16",), "dims is empty"),
    "not below full": ((4, 8), "dims has 8, but prefixes are shorter than the full vector"),
    "zero": ((0,), "at least 1"),
    "twice": ((4, "4:float32"), "'d4' twice"),
    "unknown precision": (("4:int3",), "unknown precision 'int3'; known are float32"),
    "not a field": (("big",), "dims has 'big'"),
    "a float": ((2.5,), "dims has 2.5"),
    "not a tuple": (64, r"such as \(64, 256\)"),
}


@pytest.mark.parametrize("case", DIMS)
def test_wrong_dims_make_no_collection(engine: Engine, case: str) -> None:
    dims, words = DIMS[case]
    with pytest.raises(NestingError, match=words):
        engine.connect(dims=dims, dim=8)
    engine.connect(dims=(2,), dim=8)


def test_a_new_collection_needs_a_width(engine: Engine) -> None:
    with pytest.raises(EmbedderError, match="embedder='static'"):
        engine.connect(dims=(2,))
    with pytest.raises(NestingError, match="dim=9, but 'hash' makes vectors of 8"):
        engine.connect(dims=(2,), dim=9, embedder=HashEmbedder())


def test_options_that_the_engine_does_not_have(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"colour.*its options are"):
        engine.connect(dims=(2,), dim=8, colour="blue")
    with pytest.raises(ConfigError, match="batch_size"):
        engine.connect(dims=(2,), dim=8, batch_size=0)


class Wrong(HashEmbedder):
    """An embedder that gives what cannot be right once it is asked for documents."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def embed_documents(self, texts: Any) -> Any:
        return self.made

    def embed_query(self, text: str) -> Any:
        return self.made[0]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([ROW], "'hash': 1 vectors for 2 texts"),
        ([ROW, ROW[:5]], "'hash': record 'b': vector has 5 numbers, expected 8"),
        ([ROW, NAN], "'hash': record 'b': vector has NaN"),
        ([ROW, [0.0] * 8], "'hash': record 'b': vector is all zero"),
    ],
    ids=["count", "width", "nan", "zero"],
)
def test_an_embedder_that_gives_nonsense_is_named(engine: Engine, made: Any, words: str) -> None:
    store = engine.connect(dims=(2,), embedder=Wrong(made))
    with pytest.raises(EmbedderError, match=words):
        store.add(["one", "two"], ids=["a", "b"])
    assert store.count() == 0
    with pytest.raises(EmbedderError, match="embedder 'hash': query"):
        engine.connect(collection="other", dims=(2,), embedder=Wrong([NAN])).search("text")


def test_a_store_without_an_embedder_takes_vectors_only(store: Any) -> None:
    with pytest.raises(EmbedderError, match="opened without an embedder"):
        store.add(["text"])
    with pytest.raises(EmbedderError, match="opened without an embedder"):
        store.search("text")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embedder": HashEmbedder(name="other")}, "has embedder 'hash'; asked for embedder 'oth"),
        ({"embedder": HashEmbedder(16)}, "has vectors of 8; asked for vectors of 16"),
        ({"dim": 16}, "has vectors of 8; asked for vectors of 16"),
        ({"dims": (2,)}, "has dims 2, 4 of 8; asked for dims 2 of 8"),
        ({"dims": (2, "4:int8")}, "has dims 2, 4 of 8; asked for dims 4:int8, 2 of 8"),
    ],
    ids=["model", "width", "dim", "dims", "precision"],
)
@lasting
def test_a_collection_is_not_opened_as_another(
    engine: Engine, settings: dict[str, Any], words: str
) -> None:
    store = engine.connect(dims=(2, 4), embedder=HashEmbedder())
    store.add(["one"], ids=["a"])
    store.close()
    with pytest.raises(CollectionMismatch, match=words):
        engine.connect(**settings)
    again = engine.connect(dims=(4, 2), embedder=HashEmbedder())
    assert again.count() == 1
