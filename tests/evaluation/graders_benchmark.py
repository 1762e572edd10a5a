"""The benchmark of the graders as a module: its files of cases and its phrases are the tests' too."""

import importlib.util
from pathlib import Path
from types import ModuleType


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("graders", Path(__file__).parents[2] / "benchmarks" / "graders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCHMARK = _loaded()
