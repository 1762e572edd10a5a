"""What a request is refused with: OpenAI's error, which Anthropic's clients can read too."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.types import Send

INTERNAL = "The server failed. Its log says more under this request's id."


class Refusal(Exception):
    """A request that isn't served: status, what to do, and the body's field that is to blame, where one is."""

    def __init__(
        self, status: HTTPStatus, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """The error as JSON; `type: error` on top is how Anthropic's errors begin."""
        error = {
            "message": self.message,
            "type": _type(self.status),
            "param": self.param,
            "code": self.status.value,
        }
        return json.dumps({"request_id": request_id, "type": "error", "error": error}).encode()

    async def send(self, send: Send, request_id: str) -> None:
        """Answer with it. The connection is closed after, since the rest of a body may still be coming."""
        await send_bytes(send, request_id, self.status, self.body(request_id), {"connection": "close", **self.headers})


def _type(status: HTTPStatus) -> str:
    """The error's type: a status by its name, and OpenAI's own word for a 500."""
    return "server_error" if status == HTTPStatus.INTERNAL_SERVER_ERROR else status.phrase.lower().replace(" ", "_") + "_error"


async def send_bytes(
    send: Send, request_id: str, status: HTTPStatus, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with this JSON."""
    given = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **(headers or {}),
    }
    encoded = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status.value, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def bad_request(message: str, param: str | None = None) -> Refusal:
    """A refusal for what the client can put right in its request."""
    return Refusal(HTTPStatus.BAD_REQUEST, message, param)
