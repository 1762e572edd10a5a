"""The server under mixed work for half an hour, on this machine alone: flat memory, nothing stuck, no 5xx but a deliberate one.

OCHAT_SOAK_SECONDS sets how long; `pytest -m soak -s tests/soak/test_serving_soak.py` shows what was asked."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from toys import openchat_tokenizer

from ochat.processes import end_with_parent, free_port
from ochat.registry import model_type

SECONDS = int(os.environ.get("OCHAT_SOAK_SECONDS", "1800"))
WORKERS = 16
START_SECONDS = 600
PATIENCE = 180  # seconds; whatever takes longer is stuck
GROWTH = 1.1  # of memory, from the second quarter's mean to the last's
MODEL, KEY = "openchat_3.5", "sk-soak"
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
def server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Our server on a random model of OpenChat's type: its address and its process's number."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from ochat.training.checkpoint import save_checkpoint

    config = MistralConfig(
        vocab_size=32002,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    config.head_dim = 32
    tokenizer = openchat_tokenizer(tmp_path / "tokenizer")
    save_checkpoint(MistralForCausalLM(config).to(torch.bfloat16), tokenizer, model_type(MODEL), tmp_path / "model")
    port = free_port()
    words = ["--model", str(tmp_path / "model"), "--port", str(port), "--api-keys", KEY, "--kv-cache-memory-bytes", str(2**26)]
    command = [sys.executable, "-m", "ochat.serving.openai_api_server", *words, "--max-model-len", "2048"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=partial(end_with_parent, os.getpid())
        )
    try:
        asyncio.run(until_ready(f"http://127.0.0.1:{port}", process, tmp_path / "log"))
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(120)


async def until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                async with session.get(f"{url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


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


async def soak(url: str, pid: int) -> tuple[Counter[tuple[str, int]], list[int], float]:
    """What was asked and got how often, the memory every few seconds, and seconds of a short request at the end."""
    counts: Counter[tuple[str, int]] = Counter()
    memory: list[int] = []
    until = time.monotonic() + SECONDS
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}, connector=connector) as session:

        async def work(number: int) -> None:
            draw = random.Random(number)
            while time.monotonic() < until:
                counts[await one_request(session, url, draw)] += 1

        async def watch() -> None:
            while time.monotonic() < until:
                memory.append(memory_of(pid))
                await asyncio.sleep(SECONDS / 200)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            for number in range(WORKERS):
                group.create_task(work(number))
        started = time.monotonic()
        for kind, status in [await plain(session, url) for _ in range(WORKERS)]:
            counts[kind, status] += 1
        return counts, memory, (time.monotonic() - started) / WORKERS


async def plain(session: aiohttp.ClientSession, url: str) -> tuple[str, int]:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "ignore_eos": True}
    async with asyncio.timeout(PATIENCE), session.post(f"{url}/v1/chat/completions", json=request) as response:
        await response.read()
        return "at the end", response.status


@pytest.mark.soak
def test_memory_stays_flat_and_nothing_is_stuck_under_mixed_work(server: tuple[str, int]) -> None:
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
