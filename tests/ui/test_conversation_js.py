"""What is asked, kept and exported of a conversation, and what the server's answers become; no browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from ochat import cli
from ochat.conversation import Conversation, read_conversations
from ochat.registry import load_template, model_type

Js = Callable[..., Any]

HARNESS = (Path(__file__).parent / "harness.js").as_uri()


@pytest.fixture
def ask(js: Js) -> Js:
    """Call a function of conversation.js, stream.js or tokens.js; messages are given as lists."""
    return lambda name, *given: js(HARNESS, name, *given)


def message(id: str, parent: str | None, role: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"id": id, "parent": parent, "role": role, "content": id.upper(), "created": int(id[1:]), **more}


# u1 was answered twice, then side by side; the second side by side reply was gone on with.
TREE = [
    message("u1", None, "user"),
    message("a2", "u1"),
    message("a3", "u1"),
    message("a4", "u1", group="g"),
    message("a5", "u1", group="g"),
    message("u6", "a5", "user"),
    message("a7", "u6"),
]


def test_a_conversation_is_a_path_through_versions(ask: Js) -> None:
    assert ask("path", TREE, "a7") == ["u1", "a5", "u6", "a7"]
    assert ask("versions", TREE, "u1") == [["a2"], ["a3"], ["a4", "a5"]]
    assert ask("newest", TREE, "u1") == "a7"
    assert ask("newest", TREE, "a2") == "a2"
    assert ask("newest", [*TREE[:4], {**TREE[4], "vote": "chosen"}], "u1") == "a5"


def test_a_circle_that_somebody_made_in_the_browsers_storage_has_an_end(ask: Js) -> None:
    circle = [
        message("a1", "u2"),
        message("u2", "a1", "user"),
        {**message("a3", "u2"), "content": {}},
        message("x4", None, "boss"),
    ]
    assert ask("keptPath", circle, "a1") == ["u2", "a1"]
    assert ask("keptPath", circle, "a3") == ask("keptPath", circle, "x4") == []


@pytest.mark.parametrize(
    "kept",
    [None, 5, "x", [], {"lanes": [None, 5], "settings": "abc", "system": {"a": 1}}, {"lanes": [], "settings": {"seed": "1"}}],
)
def test_whatever_was_kept_of_a_conversation_makes_a_whole_one(ask: Js, kept: Any) -> None:
    made = ask("newConversation", kept)
    assert {name: made[name] for name in ("system", "settings", "lanes")} == {
        "system": "",
        "settings": {"temperature": None, "top_p": None, "max_tokens": None, "seed": None},
        "lanes": [{}],
    }
    if isinstance(kept, dict):
        whole = ask("keptConversation", {**kept, "id": "a", "title": {}, "updated": "never"})
        assert (whole["id"], whole["title"], whole["updated"], whole["leaf"]) == ("a", "New conversation", 0, None)
        assert whole["lanes"] == [{}]


def test_what_was_kept_whole_comes_back_as_it_was(ask: Js) -> None:
    settings = {"temperature": 0.5, "top_p": None, "max_tokens": 9, "seed": 0}
    kept = {"id": "a", "title": "t", "created": 1, "updated": 2, "leaf": "m", "system": "S", "settings": settings}
    kept["lanes"] = [{"model": "m", "condition": "Code"}, {"model": "n"}]
    assert ask("keptConversation", kept) == kept


def test_a_request_holds_what_was_said_and_set_and_nothing_else(ask: Js) -> None:
    path = [message("u1", None, "user"), message("a2", "u1", content="", error={"title": "x"}), message("u3", "a2", "user")]
    messages = ask("requestMessages", path, "Be brief.")
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "U1"},
        {"role": "user", "content": "U3"},
    ]
    request = ask(
        "chatRequest", {"model": "m", "condition": "Code"}, messages, {"temperature": 0, "top_p": None, "max_tokens": 9}
    )
    assert request == {
        "model": "m",
        "condition": "Code",
        "messages": messages,
        "temperature": 0,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "condition" not in ask("chatRequest", {"model": "m"}, messages, {})
    assert ask("tokenizeRequest", {"model": "m", "condition": "Code"}, messages) == {
        "model": "m",
        "condition": "Code",
        "messages": messages,
        "add_generation_prompt": True,
        "return_token_strs": True,
    }


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [("temperature", "0.5", 0.5), ("temperature", " ", None), ("max_tokens", "100", 100), ("seed", "0", 0), ("top_p", "1", 1)],
)
def test_a_setting_is_a_number_or_left_to_the_server(ask: Js, name: str, typed: str, expected: float | None) -> None:
    assert ask("readSetting", name, typed) == expected


@pytest.mark.parametrize(
    ("name", "typed"), [("temperature", "hot"), ("temperature", "2.1"), ("top_p", "-1"), ("max_tokens", "0"), ("seed", "1.5")]
)
def test_a_setting_out_of_range_is_refused_by_name(ask: Js, name: str, typed: str) -> None:
    with pytest.raises(Exception, match=f"{name} is {typed}. Give a"):
        ask("readSetting", name, typed)


def test_one_name_of_each_model_is_listed(ask: Js) -> None:
    listed = [
        {"id": 5},
        {"id": "a", "root": "/m"},
        {"id": "b", "root": "/m"},
        {"id": "c"},
        {"id": "d"},
        {"id": "e", "root": "e"},
    ]
    assert ask("distinctModels", listed) == ["a", "c", "d", "e"]


def test_a_vote_for_one_is_a_vote_against_the_others_and_can_be_taken_back(ask: Js) -> None:
    group = [message("a1", None), message("a2", None), message("a3", None)]
    once = ask("voted", group, "a2", None)
    assert [one["vote"] for one in once] == ["rejected", "chosen", "rejected"]
    assert [one["vote"] for one in ask("voted", once, "a2", None)] == [None] * 3
    assert [one["vote"] for one in ask("voted", once, None, "rejected")] == ["rejected"] * 3


CLASSES = {"chosen": {"condition": "GPT4 Correct", "weight": 1}, "rejected": {"condition": "GPT3", "weight": 0.1}}


def test_votes_and_edited_answers_import_as_two_classes(ask: Js, tmp_path: Path) -> None:
    tree = [
        *TREE[:3],
        {**TREE[3], "vote": "rejected"},
        {**TREE[4], "vote": "chosen"},
        *TREE[5:],
        message("a8", "u6", editedFrom="a7"),
    ]
    rows = ask("judged", tree, {"system": "Be brief."}, CLASSES)
    file, imported = tmp_path / "votes.jsonl", tmp_path / "rows.jsonl"
    file.write_text(ask("lines", rows), encoding="utf-8")
    cli.main(["data", "import", str(file), "--output", str(imported)])
    made = [row for _, row in read_conversations(imported)]
    assert [(row.class_name, row.condition, row.system, row.items[-1].content, row.items[-1].weight) for row in made] == [
        ("rejected", "GPT3", "Be brief.", "A4", 0.1),
        ("chosen", "GPT4 Correct", "Be brief.", "A5", 1.0),
        ("rejected", "GPT3", "Be brief.", "A7", 0.1),
        ("chosen", "GPT4 Correct", "Be brief.", "A8", 1.0),
    ]
    assert [(item.content, item.weight) for item in made[3].items] == [("U1", 0), ("A5", 0), ("U6", 0), ("A8", 1)]


def test_a_judged_reply_keeps_the_system_prompt_that_it_was_given_under(ask: Js) -> None:
    tree = [TREE[0], message("a2", "u1", vote="chosen", system="Before."), message("a3", "u1", vote="rejected", system="")]
    rows = ask("judged", tree, {"system": "After."}, CLASSES)
    assert [row.get("system") for row in rows] == ["Before.", None]


def test_the_usual_classes_are_conditions_that_the_server_knows(ask: Js) -> None:
    known = {"default": "GPT4 Correct", "data": [{"id": "GPT4 Correct"}, {"id": "GPT3"}]}
    assert ask("usualClasses", known) == CLASSES
    assert {name: one["condition"] for name, one in ask("usualClasses", None).items()} == {
        "chosen": "chosen",
        "rejected": "rejected",
    }


def test_a_conversation_comes_back_from_both_formats(ask: Js) -> None:
    path = [
        message("u1", None, "user"),
        message("a2", "u1", condition="Code"),
        message("u3", "a2", "user"),
        message("a4", "u3", condition="Code"),
    ]
    ours, openai = (ask(name, {"system": "S"}, path) for name in ("ourRow", "openaiRow"))
    assert Conversation.model_validate(ours).condition == "Code"
    text = ask("lines", [ours, openai])
    said = [{"role": one["role"], "content": one["content"]} for one in path]
    first, second = ask("readImport", text)
    assert first == {"system": "S", "messages": said, "condition": "Code"}
    assert second == {"system": "S", "messages": said, "condition": None}
    assert ask("readImport", json.dumps([ours, openai])) == [first, second]
    assert ask("readImport", json.dumps(said))[0]["messages"] == said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "The file is empty"),
        ('{"messages": [{"role": "user", "content": "a"}]}\nnot json', "Line 2 isn't JSON"),
        ('{"a": 1}', "has neither `items` nor `messages`"),
        (
            '[{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}]',
            'Row 1: message 2 has the role "tool"',
        ),
        ('{"messages": [{"role": "user", "content": null}]}', "message 1 has no text"),
        ("null", "has neither"),
        ("[1]", "Row 1 has neither"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(ask: Js, text: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        ask("readImport", text)


def sse(*chunks: Any) -> str:
    return "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\r\n\r\n" for chunk in chunks)


STREAM = ": hello\n\n" + sse(
    {"choices": [{"delta": {"role": "assistant", "content": ""}}], "condition": "Code"},
    {"choices": [{"delta": {"content": "Ünï"}}]},
    {"choices": [{"delta": {"content": "côde"}}]},
    {"choices": [{"delta": {}, "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    "[DONE]",
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_reply_is_read_however_the_stream_is_cut(ask: Js, size: int) -> None:
    reply = ask("replyOf", [STREAM[start : start + size] for start in range(0, len(STREAM), size)])
    assert reply["content"] == "Ünïcôde"
    assert reply["finish"] == "length"
    assert reply["condition"] == "Code"
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert reply["done"]


JUNK = {"toString": 1}


def test_what_no_server_should_send_is_left_out(ask: Js) -> None:
    events = ["\x00 not JSON", 5, "null", [], '"x"', {"choices": "abc"}, {"choices": [None]}, {"choices": [{"delta": "x"}]}]
    events += [{"choices": [{"delta": {"content": JUNK}, "finish_reason": JUNK}], "condition": JUNK, "usage": JUNK}]
    reply = ask(
        "replyOf", [sse({"choices": [{"delta": {"content": "a"}}]}, *events, {"choices": [{"delta": {"content": "b"}}]})]
    )
    assert (reply["content"], reply["finish"], reply["condition"], reply["error"]) == ("ab", None, None, None)
    assert ask("speedText", ask("speed", {"completion_tokens": JUNK, "prompt_tokens": "9"}, 0, 1, 2)) == "first after 1.00 s"
    assert ask("replyOf", [sse({"error": {"code": JUNK, "message": JUNK}})])["error"]["title"] == "The server failed (500)."
    assert len(ask("explain", 500, body("x" * 10_000), None)["detail"]) == 2000
    assert ask("explain", 429, body("slow"), "<b>soon</b>")["title"] == "Too many requests at the moment."


def test_a_stream_that_ends_early_is_not_done_and_one_with_an_error_says_it(ask: Js) -> None:
    assert not ask("replyOf", [STREAM[:-20]])["done"]
    failed = ask("replyOf", [sse({"error": {"message": "engine died", "code": 500}})])
    assert failed["error"]["detail"] == "engine died"


def test_speed_is_told_in_tokens_and_seconds(ask: Js) -> None:
    told = ask("speed", {"prompt_tokens": 30, "completion_tokens": 11}, 100, 100.5, 102.5)
    assert told == {"tokens": 11, "promptTokens": 30, "firstAfter": 0.5, "rate": 5}
    assert ask("speedText", told) == "11 tokens · prompt 30 · first after 0.50 s · 5.0 tokens/s"
    assert ask("speedText", ask("speed", None, 100, None, None)) == ""


def body(message: str) -> str:
    return json.dumps({"error": {"message": message}})


@pytest.mark.parametrize(
    ("status", "text", "kind", "title", "detail"),
    [
        (401, body("Give a key"), "key", "wants a key", "Give a key"),
        (400, body("maximum context length is 8192 tokens, got 9000"), "long", "too long for the model", "8192"),
        (400, body("the request exceeds the available context size (4096)"), "long", "too long for the model", "4096"),
        (400, body("max_tokens=99 cannot be greater than max_model_len=8"), "refused", "refused", "max_tokens"),
        (400, body("temperature must be positive"), "refused", "refused", "temperature"),
        (
            429,
            body("This key may make 2 requests a minute."),
            "busy",
            "requests for this key. It asks to wait 7 s.",
            "2 requests",
        ),
        (
            429,
            body("The server makes 4 replies at once and is busy."),
            "busy",
            "queue is full. It asks to wait 7 s.",
            "4 replies",
        ),
        (429, body("slow down"), "busy", "Too many requests at the moment. It asks to wait 7 s.", "slow down"),
        (503, body("queue"), "busy", "queue is full", "queue"),
        (502, "<html>Bad gateway</html>", "gone", "can't be reached", ""),
        (500, "", "failed", "failed (500)", ""),
        (404, '{"detail": "Not Found"}', "unknown", "doesn't have this", "Not Found"),
        (400, '{"error": "plain"}', "refused", "refused", "plain"),
    ],
)
def test_an_error_is_shown_as_what_it_is(ask: Js, status: int, text: str, kind: str, title: str, detail: str) -> None:
    told = ask("explain", status, text, "7")
    assert told["kind"] == kind
    assert title in told["title"]
    assert detail in told["detail"]
    assert bool(told["detail"]) == bool(detail)


TEXT = "Ünï 😀\n\n  <|im_end|> <s> naïve"


@pytest.mark.parametrize("name", ["embedded", "openchat"])
def test_tokens_joined_are_the_prompt_and_only_true_control_tokens_are_marked(
    ask: Js, name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    kind = model_type({"embedded": "openchat_smollm2", "openchat": "openchat_3.5"}[name])
    prompt = load_template(kind, folder).prompt(
        Conversation.model_validate({"items": [{"role": "user", "content": TEXT}], "condition": "Code"})
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    strings = [tokenizer.id_to_token(token) for token in prompt]
    read = ask("readTokens", prompt, strings)
    assert [one["id"] for one in read] == prompt
    joined = "".join(one["text"] for one in read)
    assert TEXT in joined
    assert "Code" in joined
    control = [one["text"] for one in read if one["control"]]
    assert control == {"embedded": ["<|im_start|>", "<|im_end|>", "<|im_start|>"], "openchat": ["<s>", "<|end_of_turn|>"]}[name]
