"""Any sentence-transformers model, of texts or of images too, from a hub or a directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from ..errors import EmbedderError, MissingExtra
from ..nesting import Matrix
from .layers import keep_layers
from .profiles import Profile, declared, find

__all__ = ["SentenceTransformerEmbedder", "no_bar", "package"]

#: Under which names models keep their prompts, the usual one first.
_QUERY = ("query", "retrieval.query", "search_query")
_DOCUMENT = ("document", "passage", "corpus", "retrieval.passage", "search_document")

#: Texts of one call from which on a progress bar is shown, where somebody can see it.
_LONG = 2_000

_LOADED = (
    "{}: give the model's name or directory rather than a loaded model, so that it can be loaded "
    "with other layers"
)


class SentenceTransformerEmbedder:
    """A sentence-transformers model by its hub name or directory, loaded when it is first needed.

    `layers` keeps the first n layers of its encoder, for models trained so (2D Matryoshka).
    `device` is "cuda", "mps", "cpu" and the like, by default the best there is; a list of devices
    is a process for each, and `close` ends them. `dtype` is "float32", "float16", "bfloat16" or
    "auto"; by default float32 on a CPU and what the model was saved in elsewhere. Batches of
    `batch_size` are of texts of like length. Prompts before queries and documents are those given,
    else the model's own, else its profile's. `backend` is "torch", "onnx" or "openvino".
    `progress` shows a bar for each call; None, for long ones on a terminal. Other options are
    those of `sentence_transformers.SentenceTransformer`, such as revision or trust_remote_code.

    Raises EmbedderError where the model cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path | Any,
        *,
        layers: int | None = None,
        device: str | Sequence[str] | None = None,
        dtype: str | None = None,
        backend: str = "torch",
        batch_size: int = 32,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> None:
        self._given, self.model = model, _named(model)
        self.layers, self.backend, self.dtype = _checked_layers(layers), backend, dtype
        self._devices = [device] if isinstance(device, str) else [*(device or ())]
        self._batch_size, self._progress = batch_size, progress
        self._query_prompt, self._document_prompt = query_prompt, document_prompt
        self._options = options
        if layers is not None and backend != "torch":
            raise EmbedderError(f"{self.name}: layers needs backend='torch', got {backend!r}")
        if layers is not None and not isinstance(model, (str, Path)):
            raise EmbedderError(_LOADED.format(self.name))
        self._lock = RLock()
        self._loaded: Any = None
        self._profile: Profile | None = None
        self._pool: Any = None

    @property
    def name(self) -> str:
        """The spec string of this model, which opens a collection of it again."""
        return f"st:{self.model}" + (f"?layers={self.layers}" if self.layers else "")

    @property
    def dim(self) -> int:
        """How many numbers a full vector has."""
        model = self._load()
        known = model.get_embedding_dimension()
        if not known:
            known = len(self.embed_query("width"))
        return int(known)

    @property
    def profile(self) -> Profile | None:
        """What is known of the model: its row of the table, or what it declares of itself."""
        self._load()
        return self._profile

    @property
    def prompts(self) -> tuple[str, str]:
        """What is put before queries and before documents: given, the model's own, or its row's."""
        profile = self.profile
        known = ("", "") if profile is None else (profile.query_prompt, profile.document_prompt)
        own: Mapping[str, str] = self._load().prompts

        def first(given: str | None, names: Sequence[str], row: str) -> str:
            if given is not None:
                return given
            return next((own[name] for name in names if own.get(name)), row)

        return (
            first(self._query_prompt, _QUERY, known[0]),
            first(self._document_prompt, _DOCUMENT, known[1]),
        )

    def with_layers(self, layers: int | None) -> SentenceTransformerEmbedder:
        """Return an embedder of the same model with the first n layers of its encoder."""
        if not isinstance(self._given, (str, Path)):
            raise EmbedderError(_LOADED.format(self.name))
        return SentenceTransformerEmbedder(
            self._given, layers=layers, device=self._devices or None, dtype=self.dtype,
            backend=self.backend, batch_size=self._batch_size, query_prompt=self._query_prompt,
            document_prompt=self._document_prompt, progress=self._progress, **self._options,
        )  # fmt: skip

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that will be stored."""
        return self._encode(self._as_texts(texts), self.prompts[1], "document")

    def embed_query(self, text: str) -> Matrix:
        """Return the dim numbers of a text that is searched for."""
        query: Matrix = self.embed_queries([text])[0]
        return query

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Return an (n, dim) float32 matrix of texts that are searched for."""
        return self._encode(self._as_texts(texts), self.prompts[0], "query")

    def embed_images(self, images: Sequence[Any]) -> Matrix:
        """Return an (n, dim) float32 matrix of images: paths, or PIL images.

        They are in the same space as texts where the model was trained so, as CLIP is. Raises
        EmbedderError on a model of texts alone, and on what is no image.
        """
        if not self.takes_images:
            raise EmbedderError(f"{self.name} takes texts alone; images need a model such as CLIP")
        return self._encode([_opened(image) for image in images], None, None)

    @property
    def takes_images(self) -> bool:
        """Whether the model reads images too."""
        return "image" in self._load().modalities

    def loaded(self) -> Any:
        """Return the sentence-transformers model itself."""
        return self._load()

    def close(self) -> None:
        """End the processes of several devices; the embedder can go on being used."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            self._loaded.stop_multi_process_pool(pool)

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({self.name!r})"

    # Loading

    def _load(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._made()
                self._loaded.truncate_dim = None  # the full vector is what prefixes are cut from
                self._profile = self._known(self._loaded)
            return self._loaded

    def _made(self) -> Any:
        made = self._given
        if isinstance(made, (str, Path)):
            # What can be wrong is found before the import, which takes seconds.
            _check_place(self.model)
            _need_package()
            options: Mapping[str, Any] = self._options
            if not Path(self.model).is_dir():
                options = _reached(self.model, options)
            made = _load(self.model, self._settings(options))
        if self.layers is not None:
            keep_layers(made, self.layers, self.model)
        return made

    def _settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        device = self._devices[0] if len(self._devices) == 1 else None
        settings = {"device": device, "backend": self.backend, **options}
        if len(self._devices) > 1:
            settings["device"] = "cpu"  # each process moves its own copy
        if self.backend == "torch":
            dtype = self.dtype or ("auto" if _accelerated(settings["device"]) else "float32")
            settings["model_kwargs"] = {"torch_dtype": dtype, **settings.get("model_kwargs", {})}
        elif self.dtype is not None:
            raise EmbedderError(f"{self.name}: dtype needs backend='torch'")
        return settings

    def _known(self, model: Any) -> Profile | None:
        dim = model.get_embedding_dimension()
        profile = find(self.model)
        if profile is not None and profile.dim == dim:
            return profile
        config = getattr(getattr(model, "transformers_model", None), "config", None)
        declares = {} if config is None else config.to_dict()
        return declared(self.model, dim, declares, _card(self.model)) if dim else None

    # Embedding

    def _as_texts(self, texts: Sequence[str]) -> list[Any]:
        """Return inputs that are texts, whatever they look like.

        A model that reads more than texts would take one that is a path or a URL of an image for
        the image, and read or fetch it.
        """
        if self._load().modalities == ["text"]:
            return list(texts)
        return [{"text": text} for text in texts]

    def _encode(self, inputs: list[Any], prompt: str | None, task: str | None) -> Matrix:
        model = self._load()
        if not inputs:
            return np.empty((0, self.dim), np.float32)
        options: dict[str, Any] = {"pool": self._processes()} if len(self._devices) > 1 else {}
        if task is not None:
            options["task"] = self._task(task)
        try:
            made = model.encode(
                inputs, prompt=prompt or None, batch_size=self._batch_size,
                show_progress_bar=self._shown(len(inputs)), convert_to_numpy=True, **options,
            )  # fmt: skip
        except Exception as error:
            raise EmbedderError(
                f"{self.name} could not embed {len(inputs)} inputs: {_told(error)}"
            ) from error
        rows = np.asarray(made, dtype=np.float32)
        if self._profile is not None:
            rows = np.asarray(self._profile.prepared(rows), dtype=np.float32)
        return rows

    def _task(self, task: str) -> str:
        profile = self._profile
        if profile is None:
            return task
        asked = profile.query_options if task == "query" else profile.document_options
        return str(asked.get("task", task))

    def _shown(self, count: int) -> bool:
        if self._progress is not None:
            return self._progress
        return count >= _LONG and sys.stderr.isatty()

    def _processes(self) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = self._loaded.start_multi_process_pool(list(self._devices))
            return self._pool


def _named(model: Any) -> str:
    """Return the name that a model is recorded under: a hub's, or an absolute directory."""
    if not isinstance(model, (str, Path)):
        if not hasattr(model, "encode") or not hasattr(model, "modules"):
            raise EmbedderError(
                f"a model is a hub name, a directory or a SentenceTransformer, got {type(model)}"
            )
        card = getattr(model, "model_card_data", None)
        return str(getattr(card, "base_model", None) or type(model).__name__)
    path = Path(model).expanduser()
    if path.is_dir() or isinstance(model, Path):
        return str(path.resolve())
    if not model.strip():
        raise EmbedderError("the model has no name; write st:NAME_OR_DIR")
    return model


def _checked_layers(layers: int | None) -> int | None:
    if layers is not None and (isinstance(layers, bool) or layers < 1):
        raise EmbedderError(f"layers is how many layers are kept, at least 1, got {layers!r}")
    return layers


def _check_place(model: str) -> None:
    """Raise EmbedderError on what is neither a directory of a model nor a hub's name."""
    directory = Path(model)
    if directory.is_dir():
        if not any((directory / name).is_file() for name in ("modules.json", "config.json")):
            raise EmbedderError(f"{model} is no model: it has neither modules.json nor config.json")
    elif model[:1] in {".", "/", "~"} or model.count("/") > 1:
        raise EmbedderError(f"no directory {model!r}; a model at a hub is written OWNER/NAME")


def _load(model: str, settings: dict[str, Any]) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        with nullcontext() if sys.stderr.isatty() else no_bar():  # a bar is for who can see it
            return SentenceTransformer(model, **settings)
    except Exception as error:
        raise EmbedderError(f"cannot load the model {model!r}: {_told(error)}") from error


def package(part: str = "") -> Any:
    """Return sentence_transformers, its part "losses" or "modules", or transformers.

    Raises MissingExtra.
    """
    _need_package()
    import sentence_transformers
    import transformers

    if part in {"", "transformers"}:
        return transformers if part else sentence_transformers
    moved = f"sentence_transformers.sentence_transformer.{part}"  # since 6
    known = find_spec("sentence_transformers.sentence_transformer") is not None
    return import_module(moved if known else f"sentence_transformers.{part}")


@contextmanager
def no_bar() -> Iterator[None]:
    """Show none of transformers' bars for reading and writing weights."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _need_package() -> None:
    if find_spec("sentence_transformers") is None or find_spec("torch") is None:
        raise MissingExtra("sentence-transformers", "torch")


def _reached(model: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings that load a hub's model, from its cache where the hub is out of reach.

    Asked once and at once: loading asks for each file again for a minute before it gives up.
    """
    import huggingface_hub as hub

    repository = model if "/" in model else f"sentence-transformers/{model}"
    if settings.get("local_files_only"):
        return settings
    try:
        hub.model_info(
            repository, revision=settings.get("revision"), timeout=10, token=settings.get("token")
        )
    except hub.errors.RepositoryNotFoundError:
        raise EmbedderError(
            f"no model {model!r} at the hub, or it is private and needs HF_TOKEN; for a directory "
            "write its path"
        ) from None
    except hub.errors.HfHubHTTPError as error:
        raise EmbedderError(f"the hub refused the model {model!r}: {_told(error)}") from error
    except Exception as error:
        cached = hub.try_to_load_from_cache(
            repository, "modules.json", revision=settings.get("revision")
        )
        if not isinstance(cached, str):
            raise EmbedderError(
                f"the hub cannot be reached and the model {model!r} is not in its cache: "
                f"{_told(error)}; give the directory of a copy, as in st:./model"
            ) from error
        return {**settings, "local_files_only": True}
    return settings


def _accelerated(device: str | None) -> bool:
    if device is not None:
        return not device.startswith("cpu")
    from sentence_transformers.util import get_device_name

    return str(get_device_name()) != "cpu"


def _card(model: str) -> str:
    path = Path(model) / "README.md"
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _opened(image: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, AttributeError) as error:
        raise EmbedderError(f"cannot read the image {image!r}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """Return the first line of an error, with its kind where it says nothing."""
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
