"""Bound what only the connection sees: what comes before the gateway is called, and what is left after it has answered.

That is the head of a request (its address and headers); the trailers after a body sent in chunks; the rest of a body that was answered
before it was whole; and a client that takes nothing of what it is sent.

uvicorn's parser of choice (0.54, with httptools 0.9) keeps a head of any length and waits for its end for ever, so anybody could fill
the memory without a key. It keeps trailers too, even of a request that was answered long ago. Its other parser, h11, has bounds that
vLLM sets. Until it is answered, a body is bounded in request_body.py; its rest has its time here. And uvicorn waits for ever until a
client has taken what was sent: the client's next reply, which waits for that, would keep its place among those in flight."""

import asyncio

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
HEAD_SECONDS = 30
READ_SECONDS = 60  # for a client to take something of what has piled up


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is cut when a head or trailers are too long or too slow, or when its client doesn't read."""

    # Bytes that belong to no body: of a head, of chunks' sizes, of trailers. Counted anew from each piece of a body, and from each end
    # of a head or of a request; what came in one read with such an end isn't counted.
    _n_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._time_out)

    def data_received(self, data: bytes) -> None:
        self._n_bytes += len(data)
        super().data_received(data)
        if self._n_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        elif self._n_bytes and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._time_out)

    def on_headers_complete(self) -> None:
        self._begin_anew()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and self.cycle.response_complete:  # nobody waits for the rest, which may come for ever
            self._n_bytes = 0
            self._deadline = self._deadline or self.loop.call_later(HEAD_SECONDS, self._time_out)
        else:
            self._begin_anew()
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._begin_anew()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._read_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._deadline)
        _cancel(self._read_deadline)
        super().connection_lost(exc)

    def _begin_anew(self) -> None:
        self._n_bytes = 0
        _cancel(self._deadline)
        self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:  # else it's the next request's, sent before this one's reply
            self.transport.abort()

    def _watch_reading(self, n_before: int | None = None) -> None:
        """Cut off a client that has taken nothing since the last look, when `n_before` bytes were left; else look again.

        uvicorn goes on only when nearly all is taken, and a long reply is written at once: who reads it slowly does read."""
        n_left = self.transport.get_write_buffer_size()
        if n_before is not None and n_left >= n_before:
            self.transport.abort()
        else:
            self._read_deadline = self.loop.call_later(READ_SECONDS, self._watch_reading, n_left)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def bound_connections(config: Config) -> None:
    """From now on, new connections are bounded."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = BoundedProtocol
