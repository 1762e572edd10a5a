from collections.abc import Iterable
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ochat.serving.messages import read_messages

USER = {"role": "user", "content": "Hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "http://localhost:1/x.png"}}


def test_messages_become_a_conversation() -> None:
    row = read_messages([{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Yes?"}], "Code")
    assert [(item.role, item.content) for item in row.items] == [("user", "Hi"), ("assistant", "Yes?")]
    assert (row.system, row.condition) == ("Be brief.", "Code")


def test_system_and_developer_messages_at_the_start_are_one_system_text() -> None:
    row = read_messages([{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, USER], "")
    assert row.system == "a\nb"


def test_text_parts_are_joined_even_when_they_can_be_read_only_once() -> None:
    parts = iter([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}])
    assert read_messages([{"role": "user", "content": parts}], "").items[0].content == "a\nb"


def test_a_part_that_vllm_does_not_know_is_refused_without_its_insides() -> None:
    class Part(TypedDict):
        type: Literal["text"]

    parts = TypeAdapter(Iterable[Part]).validate_python([{"type": "smell"}])  # as vLLM's requests hold them
    with pytest.raises(ValueError, match=r"^messages\[0\].content has a part of no known type"):
        read_messages([{"role": "user", "content": parts}], "")


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([], "no user message"),
        ([{"role": "system", "content": "x"}], "no user message"),
        (["Hi"], r"messages\[0\] is 'Hi'"),
        ([USER, {"role": "system", "content": "x"}], r"messages\[1\] has role 'system' after"),
        ([USER, {"role": "tool", "content": "x"}], r"messages\[1\] has role 'tool'"),
        ([{"role": ["user"], "content": "x"}], r"has role \['user'\]"),
        ([{"content": "x"}], "has role None"),
        ([{"role": "user"}], "content is None"),
        ([{"role": "user", "content": 5}], "content is 5"),
        ([{"role": "user", "content": {"text": "x"}}], "content is {"),
        ([{"role": "user", "content": [IMAGE]}], "part of type 'image_url'"),
        ([{"role": "user", "content": ["x"]}], "part of type 'str'"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "without a string `text`"),
        ([{**USER, "name": "Ada"}], "has `name`"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "has `tool_calls`"),
        ([{"role": "user", "content": "\ud83d"}], "half of a character"),
    ],
)
def test_what_the_template_has_no_place_for_is_refused_by_name(messages: list[dict[str, object]], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        read_messages(messages, "")


@pytest.mark.parametrize(
    "message",
    [
        "x" * 100_000,
        {"role": "x" * 100_000, "content": "a"},
        {"role": "user", "content": 10**4000},
        {"role": "user", "content": [{"type": "x" * 100_000}]},
        {"role": "user", "content": "a", "x" * 100_000: 1},
    ],
)
def test_what_a_message_cannot_be_is_not_repeated_whole(message: Any) -> None:
    with pytest.raises(ValueError, match="messages") as raised:
        read_messages([message], "Code")
    assert len(str(raised.value)) < 300
