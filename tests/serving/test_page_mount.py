"""The chat page in the same process as the server, in a real browser."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import Server, environment, free_port, wait_until_ready
from playwright.sync_api import Locator, Page, expect

from ochat import cli
from ochat.conversation import read_conversations
from ochat.serving.page_mount import PageMount

ANSWERED_MS = 120_000  # a reply, beside other work


def answered_by(path: str, method: str = "GET", root_path: str = "", kind: str = "http") -> str:
    """Who answers a request: the page or the server."""
    import asyncio

    said: list[str] = []

    def who(name: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            said.append(name)

        return app

    mounted = PageMount(who("server"))
    assert mounted.page is not None  # the entry point is there
    mounted.page = who("page")
    asyncio.run(mounted({"type": kind, "path": path, "method": method, "root_path": root_path}, None, None))  # type: ignore[arg-type]
    return said[0]


@pytest.mark.parametrize(
    ("request_of", "expected"),
    [
        ({"path": "/"}, "page"),
        ({"path": "/", "method": "HEAD"}, "page"),
        ({"path": "/ui/app.js"}, "page"),
        ({"path": "/below/ui/app.js", "root_path": "/below"}, "page"),
        ({"path": "/", "method": "POST"}, "server"),
        ({"path": "/uix"}, "server"),
        ({"path": "/v1/models"}, "server"),
        ({"path": "/", "kind": "websocket"}, "server"),
    ],
)
def test_the_page_answers_for_its_own_paths_alone(request_of: dict[str, str], expected: str) -> None:
    assert answered_by(**request_of) == expected


def replies(page: Page) -> Locator:
    return page.locator("#messages .assistant")


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.keyboard.press("Enter")


def stop(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.locator("[aria-busy]")).to_have_count(0)


def set_most_tokens(page: Page, n: int) -> None:
    page.click("#open-settings")
    page.fill("#settings [name=max_tokens]", str(n))
    page.keyboard.press("Enter")


def enter(page: Page, url: str, key: str = "") -> None:
    """Open the page, and give the key that the server asks for: first a wrong one."""
    page.goto(url)
    for given in ("wrong", key) if key else ():
        page.fill("#key [name=key]", given)
        page.get_by_role("button", name="Use it").click()
        if given == "wrong":
            expect(page.locator("#key .problem")).not_to_be_empty()


def converse(page: Page, url: str, key: str = "") -> None:
    """First message, stop, regenerate, edit, against a server that answers anything."""
    enter(page, url, key)
    expect(page.get_by_label("Condition", exact=True)).to_have_value("GPT4 Correct")
    ask(page, "Tell me a long story.")
    expect(replies(page).locator(".body")).not_to_be_empty(timeout=ANSWERED_MS)
    stop(page)
    expect(replies(page).locator(".condition")).to_have_text("GPT4 Correct")
    set_most_tokens(page, 4)
    page.get_by_label("Condition", exact=True).select_option("Code")
    page.get_by_role("button", name="Regenerate").click()
    expect(replies(page).locator(".facts")).to_contain_text("4 tokens", timeout=ANSWERED_MS)
    expect(replies(page).locator(".condition")).to_have_text("Code")
    page.get_by_role("button", name="Edit and send again").click()
    page.locator(".editor textarea").fill("Say hello.")
    page.keyboard.press("ControlOrMeta+Enter")
    expect(page.locator(".user .versions")).to_have_text("2 / 2")
    # No rate: four tokens may reach a busy browser at once, and then there is none to tell.
    expect(replies(page).locator(".facts")).to_contain_text("first after", timeout=ANSWERED_MS)


def test_a_conversation_with_the_server_that_serves_the_page(page: Page, server: Server) -> None:
    converse(page, server.url, server.key)


def test_conditions_side_by_side_and_a_vote_import_as_two_classes(page: Page, server: Server, tmp_path: Path) -> None:
    enter(page, server.url, server.key)
    expect(page.get_by_label("Condition", exact=True)).to_have_value("GPT4 Correct")
    set_most_tokens(page, 4)
    page.click("#add-lane")
    page.get_by_label("Condition 2").select_option("GPT3")
    ask(page, "Hello")
    expect(page.locator(".columns .facts", has_text="4 tokens")).to_have_count(2, timeout=ANSWERED_MS)
    expect(page.locator(".columns .condition")).to_have_text(["GPT4 Correct", "GPT3"])
    page.get_by_role("button", name="Better").last.click()
    page.click("#export")
    page.check("#export-dialog [value=judged]")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the file").click()
    download.value.save_as(tmp_path / "votes.jsonl")
    cli.main(["data", "import", str(tmp_path / "votes.jsonl"), "--output", str(tmp_path / "rows.jsonl")])
    rows = [row for _, row in read_conversations(tmp_path / "rows.jsonl")]
    assert [(row.class_name, row.condition, row.items[-1].weight) for row in rows] == [
        ("rejected", "GPT3", 0.1),
        ("chosen", "GPT4 Correct", 1.0),
    ]


def test_what_the_model_sees_is_what_the_server_fed_it(page: Page, server: Server) -> None:
    enter(page, server.url, server.key)
    page.click("#open-settings")
    page.fill("#settings [name=system]", "Be brief. Ü😀")
    page.fill("#settings [name=max_tokens]", "3")
    page.keyboard.press("Enter")
    page.get_by_label("Condition", exact=True).select_option("Math Correct")
    for text in ("What is <|end_of_turn|>?", "And  1 + 1?\n\n"):
        with page.expect_request("**/v1/chat/completions") as asked:
            ask(page, text)
        expect(page.locator("[aria-busy]")).to_have_count(0, timeout=ANSWERED_MS)
    request = asked.value.post_data_json
    page.click("#open-settings")
    page.fill("#settings [name=system]", "Changed since.")
    page.get_by_role("button", name="Keep").click()
    replies(page).last.get_by_role("button", name="What the model saw").click()
    body = {**request, "stream": False, "stream_options": None, "return_token_ids": True}
    fed = server.post("/v1/chat/completions", **body).json()["prompt_token_ids"]
    expect(page.locator("#inspector .ids")).to_have_text(" ".join(map(str, fed)))
    text = server.post("/detokenize", model=request["model"], tokens=fed).json()["prompt"]
    shown = page.locator("#inspector .prompt").evaluate("(element) => element.textContent")
    assert shown.replace(" ", "") == text.replace(" ", "")  # SentencePiece tokens show a blank that decoding drops
    marks = page.locator("#inspector .control").all_text_contents()
    assert marks == ["<s>"] + ["<|end_of_turn|>"] * 4  # after system, both questions and the reply; not the one that was typed


@contextmanager
def serving(model: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ochat.serving.openai_api_server", "--model", str(model), "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(), start_new_session=True)
    try:
        wait_until_ready(process, f"http://localhost:{port}", log)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its engine, which would live on
        process.wait(60)


@pytest.mark.soak
def test_the_embedded_model_is_asked_killed_while_it_answers_and_asked_again(page: Page, tmp_path: Path) -> None:
    model, port = tmp_path / "base", free_port()
    cli.main(["model", "base", "--output", str(model)])
    with serving(model, port, tmp_path / "log"):
        converse(page, f"http://localhost:{port}/")
        set_most_tokens(page, 2000)
        ask(page, "Tell me a very long story.")
        expect(replies(page).last.locator(".body")).not_to_be_empty(timeout=ANSWERED_MS)
    expect(replies(page).last.locator(".problem")).to_contain_text("broke off")
    with serving(model, port, tmp_path / "log"):
        set_most_tokens(page, 4)
        replies(page).last.get_by_role("button", name="Try again").click()
        expect(replies(page).last.locator(".facts")).to_contain_text("4 tokens", timeout=ANSWERED_MS)
    rows = json.dumps(page.evaluate("indexedDB.databases()"))
    assert "ochat /" in rows
