import subprocess
import sys
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.serving.log_file import redirect

PRINTS = """
import os, subprocess, sys
from pathlib import Path
from ochat.serving.log_file import redirect
restore = redirect(Path(sys.argv[1]), 0.001, 2)
for number in range(int(sys.argv[2])):
    print("line", number, "x" * 90)
sys.stdout.flush()
os.write(2, b"past Python's own\\n")
subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"], check=True)
restore()
print("the terminal again")
"""


def run(path: Path, lines: int) -> str:
    result = subprocess.run([sys.executable, "-c", PRINTS, str(path), str(lines)], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return result.stdout


def test_all_output_goes_to_the_file_childrens_too_and_none_to_the_terminal(tmp_path: Path) -> None:
    assert run(tmp_path / "log", 1) == "the terminal again\n"
    lines = (tmp_path / "log").read_text().splitlines()
    assert sorted(line.split(" x")[0] for line in lines) == ["a child", "line 0", "past Python's own"]


def test_the_file_is_rotated_and_old_ones_are_dropped(tmp_path: Path) -> None:
    run(tmp_path / "log", 100)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log", "log.1", "log.2"]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in files)
    assert "a child" in "".join((tmp_path / name).read_text() for name in files)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"--log-file .* can't be written"):
        redirect(tmp_path, 1, 1)
