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

__all__ = ["bars", "check", "lines", "points"]

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


def points(
    path: str | PathLike[str],
    series: Mapping[str, Points],
    *,
    title: str,
    x: str,
    y: str,
    joined: tuple[str, Points] | None = None,
    chosen: tuple[str, tuple[float, float]] | None = None,
    level: tuple[str, float] | None = None,
) -> None:
    """Draw a cloud of points for each named series, over a logarithmic x.

    `joined` is a line with its name, `chosen` one point that stands out, `level` a value of y that
    is asked for. No display is needed. Raises ConfigError as `check` does.
    """
    check(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, cloud in series.items():
        axes.plot([at for at, _ in cloud], [v for _, v in cloud], "o", alpha=0.6, label=label)
    if joined is not None:
        axes.step([at for at, _ in joined[1]], [v for _, v in joined[1]], "k-", alpha=0.5,
                  where="pre", label=joined[0])  # fmt: skip
    if chosen is not None:
        axes.plot(*chosen[1], "r*", markersize=15, label=chosen[0])
    if level is not None:
        axes.axhline(level[1], linestyle="--", color="grey", label=level[0])
    axes.set_xscale("log")
    axes.set_title(title, fontsize="small")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def bars(
    path: str | PathLike[str], values: Mapping[str, float], *, title: str, x: str, chosen: str
) -> None:
    """Draw one bar for each named value, the chosen one in another colour.

    No display is needed. Raises ConfigError as `check` does.
    """
    check(path)
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    names = list(values)
    drawn = axes.barh(names, list(values.values()), color="tab:blue")
    for name, bar in zip(names, drawn, strict=True):
        if name == chosen:
            bar.set_color("tab:red")
    axes.bar_label(drawn, fmt="{:,.1f}", padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(title, fontsize="small")
    axes.set(xlabel=x)
    figure.savefig(path, dpi=150)
