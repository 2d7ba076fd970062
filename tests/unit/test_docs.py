"""Every Python block of the README and of docs/, and every example, runs."""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not tmp_path: run as root the embedded Postgres is another user, whom pytest shuts out of it,
    # and its server stops when the tests have ended.
    directory = tempfile.mkdtemp(prefix="nestvec-docs-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    monkeypatch.chdir(directory)
    scope: dict[str, object] = {"__name__": "page"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), scope)
    for value in scope.values():
        if hasattr(value, "close") and not isinstance(value, type):
            value.close()


def test_there_are_blocks_and_examples_to_run() -> None:
    assert BLOCK.findall((ROOT / "README.md").read_text())
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
