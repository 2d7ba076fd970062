"""How fast a rotation is fitted, and what prefixes find with it.

    python benchmarks/adaptors.py fit
    python benchmarks/adaptors.py recall MODEL DATA --cache DIR

`fit` makes 100,000 vectors of 1,024 numbers and fits them at once and from a file, beside the
product of a matrix with itself that any such fit takes. `recall` embeds the glosses and SciFact
(`glosses/` and `scifact/` in DATA) with a sentence-transformers MODEL such as all-MiniLM-L6-v2,
keeps the vectors in DIR, and ends with an error where a figure is below what is promised. With
--glosses N it takes a random part of the glosses, which is an easier task.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nestvec.adaptors import RotationAdaptor, recall_by_prefix
from nestvec.datasets import Retrieval, load
from nestvec.evaluation import evaluate
from nestvec.nesting import Matrix

#: What is promised: recall on the glosses, nDCG@10 on SciFact by prefix, and of full.
GLOSSES, SCIFACT, FULL = 0.988, 0.559, 0.6451


def timed(label: str, function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    made = function()
    seconds = time.perf_counter() - started
    print(f"{label:42} {seconds:8.1f} s", flush=True)
    return seconds, made


def fit(n: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    vectors *= (1 + np.arange(dim, dtype=np.float32)) ** -0.5
    print(f"{n:,} vectors of {dim:,} numbers")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "v.npy"
        np.save(file, vectors)
        mapped = np.load(file, mmap_mode="r")
        _, streamed = timed("RotationAdaptor.fit, from a file", lambda: RotationAdaptor.fit(mapped))
    whole, at_once = timed("RotationAdaptor.fit, in memory", lambda: RotationAdaptor.fit(vectors))
    raw, _ = timed("product and eigenvectors alone, float64", lambda: _alone(vectors))
    assert streamed == at_once
    print(f"in memory, beside the product alone: {whole / raw:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of the process: {peak:,.0f} MB")
    assert whole < 60, f"{whole:.1f} s"


def _alone(vectors: Matrix) -> Any:
    wide = vectors.astype(np.float64)
    return np.linalg.eigh(wide.T @ wide)


class Cached:
    """A model whose vectors are kept in files, batch by batch, so that embedding can go on."""

    def __init__(self, model: str, directory: Path) -> None:
        self.name, self.directory, self._model = model, directory, model
        self.loaded: Any = None
        directory.mkdir(parents=True, exist_ok=True)

    def vectors(self, name: str, texts: list[str], size: int = 2048) -> Matrix:
        whole = self.directory / f"{name}.npy"
        if whole.exists() and len(found := np.load(whole)) == len(texts):
            return np.asarray(found)
        parts = []
        for start in range(0, len(texts), size):
            part = self.directory / f"{name}.{start:07d}.npy"
            if not part.exists():
                np.save(part, self._encode(texts[start : start + size]))
                print(f"  {name}: {start + size:,} of {len(texts):,}", flush=True)
            parts.append(np.load(part))
        np.save(whole, np.concatenate(parts))
        return np.concatenate(parts)

    def _encode(self, texts: list[str]) -> Matrix:
        if self.loaded is None:
            from sentence_transformers import SentenceTransformer

            self.loaded = SentenceTransformer(self._model)
        made: Matrix = self.loaded.encode(texts, batch_size=128, normalize_embeddings=True)
        return made


class Known:
    """Vectors that were made before, by their texts, as an embedder."""

    name = "cached"

    def __init__(self, texts: list[str], vectors: Matrix) -> None:
        self.rows = dict(zip(texts, vectors, strict=True))
        self.dim = vectors.shape[1]

    def embed_documents(self, texts: Any) -> Matrix:
        return np.stack([self.rows[text] for text in texts])

    def embed_query(self, text: str) -> Matrix:
        return np.asarray(self.rows[text])


def glosses(model: Cached, data: Path, part: int | None) -> float:
    with gzip.open(data / "glosses" / "glosses.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    examples = [example for row in rows for example in row["examples"]]
    random.Random(0).shuffle(examples)
    queries = model.vectors("gloss_queries", examples[:1000])
    texts = [row["text"] for row in rows]
    if part is not None:
        chosen = np.random.default_rng(0).permutation(len(texts))[:part]
        texts = [texts[i] for i in chosen]
    documents = model.vectors("gloss_docs" + (f"_{part}" if part else ""), texts)
    _, rotation = timed("fitted on the glosses", lambda: RotationAdaptor.fit(documents))
    at = {}
    for candidates in (50, 100, 200):
        made = recall_by_prefix(
            documents, queries, (64, 128, 192), after=rotation, candidates=candidates
        )
        print(made)
        at[candidates] = {row.length: row.after for row in made.rows}
    return at[100][128]


def scifact(model: Cached, data: Path) -> tuple[float, float]:
    loaded = load(data / "scifact")
    assert isinstance(loaded, Retrieval)
    texts = list(loaded.documents.values())
    asked = list(loaded.queries.values())
    documents = model.vectors("scifact_docs", texts)
    known = Known([*texts, *asked], np.concatenate([documents, model.vectors("scifact_q", asked)]))
    rotation = RotationAdaptor.fit(documents)
    found: dict[str, dict[str, float]] = {}
    for label, adaptor in (("as it is", None), ("rotated", rotation)):
        made = evaluate(known, loaded, dims=(64, 128, 256, "full"), adaptor=adaptor)
        print(f"SciFact {label}\n{made.table()}")
        found[label] = {row.dims: row.metrics["ndcg@10"] for row in made.rows}
    assert abs(found["rotated"]["full"] - found["as it is"]["full"]) < 1e-9
    return found["rotated"]["64"], found["rotated"]["full"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit")
    fitting.add_argument("--vectors", type=int, default=100_000)
    fitting.add_argument("--dim", type=int, default=1_024)
    recall = commands.add_parser("recall")
    recall.add_argument("model")
    recall.add_argument("data", type=Path)
    recall.add_argument("--cache", type=Path, required=True)
    recall.add_argument("--glosses", type=int)
    recall.add_argument("--only", choices=("glosses", "scifact"))
    args = parser.parse_args()
    if args.command == "fit":
        fit(args.vectors, args.dim)
        return
    model = Cached(args.model, args.cache)
    missed = []
    if args.only != "glosses":
        short, full = scifact(model, args.data)
        missed += [f"SciFact at 64 {short:.4f}"] if short < SCIFACT - 5e-4 else []
        missed += [f"SciFact full {full:.4f}"] if abs(full - FULL) > 5e-4 else []
    if args.only != "scifact":
        reached = glosses(model, args.data, args.glosses)
        missed += [f"glosses at 128 {reached:.4f}"] if reached < GLOSSES - 5e-4 else []
    sys.exit(f"below what is promised: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
