"""Estimated bytes beside those of real collections, and what cannot be estimated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec
from nestvec import ConfigError, NestingError, Record
from nestvec.nesting import Nesting
from nestvec.sizing import hot_bytes, size, sizes

from .. import postgres

COUNT, DIM = 12_000, 256


def filled(url: str, dims: Any, **options: Any) -> nestvec.Store:
    rows = np.random.default_rng(0).standard_normal((COUNT, DIM), dtype=np.float32)
    store = nestvec.connect(url, collection="sized", dims=dims, dim=DIM, **options)
    # Texts that cannot be packed: the engine packs payloads, words less than a text of one word.
    letters = np.random.default_rng(1).integers(33, 127, (COUNT, 200), dtype=np.uint8)
    store.add_records(
        Record(f"id{i:06}", text.tobytes().decode(), {"n": i}, row)
        for i, (text, row) in enumerate(zip(letters, rows, strict=True))
    )
    return store


def estimate(engine: str, dims: Any, keep: str = "nested") -> Any:
    return next(
        made
        for made in sizes(
            COUNT, DIM, dims, engines=[engine], text_bytes=200, metadata_bytes=12, id_bytes=8
        )
        if made.what == keep
    )


@pytest.mark.parametrize("dims", [(64, 128), ("64:int8",), ("full:binary", "full:float16")])
def test_an_edge_collection_is_as_large_as_estimated(tmp_path: Path, dims: Any) -> None:
    store = filled(f"edge:{tmp_path}", dims)
    store.close()
    log = sum(f.stat().st_blocks * 512 for f in (tmp_path / "sized/shard/wal").iterdir())
    real = sum(f.stat().st_blocks * 512 for f in tmp_path.rglob("*") if f.is_file())
    # Its log is of whole segments, which tell nothing at this size.
    assert estimate("edge", dims).memory == pytest.approx(real - log, rel=0.1)


@pytest.mark.parametrize("dims", [(64,), ("64:float16", "full:float16"), ("128:binary",)])
def test_a_postgres_collection_is_as_large_as_estimated(dims: Any) -> None:
    store = filled(postgres.place(), dims, **postgres.settings)
    told = store.info().engine
    (index,) = told["indexes"].values()
    store.drop()
    store.close()
    nesting = Nesting.of(dims, DIM)
    assert hot_bytes("postgres", nesting.fields[:1], COUNT) == pytest.approx(
        index["bytes"], rel=0.1
    )
    real = told["table_bytes"] + told["index_bytes"]
    assert estimate("postgres", dims).disk == pytest.approx(real, rel=0.1)


def test_single_vectors_are_beside_the_nesting() -> None:
    found = sizes(1_000_000, 1024, "64,256:float16", engines=["edge", "postgres"])
    by = {(made.engine, made.what): made for made in found}
    assert by["edge", "nested"].dims == ("64", "256:float16")
    assert by["edge", "full float32"].hot > 4 * by["edge", "nested"].hot
    # One vector quantised to signs wants less in memory than two stages: the reader sees it.
    assert by["edge", "full binary"].hot < by["edge", "nested"].hot
    assert ("postgres", "full int8") not in by
    assert all(made.build in ("seconds", "minutes", "hours", "days") for made in found)


def test_sizes_grow_with_documents() -> None:
    nesting = Nesting.of((64,), 256)
    small, large = (size("postgres", "nested", nesting, n) for n in (10_000, 1_000_000))
    assert large.disk == pytest.approx(100 * small.disk, rel=0.02)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ConfigError, match="count is a whole number from 1"):
        sizes(0, 64, "8")
    with pytest.raises(ConfigError, match="unknown engine 'oracle'; known are edge"):
        sizes(10, 64, "8", engines=["oracle"])
    with pytest.raises(NestingError, match="postgres cannot keep 8:int8"):
        sizes(10, 64, "8:int8", engines=["postgres"])
