"""Render chat requests with the model type's template: the same call that made the training tokens.

vLLM does all the rest: it gets token ids, so it neither applies a Jinja template nor tokenizes. A ValueError from here is
answered with 400."""

from collections.abc import Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.inputs import TokensPrompt
from vllm.renderers.base import BaseRenderer
from vllm.renderers.chat_utils import ChatCompletionMessageParam, ConversationMessage
from vllm.renderers.inputs import DictPrompt
from vllm.renderers.params import ChatParams
from vllm.tokenizers.hf import HfTokenizer
from vllm.utils.async_utils import make_async

from ochat.errors import OchatError
from ochat.serving.first_blank import OpenedReplies, drop_first_blank
from ochat.serving.messages import read_messages
from ochat.serving.plugin import check_hooks
from ochat.serving.served_model import served_template

# What vLLM itself puts beside `condition`, and the values that ask for nothing. `None` below: any value will do.
_ASKS_NOTHING: dict[str, tuple[object, ...] | None] = {
    "add_generation_prompt": None,  # checked against the last message
    "continue_final_message": None,
    "tokenize": None,
    "cohere_format": None,
    "tools": ([],),
    "documents": ([],),
    "reasoning_effort": ("none",),
    "enable_thinking": (False,),
}


class OpenChatRenderer(BaseRenderer[HfTokenizer]):
    """Renders for one model; vLLM makes one in each API server."""

    def __init__(self, config: VllmConfig, tokenizer: HfTokenizer | None) -> None:
        check_hooks()
        super().__init__(config, tokenizer)
        self.template = served_template(config)
        self._opened = OpenedReplies(self.template.end_of_turn)
        drop_first_blank(self._opened)
        self._render_async = make_async(self._render, executor=self._executor)

    def get_eos_token_id(self) -> int:
        """The end of turn, whatever generation_config.json says: it ends replies on every endpoint."""
        return self.template.end_of_turn

    def _can_produce_offsets(self) -> bool:
        return self.tokenizer is not None and self.tokenizer.is_fast

    def _render(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        if params.chat_template is not None:
            raise ValueError("A chat template was given, but this model type has its own. Leave out `chat_template`.")
        condition = params.chat_template_kwargs.get("condition")
        if condition is None:
            condition = ""
        try:
            self.template.check_condition(condition)
            conversation = read_messages(messages, condition)
            _check_options(params.chat_template_kwargs, continues=conversation.items[-1].role == "assistant")
            prompt = self.template.prompt(conversation)
        except OchatError as error:
            raise ValueError(str(error)) from error
        last = conversation.items[-1]
        if last.role == "user" or not last.content:
            self._opened.add(prompt)
        said = [ConversationMessage(role=item.role, content=item.content) for item in conversation.items]
        return said, TokensPrompt(prompt_token_ids=prompt)

    def render_messages(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        return self._render(messages, params)

    async def render_messages_async(
        self, messages: list[ChatCompletionMessageParam], params: ChatParams
    ) -> tuple[list[ConversationMessage], DictPrompt]:
        return await self._render_async(messages, params)


def _check_options(options: Mapping[str, Any], continues: bool) -> None:
    """Raise ValueError for what a request asks of its template and this one can't give."""
    for name, value in options.items():
        if name == "condition":
            continue
        if name not in _ASKS_NOTHING:
            raise ValueError(f"chat_template_kwargs has {name!r}, which this server doesn't know. It knows `condition`.")
        nothing = _ASKS_NOTHING[name]
        if nothing is not None and value not in nothing:
            raise ValueError(f"`{name}` has no place in this model's template. Leave it out.")
    if continues:
        return  # a last assistant message is always continued
    if options.get("continue_final_message"):
        raise ValueError("`continue_final_message` needs an assistant message at the end. Add one or leave it out.")
    if not options.get("add_generation_prompt", True):
        raise ValueError("`add_generation_prompt` must be true after a user message: the prompt always opens the reply.")
