"""Pictures of measurements, in the format that a file's name says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from .errors import ConfigError, MissingExtra

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
except ModuleNotFoundError as error:
    raise MissingExtra("matplotlib", "plot") from error

__all__ = ["bars", "check", "lines", "points"]

Points = Sequence[tuple[float, float]]

#: Series differ by these too, for readers who tell colours apart less well.
_MARKERS = "osD^vPX"


def check(path: str | PathLike[str]) -> None:
    """Raise ConfigError where a file's name does not end as a picture's."""
    known = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise ConfigError(
            f"cannot draw {str(path)!r}: a picture's name ends with one of .{', .'.join(known)}"
        )


@contextmanager
def _axes(path: str | PathLike[str], width: float, height: float) -> Iterator[Axes]:
    """Give axes of so many inches to draw on, and save them. Raises ConfigError as `check` does."""
    check(path)
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure.add_subplot()
    figure.savefig(path, dpi=150)


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
    with _axes(path, 7, 4.5) as axes:
        every: list[float] = []
        for style, named in (("o-", series), ("^", marks or {})):
            for label, points in named.items():
                across, values = _columns(points)
                axes.plot(across, values, style, label=label)
                every += across
        ticks = sorted(set(every))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
        axes.minorticks_off()
        axes.set_title(title, fontsize="small")
        axes.set(xlabel=x, ylabel=y)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()


def points(
    path: str | PathLike[str],
    series: Mapping[str, Points],
    *,
    title: str,
    x: str,
    y: str,
    hollow: Mapping[str, Points] | None = None,
    front: tuple[str, Points] | None = None,
    chosen: tuple[str, tuple[float, float]] | None = None,
    level: tuple[str, float] | None = None,
    upper: bool = False,
) -> None:
    """Draw a cloud of points for each named series, over a logarithmic x.

    `hollow` holds points of the same series that are less sure. `front` is the upper right edge of
    what was reached, with its name, from left to right; `upper` joins the highest point at each x
    of a series. `chosen` is one point that stands out, `level` a value of y that is asked for. No
    display is needed. Raises ConfigError as `check` does.
    """
    with _axes(path, 8, 5) as axes:
        for n, (label, cloud) in enumerate(series.items()):
            colour, marker = f"C{n}", _MARKERS[n % len(_MARKERS)]
            axes.plot(*_columns(cloud), marker, color=colour, alpha=0.75, label=label)
            less = (hollow or {}).get(label, ())
            axes.plot(*_columns(less), marker, color=colour, alpha=0.6, fillstyle="none")
            if upper:
                highest = dict(sorted(cloud))  # of equal x the last, which is the highest
                axes.plot(*_columns(list(highest.items())), "-", color=colour, alpha=0.5)
        if any((hollow or {}).values()):
            axes.plot([], [], "o", color="grey", fillstyle="none", label="stopped early")
        if front is not None and front[1]:
            (_, best), *_ = front[1]
            across, values = _columns(front[1])
            axes.step([axes.get_xlim()[0], *across], [best, *values], "-", color="black",
                      alpha=0.6, linewidth=1.5, where="pre", label=front[0], zorder=1)  # fmt: skip
        if chosen is not None:
            axes.plot(*chosen[1], "*", color="red", markeredgecolor="black", markersize=16,
                      label=chosen[0])  # fmt: skip
        if level is not None:
            axes.axhline(level[1], linestyle="--", color="grey", label=level[0], zorder=1)
        axes.set_xscale("log")
        axes.margins(x=0.05, y=0.05)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title)
        axes.set(xlabel=x, ylabel=y)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(fontsize="small", loc="best")


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [at for at, _ in points], [value for _, value in points]


def bars(
    path: str | PathLike[str],
    values: Mapping[str, float],
    *,
    title: str,
    x: str,
    chosen: str,
    notes: Mapping[str, str],
) -> None:
    """Draw one bar for each named value with a note at its end, the chosen one in another colour.

    No display is needed. Raises ConfigError as `check` does.
    """
    with _axes(path, 8, 1.4 + 0.4 * len(values)) as axes:
        names = list(values)
        drawn = axes.barh(names, list(values.values()), color="tab:blue")
        for name, bar in zip(names, drawn, strict=True):
            if name == chosen:
                bar.set_color("tab:red")
        axes.bar_label(drawn, labels=[notes[name] for name in names], padding=4, fontsize="small")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.5 * max(values.values()))  # room for the notes
        axes.set_title(title)
        axes.set(xlabel=x)
