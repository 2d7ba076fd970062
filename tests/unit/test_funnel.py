"""Funnels: read, written, checked against a nesting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvec import Funnel, FunnelError, Nesting, Stage
from nestvec.funnel import default_funnel, plan

NESTING = Nesting.of((64, "256:int8", "full:binary"), 1024)

limits = st.lists(st.integers(1, 10**6), max_size=5).map(lambda n: sorted(n, reverse=True))
names = st.sampled_from(["d64", "64", "256:int8", "d256_int8", "full_binary", "full:binary"])
funnels = limits.flatmap(
    lambda falling: st.tuples(*(st.builds(Stage, names, st.just(n)) for n in falling))
).map(Funnel)


@given(funnels)
def test_a_funnel_reads_what_it_writes(funnel: Funnel) -> None:
    assert Funnel.parse(str(funnel)) == funnel


@given(funnels, st.integers(1, 100), st.integers(0, 100))
def test_a_plan_lets_enough_through_or_is_refused(funnel: Funnel, k: int, offset: int) -> None:
    if funnel.stages and funnel.stages[-1].limit < k + offset:
        with pytest.raises(FunnelError, match=f"needs {k + offset}"):
            plan(funnel, NESTING, k, offset)
        return
    made = plan(funnel, NESTING, k, offset)
    assert [limit for _, limit in made.stages] == [stage.limit for stage in funnel.stages]
    assert made.limit == k + offset


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_the_default_plan_always_fits(k: int, offset: int) -> None:
    for dims in ((64,), ("256:binary",), ("full:int8",), (2, 4)):
        nesting = Nesting.of(dims, 1024)
        made = plan(None, nesting, k, offset)
        assert made.stages[0][1] >= k + offset
        assert made.stages[0][0] is nesting.fields[0]


def test_fewer_bits_let_more_through() -> None:
    wide = default_funnel(Nesting.of(("full:int8",), 1024), 100).stages[0].limit
    narrow = default_funnel(Nesting.of((64,), 1024), 100).stages[0].limit
    assert narrow > wide


def test_exact_has_no_stages() -> None:
    assert Funnel.parse(" exact ") == Funnel(())
    assert str(Funnel(())) == "exact"
    assert plan("exact", NESTING, 10).stages == ()


def test_limits_may_stay_but_not_rise() -> None:
    Funnel((Stage("d64", 10), Stage("d256_int8", 10)))
    with pytest.raises(FunnelError, match="'d256_int8' asks for 11 of the 10 that leave 'd64'"):
        Funnel((Stage("d64", 10), Stage("d256_int8", 11)))
