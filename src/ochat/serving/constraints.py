"""Bound what a reply may be held to: a schema, regex or grammar (structured outputs).

What is longer than anybody needs is refused here. What takes long for its length is found out by trying it: constraint_trial.py."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ochat.serving.refusal import Refusal, bad_request
from ochat.serving.request_body import parse_body

# Characters of a schema, and of all regexes and grammars in it: the engine compiles those in more than square time; with a regex of a
# million characters it answered nobody for ten minutes (vLLM 0.32.0, xgrammar).
MAX_SCHEMA_LENGTH = 16_384
MAX_PATTERN_LENGTH = 1_000
_CONSTRAINTS = ("response_format", "structured_outputs", "text", "output_config")  # a request's fields
# The last three are llguidance's, inside of a schema.
_PATTERNS = ("pattern", "regex", "grammar", "whitespace_pattern", "item_separator", "key_separator")


def check_constraints(request: Mapping[str, Any]) -> None:
    """Raise Refusal for a schema, regex or grammar that is too long, or for a string that should be JSON and isn't."""
    for name in _CONSTRAINTS:
        if name not in request:
            continue
        if len(json.dumps(request[name])) > MAX_SCHEMA_LENGTH:
            raise bad_request(f"`{name}` has over {MAX_SCHEMA_LENGTH} characters. Send a smaller schema.", name)
        if sum(map(len, _patterns(request[name]))) > MAX_PATTERN_LENGTH:
            raise bad_request(
                f"The regexes and grammars in `{name}` have over {MAX_PATTERN_LENGTH} characters. Send shorter ones.", name
            )


def held_to(request: Mapping[str, Any]) -> str | None:
    """The field that holds the reply to a schema, regex or grammar, if one does."""
    for name in _CONSTRAINTS:
        value = request.get(name)
        form = value.get("format", value) if isinstance(value, dict) else None
        plain = not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema", "structural_tag")
        if value and (name == "structured_outputs" or not plain):
            return name
    return None


def _patterns(constraint: object) -> Iterator[str]:
    """The regexes and grammars in what a reply is held to, those in strings of JSON too. Raises Refusal for a string that should be
    JSON and isn't."""
    if isinstance(constraint, dict):
        for name, value in constraint.items():
            if name in ("json", "structural_tag") and isinstance(value, str):
                try:
                    value = parse_body(value)
                except Refusal as error:
                    raise bad_request(f"`{name}` isn't a JSON object in a string: {error.message}", name) from error
            if name in _PATTERNS and isinstance(value, str):
                yield value
            elif name == "patternProperties" and isinstance(value, dict):
                yield from value
            yield from _patterns(value)
    elif isinstance(constraint, list):
        for value in constraint:
            yield from _patterns(value)
