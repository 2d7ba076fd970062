"""The command line: nestvec demo, add, search, info, tune, evaluate, adapt, train and others.

Every command ends with 0, or with 2 and one line on standard error; 130 when interrupted.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_tuning, console, datasets, demo, evaluation, fitting, passages, stdlib_docs
from .adaptors.base import embedded
from .conditions import condition
from .embedders import resolve
from .embedders.profiles import PROFILES, UntrainedPrefix
from .errors import CollectionMissing, ConfigError, NestvecError
from .filters import And
from .ingest import BATCH, Added, build_index, ingest, passages_from
from .passages import Document, Found
from .records import check_id
from .secrets import redacted
from .sizing import sizes
from .store import Store, connect
from .urls import ENGINES

__all__ = ["app", "main"]

#: What a new collection gets where nothing else is asked for.
DIMS, EMBEDDER = "64,128", "static"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Two-stage retrieval on nested (Matryoshka) vectors, in the engine you already run.",
)

Url = Annotated[
    str, typer.Argument(metavar="URL", help="Where the collection is, such as edge:./papers.")
]
Collection = Annotated[str, typer.Option(help="The collection's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Embedder = Annotated[
    str | None,
    typer.Option(
        help="The embedding model: static, st:NAME_OR_DIR[?layers=13] or openai:MODEL[@BASE_URL]; "
        "without it, the one that the collection records."
    ),
]
Dims = Annotated[
    str | None, typer.Option(help=f"The fields of a new collection; {DIMS} if not given.")
]
Adapted = Annotated[
    Path | None,
    typer.Option("--adaptor", metavar="FILE", help="The adaptor that the collection has."),
]
Root = Annotated[
    str | None,
    typer.Option(
        help="Make ids relative to this directory, so that they are the same on every machine."
    ),
]
Filtered = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON",
        help='Only documents that satisfy this, as in \'{"year": {"$gte": 2020}}\': $and $or $not, '
        "$eq $ne $gt $gte $lt $lte $in $nin $between $exists $like $matches and others.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Only documents whose metadata satisfy this; also != >= <= > <. VALUE is JSON, or "
        "else a string. Give it again to narrow further.",
    ),
]


@app.callback(invoke_without_command=True)
def _nestvec(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"nestvec {metadata.version('nestvec')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(name="demo")
def _demo(
    url: Url = "edge:./nestvec-demo", *, collection: Collection = "docs", as_json: Json = False
) -> None:
    """Search the docstrings of Python's standard library.

    Stores them in a collection, asks a handful of questions, and shows what each field of the
    vectors costs. Running it again updates the collection.
    """
    with connect(
        url, collection=collection, dims=DIMS, embedder=EMBEDDER, batch_size=BATCH
    ) as store:
        demo.check_ours(store)
        documents = _docstrings()
        added = _ingest(store, documents, "documents", len(documents))
        if as_json:
            _print_demo(store, added)
        else:
            _show_demo(store, added)


@app.command()
def add(
    url: Url,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files, directories, or - for standard input."),
    ],
    *,
    collection: Collection = "docs",
    dims: Dims = None,
    embedder: Embedder = None,
    adaptor: Adapted = None,
    root: Root = None,
    id: Annotated[str | None, typer.Option(help="The id of a text on standard input.")] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="|".join(passages.FORMATS), help="The format of standard input."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add texts, or update those that were added before.

    Reads text, Markdown and reStructuredText files, and JSON Lines with text, id and metadata.
    Long texts are split into passages. A file's id is its path: adding it again, changed, replaces
    all of its passages. Hidden files and directories are left out, links to directories too.
    """
    found = passages.find(paths, root=root, id=id, format=format)
    documents = (document for source in found.sources for document in passages.read(source))
    with _open_or_make(url, collection, dims, embedder, adaptor) as store:
        added = _ingest(store, documents, "bytes", found.nbytes)
        known = store.info()
    if as_json:
        _print(
            {
                "url": known.url,
                "collection": known.collection,
                **asdict(added),
                "skipped": found.skipped,
            }
        )
        return
    console.say(_summary(added, found, f"collection {known.collection} in {known.url}"))


@app.command()
def search(
    url: Url,
    query: Annotated[str, typer.Argument(metavar="QUESTION", help="A question or a few words.")],
    *,
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 5,
    where: Where = None,
    filter: Filtered = None,
    funnel: Annotated[
        str | None,
        typer.Option(
            help="Stages such as '64:200' (200 candidates leave the first 64 numbers), or 'exact'."
        ),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits below this.")] = None,
    offset: Annotated[int, typer.Option(help="Skip so many hits.")] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each stage did.")] = False,
    collection: Collection = "docs",
    embedder: Embedder = None,
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Search a collection."""
    only = condition(where or [], filter)
    with connect(url, collection=collection, embedder=embedder, adaptor=adaptor) as store:
        hits = store.search(query, k, where=only, funnel=funnel, min_score=min_score, offset=offset)
        # The funnel of a query with an offset is that of one for so many more hits.
        trace = store.explain(query, k + offset, where=only, funnel=funnel) if explain else None
    if as_json:
        made: dict[str, Any] = {"hits": [asdict(hit) for hit in hits]}
        _print(made if trace is None else {**made, "trace": asdict(trace)})
        return
    console.hits(hits)
    if trace is not None:
        console.say()
        console.trace(trace)


@app.command()
def info(
    url: Url, *, collection: Collection = "docs", adaptor: Adapted = None, as_json: Json = False
) -> None:
    """Show what a collection knows of itself, and the bytes of each field."""
    with connect(url, collection=collection, adaptor=adaptor) as store:
        known = store.info()
    if as_json:
        _print(asdict(known))
    else:
        console.info(known)


@app.command()
def index(
    url: Url,
    *,
    field: Annotated[
        str | None, typer.Option(help="The field, such as 64; the first one, if left out.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=KIND",
            help="Index this metadata key instead, of int, float, str, bool or datetime. May be "
            "given again.",
        ),
    ] = None,
    collection: Collection = "docs",
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Index a collection now, while others read and write; an add does so when it pays."""
    with connect(url, collection=collection, adaptor=adaptor) as store:
        for text in metadata or ():
            key, equals, kind = text.rpartition("=")
            if not equals:
                raise ConfigError(f"--metadata takes KEY=KIND, as in year=int, got {text!r}")
            store.index_metadata(key, kind)
        if not metadata:
            with console.progress("indexing", 100, unit="percent") as advance:
                build_index(store, field, advance=lambda share: advance(round(100 * share)))
        known = store.info()
    if as_json:
        _print(asdict(known))
    else:
        console.info(known)


@app.command()
def delete(
    url: Url,
    *,
    id: Annotated[
        list[str] | None,
        typer.Option(help="Delete this document with all of its passages. May be given again."),
    ] = None,
    where: Where = None,
    filter: Filtered = None,
    collection: Collection = "docs",
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Delete documents by their ids, or all that satisfy a condition."""
    if bool(id) == bool(where or filter):
        raise ConfigError("give --id, or --where and --filter; nothing was deleted")
    only = condition(where or [], filter)
    if only == And(()):
        raise ConfigError("--filter {} is every document; nothing was deleted")
    with connect(url, collection=collection, adaptor=adaptor) as store:
        if only is not None:
            deleted = store.delete(where=only)
        else:
            deleted = store.delete(ids=passages_from(store, {check_id(i): 0 for i in id or []}))
    if as_json:
        _print({"deleted": deleted})
    else:
        console.say(f"deleted {_several(deleted, 'document')}")


@app.command()
def tune(
    url: Url,
    *,
    target: Annotated[float, typer.Option(help="The recall to reach.")] = 0.99,
    k: Annotated[int, typer.Option("-k", help="How many hits a search returns.")] = 10,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Queries, such as a log: a text a line, or JSON Lines with query and where; or a "
            ".npy file of vectors. Without it documents are drawn.",
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure the recall has to be.")] = 0.95,
    budget: Annotated[float, typer.Option(help="About how many seconds to take.")] = 60.0,
    optimise: Annotated[
        str, typer.Option(metavar="speed|memory", help="What is to be best.")
    ] = "speed",
    where: Where = None,
    filter: Filtered = None,
    seed: Annotated[int, typer.Option(help="Which queries are drawn, and how split.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Draw what was measured there.")
    ] = None,
    collection: Collection = "docs",
    embedder: Embedder = None,
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Measure plans on a collection and make the best one its default.

    Ends with 1 where no plan reaches the target; then the collection keeps the plan that it had.
    """
    if plot is not None:  # says what it needs before minutes are spent
        from .tuning_plots import draw

        plot.mkdir(parents=True, exist_ok=True)
    only = condition(where or [], filter)
    with (
        connect(url, collection=collection, embedder=embedder, adaptor=adaptor) as store,
        console.share("tuning") as progress,
    ):
        tuned = store.tune(
            target, k, queries, confidence=confidence, budget_s=budget, optimise=optimise,
            where=only, seed=seed, progress=progress,
        )  # fmt: skip
    drawn = [] if plot is None else draw(tuned, plot)
    if as_json:
        _print(cli_tuning.told(tuned, drawn))
    else:
        cli_tuning.show(tuned, drawn)
    if not tuned.reached:
        raise typer.Exit(1)


@app.command()
def size(
    count: Annotated[int, typer.Argument(metavar="DOCUMENTS", help="How many documents.")],
    *,
    dim: Annotated[int, typer.Option(help="How many numbers a full vector has.")],
    dims: Annotated[str, typer.Option(help="The fields, such as 64,256:int8.")],
    engine: Annotated[
        list[str] | None,
        typer.Option(help="edge, qdrant, postgres or memory. May be given again."),
    ] = None,
    text: Annotated[int, typer.Option(help="Bytes of a document's text, on average.")] = 500,
    metadata: Annotated[int, typer.Option(help="Bytes of its metadata as JSON.")] = 60,
    id: Annotated[int, typer.Option(help="Bytes of its id.")] = 36,
    m: Annotated[int, typer.Option("-m", help="Links of a node of the graph.")] = 16,
    as_json: Json = False,
) -> None:
    """Estimate the bytes of a collection, beside those of single full vectors."""
    found = sizes(
        count, dim, dims, engines=engine or ("edge", "qdrant", "postgres"), text_bytes=text,
        metadata_bytes=metadata, id_bytes=id, m=m,
    )  # fmt: skip
    if as_json:
        _print([asdict(made) for made in found])
    else:
        cli_tuning.show_sizes(count, dim, found)


@app.command(name="add-field")
def add_field(
    url: Url,
    field: Annotated[str, typer.Argument(help="Such as 128, 256:int8 or full:binary.")],
    *,
    collection: Collection = "docs",
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Add a field, made of the full vectors that are there; run it again after a break.

    Others go on searching and writing meanwhile; nothing is embedded.
    """
    with connect(url, collection=collection, adaptor=adaptor) as store:
        with console.counted("adding a field") as told:
            store.add_field(field, progress=told)
        _changed(store, as_json=as_json)


@app.command(name="drop-field")
def drop_field(
    url: Url,
    field: Annotated[str, typer.Argument(help="Such as 64.")],
    *,
    collection: Collection = "docs",
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Drop a field; run it again after a break."""
    with connect(url, collection=collection, adaptor=adaptor) as store:
        store.drop_field(field)
        _changed(store, as_json=as_json)


@app.command()
def verify(
    url: Url, *, collection: Collection = "docs", adaptor: Adapted = None, as_json: Json = False
) -> None:
    """Find documents whose fields are lacking or wrong; ends with 1 where there are any."""
    with (
        connect(url, collection=collection, adaptor=adaptor) as store,
        console.counted("reading") as told,
    ):
        found = store.verify(progress=told)
    _show_faults(found, as_json=as_json)


@app.command()
def repair(
    url: Url,
    *,
    collection: Collection = "docs",
    embedder: Embedder = None,
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Mend what verify finds, by the full vectors or the texts; ends with 1 where any is left."""
    with (
        connect(url, collection=collection, embedder=embedder, adaptor=adaptor) as store,
        console.counted("mending") as told,
    ):
        found = store.repair(progress=told)
    _show_faults(found, as_json=as_json)


@app.command()
def models(*, as_json: Json = False) -> None:
    """List the embedding models that are known, and what they were trained for.

    An unknown model works too: what it declares of itself is read.
    """
    if as_json:
        _print([asdict(profile) for profile in PROFILES])
    else:
        console.models(PROFILES)


@app.command()
def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder in BEIR's form, or a JSON Lines or TSV file of questions and answers, "
            "or of pairs and scores.",
        ),
    ],
    *,
    embedder: Annotated[str, typer.Option(help="The embedding model.")] = EMBEDDER,
    dims: Annotated[
        str | None,
        typer.Option(help="Prefix lengths, and full; 32,64,128,256,full if not given."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Measure the model with so many layers, such as 6,12: layers by dims."),
    ] = None,
    funnel: Annotated[
        list[str] | None,
        typer.Option(help="Measure a funnel such as '64:100' too. May be given again."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits are judged.")] = 10,
    split: Annotated[str, typer.Option(help="Which qrels of a folder.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Keep the result here, as JSON.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep vectors in this directory, for the next run and after a stop."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it here: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Measure an embedding model by prefix length, layers and funnel, on your own data."""
    for file in (out, plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"no directory {str(file.parent)!r} to write {file.name} into")
    loaded = datasets.load(data, split)
    kept = None if layers is None else _counts(layers)
    with console.progress("embedding", loaded.texts * len(kept or [0]), unit="texts") as advance:
        result = evaluation.evaluate(
            embedder, loaded, dims=evaluation.DIMS if dims is None else dims, layers=kept,
            funnels=funnel or [], k=k, cache=cache, advance=advance,
        )  # fmt: skip
    if out is not None:
        result.save(out)
    if plot is not None:
        result.plot(plot)
    if as_json:
        _print(result.to_dict())
        return
    took = "" if result.seconds is None else f", {result.seconds:,.1f} s to embed"
    console.say(
        f"{result.embedder} on {result.dataset}: {_several(result.queries, result.unit)}, "
        f"{_several(result.documents, 'text')}{took}",
        style="bold",
    )
    console.say(result.table())


def _counts(layers: str) -> list[int]:
    try:
        return [int(n) for n in layers.split(",")]
    except ValueError:
        raise ConfigError(f"layers are numbers such as 6,12, got {layers!r}") from None


@app.command()
def adapt(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="What to fit on: a collection's URL, a .npy file with one vector a row, or texts "
            "as add reads them.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the adaptor.")
    ] = Path("adaptor.safetensors"),
    kind: Annotated[
        str,
        typer.Option(
            metavar="|".join(fitting.KINDS),
            help="A rotation; one that is trained on; or a network for the prefixes alone.",
        ),
    ] = "rotation",
    dims: Annotated[
        str | None, typer.Option(help="The prefix lengths to measure and to train for.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Where to draw the recall; beside the adaptor, as PNG, if not given."),
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Draw nothing.")] = False,
    seed: Annotated[int, typer.Option(help="Decides what is held out.")] = 0,
    collection: Collection = "docs",
    embedder: Embedder = None,
    adaptor: Adapted = None,
    as_json: Json = False,
) -> None:
    """Fit an adaptor on your own vectors, so that their prefixes find more.

    A fifth of the vectors, 10,000 at most, is held out: the recall of their nearest neighbours is
    shown for each prefix, before and after. The collection of a URL stays as it is; make a new one
    with the adaptor.
    """
    started = time.perf_counter()
    picture = None if no_plot else plot or output.with_suffix(".png")
    _check_writable(output)
    if picture is not None:
        from . import plots  # says what it needs before anything is read

        plots.check(picture)
    asked = None if dims is None else _integers(dims)
    with _vectors(sources, collection, embedder, adaptor) as (vectors, made_by):
        fitted = fitting.fit(vectors, kind, dims=asked, embedder=made_by, seed=seed)
    fitted.adaptor.save(output)
    if picture is not None:
        rows = fitted.figures.rows
        series = {
            "before": [(row.length, row.before) for row in rows],
            "after": [(row.length, row.after) for row in rows],
        }
        plots.lines(
            picture, series, title=fitted.figures.measure, x="numbers of the prefix", y="recall"
        )
    seconds = time.perf_counter() - started
    name, files = fitted.adaptor.name, {"adaptor": output, "plot": picture}
    if as_json:
        shown = {key: None if file is None else str(file) for key, file in files.items()}
        counted = {"vectors": fitted.vectors, "held_out": fitted.held_out, "seconds": seconds}
        _print({"name": name, **shown, **counted, **asdict(fitted.figures)})
        return
    fitted_on = fitted.vectors - fitted.held_out
    console.say(f"{name}, fitted on {_several(fitted_on, 'vector')} in {seconds:.1f} s")
    console.figures(fitted.figures)
    for key, file in files.items():
        if file is not None:
            console.say(f"{key} written to {file}")


@app.command()
def train(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="What to start from: static, or st:NAME_OR_DIR.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder in BEIR's form, or a JSON Lines or TSV file of queries and documents, "
            "or of titles and texts.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The directory to make, with the model in it.")
    ],
    dims: Annotated[
        str, typer.Option(help="The prefix lengths to train beside the full length.")
    ] = "64,128",
    loss: Annotated[
        str,
        typer.Option(
            metavar="matryoshka|matryoshka2d",
            help="Prefixes of the vectors, or also of the encoder's layers.",
        ),
    ] = "matryoshka",
    epochs: Annotated[int, typer.Option(help="How often each pair is seen.")] = 1,
    batch_size: Annotated[
        int, typer.Option(help="Pairs in a step; each is compared with all.")
    ] = 64,
    rate: Annotated[
        float | None, typer.Option(help="The learning rate; 2e-5, or 0.2 for static models.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(help="How many steps an interruption may lose.")
    ] = 200,
    split: Annotated[str, typer.Option(help="Which qrels of a folder.")] = "train",
    seed: Annotated[int, typer.Option(help="Decides what is held out, and the order.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on your own pairs, so that its prefixes say more.

    A tenth of the queries is held out: how well their documents are found is shown for each prefix,
    before and after.
    """
    from . import training

    recipe = training.Recipe(
        tuple(_integers(dims)), loss, epochs, batch_size, rate, checkpoint_every, seed
    )
    with console.progress("training", None, unit="steps") as advance:
        made = training.train(
            model, data, output, recipe, split=split, resume=resume, advance=lambda *_: advance(1)
        )
    if as_json:
        figures = {"before": made.before.to_dict(), "after": made.after.to_dict()}
        _print({"embedder": made.embedder, "pairs": made.pairs, **figures})
        return
    after = made.after
    console.say(
        f"trained on {_several(made.pairs, 'pair')}; held out are "
        f"{_several(after.queries, after.unit)} over {_several(after.documents, 'text')}"
    )
    for title, measured in (("before", made.before), ("after", after)):
        console.say(f"\n{title}", style="bold")
        console.say(measured.table())
    console.say(f'\nuse it with embedder="{made.embedder}"')


@contextmanager
def _vectors(
    sources: list[str], collection: str, embedder: str | None, adaptor: Path | None
) -> Iterator[tuple[Any, str | None]]:
    """Yield vectors and the name of what made them, where that is known."""
    first = sources[0]
    if first.partition(":")[0] in ENGINES and not Path(first).exists():
        _check_one(sources)
        with connect(first, collection=collection, adaptor=adaptor) as store:
            yield fitting.from_store(store), store.info().embedder
    elif first.endswith(".npy"):
        _check_one(sources)
        yield fitting.from_file(first), embedder
    else:
        found = passages.find(sources)
        model = resolve(embedder or EMBEDDER)
        with console.progress("embedding", found.nbytes) as advance:
            yield embedded(_texts(found, advance), model), model.name


def _texts(found: Found, advance: Callable[[int], None]) -> Iterator[str]:
    for source in found.sources:
        for document in passages.read(source):
            yield from (record.text for record in document.passages)
            advance(document.nbytes)


def _check_one(sources: list[str]) -> None:
    if len(sources) > 1:
        raise ConfigError(f"{sources[0]} is fitted on alone, got {len(sources)} sources")


def _check_writable(file: Path) -> None:
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ConfigError(f"{file} cannot be written: no such directory, or it is one")


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--dims are prefix lengths such as 64,128, got {text!r}") from None


# Opening and storing


def _show_faults(found: Mapping[str, Sequence[str]], *, as_json: bool) -> None:
    if as_json:
        _print(found)
    else:
        cli_tuning.show_faults(found)
    if found:
        raise typer.Exit(1)


def _changed(store: Store, *, as_json: bool) -> None:
    known = store.info()
    if as_json:
        _print(asdict(known))
    else:
        console.info(known)


def _open_or_make(
    url: str, collection: str, dims: str | None, embedder: str | None, adaptor: Path | None
) -> Store:
    def opened(dims: str | None, embedder: str | None) -> Store:
        return connect(
            url, collection=collection, dims=dims, embedder=embedder, adaptor=adaptor,
            batch_size=BATCH,
        )  # fmt: skip

    try:
        store = opened(None, embedder)
    except CollectionMissing:
        return opened(DIMS if dims is None else dims, embedder or EMBEDDER)
    if dims is None:
        return store
    store.close()
    return opened(dims, embedder)  # raises where the collection has others, showing both sides


def _ingest(store: Store, documents: Iterable[Document], unit: str, total: int | None) -> Added:
    with console.progress("adding", total, unit=unit) as advance:
        return ingest(
            store, documents, advance=lambda d: advance(d.nbytes if unit == "bytes" else 1)
        )


def _summary(added: Added, found: Found, where: str) -> str:
    parts = [
        f"added {_several(added.documents, 'document')} as {_several(added.passages, 'passage')}"
    ]
    if added.removed:
        parts.append(f"removed {_several(added.removed, 'passage')} of earlier versions")
    if added.blank:
        parts.append(f"{_several(added.blank, 'document')} without text")
    if found.skipped:
        parts.append(f"left out {_several(found.skipped, 'file')} of other kinds")
    return f"{where}: {'; '.join(parts)}"


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# The demo


def _docstrings() -> list[Document]:
    paths = stdlib_docs.sources()
    with console.progress("reading docstrings", len(paths), unit="files") as advance:
        return list(stdlib_docs.documents(_counted(paths, advance)))


def _counted(paths: Sequence[Path], advance: Callable[[int], None]) -> Iterator[Path]:
    for path in paths:
        yield path
        advance(1)


def _show_demo(store: Store, added: Added) -> None:
    documents, passages = f"{added.documents:,}", f"{added.passages:,}"
    console.say(f"{documents} docstrings of Python's standard library, {passages} passages")
    for answer in demo.answers(store):
        console.say()
        where = "" if answer.where is None else f"   where {answer.where!r}"
        console.say(f"{answer.question}{where}", style="bold cyan")
        console.brief(answer.trace.hits, key="module")
        console.trace_line(answer.trace)
    console.say()
    known = store.info()
    console.info(known)
    console.say("\nnext:")
    for line in demo.next_commands(_program(), known):
        console.say(f"  {line}", style="bold")


def _print_demo(store: Store, added: Added) -> None:
    answers = [
        {
            "question": answer.question,
            "where": None if answer.where is None else repr(answer.where),
            **asdict(answer.trace),
        }
        for answer in demo.answers(store)
    ]
    known = store.info()
    next_ = demo.next_commands(_program(), known)
    _print({**asdict(added), "answers": answers, "info": asdict(known), "next": next_})


def _program() -> str:
    as_module = Path(sys.argv[0]) == Path(__file__).with_name("__main__.py")
    return "python -m nestvec" if as_module else "nestvec"


# What is printed


def _print(made: Any) -> None:
    typer.echo(json.dumps(made, default=str))  # an engine tells of itself what it likes


# Errors

# typer >= 0.26 brings its own click and names this class nowhere.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    args = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know less than a document says
    try:
        with _warning_in_one_line():
            code = app(args, prog_name=_program(), standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not fail at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (NestvecError, OSError, _UsageError) as error:
        _report(error, as_json="--json" in args)
        return 2
    if code == 130:
        sys.stderr.write("interrupted; what was stored is kept\n")
    return code if isinstance(code, int) else 0


@contextmanager
def _warning_in_one_line() -> Iterator[None]:
    """Show our warnings without the line of code that they came from."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UntrainedPrefix):
                sys.stderr.write(f"warning: {message}\n")
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _report(error: Exception, *, as_json: bool) -> None:
    message = redacted(_message(error))
    made = {"error": message, "type": type(error).__name__}
    sys.stderr.write((json.dumps(made) if as_json else f"error: {message}") + "\n")


def _message(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, _UsageError):
        text = _usage(error)
    elif isinstance(error, CollectionMissing):
        text = f"{str(error).partition(';')[0]}; make it with: {_program()} add"
    elif isinstance(error, OSError) and not isinstance(error, NestvecError) and error.strerror:
        named = "" if error.filename is None else f"{error.filename}: "
        text = f"{named}{error.strerror.lower()}"
    else:
        text = str(error).replace("adaptor=… to connect", "--adaptor FILE")
    return console.one_line(text, 2_000)


def _usage(error: Any) -> str:
    said = error.format_message().rstrip(".")
    path = error.ctx.command_path if error.ctx else _program()
    return f"{said[:1].lower()}{said[1:]}; see {path} --help"
