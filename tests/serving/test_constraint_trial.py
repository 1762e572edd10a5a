"""What takes a library of constraints too much is found out in a process that can be stopped."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import pytest
from llguidance import LLMatcher

from ochat.serving.constraint_trial import Trials


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
    "an invalid grammar": "start: ((",  # vLLM says what is wrong with it
    "regex": "start: /(([a-z]{1,10}){1,10} ?){1,10}/",
}
# Each of some lines, and of minutes or all memory for who isn't bounded.
UNFIT = {
    "references that double": doubling(28, {"type": "string", "pattern": "a"}),
    "constants that double": doubling(28, {"const": "a"}),
    "a schema in a grammar": 'start: %json {"type":"array","items":{"type":"null"},"maxItems":100000000}',
    "items by alternatives": schema(
        {"type": "array", "maxItems": 10_000, "anyOf": [{"items": {"const": n}} for n in range(600)]}
    ),
    "patterns at once": schema({"allOf": [{"pattern": f".*a.{{{n}}}"} for n in range(32)]}),
}


@pytest.fixture(scope="module")
def children() -> Iterator[set[int]]:
    """Those of before; each test ends its own."""
    before = {child.pid for child in psutil.Process().children()}
    yield before
    assert {child.pid for child in psutil.Process().children()} <= before


def test_what_is_fit_passes_and_what_is_not_does_not_and_harms_nothing_after_it(children: set[int]) -> None:
    async def run() -> dict[str, bool]:
        trials = Trials()
        found = {
            name: await trials.passes(grammar) for name, grammar in (FIT | UNFIT | {"again": schema({"const": 1})}).items()
        }
        await trials.end()
        return found

    assert asyncio.run(run()) == {**dict.fromkeys(FIT, True), **dict.fromkeys(UNFIT, False), "again": True}


def test_requests_at_once_get_answers_of_their_own_also_where_one_leaves(children: set[int]) -> None:
    async def run() -> list[bool]:
        trials = Trials()
        leaving = asyncio.create_task(trials.passes(UNFIT["items by alternatives"]))
        others = [asyncio.create_task(trials.passes(grammar)) for grammar in [*FIT.values(), *UNFIT.values()]]
        await asyncio.sleep(0.3)
        leaving.cancel()
        found = await asyncio.gather(*others)
        await trials.end()
        await trials.end()  # which does nothing
        return found

    assert asyncio.run(run()) == [True] * len(FIT) + [False] * len(UNFIT)


def test_what_has_passed_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, children: set[int]) -> None:
    monkeypatch.setattr("ochat.serving.constraint_trial.MAX_KNOWN", 1)
    tried: list[str] = []

    async def run() -> None:
        trials = Trials()
        original = trials._try
        monkeypatch.setattr(trials, "_try", lambda grammar: tried.append(grammar) or original(grammar))
        for name in ("a text", "a text", "a list", "a list", "a text"):  # it keeps the last one
            assert await trials.passes(FIT[name])
        for _ in range(2):
            assert not await trials.passes(UNFIT["constants that double"])
        await trials.end()

    asyncio.run(run())
    assert tried == [*(FIT[name] for name in ("a text", "a list", "a text")), *[UNFIT["constants that double"]] * 2]


def test_a_process_that_was_killed_meanwhile_is_begun_anew(children: set[int]) -> None:
    async def run() -> None:
        trials = Trials()
        assert await trials.passes(FIT["a text"])
        assert trials._process is not None
        psutil.Process(trials._process.pid).kill()
        await asyncio.sleep(0.5)
        assert await trials.passes(FIT["a list"])
        await trials.end()

    asyncio.run(run())


def test_a_process_that_cannot_begin_is_no_fault_of_the_requests(monkeypatch: pytest.MonkeyPatch, children: set[int]) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="couldn't begin"):
        asyncio.run(Trials().passes(FIT["a text"]))


def test_the_process_says_nothing_of_what_ends_it(capfd: pytest.CaptureFixture[str], children: set[int]) -> None:
    async def run() -> None:
        trials = Trials()
        for grammar in UNFIT.values():
            assert not await trials.passes(grammar)
        await trials.end()

    asyncio.run(run())
    assert capfd.readouterr() == ("", "")
