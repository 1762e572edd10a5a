"""Audit: what bad requests get. A 4xx in OpenAI's shape; never a 5xx, a dropped connection, a shrug or the server's insides."""

import re
from collections.abc import Iterator

from ochat.client.connection import Answer
from ochat.client.subject import CHAT, Finding, Subject, field

TOPIC = "errors"
_INSIDES = re.compile(r'Traceback|File "|site-packages|\.py\b|/usr/|/home/|/root/|pydantic|0x[0-9a-f]{6}')


def check_errors(subject: Subject) -> Iterator[Finding]:
    answers = {name: subject.ask("POST", CHAT, body) for name, body in _bad_requests(subject).items()}
    if subject.context:
        answers["a prompt beyond the context"] = subject.chat("Hi " * (subject.context + 8))
    else:
        yield Finding(TOPIC, "a prompt beyond the context", "unknown", "the server doesn't tell its context's length")
    odd = {name: subject.ask("POST", CHAT, body) for name, body in _odd_requests(subject).items()}
    elsewhere = {"an unknown path": subject.ask("POST", "/v1/no-such-path", {}), "a wrong method": subject.ask("GET", CHAT)}
    every = {**answers, **odd, **elsewhere}
    yield _finding(
        "no 5xx, no dropped connection",
        [f"{name} ({answer.status or 'dropped'})" for name, answer in every.items() if not 200 <= answer.status < 500],
        "Check requests before they reach the engine.",
    )
    yield _finding(
        "what makes no sense is refused", [name for name, answer in answers.items() if answer.ok], "Refuse it with a 400."
    )
    every["no key"] = subject.ask("POST", CHAT, {}, keyless=True)
    refused = {name: answer for name, answer in every.items() if answer.status >= 400}
    yield _finding(
        "in OpenAI's shape",
        [name for name, answer in refused.items() if not _is_openai_shaped(answer)],
        'Answer {"error": {"message", "type", "param", "code"}}: clients show its message.',
    )
    insides = [name for name, answer in refused.items() if _INSIDES.search(answer.body.decode("utf-8", "replace"))]
    yield _finding("nothing of the server's insides", insides, "Log the trace, and answer with a request id.")
    alive = subject.chat()
    dead = [] if alive.ok else [f"a plain request gets {alive.status or 'no answer'}"]
    yield _finding("it serves on after all that", dead, "Look at the server's log.")


def _finding(check: str, faults: list[str], remedy: str) -> Finding:
    return Finding(TOPIC, check, "fail", "; ".join(faults), remedy) if faults else Finding(TOPIC, check, "pass", "yes")


def _is_openai_shaped(answer: Answer) -> bool:
    error = field(answer.json(), "error")
    return isinstance(field(error, "message"), str) and isinstance(field(error, "type"), str)


def _bad_requests(subject: Subject) -> dict[str, object]:
    user = {"role": "user", "content": "Hi"}
    request = subject.request
    return {
        "not JSON": b'{"model": ',
        "no object": [],
        "no messages": {"model": subject.model},
        "empty messages": request(messages=[]),
        "messages that are text": request(messages="Hi"),
        "a message that is text": request(messages=["Hi"]),
        "no content": request(messages=[{"role": "user"}]),
        "content that is a number": request(messages=[{"role": "user", "content": 5}]),
        "an unknown role": request(messages=[{"role": "nobody", "content": "Hi"}]),
        "an unknown part": request(messages=[{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]),
        "an unknown model": request(model="no-such-model-of-anybody"),
        "temperature -1": request(temperature=-1),
        "temperature as text": request(temperature="hot"),
        "temperature NaN": b'{"model": "%s", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": NaN}'
        % subject.model.encode(),
        "top_p 2": request(top_p=2),
        "n 0": request(n=0),
        "max_tokens -1": request(max_tokens=-1),
        "stop 5": request(stop=5),
        "seed as text": request(seed="x"),
        "top_logprobs without logprobs": request(top_logprobs=3),
        "temperature -1, streamed": request(temperature=-1, stream=True),
        "JSON nested too deep": b'{"messages": ' + b"[" * 100_000,
        "a list where an object belongs": request(messages=[[user]]),
    }


def _odd_requests(subject: Subject) -> dict[str, object]:
    """What may be taken or refused, but must not break anything."""
    return {
        "half of a character": subject.request("\ud83d"),
        "a zero byte": subject.request("a\0b"),
        "no text at all": subject.request(""),
        "two users in a row": subject.request(messages=[{"role": "user", "content": "Hi"}] * 2),
        "an assistant first": subject.request(
            messages=[{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}]
        ),
        "an unknown format": subject.request(response_format={"type": "no-such-format"}),
        "a broken schema": subject.request(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no-such-type"}}}
        ),
        "a bias of no token": subject.request(logit_bias={"999999999": 1}),
        "UTF-16": '{"model": "x"}'.encode("utf-16"),
    }
