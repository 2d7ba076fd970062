"""What `nestvec tune` reads and shows, and `nestvec size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import console
from .certificate import Trial, Tuned
from .sizing import Size

__all__ = ["show", "show_faults", "show_sizes", "told"]

#: How many other plans are shown.
_SHOWN = 8

#: How many documents with faults are shown.
_FAULTS = 20


def show_sizes(count: int, dim: int, found: Sequence[Size]) -> None:
    """Show estimates as a table."""
    console.say(f"{count:,} documents of {dim:,} numbers, estimated")
    numbers = ("hot", "in memory", "on disk")
    console.table(
        ("engine", "what", *numbers, "indexing"), [_row(made) for made in found], right=numbers
    )
    console.say(
        "hot: what must be in memory for speed; in memory: for no read of the disk at all; "
        "indexing: on one core",
        style="dim",
    )


def _row(made: Size) -> tuple[str, ...]:
    what = ",".join(made.dims) if made.what == "nested" else made.what
    numbers = (_bytes(made.hot), _bytes(made.memory), _bytes(made.disk))
    return (made.engine, what, *numbers, made.build)


def _bytes(count: float) -> str:
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def show_faults(found: Mapping[str, Sequence[str]]) -> None:
    """Show the documents that have faults, some of them by name."""
    if not found:
        console.say("every document has all of its fields, as they should be")
        return
    rows = [(id, "; ".join(faults)) for id, faults in list(found.items())[:_FAULTS]]
    console.table(("document", "lacking or wrong"), rows)
    more = len(found) - len(rows)
    noun = "document" if len(found) == 1 else "documents"
    console.say(f"{len(found):,} {noun}" + (f", {more:,} of them not shown" if more else ""))


def told(tuned: Tuned, drawn: Sequence[Path]) -> dict[str, Any]:
    """Return a tuning as plain JSON."""
    assert tuned.certificate is not None
    return {
        "funnel": str(tuned),
        "reached": tuned.reached,
        "certificate": asdict(tuned.certificate),
        "trials": [{**asdict(trial), "funnel": str(trial.funnel)} for trial in tuned.trials],
        "advice": [asdict(advice) for advice in tuned.advice],
        "notes": list(tuned.notes),
        "plots": [str(path) for path in drawn],
    }


def show(tuned: Tuned, drawn: Sequence[Path]) -> None:
    """Show a tuning: the plan, its certificate, what else was tried, and what would do more."""
    made = tuned.certificate
    assert made is not None
    if tuned.reached:
        console.say(f"funnel {tuned}: the collection's default now", style="bold")
    else:
        console.say(
            f"no plan reaches a recall@{made.k} of {made.target:g}; the best is {tuned}",
            style="bold yellow",
        )
    console.say(
        f"recall@{made.k} {made.recall:.4f}, at least {made.bound:.4f} with {made.confidence:.0%} "
        f"confidence, over {made.n:,} queries ({_SOURCES[made.source]})"
    )
    console.say(
        f"p50 {made.p50:.2f} ms, p95 {made.p95:.2f} ms, {made.qps:,.0f} queries a second by one "
        f"client; hot {_bytes(made.memory)} of {made.documents:,} documents"
    )
    for note in tuned.notes:
        console.say(f"note: {note}", style="yellow")
    if tuned.advice:
        _show_advice(tuned)
    console.say()
    console.table(
        ("also tried", "recall", "p50 ms", "hot"),
        [
            (str(t.funnel), f"{t.recall:.4f}", f"{t.p50:.2f}", _bytes(t.memory))
            for t in _shown(tuned)
        ],
        right=("recall", "p50 ms", "hot"),
    )
    for path in drawn:
        console.say(f"drawn: {path}")


def _shown(tuned: Tuned) -> list[Trial]:
    """Return the fastest other plans that found enough, or where none did the surest."""
    assert tuned.certificate is not None
    target = tuned.certificate.target
    whole = [trial for trial in tuned.trials if trial.whole and trial.funnel.stages]
    enough = [trial for trial in whole if trial.recall >= target]
    return (enough or sorted(whole, key=lambda trial: -trial.recall))[:_SHOWN]


def _show_advice(tuned: Tuned) -> None:
    console.say()
    console.table(
        ("what would reach it", "candidates", "more memory", "p50 ms", "how"),
        [
            (
                advice.what,
                "" if advice.candidates is None else f"{advice.candidates:,}",
                "" if advice.memory is None else _bytes(advice.memory),
                "" if advice.p50 is None else f"{advice.p50:.2f}",
                advice.how,
            )
            for advice in tuned.advice
        ],
        right=("candidates", "more memory", "p50 ms"),
    )


_SOURCES = {"collection": "documents of the collection", "given": "given"}
