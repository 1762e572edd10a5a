import json
import os
from pathlib import Path

import pytest

from ochat.serving import cpu
from ochat.serving.cpu import GIB, kv_cache_bytes, thread_binding, usable_cores, weight_bytes


@pytest.mark.parametrize(
    ("available", "weights", "expected"),
    [(10 * GIB, 2 * GIB, 2 * GIB), (2 * GIB, 2 * GIB, GIB // 2), (1000 * GIB, 14 * GIB, 4 * GIB)],
)
def test_the_kv_cache_gets_a_share_of_what_the_weights_leave(available: int, weights: int, expected: int) -> None:
    assert kv_cache_bytes(available, weights) == expected


@pytest.mark.parametrize(("quota", "share"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("", None)])
def test_a_containers_quota_bounds_the_threads(
    quota: str, share: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    assert usable_cores() == (share or len(os.sched_getaffinity(0)))


def test_a_containers_limit_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    whole = cpu.available_memory()
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert cpu.available_memory() == 3000 < whole


@pytest.mark.parametrize(
    ("cores", "workers", "expected"), [([0, 1], 2, "0|1"), ([2, 3, 5, 7], 2, "2,3|5,7"), ([4, 5], 1, "4,5")]
)
def test_workers_share_the_cores(cores: list[int], workers: int, expected: str) -> None:
    assert thread_binding(cores, workers) == expected


def test_weights_are_counted_whole_or_by_their_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 10)
    assert weight_bytes(tmp_path) == 10
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 99}}))
    assert weight_bytes(tmp_path) == 99
