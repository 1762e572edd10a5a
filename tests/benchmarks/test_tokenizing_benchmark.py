"""The tokenizing benchmark without its peers: what it reports of ours is what the data set holds."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "tokenizing.py"


def test_rows_come_again_numbered_and_all_are_counted(tmp_path: Path, openchat_folder: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    alpaca = [{"instruction": "Add", "input": "1 and 2", "output": "3"}, {"instruction": "Say hi", "input": "", "output": "Hi"}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in alpaca), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), "--input", str(rows), "--tokenizer", str(openchat_folder), "--rows", "2", "4"]
    command += ["--peers", "trl", "--environments", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    few, many = found["results"]
    assert [(r["arm"], r["rows"]) for r in found["results"]] == [("ours", 2), ("ours", 4)]
    assert many["tokens"] > 2 * few["tokens"] > 0  # the second round has its numbers too
    assert few["cpu_seconds"] > 0
    assert few["peak_bytes"] > 2**20
    assert found["missing"] == ["trl"]


def test_what_was_measured_is_kept_where_a_peer_fails(tmp_path: Path, openchat_folder: Path) -> None:
    rows, python = tmp_path / "rows.jsonl", tmp_path / "trl" / "bin" / "python"
    rows.write_text(json.dumps({"instruction": "Add", "input": "1 and 2", "output": "3"}) + "\n", encoding="utf-8")
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no such module\nexit 3\n")
    python.chmod(0o755)
    command = [sys.executable, str(SCRIPT), "--input", str(rows), "--tokenizer", str(openchat_folder), "--rows", "1", "2"]
    command += ["--peers", "trl", "--environments", str(tmp_path), "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(r["arm"], r["rows"]) for r in found["results"]] == [("ours", 1), ("ours", 2)]
    assert "no such module" in found["failed"]["trl"]
    assert "trl failed: 1 rows" in done.stdout
