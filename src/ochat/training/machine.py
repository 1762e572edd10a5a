"""What torch finds on this machine, as JSON: `python -m ochat.training.machine`.

A process of its own, so that `ochat doctor` can tell of a torch that doesn't even load. What it finds is read, never assumed: a
CPU may compute in bfloat16 many times faster than in float32, or many times slower."""

import json
import time

import torch

_SIZE, _TIMES = 1024, 3


def multiply_seconds(dtype: torch.dtype) -> float:
    """Seconds of one product of two square matrices, the best of some."""
    a, b = torch.ones(_SIZE, _SIZE, dtype=dtype), torch.ones(_SIZE, _SIZE, dtype=dtype)
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def found() -> dict[str, object]:
    """The devices with their memory, the threads, and how much faster bfloat16 is than float32."""
    devices = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            devices.append({"name": about.name, "memory_bytes": about.total_memory, "bfloat16": about.major >= 8})
    speedup = None if devices else multiply_seconds(torch.float32) / multiply_seconds(torch.bfloat16)
    return {
        "devices": devices,
        "built_for_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "bfloat16_speedup": speedup,
    }


if __name__ == "__main__":
    print(json.dumps(found()))
