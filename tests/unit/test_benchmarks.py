"""The comparison runs, its figures become documentation, and what is kept is what it makes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "benchmarks.json"

README = "<!-- benchmarks, written by the command below -->\nold\n<!-- /benchmarks -->\n"


def compare(*given: str | float | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.compare", *map(str, given)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def report(made: dict[str, Any], directory: Path) -> str:
    """Return the documentation that a JSON becomes."""
    file, readme = directory / "made.json", directory / "README.md"
    file.write_text(json.dumps(made))
    readme.write_text(README)
    done = compare("report", file, "--docs", directory, "--readme", readme)
    assert done.returncode == 0, done.stderr
    assert "old" not in readme.read_text()
    return (directory / "benchmarks.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a run measures of three contenders on vectors that are few and short."""
    out = tmp_path_factory.mktemp("compare") / "made.json"
    done = compare(
        "run", "--quick", "--engines", "edge", "--sizes", 1_500, "--dim", 64, "--queries", 40,
        "--seconds", 0.05, "--budget", 1, "--out", out,
        "--only", "nestvec_half_turbo", "edge_float32", "edge_int8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["sets"][0]["contenders"][0]["name"] in out.with_suffix(".md").read_text()
    return found


def test_a_run_measures_what_it_says(made: dict[str, Any]) -> None:
    (some,) = made["sets"]
    assert [each["name"] for each in some["contenders"]] == [
        "nestvec, half turbo", "Edge float32", "Edge int8",
    ]  # fmt: skip
    assert "Edge binary" in some["left_out"]
    for each in some["contenders"]:
        assert each["chosen"]["recall"] >= 0.99
        assert each["loaded"]["written_rows"] == 1_500
        assert 0 < each["loaded"]["hot_bytes"] <= each["loaded"]["disk_bytes"]
        assert 0 < each["measured"]["p50"] <= each["measured"]["p95"]
        assert each["measured"]["qps_clients"] > 0
        assert each["measured"]["resident_bytes"] > 1_000_000
        assert "less than any process needs" in each["limited"]["not_measured"]
    assert some["contenders"][1]["loaded"]["hot_bytes"] >= 1_500 * 64 * 4


def test_nobody_has_to_reach_the_target(tmp_path: Path) -> None:
    out = tmp_path / "made.json"
    done = compare(
        "run", "--quick", "--engines", "edge", "--sizes", 500, "--dim", 64, "--queries", 10,
        "--seconds", 0.05, "--budget", 1, "--only", "nestvec_half_turbo", "--target", 1.5,
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(out.read_text())["sets"][0]["contenders"]
    assert not only["chosen"]["reached"]
    assert only["chosen"]["recall"] > 0.9


def test_figures_become_documentation(made: dict[str, Any], tmp_path: Path) -> None:
    text = report(made, tmp_path)
    for each in made["sets"][0]["contenders"]:
        assert f"| {each['name']} | " in text
        assert f" | {each['measured']['p50']:,.2f} | " in text
    assert "Edge, 1,000,000 × 1,024 synthetic" in text.partition("## Not run here")[2]
    assert "nestvec, half turbo" in (tmp_path / "benchmarks.svg").read_text()


@pytest.mark.parametrize(
    ("times", "said"), [(2, "Two stages pay: "), (0.5, "two stages do not pay in speed here: ")]
)
def test_it_says_whether_two_stages_pay(
    made: dict[str, Any], tmp_path: Path, times: float, said: str
) -> None:
    other = copy.deepcopy(made)
    ours, *peers = other["sets"][0]["contenders"]
    ours["measured"]["qps"] = times * max(peer["measured"]["qps"] for peer in peers)
    assert said in report(other, tmp_path)


@pytest.mark.parametrize(
    ("missed", "said"),
    [
        (["nestvec"], "none reached the target, and Edge "),
        (["single"], "nestvec, half turbo reached the target, and no single vector here did"),
        (["nestvec", "single"], "none reached the target, and nobody else did"),
    ],
)
def test_it_says_who_missed_the_target(
    made: dict[str, Any], tmp_path: Path, missed: list[str], said: str
) -> None:
    other = copy.deepcopy(made)
    for each in other["sets"][0]["contenders"]:
        each["chosen"]["reached"] = each["side"] not in missed
    assert said in report(other, tmp_path)
    del other["sets"][0]["contenders"][1:]
    assert "One side was measured alone" in report(other, tmp_path)


def test_who_misses_the_target_is_compared_where_it_is_slower_yet(
    made: dict[str, Any], tmp_path: Path
) -> None:
    other = copy.deepcopy(made)
    _, peer, _ = other["sets"][0]["contenders"]
    peer["chosen"]["reached"] = False
    text = report(other, tmp_path)
    assert "| Edge float32 (below the target) | " in text
    (line,) = (each for each in text.splitlines() if "best single float32" in each)
    assert f"Edge float32 finds no more than {peer['chosen']['recall']:.4f} with" in line
    assert "not reached" not in line
    assert "Edge float32" not in (tmp_path / "benchmarks.svg").read_text()


def test_a_peer_is_compared_with_the_links_that_suit_it_best(
    made: dict[str, Any], tmp_path: Path
) -> None:
    other = copy.deepcopy(made)
    peer = other["sets"][0]["contenders"][2]
    more = copy.deepcopy(peer)
    more["name"], more["measured"]["qps"] = f"{peer['name']}, m 24", 1_000_000
    other["sets"][0]["contenders"].append(more)
    (line,) = (each for each in report(other, tmp_path).splitlines() if "beside Edge int8" in each)
    assert "(nestvec, half turbo, Edge int8, m 24)" in line
    more["chosen"]["reached"] = False
    (line,) = (each for each in report(other, tmp_path).splitlines() if "beside Edge int8" in each)
    assert "m 24" not in line


def test_exact_answers_are_those_of_one_product() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.compare import vectors
    finally:
        sys.path.remove(str(ROOT))
    rows = np.concatenate([*vectors.synthetic(20_000, 16, 1, 200)])
    asked = np.concatenate([*vectors.synthetic(7, 16, 2, 200)])
    best = np.argsort(-(asked @ rows.T), axis=1)[:, : vectors.K]
    found = vectors.exact(rows, asked)
    assert [{*row} for row in found.tolist()] == [{*row} for row in best.tolist()]
    spread = rows.var(axis=0)
    assert 0.8 < spread[1] * 2 / (spread[3] * 4) < 1.25  # number i has the variance 1 / (1 + i)


def test_the_documentation_is_what_the_script_makes_of_the_kept_figures() -> None:
    done = compare("report", KEPT, "--check")
    assert done.returncode == 0, done.stderr
