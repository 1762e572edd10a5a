"""A columns file: rows of no known format become conversations; a file that can't be used is named."""

import json
from pathlib import Path

import pytest

from ochat.data.columns import read_columns
from ochat.data.formats import known_part
from ochat.data.problem import RowProblem
from ochat.errors import OchatError


def converted(tmp_path: Path, columns: str, row: dict[str, object]) -> list[object]:
    """The conversations that a row becomes, as JSON has them."""
    path = tmp_path / "columns.yaml"
    path.write_text(columns)
    format = read_columns(path)
    assert format.detect(row)
    return [json.loads(one.to_json()) for one in format.convert(known_part(row, format)[0]).rows]


def turn(role: str, content: str, **fields: object) -> dict[str, object]:
    return {"role": role, "content": content, **fields}


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("prompt: q\nanswer: a", {"q": "Hi", "a": "Hello"}, {"items": [turn("user", "Hi"), turn("assistant", "Hello")]}),
        (
            "{prompt: [q, more], answer: a, system: s, condition: c, class: k, weight: w}",
            {"q": "Add.", "more": "", "a": "3", "s": "S", "c": "GPT4", "k": "expert", "w": "0.5", "id": 7},
            {
                "items": [turn("user", "Add."), turn("assistant", "3", weight=0.5)],
                "system": "S",
                "condition": "GPT4",
                "class": "expert",
            },
        ),
        (
            "{messages: talk, role: who, content: says, roles: {me: user, it: assistant}, weight: w}",
            {
                "talk": [{"who": "me", "says": "Hi"}, {"who": "it", "says": "Hello"}, {"who": "it", "says": "?", "weight": 0}],
                "w": 2,
            },
            {"items": [turn("user", "Hi"), turn("assistant", "Hello", weight=2.0), turn("assistant", "?", weight=0.0)]},
        ),
    ],
)
def test_columns_become_a_conversation(tmp_path: Path, columns: str, row: dict[str, object], expected: object) -> None:
    assert converted(tmp_path, columns, row) == [expected]


def test_several_answers_to_a_prompt_are_as_many_classes(tmp_path: Path) -> None:
    rows = converted(tmp_path, "{prompt: q, answer: {good: GPT4, bad: GPT3}}", {"q": "Hi", "good": "Hello", "bad": "What?"})
    assert rows == [
        {"items": [turn("user", "Hi"), turn("assistant", answer)], "condition": name, "class": name}
        for answer, name in (("Hello", "GPT4"), ("What?", "GPT3"))
    ]


def test_columns_within_columns_are_read_too(tmp_path: Path) -> None:
    row = {"q": "Hi", "answers": {"gpt-3.5": "Hello", "other": "not read"}, "meta": {"system": "S"}}
    (found,) = converted(tmp_path, "{prompt: q, answer: {answers.gpt-3.5: GPT3}, system: meta.system}", row)
    items = [turn("user", "Hi"), turn("assistant", "Hello")]
    assert found == {"items": items, "condition": "GPT3", "class": "GPT3", "system": "S"}
    with pytest.raises(RowProblem, match=r"`answers\.gpt-4` is missing"):
        converted(tmp_path, "{prompt: q, answer: answers.gpt-4}", row | {"meta": None})


@pytest.mark.parametrize(
    ("columns", "row", "problem"),
    [
        ("{prompt: q, answer: a}", {"q": "Hi", "A": "x"}, "unknown field 'A'"),
        ("{prompt: q, answer: a}", {"q": "Hi"}, "`a` is missing"),
        ("{prompt: q, answer: a, weight: w}", {"q": "Hi", "a": "x", "w": "much"}, "`w` is 'much'. Give a number"),
        ("{prompt: q, answer: a, weight: w}", {"q": "Hi", "a": "x", "w": "nan"}, "`w` is nan. Give 0"),
        ("{messages: m, role: who}", {"m": [{"role": "user", "content": "x"}]}, "unknown field 'role' in `m[0]`"),
        ("{messages: m, role: who}", {"m": [{"who": "me", "content": "x"}]}, "`m[0].who` is 'me'. Known: user"),
        ("{messages: m}", {}, "`m` is None. Give a list"),
    ],
)
def test_a_row_that_the_columns_do_not_fit_is_refused(
    tmp_path: Path, columns: str, row: dict[str, object], problem: str
) -> None:
    with pytest.raises(RowProblem) as raised:
        converted(tmp_path, columns, row)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("", "Known fields: prompt, answer, messages"),
        ("prompt: q", "name either `prompt: COLUMN` and `answer: COLUMN`, or `messages: COLUMN`"),
        ("{prompt: q, answer: a, messages: m}", "name either"),
        ("{promt: q, answer: a}", "promt: Extra inputs are not permitted"),
        ("{prompt: 5, answer: a}", "prompt.str: Input should be a valid string"),
        ("{messages: m, roles: {me: narrator}}", "roles.me: Input should be 'user', 'assistant' or 'system'"),
        ("{prompt: q, answer: {a: GPT4}, class: k}", "leave no place for `condition` and `class`"),
        ("[", "can't be read as YAML"),
    ],
)
def test_a_columns_file_that_cannot_be_used_is_named(tmp_path: Path, columns: str, problem: str) -> None:
    path = tmp_path / "columns.yaml"
    path.write_text(columns)
    with pytest.raises(OchatError, match=r"columns\.yaml") as raised:
        read_columns(path)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_absent_columns_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"absent\.yaml can't be read"):
        read_columns(tmp_path / "absent.yaml")
