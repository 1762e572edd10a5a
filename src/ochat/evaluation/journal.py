"""An append-only file of replies: killed at any moment and repeated, an evaluation asks nothing twice."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from ochat.errors import OchatError

TOO_LONG = "too long"  # the finish of a question that the server refused since its prompt doesn't fit


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    text: str
    finish: str = "stop"  # OpenAI's finish_reason, "length" where the reply was cut; or TOO_LONG
    n_tokens: int = 0  # 0 where the server doesn't tell


def request_body(request: dict[str, object]) -> bytes:
    """The request as it's sent and filed."""
    return json.dumps(request, sort_keys=True).encode()


def request_key(request: dict[str, object] | bytes) -> str:
    """What a reply is filed under: a hash of the whole request, so a changed question or condition is asked anew."""
    body = request if isinstance(request, bytes) else request_body(request)
    return hashlib.blake2b(body, digest_size=12).hexdigest()


class Journal:
    """Replies by the key of their request."""

    def __init__(self, path: Path) -> None:
        self.replies: dict[str, Reply] = {}
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

    def add(self, key: str, reply: Reply) -> None:
        """File a reply."""
        self.replies[key] = reply
        entry = asdict(reply)
        # in ASCII: a reply may hold half of a character
        self._file.write(json.dumps({"key": key, "reply": entry.pop("text"), **entry}) + "\n")
        self._file.flush()


def _read(line: bytes, place: str) -> tuple[str, Reply]:
    try:
        entry = json.loads(line)
        match entry:
            case {"key": str(key), "reply": str(text)}:
                return key, Reply(text, str(entry.get("finish", "stop")), int(entry.get("n_tokens", 0)))
    except (ValueError, TypeError, RecursionError):
        pass
    raise OchatError(
        f"{place}: not a reply that was filed here; the file is damaged. Remove the line to ask its question again."
    )
