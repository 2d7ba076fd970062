"""A memory limit: a control group of our own below the one that this process is in."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Group", "NoLimit", "drop_cache", "limited"]

_ROOT = Path("/sys/fs/cgroup")


class NoLimit(RuntimeError):
    """This machine lets nobody set a limit here; the message says why."""


class Group:
    """A control group with a memory limit; what a process takes before it joins is not counted."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.home, version = _home()
        self.path = self.home / f"nestvec-bench-{os.getpid()}"
        try:
            if version == 2:
                controllers = (self.home / "cgroup.controllers").read_text().split()
                if "memory" not in controllers:
                    raise NoLimit(f"{self.home} has no memory controller")
                (self.home / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
            name = "memory.max" if version == 2 else "memory.limit_in_bytes"
            (self.path / name).write_text(str(limit))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            raise NoLimit(f"cannot make a control group below {self.home}: {error}") from error

    def join(self) -> None:
        """Move this process, and what it starts from now on, into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def leave(self) -> None:
        (self.home / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Remove the group, as soon as its last process is gone."""
        for _ in range(100):
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise NoLimit(f"{self.path} is still in use")


@contextmanager
def limited(limit: int) -> Iterator[Group]:
    """Make a group of `limit` bytes for a while. Raises NoLimit."""
    group = Group(limit)
    try:
        yield group
    finally:
        group.close()


def _home() -> tuple[Path, int]:
    """Return the control group of this process that can limit memory, and its version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _ROOT / "memory" / path.lstrip("/"), 1
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return _ROOT / line[3:].lstrip("/"), 2
    raise NoLimit("this process is in no control group that limits memory")


def drop_cache(directory: Path) -> None:
    """Let the system forget what it holds in memory of these files, so that reading is counted."""
    for file in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file():
                handle = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(handle)
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(handle)
