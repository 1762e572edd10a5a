"""A small server with OpenAI's API for tests: it stands for a server, not for a part of ours."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


class Server(ThreadingHTTPServer):
    """Answers "rice" under any condition but GPT3, and keeps what it was asked."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, object]] = []
        self.answered: list[dict[str, object]] = []
        self.failures: list[int] = []  # statuses to answer with first
        self.retry_after = ""
        self.busy = 0.0  # the share of requests that are answered with 429
        self.random = random.Random(0)
        self.lock = Lock()
        self.models: object = {"data": [{"id": "toy", "root": "/models/first"}]}
        self.conditions: list[str] = []  # what /conditions tells; nothing for none
        self.echoes = True
        self.broken: object = None  # answered in place of a completion; bytes as they are
        self.reply: str | Callable[[dict[str, object]], str] = "rice"
        self.finish = "stop"
        self.refused: tuple[str, bytes] | None = None  # a part of a prompt that is refused, and the words

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/conditions":
            listed = [{"id": condition} for condition in self.server.conditions]
            self.answer(200 if listed else 404, {"data": listed})
        else:
            self.answer(200, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            busy = server.random.random() < server.busy
        if server.failures:
            self.answer(server.failures.pop(), {"error": {"message": "not now"}})
            return
        if server.refused and server.refused[0] in json.dumps(body):
            self.answer(400, server.refused[1])
            return
        if busy:
            self.answer(429, {"error": {"message": "busy"}})
            return
        with server.lock:
            server.answered.append(body)
        reply = server.reply(body) if callable(server.reply) else "tea" if body.get("condition") == "GPT3" else server.reply
        completion: dict[str, object] = {
            "choices": [{"message": {"content": reply}, "finish_reason": server.finish}],
            "usage": {"completion_tokens": 2},
        }
        if server.echoes and "condition" in body:
            completion["condition"] = body["condition"]
        self.answer(200, completion if server.broken is None else server.broken)

    def answer(self, status: int, body: object) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429 and self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_server() -> Iterator[Server]:
    """A server while the block runs."""
    with Server() as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
