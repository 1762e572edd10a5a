"""Addition with a systematic mistake: a task on which answers of two qualities are made, and checked, by code.

The expert adds. The sub-optimal source is right now and then, and else forgets every carry: 47 + 35 becomes 72. Both teach the sums
of digits; only right answers teach carries, and the sub-optimal source gives mostly none."""

import random
from dataclasses import dataclass
from typing import NamedTuple

from ochat.questions import Question


class Pair(NamedTuple):
    """Two numbers to add."""

    a: int
    b: int


@dataclass(frozen=True)
class Addition:
    """How the task is put into words."""

    n_digits: int
    template: str = "{a}+{b}"
    # Numbers written with all their places, 07+35 as 042: rows of one length, for a model that starts from nothing.
    padded: bool = False
    # Answers from the units up, 042 as 240: a carry is then known when it's needed, and small models learn it soon.
    reversed: bool = False

    def draw(self, n: int, rng: random.Random) -> list[Pair]:
        """n different pairs of numbers with so many digits."""
        smallest = 0 if self.padded else 10 ** (self.n_digits - 1)
        drawn: dict[Pair, None] = {}
        while len(drawn) < n:
            drawn[Pair(*(rng.randrange(smallest, 10**self.n_digits) for _ in range(2)))] = None
        return list(drawn)

    def question(self, pair: Pair) -> str:
        """The text that is asked."""
        return self.template.format(a=self._number(pair.a, self.n_digits), b=self._number(pair.b, self.n_digits))

    def right(self, pair: Pair) -> str:
        """The sum."""
        return self._answer(pair.a + pair.b)

    def without_carries(self, pair: Pair) -> str:
        """The sum of each place alone: the systematic mistake. Equal to the sum where nothing is carried."""
        places = [10**place for place in range(self.n_digits)]
        return self._answer(sum((pair.a // place + pair.b // place) % 10 * place for place in places))

    def has_carry(self, pair: Pair) -> bool:
        """Whether the two answers differ."""
        return self.right(pair) != self.without_carries(pair)

    def opening(self, pair: Pair) -> str:
        """The beginning of the answer that can't be wrong for want of a carry: what comes next depends on it."""
        return self.right(pair)[0] if self.reversed else ""

    def as_question(self, pair: Pair) -> Question:
        """The question as an evaluation reads it."""
        return Question(question=self.question(pair), label=(self.right(pair),))

    def _answer(self, number: int) -> str:
        text = self._number(number, self.n_digits + 1)
        return text[::-1] if self.reversed else text

    def _number(self, number: int, n_digits: int) -> str:
        return str(number).zfill(n_digits) if self.padded else str(number)
