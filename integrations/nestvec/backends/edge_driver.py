"""The directory of a collection and the engine's open shard: the only place that touches either."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition as Signal
from threading import Lock
from typing import Any

from ..errors import BackendError, CollectionDamaged, NestvecError, Unavailable
from ..flow import Call
from ..nesting import Field, Matrix, Nesting
from ..processes import abandon, forked, on_fork
from .base import Head, Stored
from .edge_lock import HELD, FileLock
from .edge_wire import EdgeOptions, config, full_of, metric, qe
from .points import Vector, as_stored, coded, made_of, same_numbers, stranger, vector_name

__all__ = ["Driver"]

#: How many documents get another vector at once; nobody else writes meanwhile.
_FILL = 500


class _Gate:
    """A context that lets many in at once, or one who must be alone, for whom the others wait."""

    def __init__(self) -> None:
        self._changed = Signal()
        self._inside, self._shut = 0, False

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._shut = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


class Driver:
    """The directory and the open shard: the only place that touches files or the engine."""

    def __init__(self, root: Path, collection: str, options: EdgeOptions) -> None:
        self.root = root
        self.path = root / collection
        self.options = options
        self.shard: qe.EdgeShard | None = None
        self.lock = FileLock(root / f".{collection}.lock")
        self.writing = Lock()
        self.gate = _Gate()
        self.drift = False
        self.inherited = False
        on_fork(self, Driver._leave)

    def _leave(self) -> None:
        """Leave all to the parent: one process at a time may have the directory open."""
        abandon(self.shard)  # it flushes when it is finalised
        self.shard, self.inherited = None, True
        self.lock.leave()
        _close_files(self.path)  # the engine's log has a lock of its own
        self.writing, self.gate = Lock(), _Gate()

    def perform(self, request: Call) -> Any:
        if self.inherited:
            raise forked(
                f"edge:{self.path}",
                "Edge has one process a directory: connect here once the parent has closed it, or "
                "use a Qdrant server",
            )
        own = getattr(self, request.method, None)
        try:
            if own is not None:
                return own(*request.args)
            with self.gate:
                return getattr(self._open(), request.method)(*request.args)
        except NestvecError:
            raise
        except OSError as error:
            raise BackendError(f"edge:{self.root}: {error.strerror}: {error.filename}") from error
        except Exception as error:  # the engine raises plain Exception
            raise BackendError(f"edge:{self.path} refused {request.method}: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Rust's, which is no Exception
                raise
            raise BackendError(f"edge:{self.path} failed in {request.method}: {error}") from error

    def _open(self) -> qe.EdgeShard:
        if self.shard is None:
            raise BackendError(f"edge:{self.path} is closed; connect again")
        return self.shard

    def read_head(self) -> Head | None:
        if not self.path.exists():
            return None
        self._acquire()
        try:
            return self._read_head()
        except BaseException:
            self.lock.release()
            raise

    def load(self, head: Head) -> None:
        place = str(self.path / "shard")
        self.options = self.options.over(self._kept_graph())
        try:
            self.shard = qe.EdgeShard.load(place)
        except Exception:
            # The engine adds and drops a vector segment by segment, and what a kill leaves in
            # between it does not open. It is of a field that is made again or was to go.
            if head.pending is None:
                raise
            pending = Nesting.of((head.pending[1:],), head.nesting.dim).fields[0]
            self._strip(vector_name(pending))
            graphs = (*head.added, head.nesting.fields[0].name)
            self.shard = qe.EdgeShard.load(place, config(head.nesting, self.options, graphs))

    def _kept_graph(self) -> EdgeOptions:
        """Return the options that the shard's graph is made with."""
        told = json.loads((self.path / "shard" / "edge_config.json").read_text())
        graphs = (vector.get("hnsw_config") or {} for vector in told["vectors"].values())
        graph = next(each for each in graphs if each.get("m"))
        return EdgeOptions(graph["m"], graph["ef_construct"])

    def asks_for_another_graph(self) -> bool:
        return self.options.graph != self._kept_graph().graph

    def _strip(self, name: str) -> None:
        """Remove a named vector from the files of all segments."""
        shard = self.path / "shard"
        for file in (shard / "edge_config.json", *shard.glob("segments/*/segment.json")):
            told = json.loads(file.read_text())
            (told["config"]["vector_data"] if "config" in told else told["vectors"]).pop(name, None)
            new = file.with_suffix(".new")
            new.write_text(json.dumps(told))
            new.replace(file)
        for part in ("vector_storage", "vector_index"):
            for directory in shard.glob(f"segments/*/{part}-{name}"):
                shutil.rmtree(directory)

    def create(self, head: Head) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._acquire()
        making = self.root / f".{self.path.name}.making"
        try:
            if self.path.exists():
                raise Unavailable(f"edge:{self.path} was just made by another process; try again")
            shutil.rmtree(making, ignore_errors=True)
            (making / "shard").mkdir(parents=True)
            self._write_head(making, head.to_json())
            qe.EdgeShard.create(str(making / "shard"), config(head.nesting, self.options)).close()
            making.rename(self.path)
            self.shard = qe.EdgeShard.load(str(self.path / "shard"))
        except BaseException:
            self.lock.release()
            raise

    def _acquire(self) -> None:
        try:
            self.lock.acquire()
        except HELD:
            raise Unavailable(
                f"edge:{self.path} is open in another process or store; Edge has one writer a "
                "directory: close the other one, or use a Qdrant server to share a collection"
            ) from None
        except OSError as error:
            raise BackendError(
                f"edge:{self.root} cannot be written ({error.strerror}); Edge keeps a write-ahead "
                "log there, so it needs write permission also for reading"
            ) from error

    def _read_head(self) -> Head:
        manifest = self.path / "nestvec.json"
        if not manifest.exists() or not (self.path / "shard").is_dir():
            raise CollectionDamaged(
                f"{self.path} exists but is not a nestvec collection (no nestvec.json with a "
                "shard beside it); choose another directory or collection, nothing was changed"
            )
        head = Head.from_json(manifest.read_text(encoding="utf-8", errors="replace"), str(manifest))
        self.drift = (self.path / "drift").exists()
        return head

    def add_vector(self, vector: Vector) -> None:
        """Add a named vector that no point has yet; nothing where it is there."""
        kept = json.loads((self.path / "shard" / "edge_config.json").read_text())
        if vector.name not in kept["vectors"]:
            datatype = getattr(qe.VectorStorageDatatype, vector.datatype.capitalize())
            self.update(
                qe.UpdateOperation.create_dense_vector(
                    vector.name, vector.size, metric(vector), None, datatype
                )
            )

    def fill(self, field: Field, dim: int, after: Any) -> tuple[int, Any]:
        """Make a vector for some points that lack it; nothing else is written meanwhile."""
        name = vector_name(field)
        lacking = qe.Filter(
            must=[qe.HasVectorCondition("full")], must_not=[qe.HasVectorCondition(name)]
        )
        asked = qe.ScrollRequest(
            offset=after, limit=_FILL, filter=lacking, with_payload=["id"], with_vector=["full"]
        )
        with self.writing:
            shard = self._open()
            points, after = shard.scroll(asked)
            if points:
                full = [full_of(point) for point in points]
                names = [f"record {stranger(p.id, p.payload).id!r}" for p in points]
                rows = coded(made_of(full, field, dim, names), field.precision)
                made: list[Any] = [memoryview(row) for row in rows]
                changed = [
                    qe.PointVectors(point.id, {name: row})
                    for point, row in zip(points, made, strict=True)
                ]
                shard.update(qe.UpdateOperation.update_vectors(changed))
        return len(points), after

    def rewrite(
        self, mended: Sequence[tuple[Stored, Mapping[str, Matrix]]], kept: Sequence[Vector]
    ) -> None:
        """Give points other vectors, but for those that were replaced since they were read."""
        with self.writing:
            shard = self._open()
            now = shard.retrieve([stored.key for stored, _ in mended], False, ["full"])
            there = {point.id: as_stored(point).vectors.get("full") for point in now}
            changed = []
            for stored, vectors in mended:
                same = stored.key in there and same_numbers(
                    there[stored.key], stored.vectors.get("full")
                )
                if same:
                    rows: Any = {
                        each.name: coded(vectors[each.name], each.datatype).tolist()
                        for each in kept
                    }
                    changed.append(qe.PointVectors(stored.key, rows))
            if changed:
                shard.update(qe.UpdateOperation.update_vectors(changed))

    def reshape(self, nesting: Nesting, graphs: Sequence[str]) -> None:
        """Open the shard anew with these graphs beside the first, while nobody uses it."""
        changed = config(nesting, self.options, graphs)
        with self.writing, self.gate.alone():
            self._open().flush()
            self.shard, shard = None, self.shard
            assert shard is not None
            shard.close()
            self.shard = qe.EdgeShard.load(str(self.path / "shard"), changed)

    def record(self, head: Head) -> None:
        with self.writing:
            self._open()
            self._write_head(self.path, head.to_json(), "nestvec.json.new")
            (self.path / "nestvec.json.new").replace(self.path / "nestvec.json")

    @staticmethod
    def _write_head(directory: Path, text: str, name: str = "nestvec.json") -> None:
        with (directory / name).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def pending(self) -> int:
        """Return what was noted last; all there is where a kill came between."""
        try:
            return int((self.path / "pending").read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            return sys.maxsize

    def note_pending(self, pending: int) -> int:
        """Remember how many documents the graph lacks; return how many there are."""
        (self.path / "pending").write_text(str(pending))
        with self.gate:
            return self._open().info().points_count

    def drifts(self) -> bool:
        return self.drift

    def note_drift(self) -> None:
        """Remember that some payloads have `raw`, before the first of them is written."""
        if not self.drift:
            (self.path / "drift").touch()
            self.drift = True

    def delete(self, condition: qe.Filter) -> int:
        with self.writing:
            shard = self._open()
            counted = shard.count(qe.CountRequest(True, condition))
            if counted:
                shard.update(qe.UpdateOperation.delete_points_by_filter(condition))
            return counted

    def update(self, operation: qe.UpdateOperation) -> None:
        with self.writing:
            self._open().update(operation)

    def disk_bytes(self) -> int:
        return sum(file.stat().st_blocks * 512 for file in self.path.rglob("*") if file.is_file())

    def drop(self) -> None:
        self._open()
        self.shard, shard = None, self.shard
        if shard is not None:
            shard.close()
        dropping = self.root / f".{self.path.name}.dropping"
        shutil.rmtree(dropping, ignore_errors=True)  # what a kill left of an earlier drop
        self.path.rename(dropping)
        shutil.rmtree(dropping)
        self.lock.release()

    def close(self) -> None:
        self.shard, shard = None, self.shard
        if shard is not None:
            shard.flush()
            shard.close()
        self.lock.release()


def _close_files(directory: Path) -> None:
    """Close what this process has open in a directory, where the system tells."""
    opened = Path("/proc/self/fd")
    within = f"{directory.absolute()}{os.sep}"
    for each in opened.iterdir() if opened.is_dir() else ():
        with suppress(OSError):  # what listed them is closed again
            if str(each.readlink()).startswith(within):
                os.close(int(each.name))
