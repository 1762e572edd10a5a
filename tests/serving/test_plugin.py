import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

PARENT = """
import multiprocessing, os, sys, threading
from ochat.serving.plugin import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    threading.Event().wait(60)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child, name=sys.argv[1], daemon=True).start()
    threading.Event().wait(60)
"""


@pytest.mark.parametrize(
    ("name", "ends"), [("EngineCore", True), ("EngineCore_DP0", True), ("ApiServer_0", True), ("Process-1", False)]
)
def test_a_process_of_the_server_ends_when_its_parent_is_killed_and_others_are_left_alone(
    name: str, ends: bool, tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), name], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            if ends:
                psutil.wait_procs([child], timeout=20)
                assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
            else:
                assert psutil.wait_procs([child], timeout=0.5)[1]
        finally:
            if child.is_running():
                child.kill()
