"""The simulation of docs/c-rlft.md against the exact expectation, and the page against the simulation."""

import json
import subprocess
import sys
from math import comb
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def output_of(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "normaliser.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def exact_share(n: int) -> float:
    """The expected share of the expert in a step of n equal rows, k of which are its: k / (k + 0.1·(n − k))."""
    return sum(comb(n, k) * 0.05**k * 0.95 ** (n - k) * k / (k + 0.1 * (n - k)) for k in range(n + 1))


def test_the_simulation_agrees_with_the_exact_expectation() -> None:
    found = json.loads(output_of("--json", "--seed", "1"))
    assert found["true_share"] == pytest.approx(0.05 / (0.05 + 0.095))
    equal = [row for row in found["rows"] if row["lengths"] == "equal"]
    assert [row["rows_a_step"] for row in equal] == [8, 32, 128]
    for row in equal:
        assert row["by_step"] == pytest.approx(exact_share(row["rows_a_step"]), abs=0.003)
    for row in found["rows"]:
        assert row["by_run"] == pytest.approx(found["true_share"], abs=0.003)


def test_the_page_quotes_what_the_simulation_prints() -> None:
    assert f"```\n{output_of()}```" in (ROOT / "docs" / "c-rlft.md").read_text(encoding="utf-8")
