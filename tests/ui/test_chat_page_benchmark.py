import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_server import ScriptedServer

ROOT = Path(__file__).parents[2]


def test_the_benchmark_tells_paint_and_key_times(scripted: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no browser: apt-get install chromium")
    file = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks/chat_page.py"), "--url", scripted[1], "--json", str(file)]
    subprocess.run([*command, "--messages", "6", "--keys", "5", "--repeats", "1"], check=True, timeout=120)
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert list(figures) == [
        "first paint, median ms",
        "first paint, worst ms",
        "6 messages shown, ms",
        "key press to paint, median ms",
        "key press to paint, worst ms",
    ]
    assert all(0 < value < 60_000 for value in figures.values())
