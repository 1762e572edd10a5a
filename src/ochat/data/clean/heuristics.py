"""Cheap signs of a poor reply: a refusal, text that repeats itself, hardly any text.

Each is wrong at times (`I cannot` may open a good answer, a list repeats its form, "Yes." may be all there is to say), so none
runs unless asked for; look at the examples before dropping by them."""

import re
from collections import Counter

from ochat.conversation import Conversation
from ochat.data.clean.tally import Outcome
from ochat.data.clean.words import words

# A refusal is said at the start; "AI assistant" in the middle of a text is innocent.
REFUSAL_LETTERS = 200
REFUSAL = re.compile(
    r"\b(as an? (ai|artificial intelligence)(( language)? model|,? i)|as a (large )?language model"
    r"|(sorry|i apologi[sz]e),? but i"
    r"|(i'?m|i am) (sorry|afraid|unable|not able)[^.!?\n]{0,40}\b(can'?t|cannot|can not|unable|not able|won'?t|not comfortable)"
    r"|i (can'?t|cannot|can not|won'?t|will not|am unable to|am not able to|'m unable to) "
    r"(assist|help|comply|fulfill|fulfil|provide|create|generate|engage|answer|do that|write|offer|discuss)"
    r"|(i'?m|i am) (unable|not able|not allowed|not programmed) to)\b",
    re.IGNORECASE,
)
REPEATED_WORDS = 4


def replies(row: Conversation) -> list[str]:
    """What the assistant said, turn by turn."""
    return [item.content for item in row.items if item.role == "assistant"]


def is_refusal(reply: str) -> bool:
    """Whether the reply opens with a refusal."""
    return bool(REFUSAL.search(reply[:REFUSAL_LETTERS].replace("\u2019", "'")))


def repeated_share(reply: str) -> float:
    """The share of the reply's runs of four words that it had before: 0 for none, towards 1 for one sentence over and over."""
    said = words(reply)
    runs = Counter(tuple(said[start : start + REPEATED_WORDS]) for start in range(len(said) - REPEATED_WORDS + 1))
    return 1 - len(runs) / runs.total() if runs else 0.0


def without_refusal(row: Conversation) -> Outcome:
    """The row, dropped where any reply is a refusal."""
    refusal = next(filter(is_refusal, replies(row)), None)
    return Outcome((row,)) if refusal is None else Outcome((), dropped="a reply refuses", evidence=refusal)


def without_repetition(row: Conversation, max_share: float) -> Outcome:
    """The row, dropped where more than `max_share` of a reply repeats itself."""
    repeating = next((reply for reply in replies(row) if repeated_share(reply) > max_share), None)
    return Outcome((row,)) if repeating is None else Outcome((), dropped="a reply repeats itself", evidence=repeating)


def long_enough(row: Conversation, min_words: int) -> Outcome:
    """The row, dropped where all its replies together have fewer words."""
    said = "\n".join(replies(row))
    if len(words(said)) >= min_words:
        return Outcome((row,))
    return Outcome((), dropped=f"replies of fewer than {min_words} words", evidence=said)
