"""The graders' benchmark on a few questions of each benchmark."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sandboxes import needs_sandbox

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "graders.py"


@needs_sandbox
@pytest.mark.soak
def test_what_the_documents_say_of_the_graders_holds(test_file: Callable[[str], Path]) -> None:
    words = [sys.executable, str(SCRIPT), "--data", str(test_file("grader_parity").parent), "--every", "40", "--code", "--json"]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=500, check=True).stdout)
    for line in found["cases"]:
        assert line["parity"][0] == line["parity"][1] > 100
        assert line["people, strict"][0] == line["people, strict"][1]
    assert all(line["strict"][0] == line["strict"][1] for line in found["perfect"])
    assert len(found["cases"]) == len(list(test_file("grader_parity").glob("*.jsonl.gz")))
    full_stop = [line["original"] for line in found["perfect"] if line["phrase"] == "The answer is $G$."]
    assert 0.6 < full_stop[0][0] / full_stop[0][1] < 0.8  # 0.692 of all
    assert found["code"]["passed"] == [5, 5]
