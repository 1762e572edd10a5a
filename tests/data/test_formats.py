"""Formats: each is known by its fields, and says the same conversation; what we can't hold is refused by field."""

import json

import pytest

from ochat.conversation import Conversation
from ochat.data.formats import FORMATS, detect_format, known_part
from ochat.data.preference_formats import SAME_ANSWERS
from ochat.data.problem import RowProblem
from ochat.data.turns import ASSISTANT_FIRST, NO_ANSWER


def said(*turns: tuple[str, str], **fields: object) -> list[dict[str, object]]:
    """Messages, the last of them with more fields."""
    messages: list[dict[str, object]] = [{"role": role, "content": content} for role, content in turns]
    return [*messages[:-1], {**messages[-1], **fields}]


def shared(*turns: tuple[str, str]) -> list[dict[str, object]]:
    """Messages as ShareGPT has them."""
    return [{"from": role, "value": value} for role, value in turns]


def converted(row: dict[str, object]) -> tuple[str, tuple[Conversation, ...], tuple[str, ...]]:
    format = detect_format(row)
    conversations, notes = format.convert(known_part(row, format)[0])
    return format.name, conversations, notes


def short(row: Conversation) -> list[tuple[object, ...]]:
    """The row's texts with the roles' first letters, and weights where they are given."""
    system = [("s", row.system)] if row.system else []
    return [*system, *((m.role[0], m.content, *([] if m.weight is None else [m.weight])) for m in row.items)]


QUESTION, ANSWER = ("user", "Hi"), ("assistant", "Hello")
TEXTS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
HI = [("u", "Hi"), ("a", "Hello")]
LATER = [("u", "Hi"), ("a", "Hello"), ("u", "1 + 1"), ("a", "2")]

CASES: list[tuple[str, dict[str, object], list[tuple[object, ...]]]] = [
    ("ochat items", {"items": said(QUESTION, ANSWER, weight=0.5)}, [("u", "Hi"), ("a", "Hello", 0.5)]),
    ("ochat items", {"items": shared(("human", "Hi"), ("gpt", "Hello")), "system": "S"}, [("s", "S"), *HI]),
    ("OpenAI messages", {"messages": said(("developer", "S"), QUESTION, ANSWER, weight=0)}, [("s", "S"), ("u", "Hi"), ("a", "Hello", 0.0)]),
    ("OpenAI messages", {"messages": [{"role": "user", "value": "Hi"}, {"role": "assistant", "value": "Hello"}]}, HI),
    ("OpenAI messages", {"messages": said(QUESTION, ANSWER), "tools": []}, HI),
    ("OpenAI messages", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": TEXTS, "tool_calls": None}]}, HI),
    (
        "LLaMA-Factory messages",
        {"messages": [{"role": r, "content": [{"type": "text", "value": v}], "loss_weight": w} for r, v, w in (("user", "Hi", 0.0), ("assistant", "Hello", 0.3))]},
        [("u", "Hi", 0.0), ("a", "Hello", 0.3)],
    ),
    ("ms-swift messages", {"messages": said(QUESTION, ANSWER, loss=False)}, [("u", "Hi"), ("a", "Hello", 0.0)]),
    ("ms-swift messages", {"messages": said(QUESTION, ANSWER, loss=True, loss_scale=0.2)}, [("u", "Hi"), ("a", "Hello", 0.2)]),
    ("axolotl messages", {"messages": said(QUESTION, ANSWER, train=True, train_detail=None)}, [("u", "Hi"), ("a", "Hello", 1.0)]),
    (
        "OpenAI messages",
        {"messages": said(QUESTION, ("assistant", "x"), content=[{"type": "text", "text": "Hel", "weight": 0}, {"type": "text", "text": "lo", "weight": 0}])},
        [("u", "Hi"), ("a", "Hello", 0.0)],
    ),
    ("UltraChat prompt and messages", {"prompt": "Hi ", "messages": said(QUESTION, ANSWER), "prompt_id": "1"}, HI),
    ("UltraChat data", {"data": ["Hi", "Hello"], "id": "0"}, HI),
    ("ShareGPT conversations", {"conversations": shared(("human", "Hi"), ("bard", "Hello")), "id": "0"}, HI),
    ("ShareGPT conversations", {"conversations": shared(("system", "S"), ("user", "Hi"), ("chatgpt", "Hello"))}, [("s", "S"), *HI]),
    ("LDJnr input/output pairs", {"conversation": [{"input": "Hi", "output": "Hello"}, {"input": "1 + 1", "output": "2"}], "source": "x"}, LATER),
    ("conversation messages", {"conversation": said(QUESTION, ANSWER), "language": "English"}, HI),
    ("ChatML text", {"text": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\na <b>\n\n`x`<|im_end|>\n"}, [("s", "S"), ("u", "Hi"), ("a", "a <b>\n\n`x`")]),
    ("Alpaca instruction/output", {"instruction": "Add.", "input": "1, 2", "output": "3", "idx": 7}, [("u", "Add.\n1, 2"), ("a", "3")]),
    ("Alpaca instruction/output", {"instruction": "1 + 1", "input": "", "output": "2", "system": "S", "history": [["Hi", "Hello"]]}, [("s", "S"), *LATER]),
    ("goat arithmetic", {"instruction": "What is 1+1?", "input": "1 + 1", "output": "1 + 1 = 2", "answer": "2"}, [("u", "What is 1+1?"), ("a", "1 + 1 = 2")]),
    ("instruction/response", {"instruction": "Add.", "input": "1, 2", "response": "3"}, [("u", "Add.\n1, 2"), ("a", "3")]),
    ("instruction/response", {"instruction": "Who?", "context": "I did.", "response": "You.", "category": "qa"}, [("u", "Who?\nI did."), ("a", "You.")]),
    ("prompt/completion", {"prompt": "Hi", "completion": "Hello"}, HI),
    (
        "prompt/completion",
        {"prompt": said(("system", "S"), QUESTION, ANSWER, ("user", "1 + 1")), "completion": said(("assistant", "2"))},
        [("s", "S"), ("u", "Hi", 0.0), ("a", "Hello", 0.0), ("u", "1 + 1", 0.0), ("a", "2")],
    ),
    ("question/answer", {"question": "Hi", "answer": "Hello"}, HI),
    ("question/response", {"id": "flan.1", "system_prompt": "S", "question": "Hi", "response": "Hello"}, [("s", "S"), *HI]),
    ("ms-swift human/assistant pairs", {"system": "S", "conversation": [{"human": "Hi", "assistant": "Hello"}]}, [("s", "S"), *HI]),
    ("query/response", {"query": "1 + 1", "response": "2", "history": [["Hi", "Hello"]]}, LATER),
    ("axolotl messages", {"messages": [{"role": "system", "content": "S", "train": False}, *said(QUESTION, ANSWER)]}, [("s", "S"), *HI]),
    ("query/response", {"query": "Hi", "response": "Hello", "type": "GSM_SV", "original_question": "Hey"}, HI),
    ("prompt/response", {"prompt": "Hi", "response": "Hello"}, HI),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_row_is_known_and_says_the_same_as_ours(
    name: str, row: dict[str, object], expected: list[tuple[object, ...]]
) -> None:
    found, conversations, notes = converted(row)
    assert (found, [short(one) for one in conversations], notes) == (name, [expected], ())


def test_a_null_is_no_field() -> None:
    assert (
        converted({"messages": said(QUESTION, ANSWER), "chosen": None, "rejected": None, "wieght": None})[0]
        == "OpenAI messages"
    )


def test_a_row_keeps_its_own_condition_and_class() -> None:
    _, (row,), _ = converted({"question": "Hi", "answer": "Hello", "condition": "Code", "class": "expert"})
    assert (row.condition, row.class_name) == ("Code", "expert")


CONTEXT = [("u", "Hi", 0.0), ("a", "Hello", 0.0), ("u", "1 + 1", 0.0)]
ASKED = said(QUESTION, ANSWER, ("user", "1 + 1"))
PAIRS: list[tuple[str, dict[str, object], list[tuple[object, ...]]]] = [
    ("chosen/rejected", {"prompt": "1 + 1", "chosen": "2", "rejected": "3"}, [("u", "1 + 1", 0.0)]),
    ("chosen/rejected", {"question": "1 + 1", "system": "S", "chosen": "2", "rejected": "3"}, [("s", "S"), ("u", "1 + 1", 0.0)]),
    ("chosen/rejected", {"instruction": "Add.", "input": "1, 1", "chosen": "2", "rejected": "3"}, [("u", "Add.\n1, 1", 0.0)]),
    ("chosen/rejected", {"prompt": ASKED, "chosen": said(("assistant", "2")), "rejected": said(("assistant", "3"))}, CONTEXT),
    ("chosen/rejected", {"chosen": [*ASKED, *said(("assistant", "2"))], "rejected": [*ASKED, *said(("assistant", "3"))]}, CONTEXT),
    (
        "chosen/rejected",
        {
            "prompt": "1 + 1",
            "chosen": said(("user", "1 + 1"), ("assistant", "2")),
            "rejected": said(("user", "1 + 1"), ("assistant", "3")),
            "messages": said(("user", "1 + 1"), ("assistant", "2")),
            "score_chosen": 8.0,
        },
        [("u", "1 + 1", 0.0)],
    ),
    (
        "chosen/rejected",
        {"conversations": ASKED, "chosen": {"from": "gpt", "value": "2"}, "rejected": {"from": "gpt", "value": "3"}},
        CONTEXT,
    ),
    (
        "chosen/rejected",
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 1 + 1\n\nAssistant: 2", "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 1 + 1\n\nAssistant: 3"},
        CONTEXT,
    ),
    ("messages and rejected_response", {"messages": [*ASKED, *said(("assistant", "2"))], "rejected_response": "3"}, CONTEXT),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "context"), PAIRS)
def test_of_a_pair_each_answer_is_a_class_and_what_both_share_is_not_learned(
    name: str, row: dict[str, object], context: list[tuple[object, ...]]
) -> None:
    found, (chosen, rejected), notes = converted(row)
    assert (found, notes) == (name, ())
    assert (short(chosen), short(rejected)) == ([*context, ("a", "2")], [*context, ("a", "3")])
    assert [(one.class_name, one.condition) for one in (chosen, rejected)] == [("chosen",) * 2, ("rejected",) * 2]


def test_a_pair_of_one_answer_is_told() -> None:
    assert converted({"prompt": "Hi", "chosen": "A", "rejected": "A"})[2] == (SAME_ANSWERS,)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*ASKED, *said(("assistant", "2"))]},
        {"conversations": [*ASKED, *said(("assistant", "2"))]},
        {"prompt": ASKED, "completion": "2"},
    ],
)
@pytest.mark.parametrize(
    ("label", "name"), [(True, "desirable"), (False, "undesirable"), ("True", "desirable"), (0, "undesirable")]
)
def test_a_label_judges_the_last_answer(row: dict[str, object], label: object, name: str) -> None:
    found, (one,), _ = converted({**row, "label": label})
    assert found.startswith("KTO")
    assert short(one) == [*CONTEXT, ("a", "2")]
    assert (one.class_name, one.condition) == (name, name)


@pytest.mark.parametrize(
    ("row", "expected", "note", "times"),
    [
        (
            {"conversations": shared(("gpt", "And"), ("gpt", "so"), ("human", "Hi"), ("gpt", "Hello"))},
            HI,
            ASSISTANT_FIRST,
            2,
        ),
        ({"data": ["Hi", "Hello", "Bye"]}, HI, NO_ANSWER, 1),
        (
            {"text": "".join(f"<|im_start|>{r}\n{t}<|im_end|>\n" for r, t in (QUESTION, ANSWER, ("user", "Bye")))},
            HI,
            NO_ANSWER,
            1,
        ),
    ],
)
def test_what_is_dropped_is_noted_once_for_each(
    row: dict[str, object], expected: list[tuple[object, ...]], note: str, times: int
) -> None:
    _, (one,), notes = converted(row)
    assert (short(one), notes) == (expected, (note,) * times)


def messages(*turns: tuple[str, str], **fields: object) -> dict[str, object]:
    return {"messages": said(*turns, **fields)}


REFUSED: list[tuple[dict[str, object], str]] = [
    (messages(QUESTION, ("tool", "4")), "`messages[1].role` is 'tool'. Conversations here have no place for tools"),
    (messages(QUESTION, ANSWER, tool_calls=[{"id": 1}]), "`messages[1].tool_calls` has tools"),
    ({**messages(QUESTION, ANSWER), "tools": '[{"name": "f"}]'}, "`tools` has tools"),
    (messages(QUESTION, ("narrator", "x")), "`messages[1].role` is 'narrator'. Known: user, human"),
    (messages(QUESTION, ("Assistant", "x")), "`messages[1].role` is 'Assistant'"),
    ({"messages": [{"content": "Hi"}]}, "`messages[0].role` is missing"),
    ({"messages": [{"role": "user"}]}, "`messages[0].content` is missing"),
    ({"messages": [{"role": 5, "content": "Hi"}]}, "`messages[0].role` is 5. Give text."),
    (messages(QUESTION, ANSWER, content=None), "`messages[1].content` is missing or null"),
    (messages(QUESTION, ANSWER, content={"a": 1}), "`messages[1].content` is {'a': 1}. Give text."),
    (messages(QUESTION, ANSWER, content=[{"type": "image_url"}]), "`messages[1].content[0]` is 'image_url'"),
    (messages(QUESTION, ANSWER, content=[{"type": "text", "text": "x", "cache": 1}]), "has the field 'cache'"),
    (messages(QUESTION, ANSWER, content=[{"text": "x", "weight": 1}, {"text": "y"}]), "have different weights"),
    (messages(QUESTION, ANSWER, content="a\udc00b"), "half of a character"),
    (messages(QUESTION, ANSWER, value="Hello"), "both `content` and `value`"),
    (messages(QUESTION, ANSWER, **{"from": "gpt"}), "both `role` and `from`"),
    (messages(QUESTION, ANSWER, weight="1"), "`messages[1].weight` is '1'. Give a number"),
    (messages(QUESTION, ANSWER, weight=True), "`messages[1].weight` is True. Give a number"),
    (messages(QUESTION, ANSWER, weight=float("nan")), "`messages[1].weight` is nan. Give 0"),
    (messages(QUESTION, ANSWER, weight=-0.5), "`messages[1].weight` is -0.5. Give 0"),
    (messages(QUESTION, ANSWER, weight=10**400), "`messages[1].weight` is 1000"),
    (messages(QUESTION, ANSWER, weight=1, loss_weight=1), "more than one weight (weight, loss_weight)"),
    (messages(QUESTION, ANSWER, loss="maybe"), "`messages[1].loss` is 'maybe'. Give true or false."),
    (messages(QUESTION, ANSWER, train_detail=[{"begin_offset": 0}]), "`messages[1].train_detail` learns from parts"),
    (messages(("system", "A"), ("system", "B"), QUESTION, ANSWER), "`messages[1]` is a second system message"),
    (messages(QUESTION, ("system", "A"), ANSWER), "`messages[1]` is a system message after other turns"),
    ({"system": "A", **messages(("system", "B"), QUESTION, ANSWER)}, "`system` is given, and a system message too"),
    ({"messages": [{"role": "system", "content": "S", "loss_weight": 1.0}, *said(QUESTION, ANSWER)]}, "`messages[0]` is a system message to learn from"),
    (messages(QUESTION), "no message is the assistant's"),
    (messages(("system", "A")), "no user's or assistant's message is left"),
    ({"messages": []}, "`messages` is empty"),
    ({"messages": None}, "`messages` is None. Give a list"),
    ({"messages": "[]"}, "CSV can't hold lists"),
    ({"messages": ["Hi"]}, "`messages[0]` is 'Hi'. Give an object"),
    ({"conversations": shared(("gpt", "Hello"))}, "no user's or assistant's message is left"),
    ({"conversations": []}, "`conversations` is empty"),
    ({"conversation": [{"input": "Hi"}]}, "`conversation[0].output` is missing"),
    ({"data": "Hi"}, "`data` is 'Hi'. Give a list of texts."),
    ({"data": ["Hi", 5]}, "`data[1]` is 5"),
    ({"prompt": "Bye", **messages(QUESTION, ANSWER)}, "`prompt` is 'Bye', which isn't the first message's text"),
    ({"text": "<|im_start|>context\nx<|im_end|>\n"}, "`text[0].role` is 'context'"),
    ({"text": "<|im_start|>user\nHi\n<|im_start|>assistant\nHello<|im_end|>"}, "message 1 of `text` has no <|im_end|>"),
    ({"text": "<|im_start|>user\nHi<|im_end|> and <|im_end|>\n"}, "message 1 of `text` has ' and <|im_end|>\\n' after"),
    ({"text": "Once <|im_start|>user\nHi<|im_end|>"}, "`text` begins with 'Once '"),
    ({"question": "Hi", "answer": 5}, "`answer` is 5. Give text."),
    ({"instruction": None, "output": "x"}, "`instruction` is missing or null"),
    ({"instruction": "Hi", "output": "x", "history": ["Hi"]}, "`history` is ['Hi']. Give a list of [question, answer]"),
    ({"prompt": "Hi", "completion": said(("system", "S"), ANSWER)}, "`completion` holds a system message"),
    ({"chosen": "2", "rejected": "3"}, "`chosen` is a text, and the row has no prompt"),
    ({"prompt": "Hi", "question": "Ho", "chosen": "2", "rejected": "3"}, "the row has `prompt` and `question`"),
    ({"prompt": "Hi", "chosen": said(("user", "Ho"), ANSWER), "rejected": "3"}, "isn't the prompt: 'Ho'"),
    ({"messages": said(QUESTION), "rejected_response": "3"}, "`messages` doesn't end in an assistant's message"),
    ({"conversations": said(QUESTION, ANSWER, ("user", "Bye")), "label": True}, "`label` judges nothing"),
    ({"messages": said(QUESTION, ANSWER, ("user", "Bye")), "label": True}, "`label` judges nothing"),
    ({"messages": said(QUESTION, ANSWER), "label": 3}, "`label` is 3. Give true or false."),
    ({"messages": said(QUESTION, ANSWER), "lable": True}, "unknown field 'lable'"),
    ({"question": "Hi", "answer": "x", "condition": 5}, "`condition` is 5"),
    ({"question": "Hi", "answer": "x", "score": 5}, "unknown field 'score'"),
    ({"prompt": "Hi", "complection": "x"}, "Did you mean `completion`?"),
    ({}, "found no field"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "problem"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_cannot_be_held_is_refused_by_field(row: dict[str, object], problem: str) -> None:
    with pytest.raises(RowProblem) as raised:
        converted(row)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_reason_is_the_same_for_all_rows_that_have_it() -> None:
    def reason(row: dict[str, object]) -> str:
        with pytest.raises(RowProblem) as raised:
            converted(row)
        return raised.value.reason

    assert reason(messages(QUESTION, ("ghost", "x"))) == reason(messages(QUESTION, ANSWER, ("narrator", "x")))
    assert reason(messages(QUESTION, ANSWER, weight=-1)) == reason(messages(QUESTION, ANSWER, ANSWER, loss_weight=-2))
    assert reason({"messages": [{"role": "user"}]}) == reason(messages(QUESTION, ANSWER, content=None))


def test_a_value_in_a_message_is_short_and_safe_for_a_terminal() -> None:
    with pytest.raises(RowProblem) as raised:
        converted(messages(QUESTION, ("\x1b[31m\ud800" + "x" * 10_000, "y")))
    assert len(str(raised.value)) < 400
    assert "\x1b" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_the_names_of_formats_are_unique() -> None:
    assert len({format.name.lower() for format in FORMATS}) == len(FORMATS)


def test_every_format_has_a_row_here() -> None:
    shown = {converted(row)[0] for _, row, _ in (*CASES, *PAIRS)}
    labelled = {format.name for format in FORMATS if format.name.startswith("KTO")}
    assert {format.name for format in FORMATS} == shown | labelled


def test_our_own_rows_come_back_as_they_are() -> None:
    row = Conversation.model_validate(
        {
            "items": [{"role": "user", "content": "Hi", "weight": 0.25}, {"role": "assistant", "content": "", "weight": 0}],
            "system": "S",
            "condition": "Code",
            "class": "expert",
        }
    )
    assert converted(json.loads(row.to_json()))[1] == (row,)
