"""Adaptors that are trained: kept when they help, refused when not, resumed when interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestvec import AdaptorError
from nestvec.adaptors import MatryoshkaAdaptor, RotationAdaptor, Training, recall_by_prefix
from nestvec.adaptors import torch_training as loop
from nestvec.adaptors.recall import HeldOut
from nestvec.nesting import Matrix

from ..vectors import nested_vectors

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 16
SHORT = Training(iterations=150, patience=150, batch=64, rate=1e-2, check_every=30, rec=0.01)


def clusters(n: int, seed: int = 0) -> Matrix:
    """Return vectors around 16 orthogonal centres, which no 4 rotated numbers tell apart."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(DIM, size=n)
    return np.asarray(np.eye(DIM)[centres] + 0.1 * rng.standard_normal((n, DIM)), dtype="f4")


def scrambled(n: int) -> Matrix:
    mixing = RotationAdaptor.random(DIM, seed=9).arrays["rotation"]
    return np.asarray(nested_vectors(n, DIM, decay=1.0) @ mixing)


# The rotation


def test_a_random_rotation_is_improved_and_stays_one() -> None:
    vectors = scrambled(1_200)
    start = RotationAdaptor.random(DIM, seed=1, embedder="a model")
    better = start.improved(vectors, dims=(4, 8), training=SHORT)
    matrix = better.arrays["rotation"].astype(np.float64)
    assert np.abs(matrix.T @ matrix - np.eye(DIM)).max() < 1e-5
    made = recall_by_prefix(vectors[:800], vectors[800:900], (4,), before=start, after=better)
    assert made.gain > 0.05
    assert better.embedder == "a model"
    assert better.about["start"] == "random"
    assert "recall of the exact top 10" in better.about["improved"]


def test_a_rotation_that_cannot_be_improved_is_returned_as_it_was() -> None:
    vectors = scrambled(1_200)
    best = RotationAdaptor.fit(vectors)
    wild = Training(iterations=5, check_every=5, rate=10.0, batch=4)
    assert best.improved(vectors, dims=(4,), training=wild) == best
    with pytest.raises(AdaptorError, match="vectors have 8 numbers, the rotation 16"):
        best.improved(nested_vectors(1_200, 8), dims=(4,))


# The network


@pytest.mark.parametrize("rotate", [True, False])
def test_a_network_that_finds_more_is_kept(rotate: bool) -> None:
    made = MatryoshkaAdaptor.fit(
        clusters(1_500), dims=(4,), rotate=rotate, training=SHORT, embedder="a model"
    )
    assert ("rotation" in made.arrays) == rotate
    assert made.embedder == "a model"
    assert "recall of the exact top 10" in made.about["over_rotation"]
    rotation = RotationAdaptor.fit(clusters(1_500))
    found = recall_by_prefix(
        clusters(600, seed=1), clusters(50, seed=2), (4,), before=rotation, after=made,
        candidates=60,
    )  # fmt: skip
    assert found.gain > 0.05


def test_a_network_that_does_not_beat_the_rotation_is_refused_with_the_figures() -> None:
    hopeless = Training(iterations=4, check_every=2, rate=1e-9, batch=4)
    with pytest.raises(AdaptorError, match=r"does not beat the rotation.*by prefix 4: 0\.\d{4} → "):
        MatryoshkaAdaptor.fit(scrambled(1_200), dims=(4,), training=hopeless)


def judged(documents: Matrix, asked: Matrix) -> list[tuple[int, int, int]]:
    """Return ten documents of the same centre for each query."""
    group, wanted = documents.argmax(axis=1), asked.argmax(axis=1)
    return [
        (q, int(d), 1 + n % 2)
        for q in range(len(asked))
        for n, d in enumerate(np.flatnonzero(group == wanted[q])[:10])
    ]


def test_judgements_are_learnt_from() -> None:
    documents, asked = clusters(1_000), clusters(150, seed=3)
    made = MatryoshkaAdaptor.fit(
        documents, dims=(4,), queries=asked, judgements=judged(documents, asked), training=SHORT
    )
    assert "nDCG@10" in made.about["over_rotation"]
    assert "20 judged queries over 1,000 documents" in made.about["over_rotation"]


class Numbered:
    """An embedder of texts that are numbers of rows, other ones for documents and for queries."""

    name, dim = "numbered", DIM

    def __init__(self, documents: Matrix, queries: Matrix) -> None:
        self.documents, self.queries = documents, queries

    def embed_documents(self, texts: Sequence[str]) -> Any:
        return self.documents[[int(text) for text in texts]]

    def embed_query(self, text: str) -> Any:
        return self.queries[int(text)]


def test_texts_are_embedded_as_documents_and_as_queries() -> None:
    documents, asked = clusters(1_000), clusters(80, seed=3)
    embedder = Numbered(documents, asked)
    texts, questions = map(str, range(1_000)), (str(n) for n in range(80))
    judgements, short = judged(documents, asked), replace(SHORT, iterations=60)
    made = MatryoshkaAdaptor.fit_texts(
        texts, embedder, dims=(4,), queries=questions, judgements=judgements, training=short
    )
    same = MatryoshkaAdaptor.fit(
        documents, dims=(4,), queries=asked, judgements=judgements, training=short
    )
    assert made.embedder == "numbered"
    assert made.about == same.about
    assert made.apply(documents) == pytest.approx(same.apply(documents), abs=1e-3)


def test_texts_and_queries_that_cannot_be_fitted_on_are_named() -> None:
    embedder = Numbered(clusters(1_000), clusters(80))

    def refused(said: str, texts: Any, **settings: Any) -> None:
        with pytest.raises(AdaptorError, match=said):
            MatryoshkaAdaptor.fit_texts(texts, embedder, dims=(4,), training=SHORT, **settings)

    refused("at least 1,000 are needed", ["1", "2"])
    refused("text 1 is blank", ["1", " "])
    refused("there are no texts", [])
    refused("texts is an iterable of strings, got one string", "1")
    refused("query 1 is blank", ["1"], queries=["1", ""], judgements=[(0, 0)])
    refused("there are no queries", ["1"], queries=[], judgements=[(0, 0)])
    refused("given together", ["1"], queries=["1"])
    embedder.documents[7] = np.nan
    refused("vector 7: vector has NaN", map(str, range(1_000)))


@pytest.mark.parametrize(
    ("judgements", "said"),
    [
        ([(0, 0)] * 50, "1 judged queries are too few.*at least 60"),
        ([(99, 0)], r"judgement 0 is \(99, 0\).*rows below 80 and 1000"),
        ([(0, 0), (0, 1, 0)], "judgement 1"),
        ([5], "judgement 0 is 5"),
    ],
)
def test_judgements_that_cannot_be_are_named(judgements: Any, said: str) -> None:
    with pytest.raises(AdaptorError, match=said):
        MatryoshkaAdaptor.fit(
            clusters(1_000), dims=(4,), queries=clusters(80), judgements=judgements
        )
    with pytest.raises(AdaptorError, match="given together"):
        MatryoshkaAdaptor.fit(clusters(1_000), dims=(4,), queries=clusters(80))


def test_too_few_vectors_are_refused_with_the_number() -> None:
    with pytest.raises(AdaptorError, match="at least 1,000 are needed"):
        MatryoshkaAdaptor.fit(clusters(900), dims=(4,))


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"batch": 1}, {"rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(AdaptorError, match=next(iter(wrong))):
        Training(**wrong)


# Interrupted


@contextmanager
def interrupted_at(check: int) -> Iterator[None]:
    """Interrupt training when it asks what is held out for the given time."""
    checks = 0
    recall = HeldOut.recall

    def counted(*given: Any) -> Any:
        nonlocal checks
        checks += 1
        if checks == check:
            raise KeyboardInterrupt
        return recall(*given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HeldOut, "recall", counted)
        yield


def test_interrupted_training_goes_on_and_ends_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clusters(1_200)
    whole = MatryoshkaAdaptor.fit(vectors, dims=(4,), training=SHORT)
    file = tmp_path / "training.pt"
    resumable = replace(SHORT, checkpoint=file)
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        MatryoshkaAdaptor.fit(vectors, dims=(4,), training=resumable)
    assert file.exists()
    steps: list[int] = []
    called = loop._Losses.__call__

    def noted(losses: Any, made: Any, iteration: int) -> Any:
        steps.append(iteration)
        return called(losses, made, iteration)

    monkeypatch.setattr(loop._Losses, "__call__", noted)
    again = MatryoshkaAdaptor.fit(vectors, dims=(4,), training=resumable)
    assert steps[0] == 90  # after the last check that was saved, not from the beginning
    for name, array in whole.arrays.items():
        assert again.arrays[name] == pytest.approx(array, abs=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_or_half_of_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    resumable = Training(iterations=40, batch=8, check_every=10, checkpoint=file)
    start = RotationAdaptor.random(DIM)
    with interrupted_at(3), pytest.raises(KeyboardInterrupt):
        start.improved(scrambled(1_000), dims=(4,), training=resumable)
    with pytest.raises(AdaptorError, match="other vectors or settings"):
        start.improved(scrambled(1_000), dims=(8,), training=resumable)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(AdaptorError, match="no checkpoint that can be read"):
        start.improved(scrambled(1_000), dims=(4,), training=resumable)
