"""A request that is being answered: whose it is, what it has cost, and how it's cut off."""

import asyncio
import time
import uuid
from typing import Any

from starlette.types import Message, Receive

from ochat.serving.keys import Key
from ochat.serving.metering import Meter
from ochat.serving.refusal import Refusal
from ochat.serving.replies import Reply
from ochat.serving.routes import Route

CLIENT_LEFT = 499  # as nginx has it
BYTES_A_TOKEN = 4  # about, of English


class Work:
    """One request, from its admission to the end of its reply."""

    def __init__(self, route: Route, key: Key | None, meter: Meter, reply: Reply) -> None:
        self.id = reply.request_id
        self.route = route
        self.key = key
        self.meter = meter
        self.reply = reply
        self.condition = ""
        self.user: object = None
        self.n_choices = 1
        self.is_counted = False  # among those in flight
        self.body_bytes = 0
        self.request: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._cut: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._client_left = False

    @property
    def tokens(self) -> int:
        """Of the prompt and of the reply as far as it has come. Until the engine has read the prompt, one for each four bytes of the
        body, so that a key's requests which come at once count for each other."""
        return self.meter.tokens or self.body_bytes // BYTES_A_TOKEN

    def cut(self, refusal: Refusal) -> None:
        """End it now: vLLM is told that the client has left, and the client is told why."""
        if not self._cut.done():
            self._cut.set_result(refusal)
            self.reply.is_cut = True

    @property
    def refusal(self) -> Refusal | None:
        """Why it was cut off, if it was."""
        return self._cut.result() if self._cut.done() else None

    def receiving(self, body: bytes, receive: Receive) -> Receive:
        """A `receive` that gives this body once, and then the client's going or the cut."""
        is_given = False

        async def receive_body() -> Message:
            nonlocal is_given
            if not is_given:
                is_given = True
                return {"type": "http.request", "body": body, "more_body": False}
            incoming = asyncio.ensure_future(receive())
            try:
                await asyncio.wait((incoming, self._cut), return_when=asyncio.FIRST_COMPLETED)
                if self._cut.done():
                    return {"type": "http.disconnect"}
                message = incoming.result()
            finally:
                incoming.cancel()
            self._client_left |= message["type"] == "http.disconnect" and not self.reply.is_closed
            return message

        return receive_body

    def row(self) -> dict[str, object]:
        """What the usage log tells of it, once it has ended."""
        refusal = self.refusal
        status = refusal.status.value if refusal else self.reply.status or CLIENT_LEFT
        if refusal:
            outcome = "failed"
        elif self.reply.has_failed:
            outcome, status = "failed", 500
        elif self._client_left or not self.reply.is_closed:
            outcome, status = "aborted", CLIENT_LEFT
        else:
            outcome = "finished" if status < 400 else "refused" if status < 500 else "failed"
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": self.id,
            "key": self.key.name if self.key else None,
            "user": self.user,
            "route": self.route.path,
            "condition": self.condition,
            "outcome": outcome,
            "status": status,
            "prompt_tokens": self.meter.prompt_tokens,
            "cached_tokens": self.meter.cached_tokens,
            "completion_tokens": self.meter.completion_tokens,
            "seconds": round(time.perf_counter() - self._began, 3),
        }


def new_id() -> str:
    """A request's id, which its client reads in `x-request-id`, and the logs have."""
    return uuid.uuid4().hex
