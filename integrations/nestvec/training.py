"""Training a Matryoshka model: fine-tuning on your own pairs, measured before and after.

Everything that learns is sentence-transformers': its trainer, its MatryoshkaLoss and its
Matryoshka2dLoss, over in-batch negatives.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import Retrieval, load
from .embedders.sentence_transformers import SentenceTransformerEmbedder, no_bar, package
from .embedders.static import MODEL
from .errors import ConfigError, EmbedderError, MissingExtra
from .evaluation import Evaluation, evaluate

__all__ = ["LOSSES", "Recipe", "Trained", "train"]

#: What can be trained, by the name of sentence-transformers' loss.
LOSSES = {"matryoshka": "MatryoshkaLoss", "matryoshka2d": "Matryoshka2dLoss"}

#: Pairs as sentence-transformers' losses want them, and as its models name what stands before them.
_COLUMNS, _SIDES = ("anchor", "positive"), ("query", "document")

#: Of the queries, what part is held out, and how many they are at least and at most.
_PART, _LEAST, _MOST = 0.1, 20, 1_000

#: How many documents the held-out queries are asked of, at most.
_DOCUMENTS = 10_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: the prefix lengths, the loss, how long, and how fast.

    `dims` are trained beside the full length. `rate` is the learning rate; None is 2e-5 for
    transformers and 2e-1 for static embeddings. A checkpoint is written every `checkpoint_every`
    steps.
    """

    dims: tuple[int, ...]
    loss: str = "matryoshka"
    epochs: int = 1
    batch_size: int = 64
    rate: float | None = None
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"a loss is one of {', '.join(LOSSES)}, got {self.loss!r}")
        if not self.dims or min(self.dims) < 1:
            raise ConfigError(f"dims are prefix lengths such as (64, 128), got {self.dims!r}")
        for name in ("epochs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is at least 1, got {getattr(self, name)}")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size is at least 2, got {self.batch_size}")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in its directory, and what it is worth on queries that it was not trained on."""

    path: Path
    pairs: int
    before: Evaluation
    after: Evaluation

    @property
    def embedder(self) -> str:
        """The spec string that `connect` takes."""
        return f"st:{self.path}"


def train(
    model: str | Path,
    data: Retrieval | str | Path,
    output: str | Path,
    recipe: Recipe,
    *,
    split: str = "train",
    resume: bool = False,
    advance: Callable[[int, int], None] = lambda _done, _all: None,
) -> Trained:
    """Fine-tune a model on pairs of a query and a relevant document, and save it at `output`.

    `model` is what sentence-transformers loads, or "static". `data` is what `nestvec.datasets`
    loads: queries and documents, or titles and texts. A tenth of the queries is held out, with all
    of their documents, and retrieval is measured on them before and after, at each prefix length.

    What is trained is kept beside `output` as checkpoints until it ends; with `resume` an
    interrupted training goes on from the last one. `advance` is told after each step how many of
    how many are done. Raises ConfigError on data, settings and directories that cannot be right,
    EmbedderError on the model, MissingExtra.
    """
    place = Path(output)
    if place.exists():
        raise ConfigError(f"{place} is there already; nothing is overwritten, choose another name")
    if not place.absolute().parent.is_dir():
        raise ConfigError(f"no directory {str(place.parent)!r} to write {place.name} into")
    loaded = load(data, split) if isinstance(data, (str, Path)) else data
    if not isinstance(loaded, Retrieval):
        raise ConfigError(f"{loaded.name} has pairs with scores; training needs queries and texts")
    pairs, held = _split(loaded, recipe.seed)
    base = _embedder(str(model))
    learner = base.loaded()
    width = learner.get_embedding_dimension()
    if max(recipe.dims) >= width:
        raise ConfigError(f"dims are shorter than the full vector ({width}), got {recipe.dims}")
    if recipe.loss == "matryoshka2d" and not _has_layers(learner):
        raise EmbedderError(f"{model} has no layers; train it with the loss 'matryoshka'")
    checkpoints = place.with_name(f".{place.name}.checkpoints")
    _begin(checkpoints, _key(str(model), pairs, recipe), resume=resume)
    before = _measured(base, held, recipe)
    _fit(learner, pairs, recipe, checkpoints, advance, prompts=base.prompts)
    making = place.with_name(f".{place.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    learner.prompts = {**learner.prompts, **dict(zip(_SIDES, base.prompts, strict=True))}
    with no_bar():
        learner.save_pretrained(str(making), create_model_card=False)
    # As it will be loaded: its name, and what was known by that, are not those of the base.
    after = _measured(SentenceTransformerEmbedder(making, dtype="float32"), held, recipe)
    after = replace(after, embedder=f"st:{place}")
    (making / "README.md").write_text(_card(str(model), recipe, len(pairs), before, after))
    making.rename(place)
    shutil.rmtree(checkpoints)
    return Trained(place, len(pairs), before, after)


def _split(data: Retrieval, seed: int) -> tuple[list[tuple[str, str]], Retrieval]:
    """Return pairs of texts to train on, and the queries held out with what they are asked of."""
    ids = sorted(data.relevant)
    least = 3 * _LEAST
    if len(ids) < least:
        raise ConfigError(
            f"{data.name} has {len(ids)} queries with documents, too few to train on and to check "
            f"with: at least {least} are needed, some thousands are a good start"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(ids).tolist()
    size = min(_MOST, max(_LEAST, round(_PART * len(ids))))
    asked, learning = order[:size], order[size:]
    answers = {document for query in asked for document in data.relevant[query]}
    pairs = [
        (data.queries[query], data.documents[document])
        for query in sorted(learning)
        for document, grade in data.relevant[query].items()
        if grade > 0 and document not in answers
    ]
    others = rng.permutation(sorted(set(data.documents) - answers)).tolist()
    shown = sorted([*answers, *others[: max(0, _DOCUMENTS - len(answers))]])
    held = Retrieval(
        f"{data.name}, held out",
        {id: data.documents[id] for id in shown},
        {id: data.queries[id] for id in asked},
        {id: data.relevant[id] for id in asked},
    )
    return pairs, held


def _embedder(name: str) -> SentenceTransformerEmbedder:
    """Return a model that can be trained. Raises EmbedderError, or MissingExtra."""
    transformers = package()
    if name == "static":
        made = package("modules").StaticEmbedding.from_model2vec(str(MODEL))
        return SentenceTransformerEmbedder(
            transformers.SentenceTransformer(modules=[made], device="cpu")
        )
    return SentenceTransformerEmbedder(name.removeprefix("st:"), dtype="float32")


def _measured(embedder: SentenceTransformerEmbedder, held: Retrieval, recipe: Recipe) -> Evaluation:
    embedder.loaded().eval()
    return evaluate(embedder, held, dims=(*recipe.dims, "full"))


def _has_layers(learner: Any) -> bool:
    return hasattr(learner[0], "auto_model")


# Training


def _fit(
    learner: Any,
    pairs: Sequence[tuple[str, str]],
    recipe: Recipe,
    checkpoints: Path,
    advance: Callable[[int, int], None],
    *,
    prompts: tuple[str, str],
) -> None:
    transformers, losses = package(), package("losses")
    try:
        from datasets import Dataset
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from error
    callbacks = package("transformers")

    class Watch(callbacks.TrainerCallback):  # type: ignore[name-defined,misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            advance(state.global_step, state.max_steps)

    on_cpu = learner.device.type == "cpu"
    arguments = transformers.SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.rate or (2e-5 if _has_layers(learner) else 2e-1),
        warmup_steps=max(1, recipe.epochs * len(pairs) // recipe.batch_size // 10),
        save_strategy="steps",
        save_steps=recipe.checkpoint_every,
        save_total_limit=2,
        seed=recipe.seed,
        # A text that is twice in a batch would be its own wrong answer.
        batch_sampler="no_duplicates",
        # Texts are learnt as they will be embedded.
        prompts=dict(zip(_COLUMNS, prompts, strict=True)),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
    )
    learner.model_card_data.generate_widget_examples = False
    learner.model_card_data.widget = [{"text": "-"}]  # else examples are looked for, with a bar
    lengths = sorted({*recipe.dims, learner.get_embedding_dimension()}, reverse=True)
    inner = losses.MultipleNegativesRankingLoss(learner)
    columns = [list(column) for column in zip(*pairs, strict=True)]
    trainer = transformers.SentenceTransformerTrainer(
        model=learner,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(zip(_COLUMNS, columns, strict=True))),
        loss=getattr(losses, LOSSES[recipe.loss])(learner, inner, lengths),
        callbacks=[Watch()],
    )
    trainer.remove_callback(callbacks.PrinterCallback)
    learner.train()
    with no_bar():
        trainer.train(resume_from_checkpoint=_last(checkpoints))


def _last(checkpoints: Path) -> str | None:
    """Return the last checkpoint that was written whole, None where there is none yet."""
    whole = []
    for state in checkpoints.glob("checkpoint-*/trainer_state.json"):  # it is written last
        try:
            whole.append((json.loads(state.read_text())["global_step"], str(state.parent)))
        except (ValueError, KeyError):
            continue
    return max(whole)[1] if whole else None


def _key(model: str, pairs: Sequence[tuple[str, str]], recipe: Recipe) -> str:
    """Return what tells this training from another one."""
    made = hashlib.sha256(json.dumps([model, asdict(recipe), pairs]).encode())
    return made.hexdigest()


def _begin(checkpoints: Path, key: str, *, resume: bool) -> None:
    """Make the directory of checkpoints, or take up the one that is there."""
    note = checkpoints / "nestvec.json"
    if not checkpoints.exists():
        checkpoints.mkdir()
        note.write_text(json.dumps({"key": key}))
        return
    if not resume:
        raise ConfigError(
            f"{checkpoints} has checkpoints of a training that was interrupted: resume it, or "
            "delete them to train from the beginning"
        )
    try:
        known = json.loads(note.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known != key:
        raise ConfigError(
            f"{checkpoints} has checkpoints of a training with another model, data or settings; "
            "train with those, or delete them to train from the beginning"
        )


def _card(model: str, recipe: Recipe, pairs: int, before: Evaluation, after: Evaluation) -> str:
    """Return the model's README, which also tells nestvec what it was trained for."""
    declared = json.dumps({"matryoshka_dims": [after.dim, *sorted(recipe.dims, reverse=True)]})
    return f"""# A Matryoshka model

Fine-tuned from `{model}` by nestvec on {pairs:,} pairs, with {LOSSES[recipe.loss]} of
sentence-transformers: `nestvec.connect(…, dims=…, embedder="st:DIRECTORY")`.

```json
{declared}
```

Retrieval of {after.queries:,} held-out queries over {after.documents:,} texts, before:

{before.table()}

After:

{after.table()}

How it was trained: `{json.dumps(asdict(recipe))}`
"""
