"""Fields, nestings and the making of prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nestvec import Field, Nesting, NestingError, nest
from nestvec.nesting import PRECISIONS

from ..vectors import nested_vectors


def test_fields_are_named_by_length_and_precision() -> None:
    nesting = Nesting.of((256, "64", "512:binary", "256:int8", "full:int8", "full:float16"), 1024)
    assert nesting.names == ("d512_binary", "d64", "d256_int8", "d256", "full_int8", "full")
    assert [field.nbytes for field in nesting.fields] == [64, 256, 256, 1024, 1024, 2048]
    assert nesting["d64"] is nesting["64"]
    assert nesting["256:int8"].name == "d256_int8"
    assert nesting.full == Field(1024, "float16", full=True)
    assert str(nesting) == "512:binary, 64, 256:int8, 256, full:int8 of 1024 (float16)"


def test_a_string_of_dims_is_as_good_as_a_tuple() -> None:
    assert Nesting.of("64, 256:int8,full:binary", 1024) == Nesting.of(
        ("full:binary", "256:int8", 64), 1024
    )


@st.composite
def nestings(draw: st.DrawFn) -> Nesting:
    dim = draw(st.integers(2, 5000))
    prefix = st.tuples(st.integers(1, dim - 1), st.sampled_from(sorted(PRECISIONS)))
    items = draw(st.lists(prefix, unique=True, max_size=5))
    dims = [f"{length}:{precision}" for length, precision in items]
    dims += draw(st.sets(st.sampled_from(["full:int8", "full:binary"]), min_size=not items))
    dims += draw(st.sampled_from([[], ["full:float16"]]))
    return Nesting.of(draw(st.permutations(dims)), dim)


@given(nestings())
def test_a_nesting_is_sorted_by_bytes_and_writes_itself(nesting: Nesting) -> None:
    sizes = [field.nbytes for field in nesting.fields[:-1]]
    assert sizes == sorted(sizes)
    assert nesting.names[-1] == "full"
    assert Nesting.of(nesting.dims, nesting.dim) == nesting
    for field in nesting.fields:
        assert nesting[field.name] is nesting[field.spec] is field


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 5), st.just(12)),
        elements=st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6),
    )
)
def test_every_row_of_every_field_is_the_direction_of_its_prefix(rows: Any) -> None:
    nesting = Nesting.of((3, 7), 12)
    if len(rows) and (rows[:, :3] == 0).all(axis=1).any():
        with pytest.raises(NestingError, match="row"):
            nest(rows, nesting)
        return
    for name, made in nest(rows, nesting).items():
        length = nesting[name].length
        assert made.shape == (len(rows), length)
        assert made.dtype == np.float32
        assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
        cut = rows[:, :length]
        expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(made, expected, atol=1e-6)


def test_a_prefix_is_made_unit_length_again() -> None:
    made = nest([[3.0, 4.0, 12.0]], Nesting.of((1, 2), 3))
    assert made["d1"].tolist() == [[1]]
    assert made["d2"][0] == pytest.approx([0.6, 0.8])
    assert made["full"][0] == pytest.approx([3 / 13, 4 / 13, 12 / 13])


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-30, 1e30, 1e160, 1e300])
def test_neither_huge_nor_tiny_vectors_lose_their_direction(scale: float) -> None:
    made = nest(np.array([[3.0, 4.0, 12.0], [0.0, 1.0, 0.0]]) * scale, Nesting.of((2,), 3))
    assert made["d2"] == pytest.approx(np.array([[0.6, 0.8], [0, 1]]))
    assert made["full"] == pytest.approx(np.array([[3 / 13, 4 / 13, 12 / 13], [0, 1, 0]]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1"])
def test_any_kind_of_number_will_do(dtype: str) -> None:
    rows = (np.abs(nested_vectors(4, 6)) * 50 + 1).astype(dtype)
    nesting = Nesting.of((2,), 6)
    expected = nest(rows.astype("f8"), nesting)
    for given_rows in (rows, rows.tolist(), list(rows), tuple(map(tuple, rows))):
        made = nest(given_rows, nesting)
        for name in made:
            np.testing.assert_allclose(made[name], expected[name], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2, 3], [1, np.inf, 3]], "row 1: vector has NaN or infinite"),
        ([[1, 2, 3], [0, 0, 0]], "row 1: vector is all zero"),
        ([[1, 2, 3], [0, 0, 1]], "row 1: the first 2 numbers"),
        ([[1, 2, 3], [1, 2]], "row 1: vector has 2 numbers, expected 3"),
        (np.ones((2, 4)), "row 0: vector has 4 numbers, expected 3"),
        ([[1, 2, 3], "abc"], "row 1: a vector is a flat sequence of numbers"),
        ([[1, 2, 3], None], "row 1: a vector is a flat sequence of numbers"),
        ([[1, 2, 3], [True, False, True]], "row 1: a vector is a flat sequence"),
        ([[1, 2, 3], [1, [2], 3]], "row 1: a vector is a flat sequence"),
        ([[1, 2, 3], [1.0, [2], 3]], "row 1: a vector is a flat sequence"),
        ([[1, 2, 3], [1.0, "2", 3]], "row 1: a vector is a flat sequence"),
        ([[1, 2, 3], [1.0, 10**400, 3]], "row 1: a vector is a flat sequence"),
        ([[1, 2, 3], [1.0, float("nan"), 3]], "row 1: vector has NaN or infinite"),
    ],
)
def test_rows_that_cannot_be_right_are_named(rows: Any, words: str) -> None:
    with pytest.raises(NestingError, match=words):
        nest(rows, Nesting.of((2,), 3))
