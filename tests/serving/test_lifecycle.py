import asyncio
import time
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
