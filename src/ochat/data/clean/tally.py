"""What a cleaning step did: counted by reason, with a few examples.

A step takes and yields `(place, conversation)` pairs, one at a time where it can, and tells its Tally of each row. Nothing that
a step drops or changes goes uncounted: read + added = kept + dropped, and `ochat data clean` checks it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ochat.conversation import Conversation

Rows = Iterator[tuple[str, Conversation]]

EXAMPLES_PER_REASON = 100  # kept in memory, whatever is shown
EXAMPLE_LETTERS = 200


class Example(NamedTuple):
    reason: str
    place: str
    text: str


class Outcome(NamedTuple):
    """What a step makes of one row: the rows that take its place, what was changed, or why it is dropped."""

    rows: tuple[Conversation, ...]
    changes: tuple[str, ...] = ()
    dropped: str = ""
    evidence: str = ""  # the text that shows it


@dataclass
class Tally:
    """Counts of one step over all rows."""

    n_read: int = 0
    n_kept: int = 0
    n_added: int = 0  # rows that came of splitting others
    n_changed: int = 0  # kept rows that aren't what they were
    changes: Counter[str] = field(default_factory=Counter)  # a row may be changed for several reasons
    drops: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # neither changed nor dropped, yet worth knowing
    examples: list[Example] = field(default_factory=list)

    @property
    def n_dropped(self) -> int:
        """How many rows were dropped."""
        return self.drops.total()

    def _keep_example(self, n_before: int, reason: str, place: str, text: str) -> None:
        if n_before < EXAMPLES_PER_REASON:
            self.examples.append(Example(reason, place, text[:EXAMPLE_LETTERS]))

    def wants_example(self, reason: str) -> bool:
        """Whether the next row dropped for this reason becomes an example."""
        return self.drops[reason] < EXAMPLES_PER_REASON

    def drop(self, reason: str, place: str, text: str) -> None:
        """Count a row that was read and is dropped."""
        self.n_read += 1
        self._keep_example(self.drops[reason], reason, place, text)
        self.drops[reason] += 1

    def keep(self, place: str, text: str = "", changes: tuple[str, ...] = (), n_rows: int = 1) -> None:
        """Count a row that was read and is kept, changed or as `n_rows` others."""
        self.n_read += 1
        self.n_kept += n_rows
        self.n_added += n_rows - 1
        self.n_changed += bool(changes)
        for reason in changes:
            self._keep_example(self.changes[reason], reason, place, text)
            self.changes[reason] += 1

    def note(self, reason: str, place: str, text: str) -> None:
        """Count something about a row beside its being kept or dropped."""
        self._keep_example(self.notes[reason], reason, place, text)
        self.notes[reason] += 1


def each_row(rows: Rows, tally: Tally, clean: Callable[[Conversation], Outcome]) -> Rows:
    """The step that looks at one row at a time: what `clean` makes of each."""
    for place, row in rows:
        outcome = clean(row)
        if outcome.dropped:
            tally.drop(outcome.dropped, place, outcome.evidence or words_of(row))
            continue
        tally.keep(place, outcome.evidence or words_of(row), outcome.changes, len(outcome.rows))
        for kept in outcome.rows:
            yield place, kept


def likeness(row: Conversation, kept: tuple[str, Conversation]) -> str:
    """An example's text for a row that is dropped for another."""
    place, other = kept
    return f"{words_of(row)[: EXAMPLE_LETTERS // 2]} … as {place}: {words_of(other)}"


def words_of(row: Conversation) -> str:
    """The start of the row's text, as an example shows it."""
    return " | ".join(f"{item.role}: {item.content[:EXAMPLE_LETTERS]}" for item in row.items[:2])
