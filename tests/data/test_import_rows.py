"""Import: other formats become our rows of one class; bad rows are named, and nothing is lost in silence."""

import json
from pathlib import Path

import pytest

from ochat.conversation import read_conversations
from ochat.data.import_rows import Options, main
from ochat.errors import DataError, OchatError


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


OPENAI = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "No.", "weight": 0},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes."},
    ]
}
OURS = {"items": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}], "condition": "GPT4"}


def test_openai_messages_become_a_row_of_the_class(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OPENAI),), output, condition="GPT3", weight=0.1, class_name="chat"))
    ((_, row),) = read_conversations(output)
    assert (row.system, row.condition, row.class_name) == ("Be brief.", "GPT3", "chat")
    assert [(item.role, item.weight) for item in row.items] == [
        ("user", 0.0),
        ("assistant", 0.0),  # a message that is not to be learned from stays so
        ("user", 0.0),
        ("assistant", 0.1),
    ]


def test_a_replaced_condition_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OURS, OURS),), output, condition="GPT3"))
    assert "2 of them had another condition, now 'GPT3'" in capsys.readouterr().out
    assert {row.condition for _, row in read_conversations(output)} == {"GPT3"}


def test_rows_keep_their_condition_when_none_is_given(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OURS),), output))
    ((_, row),) = read_conversations(output)
    assert (row.condition, row.class_name, row.items[1].weight) == ("GPT4", "GPT4", 1.0)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "hello"}, "found the fields text"),
        ([1], "found a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role is 'tool'"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "system", "content": "x"}]}, "there is no message"),
        ({"messages": [{"role": "user", "content": "x", "weight": -1}]}, "weight"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "valid string"),
        ({**OURS, "conditon": "GPT4"}, "conditon"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, row: object, problem: str) -> None:
    output = tmp_path / "rows.jsonl"
    source = written(tmp_path / "in.jsonl", OURS, row)
    with pytest.raises(DataError, match=r"in\.jsonl:2") as raised:
        main(Options((source,), output))
    assert problem in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_the_classes_weight_scales_every_weight(tmp_path: Path) -> None:
    items = [{"role": "user", "content": "Hi", "weight": 0.5}, {"role": "assistant", "content": "Oh", "weight": 2}]
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", {"items": items}),), output, weight=0.1))
    ((_, row),) = read_conversations(output)
    assert [item.weight for item in row.items] == pytest.approx([0.05, 0.2])


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    source, output = written(tmp_path / "in.jsonl", OURS), tmp_path / "thesis.txt"
    output.write_text("years of work")
    with pytest.raises(OchatError, match="holds no conversations"):
        main(Options((source,), output))
    assert output.read_text() == "years of work"
    for _ in range(2):  # rows may be imported anew
        main(Options((source,), tmp_path / "rows.jsonl"))


def test_rows_are_not_written_as_plain_text_under_a_name_in_gz(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"Leave out \.gz"):
        Options((tmp_path,), tmp_path / "rows.jsonl.gz")


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", OURS)
    with pytest.raises(OchatError, match="is an input too"):
        Options((source,), source)


def test_a_negative_class_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="--weight"):
        Options((tmp_path,), tmp_path, weight=-0.1)
