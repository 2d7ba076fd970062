"""Pictures of measurements: lines over prefix lengths, as PNG or as the file's name asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from .errors import ConfigError, MissingExtra

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise MissingExtra("matplotlib", "plot") from error

__all__ = ["lines"]


def lines(
    path: str | PathLike[str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x: str,
    y: str,
) -> None:
    """Draw one line for each named series of points over a logarithmic x; no display is needed.

    Raises ConfigError where the name's ending is no format of pictures.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    if Path(path).suffix.lstrip(".").lower() not in known:
        raise ConfigError(f"{path}: a picture ends with one of .{', .'.join(sorted(known))}")
    axes = figure.add_subplot()
    for label, points in series.items():
        axes.plot([at for at, _ in points], [value for _, value in points], "o-", label=label)
    ticks = sorted({at for points in series.values() for at, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
    axes.minorticks_off()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
