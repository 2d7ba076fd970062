"""Stages and funnels: how many candidates which field hands to the next."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .errors import FunnelError, NestingError
from .nesting import Field, Nesting

__all__ = ["Funnel", "Knobs", "Plan", "Stage", "default_funnel", "plan", "widened"]

_STAGE = re.compile(r"(?P<field>.+):(?P<limit>\d+)")
_KNOB = re.compile(r"(?P<name>[a-z]+)=(?P<value>[0-9.]+)")


#: No engine counts candidates in more than 32 bits.
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Stage:
    """One step before the last: a field, and how many candidates leave it."""

    field: str
    limit: int

    def __post_init__(self) -> None:
        check_count(f"stage {self.field!r}: limit", self.limit, 1)


@dataclass(frozen=True, slots=True)
class Knobs:
    """How the engine searches the first stage; None leaves a choice to the engine's backend.

    `ef` is how many nodes of a graph a search keeps in view, `probes` how many lists of an ivfflat
    index it reads. With `oversampling` so many times the stage's limit are found by a field's
    quantised numbers and rescored inside the field, by its own. What an engine does not have it
    does not look at.
    """

    ef: int | None = None
    probes: int | None = None
    oversampling: float | None = None

    def __post_init__(self) -> None:
        for name in ("ef", "probes"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)
        times = self.oversampling
        if times is not None and not 1 <= times <= 1_000:
            raise FunnelError(f"oversampling is a number from 1 to 1,000, got {times!r}")

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Knobs:
        """Return what texts such as `"ef=200"` say. Raises FunnelError."""
        given: dict[str, Any] = {}
        for text in texts:
            match = _KNOB.fullmatch(text)
            if match is None or match["name"] not in ("ef", "probes", "oversampling"):
                raise FunnelError(f"cannot read {text!r}; write ef=N, probes=N or oversampling=N")
            try:
                given[match["name"]] = (float if match["name"] == "oversampling" else int)(
                    match["value"]
                )
            except ValueError:
                raise FunnelError(f"cannot read the number in {text!r}") from None
        return cls(**given)

    def __str__(self) -> str:
        given = {"ef": self.ef, "probes": self.probes, "oversampling": self.oversampling}
        return " ".join(f"{name}={v:g}" for name, v in given.items() if v is not None)


@dataclass(frozen=True, slots=True)
class Funnel:
    """The stages before the last one; the last is always the full vector, and k leave it.

    Full is itself a stage only where there is no other field: then its graph is searched.

    Written as text it is `"64:200 256:40"`: 200 candidates leave the first 64 numbers, 40 leave
    the first 256, k leave full. A funnel without stages is `"exact"`, an exact scan of full.
    `"64:200 ef=400"` also says how the first stage is searched.
    """

    stages: tuple[Stage, ...]
    knobs: Knobs = Knobs()

    def __post_init__(self) -> None:
        for before, after in pairwise(self.stages):
            if after.limit > before.limit:
                raise FunnelError(
                    f"limits fall from stage to stage, but {after.field!r} asks for {after.limit} "
                    f"of the {before.limit} that leave {before.field!r}"
                )

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Funnel:
        """Return the funnel that a text such as `"64:200 256:40"` writes. Raises FunnelError."""
        words = [word for word in text.split() if "=" not in word]
        knobs = Knobs.parse([word for word in text.split() if "=" in word])
        if words == ["exact"]:
            if knobs != Knobs():
                raise FunnelError(f"funnel {text!r}: an exact scan has no {knobs}")
            return cls(())
        stages = []
        for word in words:
            match = _STAGE.fullmatch(word)
            if match is None:
                raise FunnelError(
                    f"cannot read {word!r} in funnel {text!r}; write FIELD:LIMIT, as in "
                    "'64:200 256:40', or 'exact'"
                )
            stages.append(Stage(match["field"], int(match["limit"])))
        if not stages:
            raise FunnelError("the funnel is empty; write '64:200', or 'exact'")
        return cls(tuple(stages), knobs)

    def __str__(self) -> str:
        stages = " ".join(f"{stage.field}:{stage.limit}" for stage in self.stages) or "exact"
        return f"{stages} {self.knobs}".strip()


@dataclass(frozen=True, slots=True)
class Plan:
    """A funnel that fits a nesting, for k hits after an offset: what a backend runs.

    `stages` pairs each field with its limit; it is empty for an exact scan. `given` says that this
    funnel was asked for, and is no default that an engine may cut to its limits.
    """

    stages: tuple[tuple[Field, int], ...]
    k: int
    offset: int = 0
    knobs: Knobs = Knobs()
    given: bool = field(default=True, compare=False)

    @property
    def limit(self) -> int:
        """How many leave the last stage before the offset is cut off."""
        return self.k + self.offset

    def __str__(self) -> str:
        stages = " ".join(f"{field.spec}:{limit}" for field, limit in self.stages) or "exact"
        return f"{stages} {self.knobs}".strip()


def default_funnel(nesting: Nesting, k: int) -> Funnel:
    """Return the plan for a collection that was not tuned: generous, and blind.

    One stage on the smallest field. For k = 10 it lets 200 candidates through for each time that
    the full vector is longer than the field, 1,000 at most, twice as many where the field is
    binary; for other k as the square root of k. Measured on 20,000 glosses: 64 of the 384 numbers
    of all-MiniLM-L6-v2, which was not trained for prefixes, need 1,000 for a recall of 0.95.
    """
    first = nesting.fields[0]
    times = nesting.dim / first.length * (2 if first.precision == "binary" else 1)
    limit = math.ceil(min(100.0, 20 * times) * math.sqrt(10 * max(k, 10)))
    return Funnel((Stage(first.name, min(_MOST, max(limit, 4 * k))),))


def widened(funnel: Funnel, k: int, wanted: int) -> Funnel:
    """Return a funnel that was made for k hits for a query of more: limits and ef grow with k."""
    if wanted <= k or not funnel.stages:
        return funnel

    def grown(limit: int) -> int:
        return min(_MOST, -(-limit * wanted // k))

    stages = tuple(Stage(stage.field, grown(stage.limit)) for stage in funnel.stages)
    knobs = funnel.knobs
    return Funnel(stages, knobs if knobs.ef is None else replace(knobs, ef=grown(knobs.ef)))


def plan(funnel: Funnel | str | None, nesting: Nesting, k: int, offset: int = 0) -> Plan:
    """Return the plan of a query, or raise FunnelError where no engine could run it."""
    k, offset = check_count("k", k, 1), check_count("offset", offset, 0)
    check_count("k + offset", k + offset, 1)
    if funnel is None:
        funnel = default_funnel(nesting, k + offset)
    elif isinstance(funnel, str):
        funnel = Funnel.parse(funnel)
    elif not isinstance(funnel, Funnel):
        raise FunnelError(f"a funnel is a Funnel or a text such as '64:200', got {type(funnel)}")
    return _planned(funnel, nesting, k, offset)


@lru_cache(maxsize=256)  # a program asks with few funnels, again and again
def _planned(funnel: Funnel, nesting: Nesting, k: int, offset: int) -> Plan:
    stages = tuple((_field(nesting, stage.field), stage.limit) for stage in funnel.stages)
    if stages and stages[-1][1] < k + offset:
        raise FunnelError(
            f"funnel {str(funnel)!r} ends with {stages[-1][1]} candidates, but k={k} with "
            f"offset={offset} needs {k + offset}; raise the limit of its last stage"
        )
    return Plan(stages, k, offset, funnel.knobs)


def _field(nesting: Nesting, name: str) -> Field:
    try:
        field = nesting[name]
    except NestingError as error:
        raise FunnelError(str(error)) from None
    if field is nesting.full and len(nesting.fields) > 1:
        raise FunnelError("the last stage is always 'full'; leave it out, or write 'exact'")
    return field


def check_count(name: str, value: Any, least: int) -> int:
    """Return a whole number that is at least `least`. Raises FunnelError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise FunnelError(f"{name} is a whole number, got {value!r}") from None
    if isinstance(value, bool) or number < least:
        raise FunnelError(f"{name} must be at least {least}, got {value}")
    if number > _MOST:
        raise FunnelError(f"{name} must be at most {_MOST}, got {value}")
    return number
