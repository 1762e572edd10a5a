"""Read a request's body, within bounds, as JSON that nothing behind us reads otherwise.

vLLM gets what was read and written again here: a name that stands twice has one value, and numbers and texts that JSON can name and
nobody can hold (1e999, a number of 4,000 digits, half of a character), which vLLM answered with 500 (0.32.0), are refused."""

import asyncio
import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive

from ochat.serving.refusal import Refusal, bad_request

BODY_SECONDS = 60  # a client that sends its body slower than this isn't waited for
MAX_NESTING = 100


class ClientLeft(Exception):
    """The client has gone before its request was whole."""


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises Refusal where it's too long, isn't JSON or comes too slowly, and ClientLeft."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The body is {kind[:100] or 'of no type'!r}. Send JSON, `Content-Type: application/json`.",
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
                    raise ClientLeft
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"The body took over {BODY_SECONDS} s. Send it faster.") from error


def too_large(max_bytes: int) -> Refusal:
    """A refusal of a body that is too long."""
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {max_bytes} bytes. Send less.")


def parse_body(body: bytes | str) -> dict[str, Any]:
    """The body's JSON object. Raises Refusal for anything else."""
    try:
        request = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_of_64_bits)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise bad_request(f"The body isn't JSON that can be read ({reason}). Send one JSON object.") from error
    if not isinstance(request, dict):
        raise bad_request('The body isn\'t a JSON object. Send one, such as {"messages": […]}.')
    if _is_deeper(request, MAX_NESTING):
        raise bad_request(f"The body's lists and objects are more than {MAX_NESTING} deep. Send fewer inside each other.")
    return request


def write_body(request: Mapping[str, Any]) -> bytes:
    """The JSON of a request. Raises Refusal where a text can't be written."""
    try:
        return json.dumps(request, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise bad_request("The body has half of a character, such as `\\ud83d` alone. Send whole text.") from error


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is too large")
    return value


def _of_64_bits(number: str) -> int:
    if len(number) > 18 and not -(2**63) <= int(number) < 2**63:
        raise ValueError(f"{number[:20]}… is too large")
    return int(number)


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects stand inside each other more than so many times."""
    level = [value]
    for _ in range(levels):
        inner = (value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list))
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} isn't JSON")
