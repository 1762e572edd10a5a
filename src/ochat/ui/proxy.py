"""The chat page in front of any server that speaks OpenAI's API, and what the page asks for passed on to it.

A browser lets a page talk to the host that it came from, and to others only where those allow it. So the page's requests come
here and are passed on as they are, in both directions as they arrive. It listens on this machine alone, and answers only to its
own names: a page of another host whose name leads here (DNS rebinding) is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import anyio
import httpx
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from ochat.ui import page

PATHS = ("/v1/models", "/v1/conditions", "/v1/chat/completions", "/tokenize")
PASSED_ON = ("authorization", "content-type", "accept")
ANSWERED = ("content-type", "retry-after")
# The other server's answer has this page's origin, and its conversations and key with it. Opened as a page it does nothing.
HARMLESS = {
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CONNECT_SECONDS = 10


def upstream(base_url: str, path: str) -> str:
    """Where a path of the page leads: /v1/… below the base, others (vLLM's /tokenize) beside it."""
    base = base_url.rstrip("/")
    return base + path.removeprefix("/v1") if path.startswith("/v1/") else base.removesuffix("/v1") + path


class PassOn:
    """ASGI application: the request goes to the server behind `base_url`, its answer comes back piece by piece."""

    def __init__(self, base_url: str, client: httpx.AsyncClient) -> None:
        self.base_url = base_url
        self.client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers["host"]:
            await _refusal(HTTPStatus.FORBIDDEN, "This is for the chat page here alone.")(scope, receive, send)
            return
        asked = self.client.stream(
            request.method,
            upstream(self.base_url, request.url.path),
            content=await request.body(),
            headers={name: value for name, value in request.headers.items() if name in PASSED_ON}
            | {"accept-encoding": "identity"},  # what is packed waits for more
        )
        async with anyio.create_task_group() as tasks:

            async def hang_up() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()  # the browser has gone: the server stops too, even before its first word

            tasks.start_soon(hang_up)
            begun = False
            try:
                async with asked as answer:
                    kept = {name: value for name, value in answer.headers.items() if name in ANSWERED}
                    raw = Headers({**kept, **HARMLESS}).raw
                    await send({"type": "http.response.start", "status": answer.status_code, "headers": raw})
                    begun = True
                    async for piece in answer.aiter_bytes():
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            except httpx.RequestError as error:
                if not begun:
                    told = f"{self.base_url} doesn't answer ({type(error).__name__}). Start the server, or give another --base-url."
                    await _refusal(HTTPStatus.BAD_GATEWAY, told)(scope, receive, send)
            if begun:  # also where it broke off: the page sees that the end is missing
                await send({"type": "http.response.body"})
            tasks.cancel_scope.cancel()


def make_app(base_url: str) -> Starlette:
    """The application; `base_url` is the API's, as OpenAI's clients are given it."""
    client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [Route(path, PassOn(base_url, client), methods=["GET", "POST"]) for path in PATHS]
    own_names = Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"], www_redirect=False)
    return Starlette(routes=[*routes, Mount("/", page.app)], middleware=[own_names], lifespan=lifespan)


def _refusal(status: HTTPStatus, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": status.phrase, "code": status.value}}, status)
