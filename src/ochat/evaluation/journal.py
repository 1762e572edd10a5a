"""An append-only file of replies: killed at any moment and repeated, an evaluation asks nothing twice."""

import hashlib
import json
from pathlib import Path
from types import TracebackType


def request_key(request: dict[str, object]) -> str:
    """What a reply is filed under: a hash of the whole request, so a changed question or condition is asked anew."""
    return hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=12).hexdigest()


class Journal:
    """Replies by the key of their request."""

    def __init__(self, path: Path) -> None:
        self.replies: dict[str, str] = {}
        kept = b""
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):  # cut off by a kill; its question is asked again
                    break
                entry = json.loads(line)
                self.replies[entry["key"]] = entry["reply"]
                kept += line
            path.write_bytes(kept)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, key: str, reply: str) -> None:
        """File a reply."""
        self.replies[key] = reply
        self._file.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
        self._file.flush()
