"""What the texts themselves show, as rows stream by: refusals, empty replies, benchmark questions, and a sample of each class for
what takes longer: languages, and the form of its texts."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ochat.conversation import Conversation
from ochat.data.blocks import class_of, prompt_hash
from ochat.data.clean.contamination import Benchmarks, Match
from ochat.data.clean.exact import drop_exact_duplicates
from ochat.data.clean.heuristics import is_refusal, replies
from ochat.data.clean.language import NO_LANGUAGE, SURE, Detect, prose
from ochat.data.clean.near import drop_near_duplicates
from ochat.data.clean.tally import EXAMPLE_LETTERS, Example, Rows, Tally
from ochat.data.report.row_table import Array
from ochat.data.report.surface import FOLDS, Form, form, opening

SAMPLE_ROWS = 2000  # of each class
JACCARD = 0.8
MAX_MATCHES = 1000  # rows with a benchmark's question that are named


class Sampled(NamedTuple):
    """What is kept of a row of the sample."""

    language: str
    reply: Form
    reply_opening: str
    prompt: Form
    prompt_opening: str
    fold: int


@dataclass
class Samples:
    """So many rows of each class, each of its rows with the same chance (Vitter, 1985), whatever the order of the rows."""

    detect: Detect
    of_class: dict[str, list[Sampled]] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    def offer(self, row: Conversation) -> None:
        """Take the row, or not."""
        name = class_of(row)
        kept = self.of_class.setdefault(name, [])
        self._seen[name] += 1
        if len(kept) < SAMPLE_ROWS:
            kept.append(self._sampled(row))
            return
        place = self._draw.randrange(self._seen[name])
        if place < SAMPLE_ROWS:
            kept[place] = self._sampled(row)

    def _sampled(self, row: Conversation) -> Sampled:
        language, confidence = self.detect(prose(row))
        sure = language if language == NO_LANGUAGE or confidence >= SURE else ""
        said, asked = "\n".join(replies(row)), "\n".join(item.content for item in row.items if item.role == "user")
        fold = prompt_hash(row)[8] % FOLDS
        return Sampled(sure, form(said), opening(said), form(asked), opening(asked), fold)

    def texts(self, names: Sequence[str], part: str) -> tuple[list[Form], list[str], Array, Array]:
        """The form and first word of each sampled reply or prompt, the number of its class, and its fold."""
        rows = [(number, row) for number, name in enumerate(names) for row in self.of_class.get(name, [])]
        forms = [row.reply if part == "reply" else row.prompt for _, row in rows]
        openings = [row.reply_opening if part == "reply" else row.prompt_opening for _, row in rows]
        return forms, openings, np.array([number for number, _ in rows], int), np.array([row.fold for _, row in rows], int)


@dataclass
class Texts:
    """Counts of rows, by class."""

    samples: Samples
    benchmarks: Benchmarks | None
    refusals: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    systems: Counter[str] = field(default_factory=Counter)
    contaminated: Counter[str] = field(default_factory=Counter)
    of_benchmark: Counter[str] = field(default_factory=Counter)
    matches: list[Match] = field(default_factory=list)

    def add(self, batch: Sequence[tuple[str, Conversation]]) -> None:
        """Look at rows."""
        for _, row in batch:
            name, said = class_of(row), replies(row)
            self.refusals[name] += any(map(is_refusal, said))
            self.empty[name] += not all(map(str.strip, said))
            self.systems[name] += bool(row.system)
            self.samples.offer(row)
        if self.benchmarks is None:
            return
        for (place, row), hit in zip(batch, self.benchmarks.find([row for _, row in batch]), strict=True):
            if hit is not None:
                question, shown = hit
                self.contaminated[class_of(row)] += 1
                self.of_benchmark[question.benchmark] += 1
                if len(self.matches) < MAX_MATCHES:
                    self.matches.append(Match(question.benchmark, question.place, place, shown[:EXAMPLE_LETTERS]))


@dataclass(frozen=True)
class Duplicates:
    """Rows that say what another says. Of each such group one stays and isn't counted: the heaviest."""

    by_class: dict[str, int]
    by_reason: dict[str, int]
    examples: list[Example]


def find_duplicates(rows: Rows, folder: Path) -> tuple[Duplicates, Duplicates]:
    """Exact duplicates, and near ones among the rest, as `ochat data clean` would drop them; rows wait in `folder` meanwhile."""
    counts: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    exact, near = Tally(), Tally()
    rest = drop_exact_duplicates(_counted(rows, counts[0]), exact, folder)
    for _ in _counted(drop_near_duplicates(_counted(rest, counts[1]), near, folder, JACCARD), counts[2]):
        pass
    found = []
    for tally, before, after in ((exact, counts[0], counts[1]), (near, counts[1], counts[2])):
        by_class = {name: n - after[name] for name, n in before.items() if n > after[name]}
        found.append(Duplicates(by_class, dict(tally.drops), tally.examples))
    return found[0], found[1]


def _counted(rows: Rows, counts: Counter[str]) -> Iterator[tuple[str, Conversation]]:
    for place, row in rows:
        counts[class_of(row)] += 1
        yield place, row
