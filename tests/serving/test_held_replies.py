"""Replies that are held to something: what ends them, and what is refused before the engine gets it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Importing vLLM takes long, so one process does all of it.
ONE_PROCESS = """
import asyncio, json, sys
from types import SimpleNamespace
from ochat.serving.constraint_trial import Trials
from ochat.serving.held_replies import try_first
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE, register

register()
from transformers import AutoTokenizer
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.backend_types import StructuredOutputOptions

folder = sys.argv[1]

def config(mode, backend="guidance"):
    return SimpleNamespace(
        model_config=SimpleNamespace(model=folder, tokenizer=folder, tokenizer_mode=mode),
        additional_config={MODEL_TYPE_KEY: "openchat_3.5"},
        structured_outputs_config=SimpleNamespace(
            backend=backend, disable_any_whitespace=False, disable_additional_properties=False
        ),
    )

def ends(mode):
    "Which tokens may end a reply, and whether each does."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "</s>"
    backend = GuidanceBackend(config(mode), tokenizer, len(tokenizer))
    found = {}
    for end in ("<|end_of_turn|>", "</s>"):
        grammar = backend.compile_grammar(StructuredOutputOptions.REGEX, "[ab]+")
        allowed = backend.allocate_token_bitmask(1)
        assert grammar.accept_tokens("one", [tokenizer.convert_tokens_to_ids("a")])
        grammar.fill_bitmask(allowed, 0)
        id = tokenizer.convert_tokens_to_ids(end)
        if allowed[0][id // 32] >> (id % 32) & 1:
            found[end] = grammar.accept_tokens("one", [id]) and grammar.is_terminated()
    return found

async def asked(backend, **constraint):
    "What came of it: the engine's answer, or why it's refused."
    async def add_request(request_id, prompt, params):
        return request_id
    engine, trials = SimpleNamespace(vllm_config=config(TOKENIZER_MODE, backend), add_request=add_request), Trials()
    try_first(engine, trials)
    try:
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**constraint) if constraint else None)
        return await engine.add_request("it got it", None, params=params)
    except VLLMValidationError as error:
        return str(error)
    finally:
        await trials.end()

many = {"grammar": 'start: %json {"type":"array","items":{"type":"null"},"maxItems":100000000}'}
tag = {"structural_tag": '{"type": "structural_tag", "format": {}}'}
print(json.dumps({
    "ends": {mode: ends(mode) for mode in (TOKENIZER_MODE, "hf")},
    "many": {backend: asyncio.run(asked(backend, **many)) for backend in ("guidance", "auto", "xgrammar")},
    "tag": {backend: asyncio.run(asked(backend, **tag)) for backend in ("guidance", "xgrammar")},
    "fit": [asyncio.run(asked("guidance", **fit)) for fit in ({}, {"regex": "a"}, {"regex": "(("}, {"json_object": True})],
}))
"""
GOT = "it got it"


@pytest.fixture(scope="module")
def found(openchat_folder: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, str(openchat_folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def test_a_held_reply_ends_with_the_templates_end_of_turn_whatever_the_tokenizers_is(found: dict[str, Any]) -> None:
    assert found["ends"] == {"openchat": {"<|end_of_turn|>": True}, "hf": {"</s>": True}}


def test_what_takes_too_much_to_prepare_is_refused_before_the_engine_gets_it(found: dict[str, Any]) -> None:
    assert "takes over 0.25 s, or too much memory, before it begins. Send a simpler one." in found["many"]["guidance"]
    assert found["many"]["auto"] == found["many"]["guidance"]
    assert found["many"]["xgrammar"] == GOT  # which the server was told to use


def test_a_tag_that_the_library_does_not_know_is_refused_in_our_words(found: dict[str, Any]) -> None:
    assert found["tag"] == {
        "guidance": "This server's library has structural tags of `structures` and `triggers` alone. Give the tag so.",
        "xgrammar": GOT,
    }


def test_what_is_fit_or_for_vllm_to_refuse_is_passed_on(found: dict[str, Any]) -> None:
    assert found["fit"] == [GOT] * 4
