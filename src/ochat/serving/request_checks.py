"""What a request's body may hold: fields that have an effect, within bounds.

vLLM accepts any field and drops what it doesn't know, so a misspelt `temprature` would be answered as if it had been honoured.
The known fields are read from vLLM's own request classes, so that a newer vLLM's are known too."""

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ochat.serving.constraints import check_constraints
from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import bad_request
from ochat.serving.routes import Route

MAX_MESSAGES = 2_000  # and parts of them, all together
MAX_STOPS = 16
MAX_STOP_LENGTH = 1_000  # characters
MAX_TOKEN_ENTRIES = 1_000
MAX_MODEL_LENGTH = 1_000  # characters; vLLM logs a name that it doesn't know
_DEFAULT_MAX_TOKENS = {"/v1/completions": 16}  # vLLM's, as OpenAI's; elsewhere it's the context
_CLASSES = {
    "/v1/chat/completions": ("openai.chat_completion.protocol:ChatCompletionRequest",),
    "/v1/completions": ("openai.completion.protocol:CompletionRequest",),
    "/v1/messages": ("anthropic.protocol:AnthropicMessagesRequest",),
    "/v1/messages/count_tokens": ("anthropic.protocol:AnthropicCountTokensRequest",),
    "/v1/responses": ("openai.responses.protocol:ResponsesRequest",),
    "/tokenize": ("serve.tokenize.protocol:TokenizeChatRequest", "serve.tokenize.protocol:TokenizeCompletionRequest"),
    "/detokenize": ("serve.tokenize.protocol:DetokenizeRequest",),
}
# Objects inside of a request, with their fields' classes. What isn't among a class's own parameters, as `_backend`, is no client's.
_BASE = "vllm.entrypoints.generate.base.protocol"
_INNER_CLASSES = {
    "response_format": (
        f"{_BASE}:ResponseFormat",
        f"{_BASE}:StructuralTagResponseFormat",
        f"{_BASE}:LegacyStructuralTagResponseFormat",
    ),
    "response_format.json_schema": (f"{_BASE}:JsonSchemaResponseFormat",),
    "structured_outputs": ("vllm.sampling_params:StructuredOutputsParams",),
    "text": ("openai.types.responses:ResponseTextConfig",),
    "text.format": ("openai.types.responses:ResponseFormatTextJSONSchemaConfig",),
    "output_config": ("vllm.entrypoints.anthropic.protocol:AnthropicOutputConfig",),
    "output_config.format": ("vllm.entrypoints.anthropic.protocol:AnthropicJsonOutputFormat",),
}
# Fields that vLLM has and that do nothing here: for images and sound, for other machines of a cluster, for reasoning models, or
# for a template of Jinja's. A value that asks for nothing passes: null, the field's default, or one of those listed.
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "background": (),
    "documents": ([],),
    "ec_transfer_params": (),
    "enable_response_messages": (),
    "kv_transfer_params": (),
    "length_penalty": (),  # of a beam search
    "max_tool_calls": (),
    "media_io_kwargs": ({},),
    "mm_payload": (),
    "mm_processor_kwargs": ({},),
    "previous_input_messages": (),
    "previous_response_id": (),
    "priority": (),  # or each would be first
    "prompt_cache_key": (),
    "prompt_embeds": (),
    "request_id": (),
    "return_mm_kwargs": (),
    "return_prompt_text": (False,),
    "return_token_offsets": (),
    "routed_experts_prompt_start": (),
    "service_tier": ("default",),
    "session_id": (),
    "store": (False,),
    "suffix": ("",),
    "thinking_token_budget": (),
    "vllm_xargs": ({},),
    "watermarking": (False,),  # which the engine would have to be started for
}
_INNER_WITHOUT_EFFECT = (
    ("text", "verbosity"),
    ("reasoning", "summary"),
    ("reasoning", "generate_summary"),
    # The library of constraints takes these from the server's configuration alone.
    ("structured_outputs", "whitespace_pattern"),
    ("structured_outputs", "disable_any_whitespace"),
    ("structured_outputs", "disable_additional_properties"),
)
# OpenAI's fields that no class of vLLM's has, with the values that ask for nothing.
_ASK_NOTHING: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none",),
    "metadata": ({},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
_STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")
_RESPONSES_PARTS = ("input_text", "output_text")
_LOGPROBS = "message.output_text.logprobs"  # what vLLM 0.32.0 heeds in `include`
# vLLM takes text that begins so for a header of Claude Code's, and drops it from system messages.
_BILLING_HEADER = "x-anthropic-billing-header"
# Of a text block of Anthropic's. `cache_control` asks for what the server does anyway.
_TEXT_BLOCK = ("type", "text", "cache_control")


@cache
def known_fields(path: str) -> Mapping[str, object]:
    """The fields of a route's requests, with their defaults."""
    known: dict[str, object] = {}
    for place in _CLASSES[path]:
        module, _, name = place.partition(":")
        cls: type[BaseModel] = getattr(importlib.import_module(f"vllm.entrypoints.{module}"), name)
        known.update({field: info.get_default() for field, info in cls.model_fields.items()})
    return known


@cache
def inner_fields(place: str) -> frozenset[str]:
    """The names that an object inside of a request may have."""
    known: set[str] = set()
    for named in _INNER_CLASSES[place]:
        module, _, name = named.partition(":")
        cls = getattr(importlib.import_module(module), name)
        if is_dataclass(cls):
            known.update(field.name for field in fields(cls) if field.init)
        else:
            known.update(info.alias or field for field, info in cls.model_fields.items())
    return frozenset(known)


def check_inner_fields(request: Mapping[str, Any], known: Callable[[str], Collection[str]] = inner_fields) -> None:
    """Raise Refusal for a name inside of what a reply is held to that vLLM would drop."""
    for place in _INNER_CLASSES:
        inner: object = request
        for name in place.split("."):
            inner = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            continue
        for name, value in inner.items():
            if value is not None and name not in known(place):
                near = difflib.get_close_matches(name[:128], known(place), n=2)
                hint = f"Did you mean {' or '.join(f'`{field}`' for field in near)}?" if near else "Leave it out."
                raise bad_request(f"`{place}.{name[:128]}` isn't honoured. {hint}", place.partition(".")[0])


def check_template_options(route: Route, request: Mapping[str, Any]) -> None:
    """Raise Refusal for what a request asks of the template and would be answered without: vLLM overwrites some of it before the
    renderer, which knows the rest, could refuse it."""
    said = request.get(route.conversation) if route.conversation else None
    last = said[-1] if isinstance(said, list) and said else None
    continues = isinstance(last, dict) and last.get("role") == "assistant"
    if continues and request.get("continue_final_message") is False:
        raise bad_request(
            "`continue_final_message` is false, and the last message is an assistant's, which is always continued here. Leave it "
            "out, or end with a user message.",
            "continue_final_message",
        )
    options = request.get("chat_template_kwargs")
    happens = {
        "continue_final_message": continues,
        "add_generation_prompt": not continues,
        "tokenize": None,
        "cohere_format": None,
    }
    for name, value in options.items() if isinstance(options, dict) else ():
        if name in happens and value is not None and value is not happens[name]:
            raise bad_request(
                f"`chat_template_kwargs.{name}` has no effect on this server. Leave it out.", "chat_template_kwargs"
            )


def check_fields(path: str, request: dict[str, Any], known: Mapping[str, object]) -> None:
    """Raise Refusal for a field without effect; null and OpenAI's fields that ask for nothing are taken out."""
    for name, value in list(request.items()):
        if value is None:
            del request[name]
        elif name not in known:
            if value in _ASK_NOTHING.get(name, ()):
                del request[name]
                continue
            may_be_misspelt = name not in _ASK_NOTHING
            near = difflib.get_close_matches(name[:128], (*known, "condition"), n=2) if may_be_misspelt else []
            hint = f"Did you mean {' or '.join(f'`{field}`' for field in near)}?" if near else "Leave it out."
            raise bad_request(f"`{name[:128]}` isn't honoured by {path}. {hint}", name[:128])
        elif name in _WITHOUT_EFFECT and value != known[name] and value not in _WITHOUT_EFFECT[name]:
            raise bad_request(f"`{name}` has no effect on this server. Leave it out.", name)
    if path == "/v1/responses":
        _check_responses(request)
    if path.startswith("/v1/messages"):
        _check_messages(request)
    if path == "/tokenize" and "prompt" in request and "messages" in request:
        raise bad_request("`prompt` and `messages` are both given, and one would be ignored. Give one.", "prompt")
    for name, inner in _INNER_WITHOUT_EFFECT:
        if isinstance(request.get(name), dict) and request[name].get(inner) not in (None, False):
            raise bad_request(f"`{name}.{inner}` has no effect on this server. Leave it out.", name)
    form = request.get("response_format")
    if isinstance(form, dict) and form.get("json_schema") is not None and form.get("type") != "json_schema":
        raise bad_request(
            f"`response_format.json_schema` has no effect with the type {str(form.get('type'))[:128]!r}. Give it the type "
            "'json_schema', or leave it out.",
            "response_format",
        )
    options = request.get("stream_options")
    if isinstance(options, dict) and options.get("include_obfuscation") is False:
        del options["include_obfuscation"]
    if isinstance(options, dict) and (unknown := [name for name in options if name not in _STREAM_OPTIONS]):
        raise bad_request(f"`stream_options.{unknown[0][:128]}` isn't honoured. Leave it out.", "stream_options")
    if request.get("use_beam_search"):
        raise bad_request(
            "`use_beam_search` isn't offered: it asks the engine for each token of each beam, past the limits of keys. Ask for "
            "several replies with `n`.",
            "use_beam_search",
        )
    if request.get("tools") or request.get("functions"):
        raise bad_request("`tools` has no place in this model's template: it can't call any. Leave it out.", "tools")


def _check_responses(request: Mapping[str, Any]) -> None:
    """Raise Refusal for what vLLM's responses take and don't heed."""
    if "prompt" in request:
        raise bad_request("`prompt`, a stored prompt, has no effect on this server. Send the text in `input`.", "prompt")
    if request.get("store"):  # vLLM's default is true, and it stores nothing all the same
        raise bad_request("`store` has no effect: this server keeps no responses. Leave it out.", "store")
    include = request.get("include") or []
    if isinstance(include, list) and (unknown := [name for name in include if name != _LOGPROBS]):
        raise bad_request(f"`include` has {str(unknown[0])[:128]!r}, which this server doesn't have. Leave it out.", "include")
    if request.get("top_logprobs") and not include:
        raise bad_request(f"`top_logprobs` has no effect without `include`. Add {_LOGPROBS!r} to it.", "top_logprobs")
    items = request.get("input")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        parts = item.get("content") if isinstance(item, dict) and item.get("role") == "assistant" else None
        # Of an assistant's parts vLLM reads the first (0.32.0, openai/responses/utils.py).
        if isinstance(parts, list) and (
            len(parts) > 1 or any(isinstance(p, dict) and p.get("type") == "refusal" for p in parts)
        ):
            raise bad_request(
                f"`input[{number}].content` has a refusal or several parts, of which one would be read. Give an assistant's text as "
                "one part.",
                "input",
            )


def _check_items(items: object) -> None:
    """Raise Refusal for the first item of `input` that is none.

    Pydantic looks for all that is wrong with all of them: 2,000 items of a kind that it doesn't know took six seconds, in which
    nobody else was answered (vLLM 0.32.0)."""
    if not isinstance(items, list):
        return
    for number, item in enumerate(items):
        parts = item.get("content") if isinstance(item, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict) or not isinstance(part.get("text"), str | None):
                raise bad_request(f"`input[{number}].content` has a part that is no text. Mend it.", "input")
            if part.get("type") not in _RESPONSES_PARTS:
                raise bad_request(
                    f"`input[{number}].content` has a part of type {str(part.get('type'))[:128]!r}, which this model doesn't read. "
                    f"Give one of: {', '.join(_RESPONSES_PARTS)}.",
                    "input",
                )
        try:
            _item().validate_python(_filled_in()({"input": [item]})["input"][0])
        except ValidationError as error:
            raise bad_request(f"`input[{number}]` isn't an item that this server knows. Mend it.", "input") from error


@cache
def _item() -> TypeAdapter[Any]:
    module = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
    return TypeAdapter(module.ResponseInputOutputItem)


@cache
def _filled_in() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What vLLM adds to the items of a request before it checks them: ids and the like."""
    module = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
    fill: Callable[[dict[str, Any]], dict[str, Any]] = module.ResponsesRequest.input_item_parsing
    return fill


def _check_messages(request: Mapping[str, Any]) -> None:
    """Raise Refusal for what vLLM drops of Anthropic's messages: other fields than these, blocks without text."""
    thinking = request.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        raise bad_request("`thinking` has no effect: this model's template has no place for it. Leave it out.", "thinking")
    _check_blocks(request.get("system"), "system")
    if isinstance(request.get("system"), list):  # a string is passed on as it is
        _check_billing(request["system"], "system")
    messages = request.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue  # vLLM says what is wrong with it
        if unknown := [name for name in message if name not in ("role", "content")]:
            raise bad_request(f"`messages[{number}].{unknown[0][:128]}` isn't honoured. Leave it out.", "messages")
        _check_blocks(message.get("content"), f"messages[{number}].content")
        if message.get("role") == "system":
            _check_billing(message.get("content"), f"messages[{number}].content")


def _check_blocks(blocks: object, where: str) -> None:
    """Raise Refusal where some of the content isn't read."""
    field = where.partition("[")[0]
    if not isinstance(blocks, list):
        return
    for block in blocks:
        if not isinstance(block, dict) or block.get("type") != "text" or not block.get("text"):
            raise bad_request(f"`{where}` has a part that is no text, which this model doesn't read. Leave it out.", field)
        if unknown := [name for name, value in block.items() if name not in _TEXT_BLOCK and value is not None]:
            raise bad_request(f"`{where}` has a part with `{unknown[0][:128]}`, which isn't honoured. Leave it out.", field)
    if not blocks:
        raise bad_request(f"`{where}` has no part, and would be left out. Give its text.", field)


def _check_billing(content: object, where: str) -> None:
    """Raise Refusal for a system text that vLLM drops."""
    texts = [block.get("text") for block in content if isinstance(block, dict)] if isinstance(content, list) else [content]
    if any(isinstance(text, str) and text.startswith(_BILLING_HEADER) for text in texts):
        raise bad_request(
            f"`{where}` has a text that begins with {_BILLING_HEADER!r}, which the model wouldn't get. Leave it out.",
            where.partition("[")[0],
        )


def _whole_number(request: dict[str, Any], name: str) -> int | None:
    """A field's number, where it has one. Raises Refusal for `"50"` and `50.0`, which vLLM would read as 50, past our bounds."""
    number = request.get(name)
    if number is None or type(number) is int:
        return number
    raise bad_request(f"`{name}` is {str(number)[:128]!r}. Give a whole number.", name)


def count_choices(request: dict[str, Any]) -> int:
    """How many replies a request asks for: one for each prompt and each `n`."""
    n, prompt = max(1, _whole_number(request, "n") or 1), request.get("prompt")
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):  # a list of numbers: one prompt's ids
        return n
    return n * len(prompt)


def check_bounds(route: Route, request: dict[str, Any], options: GatewayOptions) -> None:
    """Raise Refusal for a request that asks for more than the server gives. Where the reply's length is bounded and the request
    names none, it gets that bound."""
    n_choices = count_choices(request)
    if n_choices > options.max_choices:
        raise bad_request(f"The request asks for {n_choices} replies. Ask for at most {options.max_choices} at a time.", "n")
    if len(str(request.get("model"))) > MAX_MODEL_LENGTH:
        raise bad_request(f"`model` has over {MAX_MODEL_LENGTH} characters. Ask /v1/models for the names.", "model")
    messages = request.get(route.conversation) if route.conversation else None
    if isinstance(messages, list) and len(messages) > MAX_MESSAGES:
        raise bad_request(
            f"`{route.conversation}` has {len(messages)} entries. Send at most {MAX_MESSAGES}.", route.conversation
        )
    if isinstance(messages, list) and sum(map(_n_parts, messages)) > MAX_MESSAGES:
        raise bad_request(f"The messages have over {MAX_MESSAGES} parts. Join their texts.", route.conversation)
    if route.path == "/v1/responses":
        _check_items(messages)
    for name in ("stop", "stop_sequences", "bad_words"):
        stops = request.get(name)
        listed = stops if isinstance(stops, list) else [stops]
        if len(listed) > MAX_STOPS or any(isinstance(stop, str) and len(stop) > MAX_STOP_LENGTH for stop in listed):
            raise bad_request(f"`{name}` may hold {MAX_STOPS} strings of {MAX_STOP_LENGTH} characters. Send fewer.", name)
    for name in ("logit_bias", "stop_token_ids"):
        entries = request.get(name)
        if isinstance(entries, dict | list) and len(entries) > MAX_TOKEN_ENTRIES:
            raise bad_request(f"`{name}` has {len(entries)} entries. Send at most {MAX_TOKEN_ENTRIES}.", name)
    check_constraints(request)
    if route.conversation and route.conversation in request and request.get("add_special_tokens"):
        raise bad_request("`add_special_tokens` has no effect: the template puts them where they belong.", "add_special_tokens")
    max_reply_tokens = options.max_reply_tokens
    if max_reply_tokens is None or not route.max_tokens:
        return
    given = {name: _whole_number(request, name) or 0 for name in route.max_tokens if name in request}
    for name, tokens in given.items():
        if tokens > max_reply_tokens:
            raise bad_request(f"`{name}` is {tokens}. Ask for at most {max_reply_tokens} tokens.", name)
    if not given:
        request[route.max_tokens[0]] = min(max_reply_tokens, _DEFAULT_MAX_TOKENS.get(route.path, max_reply_tokens))


def _n_parts(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content) if isinstance(content, list) else 0
