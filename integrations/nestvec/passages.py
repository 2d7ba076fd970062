"""Documents from files, directories and standard input, split into passages with stable ids.

Passage 0 of a document has the document's id, the later ones `id#1`, `id#2`, …
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from .errors import ConfigError, RecordError
from .records import MAX_ID, Record, check_id, plain

__all__ = ["FORMATS", "Document", "Found", "Source", "find", "passage_id", "read", "split"]

#: The most characters of a passage: about as much as one vector can say.
PASSAGE = 800

#: How files are read, by suffix.
SUFFIXES = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
FORMATS = ("jsonl", "text", "markdown")

#: Directories that are not walked into, beside the hidden ones.
_SKIPPED = {"node_modules", "__pycache__"}

# The splitter's time grows with the square of the text: 70 s for 3 MB, 1 s in blocks of this size.
_BLOCK = 50_000

_SPLITTERS: dict[bool, TextSplitter | MarkdownSplitter] = {
    False: TextSplitter(PASSAGE),
    True: MarkdownSplitter(PASSAGE),
}

_HEADING = re.compile(r"^ {0,3}(?:(```|~~~)|#{1,6}[ \t](.*)$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """The passages of one text, none where it is blank; `nbytes` were read for it.

    A record whose metadata said itself which passage it is comes alone: none follow from it.
    """

    id: str
    passages: tuple[Record, ...]
    nbytes: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or standard input where `path` is None; the lines of JSON Lines have their own ids.

    A format that is None is told from what is read.
    """

    name: str
    path: Path | None
    format: str | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to read, and how many files in directories are of no known kind.

    `nbytes` is None where standard input is among them.
    """

    sources: tuple[Source, ...]
    skipped: int
    nbytes: int | None


def find(
    paths: Iterable[str], *, root: str | None = None, id: str | None = None,
    format: str | None = None,
) -> Found:  # fmt: skip
    """Return what the paths name: files, directories, and `-`, standard input.

    A file's id is its absolute path, or its path below `root`. `id` and `format` are those of
    standard input. Raises ConfigError, and OSError on what is not there.
    """
    paths = list(paths)
    _check_stdin(paths.count("-"), id, format)
    sources: list[Source] = []
    skipped = 0
    for name in paths:
        if name == "-":
            sources.append(Source("standard input", None, format, id))
        elif Path(name).is_dir():
            inside = list(_walk(Path(name)))
            known = [path for path in inside if _known(path)]
            sources += [_file(path, root) for path in known]
            skipped += len(inside) - len(known)
        else:
            sources.append(_file(Path(name), root))
    sizes = [source.path.stat().st_size for source in sources if source.path is not None]
    return Found(tuple(sources), skipped, None if "-" in paths else sum(sizes))


def _check_stdin(times: int, id: str | None, format: str | None) -> None:
    if times > 1:
        raise ConfigError("standard input can be read once; give - once")
    if not times and (id is not None or format is not None):
        raise ConfigError("--id and --format are those of standard input; give - as a path")
    if format not in (None, *FORMATS):
        raise ConfigError(f"unknown --format {format!r}; known are {', '.join(FORMATS)}")
    if id is not None:
        check_id(id)


def _walk(directory: Path) -> Iterator[Path]:
    """Yield the files below a directory in order; links to directories are not followed."""
    for folder, folders, files in os.walk(directory, onerror=_refuse):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED)
        yield from (Path(folder, file) for file in sorted(files))


def _known(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _refuse(error: OSError) -> NoReturn:
    raise error


def _file(path: Path, root: str | None) -> Source:
    path.stat()  # raises OSError, which names the path
    format = SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise ConfigError(f"{path}: this kind of file is not read; known are {' '.join(SUFFIXES)}")
    resolved = path.resolve()
    try:
        id = (resolved if root is None else resolved.relative_to(Path(root).resolve())).as_posix()
        id.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{str(path)!r}: the name is not UTF-8; rename the file") from None
    except ValueError:
        raise ConfigError(f"{path} is not below --root {root}, so it has no id there") from None
    return Source(str(path), path, format, id)


def read(source: Source) -> Iterator[Document]:
    """Yield the documents of a source: one of a text, one a line of JSON Lines.

    Raises RecordError, which names the file and the line, ConfigError, or OSError.
    """
    if source.path is None:
        yield from _read_stdin(source, sys.stdin.buffer)
        return
    with source.path.open("rb") as file:
        yield from _lines(source, file) if source.format == "jsonl" else [_text(source, file)]


def _read_stdin(source: Source, file: IO[bytes]) -> Iterator[Document]:
    head: list[bytes] = []
    for line in file:
        head.append(line)
        if line.strip():
            break
    begins = head[-1].lstrip() if head else b""
    lines = chain(head, file)
    if source.format == "jsonl" or (source.format is None and begins.startswith(b"{")):
        if source.id is not None:
            raise ConfigError("--id is for a text; each line of JSON Lines brings its own")
        yield from _lines(source, lines)
        return
    if source.id is None:
        raise ConfigError("a text from standard input needs an id; give --id NAME")
    yield _text(source, lines)


# Texts


def _text(source: Source, lines: Iterable[bytes]) -> Document:
    assert source.id is not None
    data = b"".join(lines)
    text = _decoded(data, source.name).replace("\r\n", "\n")
    id, markdown = passage_id(source.id, 0), source.format == "markdown"
    headings = _headings(text) if markdown else []
    passages = []
    for n, (start, passage) in enumerate(split(text, markdown=markdown)):
        metadata: dict[str, Any] = {"source": source.id, "passage": n}
        if above := bisect(headings, (start, chr(sys.maxunicode))):
            metadata["heading"] = headings[above - 1][1]
        passages.append(Record(passage_id(id, n), passage, metadata))
    return Document(id, tuple(passages), len(data))


def _decoded(data: bytes, where: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{where} is not UTF-8 at byte {error.start}; save it as UTF-8, or leave it out"
        ) from None
    if "\0" in text:
        raise RecordError(f"{where} is not a text: it has a NUL character; leave it out")
    return text


def split(text: str, *, markdown: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the passages of a text, each with the character where it starts; none of a blank."""
    splitter = _SPLITTERS[markdown]
    start = 0
    while start < len(text):
        end = _block_end(text, start)
        for offset, passage in splitter.chunk_indices(text[start:end]):
            yield start + offset, passage
        start = end


def _block_end(text: str, start: int) -> int:
    """Return where a block that starts there ends: after a paragraph, a line or a word."""
    limit = start + _BLOCK
    if limit >= len(text):
        return len(text)
    ends = (text.rfind(mark, start, limit) + len(mark) for mark in ("\n\n", "\n", " "))
    return next((end for end in ends if end > start + _BLOCK // 2), limit)


def _headings(text: str) -> list[tuple[int, str]]:
    """Return the headings of a Markdown text, each with the character where it starts."""
    found, fence = [], ""
    for match in _HEADING.finditer(text):
        if match[1]:
            fence = "" if fence == match[1] else fence or match[1]
        elif not fence and (title := match[2].strip().rstrip("#").strip()):
            found.append((match.start(), title))
    return found


def passage_id(id: str, n: int) -> str:
    """Return the id of the n-th passage of a document; a hash where it would be too long."""
    made = id if n == 0 else f"{id}#{n}"
    return made if len(made) <= MAX_ID else _hashed(made)


def _hashed(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


# JSON Lines


def _lines(source: Source, lines: Iterable[bytes]) -> Iterator[Document]:
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{source.name}, line {n}"
        given = _parsed(_decoded(line, where), where)
        try:
            yield _line_document(given, len(line))
        except RecordError as error:
            raise RecordError(f"{where}: {error}") from None


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line.rstrip(), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: not JSON at column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON that can be stored: {error}") from None
    if not isinstance(given, dict):
        raise RecordError(f'{where}: expected an object such as {{"text": "…"}}, got {line[:40]!r}')
    return given


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _line_document(given: Mapping[str, Any], nbytes: int) -> Document:
    if unknown := sorted(set(given) - {"text", "id", "metadata"}):
        raise RecordError(
            f"unknown key {unknown[0]!r}; a line has text, id and metadata: "
            "what else is known of the text goes into metadata"
        )
    text, metadata = given.get("text"), given.get("metadata")
    if not isinstance(text, str):
        raise RecordError("text is missing" if text is None else f"text is a string, got {text!r}")
    metadata = {} if metadata is None else plain(metadata, "metadata")
    if not isinstance(metadata, dict):
        raise RecordError(f"metadata is an object, got {metadata!r}")
    id = None if given.get("id") is None else check_id(given["id"])
    Record(id or "-", text)  # refuses a text that is no UTF-8, before it is hashed and split
    id = id or _hashed(text)
    if not text.strip():
        return Document(id, (), nbytes)
    if len(text) <= PASSAGE:
        return Document(id, (Record(id, text, metadata),), nbytes, alone="passage" in metadata)
    if "passage" in metadata:
        raise RecordError(
            f"the text is longer than {PASSAGE} characters, so it is split and 'passage' says "
            "which part a record is, but metadata has that key already; rename it"
        )
    passages = (
        Record(passage_id(id, n), passage, {**metadata, "passage": n})
        for n, (_, passage) in enumerate(split(text))
    )
    return Document(id, tuple(passages), nbytes)
