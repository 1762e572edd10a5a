"""Put into replies what vLLM doesn't know: the condition that was answered under, and the request's id.

The bytes of a reply are never parsed: a field is put in front of the first one, in an object or in each event of a stream."""

import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from ochat.serving.refusal import INTERNAL, Refusal

_ERRORS = (b'data: {"error"', b"event: error")  # how vLLM's begin, as OpenAI's and as Anthropic's
MAX_ERROR_TEXT = 1_000  # characters
# All that vLLM 0.32.0 tells where the engine gave up on a reply, as on a grammar that doesn't compile; its other errors say more.
_VALIDATION = re.compile(
    r"""\d+ validation errors?:\s*\{'type': '[^']*', 'loc': '(?P<place>[^']*)', 'msg': (?P<what>'[^']*'|"[^"]*")"""
)
_LOG_MARK = re.compile(r"\[\d\d:\d\d:\d\d\] <path>:\d+: ")  # of xgrammar's C++, in the middle of its messages
_PLAIN_PLACE = re.compile(r"(?:[a-z0-9_]+(?:\.|$))*")  # what comes after names vLLM's classes
GAVE_UP = b"Internal server error"
# The same in a stream of Anthropic's, which vLLM 0.32.0 reads as an event of a chat and finds that it's none.
_GAVE_UP_IN_MESSAGES = b"input_value={'error': {'message': 'In"


def with_field(body: bytes, field: bytes) -> bytes:
    """A JSON object's bytes with `field` (`"name":value,`) in front."""
    return b"{" + field + body[1:] if body.startswith(b'{"') else body


def with_field_in_events(chunk: bytes, field: bytes) -> bytes:
    """Whole server-sent events with the field in front of each one's object. JSON has no line breaks inside, so `data: ` at the
    start of a line is never part of a text."""
    return (b"\n" + chunk).replace(b'\ndata: {"', b"\ndata: {" + field + b'"')[1:]


def in_our_words(status: HTTPStatus, error: bytes, request_id: str) -> bytes:
    """A refusal of vLLM's as ours are: in one form on every route, and without pydantic's list of all that a field isn't."""
    try:
        told = json.loads(error)["error"]
        message, param = told["message"], told.get("param")
    except (ValueError, TypeError, KeyError, AttributeError):
        message = None
    if not isinstance(message, str):
        return with_field(shortened(error), b'"request_id":' + json.dumps(request_id).encode() + b",")
    if found := _VALIDATION.match(message):
        place = found["place"].removeprefix("body.")
        param = _PLAIN_PLACE.match(place)[0].rstrip(".") or None  # type: ignore[index]  # it matches nothing too
        message = f"`{param}`: {found['what'][1:-1]}. Mend it." if param else f"{found['what'][1:-1]}. Mend the request."
    return Refusal(status, cleaned(message), param if isinstance(param, str) else None).body(request_id)


def cleaned(message: str) -> str:
    """vLLM's words without a library's place in its source, and cut where they repeat a long text of the request."""
    message = _LOG_MARK.sub("", message)
    return message if len(message) <= MAX_ERROR_TEXT else f"{message[:MAX_ERROR_TEXT]}…"


def gave_up(error: bytes) -> bool:
    """Whether vLLM's error tells that the engine gave up on the reply."""
    return GAVE_UP in error or _GAVE_UP_IN_MESSAGES in error


def shortened(error: bytes) -> bytes:
    """An error's JSON without the long texts of the request that vLLM repeats in it."""
    if len(error) <= MAX_ERROR_TEXT:
        return error
    return json.dumps(_shortened(json.loads(error)), separators=(",", ":")).encode()


def _shortened(value: object) -> object:
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    return f"{value[:MAX_ERROR_TEXT]}…" if isinstance(value, str) and len(value) > MAX_ERROR_TEXT else value


class Reply:
    """Passes a reply on, its fields added. `status` is None until the reply begins; `is_closed` says that it has ended, and
    `is_cut` that nothing more of vLLM's may be sent."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self._field = b""
        self._start: Message | None = None  # kept back until the body's length, or the first event, is known
        self._is_stream = False
        self.status: int | None = None
        self.is_closed = False
        self.is_cut = False
        self.has_failed = False  # in the middle of a stream, whose status had been 200
        # What the request is told of an error of vLLM's that is its own fault.
        self.blames: Callable[[bytes], Refusal | None] = lambda error: None
        self.when_sent: Callable[[], None] = lambda: None  # called as soon as the last of it has been handed to the connection

    def tell_condition(self, condition: str) -> None:
        """Put the condition into the reply."""
        self._field = b'"condition":' + json.dumps(condition).encode() + b"," if condition else b""

    async def __call__(self, message: Message) -> None:
        if self.is_cut or self.is_closed:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            kind = headers.get("content-type", "")
            self._is_stream = kind.startswith("text/event-stream")
            if self._is_stream:
                headers["cache-control"] = "no-cache"
                headers["x-accel-buffering"] = "no"  # nginx would hold events back
            headers["x-request-id"] = self.request_id
            if self.status == HTTPStatus.SERVICE_UNAVAILABLE:  # vLLM's own bound of its queue
                headers.setdefault("retry-after", "1")
            if self._is_stream or kind.startswith("application/json"):
                self._start = message
            else:
                await self._send(message)
            return
        if message["type"] == "http.response.body":
            if self._is_stream:
                if await self._is_refused(message):
                    return
                message = {**message, "body": self._events(message.get("body", b""))}
            elif self._start is not None:
                message = await self._begin_json(self._start, message)
            self.is_closed = not message.get("more_body", False)
        await self._send(message)
        if self.is_closed:
            self.when_sent()

    async def _is_refused(self, message: Message) -> bool:
        """Begin a stream, unless the first of it is an error: then answer with that alone, under a status of its own."""
        start, self._start = self._start, None
        if start is None:
            return False
        chunk = message.get("body", b"")
        if not chunk.startswith(_ERRORS):
            await self._send(start)
            return False
        self.status = None
        await self.end(self._refusal(chunk))
        return True

    def _events(self, chunk: bytes) -> bytes:
        """A stream's events with the field in front, and vLLM's error, which tells of its inside, in our words."""
        if chunk.startswith(_ERRORS):
            refusal = self._refusal(chunk)
            self.status = refusal.status.value
            self.has_failed = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            return self._event(refusal)
        return with_field_in_events(chunk, self._field) if self._field else chunk

    def _refusal(self, error: bytes, status: int = HTTPStatus.INTERNAL_SERVER_ERROR) -> Refusal:
        """What the client is told of vLLM's error; one that isn't the request's fault is logged."""
        blame = self.blames(error)
        if blame:
            return blame
        self._log(error)
        return Refusal(HTTPStatus(status), INTERNAL)

    def _log(self, error: bytes) -> None:
        """Keep vLLM's words, which the client isn't told."""
        text = error[:MAX_ERROR_TEXT].decode("utf-8", "replace").strip()
        logging.getLogger("vllm.ochat").error("Request %s failed in vLLM: %s", self.request_id, text)

    def _event(self, refusal: Refusal) -> bytes:
        return b"event: error\ndata: " + refusal.body(self.request_id) + b"\n\n"

    async def _begin_json(self, start: Message, message: Message) -> Message:
        """Send the reply's start, and return its body with the field in front."""
        self._start = None
        body = message.get("body", b"")
        status = start["status"]
        if status >= 500 and status != HTTPStatus.SERVICE_UNAVAILABLE:
            refusal = self._refusal(body, status)  # the engine's own words may tell of its inside
            self.status = start["status"] = refusal.status.value
            body = refusal.body(self.request_id)
        elif status >= 400:
            body = in_our_words(HTTPStatus(status), body, self.request_id)
        elif self._field:
            body = with_field(body, self._field)
        headers = MutableHeaders(raw=start["headers"])
        if "content-length" in headers:
            headers["content-length"] = str(int(headers["content-length"]) - len(message.get("body", b"")) + len(body))
        await self._send(start)
        return {**message, "body": body}

    async def end(self, refusal: Refusal) -> None:
        """End the reply with an error: the whole answer where it hasn't begun, else a stream's last event."""
        if self.is_closed:
            return
        self.is_cut = self.is_closed = True
        if self.status is None or self._start is not None:
            self.status = refusal.status.value
            await refusal.send(self._send, self.request_id)
            self.when_sent()
            return
        self.status = refusal.status.value  # what the log tells; the client had a 200
        self.has_failed = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if self._is_stream:
            last = self._event(refusal) + b"data: [DONE]\n\n"
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self.when_sent()
