"""What stands between a client and vLLM's server: the top-level `condition` of a request, and the keys.

vLLM drops fields that it doesn't know, so `condition` is moved to where vLLM keeps options of the template. And it asks for a
key under some paths only, leaving others that generate open; here every path but the health checks asks for it. Websockets go
through untouched: vLLM has one, /v1/realtime, which takes speech and asks for the key itself."""

import json
import secrets
from http import HTTPStatus

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16 * 1024 * 1024
# Paths that render a template, and the body's field that shows that this request does. `/tokenize` takes raw text too.
CHAT_PATHS = {
    "/v1/chat/completions": "messages",
    "/v1/chat/completions/batch": "messages",
    "/v1/chat/completions/render": "messages",
    "/v1/responses": "input",
    "/v1/responses/render": "input",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
    "/tokenize": "messages",
    "/invocations": "messages",
}
OPEN_PATHS = ("/health", "/ping")
_AUTO = "`condition` can't be 'auto': vLLM reads that as absent. Give another name."


class Gateway:
    """ASGI middleware. It runs before vLLM's own check of keys, so a body is read only when the application asks for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = Headers(scope=scope)
        keys = scope["app"].state.args.api_key
        if scope["method"] != "OPTIONS" and path not in OPEN_PATHS and keys and not _has_key(headers, keys):
            await _refusal(HTTPStatus.UNAUTHORIZED, "Give one of the server's keys: `Authorization: Bearer KEY`.")(
                scope, receive, send
            )
            return
        if scope["method"] == "POST" and not headers.get("content-type", "").startswith("multipart/"):
            receive = _moving_condition(path, receive)
        await self.app(scope, receive, send)


def _has_key(headers: Headers, keys: list[str]) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Each key is compared in full, so the time tells nothing of which was near.
    same = [secrets.compare_digest(given.encode(), key.encode()) for key in keys]
    return scheme.lower() == "bearer" and any(same)


def _refusal(status: HTTPStatus, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": status.phrase, "param": None, "code": status.value}}, status)


def _moving_condition(path: str, receive: Receive) -> Receive:
    """A `receive` that gives the whole body in its first message, the condition moved; a refusal is an HTTPException, which
    vLLM answers in OpenAI's form."""
    done = False

    async def receive_moved() -> Message:
        nonlocal done
        if done:
            return await receive()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message  # the client has gone
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {MAX_BODY_BYTES} bytes. Send less."
                )
            if not message.get("more_body", False):
                done = True
                return {"type": "http.request", "body": move_condition(path, bytes(body)), "more_body": False}

    return receive_moved


def move_condition(path: str, body: bytes) -> bytes:
    """The JSON body with its top-level `condition` in `chat_template_kwargs`; other bodies as they are.

    Raises HTTPException where the condition isn't a string or the request renders no template."""
    # JSON can write any letter as an escape, and come in UTF-16 or UTF-32, where every letter of ASCII holds a zero byte.
    if not any(sign in body for sign in (b"condition", b"\\u", b"\0")):
        return body
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return body  # vLLM says what is wrong with it
    if not isinstance(request, dict):
        return body
    options = request.get("chat_template_kwargs")
    if isinstance(options, dict) and options.get("condition") == "auto":
        raise HTTPException(HTTPStatus.BAD_REQUEST, _AUTO)
    if "condition" not in request:
        return body
    condition = request.pop("condition")
    if condition is None:
        return json.dumps(request).encode()
    problem = ""
    if not isinstance(condition, str):
        problem = f"`condition` is {condition!r}. Give a string such as 'Code'."
    elif CHAT_PATHS.get(path) not in request:
        problem = (
            f"`condition` has no effect on this request to {path}. Leave it out, or send messages to /v1/chat/completions."
        )
    elif condition == "auto":
        problem = _AUTO
    elif options is not None and not isinstance(options, dict):
        problem = "`chat_template_kwargs` must be an object. Give one or leave it out."
    elif options and options.get("condition", condition) != condition:
        problem = "`condition` and `chat_template_kwargs.condition` differ. Give one of them."
    if problem:
        raise HTTPException(HTTPStatus.BAD_REQUEST, problem)
    return json.dumps({**request, "chat_template_kwargs": {**(options or {}), "condition": condition}}).encode()
