"""What is written of a JSON of measurements: docs/benchmarks.md, its picture, and the README."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .goals import Row, Set, goals, in_words

__all__ = ["document", "main", "readme", "tables"]

_OPEN, _CLOSE = "<!-- benchmarks, written by the command below -->", "<!-- /benchmarks -->"

_PICTURE = "benchmarks.svg"

_ENGINES = {"edge": "Edge", "postgres": "Postgres", "qdrant": "A Qdrant server"}

_HEAD = """# Benchmarks

nestvec beside what users have today: the same vectors, the same machine, one run. Written by
`python -m benchmarks.compare report` from [benchmarks.json](benchmarks.json), where every figure
is, with the others that were tried.

```console
$ make bench-quick    # everybody on 5,000 vectors, about 3 minutes on two cores
$ make bench          # 50,000, 200,000 and 1,000,000 vectors of 1,024 numbers: hours
$ make bench-real     # all-MiniLM-L6-v2 on texts that you give, as it is and rotated
$ python -m benchmarks.compare run --help
```

## What is compared, and how

- **Vectors.** `synthetic`: number i of a vector has the variance 1 / (1 + i), half of it is its
  topic's, and a topic has 100 documents. `minilm`: all-MiniLM-L6-v2 on the glosses of a dictionary,
  asked by examples of use; `minilm-rotated`: the same under a `RotationAdaptor`. Exact answers are
  numpy's.
- **Settings.** Everybody's are searched: `ef`, oversampling, limits of stages. What is compared is
  the fastest one that finds recall@10 of the target or more on all queries; who never does is in
  the table, and no aim counts as missed beside it. Graphs have the engines' default `m` and
  `ef_construct`; "m 24" has 24 links a node, found among 200 candidates, which takes longer to
  build and finds more. A peer is compared by whichever suits it best.
- **Chance.** Several threads build a graph, and it comes out differently each time: in three runs
  on the same 50,000 vectors Edge float32 took an `ef` of 56, 100 and 128 for the same recall. So
  the ratio of one run may be half as much again in the next.
- **Turns.** Each is measured in a process of its own, in rounds, in changing order; a figure is the
  median of the rounds, and queries a second of five slices of each. All queries are asked once
  before they count.
- **Hot** is what the first stage reads: what vectors are searched by, their graph, and the map of
  ids where the engine has one, as files or as an index. Full vectors that are only rescored are
  read a few at a time, and are not counted.
- **Resident** is the memory of the process while it answers, or of the server's processes.
- **Memory limit.** A control group of a quarter of the full float32 index, after its files left the
  cache. What the process took before it opened the collection is not counted.
- **Written** is the rate of the contender's own interface; langchain-postgres and LlamaIndex write
  some thousands by themselves, the others come by `COPY`, and the time of all is reckoned.
  langchain-qdrant and LlamaIndex run Qdrant without a server in the client's local mode only,
  which reads every vector, so they are asked for up to 20,000.
"""


_GROWTH = "queries/s, hot MB, write and build s; in italics who did not reach the target:\n"


@dataclass(frozen=True)
class _Column:
    title: str
    key: tuple[str, str]
    scale: float = 1.0
    digits: int = 0

    def cell(self, row: Row) -> str:
        value = row.get(self.key[0], {}).get(self.key[1])
        return "" if value is None else f"{value * self.scale:,.{self.digits}f}"


_SPEED = (
    _Column("recall@10", ("chosen", "recall"), 1, 4),
    _Column("p50 ms", ("measured", "p50"), 1, 2),
    _Column("p95 ms", ("measured", "p95"), 1, 2),
    _Column("queries/s", ("measured", "qps")),
)
_SPACE = (
    _Column("index MB", ("loaded", "index_bytes"), 1e-6, 1),
    _Column("hot MB", ("loaded", "hot_bytes"), 1e-6, 1),
    _Column("resident MB", ("measured", "resident_bytes"), 1e-6),
    _Column("disk MB", ("loaded", "disk_bytes"), 1e-6),
)
_LIMITED = (
    _Column("p50 ms", ("limited", "p50"), 1, 2),
    _Column("p95 ms", ("limited", "p95"), 1, 2),
    _Column("queries/s", ("limited", "qps")),
)


def tables(made: Mapping[str, Any]) -> str:
    """Return the tables of all sets, each under its heading."""
    return "\n".join(_section(Set(each)) for each in made["sets"])


def document(made: Mapping[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    said = [f"- {title(each)}. {in_words(each)}\n" for each in map(Set, made["sets"])]
    parts = [
        _HEAD, f"\n![The front of speed and memory]({_PICTURE})\n",
        "\n## Where two stages pay, and where they do not\n\n", *said, "\n", tables(made),
    ]  # fmt: skip
    return "".join(parts) + _growth(made) + _not_run(made)


def _section(made: Set) -> str:
    raw, machine = made.raw, made.raw["machine"]
    head = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}; load average {' to '.join(raw['load'])}. "
        f"Made by `{command(made)}`, {raw['began'][:16].replace('T', ' ')} UTC: "
        f"{raw['queries']} queries, rounds {raw['rounds']} of {raw['seconds']:g} s, "
        f"seed {raw['seed']}. "
        f"{', '.join(f'{name} {version}' for name, version in raw['versions'].items())}.\n"
    )
    lines = [f"\n## {title(made)}\n", head]
    if max(map(float, raw["load"])) > machine["cores"]:
        lines.append(
            "Others used the machine meanwhile: its load was above its cores. Times are longer than"
            " on a quiet one, and ratios less sure.\n"
        )
    if raw["server"]:
        told = ", ".join(f"{name} {value}" for name, value in raw["server"].items())
        lines.append(f"The server has {told}.\n")
    clients = f"{raw['clients']} clients/s"
    many = _Column(clients, ("measured", "qps_clients"))
    lines += _table(made.rows, ("setting",), (*_SPEED, many), lambda row: (setting(row),))
    lines += _table(
        made.rows, ("written/s", "build s"), _SPACE,
        lambda row: (
            f"{row['loaded']['written_rows'] / row['loaded']['write_s']:,.0f}",
            f"{row['loaded']['build_s']:,.1f}",
        ),
    )  # fmt: skip
    lines.append(_limited(made))
    lines += ["| aimed at | measured | |", "|---|---|---|"]
    lines += [f"| {goal.aim} | {goal.measured} | {goal.verdict} |" for goal in goals(made)]
    lines += ["", in_words(made)]
    if raw["left_out"]:
        lines.append(f"\nLeft out: {'; '.join(raw['left_out'])}.")
    return "\n".join(lines) + "\n"


def _table(
    rows: Sequence[Row], more: Sequence[str], columns: Sequence[_Column], cells: Any
) -> Iterator[str]:
    yield f"| | {' | '.join([*more, *(column.title for column in columns)])} |"
    yield "|---" * (1 + len(more) + len(columns)) + "|"
    for row in rows:
        name = row["name"] if row["chosen"]["reached"] else f"{row['name']} (below the target)"
        yield f"| {name} | {' | '.join([*cells(row), *(column.cell(row) for column in columns)])} |"
    yield ""


def _limited(made: Set) -> str:
    limit = f"{made.raw['limit_bytes'] / 1e6:,.0f} MB"
    whys = {row["limited"].get("not_measured") for row in made.rows}
    if None not in whys:
        return f"In a memory limit of {limit} nothing was measured: {'; '.join(sorted(whys))}.\n"
    head = f"In a memory limit of {limit}:\n\n"
    notes = [
        f"- {row['name']}: {why}."
        for row in made.rows
        if (why := row["limited"].get("not_measured"))
    ]
    rows = [row for row in made.rows if "qps" in row["limited"]]
    return head + "\n".join([*_table(rows, (), _LIMITED, lambda _: ()), *notes]) + "\n"


def _growth(made: Mapping[str, Any]) -> str:
    """Return how time and memory grow with the number of documents, where there are two sizes."""
    lines: list[str] = []
    sets = [Set(each) for each in made["sets"]]
    for engine, kind in sorted({(each.raw["engine"], each.raw["vectors"]) for each in sets}):
        some = [e for e in sets if (e.raw["engine"], e.raw["vectors"]) == (engine, kind)]
        sizes = sorted({each.raw["documents"] for each in some})
        if len(sizes) < 2:
            continue
        by = {(row["name"], each.raw["documents"]): row for each in some for row in each.rows}
        lines += [f"\n### {_ENGINES[engine]}, {kind}\n", _GROWTH]
        lines += [
            f"| | {' | '.join(f'{size:,}' for size in sizes)} |",
            "|---" * (len(sizes) + 1) + "|",
        ]
        for name in dict.fromkeys(name for name, _ in by):
            cells = [_brief(by.get((name, size)), size) for size in sizes]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n## How cost grows\n" + "\n".join(lines) + "\n" if lines else ""


def _brief(row: Row | None, size: int) -> str:
    if row is None:
        return ""
    loaded = row["loaded"]
    seconds = loaded["write_s"] / loaded["written_rows"] * size + loaded["build_s"]
    told = f"{row['measured']['qps']:,.0f}, {loaded['hot_bytes'] / 1e6:,.0f}, {seconds:,.0f}"
    return told if row["chosen"]["reached"] else f"*{told}*"


def _not_run(made: Mapping[str, Any]) -> str:
    """Return what the whole command measures and this JSON does not have."""
    there = {(s["engine"], s["vectors"], s["documents"]) for s in made["sets"]}
    missing = [
        f"{_ENGINES[engine]}, {size:,} × 1,024 synthetic"
        for size in (50_000, 200_000, 1_000_000)
        for engine in _ENGINES
        if (engine, "synthetic", size) not in there
    ]
    missing += [
        f"{_ENGINES[engine]}, {kind}"
        for kind in ("minilm", "minilm-rotated")
        for engine in _ENGINES
        if not any((engine, kind) == key[:2] for key in there)
    ]
    if not missing:
        return ""
    told = "The command does them; these figures say nothing of them."
    return f"\n## Not run here\n\n{'; '.join(missing)}. {told}\n"


def title(made: Set) -> str:
    raw = made.raw
    return (
        f"{_ENGINES[raw['engine']]}: {raw['documents']:,} × {raw['dim']:,}, {raw['vectors']}, "
        f"recall@10 ≥ {raw['target']:g}"
    )


def setting(row: Row) -> str:
    given = row["chosen"]["setting"]
    if given.get("funnel", "") is None:
        return "its own plan"
    if "funnel" in given:
        return f"`{given['funnel']}`"
    return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "exact"


def readme(made: Mapping[str, Any]) -> str:
    """Return what the README shows: the picture, three figures, and the commands."""
    sets = largest(made)
    told = [
        [f"- {title(each)}: {goal.headline}." for goal in goals(each) if goal.headline]
        for each in sets
    ]
    first = [lines[0] for lines in told if lines]
    others = [line for lines in told for line in lines[1:]]
    commands = dict.fromkeys(f"`{command(each)}`" for each in sets)
    return "\n".join([
        f"![The front of speed and memory](docs/{_PICTURE})\n", *[*first, *others][:3],
        f"\nMade by {' and by '.join(commands)}.",
        "Where two stages do not pay, and the rest, is in [benchmarks.md](docs/benchmarks.md).",
    ])  # fmt: skip


def command(made: Set) -> str:
    """Return what measures a set again."""
    raw = made.raw
    if "--quick" in raw["command"]:
        return "make bench-quick"
    # Where it put its files is of no account to who runs it again.
    return re.sub(r" --(?:work|out|stop-after) \S+| --(?:keep|add)\b", "", raw["command"])


def largest(made: Mapping[str, Any]) -> list[Set]:
    """Return the set of each engine to show: synthetic, with something to say, and large."""

    def suits(each: Set) -> tuple[bool, bool, int]:
        told = any(goal.headline for goal in goals(each))
        return each.raw["vectors"] == "synthetic", told, each.raw["documents"]

    found = {each.raw["engine"]: each for each in sorted(map(Set, made["sets"]), key=suits)}
    return [found[engine] for engine in _ENGINES if engine in found]


def picture(made: Mapping[str, Any], file: Path) -> None:
    """Draw queries a second against hot bytes, of all that reached the target by an index."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "nestvec", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    sets = largest(made)
    figure, axes = plt.subplots(1, len(sets), figsize=(6 * len(sets), 4), squeeze=False)
    for axis, each in zip(axes[0], sets, strict=True):
        indexed = [row for row in each.rows if row["loaded"]["index_bytes"]]
        rows = sorted((row for row in indexed if row["chosen"]["reached"]), key=_place)
        axis.set_title(title(each), fontsize=9)
        if not rows:
            axis.set_axis_off()
            axis.text(0.5, 0.5, "nobody reached the target", ha="center")
            continue
        front = sorted(_front(rows))
        axis.step(*zip(*front, strict=True), where="post", color="#fdba74", zorder=1)
        for height, row in zip(_heights(rows), rows, strict=True):
            ours = row["side"] == "nestvec"
            axis.plot(*_place(row)[::-1], "o", color="#c2410c" if ours else "#64748b", zorder=3)
            axis.annotate(
                row["name"], _place(row)[::-1], xytext=(1.04, height), textcoords="axes fraction",
                va="center", color="#9a3412" if ours else "#334155",
                arrowprops={"arrowstyle": "-", "color": "#cbd5e1", "lw": 0.6},
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="hot MB", ylabel="queries a second, one client")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
            scale.set_major_formatter("{x:g}")
            scale.set_minor_formatter("")
        axis.margins(0.1)
        axis.grid(visible=True, which="both", alpha=0.2)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _place(row: Row) -> tuple[float, float]:
    """Return queries a second and hot MB."""
    return float(row["measured"]["qps"]), row["loaded"]["hot_bytes"] / 1e6


def _heights(rows: Sequence[Row]) -> list[float]:
    """Return how high labels stand, in parts of the picture: one above the other, in order."""
    return [(n + 0.5) / len(rows) for n in range(len(rows))]


def _front(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Return those that no other beats in both bytes and speed."""
    points = [(row["loaded"]["hot_bytes"] / 1e6, row["measured"]["qps"]) for row in rows]
    return [
        (x, y)
        for x, y in points
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]


def main(asked: argparse.Namespace) -> int:
    """Write the documentation, or say where it is not what the JSON makes."""
    made = json.loads(asked.json.read_text(encoding="utf-8"))
    text = asked.readme.read_text(encoding="utf-8")
    if _OPEN not in text or _CLOSE not in text:
        print(f"{asked.readme} has no {_OPEN} … {_CLOSE}", file=sys.stderr)
        return 2
    shown = re.sub(
        f"{re.escape(_OPEN)}.*{re.escape(_CLOSE)}",
        lambda _: f"{_OPEN}\n{readme(made)}\n{_CLOSE}", text, flags=re.DOTALL,
    )  # fmt: skip
    written = {asked.docs / "benchmarks.md": document(made), asked.readme: shown}
    if asked.check:
        stale = [file for file, new in written.items() if file.read_text(encoding="utf-8") != new]
        for file in stale:
            print(f"{file} is not what {asked.json} makes", file=sys.stderr)
        return 1 if stale or not (asked.docs / _PICTURE).exists() else 0
    for file, new in written.items():
        file.write_text(new, encoding="utf-8")
    picture(made, asked.docs / _PICTURE)
    return 0
