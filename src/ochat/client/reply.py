"""A reply on its way, read by a thread of its own: several stream side by side, and any can be stopped at any moment."""

import contextlib
import json
import queue
import re
import socket
import threading
import time
from collections.abc import Mapping

from ochat.client.connection import Answer, NoAnswer, Server, events
from ochat.client.subject import CHAT, field

# C0 but tab and newline, delete, and C1: a terminal would obey what a model, or whoever it quotes, writes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Reply:
    """The reply to one request; `news` gets this object whenever there's more of it.

    `text` and `thoughts` are as they came: whoever shows them on a terminal makes them printable."""

    def __init__(self, server: Server, request: Mapping[str, object], news: "queue.Queue[Reply]") -> None:
        self.text, self.thoughts, self.problem, self.finish_reason = "", "", "", ""
        self.n_tokens: int | None = None
        self.seconds = 0.0
        self.is_done = False
        self._server, self._news = server, news
        self._socket: socket.socket | None = None
        self._is_stopped = False
        body = json.dumps({**request, "stream": True, "stream_options": {"include_usage": True}}).encode()
        threading.Thread(target=self._run, args=[body], daemon=True).start()

    def stop(self) -> None:
        """Hang up; what has come stays."""
        self._is_stopped = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self, body: bytes) -> None:
        started = time.monotonic()
        try:
            self._read(body)
        except (NoAnswer, OSError) as error:
            if not self._is_stopped:
                self.problem = printable(str(error))
        self.seconds = time.monotonic() - started
        self.is_done = True
        self._news.put(self)

    def _read(self, body: bytes) -> None:
        with self._server.sent("POST", CHAT, body) as connection:
            self._socket = connection.sock
            with self._server.answered(connection) as response:
                if response.status != 200:
                    self.problem = in_words(self._server.whole(response))
                    return
                for event in events(response):
                    if self._is_stopped:
                        return
                    self._take(event)

    def _take(self, event: dict[str, object]) -> None:
        if "error" in event:  # a reply that fails when it has begun
            self.problem = printable(str(field(event, "error", "message") or event["error"]))
        count = field(event, "usage", "completion_tokens")
        self.n_tokens = count if isinstance(count, int) else self.n_tokens
        self.finish_reason = field(event, "choices", 0, "finish_reason") or self.finish_reason
        delta = field(event, "choices", 0, "delta")
        thought = field(delta, "reasoning") or field(delta, "reasoning_content")
        self.thoughts += thought if isinstance(thought, str) else ""
        text = field(delta, "content")
        self.text += text if isinstance(text, str) else ""
        self._news.put(self)


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return _CONTROL.sub("�", text)


def in_words(answer: Answer) -> str:
    """What a refused request means for the person who made it."""
    said = printable(answer.error_message())
    match answer.status:
        case 401 | 403:
            return f"The server refused the key: {said} Put one of its keys into OPENAI_API_KEY and start again."
        case 404:
            return f"Not found: {said} /model lists what is served."
        case 413:
            return f"Too long: {said} /new begins anew."
        case 429:
            wait = answer.headers.get("retry-after", "")
            return f"Too many requests: {said} Try again{f' in {wait} s' if wait else ' later'}: /retry."
        case 503:
            return f"The server is busy or stopping: {said} Try again later: /retry."
        case status if status >= 500:
            return f"The server failed ({status}): {said} Its log tells more."
    return f"The server refused the request ({answer.status}): {said}"
