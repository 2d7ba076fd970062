"""What is known of each model, and that what follows from it is done."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import nestvec
from nestvec.embedders import resolve
from nestvec.embedders.profiles import PROFILES, Profile, UntrainedPrefix, advice, declared, find
from nestvec.nesting import Field, Nesting, nest

QWEN = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
MXBAI = "Represent this sentence for searching relevant passages: "

#: model: full vector, prefixes trained, query prompt, document prompt, API parameter, max tokens.
ROWS = {
    "static": (256, "32 64 128", "", "", None, None),
    "nomic-ai/nomic-embed-text-v1.5": (
        768, "64 128 256 512", "search_query: ", "search_document: ", "dimensionality", 8192),
    "nomic-ai/nomic-embed-text-v2-moe": (
        768, "256", "search_query: ", "search_document: ", None, 512),
    "mixedbread-ai/mxbai-embed-2d-large-v1": (
        1024, "64 128 256 512", MXBAI, "", "dimensions", 512),
    "mixedbread-ai/mxbai-embed-large-v1": (1024, "not confirmed", MXBAI, "", "dimensions", 512),
    "google/embeddinggemma-300m": (
        768, "128 256 512", "task: search result | query: ", "title: none | text: ", None, 2048),
    "Qwen/Qwen3-Embedding-0.6B": (1024, "32 or more", QWEN, "", "dimensions", 32768),
    "Qwen/Qwen3-Embedding-4B": (2560, "32 or more", QWEN, "", "dimensions", 32768),
    "Qwen/Qwen3-Embedding-8B": (4096, "32 or more", QWEN, "", "dimensions", 32768),
    "Alibaba-NLP/gte-multilingual-base": (768, "128 or more", "", "", None, 8192),
    "Snowflake/snowflake-arctic-embed-l-v2.0": (1024, "256", "query: ", "", None, 8192),
    "Snowflake/snowflake-arctic-embed-m-v2.0": (768, "256", "query: ", "", None, 8192),
    "Snowflake/snowflake-arctic-embed-m-v1.5": (768, "256", MXBAI, "", None, 512),
    "jinaai/jina-embeddings-v3": (
        1024, "32 or more", "Represent the query for retrieving evidence documents: ",
        "Represent the document for retrieval: ", "dimensions", 8192),
    "jinaai/jina-embeddings-v4": (
        2048, "128 256 512 1024", "Query: ", "Passage: ", "dimensions", 32768),
    "sentence-transformers/static-retrieval-mrl-en-v1": (
        1024, "32 64 128 256 512", "", "", None, None),
    "minishlab/potion-retrieval-32M": (512, "none", "", "", None, None),
    "minishlab/potion-base-8M": (256, "none", "", "", None, None),
    "tomaarsen/mpnet-base-nli-matryoshka": (768, "64 128 256 512", "", "", None, 512),
    "sentence-transformers/all-MiniLM-L6-v2": (384, "none", "", "", None, 256),
    "text-embedding-3-large": (3072, "256 1024", "", "", "dimensions", 8191),
    "text-embedding-3-small": (1536, "512", "", "", "dimensions", 8191),
    "text-embedding-ada-002": (1536, "none", "", "", None, 8191),
    "voyage-3.5": (2048, "256 512 1024", "", "", "output_dimension", 32000),
    "voyage-3.5-lite": (2048, "256 512 1024", "", "", "output_dimension", 32000),
    "voyage-3-large": (2048, "256 512 1024", "", "", "output_dimension", 32000),
    "voyage-code-3": (2048, "256 512 1024", "", "", "output_dimension", 32000),
    "embed-v4.0": (1536, "256 512 1024", "", "", "output_dimension", 128000),
    "gemini-embedding-001": (3072, "128 or more", "", "", "output_dimensionality", 2048),
}  # fmt: skip


def test_every_row_of_the_table_is_tested() -> None:
    assert [profile.model for profile in PROFILES] == list(ROWS)


@pytest.mark.parametrize("model", ROWS)
def test_a_row_says_what_its_authors_say(model: str) -> None:
    profile = find(model)
    assert profile is not None
    said = (
        profile.dim, profile.told, profile.query_prompt, profile.document_prompt,
        profile.parameter, profile.max_tokens,
    )  # fmt: skip
    assert said == ROWS[model]
    assert profile.source.startswith("https://") or model == "static"
    assert {*profile.unconfirmed} <= {*Profile.__dataclass_fields__}
    assert profile.layer_norm == (model == "nomic-ai/nomic-embed-text-v1.5")
    assert profile.layers == ((13, 24) if model.endswith("2d-large-v1") else None)
    if profile.trained:
        assert profile.trained[0] == profile.dim
        assert list(profile.trained) == sorted(profile.trained, reverse=True)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.model)
def test_prefixes_that_were_trained_are_no_warning_and_others_are(profile: Profile) -> None:
    def said(length: int) -> str | None:
        return advice(profile, profile.dim, [Field(length)])

    trained = [n for n in (*profile.trained, profile.shortest or 0) if 0 < n < profile.dim]
    for length in trained:
        assert said(length) is None
    wrong = said(31)
    if not profile.matryoshka:
        assert wrong is not None
        assert "is not a Matryoshka model" in wrong
        assert "nestvec adapt" in wrong
        assert "nestvec models" in wrong
    elif trained:
        assert wrong is not None
        assert str(trained[0]) in wrong
        assert "not of 31" in wrong
        assert "nestvec adapt" in wrong
    else:
        assert wrong is None  # what it was trained for is not known


def test_layers_that_a_2d_model_was_not_trained_for_are_a_warning() -> None:
    profile = find("st:mixedbread-ai/mxbai-embed-2d-large-v1?layers=6")
    assert profile is not None
    for layers in (None, 13, 24):
        assert advice(profile, 1024, [Field(64)], layers) is None
    said = advice(profile, 1024, [Field(64)], 6)
    assert said is not None
    assert "trained to stop after 13 to 24 layers, not after 6: nestvec evaluate" in said
    both = advice(profile, 1024, [Field(65)], 6)
    assert both is not None
    assert both.endswith(said)
    assert "not of 65" in both
    assert advice(find("text-embedding-3-large"), 3072, [Field(256)], 6) is None


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("st:nomic-ai/nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("st:/models/nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("st:/cache/hub/models--nomic-ai--nomic-embed-text-v1.5/snapshots/e5cf08aa?layers=6",
         "nomic-ai/nomic-embed-text-v1.5"),
        ("st:mixedbread-ai/mxbai-embed-2d-large-v1?layers=13",
         "mixedbread-ai/mxbai-embed-2d-large-v1"),
        ("openai:text-embedding-3-large", "text-embedding-3-large"),
        ("openai:nomic-embed-text@http://localhost:11434/v1", "nomic-ai/nomic-embed-text-v1.5"),
        ("openai:qwen3-embedding:0.6b@http://localhost:11434/v1", "Qwen/Qwen3-Embedding-0.6B"),
        ("OllamaEmbeddings:nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5"),
        ("OpenAIEmbeddings:text-embedding-ada-002", "text-embedding-ada-002"),
        ("HuggingFaceEmbeddings:sentence-transformers/all-MiniLM-L6-v2",
         "sentence-transformers/all-MiniLM-L6-v2"),
        ("Qwen/qwen3-embedding-8b", "Qwen/Qwen3-Embedding-8B"),
    ],
)  # fmt: skip
def test_a_model_is_found_by_every_name_that_it_goes_by(name: str, model: str) -> None:
    profile = find(name)
    assert profile is not None
    assert profile.model == model


@pytest.mark.parametrize("name", ["st:/models/static", "my-own", "st:me/nomic-embed", "", ":", "@"])
def test_others_are_not_taken_for_a_known_model(name: str) -> None:
    assert find(name) is None


def test_what_a_model_declares_of_itself_is_read() -> None:
    made = declared("mine", 96, {"matryoshka_dimensions": [16, 48]})
    assert made is not None
    assert made.trained == (96, 48, 16)
    made = declared("mine", 96, {}, '```json\n{"matryoshka_dims": [\n  96,\n  48,\n 24\n]}')
    assert made is not None
    assert made.trained == (96, 48, 24)
    made = declared("mine", 96, {"is_matryoshka": True})
    assert made is not None
    assert advice(made, 96, [Field(7)]) is None
    for nothing in ({}, {"matryoshka_dimensions": "many"}, {"is_matryoshka": False}):
        assert declared("mine", 96, nothing) is None


# The order of steps


def test_a_prefix_is_cut_and_then_made_unit_length_as_openai_does() -> None:
    # Of "The cat chases the mouse": the full vector, and what dimensions=1024 answers.
    full = [-0.023972103, -0.01711244, 0.003479407]
    shortened = [-0.03311979, -0.023642497, 0.0048071383]
    norm = full[0] / shortened[0]  # of the first 1,024 numbers
    vector = np.zeros(3072)
    vector[:3] = full
    vector[3] = math.sqrt(norm**2 - sum(n**2 for n in full))
    vector[1024] = math.sqrt(1 - norm**2)
    prefix = nest([vector], Nesting.of((1024,), 3072))["d1024"][0]
    assert prefix[:3] == pytest.approx(shortened, rel=1e-5)
    # Any step that adds or subtracts would give each number another factor.
    factors = np.array(shortened) / full
    assert factors == pytest.approx(factors[0], rel=1e-5)


def test_layer_norm_comes_before_the_prefix() -> None:
    """By hand: two vectors whose prefixes are alike before layer_norm, and unlike after it."""
    profile = find("nomic-ai/nomic-embed-text-v1.5")
    assert profile is not None
    rows = np.zeros((2, 768))
    rows[:, :2] = [[3, 1], [1, 3]]
    rows[:, 2:] = 2  # so the mean of each row is 2
    mean = rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt(((rows - mean) ** 2).mean(axis=1, keepdims=True) + 1e-5)
    assert np.allclose(profile.prepared(rows), (rows - mean) / deviation)
    prefixes = nest(profile.prepared(rows), Nesting.of((2,), 768))["d2"]
    assert prefixes[0] @ prefixes[1] == pytest.approx(-1, abs=1e-4)  # (1, -1) and (-1, 1)
    without = nest(rows, Nesting.of((2,), 768))["d2"]
    assert without[0] @ without[1] == pytest.approx(0.6)  # (3, 1) and (1, 3)


def test_layer_norm_is_torchs() -> None:
    import torch

    profile = find("nomic-ai/nomic-embed-text-v1.5")
    assert profile is not None
    rows = np.random.default_rng(0).normal(0.3, 2.0, (5, 768)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(torch.tensor(rows), normalized_shape=(768,)).numpy()
    assert np.allclose(profile.prepared(rows), expected, atol=1e-5)
    # A part of the vector is not what it is taken over, and twice is once.
    assert profile.prepared(rows[:, :256]) is not None
    assert np.array_equal(profile.prepared(rows[:, :256]), rows[:, :256])
    assert np.allclose(profile.prepared(profile.prepared(rows)), expected, atol=1e-4)


# What a user sees


class Embeddings:
    """A LangChain-like embedding class of a model that is known."""

    def __init__(self, model: str, dim: int) -> None:
        self.model, self.width = model, dim

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rng = np.random.default_rng(1)
        rows: list[list[float]] = (rng.random((len(texts), self.width)) + 1).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_making_a_collection_warns_where_the_user_did_it() -> None:
    embeddings = Embeddings("nomic-ai/nomic-embed-text-v1.5", 768)
    with pytest.warns(UntrainedPrefix, match="64, 128, 256 and 512 numbers, not of 96") as caught:
        nestvec.connect("memory:", dims=(64, 96), embedder=embeddings).close()
    assert caught[0].filename == __file__
    model = Embeddings("text-embedding-ada-002", 1536)
    with pytest.warns(UntrainedPrefix, match="ada-002 is not a Matryoshka model"):
        nestvec.connect("memory:", dims=(64,), embedder=model).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nestvec.connect("memory:", dims=(64, 256), embedder=embeddings).close()
        nestvec.connect("memory:", dims=("full:int8",), embedder=embeddings).close()


async def test_it_warns_of_asyncio_too() -> None:
    embeddings = Embeddings("nomic-ai/nomic-embed-text-v1.5", 768)
    with pytest.warns(UntrainedPrefix, match="not of 96") as caught:
        store = await nestvec.aconnect("memory:", dims=(96,), embedder=embeddings)
    await store.close()
    assert caught[0].filename == __file__


def test_a_wrapped_embedder_of_nomic_gets_layer_norm() -> None:
    embeddings = Embeddings("nomic-embed-text", 768)
    embedder = resolve(embeddings)
    rows = np.asarray(embedder.embed_documents(["a", "b"]))
    assert rows.mean(axis=1) == pytest.approx(0, abs=1e-9)
    assert np.asarray(embedder.embed_query("a")).mean() == pytest.approx(0, abs=1e-9)
    other = resolve(Embeddings("text-embedding-3-small", 1536))
    assert np.asarray(other.embed_documents(["a"])).mean() > 1
