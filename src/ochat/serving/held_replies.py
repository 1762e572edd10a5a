"""Replies that are held to a schema, regex or grammar: what is tried first, what ends them, and what happens where the library can't
go on.

llguidance bounds most of its own work. Beyond its bounds it allows the end of the reply alone, and vLLM 0.32 and 0.33 took that for a
reply that had ended well: an empty one, with "stop" as its reason. The engine has a way to fail a request, which the gateway then
tells as the request's fault (replies.py)."""

import json
import logging
from typing import Any

from ochat.serving.constraint_trial import CPU_SECONDS, Trials

# Characters. The library's own words are followed by its whole state, dozens of lines that a client could fill the log with.
MAX_TOLD = 300


def install(tokenizer_mode: str) -> None:
    """From now on, in this process, an engine's request fails where the library gave up on what it is held to; and under this mode
    a reply ends with its template's end of turn. Call it once. Raises ImportError or AttributeError for a vLLM without these."""
    import llguidance.hf
    from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar

    accept, begin = GuidanceGrammar.accept_tokens, GuidanceBackend.__post_init__

    def accept_tokens(self: Any, request_id: str, tokens: list[int]) -> bool:
        return bool(accept(self, request_id, tokens)) and not self.ll_matcher.is_error()

    def check_error(self: Any) -> None:
        error = self.ll_matcher.get_error()
        if error and not self.printed_error:
            self.printed_error = True
            told = error.partition("\n")[0][:MAX_TOLD]
            logging.getLogger("vllm.ochat").warning("A reply can't be held to what was asked: %s", told)

    def end_as_template(self: Any) -> None:
        begin(self)
        if self.vllm_config.model_config.tokenizer_mode.lower() != tokenizer_mode:
            return
        from ochat.serving.served_model import served_template  # which most of vLLM's processes don't need

        # The tokenizer's own end, which the library knows, may be another token: the model would never be allowed to end its turn.
        end = served_template(self.vllm_config).end_of_turn
        if end != self.ll_tokenizer.eos_token:
            self.ll_tokenizer = llguidance.hf.from_tokenizer(self.tokenizer, self.ll_tokenizer.vocab_size, eos_token=end)

    GuidanceGrammar.accept_tokens, GuidanceGrammar.check_error = accept_tokens, check_error
    GuidanceBackend.__post_init__ = end_as_template


def try_first(engine: Any, trials: Trials) -> None:
    """From now on, vLLM's AsyncLLM refuses a request whose constraint takes the library too much. With another backend that the
    server was told to use, nothing is tried."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.structured_output.backend_guidance import serialize_guidance_grammar
    from vllm.v1.structured_output.request import get_structured_output_key

    config = engine.vllm_config.structured_outputs_config
    if config.backend not in ("auto", "guidance"):
        return
    add = engine.add_request

    async def add_request(*args: Any, **kwargs: Any) -> Any:
        params = kwargs["params"] if "params" in kwargs else args[2]
        constraint = getattr(params, "structured_outputs", None)
        if constraint is not None:
            grammar = None
            try:
                kind, spec = get_structured_output_key(constraint)
                if (
                    config.backend == "guidance"
                    and constraint.structural_tag is not None
                    and "triggers" not in json.loads(spec)
                ):
                    raise VLLMValidationError(
                        "This server's library has structural tags of `structures` and `triggers` alone. Give the tag so."
                    )
                grammar = serialize_guidance_grammar(
                    kind, spec, config.disable_any_whitespace, config.disable_additional_properties
                )
            except (ValueError, KeyError, TypeError):  # vLLM says what is wrong with it
                pass
            if grammar is not None and not await trials.passes(grammar):
                raise VLLMValidationError(
                    f"To hold a reply to this schema, regex or grammar takes over {CPU_SECONDS} s, or too much memory, before it "
                    "begins. Send a simpler one."
                )
        return await add(*args, **kwargs)

    engine.add_request = add_request
