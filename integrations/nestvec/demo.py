"""What `nestvec demo` asks the docstrings of Python's standard library."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import ConfigError
from .filters import F, Filter
from .records import Info, Trace
from .stdlib_docs import PREFIX
from .store import Store

__all__ = ["Answer", "answers", "check_ours", "next_commands"]

#: Questions, each with a filter or None.
QUESTIONS: tuple[tuple[str, Filter | None], ...] = (
    ("how do I parse a date from a string?", None),
    ("create a temporary directory that is deleted afterwards", None),
    ("compare two sequences and show the differences", None),
    ("sort a list without changing the original", None),
    ("shuffle a list in random order", None),
    ("wait until it has finished", F("module") == "threading"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, the filter it was asked with, and what happened."""

    question: str
    where: Filter | None
    trace: Trace


def check_ours(store: Store) -> None:
    """Refuse a collection with documents that are not the demo's. Raises ConfigError."""
    other = next((doc.id for doc in store.scan() if not doc.id.startswith(PREFIX)), None)
    if other is not None:
        known = store.info()
        raise ConfigError(
            f"collection {known.collection!r} in {known.url} holds other documents, such as "
            f"{other!r}; give the demo a place of its own, as in: nestvec demo edge:./elsewhere"
        )


def answers(store: Store) -> Iterator[Answer]:
    """Ask the questions one by one."""
    for question, where in QUESTIONS:
        yield Answer(question, where, store.explain(question, 3, where=where))


def next_commands(program: str, known: Info) -> list[str]:
    """Return what to type after the demo."""
    target = shlex.quote(known.url)
    if known.collection != "docs":
        target += f" --collection {shlex.quote(known.collection)}"
    return [
        f'{program} search {target} "how do I read a CSV file?"',
        f'{program} search {target} "a queue" --where kind=class --explain',
        f"{program} info {target}",
        f"{program} add edge:./mine README.md",
    ]
