"""A process that changes the fields of a collection until it is killed, saying what it finished.

Usage: python -m tests.faults.reshape_child URL FIELD
"""

from __future__ import annotations

import sys

import nestvec


def main(url: str, field: str) -> None:
    """Drop the field where it is, add it where it is not, and do the other of the two next."""
    store = nestvec.connect(url)
    print("open", flush=True)
    while True:
        if field in store.nesting.dims and store._collection.head.pending is None:
            store.drop_field(field)
            print("dropped", flush=True)
        pending = store._collection.head.pending
        if pending is not None and pending.startswith("-"):
            store.drop_field(field)
            print("dropped", flush=True)
        else:
            store.add_field(field)
            print("added", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
