"""The quickstart ends well however often it is killed, and a second run has next to nothing to do."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ochat.processes import free_port

# Seconds after which each run is killed: while it converts, tokenizes, trains, trains on, and while it grades the base model.
KILLED_AFTER = (15, 45, 80, 120, 200)


@pytest.mark.soak
def test_a_quickstart_that_is_killed_and_repeated_ends_well(tmp_path: Path) -> None:
    words = ["quickstart", "--exit", "--folder", str(tmp_path / "work"), "--port", str(free_port())]
    command = [sys.executable, "-m", "ochat.cli", *words]
    environment = {**os.environ, "OCHAT_CACHE": str(tmp_path / "cache")}
    for seconds in KILLED_AFTER:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            assert process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    first = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    low = re.search(r"expert minus sub-optimal.* ([\d.]+) \[([-\d.]+), ", first.stdout)
    assert low is not None
    assert float(low[2]) > 0
    started = time.monotonic()
    second = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert second.stdout.count("done before") == 4
    print(f"the second run took {time.monotonic() - started:.0f} s")
