"""Tuning: what it promises of recall, what it keeps, and what it says where nothing reaches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import ConfigError, F, Funnel, NestingError, Record, RecordError, truth, tuning
from nestvec.backends.base import drawn_by
from nestvec.certificate import Tuned
from nestvec.funnel import Knobs, Stage, widened
from nestvec.nesting import Matrix

from .. import postgres, qdrant
from ..vectors import HashEmbedder

DIM = 64


def rows(n: int, seed: int = 0) -> Matrix:
    """Return vectors whose first numbers say most, as a Matryoshka model makes them."""
    drawn = np.random.default_rng(seed).standard_normal((n, DIM))
    return (drawn * (1 + np.arange(DIM)) ** -0.7).astype(np.float32)


def filled(url: str, n: int = 3_000, **settings: Any) -> nestvec.Store:
    store = nestvec.connect(url, **{"dims": (8, 32), "dim": DIM, **settings})
    store.add_records(
        Record(f"id{i}", f"text {i}", {"n": i, "even": i % 2 == 0}, row)
        for i, row in enumerate(rows(n))
    )
    return store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned")
    filled(f"edge:{path}").close()
    return path


@pytest.fixture
def store(place: Path) -> Any:
    with nestvec.connect(f"edge:{place}") as opened:
        yield opened


def recall(store: nestvec.Store, queries: Matrix, funnel: Any, k: int = 10) -> float:
    found = 0
    for query in queries:
        best = {hit.id for hit in store.search(query, k, funnel="exact")}
        found += len(best & {hit.id for hit in store.search(query, k, funnel=funnel)})
    return found / (k * len(queries))


def test_the_plan_keeps_its_promise_on_queries_that_nobody_has_seen(store: nestvec.Store) -> None:
    told: list[tuple[str, float]] = []
    tuned = store.tune(0.9, 10, budget_s=8, progress=lambda what, share: told.append((what, share)))
    made = tuned.certificate
    assert made is not None
    assert tuned.reached
    assert made.bound >= 0.9
    assert made.recall >= made.bound
    assert made.source == "collection"
    assert made.documents == 3_000
    assert 0 < made.p50 <= made.p95
    assert recall(store, rows(300, seed=9), tuned) == pytest.approx(made.recall, abs=0.03)
    assert all(0 <= share <= 1 for _, share in told)
    assert told[-1] == ("done", 1.0)
    assert any(trial.funnel == Funnel(tuned.stages, tuned.knobs) for trial in tuned.trials)


def test_the_plan_is_kept(place: Path) -> None:
    with nestvec.connect(f"edge:{place}") as store:
        tuned = store.tune(0.8, 5, budget_s=4, seed=3)
        kept = store.tuned
        assert kept == tuned
        assert store.info().funnel == str(store.plan())
    with nestvec.connect(f"edge:{place}") as again:
        assert again.tuned is not None
        assert str(again.tuned) == str(tuned)
        assert again.tuned.certificate == tuned.certificate
        assert str(again.plan(None, 5)) == str(again.plan(tuned, 5))
        wide = again.plan(None, 50)  # a plan for 5 hits lets ten times as many through for 50
        assert wide.stages == () or wide.stages[-1][1] >= 50
        assert len(again.search(rows(1)[0], 50)) == 50
        assert again.plan("32:40").stages[0][1] == 40  # what is asked for by name stays so


def test_what_is_drawn_follows_from_the_seed(store: nestvec.Store) -> None:
    backend = store._collection.backend

    def drawn(seed: int) -> list[str]:
        flow = backend.sample(50, seed)
        return [record.id for record in nestvec.flow.run(flow, backend.send)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1) == sorted((f"id{i}" for i in range(3_000)), key=lambda i: drawn_by(i, 1))[:50]


@pytest.mark.parametrize("funnel", ["8:12", "8:30 32:12", "exact", "32:10 ef=64"])
def test_a_query_that_is_a_document_is_left_out(store: nestvec.Store, funnel: str) -> None:
    """It is searched as if the document was not there, whatever the stages are."""
    backend, query = store._collection.backend, rows(3_000)[17]
    steps = tuning._with_one_more(store.plan(funnel, 10))
    queries = nestvec.flow.run(store._collection.vectors(query), store._send)
    hits = nestvec.flow.run(backend.search(queries, steps, None), backend.send)
    ids = [hit.id for hit in hits if hit.id != "id17"]
    store.delete(["id17"])
    try:
        assert ids == [hit.id for hit in store.search(query, 10, funnel=funnel)]
    finally:
        store.add_records([Record("id17", "text 17", {"n": 17, "even": False}, query)])


def free(*_: Any) -> Any:
    """A pass that takes no time."""
    return 0.0, 0.0
    yield


@pytest.mark.parametrize("by_pass", [False, True])
def test_exact_answers_are_those_of_an_exact_search(
    store: nestvec.Store, by_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_pass:  # as if one pass over everything were much faster than the engine's scans
        monkeypatch.setattr(truth, "_TOGETHER", 1)
        monkeypatch.setattr(truth, "_WORTH", -1.0)
        monkeypatch.setattr(truth, "_pass_time", free)
    collection = store._collection
    asked = []
    for i, row in enumerate(rows(3_000)[:12]):
        queries = nestvec.flow.run(collection.vectors(row), store._send)
        asked.append(truth.Asked(queries, None, f"id{i}"))
    flow = truth.exact_answers(collection, asked, 5, seconds=60, tell=lambda: None)
    answers = nestvec.flow.run(flow, store._send)
    for i, answer in enumerate(answers):
        hits = store.search(rows(3_000)[i], 6, funnel="exact")
        assert hits[0].id == f"id{i}"
        assert answer.ids == tuple(hit.id for hit in hits[1:])
        assert answer.recall(hits) == 1
        assert answer.recall(hits[:3]) == pytest.approx(0.4)


def test_queries_may_be_given_with_filters(store: nestvec.Store) -> None:
    queries = [
        {"query": row, "where": {"even": True}} if i % 2 else row
        for i, row in enumerate(rows(120, seed=5))
    ]
    tuned = store.tune(0.7, 5, queries, where=F("n") < 2_000, budget_s=6)
    assert tuned.certificate is not None
    assert tuned.certificate.source == "given"
    assert tuned.certificate.n <= 84


def test_texts_may_be_given(tmp_path: Path) -> None:
    with nestvec.connect(f"edge:{tmp_path}", dims=(8,), embedder=HashEmbedder(32)) as store:
        store.add([f"text number {i}" for i in range(400)])
        tuned = store.tune(0.6, 3, [f"text number {i}" for i in range(30)], budget_s=3)
        assert tuned.certificate is not None
        assert tuned.certificate.recall > 0.5


def test_a_log_may_be_given(tmp_path: Path) -> None:
    """What is in it more than once counts once, so that no query chooses and certifies."""
    log = tmp_path / "log.jsonl"
    lines = [f'{{"query": "text number {i}", "where": {{"even": true}}}}' for i in range(40)]
    lines += [f"text number {i}" for i in range(20)] + ["text number 3"] * 30
    log.write_text("\n".join([*lines, '{"query": "more", "user": 7}']))
    with nestvec.connect(f"edge:{tmp_path}", dims=(8,), embedder=HashEmbedder(32)) as store:
        store.add(
            [f"text number {i}" for i in range(400)], [{"even": i % 2 == 0} for i in range(400)]
        )
        tuned = store.tune(0.6, 3, log, budget_s=3)
        assert tuned.certificate is not None
        assert tuned.certificate.n == 61 - round(0.3 * 61)
        assert "30 queries are repeated; each counts once" in tuned.notes
        assert "not read of the queries: user" in tuned.notes
        log.write_text("text\n[1, 2]\n")
        with pytest.raises(NestingError, match=r"log\.jsonl, line 2: .*2 numbers"):
            store.tune(queries=log)


def test_a_long_log_is_drawn_from(store: nestvec.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_GIVEN", 50)
    given = list(rows(200, seed=6))
    tuned = store.tune(0.5, 5, given, budget_s=3)
    assert "50 of 200 queries were drawn; more would add little" in tuned.notes
    monkeypatch.setattr(tuning, "_EMBED_SHARE", 0.0)
    tuned = store.tune(0.5, 5, given, budget_s=3)
    assert "2 of 200 queries were drawn; the budget ended there" in tuned.notes


#: What of each engine's search is varied, and a collection on which it matters.
VARIED: dict[str, tuple[str, dict[str, Any]]] = {
    "ef": ("edge", {}),
    "oversampling": ("edge", {"dims": ("full:binary",)}),
    "ef of Postgres": ("postgres", {}),
    "probes": ("postgres", {"index": "ivfflat", "lists": 40}),
    "ef of Qdrant": ("qdrant", {}),
}


@pytest.mark.parametrize("named", VARIED)
def test_each_parameter_of_an_engine_is_varied(named: str, tmp_path: Path) -> None:
    """It is tried at several values, and what is certified with one holds for others' queries."""
    engine, settings = VARIED[named]
    knob = named.split(maxsplit=1)[0]
    places: dict[str, Callable[[], dict[str, Any]]] = {
        "edge": lambda: {"url": f"edge:{tmp_path}"},
        "postgres": lambda: {"url": postgres.place(), **postgres.settings},
        "qdrant": lambda: {**qdrant.place(), "collection": qdrant.prefix()},
    }
    place = places[engine]()
    store = filled(n=300 if engine == "qdrant" else 2_000, **{**place, **settings})
    try:
        store.create_index()  # Postgres has none by itself for so few
        tuned = store.tune(0.9, 10, rows(150, seed=21), budget_s=30)
        tried = {getattr(trial.funnel.knobs, knob) for trial in tuned.trials}
        assert len(tried - {None}) >= 3
        found = [trial.recall for trial in tuned.trials]
        assert max(found) > min(found)
        assert tuned.certificate is not None
        unseen = recall(store, rows(100, seed=22), tuned)
        assert unseen == pytest.approx(tuned.certificate.recall, abs=0.05)
    finally:
        store.drop()
        store.close()


def test_lists_are_those_of_the_index_and_not_of_who_opens() -> None:
    """A plan with probes is searched so by stores that say nothing of ivfflat."""
    url = postgres.place()
    made = filled(url, 2_000, index="ivfflat", lists=40, **postgres.settings)
    made.create_index()
    made.close()
    with nestvec.connect(url, **postgres.settings) as store:
        backend = store._collection.backend
        entry, *_ = nestvec.flow.run(backend.entries(), backend.send)
        assert entry.lists == 40
        queries = rows(40, seed=31)
        few, all_ = (recall(store, queries, f"8:60 probes={n}") for n in (1, 40))
        assert few < all_ - 0.1
        assert recall(store, queries, "8:60") > few + 0.05  # ten probes where nothing is said
        store.drop()


def test_few_queries_cannot_show_much_and_the_result_says_so(store: nestvec.Store) -> None:
    before = store.tuned
    tuned = store.tune(0.99, 10, list(rows(60, seed=8)), budget_s=5)
    if tuned.stages:  # an exact scan needs no queries to be exact
        assert not tuned.reached
        assert store.tuned == before
    assert any("0.99 needs 299 of them or more" in note for note in tuned.notes)


def test_where_no_plan_reaches_the_target_it_says_what_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_MOST_TIMES", 2)  # as if only few candidates were affordable
    monkeypatch.setattr(tuning._Run, "_exact_is_best", lambda *_: False)
    with filled(f"edge:{tmp_path}", dims=(4,)) as store:
        tuned = store.tune(0.99, 10, budget_s=5)
        assert not tuned.reached
        assert tuned.certificate is not None
        assert tuned.certificate.bound < 0.99
        assert store.tuned is None
        advice = {made.how: made for made in tuned.advice}
        assert advice['funnel="exact"'].p50
        wider = next(made for how, made in advice.items() if how.startswith("store.add_field"))
        assert wider.candidates is not None
        assert wider.memory
        length = int(wider.how.split("'")[1])
        store.add_field(length)
        found = recall(store, rows(100, seed=4), f"{length}:{wider.candidates}")
        assert found > 0.97


def test_the_smallest_plan_is_found(store: nestvec.Store) -> None:
    small = store.tune(0.6, 10, budget_s=6, optimise="memory")
    assert small.certificate is not None
    assert small.reached
    if small.stages:  # the field of 8 numbers is enough for this target, with candidates
        assert small.stages[0].field == "d8"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_recall": 1.0}, "target_recall is a share between 0 and 1, got 1.0"),
        ({"confidence": 0}, "confidence is a share"),
        ({"budget_s": 0}, "budget_s is a number of seconds above 0"),
        ({"optimise": "money"}, "optimise is 'speed' or 'memory', got 'money'"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    store: nestvec.Store, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        store.tune(**settings)


def test_wrong_queries_are_named(store: nestvec.Store) -> None:
    with pytest.raises(RecordError, match="queries is a list"):
        store.tune(queries="one")
    with pytest.raises(RecordError, match=r"query 1: a query has one of the keys .* got words"):
        store.tune(queries=[{"words": "x"}])


def test_an_empty_collection_is_named() -> None:
    with (
        nestvec.connect("memory:", dims=(2,), dim=4) as store,
        pytest.raises(ConfigError, match="nothing to tune"),
    ):
        store.tune()


async def test_tune_asynchronously(place: Path) -> None:
    async with await nestvec.aconnect(f"edge:{place}") as store:
        tuned = await store.tune(0.7, 5, budget_s=3)
        assert tuned.certificate is not None


def test_a_funnel_says_how_its_first_stage_is_searched() -> None:
    funnel = Funnel.parse("8:40 32:20 ef=64 oversampling=2.5")
    assert funnel.knobs == Knobs(ef=64, oversampling=2.5)
    assert Funnel.parse(str(funnel)) == funnel
    for text in ("8:40 ef=0", "8:40 speed=3", "exact ef=9", "8:40 oversampling=0.5", "8:40 ef=1.5"):
        with pytest.raises(nestvec.FunnelError):
            Funnel.parse(text)


def test_a_plan_for_few_hits_lets_more_through_for_many() -> None:
    funnel = Funnel((Stage("d8", 40), Stage("d32", 15)), Knobs(ef=50))
    assert str(widened(funnel, 10, 25)) == "d8:100 d32:38 ef=125"
    assert widened(funnel, 10, 5) is funnel
    assert isinstance(widened(Tuned(funnel.stages), 10, 5), Funnel)
