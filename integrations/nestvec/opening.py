"""What a store is opened with: checked, with its paths absolute, and enough to open it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from typing import Any

from .adaptors.base import Adaptor
from .backends.base import Backend
from .collection import Collection, open_collection
from .errors import AdaptorError, ConfigError, FunnelError, MissingExtra, NestingError
from .flow import Flow
from .funnel import check_count
from .options import chosen
from .secrets import hidden, redacted, secrets_in, secrets_of
from .sources import checked_size
from .urls import ENGINES, located, scheme_of

__all__ = ["Place"]


@dataclass(frozen=True, repr=False)
class Place:
    """Where a collection is and how it is read: the arguments of `connect`, secrets included.

    `given` is the URL as it was written, `url` means the same from any working directory.
    """

    url: str
    collection: str
    embedder: Any
    adaptor: Adaptor | None
    batch_size: int
    options: Mapping[str, Any]
    given: str = field(default="", compare=False)

    @classmethod
    def of(
        cls,
        url: Any,
        *,
        collection: Any,
        embedder: Any,
        adaptor: Any,
        batch_size: Any,
        options: dict[str, Any],
    ) -> Place:
        """Return what `connect` was asked for. Raises ConfigError or AdaptorError."""
        try:
            scheme_of(url)
            _check_name(collection)
            size = checked_size(batch_size)
            place = located(url)
            return cls(place, collection, embedder, _adaptor(adaptor), size, options, str(url))
        except Exception as error:
            hidden(error, *secrets_in(str(url)))
            raise

    def backend(self) -> Backend:
        """Return the engine's backend, which was not asked for anything yet."""
        try:
            return self._backend()
        except Exception as error:
            keys = (key for key in self.options.values() if isinstance(key, str))
            hidden(error, *secrets_in(self.url), *(keys if "api_key" in self.options else ()))
            raise

    def _backend(self) -> Backend:
        scheme = scheme_of(self.url)
        module_name, backend, settings, extra = ENGINES[scheme]
        try:
            module = import_module(f".backends.{module_name}", __package__)
        except ModuleNotFoundError as error:
            if not extra or error.name is None:
                raise
            raise MissingExtra(error.name, extra) from error
        options = chosen(getattr(module, settings), scheme, self.options)
        made: Backend = getattr(module, backend)(self.url, self.collection, options)
        if not self.collection or "\0" in self.collection:  # most engines have said more of it
            raise ConfigError(f"collection {self.collection!r:.80} is empty or has a NUL character")
        made.options = options
        made.secrets = secrets_of(self.url, options)
        made.place = made.url
        if made.url == self.url:  # people know the directory by the path that they wrote
            made.url, made.place = redacted(self.given), redacted(self.url)
        return made

    def opening(self, backend: Backend, dims: Any, dim: Any) -> Flow[Collection]:
        """Return the flow that opens the collection, or makes it. Raises NestingError."""
        return open_collection(
            backend,
            _checked_dims(dims),
            self.embedder,
            adaptor=self.adaptor,
            dim=None if dim is None else _checked_dim(dim),
            batch_size=self.batch_size,
        )

    def check_lasting(self) -> None:
        """Refuse to pickle what ends with its process. Raises ConfigError."""
        if self.url in ("memory:", "qdrant+local::memory:"):
            raise ConfigError(
                f"a store in {self.url} cannot be pickled: its documents are in this process alone"
            )


def _check_name(collection: Any) -> None:
    if not isinstance(collection, str):
        raise ConfigError(f"collection is a name such as 'docs', got {collection!r:.80}")
    try:
        collection.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"collection {collection!r:.80} has a lone surrogate") from None


def _adaptor(given: Any) -> Adaptor | None:
    """Return an adaptor that is given, or the one in a file. Raises AdaptorError."""
    if given is None or isinstance(given, Adaptor):
        return given
    if isinstance(given, (str, PathLike)):
        from .adaptors.files import load

        return load(given)
    raise AdaptorError(f"adaptor is an Adaptor or the path of a file, got {type(given)}")


def _checked_dims(dims: Any) -> str | Iterable[int | str] | None:
    if dims is None or isinstance(dims, str):
        return dims
    if isinstance(dims, (bytes, Mapping)) or not isinstance(dims, Iterable):
        raise NestingError(f"dims is a tuple such as (64, 256), got {dims!r:.80}")
    return tuple(dims)


def _checked_dim(dim: Any) -> int:
    try:
        return check_count("dim", dim, 1)
    except FunnelError as error:
        raise NestingError(str(error)) from None
