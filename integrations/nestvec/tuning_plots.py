"""The pictures of a tuning: recall against speed, recall against candidates, memory by plan."""

from __future__ import annotations

from collections.abc import Mapping
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
    plots.points(
        path,
        _by_first(tuned, lambda trial: 1000 / trial.p50),
        title=f"{len(tuned.trials)} plans, {certificate.documents:,} documents, one client",
        x="queries a second (1 / p50)",
        y=f"recall@{certificate.k}",
        joined=("Pareto front", _front(tuned.trials)),
        chosen=(str(tuned), (1000 / certificate.p50, certificate.recall)),
        level=("target", certificate.target),
    )


def _candidates(path: Path, tuned: Tuned, certificate: Certificate) -> None:
    plots.points(
        path,
        _by_first(tuned, lambda trial: float(trial.candidates)),
        title="what the first field lets through, and what is found among it",
        x="candidates of the first field",
        y=f"recall@{certificate.k}",
        level=("target", certificate.target),
    )


def _memory(path: Path, tuned: Tuned, certificate: Certificate) -> None:
    good = [trial for trial in tuned.trials if trial.recall >= certificate.target]
    best: dict[tuple[str, ...], Trial] = {}
    for trial in sorted(good, key=lambda trial: trial.p50):
        best.setdefault(tuple(stage.field for stage in trial.funnel.stages), trial)
    shown = sorted(best.values(), key=lambda trial: trial.memory)[:_PLANS]
    values = {str(tuned): certificate.memory / 1e6}
    values |= {str(trial.funnel): trial.memory / 1e6 for trial in shown}
    plots.bars(
        path,
        dict(sorted(values.items(), key=lambda item: item[1])),
        title="what has to be in memory for speed, of plans that found enough",
        x="MB",
        chosen=str(tuned),
    )


def _by_first(tuned: Tuned, x: object) -> Mapping[str, list[tuple[float, float]]]:
    assert callable(x)
    found: dict[str, list[tuple[float, float]]] = {}
    for trial in tuned.trials:
        if trial.funnel.stages:
            name = trial.funnel.stages[0].field
            found.setdefault(name, []).append((x(trial), trial.recall))
    return found


def _front(trials: tuple[Trial, ...]) -> list[tuple[float, float]]:
    """Return the trials that no other one beats in both, from slow to fast."""
    front: list[tuple[float, float]] = []
    for trial in sorted(trials, key=lambda trial: trial.p50):
        if not front or trial.recall > front[-1][1]:
            front.append((1000 / trial.p50, trial.recall))
    return front[::-1]
