"""`ochat ui` passes on what the page asks, and nothing else."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from scripted_server import ScriptedServer, serving

from ochat.errors import OchatError
from ochat.ui.page import FILES
from ochat.ui.proxy import make_app, upstream
from ochat.ui.run import Options, main

Scripted = tuple[ScriptedServer, str]


def wait_for(comes: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not comes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def body(order: str) -> dict[str, object]:
    return {"model": "one", "messages": [{"role": "user", "content": order}], "stream": True}


def test_the_page_and_its_files_are_answered_with_the_policy(scripted: Scripted) -> None:
    with httpx.Client(base_url=scripted[1]) as client:
        assert "<title>ochat</title>" in client.get("/").text
        for path in FILES:
            answer = client.get(path)
            assert "script-src 'self'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert client.get("/ui/nosuch.js").status_code == 404
        for path in ("/ui/nosuch.js", "/nosuch", "/ui", "/ui/"):
            assert "default-src 'none'" in client.get(path).headers["content-security-policy"]
        assert client.get("/ui/../page.py").status_code == 404
        assert [client.get(path).headers["location"] for path in ("/ui", "/ui/")] == ["./", "../"]


def test_replies_are_passed_on_as_they_come(scripted: Scripted) -> None:
    server, url = scripted
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body("forever"), timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        first = next(answer.iter_lines())  # a reply that never ends would else be waited for for ever
        assert "word" in json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["content"]
    wait_for(lambda: server.n_running == 0)  # who stops reading here stops the server


def test_who_stops_waiting_for_the_first_word_stops_the_server(scripted: Scripted) -> None:
    server, url = scripted
    parts = urlsplit(url)
    request = json.dumps(body("wait"))
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request)}\r\n\r\n"
        connection.sendall((head + request).encode())
        wait_for(lambda: server.n_running == 1)
    wait_for(lambda: server.n_running == 0)


def test_an_answer_that_is_opened_as_a_page_can_do_nothing(scripted: Scripted) -> None:
    answer = httpx.post(f"{scripted[1]}/v1/chat/completions", json=body("raw <script>alert(1)</script>"))
    assert answer.text == "<script>alert(1)</script>"
    assert answer.headers.get_list("content-security-policy") == ["default-src 'none'; sandbox; frame-ancestors 'none'"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


def test_errors_are_passed_on_as_they_are(scripted: Scripted) -> None:
    _, url = scripted
    answer = httpx.post(f"{url}/v1/chat/completions", json=body("status 429"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["message"] == "as told"


@pytest.fixture(scope="module")
def with_key() -> Iterator[str]:
    with serving(ScriptedServer(key="sesame").app()) as url, serving(make_app(f"{url}/v1")) as page_url:
        yield page_url


def test_the_key_is_the_readers_and_passed_on(with_key: str) -> None:
    assert httpx.get(f"{with_key}/v1/models").status_code == 401
    assert httpx.get(f"{with_key}/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", {"Host": "evil.example"}, 400),  # a name that leads to this machine
        ("/v1/models", {"Origin": "https://evil.example"}, 403),
        ("/v1/models", {"Origin": "http://localhost:1"}, 403),
        ("/v1/embeddings", {}, 404),
        ("/metrics", {}, 404),
        ("/v1/%2e%2e/metrics", {}, 404),
    ],
)
def test_other_hosts_and_other_paths_are_refused(scripted: Scripted, path: str, headers: dict[str, str], status: int) -> None:
    assert httpx.get(scripted[1] + path, headers=headers).status_code == status


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    with serving(make_app("http://localhost:9/v1")) as url:
        answer = httpx.get(f"{url}/v1/models")
        assert answer.status_code == 502
        assert "http://localhost:9/v1 doesn't answer" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("http://h:1/v1", "/v1/models", "http://h:1/v1/models"),
        ("http://h:1/v1/", "/tokenize", "http://h:1/tokenize"),
        ("https://h/api/v1", "/v1/models", "https://h/api/v1/models"),
        ("https://h/openai", "/v1/models", "https://h/openai/models"),
    ],
)
def test_paths_lead_below_the_base_url_or_beside_it(base: str, path: str, expected: str) -> None:
    assert upstream(base, path) == expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"base_url": "localhost:8000"}, "--base-url is"),
        ({"base_url": "http://h/v1?x"}, "--base-url is"),
        ({"port": 0}, "--port is 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OchatError, match=problem):
        Options(**options)  # type: ignore[arg-type]  # as the command line gives them


def test_a_port_that_is_taken_is_told(scripted: Scripted) -> None:
    port = int(scripted[1].rpartition(":")[2])
    with pytest.raises(OchatError, match=f"Port {port} can't be used"):
        main(Options(port=port))
