"""The bound of a certificate: what it is where it is known, and how often it holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from nestvec import certificate
from nestvec.certificate import least_queries, lower_bound


def test_perfect_queries_do_not_show_a_perfect_plan() -> None:
    """A standard error of 0 would."""
    for n in (30, 100, 600):
        assert lower_bound([1.0] * n, 0.95) == pytest.approx(0.05 ** (1 / n), abs=1e-3)


def test_all_or_nothing_gives_the_bound_of_clopper_and_pearson() -> None:
    # Beta(s, n - s + 1) quantiles at 0.05.
    for hits, n, expected in ((98, 100, 0.93839), (45, 50, 0.80119), (590, 600, 0.97187)):
        assert lower_bound([1.0] * hits + [0.0] * (n - hits), 0.95) == pytest.approx(
            expected, abs=1e-3
        )


def test_hits_of_one_query_are_not_pooled() -> None:
    """The same mean over the same number of queries is less sure where queries fail as a whole."""
    apart = [1.0] * 475 + [0.8] * 25
    together = [1.0] * 495 + [0.0] * 5
    assert np.mean(apart) == pytest.approx(np.mean(together))
    assert lower_bound(together, 0.95) < lower_bound(apart, 0.95) - 0.003


def test_more_confidence_is_a_lower_bound() -> None:
    recalls = [1.0] * 290 + [0.5] * 10
    bounds = [lower_bound(recalls, confidence) for confidence in (0.5, 0.9, 0.95, 0.99)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] < np.mean(recalls)
    assert lower_bound(recalls, 0.95) == lower_bound(recalls, 0.95)


def test_how_many_queries_a_target_needs() -> None:
    assert least_queries(0.99, 0.95) == 299
    assert lower_bound([1.0] * 299, 0.95) >= 0.99 - 2e-4
    assert lower_bound([1.0] * 280, 0.95) < 0.99


@pytest.mark.parametrize("name", ["binomial", "rare zeros", "rare halves", "uneven queries"])
def test_the_bound_holds_as_often_as_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 samples of 120 queries: a bound that holds at 0.95 does in more than 0.91 of them."""
    monkeypatch.setattr(certificate, "_DRAWS", 2_000)
    rng = np.random.default_rng(11)
    draws: dict[str, Callable[[], npt.NDArray[np.float64]]] = {
        "binomial": lambda: rng.binomial(10, 0.98, 120) / 10,
        "rare zeros": lambda: np.where(rng.random(120) < 0.02, 0.0, 1.0),
        "rare halves": lambda: np.where(rng.random(120) < 0.04, 0.5, 1.0),
        "uneven queries": lambda: rng.binomial(10, rng.beta(4.9, 0.1, 120)) / 10,
    }
    held = [lower_bound(draws[name]().tolist(), 0.95) <= 0.98 for _ in range(300)]
    assert np.mean(held) > 0.91
