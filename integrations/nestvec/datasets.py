"""What embedders are evaluated on: questions with known answers, and pairs with known likeness.

A folder holds corpus, queries and qrels, as BEIR has them: JSON Lines with `_id`, `title` and
`text`, and qrels/SPLIT.tsv with query-id, corpus-id and score; corpus and queries may be TSV (an
id, a title where there are three columns, a text), qrels may be JSON Lines, or TREC's four columns.
A file holds one example a line, JSON Lines or TSV with a header: sentence1, sentence2 and score, or
query and document, with a score where they are graded, or title and text, where the titles are the
queries. Each may be compressed as NAME.gz.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError

__all__ = ["Retrieval", "Similarity", "load"]

_IDS = ("_id", "id", "docid", "doc_id", "qid", "query-id", "query_id")
_QUERY_IDS = ("query-id", "query_id", "qid")
_DOCUMENT_IDS = ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid")
_DOCUMENTS = ("document", "positive", "passage", "answer")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Documents and queries by id, and for each query the relevance of documents to it."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]

    @property
    def texts(self) -> int:
        """How many texts are embedded."""
        return len(self.queries) + len(self.documents)

    def __post_init__(self) -> None:
        if not self.documents or not self.relevant:
            raise ConfigError(f"{self.name} has no documents, or no query with a known answer")
        for query, answers in self.relevant.items():
            if query not in self.queries:
                raise ConfigError(f"{self.name}: the qrels name the query {query!r}, not there")
            for document in answers:
                if document not in self.documents:
                    raise ConfigError(
                        f"{self.name}: the qrels name the document {document!r}, not there"
                    )


@dataclass(frozen=True, slots=True)
class Similarity:
    """Pairs of texts, and how alike people found them."""

    name: str
    pairs: Sequence[tuple[str, str]]
    scores: Sequence[float]

    @property
    def texts(self) -> int:
        """How many texts are embedded."""
        return 2 * len(self.pairs)

    def __post_init__(self) -> None:
        if len(self.pairs) < 2 or len(set(self.scores)) < 2:
            raise ConfigError(f"{self.name}: a rank correlation needs pairs with unlike scores")


def load(path: str | Path, split: str = "test") -> Retrieval | Similarity:
    """Return the data of a folder or a file; `split` chooses the qrels of a folder.

    Raises ConfigError, which names the file and the line.
    """
    place = Path(path)
    if place.is_dir():
        return _folder(place, split)
    if not place.is_file():
        raise ConfigError(f"no folder or file {str(path)!r}")
    rows = list(_rows(place))
    if not rows:
        raise ConfigError(f"{place} is empty")
    columns = rows[0][1]
    if "sentence1" in columns:
        return _similarity(place, rows)
    if "query" in columns and _first(columns, _DOCUMENTS):
        return _pairs(place, rows)
    if "title" in columns and "text" in columns:
        return _titled(place, rows)
    raise ConfigError(
        f"{place} has the columns {', '.join(map(str, columns))}; expected sentence1, sentence2 "
        "and score, query and document, or title and text"
    )


# Folders


def _folder(place: Path, split: str) -> Retrieval:
    documents = dict(_texts(_found(place, "corpus")))
    queries = dict(_texts(_found(place, "queries")))
    relevant: dict[str, dict[str, int]] = {}
    for query, document, score in _judgements(_qrels(place, split)):
        relevant.setdefault(query, {})[document] = score
    asked = {id: queries[id] for id in relevant if id in queries}
    return Retrieval(f"{place.name} {split}", documents, asked, relevant)


def _found(place: Path, stem: str) -> Path:
    for ending in ("jsonl", "jsonl.gz", "tsv", "tsv.gz"):
        if (file := place / f"{stem}.{ending}").is_file():
            return file
    raise ConfigError(f"{place} has no {stem}.jsonl or {stem}.tsv")


def _qrels(place: Path, split: str) -> Path:
    folder = place / "qrels"
    if not folder.is_dir():
        return _found(place, "qrels")
    files = {file.name.partition(".")[0]: file for file in sorted(folder.iterdir())}
    if split not in files:
        raise ConfigError(f"{folder} has no split {split!r}; it has {', '.join(files) or 'none'}")
    return files[split]


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    for where, row in _rows(file, bare=("_id", "text"), wide=("_id", "title", "text")):
        id, text = _first(row, _IDS), row.get("text")
        if id is None or not isinstance(text, str):
            raise ConfigError(f"{where}: expected _id and text")
        title = row.get("title")
        yield str(id), f"{title} {text}".strip() if isinstance(title, str) else text


def _judgements(file: Path) -> Iterator[tuple[str, str, int]]:
    columns = ("query-id", "corpus-id", "score")
    wide = ("query-id", "iteration", "corpus-id", "score")
    for where, row in _rows(file, bare=columns, wide=wide):
        query, document = _first(row, _QUERY_IDS), _first(row, _DOCUMENT_IDS)
        if query is None or document is None:
            raise ConfigError(f"{where}: expected query-id, corpus-id and score")
        yield str(query), str(document), int(_number(where, row.get("score", 1)))


# Files of one example a line


def _similarity(file: Path, rows: Sequence[tuple[str, dict[str, Any]]]) -> Similarity:
    pairs, scores = [], []
    for where, row in rows:
        one, other = row.get("sentence1"), row.get("sentence2")
        if not isinstance(one, str) or not isinstance(other, str):
            raise ConfigError(f"{where}: expected sentence1, sentence2 and score")
        pairs.append((one, other))
        scores.append(_number(where, row.get("score")))
    return Similarity(file.name, pairs, scores)


def _pairs(file: Path, rows: Sequence[tuple[str, dict[str, Any]]]) -> Retrieval:
    """Return a corpus of all documents of a file; equal texts are one document, or one query."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for where, row in rows:
        query, document = row.get("query"), _first(row, _DOCUMENTS)
        if not isinstance(query, str) or not isinstance(document, str):
            raise ConfigError(f"{where}: expected query and document, as texts")
        asked = queries.setdefault(query, f"q{len(queries)}")
        answer = documents.setdefault(document, f"d{len(documents)}")
        relevant.setdefault(asked, {})[answer] = int(_number(where, row.get("score", 1)))
    by_id = {id: text for text, id in documents.items()}
    return Retrieval(file.name, by_id, {id: text for text, id in queries.items()}, relevant)


def _titled(file: Path, rows: Sequence[tuple[str, dict[str, Any]]]) -> Retrieval:
    """Return the texts of documents as a corpus, and their titles as queries for them.

    A document without a title, or without a text, says nothing here.
    """
    asked = [
        (where, {"query": row["title"], "document": row["text"]})
        for where, row in rows
        if row.get("title") and row.get("text")
    ]
    return _pairs(file, asked)


# Lines


def _rows(
    file: Path, *, bare: Sequence[str] = (), wide: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the columns of each line.

    A TSV without a header has the columns `bare`, or `wide` where it is as wide as that.
    """
    name = file.name.removesuffix(".gz")
    with _opened(file) as lines:
        try:
            if name.endswith(".jsonl"):
                yield from _json_rows(file, lines)
            elif name.endswith((".tsv", ".trec", ".qrels", ".txt")):
                yield from _table_rows(file, lines, bare, wide)
            else:
                raise ConfigError(f"{file}: expected .jsonl or .tsv, or either with .gz")
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from error


def _opened(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _json_rows(file: Path, lines: IO[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{file}:{n}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{file}:{n}: expected an object, got {type(row)}")
        yield f"{file}:{n}", row


def _table_rows(
    file: Path, lines: IO[str], bare: Sequence[str], wide: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    columns: Sequence[str] | None = None
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))
        if len(cells) == 1 and len(split := line.split()) == len(wide) == 4:
            cells = split  # TREC separates by any blanks
        if columns is None:
            known = {*_IDS, *_QUERY_IDS, "sentence1", "query"}
            header = cells[0].strip().lower() in known
            columns = [c.strip().lower() for c in cells] if header else _width(cells, bare, wide)
            if header:
                continue
        if len(cells) != len(columns):
            raise ConfigError(f"{file}:{n}: {len(cells)} columns, expected {len(columns)}")
        yield f"{file}:{n}", dict(zip(columns, (cell.strip("\r\n") for cell in cells), strict=True))


def _width(cells: Sequence[str], bare: Sequence[str], wide: Sequence[str]) -> Sequence[str]:
    if not bare:
        return cells  # the first line is the header, whatever it says
    return wide if len(cells) == len(wide) else bare


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _number(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}: score is a number, got {value!r}")
    return number
