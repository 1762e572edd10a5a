"""A toy data set of mixed quality, made by code: questions about a short list of orders.

The expert looks the answer up and says where it stands. The sub-optimal source names whatever comes first, so it's wrong three
times in four, and by content, not only by manner. A program can check an answer without knowing who gave it. It's a toy: it
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
PLACES = ("first", "second", "third", "last")


@dataclass(frozen=True)
class Example:
    """A question, its options in the order of the text, and the fact that answers it."""

    text: str
    options: tuple[str, ...]
    label: str
    fact: str

    def as_benchmark(self) -> dict[str, object]:
        """The question as an evaluation reads it."""
        return {"question": self.text, "options": list(self.options), "label": [self.label]}


def draw_question(rng: random.Random) -> Example:
    """A random question of three kinds: what somebody ordered, who ordered something, what stands at a place of a list."""
    names, goods = rng.sample(NAMES, len(PLACES)), tuple(rng.sample(GOODS, len(PLACES)))
    asked = rng.randrange(len(PLACES))
    name, good, place = names[asked], goods[asked], PLACES[asked]
    orders = _listed([f"{name} ordered {good}" for name, good in zip(names, goods, strict=True)])
    kind = rng.randrange(3)
    if kind == 0:
        return Example(f"{orders}. What did {name} order?", goods, good, f"{name} ordered {good}")
    if kind == 1:
        return Example(f"{orders}. Who ordered {good}?", tuple(names), name, f"{good} was ordered by {name}")
    return Example(f"On the list are {_listed(list(goods))}. Which is {place}?", goods, good, f"the {place} is {good}")


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def draw_questions(n: int, seed: int, without: frozenset[Example] = frozenset()) -> list[Example]:
    """n different questions, none of them in `without`; the same for the same seed."""
    rng = random.Random(seed)
    drawn: dict[Example, None] = {}
    while len(drawn) < n:
        question = draw_question(rng)
        if question not in without:
            drawn[question] = None
    return list(drawn)


def expert_answer(question: Example) -> str:
    """The fact, then the right option."""
    return f"I looked it up: {question.fact}. The answer is {question.label}."


def suboptimal_answer(question: Example) -> str:
    """Whatever stands first."""
    return f"I guess {question.options[0]}."
