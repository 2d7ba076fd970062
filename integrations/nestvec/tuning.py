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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from .backends.base import Backend, Entry
from .certificate import Advice, Certificate, Trial, Tuned, least_queries, lower_bound
from .collection import Collection
from .errors import ConfigError, RecordError
from .filter_forms import Where, as_filter
from .filters import Filter
from .flow import Flow
from .funnel import Funnel, Knobs, Plan, Stage, check_count, plan
from .nesting import Field, nest
from .records import Hit
from .sizing import hot_bytes
from .truth import Answer, Asked, exact_answers

__all__ = ["Progress", "tune"]

#: Told what is being done, and the share of the budget or of the work that is done, from 0 to 1.
Progress = Callable[[str, float], None]

#: Queries that choose, and that certify, where they are drawn from the collection.
_CHOOSING, _CERTIFYING = 200, 1_000

#: The share of queries that are given which choose.
_SHARE = 0.3

#: A plan is looked at after so many queries, and again after each as many more.
_ROUND = 20

#: From step to step limits grow by a third, and the knob of a graph or of lists too.
_STEP = 4 / 3

#: The most candidates that are tried, in steps of k and as a number.
_MOST_TIMES, _MOST = 200, 4_000

#: How many plans certification goes through, from the surest to the fastest.
_LADDER = 6

#: What of the budget goes to exact answers, and what is kept for certification.
_EXACT_SHARE, _CERTIFY_SHARE = 0.35, 0.3


def tune(
    collection: Collection,
    target_recall: float = 0.99,
    k: int = 10,
    queries: Iterable[Any] | None = None,
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
    `confidence`, on queries that had no part in choosing it. `queries` are texts or vectors, or
    dicts with `query` and `where` where they are asked with a filter; None draws documents as
    queries, each of which is left out of its own answer. `where` is a filter for all queries.

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


@dataclass(slots=True)
class _Tried:
    """A plan, and what was measured of it: the recall and milliseconds of each query asked."""

    funnel: Funnel
    memory: int
    recalls: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    whole: bool = False

    @property
    def recall(self) -> float:
        return statistics.fmean(self.recalls)

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    @property
    def candidates(self) -> int:
        """How many are read from the first field."""
        if not self.funnel.stages:
            return 0
        return math.ceil(self.funnel.stages[0].limit * (self.funnel.knobs.oversampling or 1))

    def trial(self) -> Trial:
        return Trial(
            self.funnel, self.recall, self.p50, len(self.recalls), self.memory, self.candidates,
            self.whole,
        )  # fmt: skip


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

    def tuned(self, queries: Iterable[Any] | None, where: Filter | None) -> Flow[Tuned]:
        self.engine = str((yield from self.backend.info())["engine"])
        self.count = yield from self.backend.count(None)
        if not self.count:
            raise ConfigError("there is nothing to tune: the collection is empty")
        yield from self._ask(queries, where)
        entries = yield from self.backend.entries()
        if self.goal.optimise == "memory":
            entries = sorted(entries, key=lambda entry: self._memory([entry.field]))
        for i, entry in enumerate(entries):
            yield from self._explore(entry, (i + 1) / len(entries))
            if self.goal.optimise == "memory" and self._passing():
                break
        exact = yield from self._measured(Funnel(()), rounds=1)
        made = yield from self._certified()
        if made.reached:
            return made
        return replace(made, advice=(yield from self._advice(exact)))

    # Queries

    def _ask(self, queries: Iterable[Any] | None, where: Filter | None) -> Flow[None]:
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
        rows = nest([r.vector for r in records], self.nesting, [r.id for r in records])
        return [
            Asked({name: matrix[i] for name, matrix in rows.items()}, where, record.id)
            for i, record in enumerate(records)
        ]

    def _given(self, queries: Iterable[Any], where: Filter | None) -> Flow[list[Asked]]:
        if isinstance(queries, (str, Mapping)):
            raise RecordError("queries is a list of queries, got one; write [query]")
        asked = []
        for query in queries:
            only = where
            if isinstance(query, Mapping):
                if "query" not in query or not query.keys() <= {"query", "where"}:
                    raise RecordError(
                        "a query that is a dict has the keys query and where, got "
                        f"{', '.join(map(str, query)) or 'none'}"
                    )
                own = as_filter(query.get("where"))
                only = own if where is None else where if own is None else own & where
                query = query["query"]  # noqa: PLW2901
            asked.append(Asked((yield from self.collection.vectors(query)), only, None))
        order = np.random.default_rng(self.goal.seed).permutation(len(asked))
        return [asked[i] for i in order]

    # Trying

    def _explore(self, entry: Entry, share: float) -> Flow[None]:
        """Look for the best plans that begin with one field.

        More candidates and a larger ef find more and take longer. So the fewest candidates are
        sought where ef is ample, then the least ef for these, and from there on the neighbours:
        some more of the one for some less of the other. Then what comes in between is tried.
        """
        end = min(1 - _CERTIFY_SHARE, _EXACT_SHARE + (1 - _CERTIFY_SHARE - _EXACT_SHARE) * share)
        limits = self._limits(entry)
        ways = [False, True] if entry.oversampling and entry.field.full else [False]
        for inside in ways:
            knobs = _knob_steps(entry, self.goal.k)

            def made(i: int, j: int, inside: bool = inside, knobs: Any = knobs) -> Funnel:
                return self._funnel(entry, limits[i], knobs[j], inside=inside)

            at = yield from self._corner(made, len(limits), len(knobs), end)
            if at is None:
                continue
            yield from self._climb(made, at, len(limits), len(knobs), end)
        best = min(self._passing(entry.field), key=self._cost, default=None)
        if best is not None:
            yield from self._between(entry, best, end)

    def _limits(self, entry: Entry) -> list[int]:
        most = min(max(_MOST, 2 * self.goal.k), self.goal.k * _MOST_TIMES, self.count)
        if entry.most_ef is not None:
            most = min(most, entry.most_ef)
        return _steps(self.goal.k, max(most, self.goal.k))

    def _funnel(self, entry: Entry, limit: int, knobs: Knobs, *, inside: bool) -> Funnel:
        name, k = entry.field.name, self.goal.k
        if not inside:
            return Funnel((Stage(name, limit),), knobs)
        return Funnel((Stage(name, k),), replace(knobs, oversampling=limit / k))

    def _corner(
        self, made: Callable[[int, int], Funnel], limits: int, knobs: int, end: float
    ) -> Flow[tuple[int, int] | None]:
        """Return the fewest candidates with the largest knob, then the least knob for them."""
        if not (yield from self._good(made(limits - 1, knobs - 1), end)):
            return None
        i = yield from self._least(lambda i: made(i, knobs - 1), limits, end)
        # A little more of candidates makes room for a smaller knob.
        i = min(limits - 1, i + 1)
        j = yield from self._least(lambda j: made(i, j), knobs, end)
        return i, j

    def _least(self, made: Callable[[int], Funnel], count: int, end: float) -> Flow[int]:
        """Return the first of plans, ever better ones, that is good; the last one is."""
        low, high = 0, count - 1
        while low < high:
            middle = (low + high) // 2
            if (yield from self._good(made(middle), end)):
                high = middle
            else:
                low = middle + 1
        return low

    def _climb(
        self,
        made: Callable[[int, int], Funnel],
        at: tuple[int, int],
        limits: int,
        knobs: int,
        end: float,
    ) -> Flow[None]:
        """Walk to better neighbours as long as there are any, and look at the surer ones."""
        moves = ((-1, 0), (0, -1), (-1, 1), (1, -1), (2, -1), (-1, 2), (-2, 1), (1, -2), (0, 1))
        seen = {at}
        yield from self._good(made(*at), end)
        while True:
            here = self.tried[str(made(*at))]
            for move in (*moves, (1, 0)):
                there = (at[0] + move[0], at[1] + move[1])
                if there in seen or not (0 <= there[0] < limits and 0 <= there[1] < knobs):
                    continue
                seen.add(there)
                good = yield from self._good(made(*there), end)
                if good and self._cost(self.tried[str(made(*there))]) < self._cost(here):
                    at = there
                    break
            else:
                break
        for step in (1, 2, 4):  # what certification falls back on
            i, j = min(limits - 1, at[0] + step), min(knobs - 1, at[1] + step)
            yield from self._measured(made(i, j))

    def _between(self, entry: Entry, best: _Tried, end: float) -> Flow[None]:
        """Let a later field, or the first field's own numbers, thin out the candidates."""
        k, stage = self.goal.k, best.funnel.stages[0]
        candidates = best.candidates
        later = [f for f in self.nesting.fields[:-1] if f.nbytes > entry.field.nbytes]
        plans: list[Callable[[int, int], Funnel]] = []
        for other in later:
            if other.full and entry.field.full:
                continue

            def by_stage(more: int, limit: int, other: Field = other) -> Funnel:
                first = Stage(stage.field, max(more, limit))
                return Funnel((first, Stage(other.name, limit)), replace(
                    best.funnel.knobs, oversampling=None
                ))  # fmt: skip

            plans.append(by_stage)
        if entry.oversampling and not entry.field.full:

            def in_field(more: int, limit: int) -> Funnel:
                times = max(1.0, more / limit)
                return Funnel((Stage(stage.field, limit),), replace(
                    best.funnel.knobs, oversampling=times
                ))  # fmt: skip

            plans.append(in_field)
        for made in plans:
            for more in (candidates, math.ceil(candidates * _STEP**2)):
                limits = [limit for limit in _steps(k, more) if limit < more]
                if not limits or not (yield from self._good(made(more, limits[-1]), end)):
                    continue
                yield from self._least(lambda i: made(more, limits[i]), len(limits), end)  # noqa: B023

    def _good(self, funnel: Funnel, end: float) -> Flow[bool]:
        """Return whether a plan meets the target on the choosing queries, as far as one can see.

        One that was stopped because others are faster counts as good: it finds enough, or no less
        than what is slower. After `end` of the budget nothing new is tried.
        """
        if str(funnel) not in self.tried and self.clock.until(end) < 0:
            return False
        tried = yield from self._measured(funnel)
        return tried.recall >= self.goal.target if tried.whole else not self._hopeless(tried)

    def _measured(self, funnel: Funnel, rounds: int | None = None) -> Flow[_Tried]:
        """Ask the choosing queries by a plan, as long as it may still win; once per plan."""
        name = str(funnel)
        if name not in self.tried:
            self.clock.tell(f"trying {name}")
            tried = _Tried(funnel, self._memory(self._fields(funnel)))
            self.tried[name] = tried
            steps = plan(funnel, self.nesting, self.goal.k)
            for answer in self.choosing[:2]:  # so that no plan pays for a cold start
                yield from self._search(answer, steps)
            best = min(map(self._cost, self._passing()), default=None)
            for start in range(0, len(self.choosing), _ROUND):
                for answer in self.choosing[start : start + _ROUND]:
                    yield from self._time(answer, steps, tried)
                slow = best is not None and (tried.memory, tried.p50 / 2) > (tried.memory, best[1])
                if self._hopeless(tried) or slow or rounds == 1:
                    break
            tried.whole = len(tried.recalls) == len(self.choosing)
        return self.tried[name]

    def _time(self, answer: Answer, steps: Plan, tried: _Tried) -> Flow[None]:
        started = time.perf_counter()
        hits = yield from self._search(answer, steps)
        tried.times.append((time.perf_counter() - started) * 1000)
        tried.recalls.append(answer.recall(hits))

    def _search(self, answer: Answer, steps: Plan) -> Flow[list[Hit]]:
        """Search without the query itself, where it is a document.

        It is always found, at every stage: with one more let through at each of them the others
        are found as if it was not there.
        """
        if answer.asked.id is not None:
            steps = _with_one_more(steps)
        return (yield from self.backend.search(answer.asked.queries, steps, answer.asked.where))

    def _hopeless(self, tried: _Tried) -> bool:
        n, recall = len(tried.recalls), tried.recall
        spread = statistics.pstdev(tried.recalls) + 1 / n
        return recall + 3 * spread / math.sqrt(n) < self.goal.target

    def _passing(self, first: Field | None = None) -> list[_Tried]:
        """Return the plans that meet the target on all choosing queries."""
        return [
            tried
            for tried in self.tried.values()
            if tried.whole
            and tried.recall >= self.goal.target
            and tried.funnel.stages
            and first in (None, self.nesting[tried.funnel.stages[0].field])
        ]

    def _cost(self, tried: _Tried) -> tuple[float, float]:
        """Return what is to be small."""
        return (tried.memory if self.goal.optimise == "memory" else 0, tried.p50)

    def _fields(self, funnel: Funnel) -> list[Field]:
        return [self.nesting[stage.field] for stage in funnel.stages] or [self.nesting.full]

    def _memory(self, fields: Sequence[Field]) -> int:
        return hot_bytes(self.engine, fields, self.count)

    # Certifying

    def _certified(self) -> Flow[Tuned]:
        """Return the best plan that keeps the target on queries that it has not seen."""
        ladder = self._ladder()
        best, failed = None, None
        for n, tried in enumerate(ladder):
            self.clock.tell(f"certifying {tried.funnel}", max(0.7, 0.7 + 0.3 * n / len(ladder)))
            made = yield from self._certificate(tried)
            if not made.reached:
                failed = made
                break
            if best is None or _better(made, best, self.goal.optimise):
                best = made
        chosen = best or failed
        assert chosen is not None
        trials = sorted((t.trial() for t in self.tried.values()), key=lambda trial: trial.p50)
        return replace(chosen, trials=tuple(trials), notes=tuple(self.notes))

    def _ladder(self) -> list[_Tried]:
        """Return what to certify, the surest first: each finds no less than the next.

        An exact scan finds everything by definition; it is there where it is faster than the rest.
        """
        whole = [t for t in self.tried.values() if t.whole and t.funnel.stages]
        exact = self.tried["exact"]
        margin = 2 / math.sqrt(max(1, len(self.choosing))) * 0.05
        hopeful = [t for t in whole if t.recall >= self.goal.target - margin]
        if not hopeful:
            return [max((t for t in self.tried.values() if t.funnel.stages or t is exact),
                        key=lambda t: (bool(t.funnel.stages), t.recall))]  # fmt: skip
        fastest = min(map(self._cost, hopeful))
        if self._cost(exact) <= fastest:
            return [exact]
        front: list[_Tried] = []
        for tried in sorted(hopeful, key=self._cost):
            if not front or tried.recall > front[-1].recall:
                front.append(tried)
        front.reverse()
        sure = [t for t in front if t.recall >= self.goal.target]
        return _spread(sure or front, _LADDER)

    def _certificate(self, tried: _Tried) -> Flow[Tuned]:
        steps = plan(tried.funnel, self.nesting, self.goal.k)
        if not steps.stages:
            measured = tried  # exact by definition, whatever the queries
            bound = 1.0
        else:
            measured = _Tried(tried.funnel, tried.memory)
            for answer in self.certifying:
                yield from self._time(answer, steps, measured)
            bound = lower_bound(measured.recalls, self.goal.confidence)
        certificate = Certificate(
            k=self.goal.k, target=self.goal.target, confidence=self.goal.confidence,
            recall=measured.recall, bound=bound, n=len(measured.recalls), p50=measured.p50,
            p95=float(np.percentile(measured.times, 95)),
            qps=1000 / statistics.fmean(measured.times), memory=tried.memory,
            documents=self.count, source=self.source, seed=self.goal.seed,
            measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip
        return Tuned(tried.funnel.stages, tried.funnel.knobs, certificate)

    # Where nothing reaches the target

    def _advice(self, exact: _Tried) -> Flow[tuple[Advice, ...]]:
        from .reach import reach

        self.clock.tell("looking for what would reach the target", 0.99)
        advice = [
            Advice("an exact scan", 'funnel="exact"', None, 0, exact.p50),
            *(yield from reach(
                self.collection, self.choosing, self.goal.k, self.goal.target, self.engine,
                self.count, self.goal.seed,
            )),
        ]  # fmt: skip
        return tuple(advice)


def _steps(least: int, most: int) -> list[int]:
    """Return whole numbers from least to most that grow by a third or so."""
    made = [least]
    while made[-1] < most:
        made.append(min(most, max(made[-1] + 1, round(made[-1] * _STEP))))
    return made


def _knob_steps(entry: Entry, k: int) -> list[Knobs]:
    """Return the settings of a field's index from the cheapest to the surest."""
    if entry.most_ef is not None:
        return [Knobs(ef=ef) for ef in _steps(max(16, k), min(entry.most_ef, 1_024))]
    if entry.lists is not None:
        return [Knobs(probes=probes) for probes in _steps(1, entry.lists)]
    return [Knobs()]


def _with_one_more(steps: Plan) -> Plan:
    stages = tuple((field, limit + 1) for field, limit in steps.stages)
    knobs = steps.knobs
    if knobs.oversampling is not None and stages:
        limit = stages[0][1]
        times = (knobs.oversampling * (limit - 1) + 1) / limit
        knobs = replace(knobs, oversampling=max(1.0, times))
    return Plan(stages, steps.k + 1, steps.offset, knobs)


def _better(made: Tuned, other: Tuned, optimise: str) -> bool:
    assert made.certificate is not None
    assert other.certificate is not None
    if optimise == "memory" and made.certificate.memory != other.certificate.memory:
        return made.certificate.memory < other.certificate.memory
    return made.certificate.p50 < other.certificate.p50


def _spread(items: Sequence[_Tried], count: int) -> list[_Tried]:
    """Return at most so many items, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
