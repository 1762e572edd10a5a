import json
from typing import Any

import anthropic
import openai
import pytest
from live_server import Server

from ochat.registry import model_type
from ochat.serving.conditions import Conditions, server_conditions, take_condition
from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import Refusal
from ochat.serving.routes import routes_at

OPENCHAT = ("GPT4 Correct", "GPT4", "GPT3", "Code", "Human", "Math Correct", "none")
CHAT = routes_at("/v1/chat/completions")["POST"]
SERVER = Conditions(OPENCHAT, "GPT4 Correct")


@pytest.mark.parametrize(
    ("options", "known", "default"),
    [
        ({}, OPENCHAT, "GPT4 Correct"),
        ({"default_condition": "Code"}, OPENCHAT, "Code"),
        ({"default_condition": "Mine"}, ("Mine", *OPENCHAT), "Mine"),
        ({"conditions": ("A", "B")}, ("A", "B"), "A"),
        ({"conditions": ("Code", "GPT4 Correct")}, ("Code", "GPT4 Correct"), "GPT4 Correct"),
        ({"conditions": ("A", "B"), "default_condition": "B"}, ("A", "B"), "B"),
    ],
)
def test_conditions_are_the_types_or_those_of_the_flags(options: dict[str, Any], known: tuple[str, ...], default: str) -> None:
    assert server_conditions(model_type("openchat_3.5"), GatewayOptions(**options)) == Conditions(known, default)


def test_those_that_a_checkpoint_was_trained_under_are_known_too() -> None:
    known = server_conditions(model_type("openchat_3.5"), GatewayOptions(), ("Mine", "GPT3")).known
    assert known == (*OPENCHAT[:-1], "Mine", "none")
    assert server_conditions(model_type("openchat_3.5"), GatewayOptions(conditions=("A",)), ("Mine",)).known == ("A",)


def test_a_key_narrows_them() -> None:
    assert SERVER.narrowed(("Code",), "") == Conditions(("Code",), "Code")
    assert SERVER.narrowed((), "GPT3") == Conditions(OPENCHAT, "GPT3")
    assert Conditions(OPENCHAT, "GPT4 Correct", allows_any=True).narrowed(("Code",), "") == Conditions(("Code",), "Code")


@pytest.mark.parametrize("kind", [None, model_type("chatml_8192")])
def test_a_type_without_conditions_refuses_all_but_none(kind: Any) -> None:
    conditions = server_conditions(kind, GatewayOptions(allow_any_condition=True))
    for request in ({"messages": []}, {"messages": [], "condition": "none"}):
        assert take_condition(request, CHAT, conditions) == ""
        assert request == {"messages": []}
    with pytest.raises(Refusal, match="takes no condition"):
        take_condition({"messages": [], "condition": "Code"}, CHAT, conditions)


@pytest.mark.parametrize(
    ("request_", "condition"),
    [
        ({}, "GPT4 Correct"),
        ({"condition": None}, "GPT4 Correct"),
        ({"condition": ""}, "GPT4 Correct"),
        ({"condition": "none"}, "none"),
        ({"condition": "Code"}, "Code"),
        ({"chat_template_kwargs": {"condition": "Code"}}, "Code"),
        ({"condition": "Code", "chat_template_kwargs": {"condition": "Code", "a": 1}}, "Code"),
    ],
)
def test_a_condition_moves_into_the_templates_options(request_: dict[str, Any], condition: str) -> None:
    request = {"messages": [], **request_}
    others = {name: value for name, value in request.get("chat_template_kwargs", {}).items() if name != "condition"}
    assert take_condition(request, CHAT, SERVER) == condition
    assert request == {"messages": [], "chat_template_kwargs": {**others, "condition": condition}}


@pytest.mark.parametrize(
    ("path", "request_", "found"),
    [
        (CHAT.path, {"messages": [], "condition": ["Code"]}, "Give a string"),
        (CHAT.path, {"messages": [], "condition": 5}, "Give a string"),
        (CHAT.path, {"messages": [], "condition": 0}, "Give a string"),
        (CHAT.path, {"messages": [], "condition": "auto"}, "auto"),
        (CHAT.path, {"messages": [], "condition": "code"}, r"Unknown condition 'code'. Known: GPT4 Correct, .*none"),
        (CHAT.path, {"messages": [], "chat_template_kwargs": {"condition": "auto"}}, "auto"),
        (CHAT.path, {"messages": [], "condition": "Code", "chat_template_kwargs": 5}, "must be an object"),
        (CHAT.path, {"messages": [], "condition": "Code", "chat_template_kwargs": {"condition": "GPT4"}}, "differ"),
        ("/v1/completions", {"prompt": "x", "condition": "Code"}, "no effect on this request to /v1/completions"),
        ("/tokenize", {"prompt": "x", "condition": "Code"}, "no effect"),
    ],
)
def test_a_condition_that_cannot_be_honoured_is_refused(path: str, request_: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=found):
        take_condition(request_, routes_at(path)["POST"], SERVER)


def test_any_condition_passes_where_the_server_allows_it() -> None:
    conditions = server_conditions(model_type("openchat_3.5"), GatewayOptions(allow_any_condition=True))
    assert take_condition({"messages": [], "condition": "Anything"}, CHAT, conditions) == "Anything"


def test_the_server_lists_its_conditions(server: Server) -> None:
    assert server.get("/v1/conditions").json() == {
        "object": "list",
        "model_type": "openchat_v3.2_mistral",
        "default": "GPT4 Correct",
        "data": [{"id": name} for name in OPENCHAT],
    }


USER = [{"role": "user", "content": 'data: {"a": 1}\n\ndata: {"b": 2}'}]


@pytest.mark.parametrize(("asked", "told"), [({}, "GPT4 Correct"), ({"condition": "Code"}, "Code")])
@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/chat/completions", {"messages": USER, "max_tokens": 2}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 2}),
        ("/v1/messages", {"messages": USER, "max_tokens": 2}),
        ("/tokenize", {"messages": USER}),
    ],
)
def test_a_reply_tells_its_condition(
    path: str, request_: dict[str, Any], asked: dict[str, str], told: str, server: Server
) -> None:
    response = server.post(path, model="tiny", **request_, **asked)
    assert response.status_code == 200
    assert response.json()["condition"] == told


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/chat/completions", {"messages": USER, "max_tokens": 2}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 2}),
        ("/v1/messages", {"messages": USER, "max_tokens": 2}),
    ],
)
def test_each_event_of_a_stream_tells_its_condition(path: str, request_: dict[str, Any], server: Server) -> None:
    with server.stream(path, condition="Code", **request_) as stream:
        events = [json.loads(line[len("data: ") :]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert len(events) > 2
    assert {event["condition"] for event in events} == {"Code"}


def test_the_official_clients_see_it(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client:
        user: Any = [{"role": "user", "content": "Hi"}]
        reply = client.chat.completions.create(model="tiny", messages=user, max_tokens=1, extra_body={"condition": "Code"})
        assert reply.model_extra is not None
        assert reply.model_extra["condition"] == "Code"
    with anthropic.Anthropic(base_url=server.url, api_key=server.key) as client:
        message = client.messages.create(model="tiny", messages=user, max_tokens=1, extra_body={"condition": "Code"})
        assert message.model_extra is not None
        assert message.model_extra["condition"] == "Code"
