"""A line of 100 MB is left out and told, in a memory that doesn't hold it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import re, sys
from pathlib import Path
from ochat.cli import main
main(sys.argv[1:])
print("peak kB", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.soak
def test_a_line_of_100_mb_is_left_out_in_little_memory(tmp_path: Path) -> None:
    good, long = json.dumps({"question": "Hi", "answer": "Ho"}), json.dumps({"question": "x" * 10**8, "answer": "Ho"})
    (tmp_path / "in.jsonl").write_text(f"{good}\n{long}\n{good}\n")
    command = ["data", "import", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "rows.jsonl"), "--skip-invalid"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    assert "3 rows read = 2 kept + 1 rejected" in done.stdout
    assert int(done.stdout.split("peak kB")[1]) < 300_000
    (told,) = (json.loads(line) for line in (tmp_path / "rows.jsonl.rejects.jsonl").read_text().splitlines())
    assert told["reason"] == "the line is too long"
    assert len(told["row"]) < 2000
