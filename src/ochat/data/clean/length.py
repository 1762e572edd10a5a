"""What to do with a conversation that is too long: drop it, cut it after an exchange, or split it between exchanges.

An exchange is a user's turn and the replies to it. Neither cutting nor splitting leaves half a message, which would teach to stop
in the middle; an exchange that is too long on its own is dropped, and counted. Pieces of a split keep condition, class and system
prompt; what was said before a piece isn't known in it."""

from collections.abc import Callable, Sequence
from typing import Literal

from ochat.conversation import Conversation, Message
from ochat.data.clean.tally import Outcome

TooLong = Literal["drop", "cut", "split"]
# The lengths of some texts, in letters, words or tokens.
Measure = Callable[[Sequence[str]], list[int]]


def letters(texts: Sequence[str]) -> list[int]:
    """How many letters each text has."""
    return [len(text) for text in texts]


def blank_separated_words(texts: Sequence[str]) -> list[int]:
    """How many words, separated by blanks, each text has."""
    return [len(text.split()) for text in texts]


def exchanges(items: Sequence[Message]) -> list[list[Message]]:
    """The messages in exchanges, each opened by a user's turn (the first by whatever comes first)."""
    found: list[list[Message]] = []
    for item in items:
        if not found or (item.role == "user" and found[-1][-1].role == "assistant"):
            found.append([])
        found[-1].append(item)
    return found


def fitting(row: Conversation, max_length: int, too_long: TooLong, measure: Measure) -> Outcome:
    """The row, or what fits of it; the system prompt counts in each piece."""
    lengths = measure([row.system, *(item.content for item in row.items)])
    if sum(lengths) <= max_length:
        return Outcome((row,))
    if too_long == "drop":
        return Outcome((), dropped="too long")
    pieces: list[list[Message]] = [[]]
    room = max_length - lengths[0]
    n_lost, n_measured = 0, 1
    for exchange in exchanges(row.items):
        length = sum(lengths[n_measured : n_measured + len(exchange)])
        n_measured += len(exchange)
        if length > room and (too_long == "cut" or length > max_length - lengths[0]):
            n_lost += 1
            if too_long == "cut":
                break
            pieces.append([])  # what follows isn't what was said after the piece before
            room = max_length - lengths[0]
            continue
        if length > room:
            pieces.append([])
            room = max_length - lengths[0]
        pieces[-1] += exchange
        room -= length
    rows = tuple(row.model_copy(update={"items": tuple(piece)}) for piece in pieces if piece)
    if not rows:
        return Outcome((), dropped="too long, no exchange fits")
    if too_long == "cut":
        return Outcome(rows, ("cut after an exchange",))
    return Outcome(rows, ("split between exchanges", *(("exchanges too long on their own left out",) if n_lost else ())))
