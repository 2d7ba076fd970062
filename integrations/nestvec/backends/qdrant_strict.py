"""What a collection's strict mode allows, which Qdrant Cloud has by default: asked for within it.

A plan of ours is cut to it; one that the user chose, and a filter, are refused by the limit's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FilterError, FunnelError
from ..filter_nodes import Keyed, leaves
from ..filters import Filter, Not
from ..funnel import Knobs, Plan, default_funnel, plan
from ..nesting import Nesting
from .point_indexes import INDEXES, OWN_INDEXES, Condition, index_for, json_path, key_of, lacking
from .points import beam

__all__ = ["Strict", "of_refusal", "unindexed"]


@dataclass(frozen=True, slots=True)
class Strict:
    """The limits of strict mode, each by the server's name for it; None where it has none."""

    max_query_limit: int | None = None
    max_timeout: int | None = None
    unindexed_filtering_retrieve: bool | None = None
    unindexed_filtering_update: bool | None = None
    search_max_hnsw_ef: int | None = None
    search_allow_exact: bool | None = None
    search_max_oversampling: float | None = None
    upsert_max_batchsize: int | None = None
    search_max_batchsize: int | None = None
    write_rate_limit: int | None = None
    filter_max_conditions: int | None = None
    condition_max_size: int | None = None
    max_payload_index_count: int | None = None

    @classmethod
    def of(cls, config: Any) -> Strict:
        """Return the limits of a collection's configuration; none where strict mode is off."""
        told = getattr(config, "strict_mode_config", None)
        if told is None or not told.enabled:
            return cls()
        # Each server and client knows some of them.
        return cls(**{name: getattr(told, name, None) for name in cls.__slots__})

    @property
    def exact(self) -> bool:
        """Whether vectors may be read from end to end, and documents counted exactly."""
        return self.search_allow_exact is not False

    def page(self, limit: int) -> int:
        """Return how many documents may be read at once."""
        return _least(limit, self.max_query_limit)

    def batch(self, size: int) -> int:
        """Return how many documents may be written at once."""
        return _least(size, self.upsert_max_batchsize, self.write_rate_limit)

    def searches(self, size: int) -> int:
        """Return how many queries may be asked at once."""
        return _least(size, self.search_max_batchsize)

    def seconds(self, timeout: int) -> int:
        """Return the time-out that a request may name."""
        return _least(timeout, self.max_timeout)

    def ef(self, most: int) -> int:
        """Return how many nodes of a graph a search may keep in view."""
        return _least(most, self.search_max_hnsw_ef)

    def indexed(self, *, writing: bool) -> bool:
        """Whether a filter must name indexed keys alone."""
        return self.unindexed_filtering_retrieve is False or (
            writing and self.unindexed_filtering_update is False
        )

    # Plans

    def knobs(self, limit: int, knobs: Knobs) -> Knobs:
        """Return the knobs of a search with an ef that is allowed, where it would be larger."""
        ef = beam(limit, knobs)
        return knobs if self.ef(ef) == ef else replace(knobs, ef=self.ef(ef))

    def within(
        self, steps: Plan, nesting: Nesting, unsearched: Collection[str], where: str
    ) -> Plan:
        """Return a plan as it may be run. Raises FunnelError, which names the limit and the value.

        A plan that nobody chose for this query is cut. `unsearched` are the fields without a graph.
        """
        if self == _FREE:
            return steps
        of = f"the strict mode of collection {where}"
        if self.max_query_limit is not None and steps.limit > self.max_query_limit:
            raise FunnelError(
                f"k + offset is {steps.limit}, and {of} allows max_query_limit="
                f"{self.max_query_limit}"
            )
        if steps.given:
            self._check(steps, unsearched, of)
            return steps
        return self._cut(steps, nesting, unsearched)

    def _check(self, steps: Plan, unsearched: Collection[str], of: str) -> None:
        shown = f"funnel {str(steps)!r}"
        if not self.exact and not steps.stages:
            raise FunnelError(f"{shown} reads every vector, and {of} has search_allow_exact=False")
        for field, limit in steps.stages:
            if not self.exact and field.name in unsearched:
                raise FunnelError(
                    f"{shown}: {field.name} has no graph, so it is read from end to end, and {of} "
                    "has search_allow_exact=False"
                )
            if limit > self.page(limit):
                raise FunnelError(
                    f"{shown}: {limit} leave {field.name}, and {of} allows max_query_limit="
                    f"{self.max_query_limit}"
                )
        if steps.knobs.ef is not None and steps.knobs.ef > self.ef(steps.knobs.ef):
            raise FunnelError(
                f"{shown}: ef={steps.knobs.ef}, and {of} allows search_max_hnsw_ef="
                f"{self.search_max_hnsw_ef}"
            )
        times, most = steps.knobs.oversampling, self.search_max_oversampling
        if times is not None and most is not None and times > most:
            raise FunnelError(
                f"{shown}: oversampling={times:g}, and {of} allows search_max_oversampling={most:g}"
            )

    def _cut(self, steps: Plan, nesting: Nesting, unsearched: Collection[str]) -> Plan:
        stages, knobs = steps.stages, steps.knobs
        if not self.exact:
            stages = tuple(each for each in stages if each[0].name not in unsearched)
        if not self.exact and not stages:
            made = plan(default_funnel(nesting, steps.limit), nesting, steps.k, steps.offset)
            stages, knobs = made.stages, made.knobs
        stages = tuple((field, self.page(limit)) for field, limit in stages)
        if knobs.ef is not None:
            knobs = replace(knobs, ef=self.ef(knobs.ef))
        if knobs.oversampling is not None:
            most = self.search_max_oversampling
            times = knobs.oversampling if most is None else min(knobs.oversampling, most)
            knobs = replace(knobs, oversampling=max(1.0, times))
        return replace(steps, stages=stages, knobs=knobs)

    # Filters

    def fitted(self, condition: Condition) -> Condition:
        """Return a condition in parts that are allowed. Raises FilterError where there are none."""
        made = condition if self.condition_max_size is None else self._parted(condition)
        most = self.filter_max_conditions
        if most is not None and (count := _leaves(made)) > most:
            raise FilterError(
                f"the filter takes {count:,} conditions, and the collection's strict mode allows "
                f"filter_max_conditions={most}"
            )
        return made

    def _parted(self, condition: Condition) -> Condition:
        """Part lists of ids or of values where they are too long for one condition."""
        most = self.condition_max_size
        assert most is not None
        if "has_id" in condition:
            ids = list(condition["has_id"])
            return _any_of([{"has_id": part} for part in _parts(ids, most)], condition, ids, most)
        values = condition.get("match", {}).get("any", ())
        if values:
            made = [{**condition, "match": {"any": part}} for part in _parts(values, most)]
            return _any_of(made, condition, values, most)
        if set(condition) <= {"must", "should", "must_not"}:
            return {name: [*map(self._parted, parts)] for name, parts in condition.items()}
        return condition


_FREE = Strict()

#: The engine's kind of index → nestvec's name for it.
_NAMES = {engine: name for name, engine in INDEXES.items()}


def _least(value: int, *limits: int | None) -> int:
    return max(1, min([value, *(limit for limit in limits if limit is not None)]))


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), max(1, size)):
        yield list(items[start : start + max(1, size)])


def _any_of(
    parts: Sequence[Condition], whole: Condition, items: Sequence[Any], most: int
) -> Condition:
    return whole if len(items) <= most else {"should": parts}


def _leaves(condition: Condition) -> int:
    if set(condition) <= {"must", "should", "must_not"}:
        return sum(_leaves(part) for parts in condition.values() for part in parts)
    return 1


def unindexed(
    where: Filter, condition: Condition, indexes: Mapping[str, str], root: str, place: str
) -> FilterError | None:
    """Return the error of a filter on keys without an index, with the calls that mend it."""
    lacks = {key: k for key, k in lacking(condition, indexes).items() if key not in OWN_INDEXES}
    if not lacks:
        return None
    return _needs([_as_written(where, made, kinds, root) for made, kinds in lacks.items()], place)


def of_refusal(told: str, root: str, place: str) -> FilterError | None:
    """Return the error of a filter that a server refused though nobody knew that it would."""
    found = _REFUSED.search(told)
    if found is None:
        return None
    kinds = re.findall(r"\w+", found["kinds"] or "")
    kind = next((_NAMES[each.lower()] for each in kinds if each.lower() in _NAMES), "str")
    return _needs([(key_of(found["path"], root) or found["path"], kind)], place)


_REFUSED = re.compile(
    r'Index required but not found for \\*"(?P<path>.+?)\\*"'
    r"(?: of one of the following types: \[(?P<kinds>[^\]]*)|[\s.;]|$)"
)


def _needs(keys: Sequence[tuple[str, str]], place: str) -> FilterError:
    quoted = [(json.dumps(key, ensure_ascii=False), kind) for key, kind in keys]
    calls = " and ".join(f'store.index_metadata({key}, "{kind}")' for key, kind in quoted)
    given = ", ".join(f'{key}: "{INDEXES.get(kind, kind)}"' for key, kind in quoted)
    named = ", ".join(repr(key) for key, _ in keys)
    noun, verb = ("key", "has") if len(keys) == 1 else ("keys", "have")
    return FilterError(
        f"{noun} {named} {verb} no index that serves this filter, and the strict mode of "
        f"collection {place} refuses it without one: call {calls}, or give connect "
        f"payload_indexes={{{given}}}"
    )


def _as_written(where: Filter, made: str, kinds: Sequence[str], root: str) -> tuple[str, str]:
    """Return a key as the user wrote it, and the kind of the index that it needs."""
    kind = next((_NAMES[each] for each in kinds if each in _NAMES), "")
    for leaf in _keyed(where):
        if json_path(leaf.key, root) == made:
            return leaf.key, index_for(leaf, root) or kind or "str"
    return key_of(made, root) or made, kind or "str"


def _keyed(where: Filter) -> Iterator[Keyed]:
    for leaf in leaves(where):
        if isinstance(leaf, Not):
            yield from _keyed(leaf.part)
        elif isinstance(leaf, Keyed):
            yield leaf
