"""Readers, writers and a deleter on one store at once: no error, nothing lost, nothing half."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nestvec
from nestvec import F, Record

from ..vectors import nested_vectors, records
from .engines import PLACES

ROWS = nested_vectors(60, 8)
WRITERS, READERS, ROUNDS = 2, 6, 40


def batch(writer: int, turn: int) -> list[Record]:
    return [
        Record(f"w{writer}-{turn}-{i}", "text", {"writer": writer, "turn": turn}, ROWS[i])
        for i in range(10)
    ]


def check(hits: list[nestvec.Hit]) -> None:
    assert len(hits) == 5
    assert all(-1 <= hit.score <= 1 and hit.text.startswith("text") for hit in hits)


def test_threads_share_a_store(engine_name: str, tmp_path: Any) -> None:
    place = PLACES[engine_name](tmp_path)
    with nestvec.connect(**place.settings(), dims=(2, 4), dim=8) as store:
        store.add_records(records(ROWS))

        def write(writer: int) -> None:
            for turn in range(ROUNDS):
                ids = store.add_records(batch(writer, turn))
                assert [record.id for record in store.get(ids)] == ids
                if turn % 2:
                    assert store.delete(where=(F("writer") == writer) & (F("turn") == turn)) == 10

        def read(reader: int) -> None:
            for turn in range(ROUNDS):
                check(store.search(ROWS[(reader + turn) % 60], k=5))
                assert store.count(F("n") < 10) == 10

        tasks: list[tuple[Callable[[int], None], int]] = [(write, w) for w in range(WRITERS)]
        tasks += [(read, r) for r in range(READERS)]
        with ThreadPoolExecutor(len(tasks)) as pool:
            for done in [pool.submit(work, number) for work, number in tasks]:
                done.result()
        assert store.count() == 60 + WRITERS * ROUNDS // 2 * 10


def test_tasks_share_an_async_store(engine_name: str, tmp_path: Any) -> None:
    async def main() -> None:
        settings = PLACES[engine_name](tmp_path).settings()
        async with await nestvec.aconnect(**settings, dims=(2, 4), dim=8) as store:
            await store.add_records(records(ROWS))

            async def write(writer: int) -> None:
                for turn in range(ROUNDS // 2):
                    ids = await store.add_records(batch(writer, turn))
                    assert [record.id for record in await store.get(ids)] == ids

            async def read(reader: int) -> None:
                for turn in range(ROUNDS // 2):
                    check(await store.search(ROWS[(reader + turn) % 60], k=5))

            writers = [write(number) for number in range(WRITERS)]
            await asyncio.gather(*writers, *(read(number) for number in range(64)))
            assert await store.count() == 60 + WRITERS * ROUNDS // 2 * 10

    asyncio.run(main())
