"""Models that sentence-transformers loads: prompts, batches, fewer layers, images, and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import CollectionMismatch, EmbedderError
from nestvec.cli import main
from nestvec.embedders import resolve
from nestvec.embedders.sentence_transformers import SentenceTransformerEmbedder

from .. import models

TEXTS = ["how many layers does it take ?", "a photo", "the weather is nice today"]

#: Encoders that can be cut, and whether a norm follows the last layer, whatever that is.
ENCODERS = {
    "bert": False, "xlm-r": False, "mpnet": False, "modernbert": True, "nomic": False,
    "qwen3": True, "gte": False, "gemma3": True, "distilbert": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from the kind of a tiny model to its directory."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            directory = tmp_path_factory.mktemp(kind)
            build = models.build_clip if kind == "clip" else None
            made[kind] = build(directory) if build else models.build(kind, directory)
        return made[kind]

    return get


def configured(directory: Path, **changes: Any) -> Path:
    """Write more into a model's own configuration of prompts and such."""
    path = directory / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


def test_it_gives_what_the_model_itself_gives(saved: Any) -> None:
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformerEmbedder(saved("bert"), batch_size=2, device="cpu")
    rows = embedder.embed_documents(TEXTS)
    expected = SentenceTransformer(str(saved("bert")), device="cpu").encode(TEXTS)
    assert rows.dtype == np.float32
    assert rows == pytest.approx(expected, abs=1e-6)
    assert embedder.embed_query(TEXTS[1]) == pytest.approx(expected[1], abs=1e-6)
    assert embedder.embed_documents([]).shape == (0, models.WIDTH)
    assert embedder.dim == models.WIDTH


def test_a_spec_string_opens_a_collection_again_from_anywhere(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = saved("bert")
    url = f"edge:{tmp_path / 'papers'}"
    monkeypatch.chdir(directory.parent)
    with nestvec.connect(url, dims=(8,), embedder="st:./model") as store:
        store.add(TEXTS, ids=["a", "b", "c"])
        assert store.info().embedder == f"st:{directory}"
        assert store.search("a photo")[0].id == "b"
    monkeypatch.chdir(tmp_path)
    with nestvec.connect(url) as store:
        assert store.search("a photo")[0].id == "b"
        store.add(["today"], ids=["d"])
    with pytest.raises(CollectionMismatch, match=r"layers=2"):
        nestvec.connect(url, embedder=f"st:{directory}?layers=2")


def test_what_is_known_of_a_collection_loads_no_model(saved: Any, tmp_path: Path) -> None:
    url = f"edge:{tmp_path / 'papers'}"
    moved = tmp_path / "moved"
    shutil.copytree(saved("bert"), moved)
    with nestvec.connect(url, dims=(8,), embedder=f"st:{moved}") as store:
        store.add(TEXTS, ids=["a", "b", "c"])
        vector = store.get(["b"], vectors=True)[0].vector
    shutil.rmtree(moved)
    code = (
        "import sys, nestvec\n"
        f"store = nestvec.connect({url!r})\n"
        "assert store.info().count == 3\n"
        "assert store.get(['a'])[0].text.startswith('how')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with nestvec.connect(url) as store:
        assert store.search(vector)[0].id == "b"
        with pytest.raises(EmbedderError, match=r"no directory '.*moved'"):
            store.search("a photo")


# Prompts and normalisation


def spoken(embedder: SentenceTransformerEmbedder, said: str) -> Any:
    """Return what a text gives without any prompt of the embedder's."""
    return embedder._load().encode([said], prompt="")[0]


def test_the_models_own_prompts_are_used_and_given_ones_before_them(
    saved: Any, tmp_path: Path
) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(saved("bert"), copy)
    configured(copy, prompts={"query": "how many ", "passage": "the red "})
    own = SentenceTransformerEmbedder(copy)
    assert own.embed_query("photo") == pytest.approx(spoken(own, "how many photo"), abs=1e-6)
    assert own.embed_documents(["photo"])[0] == pytest.approx(
        spoken(own, "the red photo"), abs=1e-6
    )
    given = SentenceTransformerEmbedder(copy, query_prompt="blue ", document_prompt="")
    assert given.embed_query("photo") == pytest.approx(spoken(own, "blue photo"), abs=1e-6)
    assert given.embed_documents(["photo"])[0] == pytest.approx(spoken(own, "photo"), abs=1e-6)


def test_a_known_model_gets_the_prompts_of_its_profile(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nestvec.embedders import profiles

    copy = tmp_path / "nomic-embed-text-v1.5"
    shutil.copytree(saved("nomic"), copy)
    assert SentenceTransformerEmbedder(copy).profile is None  # 32 numbers are not that model
    known = profiles.find("nomic-embed-text-v1.5")
    assert known is not None
    small = profiles.Profile(
        known.model, models.WIDTH, "here", trained=(32, 16), layer_norm=True,
        query_prompt="how many ", document_prompt="the weather ", layers=(3, 4),
    )  # fmt: skip
    monkeypatch.setitem(profiles._BY_LAST, "nomic-embed-text-v1.5", small)
    embedder = SentenceTransformerEmbedder(copy)
    assert embedder.profile is small
    for made, said in (
        (embedder.embed_query("layers"), "how many layers"),
        (embedder.embed_documents(["layers"])[0], "the weather layers"),
    ):
        row = spoken(embedder, said)
        assert made == pytest.approx((row - row.mean()) / row.std(), abs=1e-3)
    with pytest.warns(profiles.UntrainedPrefix, match="prefixes of 16 numbers, not of 8"):
        nestvec.connect("memory:", dims=(8, 16), embedder=embedder).close()
    with pytest.warns(profiles.UntrainedPrefix, match="after 3 to 4 layers, not after 2"):
        nestvec.connect("memory:", dims=(16,), embedder=embedder.with_layers(2)).close()


def test_an_unknown_model_is_read_for_what_it_declares(saved: Any, tmp_path: Path) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(saved("bert"), copy)
    assert SentenceTransformerEmbedder(copy).profile is None
    (copy / "README.md").write_text('MatryoshkaLoss\n```json\n{"matryoshka_dims": [32, 16]}\n```')
    profile = SentenceTransformerEmbedder(copy).profile
    assert profile is not None
    assert (profile.dim, profile.trained) == (32, (32, 16))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [8, 24]}))
    profile = SentenceTransformerEmbedder(copy).profile
    assert profile is not None
    assert profile.trained == (32, 24, 8)


def test_a_model_that_cuts_its_own_vectors_gives_the_full_ones(saved: Any, tmp_path: Path) -> None:
    copy = tmp_path / "cut"
    shutil.copytree(saved("bert"), copy)
    embedder = SentenceTransformerEmbedder(configured(copy, truncate_dim=8))
    assert embedder.dim == models.WIDTH
    assert embedder.embed_documents(TEXTS).shape == (3, models.WIDTH)


# How it is computed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_request(saved: Any, dtype: str) -> None:
    half = SentenceTransformerEmbedder(saved("bert"), dtype=dtype, device="cpu")
    whole = SentenceTransformerEmbedder(saved("bert"), device="cpu")
    assert str(half._load().dtype) == f"torch.{dtype}"
    assert str(whole._load().dtype) == "torch.float32"
    rows, expected = half.embed_documents(TEXTS), whole.embed_documents(TEXTS)
    assert rows.dtype == np.float32
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.999).all()


def test_several_processes_on_request(saved: Any) -> None:
    one = SentenceTransformerEmbedder(saved("bert"), layers=2)
    several = SentenceTransformerEmbedder(saved("bert"), layers=2, device=["cpu", "cpu"])
    try:
        rows = several.embed_documents(TEXTS * 5)
    finally:
        several.close()
    assert rows == pytest.approx(one.embed_documents(TEXTS * 5), abs=1e-5)


def test_a_long_call_shows_its_progress_on_request(
    saved: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    SentenceTransformerEmbedder(saved("bert"), progress=True).embed_documents(TEXTS)
    assert "Batches" in capsys.readouterr().err
    SentenceTransformerEmbedder(saved("bert")).embed_documents(TEXTS)
    assert "Batches" not in capsys.readouterr().err


def test_a_loaded_model_is_taken_too(saved: Any) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(saved("bert")), device="cpu")
    embedder = SentenceTransformerEmbedder(model)
    assert embedder.embed_documents(TEXTS).shape == (3, models.WIDTH)
    with pytest.raises(EmbedderError, match="rather than a loaded model"):
        embedder.with_layers(2)
    with pytest.raises(EmbedderError, match="rather than a loaded model"):
        SentenceTransformerEmbedder(model, layers=2)  # it is the caller's, and stays whole
    with pytest.raises(EmbedderError, match="a model is a hub name, a directory or a Sentence"):
        SentenceTransformerEmbedder(3)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.skipif(find_spec("optimum") is not None, reason="optimum is installed")
def test_other_backends_say_what_they_need(saved: Any, backend: str) -> None:
    with pytest.raises(EmbedderError, match=f"layers needs backend='torch', got '{backend}'"):
        SentenceTransformerEmbedder(saved("bert"), backend=backend, layers=2)
    embedder = SentenceTransformerEmbedder(saved("bert"), backend=backend)
    with pytest.raises(EmbedderError, match=rf"sentence-transformers\[{backend}\]"):
        embedder.embed_documents(TEXTS)


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs optimum-onnx[onnxruntime]")
@pytest.mark.filterwarnings("ignore")  # what tracing a model says
def test_onnx_gives_what_torch_gives(saved: Any) -> None:
    embedder = SentenceTransformerEmbedder(saved("bert"), backend="onnx")
    expected = SentenceTransformerEmbedder(saved("bert")).embed_documents(TEXTS)
    assert embedder.embed_documents(TEXTS) == pytest.approx(expected, abs=1e-3)


# Fewer layers


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_first_layers_are_kept_of_every_encoder(saved: Any, kind: str) -> None:
    whole = SentenceTransformerEmbedder(saved(kind))
    cut = whole.with_layers(2)
    assert cut.name == f"{whole.name}?layers=2"
    encoder = whole._load().transformers_model
    features = whole._load().preprocess(TEXTS)
    inputs = {key: features[key] for key in ("input_ids", "attention_mask")}
    states = encoder(**inputs, output_hidden_states=True).hidden_states
    state = states[2]
    if ENCODERS[kind]:
        norm = encoder.final_norm if hasattr(encoder, "final_norm") else encoder.norm
        state = norm(state)
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    pooled = ((state * mask).sum(1) / mask.sum(1)).detach().numpy()
    assert cut.embed_documents(TEXTS) == pytest.approx(pooled, abs=1e-5)
    assert cut.embed_documents(TEXTS) != pytest.approx(whole.embed_documents(TEXTS), abs=1e-3)

    def size(embedder: SentenceTransformerEmbedder) -> int:
        return sum(p.numel() for p in embedder._load().parameters())

    assert size(cut) < size(whole)
    layers = [n for n in range(1, models.LAYERS + 1) if whole.with_layers(n).dim]
    assert len(layers) == models.LAYERS
    assert whole.with_layers(models.LAYERS).embed_documents(TEXTS) == pytest.approx(
        whole.embed_documents(TEXTS), abs=1e-6
    )


def test_a_cut_model_can_be_saved_and_loaded(saved: Any, tmp_path: Path) -> None:
    for kind in ("bert", "qwen3"):
        cut = SentenceTransformerEmbedder(saved(kind), layers=2)
        cut._load().save_pretrained(str(tmp_path / kind))
        again = SentenceTransformerEmbedder(tmp_path / kind)
        assert again.embed_documents(TEXTS) == pytest.approx(cut.embed_documents(TEXTS), abs=1e-6)


@pytest.mark.parametrize("kind", ["albert", "bart", "clip"])
def test_an_architecture_that_is_not_understood_is_refused(saved: Any, kind: str) -> None:
    with pytest.raises(
        EmbedderError, match=r"cannot keep fewer layers of .*stacks of layers.*BERT"
    ):
        SentenceTransformerEmbedder(saved(kind), layers=2).embed_query("a photo")


def test_layers_that_are_not_there_are_refused(saved: Any) -> None:
    with pytest.raises(EmbedderError, match=r"layers=5, but .* has 4 layers"):
        SentenceTransformerEmbedder(saved("bert"), layers=5).embed_query("a photo")
    for wrong in (0, -1, True):
        with pytest.raises(EmbedderError, match="at least 1"):
            SentenceTransformerEmbedder(saved("bert"), layers=wrong)


def test_the_command_line_prints_layers_by_dims(
    saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "qa.tsv").write_text("query\tdocument\nhow many\tlayers\na\tphoto of the weather\n")
    model = f"st:{saved('bert')}"
    arguments = ["evaluate", str(tmp_path / "qa.tsv"), "--embedder", model, "--dims", "8,full"]
    assert main([*arguments, "--layers", "2,4"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines if line[0] == "|"][2:] == ["2", "4"]
    assert lines[1] == ["|", "nDCG@10", "by", "layers", "|", "full", "|", "8", "|"]
    assert main([*arguments, "--layers", "9"]) == 2
    assert "has 4 layers" in capsys.readouterr().err


# Images


def test_a_text_finds_images(saved: Any, tmp_path: Path) -> None:
    from PIL import Image

    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (9, 9, 9)}
    for name, colour in colours.items():
        Image.new("RGB", (20, 30), colour).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in colours]
    with nestvec.connect("memory:", dims=(4, 8), embedder=f"st:{saved('clip')}") as store:
        store.add([*paths[:2], Image.open(paths[2]), "a photo of red"], ids=[*colours, "text"])
        records = store.get([*colours, "text"], vectors=True)
        assert [record.text for record in records] == [*map(str, paths), "a photo of red"]
        embedder = store.embedder
        assert isinstance(embedder, SentenceTransformerEmbedder)
        query = embedder.embed_query("blue")
        scores = {r.id: r.vector @ query / np.linalg.norm(query) for r in records}
        hits = store.search("blue", 4, funnel="exact")
        assert [hit.id for hit in hits] == sorted(scores, key=scores.__getitem__, reverse=True)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True))
        for query_image in (paths[1], Image.open(paths[1])):
            hit = store.search(query_image, 1)[0]
            assert hit.id == "blue"
            assert hit.score == pytest.approx(1, abs=1e-5)


def test_a_text_that_names_an_image_stays_a_text(saved: Any, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (20, 30), "red").save(path)
    embedder = SentenceTransformerEmbedder(saved("clip"))
    image = embedder.embed_images([path])[0]
    # The file is not read, and nothing is fetched: nobody listens there.
    texts = [str(path), "http://127.0.0.1:9/x.png", "data:image/png;base64,AAAA"]
    assert embedder.embed_documents(texts).shape == (3, 16)
    assert embedder.embed_query(str(path)) != pytest.approx(image, abs=1e-3)
    prompted = SentenceTransformerEmbedder(saved("clip"), query_prompt="a ")
    assert prompted.embed_query("photo") == pytest.approx(embedder.embed_query("a photo"), abs=1e-6)


async def test_images_of_an_async_store(saved: Any, tmp_path: Path) -> None:
    from PIL import Image

    red = Image.new("RGB", (20, 30), "red")
    store = await nestvec.aconnect("memory:", dims=(4,), embedder=f"st:{saved('clip')}")
    async with store:
        await store.add([red, "a photo"], ids=["red", "text"])
        assert (await store.search(red, 1))[0].id == "red"
        assert (await store.get(["red"]))[0].text == ""


def test_what_is_no_image_is_refused_and_nothing_is_stored(saved: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with nestvec.connect("memory:", dims=(4,), embedder=f"st:{saved('clip')}") as store:
        with pytest.raises(EmbedderError, match=r"cannot read the image .*text\.png"):
            store.add([tmp_path / "text.png"])
        with pytest.raises(EmbedderError, match=r"cannot read the image .*missing\.png"):
            store.search(tmp_path / "missing.png")
        assert store.count() == 0
    for embedder, dims in (("static", 64), (f"st:{saved('bert')}", 8)):
        store = nestvec.connect("memory:", dims=(dims,), embedder=embedder)
        with store, pytest.raises(EmbedderError, match="takes texts alone"):
            store.add([tmp_path / "text.png"], ids=["a"])


# Refusals


def test_wrong_directories_and_missing_files(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"no directory './nowhere'.*OWNER/NAME"):
        nestvec.connect("memory:", dims=(8,), embedder="st:./nowhere")
    with pytest.raises(EmbedderError, match="no directory"):
        SentenceTransformerEmbedder(tmp_path / "nowhere").embed_query("a")
    with pytest.raises(EmbedderError, match=r"neither modules\.json nor config\.json"):
        resolve(f"st:{tmp_path}").embed_query("a")
    broken = tmp_path / "broken"
    shutil.copytree(saved("bert"), broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(EmbedderError, match=r"cannot load the model '.*broken'"):
        resolve(f"st:{broken}").embed_query("a")
    damaged = tmp_path / "damaged"
    shutil.copytree(saved("bert"), damaged)
    (damaged / "config.json").write_text("{")
    with pytest.raises(EmbedderError, match=r"cannot load the model '.*damaged'"):
        resolve(f"st:{damaged}").embed_query("a")


@pytest.mark.parametrize(
    "spec", ["st:a/b?layers=x", "st:a/b?layer=2", "st:a/b?layers", "st:a/b?layers=2&x=1"]
)
def test_a_spec_string_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(EmbedderError, match=r"cannot read '.*' in embedder"):
        resolve(spec)


def test_a_hub_out_of_reach_is_told_at_once(tmp_path: Path) -> None:
    code = (
        "import time, nestvec\n"
        "from nestvec.embedders import resolve\n"
        "embedder = resolve('st:somebody/something')\n"
        "try:\n    embedder.embed_query('a')\n"
        "except nestvec.EmbedderError as error:\n    print(error)"
    )
    # Nothing listens there, as where there is no network.
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env=environment,
    )  # fmt: skip
    assert "the hub cannot be reached" in done.stdout
    assert "'somebody/something' is not in its cache" in done.stdout
    assert "st:./model" in done.stdout


def test_vectors_that_are_not_finite_are_blamed_on_the_model(saved: Any) -> None:
    import torch

    embedder = SentenceTransformerEmbedder(saved("bert"))
    with torch.no_grad():
        next(embedder._load().parameters()).fill_(float("nan"))
    with nestvec.connect("memory:", dims=(8,), embedder=embedder) as store:
        with pytest.raises(EmbedderError, match=r"'st:.*': record 'a': vector has NaN"):
            store.add(["a photo"], ids=["a"])
        with pytest.raises(EmbedderError, match="query: vector has NaN"):
            store.search("a photo")
        assert store.count() == 0


def test_the_extra_is_named_where_it_is_missing() -> None:
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "import nestvec\nfrom nestvec.embedders import resolve\n"
        "try:\n    resolve('st:.').embed_query('a')\n"
        "except nestvec.MissingExtra as error:\n    print(error)"
    )
    root = Path(nestvec.__file__).parent / "embedders" / "static_model"  # it has a config.json
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == (
        "sentence-transformers is not installed; run: pip install 'nestvec[torch]'\n"
    )
