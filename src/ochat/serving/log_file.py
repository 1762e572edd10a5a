"""`--log-file`: all lines of the server and of every process that it starts go to one file, which is rotated.

Several processes can't rotate one file, and some of what they print never passes Python's logging. So standard output and error
become a pipe, and a process of its own writes what comes through it: `python -m ochat.serving.log_file FILE MB COUNT`."""

import logging
import logging.handlers
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ochat.errors import OchatError


def redirect(path: Path, max_mb: float, max_count: int) -> Callable[[], None]:
    """From now on, this process and its children write to the file. What's returned gives the terminal back."""
    try:
        path.open("a").close()
    except OSError as error:
        raise OchatError(f"--log-file {path} can't be written ({error.strerror}). Name another file.") from error
    writer = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path), str(max_mb), str(max_count)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert writer.stdin is not None
    terminal = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    for output in (1, 2):
        os.dup2(writer.stdin.fileno(), output)
    writer.stdin.close()

    def restore() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for output, kept in zip((1, 2), terminal, strict=True):
            os.dup2(kept, output)

    return restore


def write_lines(path: Path, max_mb: float, max_count: int) -> None:
    """Write standard input's lines to the file until every process that writes there has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last lines are still to come
        signal.signal(number, signal.SIG_IGN)
    logging.raiseExceptions = False  # a full disk loses lines and stops no server
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=int(max_mb * 1_000_000), backupCount=max_count, encoding="utf-8", errors="backslashreplace"
    )
    for line in os.fdopen(0, encoding="utf-8", errors="backslashreplace"):
        handler.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))


if __name__ == "__main__":
    write_lines(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
