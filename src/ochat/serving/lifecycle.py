"""The server's own life: draining at the end, and ending when the engine has died.

vLLM's server, told to stop, gave requests in flight a cut reply, a 500, or left them hanging, and answered new ones with 500
(0.32.0). So the engine's shutdown waits here until no request needs it. And a server whose engine has died ended with status 0."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import State

from ochat.serving.fatal import ENGINE_DIED
from ochat.serving.refusal import Refusal
from ochat.serving.say import say
from ochat.serving.work import Work

TICK_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0  # for a client to take its reply's end


class Lifecycle:
    """What is in flight, and whether more may come."""

    def __init__(self) -> None:
        self.works: set[Work] = set()
        self.is_draining = False
        self._engine: Any = None  # vLLM's AsyncLLM, which is Any to us

    def refusal(self) -> Refusal | None:
        """Why no request is accepted now, if none is."""
        if self.is_draining:
            return _unavailable("The server is shutting down. Try again elsewhere or later.")
        if self._engine is not None and self._engine.errored:
            return _unavailable("The engine has died; the server is ending.")
        return None

    def watch(self, state: State, tick: Callable[[], None], ends_in_time: bool = False) -> "asyncio.Task[None]":
        """Hold the engine's shutdown until requests have ended, and look after it and whatever `tick` does each second.

        With `ends_in_time` the last words come within the time to drain: vLLM kills one of several API processes after it."""
        self._engine = state.engine_client
        loop = asyncio.get_running_loop()
        shutdown = self._engine.shutdown

        def drained_shutdown(timeout: float | None = None) -> None:
            if threading.get_ident() != loop_thread:  # where vLLM waits for it; the second call comes from the loop itself
                self._drain(loop, max(0, (timeout or 0) - (LAST_WORDS_SECONDS if ends_in_time else 0)))
            shutdown(timeout=0)

        loop_thread = threading.get_ident()
        self._engine.shutdown = drained_shutdown
        return asyncio.create_task(self._look_after(state, tick))

    def _drain(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Called in another thread when the server is told to stop; returns when no request needs the engine any more."""
        self.is_draining = True
        _wait_until(lambda: not self.works, seconds)
        loop.call_soon_threadsafe(self._cut_all, _unavailable("The server has shut down before the reply was complete."))
        _wait_until(lambda: not self.works, LAST_WORDS_SECONDS)

    def _cut_all(self, refusal: Refusal) -> None:
        for work in list(self.works):
            work.cut(refusal)

    async def _look_after(self, state: State, tick: Callable[[], None]) -> None:
        has_failed = False
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._engine.errored and not self.is_draining:
                ENGINE_DIED.set()
                state.server.should_exit = True
                self._cut_all(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The engine has died."))
                say("the engine has died. The server ends.")
                return
            try:
                tick()
                has_failed = False
            except Exception:  # whatever it is, keys are still to be revoked and the engine watched
                if not has_failed:  # logging raises no error of its own, wherever it writes to
                    logging.getLogger("vllm.ochat").exception("What is done each second has failed; it's tried again")
                has_failed = True


def _unavailable(message: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"retry-after": "5"})


def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
