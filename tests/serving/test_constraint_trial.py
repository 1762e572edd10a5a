"""What takes a library of constraints too much is found out in a process that can be stopped."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from llguidance import LLMatcher

from ochat.serving.constraint_trial import TakesTooMuch, Trials


def schema(given: Mapping[str, Any]) -> str:
    return str(LLMatcher.grammar_from_json_schema(json.dumps(given), defaults={"whitespace_flexible": True}))


def doubling(times: int, leaf: Mapping[str, Any]) -> str:
    """A schema each of whose parts refers to the next one twice."""
    parts: dict[str, Any] = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(times)}
    return schema({"$ref": "#/$defs/0", "$defs": {**parts, str(times): leaf}})


OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 50, "pattern": "^[A-Z][a-z]+$"},
        "count": {"type": "number", "minimum": 0},
        "kind": {"enum": ["x", "y", "z"]},
        "notes": {"type": "array", "items": {"type": "string"}, "maxItems": 20},
    },
    "required": ["name", "count"],
}
FIT = {
    "a text": schema({"type": "string"}),
    "forty objects": schema({"type": "object", "properties": {f"field {n}": OBJECT for n in range(40)}}),
    "a list": schema({"type": "array", "items": {"type": "integer"}, "maxItems": 1000}),
    "a regex": "start: /(([a-z]{1,10}){1,10} ?){1,10}/",
    "a token": "start: /[a-z]+/ <|end_of_turn|>",
}
# Each of some lines, and of minutes or all memory for who isn't bounded.
UNFIT = {
    "references that double": doubling(28, {"type": "string", "pattern": "a"}),
    "constants that double": doubling(28, {"const": "a"}),
    "a schema in a grammar": 'start: %json {"type":"array","items":{"type":"null"},"maxItems":100000000}',
    "the same after a token": 'start: <|end_of_turn|> b\nb: %json {"type":"array","items":{"type":"null"},"maxItems":100000000}',
    "items by alternatives": schema(
        {"type": "array", "maxItems": 10_000, "anyOf": [{"items": {"const": n}} for n in range(600)]}
    ),
    "patterns at once": "start: <[300]> /x/ T\nT: " + " & ".join(f"/.*a.{{{n}}}/" for n in range(24)),
}


@pytest.fixture(scope="module")
def children() -> Iterator[set[int]]:
    """Those of before; each test ends its own."""
    before = {child.pid for child in psutil.Process().children()}
    yield before
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.fixture
def tokenizer(openchat_folder: Path) -> Callable[[], str]:
    return (openchat_folder / "tokenizer.json").read_text


async def passes(trials: Trials, grammar: str) -> bool:
    """Whether llguidance can prepare it; fails where it's invalid."""
    try:
        assert await trials.problem(grammar) == ""
    except TakesTooMuch:
        return False
    return True


def test_what_is_fit_passes_and_what_is_not_does_not_and_harms_nothing_after_it(
    children: set[int], tokenizer: Callable[[], str]
) -> None:
    async def run() -> dict[str, bool]:
        trials = Trials(tokenizer)
        found = {
            name: await passes(trials, grammar) for name, grammar in (FIT | UNFIT | {"again": schema({"const": 1})}).items()
        }
        assert "unclosed group" in await trials.problem("start: /(/")
        await trials.end()
        return found

    assert asyncio.run(run()) == {**dict.fromkeys(FIT, True), **dict.fromkeys(UNFIT, False), "again": True}


def test_requests_at_once_get_answers_of_their_own_also_where_one_leaves(
    children: set[int], tokenizer: Callable[[], str]
) -> None:
    async def run() -> list[bool]:
        trials = Trials(tokenizer)
        assert await passes(trials, FIT["a text"])  # the process has begun
        leaving = asyncio.create_task(trials.problem(UNFIT["items by alternatives"] + " "))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(passes(trials, grammar)) for grammar in [*FIT.values(), *UNFIT.values()]]
        await asyncio.sleep(0.02)
        assert trials.n_waiting == 1 + len(FIT) + len(UNFIT) - 1  # one is known
        leaving.cancel()
        found = await asyncio.gather(*others)
        assert leaving.cancelled()
        assert trials.n_waiting == 0
        await trials.end()
        await trials.end()  # which does nothing
        return found

    assert asyncio.run(run()) == [True] * len(FIT) + [False] * len(UNFIT)


def test_what_came_of_a_trial_is_remembered(monkeypatch: pytest.MonkeyPatch, children: set[int]) -> None:
    monkeypatch.setattr("ochat.serving.constraint_trial.MAX_KNOWN", 2)
    tried: list[str] = []
    bad = "constants that double"

    async def run() -> None:
        trials = Trials()
        original = trials._try
        monkeypatch.setattr(trials, "_try", lambda grammar: tried.append(grammar) or original(grammar))
        assert await asyncio.gather(*(passes(trials, UNFIT[bad]) for _ in range(8))) == [False] * 8
        for name in ("a text", "a text", "a list", "a list"):
            assert await passes(trials, FIT[name])
        assert not await passes(trials, UNFIT[bad])  # forgotten, of three the oldest
        await trials.end()

    asyncio.run(run())
    assert tried == [UNFIT[bad], FIT["a text"], FIT["a list"], UNFIT[bad]]


@pytest.mark.parametrize("seconds", [0, 0.001, 0.01, 0.5])
def test_a_process_that_was_killed_is_begun_anew(seconds: float, children: set[int]) -> None:
    async def run() -> None:
        trials = Trials()
        assert await passes(trials, FIT["a text"])
        assert trials._process is not None
        psutil.Process(trials._process.pid).kill()
        await asyncio.sleep(seconds)
        assert await passes(trials, FIT["a list"])
        await trials.end()

    asyncio.run(run())


def test_a_process_that_cannot_begin_is_no_fault_of_the_requests(monkeypatch: pytest.MonkeyPatch, children: set[int]) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="couldn't begin"):
        asyncio.run(Trials().problem(FIT["a text"]))


def test_a_file_in_the_working_folder_is_not_taken_for_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: set[int]
) -> None:
    (tmp_path / "llguidance.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        trials = Trials()
        assert await passes(trials, FIT["a text"])
        await trials.end()

    asyncio.run(run())


def test_the_process_says_nothing_of_what_ends_it(capfd: pytest.CaptureFixture[str], children: set[int]) -> None:
    async def run() -> None:
        trials = Trials()
        for name in ("constants that double", "items by alternatives", "a schema in a grammar"):
            assert not await passes(trials, UNFIT[name])
        await trials.end()

    asyncio.run(run())
    assert capfd.readouterr() == ("", "")
