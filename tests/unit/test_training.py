"""nestvec train: measured before and after, resumed, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nestvec
from nestvec import ConfigError, EmbedderError, stdlib_docs
from nestvec.datasets import Retrieval, load
from nestvec.embedders import profiles
from nestvec.embedders.profiles import profile_of
from nestvec.embedders.sentence_transformers import SentenceTransformerEmbedder
from nestvec.training import Recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = Recipe((32, 64), batch_size=32, checkpoint_every=3)


@pytest.fixture(scope="module")
def docs() -> Retrieval:
    """Docstrings: the first paragraph asks for the rest."""
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}
    for document in stdlib_docs.documents(stdlib_docs.sources()[:60]):
        whole = document.passages[0].text.partition(": ")[2]
        title, _, text = whole.partition("\n\n")
        if len(text) > 60 and text not in texts.values():
            titles[document.id], texts[document.id] = " ".join(title.split()), text
    return Retrieval("docstrings", texts, titles, {id: {id: 1} for id in texts})


def test_prefixes_are_better_on_what_was_held_out(docs: Retrieval, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    recipe = Recipe((32, 64), batch_size=32, epochs=3)
    made = train(
        "static", docs, tmp_path / "model", recipe, advance=lambda *step: steps.append(step)
    )
    assert [row.dims for row in made.after.rows] == ["full", "64", "32"]
    gains = [
        after.metrics["ndcg@10"] - before.metrics["ndcg@10"]
        for before, after in zip(made.before.rows, made.after.rows, strict=True)
    ]
    assert sum(gains) > 0
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # It is a model that connect takes, with its prefixes declared, so that nothing is warned of.
    store = nestvec.connect("memory:", dims=(32, 64), embedder=made.embedder)
    store.add(["Parse a date from a string.", "Insert into a sorted list."], ids=["a", "b"])
    assert store.search("how to read dates from text", k=1)[0].id == "a"
    profile = profile_of(store.embedder)
    assert profile is not None
    assert profile.trained == (256, 64, 32)


def test_what_is_held_out_is_not_trained_on(docs: Retrieval) -> None:
    from nestvec.training import _split

    pairs, held = _split(docs, seed=3)
    asked = {docs.queries[id] for id in held.queries}
    answers = {docs.documents[d] for id in held.queries for d in docs.relevant[id]}
    assert len(held.queries) == max(20, round(0.1 * len(docs.queries)))
    assert not answers & {text for _, text in pairs}
    assert not asked - {docs.queries[id] for id in held.queries}
    assert len(pairs) == len(docs.queries) - len(held.queries)
    assert set(held.documents) == set(docs.documents)


def test_interrupted_training_goes_on_and_ends_as_it_would_have(
    docs: Retrieval, tmp_path: Path
) -> None:
    whole = train("static", docs, tmp_path / "whole", SHORT)

    def interrupt(step: int, _all: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("static", docs, tmp_path / "model", SHORT, advance=interrupt)
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match=r"\.model\.checkpoints has checkpoints.*resume"):
        train("static", docs, tmp_path / "model", SHORT)
    other = Recipe((32, 64), batch_size=16, checkpoint_every=3)
    with pytest.raises(ConfigError, match="another model, data or settings"):
        train("static", docs, tmp_path / "model", other, resume=True)
    # A checkpoint that was cut off while it was written is passed over.
    broken = tmp_path / ".model.checkpoints" / "checkpoint-7"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_st')
    steps: list[int] = []
    again = train(
        "static", docs, tmp_path / "model", SHORT, resume=True,
        advance=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert steps[0] == 7
    texts = list(docs.documents.values())[:20]
    one, two = (
        SentenceTransformerEmbedder(made.path).embed_documents(texts) for made in (whole, again)
    )
    assert np.abs(one - two).max() < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


def tiny_bert(directory: Path) -> Path:
    """Make a transformer of four small layers, with the tokens of the static model."""
    import transformers

    from nestvec.embedders.static import MODEL

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(MODEL / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]"
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(directory)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(directory)
    return directory


def test_layers_are_trained_with_prefixes(docs: Retrieval, tmp_path: Path) -> None:
    start = tiny_bert(tmp_path / "bert")
    recipe = Recipe((8, 16), loss="matryoshka2d", batch_size=64, rate=1e-3)
    made = train(start, docs, tmp_path / "model", recipe)
    assert "Matryoshka2dLoss" in (made.path / "README.md").read_text()
    half = nestvec.connect("memory:", dims=(8,), embedder=f"{made.embedder}?layers=2")
    half.add(["Parse a date from a string.", "Insert into a sorted list."])
    assert half.count() == 2


def test_prompts_are_trained_with_and_kept_under_another_name(
    docs: Retrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = profiles.Profile(
        "me/known", 32, "here", trained=(32,), layer_norm=True,
        query_prompt="zebra ", document_prompt="salmon ",
    )  # fmt: skip
    monkeypatch.setitem(profiles._BY_LAST, "known", known)
    start = SentenceTransformerEmbedder(tiny_bert(tmp_path / "known"))
    assert start.profile is known
    made = train(start.model, docs, tmp_path / "model", Recipe((8, 16), batch_size=64, rate=1e-3))
    assert made.after.embedder == made.embedder
    trained = SentenceTransformerEmbedder(made.path)
    assert trained.prompts == ("zebra ", "salmon ")
    # Only words that were read have moved, and no text has these.
    words = {"zebra": True, "salmon": True, "giraffe": False}
    assert not any(word in text for word in words for text in docs.documents.values())
    before, after = (
        model.loaded().transformers_model.get_input_embeddings().weight.detach().numpy()
        for model in (start, trained)
    )
    ids = start.loaded().tokenizer.convert_tokens_to_ids(list(words))
    moved = np.abs(before - after).max(axis=1) > 0
    assert moved[ids].tolist() == list(words.values())


def test_titles_and_texts_are_pairs_too(tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    rows: list[dict[str, Any]] = [
        {"_id": 1, "title": "One", "text": "the first"},
        {"_id": 2, "title": "", "text": "without a title"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    loaded = load(file)
    assert isinstance(loaded, Retrieval)
    assert list(loaded.queries.values()) == ["One"]
    assert list(loaded.documents.values()) == ["the first"]


@pytest.mark.parametrize(
    "wrong",
    [{"dims": ()}, {"dims": (0,)}, {"dims": (8,), "loss": "x"}, {"dims": (8,), "epochs": 0},
     {"dims": (8,), "batch_size": 1}],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        Recipe(**wrong)


def test_what_cannot_be_trained_is_named(docs: Retrieval, tmp_path: Path) -> None:
    few = Retrieval("few", {"d": "text"}, {"q": "asked"}, {"q": {"d": 1}})
    with pytest.raises(ConfigError, match=r"few has 1 queries .*at least 60 are needed"):
        train("static", few, tmp_path / "model", SHORT)
    with pytest.raises(ConfigError, match=r"shorter than the full vector \(256\)"):
        train("static", docs, tmp_path / "model", Recipe((300,)))
    with pytest.raises(EmbedderError, match="has no layers"):
        train("static", docs, tmp_path / "m2d", Recipe((64,), loss="matryoshka2d"))
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        train("static", docs, tmp_path / "there", SHORT)
    with pytest.raises(ConfigError, match="no directory"):
        train("static", docs, tmp_path / "no" / "model", SHORT)
    assert not (tmp_path / ".m2d.checkpoints").exists()
