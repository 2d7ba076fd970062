"""Pictures of measurements: lines over prefix lengths, in the format that a file's name says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from .errors import ConfigError, MissingExtra

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise MissingExtra("matplotlib", "plot") from error

__all__ = ["check", "lines"]

Points = Sequence[tuple[float, float]]


def check(path: str | PathLike[str]) -> None:
    """Raise ConfigError where a file's name does not end as a picture's."""
    known = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise ConfigError(
            f"cannot draw {str(path)!r}: a picture's name ends with one of .{', .'.join(known)}"
        )


def lines(
    path: str | PathLike[str],
    series: Mapping[str, Points],
    *,
    title: str,
    x: str,
    y: str,
    marks: Mapping[str, Points] | None = None,
) -> None:
    """Draw a line for each named series, and `marks` as points, over a logarithmic x.

    No display is needed. Raises ConfigError as `check` does.
    """
    check(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    every: list[float] = []
    for style, named in (("o-", series), ("^", marks or {})):
        for label, points in named.items():
            across = [at for at, _ in points]
            axes.plot(across, [value for _, value in points], style, label=label)
            every += across
    ticks = sorted(set(every))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
    axes.minorticks_off()
    axes.set_title(title, fontsize="small")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
