"""Replies that are held to a schema, regex or grammar: what happens where the library can't go on.

llguidance bounds its own work. Beyond its bounds it allows the end of the reply alone, and vLLM 0.32 and 0.33 took that for a reply
that had ended well: an empty one, with "stop" as its reason. The engine has a way to fail a request, which the gateway then tells
as the request's fault (replies.py)."""

from typing import Any


def install() -> None:
    """From now on, in this process, an engine's request fails where the library gave up on what it is held to. Call it once."""
    from vllm.v1.structured_output.backend_guidance import GuidanceGrammar

    accept = GuidanceGrammar.accept_tokens

    def accept_tokens(self: Any, request_id: str, tokens: list[int]) -> bool:
        return bool(accept(self, request_id, tokens)) and not self.ll_matcher.is_error()

    GuidanceGrammar.accept_tokens = accept_tokens
