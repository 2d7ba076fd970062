"""A process that adds records until it is killed, saying which ids were returned.

Usage: python -m tests.faults.ingest_child DIRECTORY SEED
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count

import numpy as np

import nestvec
from nestvec import Record

DIM = 64
DIMS = (8, "16:int8")


def main(directory: str, seed: int) -> None:
    """Add calls of varied size: single records, several batches, enough to build the graph."""
    rng = np.random.default_rng(seed)
    store = nestvec.connect(f"edge:{directory}", dims=DIMS, dim=DIM, batch_size=100)
    numbers = count(seed * 1_000_000)
    print("open", flush=True)
    while True:
        size = int(rng.choice([1, 30, 250, 6_000], p=[0.3, 0.4, 0.25, 0.05]))
        ids = store.add_records(records(rng, numbers, size))
        print(" ".join(ids), flush=True)


def records(rng: np.random.Generator, numbers: Iterator[int], size: int) -> Iterator[Record]:
    for row in rng.standard_normal((size, DIM)).astype(np.float32):
        n = next(numbers)
        yield Record(f"id{n}", f"text {n}", {"n": n}, row)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
