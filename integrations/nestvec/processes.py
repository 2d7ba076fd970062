"""What belongs to one process: a fork copies memory, but not what the memory stands for.

Connections, file locks, threads and open files stay the parent's; a lock that another thread held
at the fork is never released in the child. What owns such things says here how it starts anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from threading import local
from typing import Any, NamedTuple, TypeVar
from weakref import ref

from .errors import Unavailable

__all__ = ["abandon", "forked", "on_fork"]

T = TypeVar("T")


class _Owner(NamedTuple):
    """What is told of a fork for as long as it lives, what to call then, and what lock to hold."""

    it: ref[Any]
    act: Callable[[Any], None]
    lock: Any


class _Forking(local):
    """The locks that a thread holds while it forks."""

    def __init__(self) -> None:
        self.held: list[Any] = []


_owners: dict[int, _Owner] = {}
_forking = _Forking()


def on_fork(owner: T, act: Callable[[T], None], *, lock: Any = None) -> None:
    """Call `act(owner)` in every child that is forked from this process while `owner` lives.

    `act` is a function and no bound method, because the owner is held weakly; one owner has one.
    It makes new locks and forgets what is the parent's, and must not wait or fail. `lock`, an
    RLock, is held over the fork so that the child copies nothing half way: a lock for what ends
    by itself and asks no other.
    """
    key, owners = id(owner), _owners
    owners[key] = _Owner(ref(owner, lambda _: owners.pop(key, None)), act, lock)


def abandon(*things: Any) -> None:
    """Never finalise these: what they would flush, unlock or close in a child is the parent's."""
    import ctypes

    for thing in things:
        if thing is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def forked(what: str, advice: str) -> Unavailable:
    """Return the error of a store that cannot be used in a child of the process that opened it."""
    return Unavailable(f"{what} was opened before this process was forked, by its parent; {advice}")


def _before() -> None:
    for owner in tuple(_owners.values()):  # in one order, so that two threads may fork at once
        if owner.lock is not None:
            _forking.held.append(owner.lock)
            owner.lock.acquire()


def _release() -> None:
    while _forking.held:
        with suppress(RuntimeError):  # an interrupt came before it was acquired
            _forking.held.pop().release()


def _in_child() -> None:
    _release()
    for owner in tuple(_owners.values()):
        if (it := owner.it()) is not None:
            owner.act(it)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_in_child)
