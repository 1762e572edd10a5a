"""Run a command and measure it together with all processes that it starts: seconds, processor seconds, peak memory."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """Of a command and its descendants. Memory is proportional: pages that several share are counted once."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def _processes() -> dict[int, tuple[int, float]]:
    """The parent and the processor seconds of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found[int(folder.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def measure(command: Sequence[object], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Measured:
    """Run the command to its end, its output into `log`; raises SystemExit with the log's end where it fails."""
    seconds_of: dict[int, float] = {}
    peak = 0
    began = time.monotonic()
    # Where Python may not keep what it compiled, every process compiles its imports anew: most of a short run, and not what users have.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=out, env=inherited | dict(env or {}), cwd=cwd
        )
        family = {child.pid}
        while child.poll() is None:
            all_processes = _processes()
            while new := {pid for pid, (parent, _) in all_processes.items() if parent in family and pid not in family}:
                family |= new
            seconds_of |= {pid: all_processes[pid][1] for pid in family if pid in all_processes}
            peak = max(peak, sum(map(_memory, family)))
            time.sleep(0.25)  # looking costs processor time too
    seconds = time.monotonic() - began
    if child.returncode:
        raise SystemExit(f"{command[0]} … ended with {child.returncode}:\n" + log.read_text(errors="replace")[-2000:])
    return Measured(seconds, sum(seconds_of.values()), peak)
