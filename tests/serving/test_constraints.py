from typing import Any

import pytest

from ochat.serving.constraints import check_constraints, held_to
from ochat.serving.refusal import Refusal


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"structured_outputs": {"choice": ["x" * 1000] * 17}}, "`structured_outputs` has over 16384 characters"),
        ({"response_format": {"json_schema": {"schema": {"enum": ["x"] * 6000}}}}, "`response_format` has over 16384"),
        ({"text": {"format": {"schema": {"enum": ["x"] * 6000}}}}, "`text` has over 16384"),
        ({"structured_outputs": {"regex": "a" * 1001}}, "The regexes and grammars in `structured_outputs` have over 1000"),
        ({"structured_outputs": {"grammar": "a" * 1001}}, "have over 1000 characters"),
        ({"structured_outputs": {"json": {"a": [{"pattern": "a" * 501}, {"pattern": "b" * 500}]}}}, "have over 1000"),
        ({"structured_outputs": {"json": '{"a": {"pattern": "' + "a" * 1001 + '"}}'}}, "have over 1000"),
        ({"structured_outputs": {"json": {"patternProperties": {"a" * 1001: True}}}}, "have over 1000"),
        ({"structured_outputs": {"structural_tag": "[" * 5000}}, "`structural_tag` isn't a JSON object in a string"),
    ],
)
def test_a_constraint_out_of_bounds_is_refused(request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        check_constraints(request_)


def test_constraints_within_bounds_pass() -> None:
    fields = {str(n): {"pattern": "a", "description": "one of many"} for n in range(50)}
    check_constraints(
        {
            "structured_outputs": {"json": {"properties": {"pattern": {"pattern": "a" * 1000}}}},
            "response_format": {"json_schema": {"schema": {"properties": fields}}},
        }
    )


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
