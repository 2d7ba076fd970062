"""How good an embedder's answers are by prefix length, by layers and by funnel, on your own data.

Every ranking here is exact: what the numbers say, not what an index finds. Retrieval is measured by
ir-measures (trec_eval), likeness by scipy's rank correlation.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .datasets import Retrieval, Similarity, load
from .embedders import Embedder, embed_queries, resolve
from .errors import ConfigError, EmbedderError, MissingExtra, NestingError
from .funnel import Funnel, Plan, check_count, plan
from .nesting import Field, Matrix, Nesting, nest, unit_rows

__all__ = ["DIMS", "Evaluation", "Row", "evaluate"]

#: The prefix lengths that are measured where none are given, as far as the vectors reach.
DIMS: tuple[int | str, ...] = (32, 64, 128, 256, "full")

#: How deep rankings are judged for recall@100 and MAP.
_DEPTH = 100

#: Texts that are embedded in one call, so that progress can be told.
_CHUNK = 512

#: Scores that are held at once: 256 MB of float32.
_SCORES = 64_000_000

_LABELS = {"ndcg": "nDCG", "recall": "recall", "mrr": "MRR", "map": "MAP", "spearman": "Spearman"}


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one way to search: a prefix, or a funnel that ends with full.

    `layers` is None for the whole encoder. `bytes` is what the field that is searched first takes
    for one document, as float32. `metrics` are means over queries, in [0, 1]; Spearman in [-1, 1].
    """

    layers: int | None
    dims: str
    length: int
    bytes: int
    metrics: Mapping[str, float]
    funnel: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An embedder measured on one set of data; `rows` from the longest prefix to the shortest.

    `task` is "retrieval" or "sts", `queries` counts queries or pairs, and `seconds` are those of
    embedding everything once, with the first of the layers that were asked for; None where a cache
    had some of it.
    """

    embedder: str
    dataset: str
    task: str
    dim: int
    documents: int
    queries: int
    seconds: float | None
    rows: tuple[Row, ...]
    adaptor: str | None = None

    @property
    def metric(self) -> str:
        """The name of the metric that is shown first."""
        return next(iter(self.rows[0].metrics))

    @property
    def unit(self) -> str:
        """What `queries` counts."""
        return "question" if self.task == "retrieval" else "pair"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "metric": self.metric}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_dict` wrote."""
        rows = tuple(Row(**row) for row in written["rows"])
        plain = {key: value for key, value in written.items() if key not in {"rows", "metric"}}
        return cls(**plain, rows=rows)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    def table(self) -> str:
        """Return a Markdown table: ways to search by metrics, or layers by ways to search."""
        layers = list(dict.fromkeys(row.layers for row in self.rows))
        if len(layers) == 1:
            names = list(self.rows[0].metrics)
            lines = [
                [row.funnel or row.dims, str(row.bytes), *(f"{row.metrics[n]:.4f}" for n in names)]
                for row in self.rows
            ]
            return _markdown(["dims", "bytes", *map(_label, names)], lines)
        ways = list(dict.fromkeys(row.funnel or row.dims for row in self.rows))
        cells = {(row.layers, row.funnel or row.dims): row.metrics for row in self.rows}
        lines = [
            ["all" if n is None else str(n), *(f"{cells[n, way][self.metric]:.4f}" for way in ways)]
            for n in layers
        ]
        return _markdown([f"{_label(self.metric)} by layers", *ways], lines)

    def plot(self, path: str | Path, metric: str | None = None) -> None:
        """Draw a metric by prefix length, a line for each number of layers, to an image file.

        Raises MissingExtra without matplotlib, ConfigError on an unknown metric or kind of file.
        """
        metric = metric or self.metric
        if metric not in self.rows[0].metrics:
            raise ConfigError(f"no metric {metric!r}; there are {', '.join(self.rows[0].metrics)}")
        from .plots import lines

        joined: dict[str, list[tuple[float, float]]] = {}
        marks: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            series, label = (marks, "rescored by full") if row.funnel else (joined, "prefix alone")
            if row.layers is not None:
                label = f"{label}, {row.layers} layers"
            series.setdefault(label, []).append((row.length, row.metrics[metric]))
        lines(
            path, joined, marks=marks, title=f"{self.embedder}\non {self.dataset}",
            x="numbers of the prefix that is searched first", y=_label(metric),
        )  # fmt: skip


def evaluate(
    embedder: Any,
    data: Retrieval | Similarity | str | Path,
    *,
    dims: Iterable[int | str] | str = DIMS,
    layers: Sequence[int] | None = None,
    funnels: Sequence[Funnel | str] = (),
    k: int = 10,
    split: str = "test",
    adaptor: Any = None,
    cache: str | Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure an embedder by prefix length, by layers, and by funnel.

    `embedder` is all that `connect` takes. `data` is loaded by `nestvec.datasets.load` where it is
    a path. `dims` are prefix lengths, "full" among them or not. `layers` are numbers of layers to
    keep, for embedders that can. `funnels` are plans such as "64:100": 100 candidates of the first
    64 numbers, rescored by full. `k` is how many hits nDCG, recall and MRR judge; recall@100 and
    MAP judge 100. An `adaptor` makes the prefixes; full stays the model's own. `cache` is a
    directory that keeps vectors, by the embedder's spec string or name and the texts: an evaluation
    that was stopped goes on there, and one with other dims embeds nothing. `advance` is called with
    the number of texts that were embedded just now.

    Raises ConfigError (data), NestingError (dims), FunnelError, EmbedderError, or MissingExtra.
    """
    model = resolve(embedder)
    if not isinstance(data, (Retrieval, Similarity)):
        data = load(data, split)
    check_count("k", k, 1)
    _need_measures()
    models = [(None, model)] if layers is None else [(n, _kept(model, n)) for n in layers]
    if not models:
        raise ConfigError("layers is empty; leave it out, or give numbers of layers")
    if isinstance(data, Similarity) and funnels:
        raise ConfigError("funnels are for retrieval; likeness is measured by dims")
    rows: list[Row] = []
    seconds: list[float] = []
    width = models[0][1].dim
    nesting = _nesting(dims, width, funnels)
    fields = _asked(dims, nesting)
    ways = [plan(funnel, nesting, k) for funnel in funnels]
    keep = _Keep(cache, embedder if isinstance(embedder, str) else model.name)
    for n, one in models:
        started = time.perf_counter()
        made = _embedded(one, data, keep, advance or (lambda _: None))
        seconds.append(time.perf_counter() - started)
        one_side, other = (_nested(vectors, nesting, adaptor) for vectors in made)
        if isinstance(data, Similarity):
            rows += _alike(n, data, one_side, other, fields)
        else:
            rows += _retrieved(n, data, one_side, other, fields=fields, ways=ways, k=k)
    pairs = isinstance(data, Similarity)
    return Evaluation(
        embedder=model.name,
        dataset=data.name,
        task="sts" if pairs else "retrieval",
        dim=width,
        documents=data.texts if isinstance(data, Similarity) else len(data.documents),
        queries=len(data.pairs) if isinstance(data, Similarity) else len(data.queries),
        seconds=None if keep.used else round(seconds[0], 2),
        rows=tuple(rows),
        adaptor=None if adaptor is None else adaptor.name,
    )


# What is measured


def _nesting(
    dims: Iterable[int | str] | str, width: int, funnels: Sequence[Funnel | str]
) -> Nesting:
    """Return a nesting of all the prefixes that dims and funnels name."""
    lengths = {length for length in _lengths(dims, width) if length < width}
    for funnel in funnels:
        parsed = Funnel.parse(funnel) if isinstance(funnel, str) else funnel
        for stage in parsed.stages:
            if match := re.fullmatch(r"d?(\d+)", stage.field):
                lengths |= {int(match[1])}
    fields = [Field(length) for length in sorted(lengths)]
    return Nesting((*fields, Field(width, full=True)))


def _lengths(dims: Iterable[int | str] | str, width: int) -> list[int]:
    items = [item.strip() for item in dims.split(",")] if isinstance(dims, str) else list(dims)
    if not items or items == [""]:
        raise NestingError("dims is empty; give prefix lengths such as 64,256,full")
    found = []
    for item in items:
        if isinstance(item, str) and item != "full" and not item.isdigit():
            raise NestingError(f"dims has {item!r}; evaluated are prefix lengths and 'full'")
        length = width if item == "full" else int(item)
        if length < 1 or (length > width and items != list(DIMS)):
            raise NestingError(f"dims has {item}, but the vectors have {width} numbers")
        if length <= width:
            found.append(length)
    return found


def _asked(dims: Iterable[int | str] | str, nesting: Nesting) -> list[Field]:
    """Return the fields that dims names, longest first."""
    lengths = set(_lengths(dims, nesting.dim))
    return [field for field in reversed(nesting.fields) if field.length in lengths]


def _kept(model: Embedder, layers: int) -> Embedder:
    if not hasattr(model, "with_layers"):
        raise EmbedderError(f"{model.name}: layers can be kept of st:NAME_OR_DIR alone")
    kept: Embedder = model.with_layers(layers)
    return kept


class _Keep:
    """A directory of vectors, each file a chunk of texts of one embedder; or none."""

    def __init__(self, directory: str | Path | None, embedder: str) -> None:
        self.directory = None if directory is None else Path(directory)
        self.embedder, self.used = embedder, False
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)

    def get(self, kind: str, texts: Sequence[str], make: Callable[[], Matrix]) -> Matrix:
        """Return the vectors that are kept, or make and keep them."""
        if self.directory is None:
            return make()
        told = json.dumps([self.embedder, kind, *texts])
        path = self.directory / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npy"
        if path.exists():
            self.used = True
            kept: Matrix = np.load(path, allow_pickle=False)
            return kept
        made = make()
        with tempfile.NamedTemporaryFile(dir=self.directory, delete=False) as file:
            np.save(file, made)
        Path(file.name).replace(path)  # whole or not at all
        return made


def _embedded(
    model: Embedder, data: Retrieval | Similarity, keep: _Keep, advance: Callable[[int], None]
) -> tuple[Matrix, Matrix]:
    """Return the unit vectors of queries and documents, or of both sides of the pairs."""

    def vectors(
        kind: str, embed: Callable[[Sequence[str]], Any], texts: Sequence[str], ids: Sequence[str]
    ) -> Matrix:
        """Return the unit vectors of texts, embedded like with like so that batches are even."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        made: Matrix = np.empty((len(texts), model.dim), np.float32)
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            several, named = [texts[i] for i in part], [ids[i] for i in part]
            make = partial(_unit, model, embed, several, named)
            made[part] = keep.get(f"{model.name} {kind}", several, make)
            advance(len(part))
        return made

    if isinstance(data, Similarity):
        ids = [str(n) for n in range(1, len(data.pairs) + 1)]
        one, other = (
            vectors("document", model.embed_documents, [pair[side] for pair in data.pairs], ids)
            for side in (0, 1)
        )
        return one, other
    asked, documents = data.queries, data.documents
    return (
        vectors("query", partial(embed_queries, model), list(asked.values()), list(asked)),
        vectors("document", model.embed_documents, list(documents.values()), list(documents)),
    )


def _unit(
    model: Embedder,
    embed: Callable[[Sequence[str]], Any],
    texts: Sequence[str],
    ids: Sequence[str],
) -> Matrix:
    rows = embed(texts)
    if len(rows) != len(texts):
        raise EmbedderError(f"{model.name} made {len(rows)} vectors of {len(texts)} texts")
    try:
        return unit_rows(rows, model.dim, [f"text {id!r}" for id in ids])
    except NestingError as error:
        raise EmbedderError(f"embedder {model.name!r}: {error}") from error


def _nested(vectors: Matrix, nesting: Nesting, adaptor: Any) -> dict[str, Matrix]:
    nested = nest(vectors, nesting)
    if adaptor is None:
        return nested
    return {**nest(adaptor.apply(vectors), nesting), "full": nested["full"]}


# Retrieval


def _retrieved(
    layers: int | None,
    data: Retrieval,
    queries: Mapping[str, Matrix],
    documents: Mapping[str, Matrix],
    *,
    fields: Sequence[Field],
    ways: Sequence[Plan],
    k: int,
) -> list[Row]:
    rows = []
    query_ids, ids = list(data.queries), list(data.documents)
    depth = max(k, _DEPTH)
    for field in fields:
        found = _best(queries[field.name], documents[field.name], depth)
        metrics = _measured(data, query_ids, ids, found, k)
        rows.append(Row(layers, _named(field), field.length, field.nbytes, metrics))
    for way in ways:
        found = _through(way, queries, documents, depth)
        metrics = _measured(data, query_ids, ids, found, k)
        first = way.stages[0][0] if way.stages else Field(queries["full"].shape[1], full=True)
        rows.append(Row(layers, _named(first), first.length, first.nbytes, metrics, str(way)))
    return rows


def _named(field: Field) -> str:
    return "full" if field.full else str(field.length)


Found = tuple[npt.NDArray[np.intp], Matrix]


def _best(queries: Matrix, documents: Matrix, k: int) -> Found:
    """Return the indices and the scores of the k best documents of each query, best first."""
    k = min(k, len(documents))
    several = max(1, _SCORES // len(documents))
    indices, best = [], []
    for start in range(0, len(queries), several):
        scores = queries[start : start + several] @ documents.T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        chosen = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-chosen, axis=1, kind="stable")
        indices.append(np.take_along_axis(top, order, axis=1))
        best.append(np.take_along_axis(chosen, order, axis=1))
    return np.concatenate(indices), np.concatenate(best)


def _through(
    way: Plan, queries: Mapping[str, Matrix], documents: Mapping[str, Matrix], depth: int
) -> Found:
    """Return what a funnel leaves: each stage ranks the candidates of the one before it."""
    if not way.stages:
        return _best(queries["full"], documents["full"], depth)
    (first, limit), *later = way.stages
    candidates, _ = _best(queries[first.name], documents[first.name], limit)
    stages = [*((field.name, limit) for field, limit in later), ("full", depth)]
    for name, limit in stages:
        rows = documents[name]
        scores = np.stack(
            [rows[mine] @ query for query, mine in zip(queries[name], candidates, strict=True)]
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        candidates = np.take_along_axis(candidates, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
    return candidates, scores


def _measured(
    data: Retrieval, query_ids: Sequence[str], ids: Sequence[str], found: Found, k: int
) -> dict[str, float]:
    import ir_measures as measures
    from ir_measures import AP, RR, R, nDCG

    wanted = {
        f"ndcg@{k}": nDCG @ k,
        f"recall@{k}": R @ k,
        f"recall@{_DEPTH}": R @ _DEPTH,
        f"mrr@{k}": RR @ k,
        f"map@{_DEPTH}": AP @ _DEPTH,
    }
    run = {
        query: {ids[i]: float(score) for i, score in zip(mine, scores, strict=True)}
        for query, mine, scores in zip(query_ids, *found, strict=True)
    }
    qrels = {query: dict(answers) for query, answers in data.relevant.items()}
    got = measures.calc_aggregate(list(wanted.values()), qrels, run)
    return {name: float(got[measure]) for name, measure in wanted.items()}


def _need_measures() -> None:
    try:
        import ir_measures  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("ir-measures", "evaluation") from error


# Likeness


def _alike(
    layers: int | None,
    data: Similarity,
    one: Mapping[str, Matrix],
    other: Mapping[str, Matrix],
    fields: Sequence[Field],
) -> list[Row]:
    from scipy.stats import spearmanr

    rows = []
    for field in fields:
        cosines = np.einsum("ij,ij->i", one[field.name], other[field.name])
        reached = float(spearmanr(cosines, data.scores).statistic)
        metrics = {"spearman": reached}
        rows.append(Row(layers, _named(field), field.length, field.nbytes, metrics))
    return rows


# Tables


def _label(metric: str) -> str:
    stem, at, k = metric.partition("@")
    return f"{_LABELS.get(stem, stem)}{at}{k}"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]

    def written(line: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = ["-" * width if n == 0 else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    return "\n".join([written(header), written(rule), *map(written, lines)])
