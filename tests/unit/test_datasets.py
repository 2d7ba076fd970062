"""The forms of data that an evaluation reads, and what is said of data that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nestvec import ConfigError
from nestvec.datasets import Retrieval, Similarity, load

DOCUMENTS = {"d1": "Title one first", "d2": "second"}
QUERIES = {"q1": "which?", "q2": "what?"}
RELEVANT = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}

CORPUS = (
    '{"_id": "d1", "title": "Title one", "text": "first"}\n\n'
    '{"_id": "d2", "title": "", "text": "second", "metadata": {}}\n'
)
ASKED = (
    '{"_id": "q1", "text": "which?"}\n{"_id": "q2", "text": "what?"}\n{"_id": "q3", "text": "x"}'
)
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\n"


def folder(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return place


FORMS: dict[str, dict[str, str]] = {
    "BEIR": {"corpus.jsonl": CORPUS, "queries.jsonl": ASKED, "qrels/test.tsv": QRELS},
    "compressed": {
        "corpus.jsonl.gz": CORPUS, "queries.jsonl.gz": ASKED, "qrels/test.tsv.gz": QRELS,
    },
    "TSV without headers": {
        "corpus.tsv": "d1\tTitle one\tfirst\r\nd2\t\tsecond\r\n",
        "queries.tsv": "q1\twhich?\nq2\twhat?\n",
        "qrels.tsv": "q1\td1\t1\nq1\td2\t0\nq2\td2\t2\n",
    },
    "TSV with headers, other orders": {
        "corpus.tsv": "id\ttext\ttitle\nd1\tfirst\tTitle one\nd2\tsecond\t\n",
        "queries.tsv": "qid\ttext\nq1\twhich?\nq2\twhat?\n",
        "qrels/test.tsv": "query_id\tscore\tdoc_id\nq1\t1\td1\nq1\t0\td2\nq2\t2\td2\n",
    },
    "TREC": {
        "corpus.jsonl": CORPUS, "queries.jsonl": ASKED,
        "qrels/test.txt": "q1 0 d1 1\nq1 0 d2 0\nq2  0  d2  2\n",
    },
    "qrels as JSON Lines": {
        "corpus.jsonl": CORPUS.replace("_id", "id"), "queries.jsonl": ASKED,
        "qrels.jsonl": '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n'
        '{"query-id": "q1", "corpus-id": "d2", "score": 0}\n'
        '{"query-id": "q2", "corpus-id": "d2", "score": 2}\n',
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_says_the_same_in_every_form(form: str, tmp_path: Path) -> None:
    data = load(folder(tmp_path / "set", FORMS[form]))
    assert isinstance(data, Retrieval)
    assert (data.documents, data.queries, data.relevant) == (DOCUMENTS, QUERIES, RELEVANT)
    assert (data.name, data.texts) == ("set test", 4)


def test_a_split_is_chosen(tmp_path: Path) -> None:
    files = {**FORMS["BEIR"], "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq3\td2\t1\n"}
    place = folder(tmp_path / "set", files)
    data = load(place, "dev")
    assert isinstance(data, Retrieval)
    assert data.queries == {"q3": "x"}
    with pytest.raises(ConfigError, match=r"no split 'train'; it has dev, test"):
        load(place, "train")


def test_pairs_of_a_file(tmp_path: Path) -> None:
    lines = [{"sentence1": "a", "sentence2": "b", "score": 0.5},
             {"sentence1": "c", "sentence2": "d", "score": 4}]  # fmt: skip
    written = "\n".join(map(json.dumps, lines))
    table = "sentence1\tsentence2\tscore\na\tb\t0.5\nc\td\t4\n"
    for name, text in (("sts.jsonl", written), ("sts.tsv", table), ("sts.tsv.gz", table)):
        data = load(folder(tmp_path, {name: text}) / name)
        assert isinstance(data, Similarity)
        assert (data.pairs, data.scores) == ([("a", "b"), ("c", "d")], [0.5, 4.0])
        assert data.texts == 4


def test_questions_and_answers_of_a_file(tmp_path: Path) -> None:
    lines = [{"query": "who", "document": "me"}, {"query": "what", "document": "it", "score": 2},
             {"query": "who", "document": "you"}]  # fmt: skip
    text = "\n".join(map(json.dumps, lines))
    data = load(folder(tmp_path, {"qa.jsonl": text}) / "qa.jsonl")
    assert isinstance(data, Retrieval)
    assert data.documents == {"d0": "me", "d1": "it", "d2": "you"}
    assert data.queries == {"q0": "who", "q1": "what"}
    assert data.relevant == {"q0": {"d0": 1, "d2": 1}, "q1": {"d1": 2}}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no corpus": ({"corpus.jsonl": None}, r"set has no corpus\.jsonl or corpus\.tsv"),
    "no queries": ({"queries.jsonl": None}, r"set has no queries\.jsonl"),
    "no qrels": ({"qrels/test.tsv": None}, r"set has no qrels\.jsonl or qrels\.tsv"),
    "not JSON": ({"corpus.jsonl": CORPUS + "{"}, r"corpus\.jsonl:4: not JSON"),
    "no object": ({"corpus.jsonl": "[1]"}, r"corpus\.jsonl:1: expected an object"),
    "no text": ({"corpus.jsonl": '{"_id": "d1"}'}, r"corpus\.jsonl:1: expected _id and text"),
    "no id": ({"queries.jsonl": '{"text": "x"}'}, r"queries\.jsonl:1: expected _id and text"),
    "ragged": ({"qrels/test.tsv": QRELS + "q1\td1\n"}, r"test\.tsv:5: 2 columns, expected 3"),
    "score": ({"qrels/test.tsv": QRELS + "q1\td1\tx\n"}, r"tsv:5: score is a number, got 'x'"),
    "unknown document": (
        {"qrels/test.tsv": "q1\td9\t1\n"}, r"the qrels name the document 'd9', not there",
    ),
    "unknown query": ({"qrels/test.tsv": "q9\td1\t1\n"}, r"the qrels name the query 'q9'"),
    "empty qrels": ({"qrels/test.tsv": ""}, "no documents, or no query with a known answer"),
    "not UTF-8": ({"corpus.jsonl": b"\xff\xfe"}, r"corpus\.jsonl cannot be read"),
    "not compressed": (
        {"corpus.jsonl": None, "corpus.jsonl.gz": b"plain"}, r"corpus\.jsonl\.gz cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named_with_its_place(case: str, tmp_path: Path) -> None:
    changes, told = BROKEN[case]
    place = folder(tmp_path / "set", FORMS["BEIR"])
    for name, content in changes.items():
        path = place / name
        if content is None:
            path.unlink()
            if path.parent != place:
                path.parent.rmdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=told):
        load(place)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.csv", "a,b", r"expected \.jsonl or \.tsv"),
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", '{"text": "a"}', "has the columns text; expected sentence1"),
        ("x.tsv", "a\tb\n1\t2\n", "has the columns a, b; expected"),
        ("x.jsonl", '{"sentence1": "a", "sentence2": "b", "score": 1}', "needs pairs with unlike"),
        ("x.jsonl", '{"sentence1": "a", "sentence2": null, "score": 1}', r"x\.jsonl:1: expected"),
        ("x.jsonl", '{"sentence1": "a", "sentence2": "b"}', r"x\.jsonl:1: score is a number"),
        ("x.jsonl", '{"query": "a", "document": 3}', r"x\.jsonl:1: expected query and document"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        load(folder(tmp_path, {name: text}) / name)


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder or file"):
        load(tmp_path / "nowhere")
