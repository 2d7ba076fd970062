"""The filter language on every engine: what it finds is what the predicate says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from nestvec import Filter, Record

from ..strategies import filters, metadatas, samples
from ..vectors import nested_vectors
from .engines import ENGINES, Engine

ROWS = nested_vectors(60, 8)


class Stocked:
    """One engine with the same records in two collections, one of each colour."""

    def __init__(self, name: str, place: Path, records: list[Record]) -> None:
        self.records = records
        self.engines = {
            colour: Engine(name, colour, ENGINES[name](place / colour))
            for colour in ("sync", "async")
        }
        self.stores = {
            colour: engine.connect(collection=f"filters_{colour}", dims=(2,), dim=8)
            for colour, engine in self.engines.items()
        }
        for store in self.stores.values():
            store.add_records(records)

    def agree(self, where: Any, expected: set[str]) -> None:
        """Check what both stores find."""
        for colour, store in self.stores.items():
            hits = store.search(ROWS[0], k=len(ROWS), where=where, funnel="exact")
            found = {hit.id for hit in hits}
            odd = [record for record in self.records if record.id in found ^ expected]
            wrong = [(record.id in found, record.metadata) for record in odd[:3]]
            assert found == expected, (colour, where, wrong)

    def close(self) -> None:
        for store in self.stores.values():
            store.drop()
        for engine in self.engines.values():
            engine.close()


@pytest.fixture(scope="module", params=list(ENGINES))
def stocked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stocked]:
    """An engine with random records."""
    some = enumerate(samples(metadatas, len(ROWS)))
    records = [Record(f"{n}", "text", metadata, ROWS[n]) for n, metadata in some]
    made = Stocked(request.param, tmp_path_factory.mktemp("filters"), records)
    yield made
    made.close()


def test_an_engine_finds_what_the_predicate_says(stocked: Stocked) -> None:
    @given(filters)
    @settings(max_examples=2000)
    def agree(where: Filter) -> None:
        stocked.agree(where, {r.id for r in stocked.records if where.matches(r)})

    agree()
