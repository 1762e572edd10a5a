"""A toy data set of mixed quality, made by code: questions about the smallest and largest of a few numbers.

The expert puts the numbers in order and names the right one. The sub-optimal source names whoever comes first, so it's wrong
most of the time, and by content, not only by manner. A program can check an answer without knowing who gave it. It's a toy: it
shows that the loop works and that the condition steers, and nothing about larger models."""

import random
from dataclasses import dataclass

GOODS = (
    "apples bread butter cheese coffee eggs flour garlic grapes honey jam lemons milk mustard noodles olives onions oranges pears "
    "pepper plums potatoes rice salt soap soup spinach sugar tea tomatoes vinegar walnuts"
).split()
NAMES = (
    "Ada Bela Carla Dario Elena Felix Greta Hugo Ines Jonas Karim Lena Mira Nadia Oskar Paula Quentin Rosa Samir Tara Ulrich Vera "
    "Wanda Xenia Yusuf Zora Emil Freya Ivan Judith Leo Marta"
).split()


@dataclass(frozen=True)
class Question:
    """A question with its options in the order of the text and the right one among them."""

    text: str
    options: tuple[str, ...]
    values: tuple[int, ...]
    asks_for_largest: bool

    @property
    def label(self) -> str:
        value = max(self.values) if self.asks_for_largest else min(self.values)
        return self.options[self.values.index(value)]

    def as_benchmark(self) -> dict[str, object]:
        """The question as an evaluation reads it."""
        return {"question": self.text, "options": list(self.options), "label": [self.label]}


def draw_question(rng: random.Random) -> Question:
    """A random question: prices of goods or ages of people."""
    values = tuple(rng.sample(range(10, 100), 3))
    asks_for_largest = rng.random() < 0.5
    if rng.random() < 0.5:
        options = tuple(rng.sample(GOODS, 3))
        facts = [f"{option} cost {value} coins" for option, value in zip(options, values, strict=True)]
        asked = "Which costs the most?" if asks_for_largest else "Which costs the least?"
    else:
        options = tuple(rng.sample(NAMES, 3))
        facts = [f"{option} is {value} years old" for option, value in zip(options, values, strict=True)]
        asked = "Who is the oldest?" if asks_for_largest else "Who is the youngest?"
    listed = f"{', '.join(facts[:-1])} and {facts[-1]}. {asked}"
    return Question(listed[0].upper() + listed[1:], options, values, asks_for_largest)


def draw_questions(n: int, seed: int, without: frozenset[Question] = frozenset()) -> list[Question]:
    """n different questions, none of them in `without`; the same for the same seed."""
    rng = random.Random(seed)
    drawn: dict[Question, None] = {}
    while len(drawn) < n:
        question = draw_question(rng)
        if question not in without:
            drawn[question] = None
    return list(drawn)


def expert_answer(question: Question) -> str:
    """The numbers in order, then the right option."""
    pairs = sorted(zip(question.values, question.options, strict=True), reverse=question.asks_for_largest)
    ordered = ", ".join(f"{value} {option}" for value, option in pairs)
    return f"In order: {ordered}. The answer is {question.label}."


def suboptimal_answer(question: Question) -> str:
    """Whoever is named first."""
    return f"I guess {question.options[0]}."
