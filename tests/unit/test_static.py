"""The static embedder: in the package, offline, and as good as its report says."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import EmbedderError
from nestvec.embedders import resolve

ROOT = Path(__file__).parents[2]
MODEL = Path(nestvec.__file__).parent / "embedders" / "static_model"
SCIFACT = ROOT.parent / "shared" / "data" / "scifact"


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_it_is_at_most_ten_megabytes_and_says_where_it_comes_from() -> None:
    files = {file.name: file.stat().st_size for file in MODEL.iterdir()}
    assert sum(files.values()) <= 10_000_000
    assert {"LICENSE", "PROVENANCE.md", "report.json", "model.safetensors"} <= files.keys()


def test_related_texts_are_nearer_in_every_prefix() -> None:
    embedder = resolve("static")
    assert (embedder.name, embedder.dim) == ("static", 256)
    documents = ["The doctor treats a patient.", "Stock prices fell sharply.", "A cat chases mice."]
    rows = embedder.embed_documents(documents)
    query = embedder.embed_query("the financial market went down")
    assert rows.shape == (3, 256)
    for length in (64, 128, 256):
        scores = unit(rows[:, :length]) @ query[:length]
        assert scores.argmax() == 1, length


def test_it_needs_neither_torch_nor_a_network() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('no network here')\n"
        "socket.socket.connect = refuse\n"
        "import nestvec\n"
        "store = nestvec.connect('memory:', dims=(64, 128), embedder='static')\n"
        "store.add(['one text', 'another'])\n"
        "assert store.search('text')[0].text == 'one text'\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_text_without_a_known_word_is_refused_by_its_id() -> None:
    with nestvec.connect("memory:", dims=(64,), embedder="static") as store:
        with pytest.raises(EmbedderError, match=r"'static': record 'b': vector is all zero"):
            store.add(["known words", "☃☃"], ids=["a", "b"])
        assert store.count() == 0


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="needs ../shared/data/scifact")
def test_it_reaches_on_scifact_what_its_report_says() -> None:
    report = json.loads((MODEL / "report.json").read_text())["scifact_test_ndcg_at_10"]
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        corpus = [json.loads(line) for line in file]
    relevant: dict[str, set[str]] = defaultdict(set)
    with (SCIFACT / "qrels" / "test.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]):
                relevant[row["query-id"]].add(row["corpus-id"])
    with (SCIFACT / "queries.jsonl").open() as file:
        queries = {q["_id"]: q["text"] for q in map(json.loads, file) if q["_id"] in relevant}
    embedder = resolve("static")
    documents = embedder.embed_documents([f"{doc['title']} {doc['text']}" for doc in corpus])
    asked = embedder.embed_documents(list(queries.values()))
    ids = [doc["_id"] for doc in corpus]
    for length, least in ((256, 0.48), (64, 0.38)):
        scores = unit(asked[:, :length]) @ unit(documents[:, :length]).T
        ranked = [[ids[i] for i in row] for row in np.argsort(-scores)[:, :10]]
        reached = [ndcg(ids, relevant[q]) for q, ids in zip(queries, ranked, strict=True)]
        assert np.mean(reached) == pytest.approx(report[str(length)], abs=0.002)
        assert np.mean(reached) > least


def ndcg(ranked: list[str], relevant: set[str]) -> float:
    """Return nDCG of a ranking for documents that are relevant or not."""
    discounts = 1 / np.log2(np.arange(len(ranked)) + 2)
    gained = sum(discount for id, discount in zip(ranked, discounts, strict=True) if id in relevant)
    return float(gained / discounts[: len(relevant)].sum())
