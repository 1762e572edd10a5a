"""Replies that are held to a schema, regex or grammar: what happens where the library can't go on.

llguidance bounds its own work. Beyond its bounds it allows the end of the reply alone, and vLLM 0.32 and 0.33 took that for a reply
that had ended well: an empty one, with "stop" as its reason. The engine has a way to fail a request, which the gateway then tells
as the request's fault (replies.py)."""

import logging
from typing import Any

# Characters. The library's own words are followed by its whole state, dozens of lines that a client could fill the log with.
MAX_TOLD = 300


def install() -> None:
    """From now on, in this process, an engine's request fails where the library gave up on what it is held to. Call it once."""
    from vllm.v1.structured_output.backend_guidance import GuidanceGrammar

    accept = GuidanceGrammar.accept_tokens

    def accept_tokens(self: Any, request_id: str, tokens: list[int]) -> bool:
        return bool(accept(self, request_id, tokens)) and not self.ll_matcher.is_error()

    def check_error(self: Any) -> None:
        error = self.ll_matcher.get_error()
        if error and not self.printed_error:
            self.printed_error = True
            told = error.partition("\n")[0][:MAX_TOLD]
            logging.getLogger("vllm.ochat").warning("A reply can't be held to what was asked: %s", told)

    GuidanceGrammar.accept_tokens, GuidanceGrammar.check_error = accept_tokens, check_error
