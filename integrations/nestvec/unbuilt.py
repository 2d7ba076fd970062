"""Indexes that could not be built of what is stored: told once, recorded, and tried again.

What is stored is reported as stored, whatever fails after it. An engine that could not build an
index, or could not settle what was written, tells so here and goes on.
"""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from inspect import currentframe

from .errors import IndexWarning

__all__ = ["Unbuilt"]

#: Seconds until a build that failed is tried again by itself, and until it is at most.
_PAUSE, _LONGEST_PAUSE = 60.0, 3_600.0

#: A build that took long is tried again after so many times as long.
_PATIENCE = 20


class Unbuilt:
    """The indexes that one store could not build, each with a text that says why and what to do."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._pauses: dict[str, tuple[float, float]] = {}
        self._told: set[str] = set()

    @property
    def texts(self) -> tuple[str, ...]:
        """What there is to say, for `Info.warnings`; empty once all are built."""
        return tuple(dict(self._texts).values())

    def failed(self, index: str, reason: object, command: str, *, took: float = 0.0) -> None:
        """Record that an index could not be built, and warn of it if that was not done yet.

        `command` is what the user can run; `took` are the seconds until it failed. Where warnings
        are errors it is only recorded: what is stored must not look as if it were not.
        """
        text = (
            f"index {index} could not be built: {reason}; what was added is stored, and searches "
            f"are slower or less exact until it is there: run {command}"
        )
        self._texts[index] = text
        last = self._pauses.get(index, (0.0, 0.0))[0]
        pause = min(_LONGEST_PAUSE, max(_PAUSE, 2 * last, _PATIENCE * took))
        self._pauses[index] = (pause, time.monotonic() + pause)
        if index in self._told:
            return
        self._told.add(index)
        with suppress(IndexWarning):
            warnings.warn(text, IndexWarning, stacklevel=_outside())

    def built(self, index: str) -> None:
        """Forget what was said of an index: it is there now."""
        self._texts.pop(index, None)
        self._pauses.pop(index, None)

    def is_due(self, index: str) -> bool:
        """Return whether an index is to be built by itself, so long after it last failed."""
        return time.monotonic() >= self._pauses.get(index, (0.0, 0.0))[1]


def _outside() -> int:
    """Return the `stacklevel` by which a warning names the caller's line, not one of nestvec's."""
    package = __name__.partition(".")[0]
    level, frame = 0, currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
