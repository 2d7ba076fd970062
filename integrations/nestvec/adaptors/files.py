"""Adaptors on disk: safetensors whose metadata has a JSON head."""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import AdaptorError
from .base import Adaptor
from .matryoshka import MatryoshkaAdaptor
from .rotation import RotationAdaptor

__all__ = ["FORMAT", "load", "save"]

#: The version of the JSON head.
FORMAT = 1

_KINDS: dict[str, type[Adaptor]] = {
    kind.kind: kind for kind in (RotationAdaptor, MatryoshkaAdaptor)
}


def save(adaptor: Adaptor, path: str | PathLike[str]) -> None:
    """Write an adaptor; a file that is there is replaced at once or left as it was."""
    import safetensors.numpy as files

    head = {
        "format": FORMAT,
        "kind": adaptor.kind,
        "dim": adaptor.dim,
        "embedder": adaptor.embedder,
        "about": adaptor.about,
        "sha256": adaptor.digest,
    }
    data = files.save(adaptor.arrays, metadata={"nestvec": json.dumps(head)})
    target = Path(path)
    making = target.with_name(f".{target.name}.{os.getpid()}.making")
    try:
        with making.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)


def load(path: str | PathLike[str]) -> Adaptor:
    """Return the adaptor in a file, of whichever kind.

    Raises AdaptorError where the file was cut off, changed, or is none; FileNotFoundError where
    there is none.
    """
    arrays, told = _read(Path(path))
    try:
        head = json.loads(told["nestvec"])
        version, kind, digest = head["format"], head["kind"], head["sha256"]
        dim, embedder, about = head["dim"], head["embedder"], dict(head["about"])
    except (ValueError, TypeError, KeyError):
        raise AdaptorError(f"{path} was not written by nestvec: it has no head of it") from None
    if not isinstance(version, int) or version > FORMAT or kind not in _KINDS:
        raise AdaptorError(
            f"{path} holds a {kind!r} of format {version}, this nestvec reads "
            f"{', '.join(_KINDS)} of format {FORMAT}; upgrade it"
        )
    try:
        made = _KINDS[kind].from_arrays(arrays, embedder=embedder, about=about)
    except AdaptorError as error:
        raise AdaptorError(f"{path}: {error}") from None
    if made.digest != digest or made.dim != dim:
        raise AdaptorError(
            f"{path} was changed after it was written: its numbers are not those of its head; "
            "restore it from a copy, or fit it again"
        )
    return made


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    import safetensors

    if path.is_dir():
        raise AdaptorError(f"{path} is a directory, not an adaptor's file")
    if not path.exists():
        raise FileNotFoundError(2, "no such adaptor", str(path))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise AdaptorError(
            f"{path} is no whole safetensors file ({error}); it may have been cut off: copy it "
            "again, or fit the adaptor again"
        ) from None
