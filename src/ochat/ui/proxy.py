"""The chat page before any server that speaks OpenAI's API, and what the page asks for passed on to it.

A browser lets a page talk to the host that it came from, and to others only where those allow it. So the page's requests come
here and are passed on as they are, in both directions as they arrive. It listens on this machine alone, and answers only to its
own names: a page of another host whose name leads here (DNS rebinding) is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from ochat.ui import page

PATHS = ("/v1/models", "/v1/conditions", "/v1/chat/completions", "/tokenize")
PASSED_ON = ("authorization", "content-type", "accept")
ANSWERED = ("content-type", "retry-after")
CONNECT_SECONDS = 10


def upstream(base_url: str, path: str) -> str:
    """Where a path of the page leads: /v1/… below the base, others (vLLM's /tokenize) beside it."""
    base = base_url.rstrip("/")
    return base + path.removeprefix("/v1") if path.startswith("/v1/") else base.removesuffix("/v1") + path


def make_app(base_url: str) -> Starlette:
    """The application; `base_url` is the API's, as OpenAI's clients are given it."""
    client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    async def pass_on(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers["host"]:
            return _refusal(HTTPStatus.FORBIDDEN, "This is for the chat page here alone.")
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        headers["accept-encoding"] = "identity"  # what is packed waits for more
        url = upstream(base_url, request.url.path)
        asked = client.build_request(request.method, url, content=await request.body(), headers=headers)
        try:
            answer = await client.send(asked, stream=True)
        except httpx.TransportError as error:
            told = f"{base_url} doesn't answer ({type(error).__name__}). Start the server, or give another --base-url."
            return _refusal(HTTPStatus.BAD_GATEWAY, told)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_bytes():
                    yield piece
            except httpx.TransportError:  # it broke off: the page sees that the end is missing
                pass
            finally:  # also where the browser has gone, so that the server stops too
                await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name in ANSWERED}
        return StreamingResponse(pieces(), answer.status_code, kept)

    routes = [Route(path, pass_on, methods=["GET", "POST"]) for path in PATHS]
    own_names = Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"], www_redirect=False)
    return Starlette(routes=[*routes, Mount("/", page.app)], middleware=[own_names], lifespan=lifespan)


def _refusal(status: HTTPStatus, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": status.phrase, "code": status.value}}, status)
