"""Turns: a row opens with a user, ends with an assistant, and they take turns; what is lost is named."""

import pytest

from ochat.conversation import Conversation, Message
from ochat.data.clean.turns import in_turns


def row(turns: str) -> Conversation:
    """`u:a a:b` is a user who says a and an assistant who says b; `_` says nothing."""
    roles = {"u": "user", "a": "assistant"}
    pairs = [turn.split(":") for turn in turns.split()]
    return Conversation(
        items=tuple(Message.model_validate({"role": roles[who], "content": said.replace("_", " \n")}) for who, said in pairs)
    )


def texts(conversation: Conversation) -> str:
    return " ".join(f"{item.role[0]}:{item.content}" for item in conversation.items)


@pytest.mark.parametrize(
    ("given", "expected", "changes"),
    [
        ("u:1 a:2 u:3 a:4", "u:1 a:2 u:3 a:4", ()),
        ("a:0 u:1 a:2", "u:1 a:2", ("leading assistant turn removed",)),
        ("u:1 a:2 u:3", "u:1 a:2", ("trailing user turn removed",)),
        ("u:1 u:2 a:3", "u:1\n\n2 a:3", ("turns of one role joined",)),
        ("u:1 a:2 a:3", "u:1 a:2\n\n3", ("turns of one role joined",)),
        ("a:0 a:0 u:1 a:2", "u:1 a:2", ("turns of one role joined", "leading assistant turn removed")),
        ("u:1 a:_ u:2 a:3", "u:1\n\n2 a:3", ("empty turns removed", "turns of one role joined")),
        ("u:1 a:2 u:_", "u:1 a:2", ("empty turns removed",)),
    ],
)
def test_turns_are_put_in_order(given: str, expected: str, changes: tuple[str, ...]) -> None:
    outcome = in_turns(row(given))
    assert (texts(outcome.rows[0]), outcome.changes) == (expected, changes)


@pytest.mark.parametrize("given", ["u:1", "a:1", "u:_ a:1", "u:1 a:_", "u:_", "a:1 u:2"])
def test_a_row_without_a_question_and_its_reply_is_dropped(given: str) -> None:
    assert in_turns(row(given)) == ((), (), "no question with a reply", "")


def test_a_reply_that_is_learned_from_is_not_joined_to_one_that_is_not() -> None:
    said = [Message(role="assistant", content="x", weight=weight) for weight in (0.0, 1.0)]
    outcome = in_turns(Conversation(items=(Message(role="user", content="q"), *said)))
    assert outcome.dropped == "turns of one role and different weights in a row"


def test_an_absent_weight_is_its_roles() -> None:
    said = [Message(role="assistant", content="x", weight=weight) for weight in (None, 1.0)]
    (joined,) = in_turns(Conversation(items=(Message(role="user", content="q"), *said))).rows
    assert joined.items[1].content == "x\n\nx"
