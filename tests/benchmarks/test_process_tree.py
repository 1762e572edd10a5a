"""What is measured of a command: as users run it, whatever this process was told."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "process_tree.py"
COMPILES_ANEW = "import os, sys; sys.exit('PYTHONDONTWRITEBYTECODE' in os.environ)"


def test_a_measured_command_keeps_what_python_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("process_tree", PATH)
    assert spec is not None
    assert spec.loader is not None
    process_tree = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "process_tree", process_tree)  # dataclasses look there
    spec.loader.exec_module(process_tree)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = process_tree.measure([sys.executable, "-c", COMPILES_ANEW], tmp_path / "log")
    assert found.seconds > 0
