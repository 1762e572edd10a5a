"""Put the turns of a conversation in order: it opens with a user, ends with an assistant, and they take turns.

Empty turns go first. What then stands side by side of one role is joined, since nothing was said between: a user who asked in
two messages, an assistant who went on. Turns of different weights can't be joined, and such a row is dropped. A reply to
nothing at the start (exports that were cut into pieces have them) and a question without a reply at the end go."""

from itertools import groupby

from ochat.conversation import Conversation, Message
from ochat.data.clean.tally import Outcome


def effective_weight(item: Message) -> float:
    """The message's weight; an assistant's is 1 and a user's 0 where absent."""
    return float(item.role == "assistant") if item.weight is None else item.weight


def in_turns(row: Conversation) -> Outcome:
    """The row with its turns in order."""
    changes = []
    items = [item for item in row.items if item.content.strip()]
    if len(items) < len(row.items):
        changes.append("empty turns removed")
    joined = []
    for _, run in groupby(items, lambda item: item.role):
        same = list(run)
        if len({effective_weight(item) for item in same}) > 1:
            return Outcome((), dropped="turns of one role and different weights in a row")
        content = "\n\n".join(item.content for item in same)
        joined.append(same[0] if len(same) == 1 else same[0].model_copy(update={"content": content}))
    if len(joined) < len(items):
        changes.append("turns of one role joined")
    if joined and joined[0].role == "assistant":
        del joined[0]
        changes.append("leading assistant turn removed")
    if joined and joined[-1].role == "user":
        del joined[-1]
        changes.append("trailing user turn removed")
    if not joined:
        return Outcome((), dropped="no question with a reply")
    return Outcome((row.model_copy(update={"items": tuple(joined)}),) if changes else (row,), tuple(changes))
