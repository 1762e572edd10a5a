"""What an audit asks of a server, and what it found."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ochat.client.connection import Answer, NoAnswer, Server

Verdict = Literal["pass", "fail", "note", "unknown"]
CHAT = "/v1/chat/completions"
REFUSED = (401, 403)
TRIES = 20
LONGEST_WAIT = 60  # seconds


@dataclass(frozen=True)
class Finding:
    """One line of the table: "note" is worth knowing and no fault in itself, "unknown" couldn't be told."""

    topic: str
    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


class Subject:
    """A server under audit, asked as `model`."""

    def __init__(self, server: Server, model: str, context: int | None) -> None:
        self.server, self.model, self.context = server, model, context
        self.stranger = Server(server.url, timeout=server.timeout)  # has no key

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, *, keyless: bool = False
    ) -> Answer:
        """The answer, of status 0 where the connection was dropped or nothing came in time. A limit of requests is waited for."""
        for _ in range(TRIES):
            try:
                answer = (self.stranger if keyless else self.server).ask(method, path, body, headers)
            except NoAnswer:
                return Answer(0, {}, b"")
            if answer.status != 429:
                break
            wait = answer.headers.get("retry-after", "")
            time.sleep(min(int(wait), LONGEST_WAIT) if wait.isdigit() else 1)
        return answer

    def request(self, content: object = "Hi", **fields: object) -> dict[str, object]:
        """A small greedy chat request; `fields` replace or add to it."""
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages, "max_tokens": 1, "temperature": 0, **fields}

    def chat(self, content: object = "Hi", **fields: object) -> Answer:
        return self.ask("POST", CHAT, self.request(content, **fields))

    def prompt_tokens(self, content: object = "Hi", **fields: object) -> int | None:
        """How many tokens the server counts in the prompt; None where it refuses the request or doesn't tell."""
        return prompt_tokens(self.chat(content, **fields))


def field(value: object, *path: str | int) -> Any:
    """value[path[0]][path[1]]…, None where there's no such thing."""
    for name in path:
        if isinstance(value, dict) and isinstance(name, str):
            value = value.get(name)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(name, int) and name < len(value):
            value = value[name]
        else:
            return None
    return value


def prompt_tokens(answer: Answer) -> int | None:
    count = field(answer.json(), "usage", "prompt_tokens") if answer.ok else None
    return count if isinstance(count, int) else None


def text_of(answer: Answer) -> str:
    """The first choice's text."""
    text = field(answer.json(), "choices", 0, "message", "content")
    return text if isinstance(text, str) else ""
