"""An append-only file of replies: killed at any moment and repeated, an evaluation asks nothing twice."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType

from ochat.errors import OchatError


def request_key(request: dict[str, object]) -> str:
    """What a reply is filed under: a hash of the whole request, so a changed question or condition is asked anew."""
    return hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=12).hexdigest()


class Journal:
    """Replies by the key of their request."""

    def __init__(self, path: Path) -> None:
        self.replies: dict[str, str] = {}
        if path.is_file():
            n_bytes = 0
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):  # cut off by a kill; its question is asked again
                        break
                    key, reply = _read(line, f"{path}:{number}")
                    self.replies[key] = reply
                    n_bytes += len(line)
            os.truncate(path, n_bytes)  # never rewritten: a kill meanwhile loses nothing
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, key: str, reply: str) -> None:
        """File a reply."""
        self.replies[key] = reply
        self._file.write(json.dumps({"key": key, "reply": reply}) + "\n")  # in ASCII: a reply may hold half of a character
        self._file.flush()


def _read(line: bytes, place: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
        key, reply = entry["key"], entry["reply"]
        if isinstance(key, str) and isinstance(reply, str):
            return key, reply
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise OchatError(
        f"{place}: not a reply that was filed here; the file is damaged. Remove the line to ask its question again."
    )
