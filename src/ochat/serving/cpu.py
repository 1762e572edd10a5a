"""What a CPU serves with: threads and room for the KV cache, by looking at the machine and at the container it may be."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: those it's bound to, or fewer where a container has a quota."""
    bound = len(os.sched_getaffinity(0))
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not quota.isdecimal():  # `max`, or no such file
        return bound
    return max(1, min(bound, int(quota) // int(period)))


def available_memory() -> int:
    """Bytes that can be taken without swapping, within the container's limit."""
    lines = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    return min(free, int(limit) - int(used)) if limit.isdecimal() and used.isdecimal() else free


def kv_cache_bytes(available: int, weights: int) -> int:
    """Room for the KV cache: a quarter of what the weights leave, half a GiB at least and four at most."""
    return min(max((available - weights) // 4, GIB // 2), 4 * GIB)


def weight_bytes(folder: Path) -> int:
    """Bytes of a model's weights as they are stored."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def thread_binding(cores: Sequence[int], workers: int) -> str:
    """Cores for each worker, as VLLM_CPU_OMP_THREADS_BIND wants them: `0,1|2,3`."""
    share = max(1, len(cores) // workers)
    return "|".join(",".join(map(str, cores[start * share : (start + 1) * share])) for start in range(workers))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
