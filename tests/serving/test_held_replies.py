"""Replies that are held to something: what ends them, and what is refused before the engine gets it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Importing vLLM takes long, so one process does all of it.
ONE_PROCESS = """
import asyncio, json, random, sys, time
from types import SimpleNamespace
from ochat.serving.held_replies import try_first
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE, register
from ochat.serving.told_errors import status_in_stream

register()
import numpy as np
from transformers import AutoTokenizer
from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output import backend_guidance
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

def walk(grammar):
    "A reply of random tokens under the engine's own limits: how it ends, and its slowest step in seconds."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = GuidanceBackend(config(TOKENIZER_MODE), tokenizer, len(tokenizer))
    held = backend.compile_grammar(StructuredOutputOptions.GRAMMAR, grammar)
    allowed, chance, slowest = backend.allocate_token_bitmask(1), random.Random(0), 0
    for step in range(400):
        began = time.process_time()
        held.fill_bitmask(allowed, 0)
        ids = np.nonzero(np.unpackbits(allowed.numpy().view(np.uint8), bitorder="little"))[0]
        ids = ids[ids != backend.ll_tokenizer.eos_token]
        goes_on = len(ids) > 0 and held.accept_tokens("one", [int(chance.choice(ids))])
        slowest = max(slowest, time.process_time() - began)
        if not goes_on:
            return [step, slowest]
    return [None, slowest]

async def asked(backend, **constraint):
    "What came of it: the engine's answer, or why it's refused."
    async def add_request(request_id, prompt, params):
        backend_guidance.validate_guidance_grammar(params)
        return request_id
    engine = SimpleNamespace(
        vllm_config=config(TOKENIZER_MODE, backend), add_request=add_request, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    original = backend_guidance.validate_guidance_grammar
    validated = []
    backend_guidance.validate_guidance_grammar = lambda params: validated.append(params)
    trials = try_first(engine)
    try:
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**constraint) if constraint else None)
        answer = await engine.add_request("it got it", None, params=params)
        return answer + (", validated" if validated else ", tried")
    except (VLLMValidationError, QueueOverflowError) as error:
        return str(error)
    finally:
        backend_guidance.validate_guidance_grammar = original
        if trials:
            await trials.end()

many = {"grammar": 'start: <|end_of_turn|> b\\nb: %json {"type":"array","items":{"type":"null"},"maxItems":100000000}'}
tag = {"structural_tag": json.dumps({"type": "structural_tag", "structures": [{"begin": "<f>", "end": "</f>", "schema": {}}], "triggers": ["<f"]})}
def busy():
    from ochat.serving import held_replies
    held_replies.MAX_WAITING = 0
    return asyncio.run(asked("guidance", regex="b"))

print(json.dumps({
    "ends": {mode: ends(mode) for mode in (TOKENIZER_MODE, "hf")},
    "walks": [walk("start: a\\na: a a | T\\nT: /(.|\\\\n)/"), walk("start: e\\ne: e e | f f | T\\nf: e e | f f | T f\\nT: /[a-z ]/")],
    "many_states": walk("start: /((.|\\\\n)*[aeiou ](.|\\\\n){30}q|abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#%,:;<=>@_`~Z)/"),
    "sentences": walk("start: (/[A-Z][a-z]{0,9}/ (/[ ,][a-z]{1,9}/)* /[.]/)*"),
    "many": {backend: asyncio.run(asked(backend, **many)) for backend in ("guidance", "auto", "xgrammar")},
    "tag": {backend: asyncio.run(asked(backend, **tag)) for backend in ("guidance", "auto", "xgrammar")},
    "fit": [asyncio.run(asked("guidance", **fit)) for fit in ({"regex": "a"}, {"choice": ["a", "b"]}, {"json_object": True})],
    "invalid": [asyncio.run(asked(backend, regex="((")) for backend in ("guidance", "auto")],
    "none": asyncio.run(asked("guidance")),
    "busy": busy(),
    "statuses": [status_in_stream(error) for error in (VLLMValidationError("x"), QueueOverflowError(), TypeError("x"), ValueError("x"))],
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


def test_an_ambiguous_grammar_fails_before_its_tokens_get_slow(found: dict[str, Any]) -> None:
    for step, slowest in found["walks"]:
        assert step is not None
        assert slowest < 0.5  # three seconds without the limits, at the 200th token, and more at each that follows
    assert found["sentences"][0] is None


def test_a_regex_of_many_states_fails_before_it_takes_much_memory(found: dict[str, Any]) -> None:
    assert found["many_states"][0] < 50  # 161 with the bound of the library alone, and ten times the memory


def test_what_takes_too_much_to_prepare_is_refused_before_the_engine_gets_it(found: dict[str, Any]) -> None:
    assert "takes over 0.25 s, or too much memory, before it begins. Send a simpler one." in found["many"]["guidance"]
    assert found["many"]["auto"] == found["many"]["guidance"]
    assert found["many"]["xgrammar"] == f"{GOT}, validated"  # which the server was told to use


def test_a_tag_to_whose_schema_the_library_does_not_hold_is_refused(found: dict[str, Any]) -> None:
    assert found["tag"] == {
        "guidance": "This server's library doesn't hold replies to structural tags. Leave them out.",
        "auto": f"{GOT}, validated",
        "xgrammar": f"{GOT}, validated",
    }


def test_what_was_tried_is_not_validated_again(found: dict[str, Any]) -> None:
    assert found["fit"] == [f"{GOT}, tried"] * 3
    assert found["none"] == f"{GOT}, validated"


def test_what_is_invalid_is_told_in_the_librarys_words(found: dict[str, Any]) -> None:
    assert "unclosed group" in found["invalid"][0]
    assert found["invalid"][1] == f"{GOT}, validated"  # another library may take it


def test_where_too_many_wait_to_be_tried_the_client_is_told_to_come_again(found: dict[str, Any]) -> None:
    assert "busy" in found["busy"]


def test_only_what_the_engine_refuses_is_hidden_in_streams(found: dict[str, Any]) -> None:
    assert found["statuses"] == [400, 400, 500, 500]
