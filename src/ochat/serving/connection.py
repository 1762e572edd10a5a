"""Bound what only the connection sees: the head of a request, its address and headers, which has to be whole before the gateway sees
anything; and a client that takes nothing of what it is sent.

uvicorn's parser of choice keeps a head of any length, and waits for its end for ever: anybody could fill the memory without a key
(uvicorn 0.54 with httptools 0.9). Its other one, h11, has bounds of vLLM's. Bodies are bounded in gateway.py. And uvicorn waits for
ever until a client has taken what was sent before: its next reply, which waits for that, would keep its place among those in flight."""

import asyncio

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
HEAD_SECONDS = 30
READ_SECONDS = 60  # for a client to take what has piled up, 48 KiB and more


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose client is cut off when its request's head is too long or too slow, or when it doesn't read."""

    _head_bytes = 0  # of a request that has begun, and a little more where its body came with it
    _is_in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._time_out)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        if self._is_in_head and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._time_out)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head = True
        self._head_bytes = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_deadline = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._read_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        _cancel(self._read_deadline)
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        _cancel(self._deadline)
        self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:  # else it's the next request's, sent before this one's reply
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def bound_connections(config: Config) -> None:
    """From now on, new connections are bounded."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = BoundedProtocol
