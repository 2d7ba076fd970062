"""What the command line shows to people: tables and progress bars, plain text when piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .adaptors.recall import Figures
from .embedders.profiles import Profile
from .records import Hit, Info, Trace

__all__ = [
    "brief", "counted", "figures", "hits", "info", "models", "one_line", "progress", "say", "share",
    "table", "trace", "trace_line",
]  # fmt: skip

#: Characters of a passage and of its metadata that a hit shows.
_SNIPPET, _METADATA = 140, 70


def _console(*, stderr: bool = False) -> Console:
    # What is shown came from documents: brackets and colons in it are no markup.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str = "", *, style: str = "") -> None:
    """Show one line; it is never wrapped, so that it can be copied."""
    _console().print(Text(text, style=style), soft_wrap=True)


def one_line(text: str, limit: int) -> str:
    """Return a text as one line of printable characters, cut where it is too long."""
    seen = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    line = " ".join(seen.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", overflow="fold",
            no_wrap=column in right,
        )  # fmt: skip
    return table


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Show rows of text under their columns; those named in `right` hold numbers."""
    made = _table(*columns, right=right)
    for row in rows:
        made.add_row(*row)
    _console().print(made)


def hits(found: Sequence[Hit]) -> None:
    """Show hits: score, id, the beginning of the text, and metadata."""
    if not found:
        say("no hits")
        return
    table = _table("score", "document", right=["score"])
    for hit in found:
        shown = Text(one_line(hit.id, 512), style="bold", overflow="fold")
        shown.append(f"\n{one_line(hit.text, _SNIPPET)}", style="not bold")
        if hit.metadata:
            shown.append(f"\n{_pairs(hit.metadata)}", style="not bold dim")
        table.add_row(f"{hit.score:.3f}", shown)
    _console().print(table)


def _pairs(metadata: Mapping[str, Any]) -> str:
    return one_line(" ".join(f"{key}={value}" for key, value in metadata.items()), _METADATA)


def brief(found: Sequence[Hit], *, key: str) -> None:
    """Show hits in one line each: score, one key of the metadata, the beginning of the text."""
    console = _console()
    values = [one_line(str(hit.metadata.get(key, "")), 20) for hit in found]
    width = max(map(len, values), default=0)
    for hit, value in zip(found, values, strict=True):
        line = Text.assemble(f"  {hit.score:.3f}  ", (f"{value:{width}}", "bold"), "  ")
        line.append(one_line(hit.text, _SNIPPET))
        console.print(line, no_wrap=True, overflow="ellipsis")


def trace(made: Trace) -> None:
    """Show the funnel of a query as a table, and the overlap with exact search."""
    table = _table("stage", "field", "in", "out", "ms", right=["stage", "in", "out", "ms"])
    for n, stage in enumerate(made.stages, 1):
        table.add_row(
            str(n), stage.field, f"{stage.candidates_in:,}", f"{stage.candidates_out:,}",
            f"{stage.milliseconds:.2f}",
        )  # fmt: skip
    _console().print(table)
    beside = "the collection allows no exact search beside it"
    if made.overlap is not None:
        beside = (
            f"exact search: {made.exact_milliseconds:.2f} ms; overlap with it: {made.overlap:.0%}"
        )
    say(f"funnel {made.funnel}: {made.milliseconds:.2f} ms; {beside}")
    if made.filter is not None:
        served = made.filter
        by = f"indexes on {', '.join(served.indexes)}" if served.indexes else "no index"
        say(f"filter: {served.matching:,} of {served.total:,} documents, by {by}; {served.method}")
    for warning in made.warnings:
        say(f"warning: {warning}", style="yellow")


def trace_line(made: Trace) -> None:
    """Show the funnel of a query in one line."""
    stages = ", ".join(
        f"{stage.field} {stage.candidates_in:,} → {stage.candidates_out:,}" for stage in made.stages
    )
    said = f"  funnel {stages} in {made.milliseconds:.1f} ms"
    if made.overlap is not None:
        said += f", overlap with exact search {made.overlap:.0%}"
    say(said, style="dim")


def figures(made: Figures) -> None:
    """Show what was measured of each prefix before and after adapting."""
    say(made.measure)
    table = _table("prefix", "before", "after", right=["prefix", "before", "after"])
    for row in made.rows:
        table.add_row(str(row.length), f"{row.before:.4f}", f"{row.after:.4f}")
    _console().print(table)


def info(known: Info) -> None:
    """Show what a collection knows of itself, and the bytes of each field."""
    say(f"collection {known.collection} in {known.url}", style="bold")
    made_by = f"embedder {known.embedder or 'none'}"
    if known.adaptor:
        made_by += f"; adaptor {known.adaptor}"
    say(f"{known.count:,} documents; {made_by}; funnel {known.funnel}; format {known.format}")
    say()
    table = _table("field", "numbers", "precision", "bytes", right=["numbers", "bytes"])
    for field in known.fields:
        table.add_row(field.name, str(field.length), field.precision, f"{field.nbytes:,}")
    _console().print(table)
    for key, kind in known.indexes.items():
        say(f"metadata index: {key} ({kind})")
    for text in known.warnings:
        say(f"warning: {text}", style="yellow")
    _named_values(known.engine, "")


def models(profiles: Sequence[Profile]) -> None:
    """Show the models that are known: their names to copy, and what is known of them."""
    for profile in profiles:
        say(profile.model, style="bold")
        remarks = f"; {profile.remarks}" if profile.remarks else ""
        say(f"  {profile.dim:,} numbers; prefixes trained: {profile.told}{remarks}")


def _named_values(values: Mapping[str, Any], within: str) -> None:
    """Show what an engine tells of itself, a line each, also of what is inside of it."""
    for key, value in values.items():
        name = f"{within}{key.replace('_', ' ') if not within else key}"
        if isinstance(value, Mapping):
            _named_values(value, f"{name} ")
        else:
            say(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")


@contextmanager
def progress(
    label: str, total: int | None, *, unit: str = "bytes"
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, where that is a terminal; yield what advances it."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda amount: shown.update(task, advance=amount)


@contextmanager
def share(label: str) -> Iterator[Callable[[str, float], None]]:
    """Show a bar of what share is done, and of what; yield what is told both."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _share: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(label, total=1.0)
        yield lambda what, done: shown.update(
            task, completed=done, description=f"{label}: {one_line(what, 40):40}"
        )


@contextmanager
def counted(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of how many of how many are done; yield what is told both."""
    with share(label) as told:
        yield lambda done, total: told(f"{done:,} of {total:,}", done / max(1, total))
