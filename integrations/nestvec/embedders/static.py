"""The default embedder: a static model inside the package, for first steps, offline and at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from model2vec import StaticModel

from ..nesting import Matrix

__all__ = ["MODEL", "StaticEmbedder"]

#: The directory of the model.
MODEL = Path(__file__).parent / "static_model"


class StaticEmbedder:
    """256 numbers a text, distilled from all-MiniLM-L6-v2; prefixes of 64 and 128 are useful.

    Good for trying things, tests and small corpora of English text; where answers matter use a
    Matryoshka model (README.md). What it reaches is in static_model/report.json.
    """

    name = "static"
    dim = 256

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, 256) matrix, not of unit length."""
        vectors: Matrix = _model().encode(list(texts), use_multiprocessing=False)
        return vectors

    def embed_query(self, text: str) -> Matrix:
        """Return the 256 numbers of a query; they are made as a document's are."""
        query: Matrix = self.embed_documents([text])[0]
        return query


@lru_cache(maxsize=1)
def _model() -> Any:
    return StaticModel.from_pretrained(MODEL)
