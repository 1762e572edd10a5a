import json
import subprocess
import sys
from typing import Any

import pytest

from ochat.serving import request_checks
from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import Refusal
from ochat.serving.request_checks import (
    check_bounds,
    check_fields,
    check_inner_fields,
    check_template_options,
    count_choices,
)
from ochat.serving.routes import routes_at

CHAT = routes_at("/v1/chat/completions")["POST"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": -3}, 1),  # vLLM says what is wrong with it
        ({"prompt": "ab", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
    ],
)
def test_choices_are_counted_over_prompts(request_: dict[str, Any], expected: int) -> None:
    assert count_choices(request_) == expected


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"n": 5}, "asks for 5 replies. Ask for at most 4"),
        ({"n": "5"}, "`n` is '5'. Give a whole number."),  # vLLM reads these as numbers
        ({"n": 5.0}, "`n` is '5.0'"),
        ({"n": True}, "`n` is 'True'"),
        ({"n": [5]}, "`n` is"),
        ({"max_tokens": "101"}, "`max_tokens` is '101'. Give a whole number."),
        ({"bad_words": ["x"] * 17}, "`bad_words` may hold 16"),
        ({"messages": [{}] * 2001}, "`messages` has 2001 entries"),
        ({"model": "x" * 1001}, "`model` has over 1000 characters"),
        ({"stop": ["x"] * 17}, "`stop` may hold 16"),
        ({"logit_bias": {str(id): 1 for id in range(1001)}}, "`logit_bias` has 1001 entries. Send at most 1000"),
        ({"stop_token_ids": [5] * 1001}, "`stop_token_ids` has 1001 entries"),
        ({"structured_outputs": {"choice": ["x" * 1000] * 17}}, "`structured_outputs` has over 16384 characters"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 1001}] * 2}, "have over 2000 parts"),
        ({"messages": [], "add_special_tokens": True}, "`add_special_tokens` has no effect"),
        ({"stop": "x" * 1001}, "of 1000 characters"),
        ({"max_tokens": 101}, "`max_tokens` is 101. Ask for at most 100"),
        ({"max_tokens": 5, "max_completion_tokens": 101}, "`max_completion_tokens` is 101"),
    ],
)
def test_a_request_out_of_bounds_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_bounds(CHAT, request_, GatewayOptions(max_choices=4, max_reply_tokens=100))


def test_a_request_within_bounds_passes_and_one_without_a_length_gets_the_bound() -> None:
    request: dict[str, Any] = {"n": 4, "messages": [{}] * 2000, "stop": ["x"] * 16, "stop_token_ids": [5] * 1000}
    check_bounds(CHAT, request, GatewayOptions(max_choices=4, max_reply_tokens=100))
    assert request["max_completion_tokens"] == 100
    for bound, expected in ((100, 16), (5, 5)):
        completion: dict[str, Any] = {"prompt": "a"}  # which has 16 tokens by default
        check_bounds(routes_at("/v1/completions")["POST"], completion, GatewayOptions(max_reply_tokens=bound))
        assert completion["max_tokens"] == expected
    unbounded: dict[str, Any] = {}
    check_bounds(CHAT, unbounded, GatewayOptions())
    assert unbounded == {}


KNOWN = {"temperature": None, "stream": False, "stream_options": None, "tools": None, "store": True, "mm_payload": "tensors"}
KNOWN |= {
    "system": None,
    "response_format": None,
    "structured_outputs": None,
    "text": None,
    "reasoning": None,
    "use_beam_search": False,
    "length_penalty": 1.0,
    "suffix": None,
    "priority": 0,
    "watermarking": None,
}


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"temprature": 1}, "`temprature` isn't honoured by /x. Did you mean `temperature`?"),
        ({"conditions": "Code"}, "Did you mean `condition`?"),
        ({"zzz": 1}, "`zzz` isn't honoured by /x. Leave it out."),
        ({"metadata": {"a": 1}}, "`metadata` isn't honoured"),
        ({"mm_payload": "none"}, "`mm_payload` has no effect"),
        ({"stream_options": {"include_usag": True}}, "`stream_options.include_usag` isn't honoured"),
        ({"suffix": "x"}, "`suffix` has no effect"),
        ({"stream_options": {"include_obfuscation": True}}, "`stream_options.include_obfuscation` isn't honoured"),
        ({"text": {"verbosity": "low"}}, "`text.verbosity` has no effect"),
        ({"reasoning": {"effort": "none", "summary": "auto"}}, "`reasoning.summary` has no effect"),
        (
            {"structured_outputs": {"json": {}, "whitespace_pattern": " "}},
            "`structured_outputs.whitespace_pattern` has no effect",
        ),
        (
            {"structured_outputs": {"json": {}, "disable_any_whitespace": True}},
            "`structured_outputs.disable_any_w.* has no effect",
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": {"name": "a", "schema": {}}}},
            "`response_format.json_schema` has no effect with the type 'json_object'. Give it the type 'json_schema'",
        ),
        ({"length_penalty": 2.0}, "`length_penalty` has no effect"),
        ({"priority": -1}, "`priority` has no effect"),
        ({"watermarking": True}, "`watermarking` has no effect"),
        ({"use_beam_search": True}, "`use_beam_search` isn't offered"),
        ({"x" * 1_000_000: 1}, "`x+` isn't honoured"),  # in no time
        ({"tools": [{}]}, "`tools` has no place in this model's template"),
    ],
)
def test_a_field_without_effect_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_fields("/x", request_, KNOWN)


def test_a_field_of_openais_is_not_taken_for_a_misspelt_one() -> None:
    with pytest.raises(Refusal, match="`store` isn't honoured by /x") as refused:
        check_fields("/x", {"store": True}, {"stream": False})
    assert "Did you mean" not in str(refused.value)


def test_what_asks_for_nothing_passes() -> None:
    request = {"temperature": 1, "top_k": None, "store": False, "metadata": {}, "modalities": ["text"], "mm_payload": "tensors"}
    request["stream_options"] = {"include_usage": True, "include_obfuscation": False}
    check_fields("/x", request, KNOWN)
    left = {"temperature": 1, "store": False, "mm_payload": "tensors", "stream_options": {"include_usage": True}}
    assert request == left


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"prompt": {"id": "x"}}, "Send the text in `input`"),
        ({"store": True}, "`store` has no effect"),
        ({"include": ["reasoning.encrypted_content"]}, "`include` has 'reasoning.encrypted_content'"),
        ({"top_logprobs": 5}, "`top_logprobs` has no effect without `include`"),
        ({"top_logprobs": 5, "include": []}, "`top_logprobs` has no effect without `include`"),
        (
            {
                "input": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
                ]
            },
            r"`input\[1\].content` has a refusal or several parts",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "output_text", "text": t} for t in "ab"]}]},
            r"`input\[0\].content` has a refusal or several parts",
        ),
    ],
)
def test_what_the_responses_api_would_drop_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_fields("/v1/responses", request_, dict.fromkeys(request_) | {"store": True})


def test_what_the_responses_api_heeds_passes() -> None:
    request = {"store": False, "include": ["message.output_text.logprobs"], "top_logprobs": 5}
    check_fields("/v1/responses", dict(request), {"store": True, "include": None, "top_logprobs": 0})
    check_fields("/v1/responses", {"include": [], "top_logprobs": 0}, {"include": None, "top_logprobs": 0})
    said = [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}]
    said += [{"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}, {"role": "assistant", "content": "a"}]
    check_fields("/v1/responses", {"input": said}, {"input": None})


TEXT = {"type": "text", "text": "Hi"}
BILLING = "x-anthropic-billing-header"


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"system": [TEXT, {"type": "image"}]}, "`system` has a part that is no text"),
        ({"system": ["a"]}, "`system` has a part"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ada"}]}, r"`messages\[0\].name` isn't honoured"),
        (
            {"messages": [{"role": "user", "content": [TEXT]}, {"content": [{"type": "image"}]}]},
            r"`messages\[1\].content` has a part",
        ),
        ({"messages": [{"content": [TEXT, {"type": "redacted_thinking", "data": "x"}]}]}, "has a part that is no text"),
        ({"messages": [{"content": [TEXT, {"type": "tool_reference", "tool_name": "x"}]}]}, "has a part that is no text"),
        ({"messages": [{"content": [{"type": "text", "text": ""}]}]}, "has a part that is no text"),
        ({"messages": [{"content": [TEXT | {"citations": []}]}]}, "has a part with `citations`"),
        ({"messages": [{"content": []}]}, "has no part, and would be left out"),
        ({"system": [TEXT, {"type": "text", "text": f"{BILLING}: x"}]}, f"`system` has a text that begins with '{BILLING}'"),
        ({"messages": [{"role": "system", "content": BILLING}]}, r"`messages\[0\].content` has a text that begins with"),
        ({"messages": [{"role": "system", "content": [{"type": "text", "text": BILLING}]}]}, "has a text that begins with"),
        ({"thinking": {"type": "adaptive"}}, "`thinking` has no effect"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "`thinking` has no effect"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_what_of_anthropics_messages_would_be_dropped_is_refused(path: str, request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_fields(path, request_, dict.fromkeys(request_))


def test_anthropics_text_and_its_wish_to_be_cached_pass() -> None:
    marked = TEXT | {"cache_control": {"type": "ephemeral"}, "citations": None}
    request: dict[str, Any] = {
        "system": [marked],
        "messages": [{"role": "user", "content": [marked]}, {"role": "assistant"}, 5],
    }
    check_fields("/v1/messages", request | {"thinking": {"type": "disabled"}}, dict.fromkeys((*request, "thinking")))
    passed_on = {"system": BILLING, "messages": [{"role": "user", "content": BILLING}]}
    check_fields("/v1/messages", passed_on, dict.fromkeys(passed_on))


def test_of_a_text_and_messages_one_would_be_ignored() -> None:
    with pytest.raises(Refusal, match="`prompt` and `messages` are both given"):
        check_fields("/tokenize", {"prompt": "a", "messages": []}, {"prompt": None, "messages": None})
    check_fields("/tokenize", {"messages": []}, {"prompt": None, "messages": None})


@pytest.fixture(scope="module")
def told_by_vllm() -> list[Any]:
    """Each route's fields and defaults, and the names inside of objects, read in a process of its own: vLLM's import warns."""
    pytest.importorskip("vllm")
    script = "import json; from ochat.serving.request_checks import _CLASSES, _INNER_CLASSES, inner_fields, known_fields\n"
    script += "fields = {path: dict(known_fields(path)) for path in _CLASSES}\n"
    script += "print(json.dumps([fields, {place: sorted(inner_fields(place)) for place in _INNER_CLASSES}], default=str))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def fields_of_vllm(told_by_vllm: list[Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = told_by_vllm[0]
    return found


def test_what_is_said_to_have_no_effect_is_vllms(fields_of_vllm: dict[str, dict[str, Any]]) -> None:
    named = {
        "/v1/responses": "include",
        "/v1/messages": "thinking",
        "/v1/chat/completions": "stream_options",
        "/tokenize": "prompt",
    }
    assert all(field in fields_of_vllm[path] for path, field in named.items())
    without_effect = request_checks._WITHOUT_EFFECT.keys()
    assert without_effect <= {field for fields in fields_of_vllm.values() for field in fields}
    for path, known in fields_of_vllm.items():
        for field in without_effect & known.keys():
            if (path, field) != ("/v1/responses", "store"):  # true by default, and it isn't stored
                check_fields(path, {field: known[field]}, known)  # what it has by default asks for nothing
            with pytest.raises(Refusal, match=f"`{field}` has no effect"):
                check_fields(path, {field: "something else"}, known)


INNER = {
    "response_format": ["type", "json_schema", "format", "structures", "triggers"],
    "response_format.json_schema": ["name", "description", "schema", "strict"],
    "text": ["format", "verbosity"],
    "text.format": ["type", "name", "schema", "strict", "description"],
    "output_config": ["effort", "format"],
    "output_config.format": ["type", "schema"],
}
INNER["structured_outputs"] = ["json", "regex", "choice", "grammar", "json_object", "structural_tag", "whitespace_pattern"]
INNER["structured_outputs"] += ["disable_any_whitespace", "disable_additional_properties"]


def test_the_names_inside_of_what_a_reply_is_held_to_are_vllms(told_by_vllm: list[Any]) -> None:
    assert told_by_vllm[1] == {place: sorted(names) for place, names in INNER.items()}


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"response_format": {"type": "json_object", "zzz": 1}}, "`response_format.zzz` isn't honoured. Leave it out."),
        ({"response_format": {"json_schema": {"strit": True}}}, "`response_format.json_schema.strit`.*Did you mean `strict`?"),
        ({"structured_outputs": {"regex": "a", "_backend": "outlines"}}, "`structured_outputs._backend` isn't honoured"),
        ({"text": {"format": {"type": "text", "zzz": 1}}}, "`text.format.zzz` isn't honoured"),
        ({"output_config": {"efort": "low"}}, "`output_config.efort` isn't honoured. Did you mean `effort`"),
    ],
)
def test_an_unknown_name_inside_of_what_a_reply_is_held_to_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_inner_fields(request_, INNER.__getitem__)


def test_known_names_inside_pass_and_what_is_no_object_is_left_to_vllm() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"zzz": 1}, "zzz": None}}
    for request in ({"response_format": schema}, {"response_format": "text"}, {"response_format": {"json_schema": 5}}, {}):
        check_inner_fields(request, INNER.__getitem__)


SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am"}]


@pytest.mark.parametrize(
    ("path", "request_", "found"),
    [
        (
            CHAT.path,
            {"messages": SAID[:1], "chat_template_kwargs": {"add_generation_prompt": False}},
            "`chat_template_kwargs.add_gen",
        ),
        (
            CHAT.path,
            {"messages": SAID, "chat_template_kwargs": {"add_generation_prompt": True}},
            "`chat_template_kwargs.add_gen",
        ),
        (
            CHAT.path,
            {"messages": SAID[:1], "chat_template_kwargs": {"continue_final_message": True}},
            "`chat_template_kwargs.cont",
        ),
        (
            CHAT.path,
            {"messages": SAID, "chat_template_kwargs": {"continue_final_message": False}},
            "`chat_template_kwargs.cont",
        ),
        (
            CHAT.path,
            {"messages": SAID[:1], "chat_template_kwargs": {"tokenize": False}},
            "`chat_template_kwargs.tokenize` has no",
        ),
        (
            "/v1/responses",
            {"input": "Hi", "chat_template_kwargs": {"cohere_format": "x"}},
            "`chat_template_kwargs.cohere_format`",
        ),
        (CHAT.path, {"messages": SAID, "continue_final_message": False}, "which is always continued here"),
    ],
)
def test_what_the_template_would_be_asked_in_vain_is_refused(path: str, request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_template_options(routes_at(path)["POST"], request_)


def test_what_asks_the_template_for_what_it_does_anyway_passes() -> None:
    does = {"add_generation_prompt": True, "continue_final_message": False, "tokenize": None, "condition": "Code"}
    continues = {"add_generation_prompt": False, "continue_final_message": True}
    for request in (
        {"messages": SAID[:1], "chat_template_kwargs": does},
        {"messages": SAID, "chat_template_kwargs": continues},
        {"messages": SAID, **continues},
        {"messages": SAID[:1], "continue_final_message": False},
        {"messages": SAID, "chat_template_kwargs": {}},
        {"messages": 5},
    ):
        check_template_options(CHAT, request)
