import asyncio
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ochat.serving import lifecycle
from ochat.serving.lifecycle import Lifecycle


@pytest.mark.parametrize(("ends_in_time", "earliest", "latest"), [(True, 0.3, 0.55), (False, 0.6, 5.0)])
def test_one_of_several_processes_has_said_its_last_words_when_it_would_be_killed(
    ends_in_time: bool, earliest: float, latest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LAST_WORDS_SECONDS", 0.3)
    stopped: list[float | None] = []
    engine = SimpleNamespace(errored=False, shutdown=lambda timeout: stopped.append(timeout))

    async def stop() -> float:
        life = Lifecycle()
        cut: list[float] = []

        class Endless:  # a reply
            def cut(self, refusal: Any) -> None:
                cut.append(time.monotonic())
                life.works.clear()

        life.works.add(Endless())  # type: ignore[arg-type]
        watch = life.watch(SimpleNamespace(engine_client=engine), lambda: None, ends_in_time)
        began = time.monotonic()
        await asyncio.to_thread(lambda: engine.shutdown(timeout=0.6))
        watch.cancel()
        return cut[0] - began

    assert earliest <= asyncio.run(stop()) < latest
    assert stopped == [0]


def test_a_dead_engine_ends_the_server_with_an_error_though_nobody_can_be_told(
    monkeypatch: pytest.MonkeyPatch, break_stderr: Callable[[], None]
) -> None:
    break_stderr()
    monkeypatch.setattr(lifecycle, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(lifecycle, "ENGINE_DIED", threading.Event())
    state = SimpleNamespace(
        engine_client=SimpleNamespace(errored=True, shutdown=lambda timeout: None), server=SimpleNamespace(should_exit=False)
    )

    async def die() -> None:
        await Lifecycle().watch(state, lambda: None)

    asyncio.run(die())
    assert lifecycle.ENGINE_DIED.is_set()
    assert state.server.should_exit


def test_a_failure_in_one_second_does_not_end_what_is_done_in_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)  # vLLM, where it's imported, keeps its lines to itself
    engine = SimpleNamespace(errored=False, shutdown=lambda timeout: None)
    ticks = 0

    async def live() -> None:
        done = asyncio.Event()

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if ticks in (1, 2, 4):
                raise OSError("no such disk")
            if ticks == 5:
                done.set()

        watch = Lifecycle().watch(SimpleNamespace(engine_client=engine), tick)
        await asyncio.wait((watch, asyncio.ensure_future(done.wait())), return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()

    asyncio.run(live())
    assert ticks == 5
    assert caplog.text.count("OSError: no such disk") == 2  # each time that it begins to fail
