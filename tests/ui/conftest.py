"""The page's pure modules in Node.js, which Playwright brings, and servers to put the page before."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer, serving

import ochat.ui
from ochat.ui.proxy import make_app

STATIC = Path(ochat.ui.__file__).parent / "static"
CALLER = """
import readline from "node:readline";
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { module, name, given } = JSON.parse(line);
  let answer;
  try {
    const found = (await import(module))[name](...given);
    answer = { value: found === undefined ? null : found };
  } catch (error) {
    answer = { error: String(error.message), trace: error.stack };
  }
  console.log(JSON.stringify(answer));
}
"""


class JavaScriptError(Exception):
    pass


@pytest.fixture(scope="session")
def js() -> Iterator[Callable[..., Any]]:
    """Call a function of one of the page's pure modules, or of a file: address: js("markdown", "inline", "*a*")."""
    from playwright._impl._driver import compute_driver_executable

    node, _ = compute_driver_executable()
    command = [node, "--input-type=module", "--eval", CALLER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdin is not None
    assert process.stdout is not None

    def call(module: str, name: str, *given: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"module": module if ":" in module else (STATIC / f"{module}.js").as_uri(), "name": name, "given": given}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        if "error" in answer:
            raise JavaScriptError(answer["error"])
        return answer["value"]

    yield call
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="session")
def scripted() -> Iterator[tuple[ScriptedServer, str]]:
    """A server that says what it's told to, and the page before it as `ochat ui` shows it: with its address."""
    server = ScriptedServer()
    with serving(server.app()) as url, serving(make_app(f"{url}/v1")) as page_url:
        yield server, page_url
