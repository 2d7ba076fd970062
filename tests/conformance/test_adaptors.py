"""Adaptors in the path of every engine: documents and queries, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestvec import AdaptorError, CollectionMismatch, F, Record
from nestvec.adaptors import Adaptor, MatryoshkaAdaptor, RotationAdaptor
from nestvec.nesting import Matrix

from ..vectors import HashEmbedder, nested_vectors, records
from .engines import Engine, lasting

DIM = 16


def scrambled(n: int, seed: int = 0) -> Matrix:
    """Return vectors whose prefixes say little: nested ones, rotated at random."""
    mixing = RotationAdaptor.random(DIM, seed=9).arrays["rotation"]
    return np.asarray(nested_vectors(n, DIM, seed=seed, decay=1.5) @ mixing)


def network(seed: int = 0) -> MatryoshkaAdaptor:
    """Return a network with numbers of its own: it does not keep cosines."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (DIM, DIM), "b1": (DIM,), "w2": (DIM, DIM), "b2": (DIM,)}
    made = {name: rng.normal(0, 0.3, shape).astype("f4") for name, shape in shapes.items()}
    return MatryoshkaAdaptor.from_arrays({**made, "rotation": rotation().arrays["rotation"]})


def rotation() -> RotationAdaptor:
    return RotationAdaptor.fit(scrambled(500))


@pytest.fixture(params=[rotation, network], ids=["rotation", "network"])
def adaptor(request: pytest.FixtureRequest) -> Adaptor:
    made: Adaptor = request.param()
    return made


def test_what_goes_in_comes_out_and_scores_are_of_the_vectors_given(
    engine: Engine, adaptor: Adaptor
) -> None:
    store = engine.connect(dims=(4, 8), adaptor=adaptor)
    rows = scrambled(60)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    store.add_records(records(rows))
    for record in [*store.get(range(60), vectors=True), *store.scan(vectors=True)]:
        assert record.vector == pytest.approx(unit[int(record.id)], abs=1e-5)
    query = scrambled(1, seed=1)[0]
    cosines = unit @ query / np.linalg.norm(query)
    for funnel in ("exact", "4:60 8:60"):
        hits = store.search(query, k=60, funnel=funnel)
        assert [int(hit.id) for hit in hits] == np.argsort(-cosines).tolist()
        assert [hit.score for hit in hits] == pytest.approx(np.sort(cosines)[::-1], abs=1e-4)
    assert store.info().adaptor == adaptor.name
    assert store.verify() == {}


def test_candidates_are_those_of_the_adapted_prefixes(engine: Engine, adaptor: Adaptor) -> None:
    store = engine.connect(dims=(4,), adaptor=adaptor)
    rows, query = scrambled(200), scrambled(1, seed=1)[0]
    store.add_records(records(rows))
    store.add_records(records(rows[:50]))  # and again, over what is there
    prefixes, asked = adaptor.apply(rows)[:, :4], adaptor.apply(query)[:4]
    scores = prefixes @ asked / np.linalg.norm(prefixes, axis=1)
    hits = store.search(query, k=12, funnel="4:12", where=F("even") == True)  # noqa: E712
    best = [f"{i}" for i in np.argsort(-scores) if i % 2 == 0]
    shards = store.info().engine.get("shards") or 1  # each has its own candidates
    assert {hit.id for hit in hits} <= set(best[: 12 * shards])
    assert shards > 1 or {hit.id for hit in hits} == set(best[:12])
    store.add_records([Record("3", "new", {}, -rows[3])])
    assert store.search(-rows[3], k=1, funnel="4:1")[0].text == "new"
    assert store.get(["3"], vectors=True)[0].vector @ rows[3] < 0


def test_texts_and_questions_go_through_it_too(engine: Engine) -> None:
    store = engine.connect(dims=(8,), embedder=HashEmbedder(DIM), adaptor=network())
    store.add(["red apple", "green pear", "blue plum"], ids=["a", "b", "c"])
    (hit,) = store.search("green pear", k=1, funnel="8:1")
    assert (hit.id, hit.score) == ("b", pytest.approx(1, abs=1e-4))
    many = store.search_many(["red apple", "blue plum"], k=1, funnel="8:1")
    assert [hits[0].id for hits in many] == ["a", "c"]
    assert store.explain("red apple", k=1).overlap == 1


@pytest.mark.needs("binary")
@pytest.mark.parametrize("dims", [("8:binary", "4:float16"), ("full:binary", "full:float16")])
def test_precisions_are_those_of_adapted_vectors(
    engine: Engine, adaptor: Adaptor, dims: Any
) -> None:
    store = engine.connect(dims=dims, adaptor=adaptor)
    rows = scrambled(60)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    store.add_records(records(rows))
    store.add_records(records(rows[:20] * 2))
    hits = store.search(rows[7], k=60, funnel=f"{dims[0]}:60")
    scores = [hit.score for hit in hits]
    assert hits[0].id == "7"
    assert scores == pytest.approx(np.sort(unit @ unit[7])[::-1], abs=2e-3)
    assert store.get(["7"], vectors=True)[0].vector == pytest.approx(unit[7], abs=2e-3)


def test_a_rotation_gives_the_hits_of_the_plain_collection(engine: Engine) -> None:
    rows, queries = scrambled(300), scrambled(20, seed=1)
    plain = engine.connect(collection="plain", dims=(4, 8), dim=DIM)
    adapted = engine.connect(collection="adapted", dims=(4, 8), adaptor=rotation())
    for store in (plain, adapted):
        store.add_records(records(rows))
    gained = 0
    for query in queries:
        exact = plain.search(query, funnel="exact")
        same = adapted.search(query, funnel="exact")
        assert [hit.id for hit in same] == [hit.id for hit in exact]
        assert [hit.score for hit in same] == pytest.approx([hit.score for hit in exact], abs=1e-4)
        wanted = {hit.id for hit in exact}
        found = [
            len(wanted & {hit.id for hit in s.search(query, funnel="4:20")})
            for s in (plain, adapted)
        ]
        gained += found[1] - found[0]
    assert gained > 0


@lasting
def test_it_is_not_opened_without_its_adaptor_or_with_another(
    engine: Engine, adaptor: Adaptor, tmp_path: Path
) -> None:
    rows = scrambled(30)
    store = engine.connect(dims=(4, 8), adaptor=adaptor)
    store.add_records(records(rows))
    before = store.search(rows[3], k=5, funnel="4:5")
    store.close()
    other = RotationAdaptor.random(DIM, seed=5)
    with pytest.raises(CollectionMismatch, match=rf"adaptor {adaptor.name}.*no adaptor; pass"):
        engine.connect()
    with pytest.raises(CollectionMismatch, match=rf"{adaptor.name}.*{other.name}"):
        engine.connect(adaptor=other)
    adaptor.save(tmp_path / "adaptor.safetensors")
    again = engine.connect(adaptor=tmp_path / "adaptor.safetensors")
    assert [hit.id for hit in again.search(rows[3], k=5, funnel="4:5")] == [
        hit.id for hit in before
    ]
    again.add_records(records(rows, prefix="more "))
    assert again.count() == 60


@lasting
def test_a_collection_without_an_adaptor_takes_none(engine: Engine) -> None:
    engine.connect(dims=(4, 8), dim=DIM).close()
    with pytest.raises(CollectionMismatch, match=r"has no adaptor; asked for adaptor rotation-"):
        engine.connect(adaptor=rotation())


def test_an_adaptor_of_other_vectors_is_refused(engine: Engine) -> None:
    with pytest.raises(AdaptorError, match=r"for vectors of 16 numbers, here are vectors of 8"):
        engine.connect(dims=(4,), dim=8, adaptor=rotation())
    fitted = RotationAdaptor.fit(scrambled(100), embedder="other")
    with pytest.raises(
        AdaptorError, match=r"fitted on vectors of 'other', here they are of 'hash'"
    ):
        engine.connect(dims=(4,), embedder=HashEmbedder(DIM), adaptor=fitted)
    with pytest.raises(AdaptorError, match="path of a file"):
        engine.connect(dims=(4,), dim=DIM, adaptor=17)
