"""The terminal client as a person uses it, on a pseudo-terminal, and as a part of a pipe."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_server import KEY, Toy, toy_server

from ochat.client.connection import Answer
from ochat.client.reply import in_words, printable

COMMAND = [sys.executable, "-m", "ochat.cli", "chat"]
SECONDS = 60  # for what takes a second on a free machine


class Terminal:
    """A program on a pseudo-terminal of 80 columns."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.main, follower = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True
        )
        os.close(follower)

    def type(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def until(self, pattern: str) -> str:
        """Read until the screen's new text matches; returns it, and forgets what came up to there."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", self.seen)
            found = re.search(pattern, plain, re.DOTALL)
            if found:
                self.seen = ""
                return plain
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.main, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        raise AssertionError(f"{pattern!r} is not in {self.seen!r}")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    given = {**os.environ, "OPENAI_API_KEY": KEY, "XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    return {**given, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}


@pytest.fixture
def toy() -> Iterator[Toy]:
    with toy_server() as running:
        yield running


@pytest.fixture
def terminal(toy: Toy, environment: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal([*COMMAND, toy.url, "--temperature", "0"], environment)
    try:
        opened.until("you ›")
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.main)


def test_replies_stream_and_the_conversation_goes_on(terminal: Terminal, toy: Toy) -> None:
    terminal.type("Hello\r")
    assert "w0x0 w0x1 w0x2" in terminal.until("8 tokens.*you ›")
    terminal.type("one\x1b\rtwo\r")  # Alt-Enter
    terminal.until("8 tokens.*you ›")
    said = [message["content"] for message in toy.asked[-1]["messages"]]
    assert said == ["Hello", "w0x0 w0x1 w0x2 w0x3 w0x4 w0x5 w0x6 w0x7 ", "one\ntwo"]
    assert toy.asked[-1]["temperature"] == 0


def test_ctrl_c_ends_the_reply_and_not_the_program(terminal: Terminal, toy: Toy) -> None:
    terminal.type("/set max_tokens 4000\r")
    terminal.until("max_tokens: 4000.*you ›")
    terminal.type("Hello\r")
    terminal.until("w0x30")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until(r"\(stopped\).*you ›")
    terminal.type("/set max_tokens 2\r")
    terminal.until("max_tokens: 2.*you ›")
    terminal.type("on\r")
    terminal.until("2 tokens.*you ›")
    roles = [message["role"] for message in toy.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert toy.asked[-1]["messages"][1]["content"].startswith("w0x0 w0x1")
    terminal.type("\x04")
    assert terminal.process.wait(SECONDS) == 0


def test_conditions_are_listed_switched_and_held_side_by_side(terminal: Terminal, toy: Toy, tmp_path: Path) -> None:
    terminal.type("/condition\r")
    terminal.until("GPT4 Correct.*GPT3.*you ›")
    terminal.type("/condition GPT3\r")
    terminal.until("Condition: GPT3.*you ›")
    terminal.type("/side GPT4 Correct | GPT3\r")
    terminal.until("Side by side.*you ›")
    terminal.type("Hello\r")
    terminal.until("8 tokens.* 8 tokens.*you ›")
    assert {request["condition"] for request in toy.asked} == {"GPT4 Correct", "GPT3"}
    terminal.type(f"/save {tmp_path}/talk.jsonl\r")
    terminal.until("2 conversations added.*you ›")
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [row["condition"] for row in rows] == ["GPT4 Correct", "GPT3"]
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]


def test_errors_are_told_in_words_and_the_message_comes_back_to_be_mended(terminal: Terminal, toy: Toy) -> None:
    terminal.type("/conditoin GPT3\r")
    terminal.until("There's no /conditoin. Did you mean /condition.*you ›")
    terminal.type("/set top_p 7\r")
    terminal.until("top_p: 7.*you ›")
    terminal.type("Hello\r")
    terminal.until(r"refused the request \(400\): top_p is wrong.*you › Hello")
    assert not toy.asked
    terminal.type("\x03")
    terminal.type("/set top_p\r")
    terminal.until("default.*you ›")
    terminal.type("Hi\r")
    terminal.until("8 tokens.*you ›")
    assert [message["content"] for message in toy.asked[-1]["messages"]] == ["Hi"]


def test_what_was_typed_is_there_the_next_time_for_its_owner_alone(
    toy: Toy, environment: dict[str, str], tmp_path: Path
) -> None:
    for keys in ("remember me\r", "\x1b[A\r"):  # the second only presses the arrow up
        terminal = Terminal([*COMMAND, toy.url], environment)
        terminal.until("you ›")
        terminal.type(keys)
        terminal.until("8 tokens.*you ›")
        terminal.type("\x04")
        assert terminal.process.wait(SECONDS) == 0
        os.close(terminal.main)
    assert [request["messages"][0]["content"] for request in toy.asked] == ["remember me"] * 2
    assert stat.S_IMODE((tmp_path / "ochat" / "chat_history").stat().st_mode) == 0o600


def test_a_piped_message_gets_its_reply_and_nothing_else(toy: Toy, environment: dict[str, str]) -> None:
    command = [*COMMAND, toy.url, "--condition", "GPT3", "--max-tokens", "2"]
    done = subprocess.run(command, input="Hello\nworld", capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "w0x0 w0x1 \n"
    assert toy.asked[0]["condition"] == "GPT3"
    assert toy.asked[0]["messages"][0]["content"] == "Hello\nworld"
    wrong = subprocess.run(
        [*COMMAND, toy.url], input="x", capture_output=True, text=True, env={**environment, "OPENAI_API_KEY": "no"}
    )
    assert wrong.returncode == 1
    assert "The given key isn't one of its keys" in wrong.stderr


def test_a_reply_that_fails_when_it_has_begun_is_told_and_cannot_command_the_terminal(environment: dict[str, str]) -> None:
    with toy_server("fails") as toy:
        failed = subprocess.run([*COMMAND, toy.url], input="x", capture_output=True, text=True, env=environment)
    assert failed.returncode == 1
    assert "gone�[2J" in failed.stderr


# What rich would change, what a terminal would obey, and a line's end of Windows.
TRICKY = ("all:\n", "\tcc ", ":bug: [red]x[/red] ", "\x1b[31ma\x07 ", "b\r\n")


def test_a_piped_message_gets_its_reply_byte_for_byte_and_no_thoughts(environment: dict[str, str]) -> None:
    with toy_server(reply=TRICKY, thoughts=("let me ", "think")) as toy:
        command = [*COMMAND, toy.url]
        done = subprocess.run(
            command, input=b"Write a Makefile", capture_output=True, env={**environment, "FORCE_COLOR": "1"}, check=True
        )
    assert done.stdout == "".join(TRICKY).encode() + b"\n"
    assert done.stderr == b""


def test_a_terminal_shows_thoughts_apart_and_obeys_neither_them_nor_the_reply(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with toy_server(reply=TRICKY, thoughts=("let me ", "\x1b[2J:bug:")) as toy:
        terminal = Terminal([*COMMAND, toy.url], environment)
        terminal.until("you ›")
        terminal.type("Hello\r")
        shown = terminal.until("5 tokens.*you ›")
        assert "let me �[2J:bug:\n\nall:\n\tcc :bug: [red]x[/red] �[31ma� b�\n" in shown
        terminal.type("/side GPT4 Correct | GPT3\r")
        terminal.until("Side by side.*you ›")
        terminal.type("Hello\r")
        assert re.search(r":bug: .*�\[31ma� .*:bug: .*�\[31ma� .*\nb� .*b�", terminal.until("5 tokens.* 5 tokens.*you ›"))
        terminal.type(f"/save {tmp_path}/talk.jsonl\r")
        terminal.until("2 conversations added.*you ›")
        terminal.type("\x04")
        assert terminal.process.wait(SECONDS) == 0
        os.close(terminal.main)
    # What is kept, and sent with the next message, is what the model said.
    saved = [json.loads(line)["messages"][-1]["content"] for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert saved == ["".join(TRICKY)] * 2


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (401, {}, "The server refused the key: why Put one of its keys into OPENAI_API_KEY"),
        (404, {}, "/model lists what is served"),
        (429, {"retry-after": "7"}, "Try again in 7 s: /retry"),
        (503, {}, "busy or stopping: why"),
        (500, {}, r"The server failed \(500\): why"),
        (400, {}, r"The server refused the request \(400\): why"),
    ],
)
def test_a_refusal_is_told_in_words(status: int, headers: dict[str, str], told: str) -> None:
    assert re.search(told, in_words(Answer(status, headers, b'{"error": {"message": "why"}}')))


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert printable("a\x1b]0;title\x07b\x9bc\n\td") == "a�]0;title�b�c\n\td"
