"""A line of JSON for each request, written when it ends: by whom, under which condition, how many tokens.

Nothing is kept back in a buffer, so a killed server loses the lines of the requests in flight and no others."""

import json
import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from ochat.errors import OchatError
from ochat.serving.say import say


class UsageLog:
    """Appends to a file, which may be moved away: a new one is begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False
        self._is_lost = False  # moved away, and no new one can be begun
        self._file = self._open()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise OchatError(f"--usage-log {self._path} can't be written ({error.strerror}). Name another file.") from error

    def write(self, row: dict[str, object]) -> None:
        """Add a line. A full disk is told once and stops no request."""
        try:
            os.write(self._file, json.dumps(row).encode() + b"\n")  # ASCII: some readers take U+2028 for the line's end
            self._failed = False
        except OSError as error:
            if not self._failed:
                say(f"{self._path} can't be written ({error.strerror}); usage isn't recorded.")
            self._failed = True

    def reopen_if_moved(self) -> None:
        """Begin a new file where the old one was moved or removed, as log rotation does; the old one is kept on where that fails."""
        try:
            if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                return
        except OSError:
            pass
        try:
            old, self._file = self._file, self._open()
        except OchatError as error:
            if not self._is_lost:
                say(f"{error} Its lines go to the file that was moved.")
            self._is_lost = True
            return
        self._is_lost = False
        os.close(old)

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


class _OwnersFile(logging.handlers.RotatingFileHandler):
    """A rotated log that only its owner may read."""

    failure = ""

    def _open(self) -> TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(file, "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep the error: logging's own way prints the record with it, and so what people asked, to standard error."""
        self.failure = str(sys.exception())


class RequestLog:
    """Prompts and replies, a line of JSON each, with rotation."""

    def __init__(self, path: Path, max_mb: float, max_count: int) -> None:
        try:
            self._handler = _OwnersFile(path, maxBytes=int(max_mb * 1_000_000), backupCount=max_count)
        except OSError as error:
            raise OchatError(f"--request-log {path} can't be written ({error.strerror}). Name another file.") from error

    def write(self, row: dict[str, object]) -> None:
        """Add a line. A full disk is told once and stops no request."""
        before, self._handler.failure = self._handler.failure, ""
        self._handler.emit(logging.makeLogRecord({"msg": json.dumps(row, ensure_ascii=False)}))
        if self._handler.failure and not before:
            say(
                f"{self._handler.baseFilename} can't be written ({self._handler.failure}); prompts and replies aren't recorded."
            )

    def close(self) -> None:
        """Write no more."""
        with suppress(OSError):  # what the disk had no room for is still to be written, and has been told
            self._handler.close()
