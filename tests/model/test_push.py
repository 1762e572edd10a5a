"""A push against a small hub of our own, which keeps what it is sent."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from toys import tiny_model, toy_tokenizer

from ochat.registry import model_type
from ochat.training.checkpoint import save_checkpoint

TOKEN = "hf_thisIsNotToBeSeen"


class Hub(ThreadingHTTPServer):
    """Answers what the hub's client asks for a commit of small files, for the owner of the token alone."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def reply(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.reply({"id": "me/mine", "siblings": [], "sha": "0" * 40, "private": True})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply({"error": "no"}, 401)
        elif self.path == "/api/repos/create":
            self.server.repos.append(json.loads(sent))
            self.reply({"url": f"{self.server.url}/me/mine"})
        elif self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(sent)["files"]]
            self.reply({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply({"commitUrl": f"{self.server.url}/me/mine/commit/0", "commitOid": "0" * 40})
        else:  # validate-yaml of the model card
            self.reply({"errors": [], "warnings": []})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, kind = tmp_path_factory.mktemp("run"), model_type("openchat_smollm2")
    save_checkpoint(tiny_model(300), toy_tokenizer(folder / "tokenizer", kind), kind, folder / "final")
    (folder / "final" / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    (folder / "final" / "notes.txt").write_text("mine alone", encoding="utf-8")
    return folder / "final"


def push(*words: object, **environment: str) -> tuple[int, str]:
    """The exit status of `ochat model push` in its own process, and all that it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-m", "ochat.cli", "model", "push", *map(str, words)],
        env={**kept, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_checkpoint_is_uploaded_and_nothing_else(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    status, said = push(checkpoint, "--repo", "me/mine", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, HF_HOME=str(tmp_path))
    assert status == 0, said
    assert hub.files.keys() == {path.name for path in checkpoint.iterdir()} - {"notes.txt"}
    assert all(hub.files[name] == (checkpoint / name).read_bytes() for name in hub.files)
    assert hub.repos[0].get("private") is True or hub.repos[0].get("visibility") == "private"  # by the client's version
    assert "README.md, chat_template.jinja, config.json" in said
    assert "Left out: notes.txt" in said
    assert said.splitlines()[-1] == f"{hub.url}/me/mine"


def test_a_token_that_is_refused_is_told_in_one_line(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    status, said = push(checkpoint, "--repo", "me/mine", HF_ENDPOINT=hub.url, HF_TOKEN="hf_another", HF_HOME=str(tmp_path))
    assert status == 1
    assert said.splitlines()[-1].startswith("ochat: me/mine: the hub refused it with status 401. Run `hf auth login`")
    assert "hf_another" not in said
    assert "Traceback" not in said
    assert not hub.files


@pytest.mark.parametrize(
    ("environment", "words", "remedy"),
    [
        ({}, ["--repo", "me/mine"], "me/mine: there is no login for the hub here. Run `hf auth login`"),
        ({"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}, ["--repo", "me/mine"], "switched off by HF_HUB_OFFLINE. Unset it"),
        (
            {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "http://127.0.0.1:9"},
            ["--repo", "me/mine"],
            "http://127.0.0.1:9 can't be reached",
        ),
        ({"HF_TOKEN": TOKEN}, ["--repo", "me/mine/final"], "--repo me/mine/final is no repository's name. Give OWNER/NAME."),
    ],
)
def test_what_hinders_a_push_is_told_in_one_line(
    checkpoint: Path, tmp_path: Path, environment: dict[str, str], words: list[str], remedy: str
) -> None:
    status, said = push(checkpoint, *words, **{"HF_HOME": str(tmp_path), **environment})
    assert status == 1
    assert remedy in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    status, said = push(tmp_path, "--repo", "me/mine", HF_TOKEN=TOKEN)
    assert status == 1
    assert "is no checkpoint: it has no tokenizer.json, no chat_template.jinja, no weights (.safetensors)." in said
    assert "Uploading" not in said
