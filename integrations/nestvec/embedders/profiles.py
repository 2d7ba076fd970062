"""What must be done right for each model that is known: a table, and what follows from it.

Always: take the first n numbers of the full vector, then make them unit length. Some models want
a step before that, prompts before queries or documents, or were trained for certain lengths only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..nesting import Field

__all__ = ["PROFILES", "Profile", "UntrainedPrefix", "advice", "declared", "find", "profile_of"]

_HUB = "https://huggingface.co/"
_VOYAGE = "https://docs.voyageai.com/docs/embeddings"
_MXBAI = "Represent this sentence for searching relevant passages: "
_QWEN = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)


class UntrainedPrefix(UserWarning):
    """A prefix, or a number of layers, that its model was not trained for is asked for."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One model: `model` is its name at its hub or API, `dim` the length of its full vectors.

    `trained` are the prefix lengths that its authors trained or published, longest first;
    `shortest` says instead that every length from there on is one. Both empty: which ones is not
    confirmed, or, where `matryoshka` is false, none. `layer_norm` is taken over the full vector
    before a prefix is cut. `unit` is false where the model's own output is not of unit length.
    `query_options` and `document_options` are what its API takes beside the text, `parameter` its
    name for a length (nestvec asks for the full vector and cuts locally). `layers` are the first
    and last number of layers that a 2D model was trained to stop at. `unconfirmed` names the
    attributes that no primary source confirms.
    """

    model: str
    dim: int
    source: str
    trained: tuple[int, ...] = ()
    shortest: int | None = None
    matryoshka: bool = True
    layer_norm: bool = False
    unit: bool = True
    query_prompt: str = ""
    document_prompt: str = ""
    query_options: Mapping[str, Any] = field(default_factory=dict)
    document_options: Mapping[str, Any] = field(default_factory=dict)
    parameter: str | None = None
    layers: tuple[int, int] | None = None
    max_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""
    unconfirmed: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The prefixes that it was trained for, in words."""
        if not self.matryoshka:
            return "none"
        if self.shortest is not None:
            return f"{self.shortest} or more"
        return " ".join(str(n) for n in reversed(self.trained) if n < self.dim) or "not confirmed"

    @property
    def remarks(self) -> str:
        """What else must be done right for it, in words; nestvec does that."""
        said = [
            "layer_norm first" if self.layer_norm else "",
            "prompts" if self.query_prompt or self.document_prompt else "",
            f"layers {self.layers[0]} to {self.layers[1]}" if self.layers else "",
            self.note,
            ""
            if "not confirmed" in self.note or not self.unconfirmed
            else f"not confirmed: {', '.join(self.unconfirmed)}",
        ]
        return "; ".join(remark for remark in said if remark)

    def is_trained(self, length: int) -> bool:
        """Return whether the model is known to be trained for a prefix, or may well be."""
        if not self.matryoshka:
            return length >= self.dim
        if self.shortest is not None:
            return length >= self.shortest
        return length >= self.dim or not self.trained or length in self.trained

    def prepared(self, vectors: Any) -> Any:
        """Return (n, dim) vectors after the step that this model wants before a prefix is cut.

        Only whole vectors are: a step over the full vector means nothing for a part of it.
        """
        if not self.layer_norm:
            return vectors
        rows = np.asarray(vectors)
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.dtype.kind != "f":
            return vectors  # whoever stores it says what is wrong with it
        rows = rows.astype(np.float64)
        # torch.nn.functional.layer_norm without weights; its epsilon only shortens the vector.
        centred = rows - rows.mean(axis=1, keepdims=True)
        return centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5)


def _qwen(size: str, dim: int) -> Profile:
    return Profile(
        f"Qwen/Qwen3-Embedding-{size}", dim, f"{_HUB}Qwen/Qwen3-Embedding-{size}", shortest=32,
        query_prompt=_QWEN, parameter="dimensions", max_tokens=32768,
        aliases=(f"qwen3-embedding:{size.lower()}",), note="last-token pooling",
    )  # fmt: skip


def _voyage(model: str) -> Profile:
    return Profile(
        model, 2048, _VOYAGE, trained=(2048, 1024, 512, 256),
        query_options={"input_type": "query", "output_dimension": 2048},
        document_options={"input_type": "document", "output_dimension": 2048},
        parameter="output_dimension", max_tokens=32000,
        note="1,024 numbers where output_dimension does not ask for more",
    )  # fmt: skip


#: Every model that is known, by family.
PROFILES: tuple[Profile, ...] = (
    Profile(
        "static", 256, "integrations/nestvec/embedders/static_model/report.json",
        trained=(256, 128, 64, 32), unit=False, note="in the package, offline",
    ),
    Profile(
        "nomic-ai/nomic-embed-text-v1.5", 768, f"{_HUB}nomic-ai/nomic-embed-text-v1.5",
        trained=(768, 512, 256, 128, 64), layer_norm=True, unit=False,
        query_prompt="search_query: ", document_prompt="search_document: ",
        parameter="dimensionality", max_tokens=8192,
        aliases=("nomic-embed-text", "nomic-embed-text:v1.5"),
    ),
    Profile(
        "nomic-ai/nomic-embed-text-v2-moe", 768, f"{_HUB}nomic-ai/nomic-embed-text-v2-moe",
        trained=(768, 256), query_prompt="search_query: ", document_prompt="search_document: ",
        max_tokens=512,
    ),
    Profile(
        "mixedbread-ai/mxbai-embed-2d-large-v1", 1024,
        f"{_HUB}mixedbread-ai/mxbai-embed-2d-large-v1", trained=(1024, 512, 256, 128, 64),
        query_prompt=_MXBAI, parameter="dimensions", layers=(13, 24), max_tokens=512,
    ),
    Profile(
        "mixedbread-ai/mxbai-embed-large-v1", 1024, f"{_HUB}mixedbread-ai/mxbai-embed-large-v1",
        query_prompt=_MXBAI, parameter="dimensions", max_tokens=512, unconfirmed=("trained",),
    ),
    Profile(
        "google/embeddinggemma-300m", 768, f"{_HUB}google/embeddinggemma-300m",
        trained=(768, 512, 256, 128), query_prompt="task: search result | query: ",
        document_prompt="title: none | text: ", max_tokens=2048, aliases=("embeddinggemma",),
    ),
    _qwen("0.6B", 1024),
    _qwen("4B", 2560),
    _qwen("8B", 4096),
    Profile(
        "Alibaba-NLP/gte-multilingual-base", 768, f"{_HUB}Alibaba-NLP/gte-multilingual-base",
        shortest=128, max_tokens=8192,
    ),
    Profile(
        "Snowflake/snowflake-arctic-embed-l-v2.0", 1024,
        f"{_HUB}Snowflake/snowflake-arctic-embed-l-v2.0", trained=(1024, 256),
        query_prompt="query: ", max_tokens=8192, aliases=("snowflake-arctic-embed2",),
    ),
    Profile(
        "Snowflake/snowflake-arctic-embed-m-v2.0", 768,
        f"{_HUB}Snowflake/snowflake-arctic-embed-m-v2.0", trained=(768, 256),
        query_prompt="query: ", max_tokens=8192,
    ),
    Profile(
        "Snowflake/snowflake-arctic-embed-m-v1.5", 768,
        f"{_HUB}Snowflake/snowflake-arctic-embed-m-v1.5", trained=(768, 256),
        query_prompt=_MXBAI, max_tokens=512,
    ),
    Profile(
        "jinaai/jina-embeddings-v3", 1024, f"{_HUB}jinaai/jina-embeddings-v3", shortest=32,
        query_prompt="Represent the query for retrieving evidence documents: ",
        document_prompt="Represent the document for retrieval: ", parameter="dimensions",
        max_tokens=8192, unconfirmed=("shortest", "parameter"),
    ),
    Profile(
        "jinaai/jina-embeddings-v4", 2048, f"{_HUB}jinaai/jina-embeddings-v4",
        trained=(2048, 1024, 512, 256, 128), query_prompt="Query: ", document_prompt="Passage: ",
        parameter="dimensions", max_tokens=32768, note="mean pooling",
    ),
    Profile(
        "sentence-transformers/static-retrieval-mrl-en-v1", 1024,
        f"{_HUB}sentence-transformers/static-retrieval-mrl-en-v1",
        trained=(1024, 512, 256, 128, 64, 32), unit=False, note="not confirmed below 512",
        unconfirmed=("trained",),
    ),
    Profile(
        "minishlab/potion-retrieval-32M", 512, f"{_HUB}minishlab/potion-retrieval-32M",
        matryoshka=False, note="numbers in PCA order",
    ),
    Profile(
        "minishlab/potion-base-8M", 256, f"{_HUB}minishlab/potion-base-8M",
        matryoshka=False, note="numbers in PCA order",
    ),
    Profile(
        "tomaarsen/mpnet-base-nli-matryoshka", 768, f"{_HUB}tomaarsen/mpnet-base-nli-matryoshka",
        trained=(768, 512, 256, 128, 64), max_tokens=512,
    ),
    Profile(
        "sentence-transformers/all-MiniLM-L6-v2", 384,
        f"{_HUB}sentence-transformers/all-MiniLM-L6-v2", matryoshka=False, max_tokens=256,
        aliases=("all-minilm",),
    ),
    Profile(
        "text-embedding-3-large", 3072, "https://openai.com/index/new-embedding-models-and-api-updates/",
        trained=(3072, 1024, 256), parameter="dimensions", max_tokens=8191,
    ),
    Profile(
        "text-embedding-3-small", 1536, "https://openai.com/index/new-embedding-models-and-api-updates/",
        trained=(1536, 512), parameter="dimensions", max_tokens=8191,
    ),
    Profile(
        "text-embedding-ada-002", 1536, "https://platform.openai.com/docs/guides/embeddings",
        matryoshka=False, max_tokens=8191,
    ),
    _voyage("voyage-3.5"),
    _voyage("voyage-3.5-lite"),
    _voyage("voyage-3-large"),
    _voyage("voyage-code-3"),
    Profile(
        "embed-v4.0", 1536, "https://docs.cohere.com/docs/cohere-embed",
        trained=(1536, 1024, 512, 256), query_options={"input_type": "search_query"},
        document_options={"input_type": "search_document"}, parameter="output_dimension",
        max_tokens=128000, note="Cohere",
    ),
    Profile(
        "gemini-embedding-001", 3072, "https://ai.google.dev/gemini-api/docs/embeddings",
        shortest=128, unit=False, query_options={"task_type": "RETRIEVAL_QUERY"},
        document_options={"task_type": "RETRIEVAL_DOCUMENT"}, parameter="output_dimensionality",
        max_tokens=2048, note="Google; recommended are 768, 1,536 and 3,072; only 3,072 is unit",
    ),
)  # fmt: skip

_SPEC = re.compile(r"(?:[^/\\]*?:)?(?P<model>.+?)(?:@https?://.*|\?.*|:latest)?")

#: Where huggingface_hub keeps a copy of a model.
_SNAPSHOT = re.compile(r".*[/\\]models--(?P<owner>.+?)--(?P<name>.+?)[/\\]snapshots[/\\].+")

#: By lower-case name at a hub or an API; and by the last part of a hub's name, as directories have.
_BY_NAME = {
    name.lower(): profile for profile in PROFILES for name in (profile.model, *profile.aliases)
}
_BY_LAST = {
    profile.model.lower().rpartition("/")[2]: profile
    for profile in PROFILES
    if "/" in profile.model
}


def find(name: str) -> Profile | None:
    """Return the profile of a model by its name, spec string, directory or wrapped class."""
    for given in (name, _model(name)):
        lower = given.lower().rstrip("/")
        profile = _BY_NAME.get(lower) or _BY_LAST.get(re.split(r"[/\\]", lower)[-1])
        if profile is not None:
            return profile
    return None


def _model(name: str) -> str:
    match = _SPEC.fullmatch(name)
    model = match["model"] if match else name
    kept = _SNAPSHOT.fullmatch(model)
    return f"{kept['owner']}/{kept['name']}" if kept else model


def profile_of(embedder: Any) -> Profile | None:
    """Return an embedder's own profile, or the one that its name finds."""
    own = getattr(embedder, "profile", None)
    return own if isinstance(own, Profile) else find(embedder.name)


def declared(
    name: str, dim: int, config: Mapping[str, Any], card: str = "", source: str = ""
) -> Profile | None:
    """Return what a model that is not in the table declares of itself, or None.

    `config` is its config.json: vLLM's `is_matryoshka` and `matryoshka_dimensions`. `card` is its
    model card, where sentence-transformers writes the `matryoshka_dims` that it trained.
    """
    lengths = config.get("matryoshka_dimensions") or config.get("matryoshka_dims")
    if not lengths and (written := re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', card)):
        lengths = [int(number) for number in re.findall(r"\d+", written[1])]
    if not isinstance(lengths, list) or not all(isinstance(n, int) for n in lengths):
        lengths = []
    if not lengths and not config.get("is_matryoshka"):
        return None
    trained = tuple(sorted({*lengths, dim}, reverse=True)) if lengths else ()
    return Profile(name, dim, source or name, trained=trained)


def advice(
    profile: Profile | None, dim: int, fields: Sequence[Field], layers: int | None = None
) -> str | None:
    """Return what to say of fields over vectors of `dim` that the model was not trained for.

    `layers` is how many of its encoder are kept, None for all of them.
    """
    if profile is None:
        return None
    said = [_of_prefixes(profile, dim, fields), _of_layers(profile, layers)]
    return "; ".join(filter(None, said)) or None


def _of_prefixes(profile: Profile, dim: int, fields: Sequence[Field]) -> str | None:
    lengths = sorted({f.length for f in fields if f.length < dim})
    wrong = [length for length in lengths if not profile.is_trained(length)]
    if not wrong:
        return None
    asked = _spoken(wrong)
    if not profile.matryoshka:
        order = f" ({profile.note})" if profile.note else ""
        return (
            f"{profile.model} is not a Matryoshka model{order}, so its first {asked} of {dim} "
            "numbers say less than they could: fit an adaptor on your own texts (nestvec adapt), "
            "or take a Matryoshka model (nestvec models)"
        )
    if profile.shortest is not None:
        known = f"{profile.shortest} numbers or more"
    else:
        known = f"{_spoken(sorted(n for n in profile.trained if n < dim))} numbers"
    return (
        f"{profile.model} was trained for prefixes of {known}, not of {asked}: take one of those, "
        "or fit an adaptor on your own texts (nestvec adapt)"
    )


def _of_layers(profile: Profile, layers: int | None) -> str | None:
    if profile.layers is None or not isinstance(layers, int):
        return None
    first, last = profile.layers
    if first <= layers <= last:
        return None
    return (
        f"{profile.model} was trained to stop after {first} to {last} layers, not after {layers}: "
        "nestvec evaluate --layers shows what that loses"
    )


def _spoken(lengths: Sequence[int]) -> str:
    *most, last = map(str, lengths)
    return f"{', '.join(most)} and {last}" if most else last
