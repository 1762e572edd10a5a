"""Bound what a reply may be held to: a schema, regex or grammar (structured outputs).

The engine compiles these and can't be stopped meanwhile, so what would keep it from everybody for seconds is refused here."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ochat.serving.refusal import Refusal, bad_request
from ochat.serving.request_body import parse_body

# Characters of a schema, and of all regexes and grammars in it: the engine compiles those in more than square time; with a regex of a
# million characters it answered nobody for ten minutes (vLLM 0.32.0, xgrammar).
MAX_SCHEMA_LENGTH = 16_384
MAX_PATTERN_LENGTH = 1_000
# llguidance 1.7 has bounds of its own but for two things. Each of an array's possible items is written out, a hundred thousand in
# seconds. Whether a text can match several patterns at once takes twice as long with each more, a second for sixteen.
MAX_ITEMS = 10_000
MAX_PATTERNS_AT_ONCE = 8
_CONSTRAINTS = ("response_format", "structured_outputs", "text", "output_config")  # a request's fields
_COMBINED = ("$ref", "allOf", "anyOf", "oneOf")


def check_constraints(request: Mapping[str, Any]) -> None:
    """Raise Refusal for a schema, regex or grammar that would take the engine seconds, or for a string that isn't JSON."""
    for name in _CONSTRAINTS:
        if name not in request:
            continue
        if len(json.dumps(request[name])) > MAX_SCHEMA_LENGTH:
            raise bad_request(f"`{name}` has over {MAX_SCHEMA_LENGTH} characters. Send a smaller schema.", name)
        schemas = list(_objects(request[name]))
        if sum(map(len, _patterns(schemas))) > MAX_PATTERN_LENGTH:
            raise bad_request(
                f"The regexes and grammars in `{name}` have over {MAX_PATTERN_LENGTH} characters. Send shorter ones.", name
            )
        _check_schema(schemas, name)


def _check_schema(schemas: list[dict[str, Any]], name: str) -> None:
    """Raise Refusal for a schema, given with all in it, that takes the engine's library seconds."""
    n_items = sum(
        number
        for schema in schemas
        for field in ("maxItems", "minItems")
        if isinstance(number := schema.get(field), int | float) and number > 0
    )
    if n_items > MAX_ITEMS:
        raise bad_request(f"`minItems` and `maxItems` in `{name}` come to over {MAX_ITEMS} items. Ask for fewer.", name)
    n_patterns = sum(field in schema for schema in schemas for field in ("pattern", "format"))
    # So many are joined to another, if all of a schema's parts have a pattern.
    n_joins = sum(
        (len(schema["allOf"]) - 1 if isinstance(schema.get("allOf"), list) else 0)
        + (any(field in schema for field in ("pattern", "format")) and any(field in schema for field in _COMBINED))
        for schema in schemas
    )
    if min(n_patterns, n_joins + 1) > MAX_PATTERNS_AT_ONCE:
        raise bad_request(
            f"`{name}` may ask a text to match {min(n_patterns, n_joins + 1)} patterns at once. Join at most "
            f"{MAX_PATTERNS_AT_ONCE} by `allOf` or `$ref`.",
            name,
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


def _objects(constraint: object) -> Iterator[dict[str, Any]]:
    """All JSON objects in what a reply is held to, those in strings too. Raises Refusal for a string that should be JSON and isn't."""
    if isinstance(constraint, dict):
        yield constraint
        for name, value in constraint.items():
            if name in ("json", "structural_tag") and isinstance(value, str):
                try:
                    value = parse_body(value)
                except Refusal as error:
                    raise bad_request(f"`{name}` isn't a JSON object in a string: {error.message}", name) from error
            yield from _objects(value)
    elif isinstance(constraint, list):
        for value in constraint:
            yield from _objects(value)


def _patterns(schemas: list[dict[str, Any]]) -> Iterator[str]:
    """The regexes and grammars in them."""
    for schema in schemas:
        for name, value in schema.items():
            if name in ("pattern", "regex", "grammar", "whitespace_pattern") and isinstance(value, str):
                yield value
            elif name == "patternProperties" and isinstance(value, dict):
                yield from value
