"""Drop the blank with which a reply begins where the tokenizer puts one before every word.

vLLM has no hook for it. Its IncrementalDetokenizer.from_new_request makes the decoder of every request, in the process that
renders the prompts: we wrap the decoder of the replies that our renderer opened. Raw completions are left alone, which vLLM's own
name of a request tells: their prompt may be one that was rendered for a chat, or by /tokenize. Read from vLLM 0.32.0 and 0.33.0."""

from collections.abc import Sequence

from vllm.tokenizers import TokenizerLike
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer, IncrementalDetokenizer

_LONGEST_PREFIX = 256  # tokens; a condition has 128 characters at most
_RAW = "cmpl-"  # how the name of a raw completion begins; a chat's begins with chatcmpl-
_from_new_request = IncrementalDetokenizer.from_new_request


class OpenedReplies:
    """Prompts that end in an assistant prefix which was rendered here."""

    def __init__(self, end_of_turn: int) -> None:
        self._end_of_turn = end_of_turn
        self._prefixes: set[tuple[int, ...]] = set()

    def _prefix(self, prompt: Sequence[int]) -> tuple[int, ...] | None:
        """What follows the last end of turn."""
        for start in range(len(prompt), max(len(prompt) - _LONGEST_PREFIX, 0), -1):
            if prompt[start - 1] == self._end_of_turn:
                return tuple(prompt[start:])
        return None

    def add(self, prompt: Sequence[int]) -> None:
        if len(self._prefixes) > 10_000:  # conditions come from requests: keep the set small
            self._prefixes.clear()
        prefix = self._prefix(prompt)
        if prefix:
            self._prefixes.add(prefix)

    def __contains__(self, prompt: Sequence[int]) -> bool:
        return self._prefix(prompt) in self._prefixes


def drop_first_blank(opened: OpenedReplies) -> None:
    """From now on, drop the first blank of the reply to a prompt in `opened`."""

    def from_new_request(
        cls: type[IncrementalDetokenizer], tokenizer: TokenizerLike | None, request: EngineCoreRequest
    ) -> IncrementalDetokenizer:
        detokenizer = _from_new_request(tokenizer, request)
        is_raw = (request.external_req_id or "").startswith(_RAW)
        # Without a tokenizer nothing is decoded.
        if isinstance(detokenizer, BaseIncrementalDetokenizer) and not is_raw and (request.prompt_token_ids or ()) in opened:
            _drop_first_blank_of(detokenizer)
        return detokenizer

    IncrementalDetokenizer.from_new_request = classmethod(from_new_request)


def _drop_first_blank_of(detokenizer: BaseIncrementalDetokenizer) -> None:
    decode_next = detokenizer.decode_next

    def decode_first(next_token_id: int) -> str:
        text: str = decode_next(next_token_id)
        if text:
            detokenizer.decode_next = decode_next
        return text.removeprefix(" ")

    detokenizer.decode_next = decode_first
