"""A real browser for the tests of the chat page. Tests of other parts run without Playwright."""

import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

WAIT_MS = 30_000  # for what takes a moment, or many beside other work


@pytest.fixture(scope="module")  # while it's open, asyncio.run can't be called in this thread
def chromium() -> Iterator["Browser"]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # as root it has none
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: "Browser") -> Iterator["BrowserContext"]:
    """A browser without memory. The test fails where a page throws, breaks its policy, or asks another host for anything."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        wrong: list[str] = []

        def watch(page: "Page") -> None:
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
            page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)

        def refuse(asked: "Route") -> None:
            wrong.append(f"asked for: {asked.request.url}")
            asked.abort()

        context.on("page", watch)
        context.route(
            re.compile("^(?!http://localhost:|blob:)"), refuse
        )  # only these come here: a call for each would take long
        yield context
        assert wrong == []


@pytest.fixture
def page(context: "BrowserContext") -> "Page":
    return context.new_page()
