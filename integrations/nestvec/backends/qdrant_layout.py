"""Where a point keeps a document: as nestvec writes it, or as others did."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CollectionDamaged, CollectionMismatch, NestvecError
from ..nesting import PRECISIONS, Field, Nesting
from ..records import Hit, Record
from . import points
from .qdrant_driver import models

__all__ = ["ForeignLayout", "Layout", "foreign", "full_scan_kb", "graphs", "named_vectors", "shown"]


class Layout:
    """As nestvec writes documents."""

    #: The payload's path to metadata, empty for the payload itself.
    root = "metadata"
    #: The named vector of full; empty where the only vector has no name.
    full = "full"

    def __init__(self, where: str) -> None:
        self.where = where

    def name_of(self, field: Field) -> str:
        """Return the named vector that holds a field."""
        return points.vector_name(field)

    def point_id(self, id: str) -> str | int | None:
        """Return the id of the point that holds a document, None where there cannot be one."""
        return str(points.point_id(id))

    def record(self, point: Any) -> Record:
        """Return the document of a point. Raises CollectionDamaged on what is none."""
        payload = point.payload or {}
        try:
            return points.record(payload, _vector(point, self.full))
        except (KeyError, TypeError, NestvecError) as error:
            raise CollectionDamaged(
                f"point {point.id} in {self.where} is not a document that nestvec wrote; "
                "store.verify() lists such points"
            ) from error

    def hit(self, point: Any) -> Hit:
        """Return the hit that a scored point is."""
        found = self.record(point)
        return Hit(found.id, found.text, found.metadata, point.score)


def _vector(point: Any, name: str) -> Any:
    vectors = point.vector
    if vectors is None:
        return None
    if isinstance(vectors, Mapping):
        vectors = vectors[name]
    return np.array(vectors, dtype=np.float32)


class ForeignLayout(Layout):
    """As the options say that others wrote documents."""

    def __init__(self, where: str, names: Mapping[str, str], content_key: str, root: str) -> None:
        super().__init__(where)
        self.names, self.content_key, self.root = names, content_key, root
        self.full = names["full"]

    def name_of(self, field: Field) -> str:
        return self.names[field.name]

    def point_id(self, id: str) -> str | int | None:
        if id.isascii() and id.isdigit():
            return int(id)
        try:
            return str(uuid.UUID(id))
        except ValueError:
            return None

    def record(self, point: Any) -> Record:
        payload = point.payload or {}
        step, *_ = self.content_key.split(".")
        text = _at(payload, self.content_key)
        metadata = _at(payload, self.root) if self.root else {**payload}
        if not isinstance(text, str) or not isinstance(metadata, (Mapping, type(None))):
            raise CollectionMismatch(
                f"point {point.id} in {self.where} has the payload keys "
                f"{', '.join(sorted(payload)) or '(none)'}; asked for a text at "
                f"content_key={self.content_key!r} and a dict at metadata_key={self.root!r}"
            )
        if not self.root:
            metadata = {key: value for key, value in payload.items() if key != step}
        vector = _vector(point, self.full)
        if vector is not None:
            vector = vector / np.linalg.norm(vector)
        return Record(str(point.id), text, metadata or {}, vector)


def _at(payload: Any, path: str) -> Any:
    """Return what a path leads to, also through strings of JSON, None where there is nothing."""
    for step in path.split("."):
        if isinstance(payload, str):
            try:
                payload = json.loads(payload)
            except ValueError:
                return None
        if not isinstance(payload, Mapping):
            return None
        payload = payload.get(step)
    return payload


def named_vectors(config: models.CollectionConfig) -> dict[str, models.VectorParams]:
    """Return a collection's dense vectors by name; an unnamed one has the name ""."""
    params = getattr(config, "params", None)
    vectors = None if params is None else params.vectors
    if vectors is None:
        return {}
    return dict(vectors) if isinstance(vectors, Mapping) else {"": vectors}


def graphs(config: models.CollectionConfig) -> dict[str, int]:
    """Return how many links a node of each vector's graph has, 0 where there is none.

    A vector without a common graph may have one for each tenant.
    """
    links = {}
    for name, params in named_vectors(config).items():
        graph = {**_given(config), **_given(params)}
        links[name] = graph.get("m", 1) or graph.get("payload_m", 0)
    return links


def full_scan_kb(config: models.CollectionConfig, name: str) -> int | None:
    """Return up to how many kilobytes of a vector the server reads rather than walk its graph."""
    params = named_vectors(config).get(name)
    graph = {**_given(config), **({} if params is None else _given(params))}
    return graph.get("full_scan_threshold")


def _given(of: Any) -> dict[str, Any]:
    graph = getattr(of, "hnsw_config", None)
    return {} if graph is None else dict(graph.model_dump(exclude_none=True))


def shown(vectors: Mapping[str, models.VectorParams]) -> str:
    """Return vectors as an error shows them."""
    listed = (f"{name!r} ({v.size}, {v.distance.value})" for name, v in vectors.items())
    return ", ".join(listed) or "no dense vectors"


def foreign(
    config: models.CollectionConfig, asked: Mapping[str, str], where: str
) -> tuple[Nesting, dict[str, str]]:
    """Return the nesting that vectors of others make, and which vector holds which field.

    A quantised vector is searched by its quantised copy; one that is alone by its own graph.
    Raises CollectionMismatch, which shows what there is and what was asked for.
    """
    held = named_vectors(config)
    problem = ""
    fields: list[Field] = []
    names: dict[str, str] = {}
    for spec, name in asked.items():
        params = held.get(name)
        if params is None:
            problem = f"no vector {name!r}"
        elif params.distance != models.Distance.COSINE:
            problem = f"{name!r} compares by {params.distance.value}, scores here are cosines"
        elif params.datatype == models.Datatype.UINT8:
            # The server would cut the numbers of a unit vector down to zeros.
            problem = f"{name!r} keeps whole numbers from 0 to 255, queries here are unit vectors"
        elif params.multivector_config is not None:
            problem = f"{name!r} keeps several vectors a point"
        elif spec != "full" and spec != str(params.size):
            problem = f"{name!r} has {params.size} numbers, not {spec}"
        else:
            field = Field(params.size, _precision(params), full=spec == "full")
            fields.append(field)
            names[field.name] = name
            continue
        break
    if not problem and "full" not in asked:
        problem = "no vector is named as 'full'"
    if problem:
        raise CollectionMismatch(
            f"collection {where} has {shown(held)}; asked for vectors={dict(asked)!r}: {problem}"
        )
    quantised = _quantised(config, held[asked["full"]])
    full = next(field for field in fields if field.full)
    if quantised is not None:
        searched = Field(full.length, quantised, full=True)
        fields.append(searched)
        names[searched.name] = asked["full"]
    prefixes = sorted((f for f in fields if f is not full), key=lambda f: (f.nbytes, f.length))
    return Nesting((*prefixes, full)), names


def _precision(params: models.VectorParams) -> str:
    datatype = params.datatype
    return "float16" if datatype == models.Datatype.FLOAT16 else "float32"


def _quantised(config: models.CollectionConfig, params: models.VectorParams) -> str | None:
    """Return the precision of a vector's quantised copy, where it is one of ours."""
    made = params.quantization_config or config.quantization_config
    if made is None:
        return None
    kinds = {"scalar": "int8", "binary": "binary", "turbo": "turbo"}
    known = (kinds[name] for name in type(made).model_fields if name in kinds)
    return next((kind for kind in known if kind in PRECISIONS), None)
