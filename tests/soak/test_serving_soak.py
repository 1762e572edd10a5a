"""The server under mixed work for half an hour, on this machine alone: flat memory, nothing stuck, no 5xx but a deliberate one.

OCHAT_SOAK_SECONDS sets how long; `pytest -m soak -s tests/soak/test_serving_soak.py` shows what was asked."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from live_server import Server, random_checkpoint, running

SECONDS = int(os.environ.get("OCHAT_SOAK_SECONDS", "1800"))
WORKERS = 16
PATIENCE = 180  # seconds; whatever takes longer is stuck
GROWTH = 1.1  # of memory, from the second quarter's mean to the last's
MODEL = "openchat_3.5"
DELIBERATE = (503,)  # no room, or stopping; told with Retry-After
BAD: tuple[dict[str, object] | bytes, ...] = (
    b"{",
    b"[]",
    {"model": "no-such-model"},
    {"messages": []},
    {"messages": [{"role": "nobody", "content": "Hi"}]},
    {"messages": [{"role": "user", "content": 5}]},
    {"temperature": -1},
    {"max_tokens": -1},
    {"n": 100_000},
    {"temprature": 1},
    {"condition": "<|end_of_turn|>"},
    {"messages": [{"role": "user", "content": "word " * 200_000}]},
)


@pytest.fixture
def server(tmp_path: Path, openchat_folder: Path) -> Iterator[tuple[Server, int]]:
    """Our server on a random model, and its process's number."""
    checkpoint = random_checkpoint(openchat_folder, tmp_path / MODEL)
    with running(tmp_path, checkpoint, "--max-model-len", "2048") as (started, process):
        yield started, process.pid


def memory_of(root: int) -> int:
    """Bytes that the process and all below it hold."""
    parents, pages = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            pages[int(path.name)] = int((path / "statm").read_text().split()[1])
        except (OSError, ValueError):  # it has ended
            continue

    def is_below(number: int) -> bool:
        while number in parents and number != root:
            number = parents[number]
        return number == root

    return os.sysconf("SC_PAGE_SIZE") * sum(count for number, count in pages.items() if is_below(number))


async def one_request(session: aiohttp.ClientSession, url: str, draw: random.Random) -> tuple[str, int]:
    """What was asked, and the status that it got; 0 where we hung up."""
    kind = draw.choices(("reply", "stream", "hangs up streaming", "hangs up waiting", "bad"), (4, 4, 2, 1, 2))[0]
    words = " ".join(str(draw.randrange(1000)) for _ in range(draw.choice((1, 10, 100, 400))))
    request: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": words}]}
    request |= {"max_tokens": draw.choice((1, 16, 64, 256)), "ignore_eos": True, "stream": "stream" in kind}
    data = json.dumps(request).encode()
    if kind == "bad":
        bad = draw.choice(BAD)
        data = bad if isinstance(bad, bytes) else json.dumps({**request, **bad}).encode()
    async with asyncio.timeout(PATIENCE):
        posted = session.post(f"{url}/v1/chat/completions", data=data, headers={"Content-Type": "application/json"})
        if kind == "hangs up waiting":
            try:
                async with asyncio.timeout(draw.random() / 2), posted:
                    return kind, 0
            except TimeoutError:
                return kind, 0
        async with posted as response:
            if kind == "hangs up streaming":
                for _ in range(draw.randrange(5)):
                    await response.content.readline()
                response.close()
                return kind, response.status
            body = await response.read()
            if response.status == 200 and "stream" in kind:
                assert body.rstrip().endswith(b"data: [DONE]"), body[-200:]
            return kind, response.status


async def soak(server: Server, pid: int) -> tuple[Counter[tuple[str, int]], list[int], float]:
    """What was asked and got how often, the memory every few seconds, and seconds of a short request at the end."""
    counts: Counter[tuple[str, int]] = Counter()
    memory: list[int] = []
    until = time.monotonic() + SECONDS
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=server.headers(), connector=connector) as session:

        async def work(number: int) -> None:
            draw = random.Random(number)
            while time.monotonic() < until:
                counts[await one_request(session, server.url, draw)] += 1

        async def watch() -> None:
            while time.monotonic() < until:
                memory.append(memory_of(pid))
                await asyncio.sleep(SECONDS / 200)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            for number in range(WORKERS):
                group.create_task(work(number))
        started = time.monotonic()
        for kind, status in [await plain(session, server.url) for _ in range(WORKERS)]:
            counts[kind, status] += 1
        return counts, memory, (time.monotonic() - started) / WORKERS


async def plain(session: aiohttp.ClientSession, url: str) -> tuple[str, int]:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "ignore_eos": True}
    async with asyncio.timeout(PATIENCE), session.post(f"{url}/v1/chat/completions", json=request) as response:
        await response.read()
        return "at the end", response.status


@pytest.mark.soak
def test_memory_stays_flat_and_nothing_is_stuck_under_mixed_work(server: tuple[Server, int]) -> None:
    counts, memory, seconds = asyncio.run(soak(*server))
    quarter = len(memory) // 4
    before, after = (sum(part) / len(part) for part in (memory[quarter : 2 * quarter], memory[3 * quarter :]))
    print(
        f"{counts.total()} requests in {SECONDS} s; memory {before / 1e6:.0f} -> {after / 1e6:.0f} MB; at the end {seconds:.2f} s each"
    )
    for (kind, status), count in sorted(counts.items()):
        print(f"{count:>7}  {kind}: {status}")
    assert {status for (_, status) in counts if status >= 500} <= set(DELIBERATE)
    assert {status for (kind, status) in counts if kind == "bad"} <= {400, 404, 413, 422}
    assert {status for (kind, status) in counts if kind in ("reply", "stream")} <= {200, 429, *DELIBERATE}
    assert counts["at the end", 200] == WORKERS
    assert seconds < PATIENCE / 10
    assert after < GROWTH * before
