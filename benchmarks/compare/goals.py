"""What nestvec aims at, and what a set of measurements says of it, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Goal", "Row", "Set", "goals", "in_words"]

#: A contender's figures, as the JSON has them.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Set:
    """The contenders of one engine, one kind of vectors and one size, measured in one run."""

    raw: Mapping[str, Any]

    @property
    def rows(self) -> list[Row]:
        return list(self.raw["contenders"])

    def fastest(self, *sides: str, two_stages: bool = False) -> Row | None:
        """Return the fastest of some sides that reached the target."""
        rows = [
            row
            for row in self.rows
            if row["side"] in sides
            and row["chosen"]["reached"]
            and not (two_stages and "full" in row["name"])
        ]
        return max(rows, key=qps, default=None)

    def named(self, name: str) -> Row | None:
        """Return a contender with the number of links that suits it best.

        That is the fastest which reached the target; if none did, the one that found most.
        """
        rows = [row for row in self.rows if row["name"].partition(", m ")[0] == name]
        reached = [row for row in rows if row["chosen"]["reached"]]
        if reached:
            return max(reached, key=qps)
        return max(rows, key=lambda row: float(row["chosen"]["recall"]), default=None)


@dataclass(frozen=True)
class Goal:
    """An aim, what was measured, and whether that reaches it; None where that is not known."""

    aim: str
    measured: str
    reached: bool | None
    headline: str = ""

    @property
    def verdict(self) -> str:
        if self.reached is None:
            return "open" if self.measured else "not measured"
        return "reached" if self.reached else "**not reached**"


def qps(row: Row) -> float:
    return float(row["measured"]["qps"])


def hot(row: Row) -> float:
    return float(row["loaded"]["hot_bytes"])


def goals(made: Set) -> list[Goal]:
    """Return every aim of an engine with what was measured of it."""
    of_engine = {"postgres": _postgres, "edge": _edge, "qdrant": _qdrant}[made.raw["engine"]]
    return [*of_engine(made), _limited(made)]


def _postgres(made: Set) -> Iterator[Goal]:
    ours = made.fastest("nestvec", two_stages=True)
    framework, full = made.named("langchain-postgres"), made.named("psycopg float32")
    yield _faster("≥ 2 × the queries/s of langchain-postgres's full index", ours, framework, 2,
                  headline=True)  # fmt: skip
    single = made.fastest("single", "framework")
    yield _faster("≥ 1.4 × the best single-vector plan", ours, single, 1.4)
    if ours is None or full is None:
        yield Goal("first-stage index ≤ 1/8 of the full float32 one", "", None)
    else:
        share = full["loaded"]["index_bytes"] / ours["loaded"]["index_bytes"]
        said = f"1/{share:.1f} ({ours['name']})"
        yield Goal("first-stage index ≤ 1/8 of the full float32 one", said, share >= 8)
    if ours is None or framework is None:
        yield Goal("load plus build ≥ 4 × faster than langchain-postgres", "", None)
    else:
        times = _loading(made, framework) / _loading(made, ours)
        yield Goal(
            "load plus build ≥ 4 × faster than langchain-postgres", f"{times:.1f} ×", times >= 4
        )


def _edge(made: Set) -> Iterator[Goal]:
    ours = made.fastest("nestvec")
    yield _faster("≥ 2.5 × the best single float32 HNSW", ours, made.named("Edge float32"), 2.5,
                  headline=True)  # fmt: skip
    for name in ("Edge int8", "Edge binary", "Edge turbo"):
        aim = (
            f"beside {name}: its queries/s in half its hot bytes, or 1.2 × its queries/s in no "
            "more bytes"
        )
        peer = made.named(name)
        plans = [r for r in made.rows if r["side"] == "nestvec" and r["chosen"]["reached"]]
        if peer is None or not plans:
            yield Goal(aim, "", None)
            continue
        best = max(plans, key=lambda row: _reach(row, peer))
        told = f"{qps(best) / qps(peer):.2f} × in {hot(best) / hot(peer):.2f} of the bytes"
        said = f"{told} ({best['name']}, {peer['name']})"
        yield _against(peer, aim, said, _reach(best, peer) >= 1)


def _qdrant(made: Set) -> Iterator[Goal]:
    tuned = [row for row in made.rows if row["name"].endswith(", tuned")]
    ours = max((row for row in tuned if row["chosen"]["reached"]), key=qps, default=None)
    yield _faster("after `tune` ≥ 0.9 × the queries/s of the best single vector by hand", ours,
                  made.fastest("single"), 0.9, headline=True)  # fmt: skip
    for way, least in (("REST", 2.0), ("gRPC", 1.2)):
        yield _same_plan(made, way)
        aim = f"writing ≥ {least:g} × `upload_points` over {way}"
        ours_s, theirs_s = (_rates(made, side, way) for side in ("nestvec", "single"))
        if not ours_s or not theirs_s:
            yield Goal(aim, "", None)
            continue
        times = median(ours_s) / median(theirs_s)
        yield Goal(aim, f"{times:.2f} × (medians)", times >= least)


def _same_plan(made: Set, way: str) -> Goal:
    aim = f"the same plan ≤ 1.10 × the time of the request by qdrant-client over {way}"
    rows = {row["name"]: row for row in made.rows if _way(row) == way}
    times = {
        name: rows[name]["measured"]["p50"] / row["measured"]["p50"]
        for by_hand, row in rows.items()
        if (name := by_hand.replace("by hand", "nestvec")) in rows and name != by_hand
    }
    if not times:
        return Goal(aim, "", None)
    worst = max(times, key=lambda name: times[name])
    said = f"{median(times.values()):.2f} × at the median, at most {times[worst]:.2f} × ({worst})"
    return Goal(aim, said, times[worst] <= 1.1)


def _way(row: Row) -> str:
    return "REST" if row["name"].endswith(", REST") else "gRPC"


def _rates(made: Set, side: str, way: str) -> list[float]:
    """Return documents a second of those who wrote over REST or gRPC."""
    return [
        row["loaded"]["written_rows"] / row["loaded"]["write_s"]
        for row in made.rows
        if row["side"] == side and _way(row) == way
    ]


def _reach(row: Row, peer: Row) -> float:
    """Return how far a plan is towards either of two ways to beat a peer; from 1 on it does."""
    speed, share = qps(row) / qps(peer), hot(row) / hot(peer)
    return max(min(speed, 0.5 / share), min(speed / 1.2, 1 / share))


def _against(peer: Row, aim: str, said: str, reached: bool, headline: str = "") -> Goal:
    """Return the goal; beside who missed the target, a plan that reached it is better yet."""
    if peer["chosen"]["reached"]:
        return Goal(aim, said, reached, headline)
    missed = (
        f"; {peer['name']} finds no more than {peer['chosen']['recall']:.4f} with any setting tried"
    )
    return Goal(aim, said + missed, reached or None, headline and headline + missed)


def _faster(
    aim: str, ours: Row | None, peer: Row | None, least: float, *, headline: bool = False
) -> Goal:
    if ours is None or peer is None:
        return Goal(aim, "", None)
    times = qps(ours) / qps(peer)
    said = f"{times:.2f} × ({ours['name']}, {peer['name']})"
    shown = (
        f"{ours['name']} has {times:.1f} × the queries a second of {peer['name']} in "
        f"{hot(ours) / hot(peer):.2f} of its hot bytes"
    )
    return _against(peer, aim, said, times >= least, shown if headline else "")


def _limited(made: Set) -> Goal:
    aim = "in the memory limit ≥ 10 × the full float32 index"
    peers = {"edge": "Edge float32", "postgres": "psycopg float32", "qdrant": "Qdrant float32"}
    name = peers[made.raw["engine"]]
    full = made.named(name)
    ours = [
        row
        for row in made.rows
        if row["side"] == "nestvec" and row["chosen"]["reached"] and "qps" in row["limited"]
    ]
    if full is None or "qps" not in full["limited"] or not ours:
        return Goal(aim, "", None)
    best = max(ours, key=lambda row: float(row["limited"]["qps"]))
    times = best["limited"]["qps"] / full["limited"]["qps"]
    said = f"{times:.1f} × ({best['name']}, {full['name']})"
    shown = f"{best['name']} has {times:.1f} × the queries a second of {full['name']}"
    limit = f"{made.raw['limit_bytes'] / 1e6:,.0f} MB"
    return _against(full, aim, said, times >= 10, f"in a memory limit of {limit} {shown}")


def _loading(made: Set, row: Row) -> float:
    """Return the seconds to write all documents, by the rate that was measured, and to index."""
    loaded = row["loaded"]
    return float(
        loaded["write_s"] / loaded["written_rows"] * made.raw["documents"] + loaded["build_s"]
    )


def in_words(made: Set) -> str:
    """Say in plain words whether two stages pay, beside the best that is one vector."""
    if len({row["side"] == "nestvec" for row in made.rows}) < 2:
        return "One side was measured alone here, which says how its cost grows and no more."
    ours = made.fastest("nestvec", two_stages=True)
    single = made.fastest("single", "framework")
    if ours is None:
        others = "nobody else" if single is None else single["name"]
        return f"Two stages do not pay here: none reached the target, and {others} did."
    if single is None:
        return f"Two stages pay: {ours['name']} reached the target, and no single vector here did."
    times, share = qps(ours) / qps(single), hot(ours) / hot(single)
    beside = f"{ours['name']} has {times:.2f} × the queries a second of {single['name']}"
    if times >= 1:
        return (
            f"Two stages pay: {beside}, the fastest single vector, in {share:.2f} of its hot bytes."
        )
    return (
        f"In memory, two stages do not pay in speed here: {beside}, the fastest single vector."
        f" They take {share:.2f} of its hot bytes."
    )
