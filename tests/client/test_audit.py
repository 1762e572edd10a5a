"""Each fault that a server can have is found, and a server without it passes that check."""

import io
import json
import socket

import pytest
from rich.console import Console
from toy_server import KEY, toy_server

from ochat.client.audit import CHECKS, FAULTS_FOUND, Options, main, make_subject, table
from ochat.client.check_fields import fetching
from ochat.client.subject import Finding
from ochat.errors import OchatError


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def audit(only: str, *faults: str, key: str = KEY) -> dict[str, Finding]:
    with toy_server(*faults) as toy:
        return {finding.check: finding for finding in CHECKS[only](make_subject(Options(toy.url, key=key)))}


@pytest.mark.parametrize("topic", list(CHECKS))
def test_a_server_without_faults_passes(topic: str) -> None:
    findings = audit(topic)
    assert findings
    assert {name: f.found for name, f in findings.items() if f.verdict not in ("pass", "unknown")} == {}
    assert not [name for name, f in findings.items() if f.verdict == "unknown" and name != "response_format"]


@pytest.mark.parametrize(
    ("topic", "fault", "check", "found"),
    [
        ("keys", "open", "routes that compute want a key", "open: /invocations"),
        ("keys", "starts", "wrong keys are refused", "taken: the key and a letter (200), the key without its end (200)"),
        ("keys", "path", "no way round by path or header", "/v1/chat/completions?path=/health"),
        ("tokens", "forged", "in a user's message", "<|im_start|> <|im_end|>"),
        ("tokens", "forged", "in a system prompt", "<|im_start|> <|im_end|>"),
        ("tokens", "forged", "in an earlier reply", "<|im_start|> <|im_end|>"),
        ("fields", "stop", "stop", "stayed in the reply"),
        ("fields", "seed", "seed", "two replies to one seed differ"),
        ("fields", "shrugs", "misspelt fields", "temprature, max_token, stop_sequence"),
        ("fields", "shrugs", "condition", "the prompt is as without"),
        ("fields", "fetches", "addresses in a request", "it fetched what 5 requests named"),
        ("fields", "shrugs", "tools", "as long as without tools"),
        ("errors", "shape", "in OpenAI's shape", "not JSON"),
        ("errors", "breaks", "no 5xx, no dropped connection", "a message that is text (500)"),
        ("errors", "breaks", "nothing of the server's insides", "a message that is text"),
        ("cancellation", "goes on", "a stream that is hung up on", "after hanging up"),
        ("cancellation", "goes on", "a reply that nobody waits for", "after hanging up"),
    ],
)
def test_a_fault_is_found_and_its_remedy_told(topic: str, fault: str, check: str, found: str) -> None:
    finding = audit(topic, fault)[check]
    assert finding.verdict == "fail"
    assert found in finding.found
    assert finding.remedy


@pytest.mark.parametrize(
    ("fault", "check", "found"),
    [
        ("stumbles at a wrong key", "wrong keys are refused", "neither taken nor refused: nonsense (503), an empty key (503)"),
        ("stumbles at no key", "generating wants a key", "/v1/chat/completions answers 503 without one"),
    ],
)
def test_an_answer_that_neither_takes_nor_refuses_a_key_tells_nothing(fault: str, check: str, found: str) -> None:
    finding = audit("keys", fault)[check]
    assert finding.verdict == "unknown"
    assert found in finding.found


CHANGES = "routes that change the server want a key"


@pytest.mark.parametrize("unknown_methods", [[], ["no PROPFIND"]])
def test_a_route_that_acts_on_a_get_too_is_found_and_does_not_act(unknown_methods: list[str]) -> None:
    with toy_server("flushes", *unknown_methods) as toy:
        findings = {finding.check: finding for finding in CHECKS["keys"](make_subject(Options(toy.url, key=KEY)))}
    assert (findings[CHANGES].verdict, findings[CHANGES].found) == ("fail", "open: /flush_cache")
    assert toy.flushed == []


def test_a_route_that_acts_on_any_method_is_found() -> None:
    found = audit("keys", "flushes", "any method")[CHANGES]
    assert (found.verdict, found.found) == ("fail", "open: /flush_cache")


def test_a_server_that_knows_no_harmless_method_is_not_asked_by_another() -> None:
    with toy_server("flushes", "no PROPFIND", "no TRACE") as toy:
        findings = {finding.check: finding for finding in CHECKS["keys"](make_subject(Options(toy.url, key=KEY)))}
    assert (findings[CHANGES].verdict, findings[CHANGES].found[:36]) == ("unknown", "no path takes PROPFIND or TRACE, and")
    assert toy.flushed == []


def test_a_405_before_the_check_of_keys_shows_no_open_route() -> None:
    findings = audit("keys", "routes first")
    assert findings[CHANGES].verdict == "unknown"
    assert findings[CHANGES].found.endswith("the right method may want one: /v1/files")
    assert findings["routes that only tell want a key"].found.endswith("the right method may want one: /v1/cars")
    assert findings["routes that compute want a key"].verdict == "pass"


@pytest.mark.parametrize(
    ("n_fetched", "here", "there", "verdict"),
    [
        (0, "127.0.0.1", "127.0.0.1", "pass"),
        (0, "::1", "::1", "pass"),
        (0, "192.0.2.7", "192.0.2.7", "pass"),  # this machine by its own address
        (0, "192.168.1.2", "203.0.113.9", "unknown"),
        (0, "fe80::1%eth0", "fe80::2%eth0", "unknown"),
        (1, "192.168.1.2", "203.0.113.9", "fail"),
    ],
)
def test_that_nothing_was_fetched_tells_of_a_server_on_this_machine_alone(
    n_fetched: int, here: str, there: str, verdict: str
) -> None:
    assert fetching(n_fetched, 5, here, there)[0] == verdict


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize(("faults", "verdict"), [([], "pass"), (["fetches"], "fail")])
def test_a_server_on_ipv6_alone_is_audited(faults: list[str], verdict: str) -> None:
    with toy_server(*faults, host="::1") as toy:
        findings = {finding.check: finding for finding in CHECKS["fields"](make_subject(Options(toy.url, key=KEY)))}
    assert findings["addresses in a request"].verdict == verdict


@pytest.mark.parametrize(("faults", "verdict"), [(["metrics"], "pass"), (["metrics", "goes on"], "fail")])
def test_a_servers_own_count_of_its_work_is_believed(faults: list[str], verdict: str) -> None:
    found = audit("cancellation", *faults)["a stream that is hung up on"]
    assert found.verdict == verdict
    assert found.found.startswith("/metrics counts 0 at work, 8 with long replies")


def test_faults_end_it_with_a_status_of_their_own_and_json_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    with toy_server("shape") as toy, pytest.raises(SystemExit) as ended:
        main(Options(toy.url, key=KEY, only=("errors",), json=True))
    assert ended.value.code == FAULTS_FOUND
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "toy"
    assert "fail" in {finding["verdict"] for finding in told["findings"]}


def test_the_table_shows_what_was_found_and_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with toy_server("forged") as toy, pytest.raises(SystemExit):
        main(Options(toy.url, key=KEY, only=("tokens",)))
    shown = " ".join(capsys.readouterr().out.split())
    assert "read as a token: <|im_start|> <|im_end|>" in shown
    assert "encode_special_tokens" in shown


def test_a_server_that_cannot_be_audited_is_told_in_words() -> None:
    with toy_server() as toy:
        with pytest.raises(OchatError, match=r"answered 401. It wants a key"):
            make_subject(Options(toy.url))
        with pytest.raises(OchatError, match=r"doesn't list a model 'x'. It lists: toy"):
            make_subject(Options(toy.url, key=KEY, model="x"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(OchatError, match=f"No server answers at http://127.0.0.1:{port} .*Check the address"):
        make_subject(Options(f"127.0.0.1:{port}"))
    with pytest.raises(OchatError, match="is no server's address"):
        make_subject(Options("ftp://x"))
    with pytest.raises(OchatError, match=r"--only has 'x'. Give some of: keys"):
        Options("x", only=("x",))


def test_a_servers_words_do_not_drive_the_terminal() -> None:
    out = io.StringIO()
    console = Console(width=100, force_terminal=True, color_system="standard", file=out)
    console.print(table([Finding("keys", "open", "note", "it has /\x1b]0;title\x07", "")]))
    assert "/�]0;title�" in out.getvalue()
