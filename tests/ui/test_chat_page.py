"""The page in a browser, before a server that says what it's told to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect
from scripted_server import TOO_LONG, ScriptedServer, serving
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ochat import cli
from ochat.conversation import read_conversations
from ochat.ui.proxy import make_app

Scripted = tuple[ScriptedServer, str]


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.keyboard.press("Enter")


def replies(page: Page) -> Locator:
    return page.locator("#messages .assistant")


def finished(page: Page, n_replies: int) -> None:
    expect(replies(page)).to_have_count(n_replies)
    expect(page.locator("[aria-busy]")).to_have_count(0)


def button(place: Page | Locator, name: str) -> Locator:
    return place.get_by_role("button", name=name, exact=True)


def exported(page: Page, kind: str, folder: Path, of: str = "this") -> list[dict[str, object]]:
    page.click("#export")
    page.check(f"#export-dialog [value={of}]")
    page.check(f"#export-dialog [value={kind}]")
    with page.expect_download() as download:
        button(page, "Save the file").click()
    file = folder / f"{kind}.jsonl"
    download.value.save_as(file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def opened(page: Page, scripted: Scripted) -> Page:
    page.goto(scripted[1])
    expect(page.locator("#prompt")).to_be_focused()
    return page


def test_a_first_message_is_answered_with_markdown_code_and_tex(opened: Page, scripted: Scripted) -> None:
    ask(opened, "say **Bold** $x^2$\n\n```python\nx = 1  # one\n```")
    finished(opened, 1)
    reply = replies(opened)
    expect(reply.locator("strong")).to_have_text("Bold")
    expect(reply.locator("math msup")).to_have_count(1)
    expect(reply.locator("pre .c-comment")).to_have_text("# one")
    expect(reply.locator(".facts")).to_contain_text(re.compile(r"4 tokens · prompt 5 · first after \d+\.\d\d s"))
    assert "condition" not in scripted[0].asked[-1]  # the server didn't say that it knows any


def test_a_reply_can_be_stopped_and_what_came_is_kept(opened: Page, scripted: Scripted) -> None:
    ask(opened, "forever")
    expect(replies(opened)).to_contain_text("word word")
    opened.keyboard.press("Escape")
    finished(opened, 1)
    expect(replies(opened).locator(".facts")).to_contain_text("stopped")
    opened.reload()
    opened.click("#conversations .open")
    expect(replies(opened)).to_contain_text("word word")
    ask(opened, "forever")
    button(opened, "Stop").click()
    finished(opened, 2)


def test_regenerated_and_edited_versions_stand_beside_the_first(opened: Page, scripted: Scripted) -> None:
    ask(opened, "say first")
    finished(opened, 1)
    button(opened, "Regenerate").click()
    expect(opened.locator(".versions")).to_contain_text("2 / 2")
    finished(opened, 1)
    button(opened, "Edit and send again").click()
    opened.keyboard.press("ControlOrMeta+a")
    opened.keyboard.type("say second")
    opened.keyboard.press("ControlOrMeta+Enter")
    expect(replies(opened)).to_contain_text("second")
    finished(opened, 1)
    assert [one["content"] for one in scripted[0].asked[-1]["messages"]] == ["say second"]
    button(opened.locator(".user"), "Earlier version").click()
    expect(replies(opened)).to_contain_text("first")
    expect(replies(opened).locator(".versions")).to_contain_text("2 / 2")


def test_an_edited_answer_and_a_vote_export_as_classes(opened: Page, tmp_path: Path) -> None:
    ask(opened, "say the capital is Lyon")
    finished(opened, 1)
    button(opened, "Edit the reply").click()
    opened.locator(".editor textarea").fill("The capital is Paris.")
    button(opened, "Keep").click()
    expect(replies(opened)).to_contain_text("Paris")
    ask(opened, "say nonsense")
    finished(opened, 2)
    button(replies(opened).last, "Poor reply").click()
    expect(button(replies(opened).last, "Poor reply")).to_have_attribute("aria-pressed", "true")
    rows = exported(opened, "judged", tmp_path)
    assert [(row["class"], row["items"][-1]["content"]) for row in rows] == [  # type: ignore[index]
        ("rejected", "the capital is Lyon"),
        ("chosen", "The capital is Paris."),
        ("rejected", "nonsense"),
    ]


def test_models_side_by_side_stream_together_and_a_vote_imports_as_two_classes(
    opened: Page, scripted: Scripted, tmp_path: Path
) -> None:
    button(opened, "Side by side").click()
    expect(opened.get_by_label("Model 2")).to_have_value("two")
    ask(opened, "forever")
    for one in (0, 1):
        expect(opened.locator(".columns .assistant").nth(one)).to_contain_text("word word")
    assert {body["model"] for body in scripted[0].asked[-2:]} == {"one", "two"}
    opened.keyboard.press("Escape")
    finished(opened, 2)
    opened.locator(".together").evaluate("(section) => (section.isTheSame = true)")
    button(opened, "Rename forever").click()
    opened.fill("#question input", "Both")
    opened.keyboard.press("Enter")
    expect(opened.locator("#title")).to_have_text("Both")
    assert opened.locator(".together").evaluate("(section) => section.isTheSame")  # what didn't change isn't made anew
    button(opened.locator(".columns .assistant").nth(1), "Better").press("Enter")
    expect(opened.locator(".columns .assistant").nth(1)).to_have_class(re.compile("selected"))
    expect(button(opened.locator(".columns .assistant").nth(1), "Better")).to_be_focused()
    opened.reload()  # the vote is kept
    opened.click("#conversations .open")
    expect(button(opened.locator(".columns .assistant").nth(1), "Better")).to_have_attribute("aria-pressed", "true")
    exported(opened, "judged", tmp_path)
    cli.main(["data", "import", str(tmp_path / "judged.jsonl"), "--output", str(tmp_path / "rows.jsonl")])
    assert [row.class_name for _, row in read_conversations(tmp_path / "rows.jsonl")] == ["rejected", "chosen"]
    ask(opened, "say on")  # goes on after the better one
    expect(opened.locator("#path > .together")).to_have_count(2)
    finished(opened, 4)
    assert scripted[0].asked[-1]["messages"][1]["content"].startswith("word")


@pytest.mark.parametrize(
    ("order", "title", "detail"),
    [
        ("status 503", "The server's queue is full, or it is starting or stopping.", "as told"),
        ("status 429 One key, 2 at once.", "Too many requests for this key. It asks to wait 7 s.", "2 at once"),
        (f"status 400 {TOO_LONG}", "The conversation is too long for the model.", TOO_LONG),
        ("break off", "The connection broke off before the reply was complete.", ""),
        ("raw <b>a</b>", "The server's answer isn't that of a server with OpenAI's API.", "Is its address right?"),
    ],
)
def test_an_error_is_told_and_can_be_tried_again(opened: Page, scripted: Scripted, order: str, title: str, detail: str) -> None:
    ask(opened, order)
    problem = opened.locator(".assistant .problem")
    expect(problem.locator("strong")).to_have_text(title)
    expect(problem).to_contain_text(detail)
    n_asked = len(scripted[0].asked)
    button(problem, "Try again").click()
    finished(opened, 1)
    expect(problem.locator("strong")).to_have_text(title)
    assert len(scripted[0].asked) == n_asked + 1


def test_a_stream_whose_last_line_has_no_end_is_complete(opened: Page) -> None:
    ask(opened, 'raw data: {"choices": [{"delta": {"content": "hello"}}]}\n\ndata: [DONE]')
    finished(opened, 1)
    expect(replies(opened).locator(".body")).to_have_text("hello")
    expect(opened.locator(".assistant .problem")).to_have_count(0)


@pytest.fixture(scope="module")
def with_key() -> Iterator[Scripted]:
    server = ScriptedServer(key="sesame")
    with serving(server.app()) as url, serving(make_app(f"{url}/v1")) as page_url:
        yield server, page_url


def test_a_key_is_asked_for_until_it_is_right_and_kept_for_the_session_only(page: Page, with_key: Scripted) -> None:
    page.goto(with_key[1])
    for given in ("wrong", "sesame"):
        expect(page.locator("#key")).to_be_visible()
        page.fill("#key input", given)
        page.keyboard.press("Enter")
        if given == "wrong":
            expect(page.locator("#key .problem")).to_have_text("This key isn't right. no such key")
    expect(page.locator("#key")).to_be_hidden()
    ask(page, "say hello")
    finished(page, 1)
    expect(replies(page)).to_contain_text("hello")
    assert page.evaluate("JSON.stringify(localStorage).includes('sesame')") is False
    assert page.evaluate("JSON.stringify(sessionStorage).includes('sesame')") is True
    with page.context.expect_page() as other:
        page.evaluate("window.open(location.href, '_blank', 'noopener')")
    expect(other.value.locator("#key")).to_be_visible()


def test_a_key_can_be_changed_and_forgotten_without_leaving_the_page(page: Page, with_key: Scripted) -> None:
    server, url = with_key
    page.goto(url)
    expect(button(page, "The server's key")).to_be_hidden()  # there is none yet
    expect(button(page.locator("#key"), "Forget it")).to_be_hidden()
    page.fill("#key input", "sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#add-lane")).to_be_visible()
    server.key = "barley"  # another key from now on
    try:
        button(page, "The server's key").click()
        page.fill("#key input", "barley")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_hidden()
        ask(page, "say hello")
        finished(page, 1)
        expect(replies(page).locator(".body")).to_have_text("hello")
        button(page, "The server's key").click()
        page.keyboard.press("Escape")  # leaves it as it is
        button(page, "The server's key").click()
        button(page.locator("#key"), "Forget it").click()
        expect(page.locator("#key-title")).to_have_text("This server wants a key")  # asked anew, without one
        button(page.locator("#key"), "Cancel").click()
        expect(button(page, "The server's key")).to_be_hidden()
        assert page.evaluate("JSON.stringify(sessionStorage).includes('barley')") is False
    finally:
        server.key = "sesame"


def test_all_replies_that_waited_for_the_key_are_made_once_it_is_there(page: Page, with_key: Scripted) -> None:
    server, url = with_key
    page.goto(url)
    page.fill("#key input", "sesame")
    page.keyboard.press("Enter")
    button(page, "Side by side").click()
    server.key = "barley"
    try:
        ask(page, "say hello")
        expect(page.locator("#key .problem")).to_have_text("This key isn't right. no such key")
        page.fill("#key input", "barley")
        page.keyboard.press("Enter")
        expect(replies(page).locator(".body")).to_have_text(["hello", "hello"])
    finally:
        server.key = "sesame"


def test_a_message_sent_before_the_key_is_answered_once_it_is_there(page: Page, with_key: Scripted) -> None:
    page.goto(with_key[1])
    button(page.locator("#key"), "Cancel").click()
    ask(page, "say hello")
    expect(page.locator("#key")).to_be_visible()
    page.fill("#key input", "sesame")
    page.keyboard.press("Enter")
    finished(page, 1)
    expect(replies(page).locator(".body")).to_have_text("hello")


def test_a_server_that_went_and_came_back_loses_nothing(page: Page) -> None:
    server = ScriptedServer()
    with serving(server.app()) as url:
        port = int(url.rpartition(":")[2])
        with serving(make_app(f"{url}/v1")) as page_url:
            page.goto(page_url)
            ask(page, "forever")
            expect(replies(page)).to_contain_text("word word")
            page.evaluate("window.stays = true")
            server.stop.set()
            expect(page.locator(".assistant .problem")).to_contain_text("broke off")
            expect(replies(page)).to_contain_text("word word")
    with serving(make_app(f"http://localhost:{port}/v1"), port=int(page_url.rpartition(":")[2])):
        button(page, "Try again").click()
        expect(page.locator(".assistant .problem")).to_contain_text("can't be reached")
        with serving(ScriptedServer().app(), port=port):
            button(page.locator(".user"), "Edit and send again").click()
            page.locator(".editor textarea").fill("say back again")
            button(page.locator(".editor"), "Send").click()
            expect(replies(page)).to_contain_text("back again")
            assert page.evaluate("window.stays")


def test_two_tabs_of_one_conversation_lose_nothing(opened: Page, context: BrowserContext, scripted: Scripted) -> None:
    ask(opened, "say one")
    finished(opened, 1)
    other = context.new_page()
    other.goto(scripted[1])
    other.click("#conversations .open")
    expect(replies(other)).to_have_text(re.compile("one"))
    ask(other, "say from the other")
    finished(other, 2)
    expect(replies(opened)).to_have_count(2)  # it follows
    ask(opened, "forever")
    expect(replies(other).nth(2)).to_contain_text("word")
    ask(other, "say meanwhile")  # while the first is streaming
    expect(replies(other).nth(3)).to_contain_text("meanwhile")
    opened.keyboard.press("Escape")
    finished(opened, 4)
    other.reload()
    other.click("#conversations .open")
    for n, text in enumerate(["one", "from the other", "word", "meanwhile"]):
        expect(replies(other).nth(n)).to_contain_text(text)
    opened_title = opened.locator("#conversations .open")
    opened.bring_to_front()  # a tab behind another has a frame a second, and a click waits for some
    button(opened, "Rename say one").click()
    opened.fill("#question input", "A new name")
    opened.keyboard.press("Enter")
    expect(opened_title).to_have_text("A new name")
    expect(other.locator("#conversations .open")).to_have_text("A new name")
    button(other.locator(".user").first, "Edit and send again").click()
    other.locator(".editor textarea").fill("half typed")
    button(opened.locator(".user").first, "Edit and send again").click()
    opened.locator(".editor textarea").fill("say another version")
    button(opened, "Send").first.click()
    expect(other.locator(".user .versions")).to_have_text("1 / 2")
    expect(other.locator(".editor textarea")).to_have_value("half typed")
    button(opened, "Delete A new name").click()
    button(opened.locator("#question"), "Delete").click()
    expect(other.locator("#notice")).to_contain_text("deleted in another tab")
    expect(other.locator("#conversations li")).to_have_count(0)


def test_export_and_import_bring_a_conversation_back(opened: Page, tmp_path: Path) -> None:
    opened.click("#open-settings")
    opened.fill("#settings [name=system]", "Be brief.")
    opened.fill("#settings [name=temperature]", "3")
    button(opened.locator("#settings"), "Keep").click()
    expect(opened.locator("#settings .problem")).to_contain_text("temperature is 3. Give a number from 0 to 2")
    opened.fill("#settings [name=temperature]", "0.5")
    opened.keyboard.press("Enter")
    ask(opened, "say one")
    finished(opened, 1)
    said = [{"role": "user", "content": "say one"}, {"role": "assistant", "content": "one"}]
    ours = exported(opened, "ours", tmp_path)
    assert ours == [{"items": said, "system": "Be brief."}]
    assert exported(opened, "openai", tmp_path, of="all") == [{"messages": [{"role": "system", "content": "Be brief."}, *said]}]
    for name in ("ours", "openai"):
        opened.set_input_files("#file", tmp_path / f"{name}.jsonl")
        expect(opened.locator("#conversations li")).to_have_count(2 if name == "ours" else 3)
        assert exported(opened, "ours", tmp_path) == ours
    (tmp_path / "latin.jsonl").write_bytes('{"messages": [{"role": "user", "content": "é"}]}'.encode("latin-1"))
    opened.set_input_files("#file", tmp_path / "latin.jsonl")
    expect(opened.locator("#notice")).to_contain_text("latin.jsonl can't be imported. It isn't UTF-8 text.")
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n{"a": 1}\n', encoding="utf-8")
    opened.set_input_files("#file", tmp_path / "bad.jsonl")
    expect(opened.locator("#notice")).to_contain_text("bad.jsonl can't be imported. Line 2 has neither")
    expect(opened.locator("#conversations li")).to_have_count(3)


def test_many_conversations_are_imported_at_once(opened: Page, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "assistant", "content": f"a{n}"}, {"role": "user", "content": f"q{n}"}]} for n in range(300)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    opened.set_input_files("#file", tmp_path / "many.jsonl")
    expect(opened.locator("#conversations li")).to_have_count(300)
    expect(opened.locator("#conversations .current .open")).to_have_text(f"q{299}")
    expect(button(opened, "Regenerate")).to_have_count(0)  # nothing was asked for the reply that stands first
    opened.reload()
    expect(opened.locator("#conversations li")).to_have_count(300)


def test_what_waits_for_the_end_of_a_reply_is_told_and_a_deleted_one_is_stopped(opened: Page) -> None:
    ask(opened, "say idle")
    finished(opened, 1)
    opened.click("#new")
    ask(opened, "forever")
    button(opened, "Delete say idle").click()
    button(opened.locator("#question"), "Delete").click()
    expect(opened.locator("#conversations li")).to_have_count(1)
    expect(button(opened, "Stop")).to_be_visible()
    expect(replies(opened)).to_contain_text("word")
    button(opened, "Edit and send again").click()
    button(opened.locator(".editor"), "Send").click()
    expect(opened.locator("#notice")).to_contain_text("A reply is still coming. Stop it first (Esc)")
    opened.click("#new")
    expect(replies(opened)).to_have_count(0)
    with opened.expect_event("requestfailed"):
        button(opened, "Delete forever").click()
        button(opened.locator("#question"), "Delete").click()
    expect(opened.locator("#conversations li")).to_have_count(0)


BROKEN = """async () => {
  const opening = indexedDB.open("ochat /", 1);
  await new Promise((resolve) => (opening.onsuccess = resolve));
  const change = opening.result.transaction(["conversations", "messages"], "readwrite");
  change.objectStore("conversations").put({ id: "x" });
  change.objectStore("conversations").put({ id: "y", title: { toString: 1 }, lanes: 5, settings: 7, leaf: "a", updated: "z" });
  change.objectStore("messages").put({ id: "a", conversation: "y", parent: "b", role: "user", content: "a circle" });
  change.objectStore("messages").put({ id: "b", conversation: "y", parent: "a", role: "assistant", content: "of two" });
  await new Promise((resolve) => (change.oncomplete = resolve));
  opening.result.close();
  localStorage.setItem("ochat / like", '{"lanes": [null, 5], "settings": "abc"}');
}"""


def test_what_somebody_broke_in_the_browsers_storage_breaks_no_page(opened: Page) -> None:
    opened.evaluate(BROKEN)
    opened.reload()
    expect(opened.locator("#conversations li")).to_have_count(2)
    opened.locator("#conversations .open").first.click()
    opened.locator("#conversations .open").last.click()
    opened.click("#new")
    ask(opened, "say fine")
    finished(opened, 1)
    expect(replies(opened).locator(".body")).to_have_text("fine")


def test_a_browser_that_keeps_nothing_still_chats(page: Page, scripted: Scripted) -> None:
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    page.goto(scripted[1])
    page.click("#add-lane")
    expect(page.locator(".lane")).to_have_count(2)
    ask(page, "say one")
    finished(page, 2)
    page.add_init_script("Storage.prototype.getItem = () => '{not JSON'")
    page.reload()
    expect(page.locator("#add-lane")).to_be_visible()
    page.add_init_script(
        "for (const n of ['localStorage', 'sessionStorage']) Object.defineProperty(window, n, {get() { throw n; }})"
    )
    page.reload()
    ask(page, "say one")
    finished(page, 1)


def test_a_browser_without_a_database_says_so(page: Page, scripted: Scripted) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'indexedDB', { get() { throw new DOMException('off', 'SecurityError'); } })"
    )
    page.goto(scripted[1])
    expect(page.locator("#notice")).to_contain_text("This browser keeps no conversations for this page (off).")
    ask(page, "say one")
    finished(page, 1)
    page.click("#new")
    ask(page, "say two")
    finished(page, 1)
    page.locator("#conversations .open").last.click()  # this tab has it
    expect(replies(page).locator(".body")).to_have_text("one")


def test_a_failure_that_nobody_foresaw_is_told_and_stays(page: Page, scripted: Scripted) -> None:
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    with page.expect_request("**/v1/models"):
        page.goto(scripted[1])
    what = "{ promise: Promise.resolve(), reason: new Error('no more') }"
    page.evaluate(f"dispatchEvent(new PromiseRejectionEvent('unhandledrejection', {what}))")
    told = "The page failed at this (no more). Reload it if that happens again."
    expect(page.locator("#notice")).to_contain_text(told)
    held[0].continue_()
    expect(page.locator(".lane option")).to_have_count(2)
    expect(page.locator("#notice")).to_contain_text(told)


def test_an_address_of_something_else_is_told(page: Page) -> None:
    async def website(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("<h1>Welcome</h1>", media_type="text/html")(scope, receive, send)

    app: ASGIApp = website
    with serving(app) as url, serving(make_app(url)) as page_url:
        page.goto(page_url)
        expect(page.locator("#notice")).to_contain_text("The server's answer isn't that of a server with OpenAI's API.")
        expect(button(page.locator("#notice"), "Try again")).to_be_visible()


def test_a_key_that_no_request_can_carry_is_refused(page: Page, with_key: Scripted) -> None:
    page.goto(with_key[1])
    page.fill("#key input", "sesamé")
    page.keyboard.press("Enter")
    expect(page.locator("#key .problem")).to_contain_text("A key has letters, digits and signs of ASCII alone.")


def test_text_that_runs_from_the_right_is_shown_so(opened: Page) -> None:
    opened.locator("#prompt").press_sequentially("مرحبا say")
    expect(opened.locator("#prompt")).to_have_attribute("dir", "rtl")
    ask(opened, "say أنا بخير\n\n```python\nx = 1\n```")
    finished(opened, 1)
    ways = (
        replies(opened)
        .locator(".body, .body p, .body pre")
        .evaluate_all("(all) => all.map((e) => getComputedStyle(e).direction)")
    )
    assert ways == ["rtl", "rtl", "ltr"]
    expect(opened.locator("#prompt")).to_have_attribute("dir", "ltr")
    ask(opened, "say Hello\n\nأنا بخير\n\n- أنا")  # each block by its own
    finished(opened, 2)
    ways = replies(opened).last.locator(".body > *").evaluate_all("(all) => all.map((e) => getComputedStyle(e).direction)")
    assert ways == ["ltr", "rtl", "rtl"]


MARKER = "window.marker=1"
ATTACKS = [
    f"<script>{MARKER}</script>",
    f"<img src=x onerror={MARKER}>",
    f"<svg onload={MARKER}>",
    f"<svg><script>{MARKER}</script></svg>",
    f"<iframe srcdoc='<script>parent.{MARKER}</script>'></iframe>",
    f"[a](javascript:{MARKER})",
    f"[a](JaVaScRiPt&colon;{MARKER})",
    f"[a](data:text/html,<script>{MARKER}</script>)",
    f'![a](x" onerror="{MARKER})',
    "![a](https://evil.example/x.png)",
    f"<javascript:{MARKER}>",
    f'[a](https://x.y" onmouseover="{MARKER})',
    f"```html\n<script>{MARKER}</script>\n```",
    f'```"onmouseover={MARKER}\nx\n```',
    f"$\\text{{<img src=x onerror={MARKER}>}}$",
    f"$\\href{{javascript:{MARKER}}}{{a}} \\style{{x}}{{<script>{MARKER}</script>}}$",
    f'$$\\begin{{x" onclick="{MARKER}}}$$',
    f"| <img src=x onerror={MARKER}> | b |\n|--|--|\n| <details open ontoggle={MARKER}> | x |",
    f"'\"></textarea></title><script>{MARKER}</script>",
    f"<math><mtext><style><img src=x onerror={MARKER}></style></mtext></math>",
    f"</pre></code><form action=javascript:{MARKER}><button autofocus>",
    f"<a href=javascript:{MARKER}>click</a><base href=https://evil.example/>",
    f"<svg><animate onbegin={MARKER} attributeName=x dur=1s><a xlink:href=javascript:{MARKER}>x",
    f"[x](&#106;avascript:{MARKER}) [x](//evil.example) [x](file:///etc/passwd) [x](blob:http://a)",
    f"<a id=messages name=path>x</a><form id=composer><input name=elements><template><script>{MARKER}</script>",
    f"<link rel=stylesheet href=https://evil.example/x.css><meta http-equiv=refresh content=0;url=javascript:{MARKER}>",
    "{{constructor.constructor('window.marker=1')()}} ${window.marker=1} __proto__ constructor",
]


def test_nothing_that_is_written_runs(opened: Page, scripted: Scripted, tmp_path: Path) -> None:
    for n, attack in enumerate(ATTACKS, start=1):  # in prompts, and in replies as they stream
        ask(opened, f"say {attack}")
        finished(opened, n)
    button(replies(opened).last, "Edit the reply").click()
    opened.locator(".editor textarea").fill("\n\n".join(ATTACKS))
    button(opened, "Keep").click()
    rows = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": one}], "condition": one}
        for one in ATTACKS
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    opened.set_input_files("#file", tmp_path / "x.jsonl")
    expect(opened.locator("#conversations li")).to_have_count(len(ATTACKS) + 1)  # as titles
    foreign = "#messages :is(script, img, iframe, base, link, meta, object, embed, style, form, [onerror], [onclick], [onload])"
    for place in opened.locator("#conversations .open").all():
        place.click()
        expect(opened.locator("#conversations .current .open")).to_have_text(place.text_content() or "")
        expect(opened.locator(foreign)).to_have_count(0)
        links = opened.locator("#messages a").evaluate_all("(links) => links.map((link) => link.protocol)")
        assert set(links) <= {"http:", "https:", "mailto:"}
    assert opened.evaluate("window.marker") is None


def test_nothing_that_a_server_says_runs(page: Page) -> None:
    hostile = ScriptedServer(models=[*ATTACKS, 5, None, {"toString": 1}], conditions=ATTACKS)
    with serving(hostile.app()) as url, serving(make_app(f"{url}/v1")) as page_url:
        page.goto(page_url)
        expect(page.get_by_label("Model", exact=True).locator("option")).to_have_count(len(ATTACKS))
        page.get_by_label("Condition", exact=True).select_option(ATTACKS[1])
        ask(page, "say hello")
        finished(page, 1)
        expect(replies(page).locator(".condition")).to_have_text(ATTACKS[1])
        for n, attack in enumerate(ATTACKS):
            ask(page, f"{('raw', 'status 429', 'status 500')[n % 3]} {attack}")
            finished(page, n + 2)
            expect(page.locator("#messages .problem")).to_have_count(n + 1)
        ask(page, f"status 401 {ATTACKS[1]}")
        expect(page.locator("#key")).to_be_visible()
        page.fill("#key input", "sesame")  # no better: the server's words stand in the dialog
        page.keyboard.press("Enter")
        expect(page.locator("#key .problem")).to_have_text(f"This key isn't right. {ATTACKS[1]}")
        assert page.evaluate("window.marker") is None


def check_access(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_with_other_eyes_and_hands_can_use_it(opened: Page, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of two words
    check_access(opened)
    button(opened, "Side by side").click()
    ask(
        opened,
        "say # A\n\n**b** `c` [d](https://e.example/)\n\n```python\ndef f(x):  # note\n    return 'a', 1\n```\n\n|a|\n|-|\n\n> q",
    )
    finished(opened, 2)
    button(opened.locator(".columns .assistant").nth(0), "Better").click()
    button(opened, "Leave out reply 2").click()
    ask(opened, "status 503")
    expect(opened.locator(".assistant .problem")).to_have_count(1)
    check_access(opened)
    opened.click("#inspect")
    expect(opened.locator("#inspector .problem")).to_contain_text("This server doesn't tell what its model sees.")
    for opener in ("#open-settings", "#export"):
        opened.click(opener)
        check_access(opened)
        opened.keyboard.press("Escape")


def test_on_a_phone_all_is_in_reach_and_nothing_wider_than_it(opened: Page) -> None:
    opened.set_viewport_size({"width": 360, "height": 640})
    ask(opened, f"say {'long' * 200}\n\n```\n{'code ' * 100}\n```\n\n|{'wide |' * 30}\n|{'-|' * 30}\n\n$$ {'x + ' * 100} y $$")
    finished(opened, 1)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.evaluate("document.getElementById('messages').scrollWidth") <= 360
    heads = replies(opened).locator("th").evaluate_all("(cells) => cells.map((cell) => cell.getClientRects()[0].height)")
    assert max(heads) < 40  # a table that is too wide scrolls, and breaks no word
    expect(opened.locator("#sidebar")).to_be_hidden()
    button(opened, "Conversations").click()
    expect(opened.locator("#conversations .open")).to_be_visible()
    check_access(opened)
    button(opened, "New conversation").click()
    expect(opened.locator("#sidebar")).to_be_hidden()
    opened.click("#inspect")
    expect(opened.locator("#inspector")).to_be_visible()


def test_the_keyboard_alone_is_enough(opened: Page) -> None:
    opened.keyboard.type("say one")
    opened.keyboard.press("Shift+Enter")
    opened.keyboard.type("two")
    opened.keyboard.press("Enter")
    finished(opened, 1)
    expect(replies(opened).locator(".body")).to_have_text("one\ntwo", use_inner_text=True)
    expect(opened.locator("#prompt")).to_be_focused()
    seen = []
    for _ in range(40):
        opened.keyboard.press("Shift+Tab")
        seen.append(opened.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
    for name in (
        "Regenerate",
        "Edit and send again",
        "Good reply",
        "What the model sees",
        "Settings",
        "Light or dark",
        "Export…",
    ):
        assert name in seen
    assert any(name.startswith("Rename") for name in seen)
    button(opened, "Poor reply").focus()
    opened.keyboard.press("Enter")
    expect(button(opened, "Poor reply")).to_have_attribute("aria-pressed", "true")
    expect(button(opened, "Poor reply")).to_be_focused()
    button(opened, "Edit the reply").focus()
    opened.keyboard.press("Enter")
    expect(opened.locator(".editor textarea")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator(".assistant footer button").first).to_be_focused()
    opened.get_by_label("Model", exact=True).select_option("two")
    expect(opened.get_by_label("Model", exact=True)).to_be_focused()
    button(opened, "Side by side").press("Enter")
    expect(opened.get_by_label("Model 2")).to_be_focused()
    button(opened, "Leave out reply 2").press("Enter")
    expect(button(opened, "Side by side")).to_be_focused()
    button(opened, "Light or dark").focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.documentElement.dataset.theme") == "dark"
    opened.reload()
    assert opened.evaluate("document.documentElement.dataset.theme") == "dark"


def test_it_works_below_any_path_of_a_proxy(page: Page, scripted: Scripted) -> None:
    _, url = scripted
    app = make_app(f"{url}/v1")

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith("/deep/chat/"), scope["path"]
            scope = {**scope, "path": scope["path"].removeprefix("/deep/chat")}
        await app(scope, receive, send)

    proxied: ASGIApp = below
    with serving(proxied) as outer:
        page.goto(f"{outer}/deep/chat/")
        ask(page, "say hello")
        finished(page, 1)
        expect(replies(page)).to_contain_text("hello")


def test_three_hundred_messages_open_and_grow(opened: Page, tmp_path: Path) -> None:
    said = [{"role": ("user", "assistant")[i % 2], "content": f"**{i}** " + "text " * 80} for i in range(300)]
    (tmp_path / "long.jsonl").write_text(json.dumps({"messages": said}), encoding="utf-8")
    opened.set_input_files("#file", tmp_path / "long.jsonl")
    expect(opened.locator("#messages .message")).to_have_count(300)
    expect(opened.locator("#messages .message").last).to_be_in_viewport()
    ask(opened, "say more")
    finished(opened, 151)
