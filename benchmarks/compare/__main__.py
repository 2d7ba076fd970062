"""The command: measure, and write what was measured."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from nestvec import sizing
from nestvec.nesting import Field

from . import edge, postgres, qdrant, report
from .contenders import Contender
from .limits import Group, NoLimit, drop_cache, limited
from .machine import machine, versions
from .measure import Chosen, Pace, Way, apart, choose, measure, prepare
from .servers import PostgresServer, QdrantServer, Server
from .vectors import GLOSSES, KINDS, Data, NoVectors, make

CONTENDERS = {
    "edge": edge.CONTENDERS, "postgres": postgres.CONTENDERS, "qdrant": qdrant.CONTENDERS,
}  # fmt: skip

#: What --quick measures: one small size, everybody.
QUICK = {
    "vectors": ["synthetic"], "sizes": [5_000], "queries": 100, "sample": 1_000,
    "rounds": 1, "seconds": 0.5, "budget": 2.0,
}  # fmt: skip


#: What a set that an interrupted run has measured was asked with, if it is to stand.
_SAME = ("target", "clients", "rounds", "seconds", "only")

#: Bytes of the smallest memory limit: below it are an engine's own buffers, and no index.
_LEAST = 32 << 20


class Enough(Exception):
    """The time that was given is over; the same command goes on where it ended."""


class Run:
    """One run of the command: sets of contenders on one engine, one kind of vectors, one size."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.work: Path = asked.work
        self.server: Server | None = None
        self.started = time.perf_counter()

    def sets(self) -> list[dict[str, Any]]:
        made = []
        try:
            for kind in self.asked.vectors:
                for size in self.asked.sizes:
                    data = make(
                        kind, size, self.asked.dim, self.asked.queries,
                        cache=self.work / "vectors", seed=self.asked.seed,
                        glosses=self.asked.glosses,
                    )  # fmt: skip
                    for engine in self.asked.engines:
                        if not self._contenders(engine, data):
                            continue
                        made.append(self._once(engine, data))
                        if not self.asked.keep:
                            self._stop()
                            shutil.rmtree(self._directory(engine, data), ignore_errors=True)
            for file in self.work.glob("*.json"):
                file.unlink()  # so that the next run measures again
        finally:
            self._stop()
        return made

    def _once(self, engine: str, data: Data) -> dict[str, Any]:
        """Return what an interrupted run has measured of a set, or measure it."""
        file = self.work / f"{engine}-{data.directory.name}.json"
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            if all(found[name] == getattr(self.asked, name) for name in _SAME):
                return found
        made = self.compared(engine, data)
        file.write_text(json.dumps(made))
        return made

    def _contenders(self, engine: str, data: Data) -> list[Contender]:
        some = [
            contender
            for contender in CONTENDERS[engine]
            if contender.most is None or len(data) <= contender.most
        ]
        slugs = {contender.slug for contender in some}

        def asked(slug: str, part: str) -> bool:
            return slug == part if part in slugs else part in slug

        only = self.asked.only
        return [each for each in some if not only or any(asked(each.slug, part) for part in only)]

    def _stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def compared(self, engine: str, data: Data) -> dict[str, Any]:
        """Return one set: everybody is loaded, finds its setting, and is measured in turns."""
        began = now()
        if engine == "edge":
            self._stop()
        say(f"{engine}: {len(data):,} {data.kind} vectors of {data.dim}")
        some = self._contenders(engine, data)
        states = {contender.slug: self._prepared(engine, contender, data) for contender in some}
        self._check_time(needed=len(some) * (self.asked.rounds * 4 + 6) * self.asked.seconds)
        load_before = Path("/proc/loadavg").read_text().split()[0]
        measured = self._in_turns(engine, some, data, states)
        tight, limit = self._tight(engine, some, data, states)
        rows = [
            {
                "name": contender.name, "side": contender.side, **states[contender.slug],
                "measured": measured[contender.slug], "limited": tight[contender.slug],
            }
            for contender in some
        ]  # fmt: skip
        left_out = [each.name for each in CONTENDERS[engine] if each not in some]
        return {
            "engine": engine, "vectors": data.kind, "documents": len(data), "dim": data.dim,
            "queries": len(data.queries), "target": self.asked.target, "seed": self.asked.seed,
            "clients": self.asked.clients, "rounds": self.asked.rounds,
            "seconds": self.asked.seconds, "only": self.asked.only, "began": began, "ended": now(),
            "load": [load_before, Path("/proc/loadavg").read_text().split()[0]],
            "limit_bytes": limit, "left_out": left_out, "machine": machine(),
            "versions": versions() | (self.server.versions if self.server else {}),
            "server": self.server.settings if self.server else {}, "contenders": rows,
        }  # fmt: skip

    def _prepared(self, engine: str, contender: Contender, data: Data) -> dict[str, Any]:
        """Load a contender and choose its setting, or read what an ended run did of that."""
        file = self._directory(engine, data) / f"{contender.slug}.json"
        state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        place = self._place(engine, data)
        how = (contender, data, place, self.asked.target, self.asked.budget)
        setting = None
        if contender.like:
            (other,) = (each for each in CONTENDERS[engine] if each.name == contender.like)
            setting = self._prepared(engine, other, data)["chosen"]["setting"]
        if not state:
            self._check_time()
            if engine == "edge":
                shutil.rmtree(Path(place) / contender.slug, ignore_errors=True)
            loaded, chosen = apart(
                partial(prepare, sample=self.asked.sample, setting=setting), *how
            )
            state = {"loaded": asdict(loaded) | {"at": now()}, "chosen": self._told(chosen)}
            say(f"  {contender.name}: written {loaded.write_s:.0f} s, built {loaded.build_s:.0f} s")
        elif state["chosen"]["target"] != self.asked.target:
            self._check_time()
            state["chosen"] = self._told(apart(partial(choose, setting=setting), *how))
        file.write_text(json.dumps(state))
        given = state["chosen"]
        say(f"  {contender.name}: recall {given['recall']:.4f} with {given['setting']}")
        return state

    def _told(self, chosen: Chosen) -> dict[str, Any]:
        return asdict(chosen) | {"target": self.asked.target, "at": now()}

    def _in_turns(
        self, engine: str, some: Sequence[Contender], data: Data, states: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Measure everybody round after round; who comes first changes with each round."""
        rounds: dict[str, list[dict[str, Any]]] = {contender.slug: [] for contender in some}
        for turn in range(self.asked.rounds):
            for contender in some if turn % 2 == 0 else reversed(some):
                if self.server is not None and turn == 0:  # its memory is then of one contender
                    self.server.stop()
                    self.server.start()
                pace = self._paced(contender, data, self._place(engine, data), states)
                if turn > 0 and self.server is not None:
                    pace["resident_bytes"] = None
                rounds[contender.slug].append(pace)
                say(f"  {contender.name}: {pace['qps']:.0f} queries a second")
        return {slug: summary(each) for slug, each in rounds.items()}

    def _paced(
        self,
        contender: Contender,
        data: Data,
        place: str,
        states: dict[str, Any],
        group: Group | None = None,
    ) -> dict[str, Any]:
        server = None if self.server is None else self.server.pid
        way = Way(self.asked.seconds, self.asked.clients, server, group)
        setting = states[contender.slug]["chosen"]["setting"]
        pace: Pace = apart(measure, contender, data, place, setting, way)
        return asdict(pace)

    def _tight(
        self, engine: str, some: Sequence[Contender], data: Data, states: dict[str, Any]
    ) -> tuple[dict[str, dict[str, Any]], int]:
        """Measure everybody in a memory limit of a quarter of the full float32 index."""
        full = Field(data.dim, full=True)
        limit = sizing.hot_bytes(engine, [full], len(data)) // 4
        found: dict[str, dict[str, Any]] = {}
        for contender in some:
            try:
                if limit < _LEAST:
                    raise NoLimit(f"{limit:,} bytes are less than any process needs")
                found[contender.slug] = self._limited(engine, contender, data, states, limit)
                say(f"  {contender.name}, limited: {found[contender.slug]['qps']:.0f}")
            except (NoLimit, MemoryError) as error:
                found[contender.slug] = {"not_measured": str(error)}
                say(f"  {contender.name}, limited: {error}")
        if self.server is not None:
            self.server.restart(self.server.settings)
        return found, limit

    def _limited(
        self, engine: str, contender: Contender, data: Data, states: dict[str, Any], limit: int
    ) -> dict[str, Any]:
        place = self._place(engine, data)
        with limited(limit) as group:
            if self.server is None:
                drop_cache(Path(place) / contender.slug)
                return self._paced(contender, data, place, states, group)
            self.server.restart({"shared_buffers": f"{max(16, limit >> 22)}MB"})
            self.server.stop()
            drop_cache(self.server.directory)
            try:
                self.server.start(group)
                return self._paced(contender, data, self.server.url, states)
            except Exception as error:  # whatever a client says whose server was killed
                told = f"the server did not hold: {type(error).__name__}"
                raise MemoryError(told) from error
            finally:
                self.server.stop()
                self.server.start()

    def _directory(self, engine: str, data: Data) -> Path:
        made = self.work / f"{engine}-{data.directory.name}"
        made.mkdir(parents=True, exist_ok=True)
        return made

    def _place(self, engine: str, data: Data) -> str:
        directory = self._directory(engine, data) / "data"
        if engine == "edge":
            return str(directory)
        if self.server is None or self.server.directory.resolve() != directory.resolve():
            self._stop()
            binary = self.asked.qdrant_binary
            made = QdrantServer(directory, binary) if engine == "qdrant" else None
            self.server = made or PostgresServer(directory)
        return self.server.url

    def _check_time(self, needed: float = 0.0) -> None:
        if self.asked.stop_after is None:
            return
        if time.perf_counter() - self.started + needed > self.asked.stop_after:
            raise Enough


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over the rounds, and the rounds."""
    found: dict[str, Any] = {"rounds": rounds}
    for name in ("p50", "p95", "qps", "qps_clients", "resident_bytes"):
        found[name] = statistics.median(each[name] for each in rounds if each[name] is not None)
    return found


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def say(line: str) -> None:
    print(line, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write JSON and Markdown")
    run.add_argument(
        "--quick",
        action="store_true",
        help="everybody on 5,000 vectors, about three minutes on two cores",
    )
    run.add_argument("--engines", nargs="+", choices=CONTENDERS, help="all that there are here")
    run.add_argument(
        "--qdrant-binary",
        type=Path,
        default=os.environ.get("NESTVEC_QDRANT"),
        help="of a Qdrant server, or NESTVEC_QDRANT; without it no server is measured",
    )
    run.add_argument("--vectors", nargs="+", choices=KINDS, default=["synthetic"])
    run.add_argument("--sizes", nargs="+", type=int, default=[50_000, 200_000, 1_000_000])
    run.add_argument("--dim", type=int, default=1_024, help="of synthetic vectors")
    run.add_argument(
        "--only", nargs="+", help="contenders of one of these names, or with it in theirs"
    )
    run.add_argument("--target", type=float, default=0.99, help="recall@10 that all must reach")
    run.add_argument("--queries", type=int, default=500)
    run.add_argument("--clients", type=int, default=4)
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    run.add_argument("--budget", type=float, default=60.0, help="seconds to choose a setting")
    run.add_argument("--sample", type=int, default=5_000, help="rows by a slow interface itself")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--glosses", type=Path, default=GLOSSES, help="glosses.jsonl.gz")
    run.add_argument("--work", type=Path, help="kept, so that a run can go on; else temporary")
    run.add_argument("--keep", action="store_true", help="keep what was loaded")
    run.add_argument("--stop-after", type=float, help="seconds; the same command goes on")
    run.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    run.add_argument("--add", action="store_true", help="to the sets that OUT has already")
    write = commands.add_parser("report", help="write the documentation from a JSON")
    write.add_argument("json", type=Path)
    write.add_argument("--docs", type=Path, default=Path("docs"))
    write.add_argument("--readme", type=Path, default=Path("README.md"))
    write.add_argument("--check", action="store_true", help="end with an error where they differ")
    return parser


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments()
    asked = parser.parse_args(given)
    if asked.command == "report":
        return report.main(asked)
    if asked.quick:
        for name, value in QUICK.items():
            if getattr(asked, name) == parser.parse_args(["run"]).__dict__[name]:
                setattr(asked, name, value)
    if asked.work is None:
        with tempfile.TemporaryDirectory(prefix="nestvec-bench-") as folder:
            asked.work = Path(folder)
            return _run(asked)
    return _run(asked)


def _run(asked: argparse.Namespace) -> int:
    if asked.engines is None:
        asked.engines = [name for name in CONTENDERS if name != "qdrant" or asked.qdrant_binary]
    if "qdrant" in asked.engines and not asked.qdrant_binary:
        print("error: give --qdrant-binary for the engine qdrant", file=sys.stderr)
        return 2
    try:
        sets = Run(asked).sets()
    except Enough:
        say("the time is over; the same command goes on from here")
        return 75
    except NoVectors as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not sets:
        names = [each.slug for some in CONTENDERS.values() for each in some]
        print(
            f"error: nobody to measure; --only knows parts of {', '.join(names)}", file=sys.stderr
        )
        return 2
    before: list[dict[str, Any]] = []
    if asked.add:
        with suppress(FileNotFoundError):
            before = json.loads(asked.out.read_text())["sets"]
    command = "python -m benchmarks.compare " + " ".join(sys.argv[1:])
    made = {"sets": [*before, *({"command": command} | each for each in sets)]}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(made, indent=1) + "\n")
    markdown = asked.out.with_suffix(".md")
    markdown.write_text(report.tables(made))
    say(f"{asked.out} and {markdown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
