"""A lock on a file that one process has until it ends, and that its children do not inherit."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    HELD: tuple[type[OSError], ...] = (BlockingIOError, PermissionError)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    HELD = (BlockingIOError,)

__all__ = ["HELD", "FileLock"]


class FileLock:
    """A lock on a file; a second one on it, also in this process, is refused at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises one of HELD where somebody has it, OSError where it cannot be."""
        if self.path.is_symlink():  # where O_NOFOLLOW is unknown
            raise OSError(None, "it is a link, and links are not followed", str(self.path))
        # Not followed: a link in a directory from elsewhere may lead to any file.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self.path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(None, "it is no file", str(self.path))
            _lock(descriptor)
            self._descriptor = descriptor
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)

    def release(self) -> None:
        """Let go of the lock; nothing where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                _unlock(descriptor)
            finally:
                os.close(descriptor)

    def leave(self) -> None:
        """Close what a child has of its parent's lock; the parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
