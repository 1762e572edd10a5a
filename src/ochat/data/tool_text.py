"""Tools as text, for those who want to learn from such rows: a conversation here has a user, an assistant, and no other role.

A call becomes a line of JSON in the assistant's turn, a result a user's turn, and the tools that could be called stand in the
system prompt, one a line of JSON. Whoever serves the model has to do the same."""

import json

from ochat.data.turns import CALL_ROLES, RESULT_ROLES, TOOL_LISTS, Row

AS_TEXT = "tools written as text"
_LISTINGS = ("messages", "conversations", "items", "conversation", "prompt", "completion", "chosen", "rejected")


def tools_as_text(row: Row) -> Row:
    """The row with its tools as text; the same row where it has none. What isn't a row or a message stays as it is."""
    found = dict(row)
    tools = []
    for name in TOOL_LISTS:
        if listed := _listed(row.get(name)):
            tools += [_parsed(one) for one in listed]
            del found[name]
    for name in _LISTINGS:
        if isinstance(messages := found.get(name), list):
            found[name] = [_message(one) if isinstance(one, dict) else one for one in messages]
    if tools:
        _add_to_system(found, "You can call these tools:\n" + "\n".join(map(_line, tools)))
    return row if found == row else found


def _listed(value: object) -> list[object]:
    value = _parsed(value)
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _parsed(value: object) -> object:
    """The value that a text of JSON holds; any other as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _line(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _message(given: Row) -> Row:
    role, content = ("from", "value") if "from" in given else ("role", "content")
    calls = [*_listed(given.get("tool_calls")), *_listed(given.get("function_call"))]
    said = str(given.get(role))
    if not calls and said not in CALL_ROLES | RESULT_ROLES:
        return given
    found = {name: value for name, value in given.items() if name not in ("tool_calls", "function_call", "tool_call_id")}
    if said in RESULT_ROLES:
        return {**found, role: "user", content: _text(given.get(content))}
    lines = "\n".join(_line(_call(call)) for call in calls)
    before = given.get(content)
    if isinstance(before, list):
        return {**found, role: "assistant", content: [*before, {"type": "text", "text": f"\n{lines}"}]}
    said_before = [] if before in (None, "") else [_line(before)]
    return {**found, role: "assistant", content: "\n".join([*said_before, *([lines] if lines else [])])}


def _text(value: object) -> object:
    """A result's text; parts of a text stay, to be read as other messages' are."""
    return value if isinstance(value, str | list) or value is None else _line(value)


def _call(call: object) -> object:
    """A call's name and arguments, without its id and kind."""
    inner = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(inner, dict):
        return inner
    return {name: _parsed(value) if name == "arguments" else value for name, value in inner.items()}


def _add_to_system(row: dict[str, object], text: str) -> None:
    """Put the text at the end of the row's system prompt, wherever that is."""
    for name in _LISTINGS:
        messages = row.get(name)
        if isinstance(messages, list) and messages and isinstance(messages[0], dict):
            first = dict(messages[0])
            role, content = ("from", "value") if "from" in first else ("role", "content")
            if first.get(role) in ("system", "developer") and isinstance(first.get(content), str):
                row[name] = [{**first, content: f"{first[content]}\n\n{text}"}, *messages[1:]]
                return
    row["system"] = f"{row['system']}\n\n{text}" if row.get("system") else text
