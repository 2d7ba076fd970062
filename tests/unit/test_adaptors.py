"""Adaptors by themselves: what is fitted, what is kept on disk, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from nestvec import AdaptorError, NestingError
from nestvec.adaptors import MatryoshkaAdaptor, RotationAdaptor, load, recall_by_prefix
from nestvec.adaptors.base import blocks
from nestvec.adaptors.recall import Split
from nestvec.nesting import Matrix

from ..vectors import HashEmbedder, nested_vectors

DIM = 24


def scrambled(n: int, seed: int = 0, dim: int = DIM) -> Matrix:
    """Return vectors whose prefixes say little: nested ones, rotated at random."""
    mixing = RotationAdaptor.random(dim, seed=9).arrays["rotation"]
    return np.asarray(nested_vectors(n, dim, seed=seed, decay=1.0) @ mixing)


def network(dim: int = DIM) -> MatryoshkaAdaptor:
    rng = np.random.default_rng(3)
    shapes = {"w1": (dim, dim), "b1": (dim,), "w2": (dim, dim), "b2": (dim,)}
    return MatryoshkaAdaptor.from_arrays(
        {name: rng.normal(0, 0.3, shape).astype("f4") for name, shape in shapes.items()}
    )


# The rotation


@pytest.mark.parametrize("dim", [2, 24, 384])
def test_a_rotation_is_orthogonal_and_keeps_full_cosines(dim: int) -> None:
    vectors = scrambled(2 * dim + 10, dim=dim)
    rotation = RotationAdaptor.fit(vectors)
    matrix = rotation.arrays["rotation"].astype(np.float64)
    assert np.abs(matrix.T @ matrix - np.eye(dim)).max() < 1e-5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    adapted = rotation.apply(vectors * 3)
    assert np.abs(adapted @ adapted.T - unit @ unit.T).max() < 1e-5
    assert np.abs(rotation.undo(adapted) - unit).max() < 1e-5
    assert rotation.apply(vectors[0]) == pytest.approx(adapted[0], abs=1e-6)


def test_the_first_numbers_keep_most_of_the_products() -> None:
    vectors = scrambled(500)
    adapted = RotationAdaptor.fit(vectors).apply(vectors)
    energy = (adapted**2).sum(axis=0)
    assert (np.diff(energy) <= 1e-3).all()  # the largest first
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    singular = np.linalg.svd(unit, compute_uv=False) ** 2
    assert energy == pytest.approx(singular, rel=1e-3)


def test_it_is_not_centred() -> None:
    # All vectors lean to one side: centring would throw the first direction away.
    vectors = scrambled(400) + 3
    adapted = RotationAdaptor.fit(vectors).apply(vectors)
    assert np.abs(adapted[:, 0]).min() > 0.9


def test_prefixes_find_more_of_vectors_that_were_not_fitted_on() -> None:
    rotation = RotationAdaptor.fit(scrambled(2_000))
    made = recall_by_prefix(
        scrambled(1_000, seed=1), scrambled(50, seed=2), (4, 8), after=rotation, candidates=50
    )
    assert [row.length for row in made.rows] == [4, 8]
    assert all(row.after > row.before + 0.1 for row in made.rows)
    assert "top 10 from 50 candidates, 50 queries over 1,000 documents" in str(made)


def test_recall_is_what_a_slow_count_says() -> None:
    documents, queries = scrambled(80), scrambled(7, seed=1)
    made = recall_by_prefix(documents, queries, (5,), k=4, candidates=9)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    short = documents[:, :5] / np.linalg.norm(documents[:, :5], axis=1, keepdims=True)
    found = 0
    for query in queries:
        exact = set(np.argsort(-(unit @ query))[:4])
        found += len(exact & set(np.argsort(-(short @ query[:5]))[:9]))
    assert made.rows[0].before == pytest.approx(found / 28)
    assert made.rows[0].after == made.rows[0].before


# Streaming


def batches(vectors: Matrix, sizes: list[int]) -> Iterator[Matrix]:
    start = 0
    while start < len(vectors):
        size = sizes[start % len(sizes)]
        yield vectors[start : start + size]
        start += size


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=5))
def test_a_rotation_fitted_in_a_stream_is_the_one_fitted_at_once(sizes: list[int]) -> None:
    vectors = nested_vectors(9_500, 6)
    at_once = RotationAdaptor.fit(vectors)
    streamed = RotationAdaptor.fit(batches(vectors, sizes))
    assert streamed.name == at_once.name  # to the last bit


def test_vectors_one_by_one_and_from_a_file_are_as_good(tmp_path: Path) -> None:
    vectors = scrambled(5_000)
    np.save(tmp_path / "v.npy", vectors)
    names = {
        RotationAdaptor.fit(given).name
        for given in (
            vectors, (row for row in vectors), vectors.tolist(),
            np.load(tmp_path / "v.npy", mmap_mode="r"),
        )
    }  # fmt: skip
    assert len(names) == 1


def test_a_stream_of_any_length_takes_the_same_memory() -> None:
    def peak(parts: int) -> int:
        split = Split(blocks(nested_vectors(5_000, 32, seed=i) for i in range(parts)))
        tracemalloc.start()
        RotationAdaptor.fit(split)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(24) < 1.2 * peak(6)


def test_what_is_held_out_is_not_fitted_on_and_nothing_is_lost() -> None:
    vectors = nested_vectors(30_000, 4)
    split = Split(blocks(vectors), seed=1)
    rows = np.concatenate(list(split))
    held = np.concatenate([split.held.queries, split.held.documents])
    assert (split.seen, split.fitted, len(held)) == (30_000, 24_000, 6_000)
    every = {row.tobytes() for row in np.concatenate([rows, held])}
    assert every == {row.tobytes() for row in np.concatenate(list(blocks(vectors)))}
    places = {row.tobytes(): i for i, row in enumerate(np.concatenate(list(blocks(vectors))))}
    middle = np.mean([places[row.tobytes()] for row in held])
    assert 14_000 < middle < 16_000  # a uniform sample


# What cannot be fitted


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((100, DIM)), r"needs at least 24 different vectors, got 1 among 100; 240 are"),
        (nested_vectors(23, DIM), r"needs at least 24 different vectors, got 23 among 23"),
        (np.tile(nested_vectors(5, DIM), (50, 1)), r"got 5 among 250"),
        (np.empty((0, DIM)), "no vectors to fit on"),
        ([], "no vectors to fit on"),
        (np.zeros((50, DIM)), "vector 0: vector is all zero"),
        (np.ones(DIM), r"\(n, dim\) matrix, got 1 dimensions"),
        (17, "iterable of vectors"),
        ([[1.0, 2.0], [1.0]], "all of one width"),
        (["ab", "cd"], "flat sequences of numbers"),
        ([np.ones((3, 4)), np.ones((3, 5))], "vector 3: vector has 5 numbers, expected 4"),
    ],
)
def test_what_cannot_be_fitted_is_named(vectors: Any, said: str) -> None:
    with pytest.raises(AdaptorError, match=said):
        RotationAdaptor.fit(vectors)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_with_nan_is_named_wherever_it_is(bad: float) -> None:
    vectors = scrambled(9_000)
    vectors[8_765, 3] = bad
    with pytest.raises(AdaptorError, match=r"vector 8765: .*NaN or infinite.*nothing was fitted"):
        RotationAdaptor.fit(vectors)
    with pytest.raises(NestingError, match="vector 8765"):
        RotationAdaptor.fit(scrambled(100)).apply(vectors)


def test_a_vector_of_another_width_is_named() -> None:
    with pytest.raises(NestingError, match="23 numbers, expected 24"):
        RotationAdaptor.fit(scrambled(100)).apply(np.ones((4, 23)))


def test_a_matrix_that_does_not_rotate_is_refused() -> None:
    with pytest.raises(AdaptorError, match="orthonormal columns"):
        RotationAdaptor(np.eye(4) * 1.01)
    with pytest.raises(AdaptorError, match="square"):
        RotationAdaptor(np.ones((4, 3)))
    with pytest.raises(AdaptorError, match="NaN"):
        RotationAdaptor(np.full((4, 4), np.nan))
    with pytest.raises(AdaptorError, match="cannot be undone"):
        network().undo(np.ones(DIM))


def test_too_small_a_sample_to_hold_out_of_names_the_number() -> None:
    with pytest.raises(AdaptorError, match=r"500 vectors of 24 .*at least 1,000 are needed"):
        list(Split([scrambled(500)]))
    with pytest.raises(AdaptorError, match="at least 2,500 are needed"):
        list(Split([nested_vectors(1_500, 1_000)]))


@pytest.mark.parametrize("dims", [(), (0,), (24,), (4, 99)])
def test_dims_are_shorter_than_the_vectors(dims: tuple[int, ...]) -> None:
    with pytest.raises(AdaptorError, match="between 1 and 23"):
        recall_by_prefix(scrambled(200), scrambled(5), dims)


def test_more_candidates_than_documents_are_refused() -> None:
    with pytest.raises(AdaptorError, match="candidates=100"):
        recall_by_prefix(scrambled(50), scrambled(5), (4,))


# Texts


def test_texts_are_embedded_and_the_model_is_kept_in_mind(tmp_path: Path) -> None:
    texts = [f"word{n} and word{n * 7 % 31}" for n in range(300)]
    embedder = HashEmbedder(8)
    adaptor = RotationAdaptor.fit_texts((text for text in texts), embedder)
    assert max(embedder.calls) <= 256
    assert adaptor == RotationAdaptor.fit(embedder.embed_documents(texts))
    adaptor.save(tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").embedder == "hash"
    with pytest.raises(AdaptorError, match="text 1 is blank"):
        RotationAdaptor.fit_texts(["a", " "], embedder)
    with pytest.raises(AdaptorError, match="got one string"):
        RotationAdaptor.fit_texts("a text", embedder)


# On disk


@pytest.fixture(params=["rotation", "matryoshka"])
def adaptor(request: pytest.FixtureRequest) -> Any:
    return RotationAdaptor.fit(scrambled(100)) if request.param == "rotation" else network()


def test_it_comes_back_as_it_was_saved(adaptor: Any, tmp_path: Path) -> None:
    file = tmp_path / "adaptor.safetensors"
    adaptor.save(file)
    again = load(file)
    assert type(again) is type(adaptor)
    assert (again, again.name, again.about) == (adaptor, adaptor.name, adaptor.about)
    assert type(adaptor).load(str(file)) == adaptor
    vectors = scrambled(5)
    assert (again.apply(vectors) == adaptor.apply(vectors)).all()
    with safetensors.safe_open(file, "numpy") as opened:
        head = json.loads(opened.metadata()["nestvec"])
    assert (head["kind"], head["dim"], head["format"]) == (adaptor.kind, DIM, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["adaptor.safetensors"]


def test_the_name_is_a_hash_of_the_numbers() -> None:
    one, other = RotationAdaptor.random(8, seed=1), RotationAdaptor.random(8, seed=2)
    assert one.name == RotationAdaptor.random(8, seed=1).name != other.name
    assert one.name.startswith("rotation-")
    assert one != other
    assert len({one, other, RotationAdaptor.random(8, seed=1)}) == 2
    with pytest.raises(ValueError, match="read-only"):
        one.arrays["rotation"][0, 0] = 1


def test_another_kind_is_told_apart(tmp_path: Path) -> None:
    network().save(tmp_path / "a")
    with pytest.raises(AdaptorError, match="holds a MatryoshkaAdaptor, not a RotationAdaptor"):
        RotationAdaptor.load(tmp_path / "a")


def test_a_file_cut_anywhere_is_refused(adaptor: Any, tmp_path: Path) -> None:
    file = tmp_path / "adaptor.safetensors"
    adaptor.save(file)
    whole = file.read_bytes()
    for end in [0, 4, 8, 60, 300, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:end])
        with pytest.raises(AdaptorError, match="no whole safetensors file"):
            load(file)


def test_a_changed_number_is_noticed(adaptor: Any, tmp_path: Path) -> None:
    file = tmp_path / "adaptor.safetensors"
    adaptor.save(file)
    whole = bytearray(file.read_bytes())
    whole[-4] ^= 1
    file.write_bytes(whole)
    with pytest.raises(AdaptorError, match="changed after it was written"):
        load(file)


def test_other_files_are_no_adaptors(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"rotation": np.eye(4, dtype="f4")}, file)
    with pytest.raises(AdaptorError, match="not written by nestvec"):
        load(file)
    head = {"format": 2, "kind": "rotation", "dim": 4, "embedder": None, "about": {}, "sha256": ""}
    written = {"nestvec": json.dumps(head)}
    safetensors.numpy.save_file({"rotation": np.eye(4, dtype="f4")}, file, metadata=written)
    with pytest.raises(AdaptorError, match=r"of format 2, this nestvec reads .* upgrade"):
        load(file)
    with pytest.raises(AdaptorError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


def test_layers_that_do_not_fit_are_refused() -> None:
    arrays = dict(network().arrays)
    with pytest.raises(AdaptorError, match="two layers are w1, b1, w2, b2"):
        MatryoshkaAdaptor.from_arrays({"w1": arrays["w1"]})
    with pytest.raises(AdaptorError, match="have the shapes"):
        MatryoshkaAdaptor.from_arrays({**arrays, "b1": np.zeros(3, "f4")})
    with pytest.raises(AdaptorError, match="not one of 24 numbers"):
        MatryoshkaAdaptor.from_arrays({**arrays, "rotation": np.eye(4, dtype="f4")})


def test_a_save_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "adaptor.safetensors"
    network().save(file)
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        RotationAdaptor.random(4).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["adaptor.safetensors"]


def test_fitting_and_applying_need_no_torch(tmp_path: Path) -> None:
    network().save(tmp_path / "network")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, nestvec\n"
        "from nestvec.adaptors import MatryoshkaAdaptor, RotationAdaptor, load\n"
        "vectors = np.random.default_rng(0).standard_normal((2000, 24))\n"
        "RotationAdaptor.fit(vectors).apply(vectors)\n"
        "load(sys.argv[1]).apply(vectors)\n"
        "try:\n    MatryoshkaAdaptor.fit(vectors, dims=(4,))\n"
        "except nestvec.MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "network")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "torch is not installed; run: pip install 'nestvec[torch]'\n"
