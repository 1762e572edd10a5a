"""Audit: fields that a server takes and doesn't honour.

Whoever sends `stop` or `seed` relies on it. Each is honoured, or refused with a 4xx; a 200 that shows no effect is the fault."""

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ochat.client.connection import Answer, NoAnswer, events
from ochat.client.subject import CHAT, Finding, Subject, Verdict, field, prompt_tokens, text_of

TOPIC = "fields"
REMEDY = "Refuse with a 400 what isn't honoured."
QUESTION = "Tell me a story about a town that nobody has ever seen."
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
Outcome = tuple[Verdict, str]


def check_fields(subject: Subject) -> Iterator[Finding]:
    checks: dict[str, Callable[[Subject], Outcome]] = {
        "max_tokens": _max_tokens,
        "stop": _stop,
        "seed": _seed,
        "n": _n,
        "logprobs": _logprobs,
        "logit_bias": _logit_bias,
        "response_format": _response_format,
        "tools": _tools,
        "stream_options": _stream_usage,
        "system prompt": _system,
        "image_url": _image,
        "condition": _condition,
        "misspelt fields": _misspelt,
        "addresses in a request": _fetched,
    }
    for name, check in checks.items():
        verdict, found = check(subject)
        yield Finding(TOPIC, name, verdict, found, REMEDY if verdict == "fail" else "")


def _judged(answer: Answer, honoured: bool, shown: str, ignored: str) -> Outcome:
    if answer.ok:
        return ("pass", shown) if honoured else ("fail", ignored)
    if 400 <= answer.status < 500:
        return "pass", f"refused with {answer.status}"
    return "fail", f"answered {answer.status or 'nothing'}"


def _max_tokens(subject: Subject) -> Outcome:
    answer = subject.chat(QUESTION, max_tokens=3)
    count = field(answer.json(), "usage", "completion_tokens")
    honoured = field(answer.json(), "choices", 0, "finish_reason") == "length" and count in (None, 3)
    return _judged(answer, honoured, "3 tokens of 3", f"{count} tokens came where 3 were asked for")


def _stop(subject: Subject) -> Outcome:
    text = text_of(subject.chat(QUESTION, max_tokens=24))
    words = text.split()
    if len(words) < 4:
        return "unknown", f"the reply is too short to stop: {text!r}"
    word = words[len(words) // 2]
    answer = subject.chat(QUESTION, max_tokens=24, stop=[word])
    cut = text_of(answer)
    honoured = word not in cut and len(cut) < len(text)
    return _judged(answer, honoured, "the reply ends before it", f"{word!r} stayed in the reply")


def _seed(subject: Subject) -> Outcome:
    def reply(seed: int) -> Answer:
        return subject.chat(QUESTION, max_tokens=24, temperature=1.5, seed=seed)

    first, again, other = reply(1), reply(1), reply(2)
    if first.ok and text_of(first) == text_of(again) == text_of(other):
        return "unknown", "all replies are alike"
    return _judged(first, text_of(first) == text_of(again), "twice the same reply", "two replies to one seed differ")


def _n(subject: Subject) -> Outcome:
    answer = subject.chat(n=2)
    choices = field(answer.json(), "choices")
    return _judged(answer, len(choices or []) == 2, "2 choices", f"{len(choices or [])} choice for n=2")


def _logprobs(subject: Subject) -> Outcome:
    answer = subject.chat(logprobs=True, top_logprobs=2)
    given = field(answer.json(), "choices", 0, "logprobs", "content", 0, "top_logprobs")
    return _judged(answer, bool(given), f"{len(given or [])} for a token", "none in the reply")


def _logit_bias(subject: Subject) -> Outcome:
    plain = subject.chat(QUESTION, max_tokens=8)
    answer = subject.chat(QUESTION, max_tokens=8, logit_bias={"300": 100})
    return _judged(answer, text_of(answer) != text_of(plain), "it changes the reply", "the reply is as without it")


def _response_format(subject: Subject) -> Outcome:
    schema = {
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": ["qx1", "qx2"]}},
        "required": ["kind"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "kinds", "strict": True, "schema": schema}}
    answer = subject.chat(QUESTION, max_tokens=48, response_format=format)
    text = text_of(answer).strip()
    whole = field(answer.json(), "choices", 0, "finish_reason") == "stop"
    try:
        follows = json.loads(text).get("kind") in ("qx1", "qx2")
    except (ValueError, AttributeError):
        follows = not whole and text[:1] in ("", "{")  # cut off at max_tokens, after blanks perhaps
    return _judged(answer, follows, "the reply follows the schema", f"the reply is no JSON of the schema: {text[:40]!r}")


def _tools(subject: Subject) -> Outcome:
    function = {
        "name": "look_up_weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    }
    plain = subject.prompt_tokens(QUESTION)
    answer = subject.chat(QUESTION, max_tokens=64, tools=[{"type": "function", "function": function}])
    seen = prompt_tokens(answer)
    honoured = bool(field(answer.json(), "choices", 0, "message", "tool_calls")) or (
        seen is not None and plain is not None and seen > plain
    )
    return _judged(answer, honoured, "the tools are in the prompt", "the prompt is as long as without tools")


def _stream_usage(subject: Subject) -> Outcome:
    body = json.dumps(subject.request(stream=True, stream_options={"include_usage": True})).encode()
    try:
        with subject.server.response("POST", CHAT, body) as response:
            if response.status != 200:
                return _judged(Answer(response.status, {}, b""), False, "", "")
            told = any(field(event, "usage", "prompt_tokens") for event in events(response))
    except NoAnswer as error:
        return "fail", str(error)
    return ("pass", "the stream ends with the usage") if told else ("fail", "no usage in the stream")


def _system(subject: Subject) -> Outcome:
    plain = subject.prompt_tokens()
    user = {"role": "user", "content": "Hi"}
    answer = subject.chat(messages=[{"role": "system", "content": "Answer in rhymes, and never name the sea. " * 8}, user])
    seen = prompt_tokens(answer)
    if answer.ok and (seen is None or plain is None):
        return "unknown", "the server doesn't tell usage.prompt_tokens"
    return _judged(answer, (seen or 0) > (plain or 0) + 40, "it is in the prompt", "the prompt is as long as without")


def _image(subject: Subject) -> Outcome:
    text = {"type": "text", "text": "Hi"}
    plain = subject.prompt_tokens([text])
    answer = subject.chat([text, {"type": "image_url", "image_url": {"url": PIXEL}}])
    seen = prompt_tokens(answer)
    return _judged(answer, seen != plain, "it is in the prompt", "the prompt is as long as without an image")


def _condition(subject: Subject) -> Outcome:
    """A condition that can't be known; then whether a known one, where the server tells them, changes the prompt."""
    plain, answer = subject.prompt_tokens(), subject.chat(condition="Answers of nobody in particular, of no kind at all")
    if answer.ok and prompt_tokens(answer) == plain:
        return "fail", "any condition is taken, and the prompt is as without"
    known = [field(entry, "id") for entry in field(subject.ask("GET", "/v1/conditions").json(), "data") or []]
    others = [subject.prompt_tokens(condition=name) for name in known]
    if known and None in others:
        return "fail", "one of the conditions that it lists is refused"
    if answer.ok:
        return "note", "any condition is taken, and reaches the prompt"
    return _judged(answer, True, "", "")


def _misspelt(subject: Subject) -> Outcome:
    tried = {"temprature": 0.1, "max_token": 5, "stop_sequence": ["x"], "respones_format": {"type": "json_object"}}
    taken = [name for name, value in tried.items() if subject.chat(**{name: value}).ok]
    return ("fail", f"taken without a word: {', '.join(taken)}") if taken else ("pass", "refused")


def _fetched(subject: Subject) -> Outcome:
    """Whether the server opens an address that a request names: it could then be made to read what only it can reach."""
    kinds = ("image_url", "audio_url", "video_url", "input_image", "file_url")
    port = subject.server.port or (443 if subject.server.is_https else 80)
    with socket.create_connection((subject.server.host, port), timeout=10) as probe:
        here, there = probe.getsockname()[0], probe.getpeername()[0]  # the first is where the server may reach us
    came: list[bytes] = []
    with socket.create_server((here, 0), family=socket.AF_INET6 if ":" in here else socket.AF_INET) as listener:
        port = listener.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with caller:
                    caller.settimeout(5)
                    came.append(caller.recv(1000))
                    caller.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        host = f"[{here}]" if ":" in here else here
        contents = [
            [{"type": kind, kind: {"url": f"http://{host}:{port}/{kind}"}}, {"type": "text", "text": "Hi"}] for kind in kinds
        ]
        with ThreadPoolExecutor(len(kinds)) as pool:
            list(pool.map(subject.chat, contents))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    return fetching(len(came), len(kinds), here, there)


def fetching(n_fetched: int, n_named: int, here: str, there: str) -> Outcome:
    """What it tells that so many of the named addresses were fetched, by the addresses of both ends of a connection.

    A server elsewhere may find no way back, through a NAT or a firewall, and then nothing comes whatever it tries."""
    if n_fetched:
        return "fail", f"it fetched what {n_fetched} requests named"
    if there != here and not ipaddress.ip_address(there.partition("%")[0]).is_loopback:
        return (
            "unknown",
            f"none of {n_named} came, and {there} may have no way back to {here}; audit from the server's own machine",
        )
    return "pass", f"none of {n_named} was fetched"
