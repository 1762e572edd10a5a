"""The packing benchmark without its peers: our figures, and what to do about theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "packing.py"


def output_of(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), "--rows", "3000", "--ranks", "1", "8", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_our_steps_are_near_the_fewest_and_hold_all_rows() -> None:
    found = json.loads(output_of("--peers", "--json"))
    assert [(line["pack_tokens"], line["ranks"]) for line in found["results"]] == [(8192, 1), (8192, 8), (65536, 1), (65536, 8)]
    for line in found["results"]:
        assert line["packer"] == "ours"
        assert line["fewest_steps"] <= line["steps"] <= line["fewest_steps"] + 1
        assert line["dropped"] == 0
        assert line["efficiency"] == pytest.approx(line["bound"] * line["fewest_steps"] / line["steps"])


def test_a_peer_that_is_not_installed_is_named_with_its_remedy(tmp_path: Path) -> None:
    lines = output_of("--environments", str(tmp_path)).splitlines()
    assert "- original: not installed: `python benchmarks/packing.py --install`" in lines
    assert "- trl: not installed: `python benchmarks/invariance.py --trainer trl --install`" in lines
    assert {line.split(" | ")[1] for line in lines if line.startswith(("| 1 ", "| 8 "))} == {"ours"}
