"""A store that is used after a fork: by a child on its own, or refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import nestvec
from nestvec import Unavailable

ROOT = Path(__file__).parents[2]
PLACES = {
    "memory": "memory:",
    "edge": "edge:{}",
    "qdrant+local": "qdrant+local::memory:",
    "qdrant+local:DIR": "qdrant+local:{}",
}
#: What a child can go on with is its own copy.
OWN = {"memory", "qdrant+local"}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")


class Parent:
    """A process that forks; `told` is what its children and it itself had to say."""

    def __init__(self, url: str, kind: str, out: Path) -> None:
        self.url = url
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_parent", url, kind, str(out)],
            cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not out.exists() or not out.read_text():
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.01)
        self.told: dict[str, Any] = json.loads(out.read_text())

    def end(self) -> None:
        _, errors = self.process.communicate()
        assert errors == ""
        assert self.process.returncode == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("engine", PLACES)
def test_a_child_has_its_own_or_is_refused_and_the_parent_goes_on(
    tmp_path: Path, engine: str, kind: str
) -> None:
    parent = Parent(PLACES[engine].format(tmp_path / "papers"), kind, tmp_path / "told")
    told = parent.told
    assert len(told["said"]) == 22
    for said in told["said"]:
        n = said.pop("n")
        if engine in OWN:
            assert said == {
                "search": [f"id{n}"], "add_records": [f"child{n}"], "count": 51, "delete": 1
            }  # fmt: skip
        else:
            for name, answer in said.items():
                assert answer.startswith("Unavailable: "), (name, answer)
                assert "was opened before this process was forked" in answer
    assert told["count"] == 50
    assert told["found"] == [f"id{n}" for n in range(50)]
    assert told["wrong"] == {}
    if engine in OWN:
        parent.end()
        return
    with pytest.raises(Unavailable, match="is open in another process"):
        nestvec.connect(parent.url)
    parent.end()
    with nestvec.connect(parent.url) as store:
        assert store.count() == 56
        assert store.get(["last"])[0].id == "last"


@pytest.mark.parametrize("engine", sorted(PLACES.keys() - OWN))
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(
    tmp_path: Path, engine: str
) -> None:
    url = PLACES[engine].format(tmp_path / "papers")
    script = (
        "import os, sys, time, nestvec\n"
        f"store = nestvec.connect({url!r}, dims=(2,), dim=8)\n"
        "if os.fork() == 0:\n"
        "    os.close(1)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read()
        process.wait()
        with nestvec.connect(url) as store:
            assert store.count() == 0
