"""Audit: does hanging up end the work? If it doesn't, a client that reloads a page keeps the machine busy for minutes.

Some servers tell in /metrics how many requests are at work. With others it shows in the time that a short request takes: alone,
beside many long replies, and after all of them were hung up on."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from ochat.client.connection import NoAnswer, Server
from ochat.client.subject import CHAT, Finding, Subject

TOPIC = "cancellation"
LONG_REPLIES = 8
LONG_TOKENS = 1500
TIMES = 3
NOTICE = 1.0  # seconds that a server has to notice
LONGEST = 20.0  # seconds that a short reply is waited for: a server without batching would first finish the long ones
SLOWER = 1.3  # times as long beside the long replies, or nothing can be told
SETTLE = 60.0  # seconds that replies which go on are waited for, before the next check
_AT_WORK = re.compile(  # of vLLM and of llama.cpp
    r"^(?:vllm:num_requests_(?:running|waiting)|llamacpp:requests_(?:processing|deferred))(?:\{.*\})? ([0-9.e+]+)$",
    re.MULTILINE,
)
REMEDY = "Watch for the client's disconnect while generating, and abort the request in the engine."


def check_cancellation(subject: Subject) -> Iterator[Finding]:
    alone = 0.0  # seconds of a short reply, before anything was left at work
    for name, streams in (("a stream that is hung up on", True), ("a reply that nobody waits for", False)):
        before = _at_work(subject)
        if before is not None:
            yield _by_count(subject, name, streams, before)
        elif not alone or _settles(subject, alone):
            alone = alone or _seconds(subject)
            yield _by_time(subject, name, streams, alone)
        else:
            told = f"the replies of the check before are still at work after {SETTLE:.0f} s; repeat it when the server is idle"
            yield Finding(TOPIC, name, "unknown", told)


def _settles(subject: Subject, alone: float) -> bool:
    """Wait until a short reply takes about as long as alone; whether it comes to that."""
    until = time.monotonic() + SETTLE
    while _seconds(subject) > SLOWER * alone:
        if time.monotonic() > until:
            return False
        time.sleep(NOTICE)
    return True


def _by_count(subject: Subject, name: str, streams: bool, before: int) -> Finding:
    with ExitStack() as open_replies:
        _send_long_requests(subject, open_replies, streams)
        beside = _at_work(subject) or 0
    time.sleep(NOTICE)
    after = _at_work(subject) or 0
    told = f"/metrics counts {before} at work, {beside} with long replies, {after} a second after hanging up"
    if beside <= before:
        return Finding(TOPIC, name, "unknown", told)
    return Finding(TOPIC, name, "pass", told) if after <= before else Finding(TOPIC, name, "fail", told, REMEDY)


def _by_time(subject: Subject, name: str, streams: bool, alone: float) -> Finding:
    with ExitStack() as open_replies:
        _send_long_requests(subject, open_replies, streams)
        beside = _seconds(subject)
    time.sleep(NOTICE)
    after = _seconds(subject)
    told = f"a short reply: {alone:.2f} s alone, {beside:.2f} s beside {LONG_REPLIES} long ones, {after:.2f} s after hanging up"
    if beside < SLOWER * alone:
        return Finding(TOPIC, name, "unknown", told)
    return Finding(TOPIC, name, "pass", told) if after < (alone * beside) ** 0.5 else Finding(TOPIC, name, "fail", told, REMEDY)


def _at_work(subject: Subject) -> int | None:
    """The requests that run or wait, by the server's own count; None where it doesn't tell."""
    counts = _AT_WORK.findall(subject.ask("GET", "/metrics").body.decode("utf-8", "replace"))
    return int(sum(map(float, counts))) if counts else None


def _seconds(subject: Subject) -> float:
    """Median of some short replies, each waited for LONGEST at most."""
    impatient = Server(subject.server.url, subject.server.key, timeout=LONGEST)
    took: list[float] = []
    while len(took) < TIMES and (not took or took[-1] < LONGEST):
        started = time.monotonic()
        with contextlib.suppress(NoAnswer):
            impatient.ask("POST", CHAT, subject.request("Count from 1 to 100.", max_tokens=12))
        took.append(time.monotonic() - started)
    return median(took)


def _send_long_requests(subject: Subject, open_replies: ExitStack, streams: bool) -> None:
    """Ask for long replies, which are hung up on when the stack closes."""
    tokens = min(LONG_TOKENS, (subject.context or 2 * LONG_TOKENS) // 2)
    request = subject.request("Tell a very long story.", max_tokens=tokens, ignore_eos=True, stream=streams)
    if not subject.chat(ignore_eos=True).ok:
        del request["ignore_eos"]
    for _ in range(LONG_REPLIES):
        with contextlib.suppress(NoAnswer):
            open_replies.enter_context(subject.server.sent("POST", CHAT, json.dumps(request).encode()))
    time.sleep(1)  # all are at work
