"""Start commands and servers so that none outlives its parent, and let one run work in a folder at a time."""

import ctypes
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from ochat.errors import OchatError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOCK_FILE = ".lock"
START_SECONDS = 900  # a large checkpoint from a slow disk
STOP_SECONDS = 40


def end_with_parent(parent: int) -> None:
    """To be called in a new process: it ends when the one that started it, whose number this is, does."""
    if sys.platform == "linux":  # elsewhere a killed parent may leave its child
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before this call; in a container its own number may be 1
            os._exit(1)


def ending_with_this_process() -> Callable[[], None]:
    """What a process that is started from here calls first (`preexec_fn`), so that it ends when this one does."""
    return partial(end_with_parent, os.getpid())


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process as an exception does: what it started is ended on the way out."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def run_command(*words: object) -> None:
    """Show and run one `ochat` command; raises OchatError where it fails, after its own message."""
    arguments = [str(word) for word in words]
    print(f"  $ ochat {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "ochat.cli", *arguments]
    status = subprocess.run(command, preexec_fn=ending_with_this_process()).returncode
    if status:
        raise OchatError(f"`ochat {' '.join(arguments[:2])}` ended with status {status}; its message is above.")


@contextmanager
def only_one(folder: Path, notices: TextIO | None = None) -> Iterator[None]:
    """Hold the folder. An earlier experiment that still works there is stopped, which `notices` (or stdout) tells: what it finished is
    kept, and we go on from it.

    So a run whose terminal or `make` was killed is no obstacle to repeating it."""
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + STOP_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip()
                if not told and _is_ochat(holder):
                    print(
                        f"Another run is at work in {folder} (process {holder}); it is stopped, and this one goes on.",
                        file=notices,
                    )
                    os.kill(int(holder), signal.SIGTERM)
                    told = True
                if time.monotonic() > deadline:
                    raise OchatError(
                        f"Process {holder} still works in {folder}. Stop it, or choose another --folder."
                    ) from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)  # the number may be another process's next


def _is_ochat(holder: str) -> bool:
    """Whether the number is that of a process of ours that runs now."""
    try:
        return holder.isdigit() and b"ochat" in Path(f"/proc/{holder}/cmdline").read_bytes()
    except OSError:
        return False


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Return when nobody listens on the port; raises OchatError where somebody goes on listening."""
    deadline = time.monotonic() + STOP_SECONDS
    while _is_taken(port):  # perhaps by the server of a run that was just stopped
        if time.monotonic() > deadline:
            raise OchatError(f"Port {port} is in use. Stop what listens there, or choose another --port.")
        time.sleep(0.5)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str  # the API's base, ending in /v1
    process: subprocess.Popen[bytes]


@contextmanager
def server(model: Path | str, port: int, log: Path, more: Sequence[str] = ()) -> Iterator[Server]:
    """Serve a model while the block runs, with `more` options of `ochat serve`. Raises OchatError where the server doesn't start."""
    wait_for_port(port)
    # Nobody else uses this server, so there is no request to wait for when it is stopped.
    words = ["--model", str(model), "--port", str(port), "--shutdown-timeout", "0", *more]
    command = [sys.executable, "-m", "ochat.serving.openai_api_server", *words]
    print(f"  $ ochat serve {shlex.join(words)}    (its lines go to {log})", flush=True)
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=ending_with_this_process())
    try:
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
                raise OchatError(
                    f"The server did not start in {time.monotonic() - started:.0f} s; the end of {log}:\n" + "\n".join(lines)
                )
            time.sleep(0.5)
        print(f"  the server answers after {time.monotonic() - started:.0f} s", flush=True)
        yield Server(f"http://localhost:{port}/v1", process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
