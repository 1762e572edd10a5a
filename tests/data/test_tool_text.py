"""Tools as text: calls, results and the list of tools stay in the conversation, in roles that it has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.conversation import Conversation, read_conversations
from ochat.data.import_rows import Options, main
from ochat.data.tool_text import tools_as_text
from ochat.errors import DataError

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
OPENAI = {
    "tools": [TOOL],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "1", "name": "add", "content": "3"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": {"sum": 3}},
        {"role": "assistant", "content": "3"},
    ],
}
SHAREGPT = {
    "tools": json.dumps([TOOL]),
    "conversations": [
        {"from": "human", "value": "1 + 2?"},
        {"from": "function_call", "value": '{"name": "add"}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "3"},
    ],
}
AS_JSON = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
LIST = f"You can call these tools:\n{json.dumps(TOOL)}"


def imported(tmp_path: Path, row: object) -> Conversation:
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    main(Options((tmp_path / "in.jsonl",), tmp_path / "rows.jsonl", tools_as_text=True))
    ((_, found),) = read_conversations(tmp_path / "rows.jsonl")
    return found


def test_calls_become_the_assistants_text_and_results_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = imported(tmp_path, OPENAI)
    assert row.system == f"Be brief.\n\n{LIST}"
    assert [(item.role, item.content, item.weight) for item in row.items] == [
        ("user", "1 + 2?", 0.0),
        ("assistant", f"Let me see.\n{AS_JSON}\n{AS_JSON}", 1.0),
        ("user", "3", 0.0),
        ("assistant", AS_JSON, 1.0),
        ("user", '{"sum": 3}', 0.0),
        ("assistant", "3", 1.0),
    ]
    assert "1 time: tools written as text" in capsys.readouterr().out


def test_sharegpts_roles_for_tools_do_too(tmp_path: Path) -> None:
    row = imported(tmp_path, SHAREGPT)
    assert row.system == LIST
    assert [(item.role, item.content) for item in row.items] == [
        ("user", "1 + 2?"),
        ("assistant", '{"name": "add"}'),
        ("user", "3"),
        ("assistant", "3"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi", "name": "Bo"}, {"role": "assistant", "content": "Ho"}], "tools": []},
        {"question": "Hi", "answer": "Ho", "tools": None},
        {"messages": "no list", "functions": ""},
        {"messages": [None, 5, {"role": ["tool"]}]},
    ],
)
def test_a_row_without_tools_stays_as_it_is(row: dict[str, object]) -> None:
    assert tools_as_text(row) is row


def test_parts_of_a_text_stay_before_the_calls() -> None:
    parts = [{"type": "text", "text": "Well."}]
    found = tools_as_text({"messages": [{"role": "assistant", "content": parts, "tool_calls": [CALL]}]})
    assert found == {"messages": [{"role": "assistant", "content": [*parts, {"type": "text", "text": f"\n{AS_JSON}"}]}]}


def test_without_the_option_such_a_row_is_refused_and_the_option_named(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(OPENAI))
    with pytest.raises(DataError, match="take the calls as text: --tools-as-text"):
        main(Options((tmp_path / "in.jsonl",), tmp_path / "rows.jsonl"))


def test_real_rows_with_tools_are_all_taken(
    test_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = test_file("train/llamafactory_glaive_toolcall_en_demo.jsonl.gz")
    main(Options((source,), tmp_path / "rows.jsonl", tools_as_text=True))
    out = capsys.readouterr().out
    assert "300 rows of ShareGPT conversations" in out
    assert "191 times: tools written as text" in out
