"""The examples of deploy/: nginx before a real server; the unit and the container's words are read by the launcher's parser."""

import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from live_server import Server, environment, free_port, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of nginx, which runs by our example with this machine's ports and a certificate of its own."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("needs nginx and openssl: apt-get install nginx openssl")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in {
        "listen 443": f"listen {port}",
        "127.0.0.1:18888": server.url.removeprefix("http://"),
        "/etc/ssl/llm.example.org.pem": str(tmp_path / "cert"),
        "/etc/ssl/llm.example.org.key": str(tmp_path / "key"),
        "http {": f"http {{\naccess_log off;\nclient_body_temp_path {tmp_path}/body;\nproxy_temp_path {tmp_path}/proxy;\n"
        f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(f"daemon off;\npid {tmp_path}/pid;\n{text}")
    command = ["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert"))
    try:
        with httpx.Client(
            base_url=f"https://localhost:{port}/llm", verify=context, headers=server.headers(), timeout=60
        ) as client:

            def is_up() -> bool:
                assert process.poll() is None, (tmp_path / "error").read_text()
                try:
                    return client.get("/health").is_success
                except httpx.TransportError:
                    return False

            wait_for(is_up)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def test_nginx_gives_tls_a_path_of_its_own_and_streams_as_they_come(proxy: httpx.Client) -> None:
    assert proxy.get("/v1/conditions").json()["default"] == "GPT4 Correct"
    assert proxy.get("/v1/models", headers={"authorization": ""}).status_code == 401
    assert proxy.get("/metrics").status_code == 404
    body = {"model": "tiny", "messages": USER, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with proxy.stream("POST", "/v1/chat/completions", json=body) as stream:
        pieces = list(stream.iter_raw())
    assert len(pieces) > 20
    assert pieces[-1].endswith(b"data: [DONE]\n\n")
    assert proxy.post("/v1/chat/completions", content=b"x" * 5_000_000).status_code == 413


def test_the_chat_page_works_below_the_path(proxy: httpx.Client, chromium: "Browser", server: Server) -> None:
    from playwright.sync_api import expect

    with chromium.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(str(proxy.base_url))
        page.fill("#key input", server.key)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Condition", exact=True)).to_have_value("GPT4 Correct", timeout=60_000)
        page.fill("#prompt", "Tell me a long story.")
        page.keyboard.press("Enter")
        expect(page.locator(".assistant .body")).not_to_be_empty(timeout=60_000)
        page.keyboard.press("Escape")
        expect(page.locator(".assistant .facts")).to_contain_text("stopped")
    assert f"{proxy.base_url}v1/chat/completions" in asked
    assert all(url.startswith(str(proxy.base_url)) for url in asked)


# Importing vLLM takes long and changes the process, so another one reads the arguments.
READ_ARGUMENTS = """
import json, sys
from ochat.serving.openai_api_server import make_parser
print(json.dumps([vars(make_parser().parse_args(arguments)) for arguments in json.load(sys.stdin)], default=str))
"""


def test_the_unit_and_the_container_start_the_server_with_options_that_exist() -> None:
    unit = (DEPLOY / "ochat.service").read_text().replace("\\\n", " ")
    container = (DEPLOY / "Containerfile").read_text()
    (unit_line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (entrypoint,), (more,) = (re.findall(rf"^{word} (\[.*\])$", container, re.MULTILINE) for word in ("ENTRYPOINT", "CMD"))
    commands = [shlex.split(unit_line), json.loads(entrypoint) + json.loads(more)]
    for command in commands:
        assert command[:3] == ["/srv/ochat/.venv/bin/python", "-m", "ochat.serving.openai_api_server"]
    done = subprocess.run(
        [sys.executable, "-c", READ_ARGUMENTS],
        input=json.dumps([command[3:] for command in commands]),
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    in_unit, in_container = json.loads(done.stdout.splitlines()[-1])
    assert (in_unit["model"], in_unit["host"], in_unit["shutdown_timeout"]) == ("/var/lib/ochat/model", "localhost", 30)
    for option in (
        "api_key_file",
        "usage_log",
        "log_file",
    ):  # in folders that the unit makes for its user, StateDirectory and LogsDirectory
        assert in_unit[option].startswith(("/var/lib/ochat/", "/var/log/ochat/"))
    given = (in_container["model"], in_container["host"], in_container["api_key_file"], in_container["port"])
    assert given == ("/model", "0.0.0.0", "/keys/keys.json", 18888)
