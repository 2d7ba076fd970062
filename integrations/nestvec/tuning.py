"""The plan is measured: the fastest or smallest one whose recall is certain enough, found live.

Queries are drawn or given, and answered exactly once. Some of them choose: plans are tried on the
live engine, each only as long as it may still win. The others certify: the plans that may be taken
are tested on them from the surest to the fastest, each at the full confidence, until one fails.
Such a fixed sequence needs no correction for the number of tests (Maurer, Hothorn and Lehmacher
1995; Angelopoulos et al. 2021), so the last plan that passed keeps the target as promised.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from os import PathLike
from typing import Any

import numpy as np

from .backends.base import Backend, Entry
from .certificate import Advice, Certificate, Trial, Tuned, least_queries, lower_bound
from .collection import Collection
from .errors import ConfigError
from .filter_forms import Where, as_filter
from .filters import Filter
from .flow import Flow
from .funnel import Funnel, Knobs, Plan, Stage, check_count, plan
from .queries import given, naming
from .sizing import hot_bytes
from .truth import Answer, Asked, exact_answers

__all__ = ["Progress", "tune"]

#: Told what is being done, and the share of the budget or of the work that is done, from 0 to 1.
Progress = Callable[[str, float], None]

#: Queries that choose, and that certify, where they are drawn from the collection.
_CHOOSING, _CERTIFYING = 200, 1_000

#: The share of queries that are given which choose, and how many are taken at most, or three times
#: as many as the target needs.
_SHARE, _GIVEN = 0.3, 4_000

#: A plan is looked at after so many queries, and again after each as many more.
_ROUND = 20

#: After so many it is clear whether a field takes far longer to read than others; and how much
#: longer is far.
_GLANCE, _SLOWER = 4, 1.5

#: What share of the time for trying is for fields with an index, where others have none.
_INDEXED_SHARE = 0.8

#: From step to step limits grow by a third, and the knob of a graph or of lists too.
_STEP = 4 / 3

#: The most candidates that are tried, in steps of k and as a number.
_MOST_TIMES, _MOST = 200, 4_000

#: How many plans certification goes through, from the surest to the fastest.
_LADDER = 6

#: Until which share of the budget queries are embedded and answered exactly, and what is kept for
#: the comparison of the best plans and for certification.
_EMBED_SHARE, _EXACT_SHARE, _COMPARE_SHARE, _CERTIFY_SHARE = 0.2, 0.35, 0.1, 0.3

#: Until which share certification is planned to end, since times are no more than estimates; and by
#: how much it may take longer rather than certify on too few queries.
_SAFE, _OVER = 0.93, 0.25

#: How many of the best plans are compared on all choosing queries, beside some surer ones.
_FINALISTS = 8


def tune(
    collection: Collection,
    target_recall: float = 0.99,
    k: int = 10,
    queries: Iterable[Any] | PathLike[str] | None = None,
    *,
    confidence: float = 0.95,
    budget_s: float = 60.0,
    optimise: str = "speed",
    where: Where | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Flow[Tuned]:
    """Measure plans on this collection and make the best one its default; return it.

    The best is the fastest (`optimise="speed"`) or the one that wants the fewest bytes in memory
    (`"memory"`) whose recall of the exact best k is at least `target_recall` with this
    `confidence`, on queries that had no part in choosing it. `queries` are texts, images, vectors,
    or dicts with `query` and `where` for what is asked with a filter; or the `pathlib.Path` of a
    file of them, such as a log (`nestvec.queries.given` says in which form). A query that is
    there more than once counts once. None draws documents as queries, each of which is left out of
    its own answer. `where` is a filter for all queries.

    Where no plan reaches the target the result says so (`reached`, `advice`), and the collection
    keeps the plan that it had. It takes about `budget_s` seconds. Nothing is written but the plan.
    What is drawn, how queries are split, their exact answers and the bound follow from `seed` and
    the documents; which plan wins also follows from the times that were measured.

    Raises ConfigError on what cannot be asked for, and what `search` raises.
    """
    goal = _Goal(target_recall, check_count("k", k, 1), confidence, optimise, seed)
    if not budget_s > 0:
        raise ConfigError(f"budget_s is a number of seconds above 0, got {budget_s!r}")
    run = _Run(collection, goal, _Clock(float(budget_s), progress or (lambda *_: None)))
    tuned = yield from run.tuned(queries, as_filter(where))
    if tuned.reached:
        yield from collection.remember(tuned)
    run.clock.tell("done", 1.0)
    return tuned


@dataclass(frozen=True, slots=True)
class _Goal:
    """What is asked for."""

    target: float
    k: int
    confidence: float
    optimise: str
    seed: int

    def __post_init__(self) -> None:
        for name, value in (("target_recall", self.target), ("confidence", self.confidence)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ConfigError(f"{name} is a share between 0 and 1, got {value!r}")
        if self.optimise not in ("speed", "memory"):
            raise ConfigError(f"optimise is 'speed' or 'memory', got {self.optimise!r}")


class _Clock:
    """The budget: what is left of it, and who is told."""

    def __init__(self, budget: float, progress: Progress) -> None:
        self.budget, self._progress = budget, progress
        self._started = time.perf_counter()

    @property
    def spent(self) -> float:
        """Return seconds since the start."""
        return time.perf_counter() - self._started

    def until(self, share: float) -> float:
        """Return the seconds left until a share of the budget is spent."""
        return self.budget * share - self.spent

    def tell(self, what: str, share: float | None = None) -> None:
        """Tell what is being done, and how much of the budget is spent."""
        self._progress(what, min(0.99, self.spent / self.budget) if share is None else share)


class _Tried:
    """A plan, and what was measured of it: the recall and milliseconds of each query asked.

    Beside each of its times is that of a reference plan for the same query a moment before or
    after, so that what else the machine does weighs on both alike.
    """

    def __init__(self, funnel: Funnel, memory: int) -> None:
        self.funnel, self.memory = funnel, memory
        self.recalls: list[float] = []
        self.times: list[float] = []
        self.beside: list[float] = []

    @property
    def n(self) -> int:
        """How many queries were asked."""
        return len(self.recalls)

    @property
    def recall(self) -> float:
        return statistics.fmean(self.recalls)

    @property
    def pace(self) -> float:
        """Its time as a multiple of the reference plan's; a quarter are as fast or faster."""
        if not self.times:
            return math.inf
        return float(np.quantile(self.times, 0.25) / np.quantile(self.beside, 0.25))

    @property
    def candidates(self) -> int:
        """How many are read from the first field."""
        if not self.funnel.stages:
            return 0
        return math.ceil(self.funnel.stages[0].limit * (self.funnel.knobs.oversampling or 1))

    def spread(self) -> float:
        """Return about three standard errors of the recall, and never 0."""
        return 3 * (statistics.pstdev(self.recalls) + 1 / self.n) / math.sqrt(self.n)


class _Run:
    """One tuning: the queries with their answers, and the plans that were tried."""

    def __init__(self, collection: Collection, goal: _Goal, clock: _Clock) -> None:
        self.collection, self.goal, self.clock = collection, goal, clock
        self.backend: Backend = collection.backend
        self.nesting = collection.nesting
        self.tried: dict[str, _Tried] = {}
        self.choosing: list[Answer] = []
        self.certifying: list[Answer] = []
        self.notes: list[str] = []
        self.engine, self.count, self.source = "", 0, "given"
        #: The plan that every other one is timed beside.
        self.reference: Funnel | None = None
        self.reference_times: list[float] = []
        #: Plans beside the best that find more.
        self.surer: set[str] = set()
        #: Whether there was no time to try everything that one would.
        self.cut = False

    def tuned(self, queries: Any, where: Filter | None) -> Flow[Tuned]:
        self.engine = str((yield from self.backend.info())["engine"])
        self.count = yield from self.backend.count(None)
        if not self.count:
            raise ConfigError("there is nothing to tune: the collection is empty")
        yield from self._ask(queries, where)
        entries = yield from self.backend.entries()
        indexed = [entry for entry in entries if entry.indexed] or entries[:1]
        self.reference = _Grid(indexed[0], self.goal.k, self.count).at(0, 0)
        exact = self._new(Funnel(()))
        for answer in self.choosing[:_ROUND] if self.backend.scans else ():
            if exact.n > 2 and self.clock.until(_EXACT_SHARE) < 0:
                break
            yield from self._ask_both(answer, exact)
        # Those with an index first: they are what others have to beat, and take most of the time.
        others = [entry for entry in entries if entry not in indexed]
        begun, ends = self.clock.spent / self.clock.budget, 1 - _CERTIFY_SHARE - _COMPARE_SHARE
        share = (ends - begun) * (_INDEXED_SHARE if others else 1.0) / len(indexed)
        for i, entry in enumerate(indexed, 1):
            yield from self._explore(entry, begun + share * i)
        for entry in others:
            if not (yield from self._too_slow(entry)):
                yield from self._explore(entry, ends)
        made = yield from self._certified()
        if made.reached:
            return made
        return replace(made, advice=(yield from self._advice(exact)))

    # Queries

    def _ask(self, queries: Any, where: Filter | None) -> Flow[None]:
        self.clock.tell("drawing queries")
        if queries is None:
            asked = yield from self._drawn(where)
            self.source = "collection"
        else:
            asked = yield from self._given(queries, where)
        answers = yield from exact_answers(
            self.collection, asked, self.goal.k,
            seconds=max(1.0, self.clock.until(_EXACT_SHARE)),
            tell=lambda: self.clock.tell("exact answers"),
        )  # fmt: skip
        if len(answers) < len(asked):
            self.notes.append(
                f"{len(answers)} of {len(asked)} queries were answered exactly within the budget "
                "and have an answer"
            )
        if len(answers) < 2:
            raise ConfigError(
                f"{len(answers)} of {len(asked)} queries have an exact answer; at least 2 are "
                "needed: one to choose by and one to certify"
            )
        share = _CHOOSING / (_CHOOSING + _CERTIFYING) if self.source == "collection" else _SHARE
        split = max(1, min(round(len(answers) * share), 2 * _CHOOSING))
        self.choosing, self.certifying = answers[:split], answers[split:]
        needed = least_queries(self.goal.target, self.goal.confidence)
        if len(self.certifying) < needed:
            most = lower_bound([1.0] * len(self.certifying), self.goal.confidence)
            self.notes.append(
                f"{len(self.certifying)} queries are left to certify, which shows a recall of at "
                f"most {most:.4f}; {self.goal.target:g} needs {needed} of them or more"
            )

    def _drawn(self, where: Filter | None) -> Flow[list[Asked]]:
        """Draw documents as queries; each knows its id, to be left out of its own answer."""
        wanted = min(self.count, _CHOOSING + _CERTIFYING)
        records = yield from self.backend.sample(wanted, self.goal.seed)
        records = [record for record in records if record.vector is not None]
        rows = self.collection.nested([r.vector for r in records], [r.id for r in records])
        return [
            Asked({name: matrix[i] for name, matrix in rows.items()}, where, record.id)
            for i, record in enumerate(records)
        ]

    def _given(self, queries: Any, where: Filter | None) -> Flow[list[Asked]]:
        """Return queries that were given, in the order of the seed, each but once."""
        listed, unread = given(queries, where)
        if unread:
            self.notes.append(f"not read of the queries: {', '.join(unread)}")
        order = np.random.default_rng(self.goal.seed).permutation(len(listed))
        most = max(_GIVEN, 3 * least_queries(self.goal.target, self.goal.confidence))
        asked: dict[tuple[str | bytes, str], Asked] = {}
        for n, query in enumerate(listed[i] for i in order):
            if len(asked) == most or (len(asked) > 1 and self.clock.until(_EMBED_SHARE) < 0):
                why = "more would add little" if len(asked) == most else "the budget ended there"
                self.notes.append(f"{n:,} of {len(listed):,} queries were drawn; {why}")
                break
            text, only = query.query, repr(query.where)
            if isinstance(text, str) and (text, only) in asked:
                continue
            with naming(query.place):
                vectors = yield from self.collection.vectors(text)
            key = text if isinstance(text, str) else vectors["full"].tobytes()
            asked.setdefault((key, only), Asked(vectors, query.where, None))
            self.clock.tell("embedding queries")
        else:
            n = len(listed)
        if len(asked) < n:
            self.notes.append(f"{n - len(asked):,} queries are repeated; each counts once")
        return list(asked.values())

    # Trying

    def _explore(self, entry: Entry, end: float) -> Flow[None]:
        """Look for the best plans that begin with one field, until `end` of the budget.

        More candidates and a larger ef find more and take longer. So the fewest candidates are
        sought where ef is ample, then the least ef for these, and from there on the neighbours:
        some more of the one for some less of the other. Then a stage in between is tried.
        """
        ways = [False, True] if entry.oversampling and entry.field.full else [False]
        for inside in ways:
            grid = _Grid(entry, self.goal.k, self.count, inside=inside)
            at = yield from self._corner(grid, end)
            if at is None:
                continue
            at = yield from self._climb(grid, at, end)
            for more in (1, 2, 4):  # what certification may fall back on
                surer = grid.at(at[0] + more, at[1] + more)
                self._new(surer)
                self.surer.add(str(surer))
            yield from self._between(entry, self._new(grid.at(*at)), end)

    def _too_slow(self, entry: Entry) -> Flow[bool]:
        """Return whether reading a field from end to end takes longer than a plan that is enough.

        The field may still be the smaller one.
        """
        enough = self._passing()
        if not enough:
            return False
        best = min(enough, key=self._cost)
        least = self._new(_Grid(entry, self.goal.k, self.count).at(0, 0))
        for answer in self.choosing[least.n : _GLANCE]:
            yield from self._ask_both(answer, least)
        smaller = self.goal.optimise == "memory" and least.memory < best.memory
        return least.pace > _SLOWER * best.pace and not smaller

    def _corner(self, grid: _Grid, end: float) -> Flow[tuple[int, int] | None]:
        """Return the fewest candidates with the largest knob, then the least knob for them."""
        i, j = len(grid.limits) - 1, len(grid.knobs) - 1
        if not (yield from self._good(grid.at(i, j), end)):
            return None
        i = yield from self._least(lambda i: grid.at(i, j), i + 1, end)
        i = min(len(grid.limits) - 1, i + 1)  # a few more make room for a smaller knob
        return i, (yield from self._least(lambda j: grid.at(i, j), j + 1, end))

    def _least(self, made: Callable[[int], Funnel], count: int, end: float) -> Flow[int]:
        """Return the first of plans, ever surer ones, that is good; the last one is."""
        low, high = 0, count - 1
        while low < high:
            middle = (low + high) // 2
            if (yield from self._good(made(middle), end)):
                high = middle
            else:
                low = middle + 1
        return low

    def _climb(self, grid: _Grid, at: tuple[int, int], end: float) -> Flow[tuple[int, int]]:
        """Walk to better neighbours as long as there are any; return where that ends."""
        moves = ((-1, 0), (0, -1), (-1, 1), (1, -1), (2, -1), (-1, 2), (-2, 1), (1, -2))
        seen = {at}
        yield from self._good(grid.at(*at), end)
        while True:
            for move in moves:
                there = (at[0] + move[0], at[1] + move[1])
                if there in seen or not grid.has(*there):
                    continue
                seen.add(there)
                good = yield from self._good(grid.at(*there), end)
                if good and self._new(grid.at(*there)).pace < self._new(grid.at(*at)).pace:
                    at = there
                    break
            else:
                return at

    def _between(self, entry: Entry, best: _Tried, end: float) -> Flow[None]:
        """Let a later field, or the first field's own numbers, thin out the candidates."""
        first, knobs = best.funnel.stages[0], replace(best.funnel.knobs, oversampling=None)
        makers: list[Callable[[int, int], Funnel]] = []
        for other in filter(self.backend.thins, self.nesting.fields[:-1]):
            if other.nbytes > entry.field.nbytes and not (other.full and entry.field.full):
                name = other.name
                makers.append(
                    lambda many, few, name=name: Funnel(  # type: ignore[misc]
                        (Stage(first.field, many), Stage(name, few)), knobs
                    )
                )
        if entry.oversampling and not entry.field.full:
            times = entry.most_oversampling or math.inf
            makers.append(
                lambda many, few: Funnel(
                    (Stage(first.field, few),), replace(knobs, oversampling=min(times, many / few))
                )
            )
        most = entry.most or sys.maxsize
        for make in makers:
            for more in (1, _STEP**2):
                many = min(most, math.ceil(best.candidates * more))
                few = [limit for limit in _steps(self.goal.k, many) if limit < many]
                if few and (yield from self._good(make(many, few[-1]), end)):
                    at = yield from self._least(lambda i: make(many, few[i]), len(few), end)  # noqa: B023
                    self.surer.add(str(make(many, few[min(len(few) - 1, at + 1)])))

    def _good(self, funnel: Funnel, end: float) -> Flow[bool]:
        """Return whether a plan meets the target on the choosing queries, as far as one can see.

        After `end` of the budget nothing new is tried.
        """
        tried = self._new(funnel)
        if not tried.n and self.clock.until(end) < 0 and self._funnels():
            self.cut = True
            return False
        if not tried.n:
            yield from self._look(tried, end)
        return tried.n > 0 and tried.recall >= self.goal.target - (
            tried.spread() if tried.n < len(self.choosing) and not self._hopeless(tried) else 0
        )

    def _funnels(self) -> list[_Tried]:
        """Return what was tried, but for the exact scan."""
        return [tried for tried in self.tried.values() if tried.n and tried.funnel.stages]

    def _new(self, funnel: Funnel) -> _Tried:
        """Return the plan with what was measured of it so far."""
        name = str(funnel)
        if name not in self.tried:
            self.tried[name] = _Tried(funnel, self._memory(funnel))
        return self.tried[name]

    def _look(self, tried: _Tried, end: float) -> Flow[None]:
        """Ask the choosing queries by a plan, until it is clear whether it may win.

        After `end` of the budget what was begun has to do.
        """
        self.clock.tell(f"trying {tried.funnel}")
        yield from self._ask_both(self.choosing[0], tried, warm=True)
        best = min((t.pace for t in self._passing()), default=math.inf)
        while tried.n < len(self.choosing):
            for answer in self.choosing[tried.n : tried.n + _ROUND]:
                yield from self._ask_both(answer, tried)
            sure = tried.recall - tried.spread() > self.goal.target
            late = self.clock.until(end) < 0
            if self._hopeless(tried) or sure or late or tried.pace > _SLOWER * best:
                return

    def _ask_both(self, answer: Answer, tried: _Tried, *, warm: bool = False) -> Flow[None]:
        """Ask a query by a plan and by the reference plan."""
        assert self.reference is not None
        pair = [_Tried(self.reference, 0), _Tried(tried.funnel, 0)]
        for one in pair:
            yield from self._time(answer, self._plan(one.funnel), one)
        if not warm:  # the first pays for what is cold
            self.reference_times += pair[0].times
            tried.beside += pair[0].times
            tried.times += pair[1].times
            tried.recalls += pair[1].recalls

    def _time(self, answer: Answer, steps: Plan, tried: _Tried) -> Flow[None]:
        if answer.asked.id is not None:
            steps = _with_one_more(steps)
        started = time.perf_counter()
        hits = yield from self.backend.search(answer.asked.queries, steps, answer.asked.where)
        tried.times.append((time.perf_counter() - started) * 1000)
        tried.recalls.append(answer.recall(hits))

    def _plan(self, funnel: Funnel) -> Plan:
        return plan(funnel, self.nesting, self.goal.k)

    def _hopeless(self, tried: _Tried) -> bool:
        return tried.recall + tried.spread() < self.goal.target

    def _passing(self) -> list[_Tried]:
        """Return the plans that met the target so far."""
        return [tried for tried in self._funnels() if tried.recall >= self.goal.target]

    def _cost(self, tried: _Tried) -> tuple[float, float]:
        """Return what is to be small."""
        return (tried.memory if self.goal.optimise == "memory" else 0, tried.pace)

    def _memory(self, funnel: Funnel) -> int:
        fields = [self.nesting[stage.field] for stage in funnel.stages] or [self.nesting.full]
        return hot_bytes(self.engine, fields, self.count)

    # Certifying

    def _finalists(self) -> Flow[list[_Tried]]:
        """Return what to certify, the surest first: each found no less than the next.

        What may win is asked all choosing queries, in turns, so that times can be compared.
        """
        near = [
            t for t in self.tried.values()
            if t.funnel.stages and (str(t.funnel) in self.surer or (t.n and not self._hopeless(t)))
        ]  # fmt: skip
        known = sorted((t for t in near if t.n), key=self._cost)[:_FINALISTS]
        chosen = known + [t for t in near if str(t.funnel) in self.surer and t not in known]
        for _ in self.choosing:
            if self.clock.until(1 - _CERTIFY_SHARE) < 0:
                break
            self.clock.tell("comparing the best")
            for tried in chosen:
                if tried.n < len(self.choosing):
                    yield from self._ask_both(self.choosing[tried.n], tried)
        asked = [t for t in chosen if t.n]
        front: list[_Tried] = []
        for tried in sorted(asked, key=self._cost):
            if not front or tried.recall > front[-1].recall:
                front.append(tried)
        front.reverse()
        hopeful = [t for t in front if t.recall >= self.goal.target] or front[:1]
        return hopeful

    def _certified(self) -> Flow[Tuned]:
        """Return the best plan that keeps the target on queries that it has not seen."""
        exact = self._new(Funnel(()))
        front = yield from self._finalists()
        funnels = self._funnels()
        if self._exact_is_best(exact, front or funnels):
            front = [exact]
            self.notes.append(
                f"an exact scan of {self.count:,} documents is faster than any other plan that "
                "finds enough; tune again when there are many more"
            )
        if self.cut:
            self.notes.append(
                "the budget ended before all plans were tried; a larger budget_s may find a better "
                "one"
            )
        ladder = _spread(front or [max(funnels, key=lambda t: t.recall)], _LADDER)
        needed = least_queries(self.goal.target, self.goal.confidence)
        least = _ROUND if ladder == [exact] else min(len(self.certifying), 2 * needed)
        # Where there is no time for all, those that take most of it go, and the surest stays.
        left = self.clock.until(_SAFE)
        quick = [tried for tried in ladder if self._seconds([tried], least) < left / 2]
        ladder = quick or [min(ladder, key=self._milliseconds)]
        while len(ladder) > 1 and self._seconds(ladder, least) > left:
            ladder = _spread(ladder, len(ladder) - 1) if len(ladder) > 2 else ladder[:1]
        if ladder != [exact] and self._seconds(ladder, least) > self.clock.until(1 + _OVER):
            least = min(least, needed)
        fitting = int(self.clock.until(1) / self._seconds(ladder, 1))
        asked = self.certifying[: _CHOOSING if ladder == [exact] else max(fitting, least)]
        seen = [_Tried(tried.funnel, tried.memory) for tried in ladder]
        for n, answer in enumerate(asked):
            if n >= least and self.clock.until(1) < 0:
                break
            self.clock.tell("certifying", 0.7 + 0.3 * n / len(asked))
            for tried in seen:
                yield from self._time(answer, self._plan(tried.funnel), tried)
        made = [self._certificate(tried) for tried in seen]
        passed = made[: next((i for i, m in enumerate(made) if not m.reached), len(made))]
        if passed:
            best = min(passed, key=_cost_of(self.goal.optimise))
        else:
            best = max(made, key=lambda m: m.certificate.recall if m.certificate else 0)
        trials = [self._trial(tried) for tried in self.tried.values() if tried.n]
        trials.sort(key=lambda trial: trial.p50)
        return replace(best, trials=tuple(trials), notes=tuple(self.notes))

    def _exact_is_best(self, exact: _Tried, others: Sequence[_Tried]) -> bool:
        """Return whether an exact scan, which finds everything by definition, beats the others."""
        return self._cost(exact) <= min(map(self._cost, others))

    def _seconds(self, plans: Sequence[_Tried], queries: int) -> float:
        """Return about how long it takes to ask plans so many queries."""
        return sum(map(self._milliseconds, plans)) * queries / 1000

    def _milliseconds(self, tried: _Tried) -> float:
        return tried.pace * statistics.median(self.reference_times)

    def _trial(self, tried: _Tried) -> Trial:
        return Trial(
            tried.funnel, tried.recall, self._milliseconds(tried), tried.n, tried.memory,
            tried.candidates, tried.n == len(self.choosing),
        )  # fmt: skip

    def _certificate(self, tried: _Tried) -> Tuned:
        exact = not tried.funnel.stages  # finds everything by definition
        certificate = Certificate(
            k=self.goal.k, target=self.goal.target, confidence=self.goal.confidence,
            recall=tried.recall,
            bound=1.0 if exact else lower_bound(tried.recalls, self.goal.confidence),
            n=tried.n, p50=statistics.median(tried.times),
            p95=float(np.quantile(tried.times, 0.95)),
            qps=1000 / statistics.fmean(tried.times), memory=tried.memory,
            documents=self.count, source=self.source, seed=self.goal.seed,
            measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip
        return Tuned(tried.funnel.stages, tried.funnel.knobs, certificate)

    # Where nothing reaches the target

    def _advice(self, exact: _Tried) -> Flow[tuple[Advice, ...]]:
        from .reach import reach

        self.clock.tell("looking for what would reach the target", 0.99)
        advice = yield from reach(
            self.collection, self.choosing, k=self.goal.k, target=self.goal.target,
            engine=self.engine, count=self.count, seed=self.goal.seed,
        )  # fmt: skip
        if self.backend.scans:
            scan = Advice("an exact scan", 'funnel="exact"', None, 0, self._trial(exact).p50)
            advice = [scan, *advice]
        return tuple(advice)


def _steps(least: int, most: int) -> list[int]:
    """Return whole numbers from least to most that grow by a third or so."""
    made = [least]
    while made[-1] < most:
        made.append(min(most, max(made[-1] + 1, round(made[-1] * _STEP))))
    return made


class _Grid:
    """The plans of one field: ever more candidates one way, an ever surer index the other."""

    def __init__(self, entry: Entry, k: int, count: int, *, inside: bool = False) -> None:
        self.entry, self.k, self.inside = entry, k, inside
        most = min(max(_MOST, 2 * k), k * _MOST_TIMES, count)
        times = entry.most_oversampling if inside else None
        for limit in (entry.most_ef, entry.most, None if times is None else int(k * times)):
            most = most if limit is None else min(most, limit)
        self.limits = _steps(k, max(most, k))
        self.knobs = [Knobs()]
        if entry.most_ef is not None:
            widest = min(entry.most_ef, 1_024)
            self.knobs = [Knobs(ef=ef) for ef in _steps(min(max(16, k), widest), widest)]
        elif entry.lists is not None:
            self.knobs = [Knobs(probes=probes) for probes in _steps(1, entry.lists)]

    def has(self, i: int, j: int) -> bool:
        """Return whether there is such a plan."""
        return 0 <= i < len(self.limits) and 0 <= j < len(self.knobs)

    def at(self, i: int, j: int) -> Funnel:
        """Return a plan; past the end it is the last one."""
        limit = self.limits[min(i, len(self.limits) - 1)]
        knobs = self.knobs[min(j, len(self.knobs) - 1)]
        name = self.entry.field.name
        if not self.inside:
            return Funnel((Stage(name, limit),), knobs)
        return Funnel((Stage(name, self.k),), replace(knobs, oversampling=limit / self.k))


def _with_one_more(steps: Plan) -> Plan:
    stages = tuple((field, limit + 1) for field, limit in steps.stages)
    knobs = steps.knobs
    if knobs.oversampling is not None and stages:
        limit = stages[0][1]
        times = (knobs.oversampling * (limit - 1) + 1) / limit
        knobs = replace(knobs, oversampling=max(1.0, times))
    return Plan(stages, steps.k + 1, steps.offset, knobs)


def _cost_of(optimise: str) -> Callable[[Tuned], tuple[float, float]]:
    def cost(made: Tuned) -> tuple[float, float]:
        assert made.certificate is not None
        return (made.certificate.memory if optimise == "memory" else 0, made.certificate.p50)

    return cost


def _spread(items: Sequence[_Tried], count: int) -> list[_Tried]:
    """Return at most so many items, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
