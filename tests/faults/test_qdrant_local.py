"""Local mode in a directory: one process at a time, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import nestvec
from nestvec import Unavailable

from ..vectors import nested_vectors, records

ROWS = nested_vectors(20, 8)

HOLD = """
import sys, nestvec
from nestvec import Record
store = nestvec.connect(sys.argv[1], dims=(2, 4), dim=8)
store.add_records(Record(f"{n}", "text", {}, [1.0, n, 0, 0, 0, 0, 0, 0]) for n in range(20))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"qdrant+local:{tmp_path / 'papers'}"


@pytest.fixture
def other(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the directory open and 20 documents in it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, url], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_directory_that_is_open_elsewhere_is_refused_and_nothing_is_left_open(
    url: str, colour: str
) -> None:
    def connect() -> None:
        if colour == "sync":
            nestvec.connect(url)
        else:
            asyncio.run(nestvec.aconnect(url))

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(Unavailable, match=r"open in another process.*one at a time"):
            connect()
        gc.collect()
    assert [str(each.message) for each in seen] == []


def test_what_a_killed_process_added_is_there(url: str, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with nestvec.connect(url) as store:
        assert store.count() == 20
        assert store.verify() == {}
        store.add_records(records(ROWS))
        assert store.count() == 20


def test_stores_of_one_process_share_a_directory(url: str) -> None:
    with (
        nestvec.connect(url, dims=(2, 4), dim=8) as one,
        nestvec.connect(url, collection="two", dims=(2,), dim=8) as two,
        nestvec.connect(url) as again,
    ):
        one.add_records(records(ROWS))
        assert (again.count(), two.count()) == (20, 0)
        one.close()
        assert again.count() == 20
    with nestvec.connect(url) as later:
        assert later.count() == 20
