"""What stands between clients and vLLM's server: an ASGI middleware that lets through what routes.py lists, asks for a key, checks
bodies, and puts the condition into requests and replies.

It runs before all of vLLM's own, under plain vLLM too (`--middleware ochat.serving.gateway.Gateway`)."""

import asyncio
import json
import secrets
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import ModelType, detect_model_type
from ochat.serving.conditions import server_conditions, take_condition
from ochat.serving.gateway_options import options_of
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE
from ochat.serving.refusal import Refusal, send_bytes
from ochat.serving.replies import Reply
from ochat.serving.request_checks import check_bounds, check_fields, known_fields, parse_body, too_large
from ochat.serving.routes import Route, routes_at

BODY_SECONDS = 60  # a client that sends its body slower than this isn't waited for


class Gateway:
    """ASGI middleware. What it needs of the server's arguments is read at the first request."""

    def __init__(self, app: ASGIApp, fields_of: Callable[[str], Mapping[str, object]] = known_fields) -> None:
        self.app = app
        self.fields_of = fields_of  # of a route's path, with their defaults
        self._is_ready = False

    def _prepare(self, args: Namespace) -> None:
        self._is_ready = True
        self.options = options_of(args)
        self.kind = served_type(args)
        self.conditions = server_conditions(self.kind, self.options)
        self.keys: list[str] = getattr(args, "api_key", None) or []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # vLLM has one, for speech
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self._is_ready:
            self._prepare(scope["app"].state.args)
        request_id = uuid.uuid4().hex
        try:
            await self._answer(request_id, scope, receive, send)
        except Refusal as refusal:
            await refusal.send(send, request_id)

    async def _answer(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        route = find_route(scope)
        if scope["method"] == "OPTIONS":  # a browser asks before it sends its key; vLLM answers by --allowed-origins
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not route.is_open:
            self._check_key(headers)
        if route.path == "/v1/conditions":
            listing = self.conditions.listing(self.kind.name if self.kind else "")
            await send_bytes(send, request_id, HTTPStatus.OK, json.dumps(listing).encode())
            return
        condition = ""
        if route.method == "POST":
            body, condition = self._checked(route, await read_body(headers, receive, self.options.max_body_bytes))
            receive = giving(body, receive)
        # vLLM names its reply after this header, so a client's own could be another client's.
        kept = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
        scope = {**scope, "headers": [*kept, (b"x-request-id", request_id.encode())]}
        await self.app(scope, receive, Reply(send, request_id, condition))

    def _check_key(self, headers: Headers) -> None:
        if not self.keys:
            return
        given = given_key(headers).encode()
        # Each key is compared in full, so the time tells nothing of which was near.
        same = [secrets.compare_digest(given, key.encode()) for key in self.keys]
        if not any(same):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Give one of the server's keys: `Authorization: Bearer KEY`.")

    def _checked(self, route: Route, body: bytes) -> tuple[bytes, str]:
        """The body as vLLM gets it and the condition that it asks under. Raises Refusal."""
        request = parse_body(body)
        condition = take_condition(request, route, self.conditions)
        check_fields(route.path, request, self.fields_of(route.path))
        check_bounds(route, request, self.options)
        return json.dumps(request).encode(), condition


def served_type(args: Namespace) -> ModelType | None:
    """The model type that the renderer serves; None under another tokenizer mode of vLLM's."""
    if (args.tokenizer_mode or "").lower() != TOKENIZER_MODE:
        return None
    return detect_model_type(model_folder(args.model, TOKENIZER_FILES), (args.additional_config or {}).get(MODEL_TYPE_KEY, ""))


def find_route(scope: Scope) -> Route:
    """The route of a request, by its exact path. The Host header, which tells vLLM's URLs, isn't looked at. Raises Refusal."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    routes = routes_at(path)
    route = routes.get(scope["method"]) or (next(iter(routes.values())) if routes and scope["method"] == "OPTIONS" else None)
    if route is not None:
        return route
    if routes:
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {', '.join(routes)}.", headers={"allow": ", ".join(routes)})
    raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this path. Chat is at /v1/chat/completions.")


def given_key(headers: Headers) -> str:
    """The key of a request, as OpenAI's clients give it or as Anthropic's do; "" for none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" else headers.get("x-api-key", "")


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises Refusal where it's too long, isn't JSON or comes too slowly."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body is {kind or 'of no type'!r}. Send JSON, `Content-Type: application/json`.",
        )
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(HTTPStatus.BAD_REQUEST, "The client has gone.")
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"The body took over {BODY_SECONDS} s. Send it faster.") from error


def giving(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body once, and then whatever comes: the client's going."""
    is_given = False

    async def receive_body() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body
