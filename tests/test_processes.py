"""One experiment at a time in a folder; servers and commands say in a line why they failed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.processes import free_port, only_one, run_command, server

HOLDER = """
import signal, sys
from pathlib import Path
from ochat.processes import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_a_later_experiment_takes_over_from_one_that_still_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with only_one(tmp_path):
            assert f"process {holder.pid}" in capsys.readouterr().out
            assert holder.wait(10) == -signal.SIGTERM


def test_the_notice_of_it_goes_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with only_one(tmp_path, sys.stderr):
            printed = capsys.readouterr()
            assert f"process {holder.pid}" in printed.err
            assert printed.out == ""


def test_a_killed_experiment_leaves_the_folder_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        os.kill(holder.pid, signal.SIGKILL)
    with only_one(tmp_path):
        assert capsys.readouterr().out == ""


def test_a_command_that_fails_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OchatError, match="`ochat data import` ended with status 1"):
        run_command("data", "import", tmp_path / "none.jsonl", "--output", tmp_path / "rows.jsonl")
    assert "none.jsonl" in capfd.readouterr().err


def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")  # refused before vLLM takes its time to load
    with (
        pytest.raises(OchatError, match=r"did not start(?s:.)*ochat: VLLM_USE_RUST_FRONTEND would bypass"),
        server(tmp_path, free_port(), tmp_path / "log"),
    ):
        pass


def test_a_port_in_use_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ochat.processes.STOP_SECONDS", 0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OchatError, match=f"Port {port} is in use"), server(tmp_path, port, tmp_path / "log"):
            pass
