"""Replies that are held to a schema, regex or grammar: what is tried first, what ends them, and what happens where the library can't
go on.

llguidance bounds its own work at each token. Beyond its bounds it allows the end of the reply alone, and vLLM 0.32 and 0.33 took that
for a reply that had ended well: an empty one, with "stop" as its reason. The engine has a way to fail a request, which the gateway
then tells as the request's fault (replies.py)."""

import logging
from contextvars import ContextVar
from copy import copy
from typing import Any

from ochat.serving.constraint_trial import CPU_SECONDS, LIMITS, TakesTooMuch, Trials

# Characters. The library's own words are followed by its whole state, dozens of lines that a client could fill the log with.
MAX_TOLD = 300
MAX_WAITING = 16  # to be tried
_IS_TRIED: ContextVar[bool] = ContextVar("ochat_is_tried", default=False)


def install(tokenizer_mode: str) -> None:
    """From now on, in this process, an engine's request fails where the library gave up on what it is held to, which it does sooner
    than by itself; and under this mode a reply ends with its template's end of turn. Call it once. Raises ImportError or
    AttributeError for a vLLM without these."""
    import llguidance
    import llguidance.hf
    from vllm.v1.structured_output import backend_guidance
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

    def compile_within_limits(self: Any, request_type: Any, grammar_spec: str, stop_token_ids: object = None) -> Any:
        grammar = backend_guidance.serialize_guidance_grammar(
            request_type, grammar_spec, self.disable_any_whitespace, self.disable_additional_properties
        )
        limits = llguidance.LLParserLimits(**LIMITS)
        matcher = llguidance.LLMatcher(self.ll_tokenizer, grammar, log_level=0, limits=limits)
        found = GuidanceGrammar(ll_matcher=matcher, ll_tokenizer=self.ll_tokenizer, vocab_size=self.vocab_size)
        found.check_error()
        return found

    GuidanceGrammar.accept_tokens, GuidanceGrammar.check_error = accept_tokens, check_error
    GuidanceBackend.__post_init__, GuidanceBackend.compile_grammar = end_as_template, compile_within_limits


def try_first(engine: Any) -> Trials | None:
    """From now on, vLLM's AsyncLLM refuses a request whose constraint takes the library too much. Returns what tries them, to be ended
    with the server; with another backend that the server was told to use nothing is tried."""
    from vllm.exceptions import QueueOverflowError, VLLMValidationError
    from vllm.v1.structured_output import backend_guidance
    from vllm.v1.structured_output.request import get_structured_output_key

    config = engine.vllm_config.structured_outputs_config
    if config.backend not in ("auto", "guidance"):
        return None
    is_ours = config.backend == "guidance"
    trials = Trials(lambda: tokenizer_json(engine.tokenizer))
    add, validate = engine.add_request, backend_guidance.validate_guidance_grammar

    async def check(constraint: Any) -> bool:
        """Whether it has been tried and found valid. Raises vLLM's errors for a client."""
        if constraint is None:
            return False
        if constraint.structural_tag is not None:
            # By vLLM 0.32.0 and llguidance 1.7 a tag's content is held to no schema. With "auto" vLLM takes xgrammar for tags.
            if is_ours:
                raise VLLMValidationError("This server's library doesn't hold replies to structural tags. Leave them out.")
            return False
        try:
            grammar = backend_guidance.serialize_guidance_grammar(
                *get_structured_output_key(constraint), config.disable_any_whitespace, config.disable_additional_properties
            )
        except (ValueError, KeyError, TypeError):  # vLLM says what is wrong with it
            return False
        if trials.n_waiting >= MAX_WAITING:
            raise QueueOverflowError
        try:
            problem = await trials.problem(grammar)
        except TakesTooMuch:
            raise VLLMValidationError(
                f"To hold a reply to this schema, regex or grammar takes over {CPU_SECONDS} s, or too much memory, before it begins. "
                "Send a simpler one."
            ) from None
        if problem and is_ours:
            raise VLLMValidationError(f"Grammar error: {problem}")
        return is_ours

    async def add_request(*args: Any, **kwargs: Any) -> Any:
        params = kwargs["params"] if "params" in kwargs else args[2]
        before = _IS_TRIED.set(await check(getattr(params, "structured_outputs", None)))
        try:
            return await add(*args, **kwargs)
        finally:
            _IS_TRIED.reset(before)

    def validate_unless_tried(*args: Any, **kwargs: Any) -> None:
        if not _IS_TRIED.get():  # else nobody else would be answered while it's validated again
            validate(*args, **kwargs)

    engine.add_request = add_request
    backend_guidance.validate_guidance_grammar = validate_unless_tried
    return trials


def tokenizer_json(tokenizer: Any) -> str:
    """A tokenizer of transformers' in the form of the library `tokenizers`; "" where it has none."""
    if not getattr(tokenizer, "is_fast", False):
        return ""
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())
