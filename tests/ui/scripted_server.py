"""Another server with OpenAI's API, which says what it's told to: how the page behaves towards servers that aren't ours, and towards
replies and failures that a model gives once in a while only."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOO_LONG = "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens. Please reduce the length."


def _chunk(**choice: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {}, **choice}]})}\n\n"


def _error(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status, headers)


class ScriptedServer:
    """A prompt is an order: `say TEXT`, `status N MESSAGE`, `break`, `forever`, `wait` (for ever, before any word), `raw TEXT` (TEXT
    is the whole answer, an HTML page by its own word)."""

    def __init__(self, key: str = "", models: Sequence[object] = ("one", "two"), conditions: Sequence[object] = ()) -> None:
        self.key = key
        self.listed = {"models": [{"id": name} for name in models], "conditions": [{"id": name} for name in conditions]}
        self.asked: list[dict[str, Any]] = []
        self.n_running = 0  # replies that somebody waits for
        self.stop = threading.Event()  # replies that go on for ever break off

    async def list_names(self, request: Request) -> Response:
        if self._refused(request):
            return _error(401, "no such key")
        return JSONResponse({"object": "list", "data": self.listed[request.url.path.removeprefix("/v1/")]})

    async def chat(self, request: Request) -> Response:
        if self._refused(request):
            return _error(401, "no such key")
        body = await request.json()
        self.asked.append(body)
        order, _, rest = body["messages"][-1]["content"].partition(" ")
        if order == "status":
            status, _, message = rest.partition(" ")
            return _error(int(status), message or "as told", **({"Retry-After": "7"} if status == "429" else {}))
        if order == "raw":
            return Response(rest, media_type="text/html", headers={"Set-Cookie": "a=b", "Content-Security-Policy": "*"})
        if order == "wait":
            self.n_running += 1
            while not await request.is_disconnected():
                await asyncio.sleep(0.02)
            self.n_running -= 1
        return StreamingResponse(self._events(order, rest or order), media_type="text/event-stream")

    async def _events(self, order: str, text: str) -> AsyncIterator[str]:
        self.n_running += 1
        try:
            if order == "forever":
                while not self.stop.is_set():
                    yield _chunk(delta={"content": "word "})
                    await asyncio.sleep(0.02)
                return
            for start in range(0, len(text), 7):
                yield _chunk(delta={"content": text[start : start + 7]})
            if order == "break":
                return
            yield _chunk(finish_reason="stop")
            yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 5, 'completion_tokens': 4}})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.n_running -= 1

    def _refused(self, request: Request) -> bool:
        return bool(self.key) and request.headers.get("authorization") != f"Bearer {self.key}"

    def app(self) -> Starlette:
        routes = [Route(f"/v1/{what}", self.list_names) for what, names in self.listed.items() if names]
        return Starlette(routes=[*routes, Route("/v1/chat/completions", self.chat, methods=["POST"])])


@contextlib.contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """Serve an ASGI application in a thread of this process; gives its address."""
    sock = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
