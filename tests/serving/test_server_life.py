"""The ends of a server: told to stop, its engine killed, itself killed. Each test starts one of its own."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_server import START_SECONDS, USER, Server, running, streams, wait_for

pytestmark = pytest.mark.soak
Started = tuple[Server, subprocess.Popen[bytes]]


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Iterator[Started]:
    """A server that a test may end."""
    with running(tmp_path, checkpoint, "--shutdown-timeout", "20") as started:
        yield started


def engine_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    (engine,) = (child for child in psutil.Process(process.pid).children(recursive=True) if "EngineCore" in child.name())
    return engine


def engines_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Its engine's process, which has the name of one only when it has loaded vLLM; none before it has begun."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any(name in " ".join(child.cmdline()) for name in ("spawn_main", "EngineCore"))]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0, 6, 12])  # after its engine's process has begun
def test_told_to_stop_while_it_starts_it_ends_at_once(
    seconds: int, number: signal.Signals, checkpoint: Path, tmp_path: Path
) -> None:
    with running(tmp_path, checkpoint, waits=False) as (_, process):
        wait_for(lambda: bool(engines_of(process)), START_SECONDS)
        time.sleep(seconds)
        engines = engines_of(process)
        process.send_signal(number)
        assert process.wait(5) == -number
        wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in engines))


@pytest.mark.parametrize("time_", range(10))
def test_told_to_stop_it_finishes_what_it_has_begun_and_refuses_what_comes(time_: int, own: Started) -> None:
    server, process = own
    seen: dict[str, int] = {}

    def stop() -> None:
        process.terminate()
        wait_for(lambda: server.get("/ready").status_code == 503)
        seen["health"] = server.get("/health").status_code
        refused = server.chat()
        seen["new"] = refused.status_code
        assert "retry-after" in refused.headers

    replies = asyncio.run(streams(server, 32, 150, stop))
    assert seen == {"health": 200, "new": 503}
    for events in replies:
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert process.wait(20) == 0


def test_at_the_limit_what_is_left_is_cut_off_with_an_error_and_nothing_hangs(own: Started) -> None:
    server, process = own
    began = time.monotonic()
    replies = asyncio.run(streams(server, 8, 7000, process.terminate))
    assert {json.loads(events[-2].removeprefix("data: "))["error"]["code"] for events in replies} == {503}
    assert process.wait(20) == 0
    assert time.monotonic() - began < 20 + 60
    rows = [json.loads(line) for line in server.usage.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["failed"] * 8


def test_without_its_engine_it_ends_within_ten_seconds_with_an_error(own: Started) -> None:
    server, process = own
    killed: list[float] = []

    def kill() -> None:
        engine_of(process).kill()
        killed.append(time.monotonic())

    replies = asyncio.run(streams(server, 4, 7000, kill))
    assert process.wait(15) != 0
    assert time.monotonic() - killed[0] < 10
    for events in replies:
        assert any("error" in event for event in events[-3:])
    assert "the engine has died" in server.log.read_text()


def test_killed_it_has_written_the_usage_of_all_requests_that_had_ended_and_takes_its_engine_with_it(own: Started) -> None:
    server, process = own
    engine = engine_of(process)
    ids = [server.chat().headers["x-request-id"] for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {json.loads(line)["id"] for line in server.usage.read_text().splitlines()} >= set(ids[:-1])
    wait_for(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)  # it would keep the model's memory


def test_its_flags_have_an_effect(checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    options = ["--log-file", str(log), "--stream-period", "4", "--max-in-flight", "2", "--request-timeout", "3"]
    options += ["--engine-use-ray", "--worker-use-ray"]  # the card's, of which a line is said
    options += ["--max-reply-tokens", "6000", "--request-log", str(tmp_path / "requests.jsonl"), "--share-prefix-cache"]
    with running(tmp_path, checkpoint, *options) as (server, _):
        assert server.log.read_text() == ""  # the terminal
        wait_for(lambda: "ochat: serving openchat_3.5 on" in log.read_text())
        assert log.read_text().count("ochat: Ray isn't used") == 1
        with server.stream("/v1/chat/completions", messages=USER, max_tokens=17, ignore_eos=True) as stream:
            contents = [line for line in stream.iter_lines() if '"content"' in line and '"content":""' not in line]
        assert len(contents) <= 6  # the first token, then four at a time
        with server.stream("/v1/chat/completions", messages=USER, max_tokens=6000, ignore_eos=True, n=2) as stream:
            lines = stream.iter_lines()
            next(lines)
            busy = server.chat()
            assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
            last = [line for line in lines if line][-2]
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "The reply wasn't complete after 3 s."
        late = server.chat(max_tokens=6000, ignore_eos=True)
        assert late.status_code == 504
        assert server.chat(max_tokens=6001).status_code == 400
        server.chat(content="What is kept?", condition="Code")

        def last_row() -> dict[str, Any]:  # written when the reply has been sent
            row: dict[str, Any] = json.loads((tmp_path / "requests.jsonl").read_text().splitlines()[-1])
            return row

        wait_for(lambda: "messages" in last_row()["request"])
        row = last_row()
        assert row["request"]["messages"][0]["content"] == "What is kept?"
        assert (len(row["replies"]), row["condition"]) == (1, "Code")
        text = "The same words for everyone, long enough for some blocks of the cache. " * 10
        for key in (server.key, server.add_key("neighbour")):
            response = server.chat(text, key)
        assert server.usage_of(response.headers["x-request-id"])["cached_tokens"] > 50
