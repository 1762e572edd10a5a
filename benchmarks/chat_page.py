"""How fast the chat page is: first paint, and from a key press to its paint below a conversation of 300 messages.

    python benchmarks/chat_page.py --url http://localhost:18888/
    python benchmarks/chat_page.py --url http://localhost:18888/ --screenshot docs/images/chat-page.png

It opens the page of a server that runs, in Debian's Chromium. `--screenshot` takes the picture of the documents instead: the quickstart's model, asked under both
of its conditions. Figures are of this machine and browser."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

TIME_KEYS = """() => {
  window.paints = [];
  document.getElementById("prompt").addEventListener("keydown", (event) => requestAnimationFrame(() => {
    const after = new MessageChannel();  // its message comes after the frame is painted
    after.port1.onmessage = () => window.paints.push(performance.now() - event.timeStamp);
    after.port2.postMessage(null);
  }));
}"""
PROMPT = "Elena ordered tea, Leo ordered walnuts, Ivan ordered rice and Zora ordered lemons. What did Ivan order?"


def first_paint(browser: Browser, url: str) -> float:
    """Milliseconds from the request to the first text, in a browser without a cache."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#path .welcome")
        return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def key_paints(browser: Browser, url: str, n_messages: int, n_keys: int) -> tuple[list[float], float]:
    """Milliseconds from each key press to its paint, and to show the conversation."""
    said = [{"role": ("user", "assistant")[i % 2], "content": _text(i)} for i in range(n_messages)]
    with browser.new_context() as context, tempfile.TemporaryDirectory() as folder:
        page = context.new_page()
        page.goto(url)
        file = Path(folder) / "long.jsonl"
        file.write_text(json.dumps({"messages": said}), encoding="utf-8")
        started = page.evaluate("performance.now()")
        page.set_input_files("#file", file)
        page.wait_for_selector(f"#path > :nth-child({n_messages})", state="attached")
        shown = page.evaluate("performance.now()") - started
        page.evaluate(TIME_KEYS)
        page.focus("#prompt")
        page.keyboard.type(("the quick brown fox " * n_keys)[:n_keys], delay=60)
        page.wait_for_timeout(200)
        return list(page.evaluate("window.paints")), float(shown)


def _text(number: int) -> str:
    return (
        f"**Message {number}** with `code`, $x_{{{number}}}^2$ and a list:\n\n- one\n- two\n\n```python\nx = {number}  # note\n```\n\n"
        + "word " * 80
    )


def screenshot(browser: Browser, url: str, file: Path, scheme: Literal["light", "dark"], width: int, height: int) -> None:
    """The quickstart's task under two conditions, the better reply voted for, with the prompt beside it."""
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#add-lane")
        page.click("#open-settings")
        page.fill("#settings [name=temperature]", "0")
        page.keyboard.press("Enter")
        page.click("#add-lane")
        page.fill("#prompt", PROMPT)
        page.keyboard.press("Enter")
        page.wait_for_selector(".columns .vote:enabled")
        page.locator(".columns .vote").first.click()
        if width > 1000:
            page.click("#inspect")
            page.wait_for_selector("#inspector .ids")
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)
        file.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:18888/")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--screenshot", type=Path, help="take the picture, and measure nothing")
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    parser.add_argument("--size", type=int, nargs=2, default=(1440, 700), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        if options.screenshot:
            screenshot(browser, options.url, options.screenshot, options.scheme, *options.size)
            return
        paints = [first_paint(browser, options.url) for _ in range(options.repeats)]
        keys, shown = key_paints(browser, options.url, options.messages, options.keys)
        browser.close()
    figures = {
        "first paint, median ms": statistics.median(paints),
        "first paint, worst ms": max(paints),
        f"{options.messages} messages shown, ms": shown,
        "key press to paint, median ms": statistics.median(keys),
        "key press to paint, worst ms": max(keys),
    }
    for name, value in figures.items():
        print(f"{name:<36} {value:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
