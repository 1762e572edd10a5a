from typing import Any

import pytest

from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import Refusal
from ochat.serving.request_checks import check_bounds, check_fields, choices, held_to
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
    assert choices(request_) == expected


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
        ({"response_format": {"json_schema": {"schema": {"enum": ["x"] * 6000}}}}, "`response_format` has over 16384"),
        ({"text": {"format": {"schema": {"enum": ["x"] * 6000}}}}, "`text` has over 16384"),
        ({"structured_outputs": {"regex": "a" * 1001}}, "The regexes and grammars in `structured_outputs` have over 1000"),
        ({"structured_outputs": {"grammar": "a" * 1001}}, "have over 1000 characters"),
        ({"structured_outputs": {"json": {"a": [{"pattern": "a" * 501}, {"pattern": "b" * 500}]}}}, "have over 1000"),
        ({"structured_outputs": {"json": '{"a": {"pattern": "' + "a" * 1001 + '"}}'}}, "have over 1000"),
        ({"structured_outputs": {"json": {"patternProperties": {"a" * 1001: True}}}}, "have over 1000"),
        ({"structured_outputs": {"structural_tag": "[" * 5000}}, "`structural_tag` isn't a JSON object in a string"),
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
    request["structured_outputs"] = {"json": {"properties": {"pattern": {"pattern": "a" * 1000}}}}
    check_bounds(CHAT, request, GatewayOptions(max_choices=4, max_reply_tokens=100))
    assert request["max_completion_tokens"] == 100
    unbounded: dict[str, Any] = {}
    check_bounds(CHAT, unbounded, GatewayOptions())
    assert unbounded == {}


KNOWN = {"temperature": None, "stream": False, "stream_options": None, "tools": None, "store": True, "mm_payload": "tensors"}
KNOWN |= {
    "system": None,
    "text": None,
    "reasoning": None,
    "use_beam_search": False,
    "length_penalty": 1.0,
    "suffix": None,
    "priority": 0,
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
        ({"system": [{"type": "text", "text": "a"}, {"type": "image"}]}, "`system` has a part that is no text"),
        ({"system": ["a"]}, "`system` has a part"),
        ({"text": {"verbosity": "low"}}, "`text.verbosity` has no effect"),
        ({"reasoning": {"effort": "none", "summary": "auto"}}, "`reasoning.summary` has no effect"),
        ({"length_penalty": 2.0}, "`length_penalty` has no effect"),
        ({"priority": -1}, "`priority` has no effect"),
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
    request["system"] = [{"type": "text", "text": "Be brief."}]
    check_fields("/x", request, KNOWN)
    assert request == {"temperature": 1, "store": False, "mm_payload": "tensors", "system": request["system"]}


def test_a_stored_prompt_of_the_responses_api_is_refused() -> None:
    with pytest.raises(Refusal, match="Send the text in `input`"):
        check_fields("/v1/responses", {"prompt": {"id": "x"}}, {"prompt": None})


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config"),
        ({"output_config": {"effort": "low"}}, None),
        ({"text": {"format": {"type": "text"}}}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": "text", "structured_outputs": None}, None),
        ({}, None),
    ],
)
def test_what_holds_a_reply_to_a_schema_is_known(request_: dict[str, Any], field: str | None) -> None:
    assert held_to(request_) == field
