"""The pictures of a tuning: recall against speed, recall against candidates, memory by plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import plots
from .certificate import Certificate, Trial, Tuned

__all__ = ["draw"]

#: Each picture is drawn as both.
_FORMATS = (".png", ".svg")

#: How many plans the picture of memory shows.
_PLANS = 12


def draw(tuned: Tuned, directory: Path) -> list[Path]:
    """Draw what was measured into a directory, and return the files.

    Raises MissingExtra without matplotlib.
    """
    assert tuned.certificate is not None
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for suffix in _FORMATS:
        for name, draw_one in (
            ("recall-qps", _speed), ("recall-candidates", _candidates), ("memory", _memory)
        ):  # fmt: skip
            path = directory / f"{name}{suffix}"
            draw_one(path, tuned, tuned.certificate)
            drawn.append(path)
    return drawn


def _speed(path: Path, tuned: Tuned, certificate: Certificate) -> None:
    series, hollow = _by_first(tuned, lambda trial: 1000 / trial.p50)
    point = (1000 / _time(tuned, certificate), certificate.recall)
    whole = [xy for cloud in series.values() for xy in cloud]
    plots.points(
        path,
        series,
        hollow=hollow,
        title=f"Speed and recall of {len(tuned.trials)} plans, {certificate.documents:,} documents",
        x="queries a second, one client (1 / median time)",
        y=f"recall@{certificate.k}",
        front=("Pareto front", _front([*whole, point])),
        chosen=(f"{'chosen' if tuned.reached else 'best'}: {tuned}", point),
        level=(f"target {certificate.target:g}", certificate.target),
    )


def _candidates(path: Path, tuned: Tuned, certificate: Certificate) -> None:
    series, hollow = _by_first(tuned, lambda trial: float(trial.candidates))
    series.pop("exact", None)
    plots.points(
        path,
        series,
        hollow=hollow,
        title="Candidates of the first field and recall",
        x="candidates that leave the first field",
        y=f"recall@{certificate.k}",
        upper=True,
        level=(f"target {certificate.target:g}", certificate.target),
    )


def _memory(path: Path, tuned: Tuned, certificate: Certificate) -> None:
    good = [trial for trial in tuned.trials if trial.recall >= certificate.target]
    best: dict[tuple[str, ...], Trial] = {}
    for trial in sorted(good, key=lambda trial: trial.p50):
        best.setdefault(tuple(stage.field for stage in trial.funnel.stages), trial)
    shown = sorted(best.values(), key=lambda trial: trial.memory)[:_PLANS]
    values = {str(trial.funnel): (trial.memory / 1e6, trial.p50) for trial in shown}
    values[str(tuned)] = (certificate.memory / 1e6, _time(tuned, certificate))
    values = dict(sorted(values.items(), key=lambda item: item[1]))
    plots.bars(
        path,
        {name: size for name, (size, _) in values.items()},
        title=f"Memory of plans with a recall of {certificate.target:g}, the fastest by fields",
        x="MB that must be in memory for speed",
        chosen=str(tuned),
        notes={name: f"{size:,.1f} MB, {p50:,.1f} ms" for name, (size, p50) in values.items()},
    )


def _time(tuned: Tuned, certificate: Certificate) -> float:
    """Return milliseconds of the chosen plan, measured as those of the plans beside it were."""
    own = (trial.p50 for trial in tuned.trials if str(trial.funnel) == str(tuned))
    return next(own, certificate.p50)


Clouds = dict[str, list[tuple[float, float]]]


def _by_first(tuned: Tuned, x: Callable[[Trial], float]) -> tuple[Clouds, Clouds]:
    """Return points by first field: of plans that were asked everything, and of the others."""
    whole: Clouds = {}
    others: Clouds = {}
    for trial in sorted(tuned.trials, key=lambda trial: trial.memory):
        exact = not trial.funnel.stages
        name = "exact" if exact else trial.funnel.stages[0].field
        whole.setdefault(name, [])  # both in the same order
        (whole if trial.whole or exact else others).setdefault(name, []).append(
            (x(trial), trial.recall)
        )
    return whole, others


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both, from slow to fast."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]
