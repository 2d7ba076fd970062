"""Vectors and embedders for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestvec import Record
from nestvec.nesting import Matrix


def nested_vectors(n: int, dim: int, seed: int = 0, decay: float = 0.5) -> Matrix:
    """Return (n, dim) vectors whose numbers shrink as (1 + i) ** -decay, as nested models' do."""
    rng = np.random.default_rng(seed)
    scale = (1.0 + np.arange(dim)) ** -decay
    return np.asarray(rng.standard_normal((n, dim)) * scale, dtype=np.float32)


def records(vectors: Matrix, prefix: str = "") -> list[Record]:
    """Return a record for each vector, with some metadata to filter on."""
    return [
        Record(f"{prefix}{i}", f"text {i}", {"n": i, "even": i % 2 == 0, "tag": f"t{i % 7}"}, row)
        for i, row in enumerate(vectors)
    ]


class HashEmbedder:
    """Vectors that depend on the words of a text only; equal texts get equal vectors."""

    def __init__(self, dim: int = 8, name: str = "hash") -> None:
        self.dim, self.name = dim, name
        self.calls: list[int] = []

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.calls.append(len(texts))
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> Any:
        total = np.zeros(self.dim)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
            total += np.random.default_rng(seed).standard_normal(self.dim)
        return total
