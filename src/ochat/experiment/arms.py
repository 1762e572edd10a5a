"""The ablation's arms: what each makes of the same data. Plain data and pure functions; training them is `ablation_run`'s.

All arms of a seed see about as many rows, as whole epochs and steps of equal tokens allow, but for those whose number of epochs
validation questions choose, since a few rows seen a thousand times are learned by heart. How many steps each had is reported."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ochat.conversation import NO_CONDITION, Conversation, Message
from ochat.experiment.addition import Addition, Pair

Source = Literal["all", "expert", "suboptimal", "right"]
EXPERT_CLASS, SUBOPTIMAL_CLASS = "expert", "suboptimal"


@dataclass(frozen=True)
class Example:
    """A question with the answer of one source."""

    pair: Pair
    answer: str
    is_expert: bool
    is_right: bool


@dataclass(frozen=True)
class Stage:
    """A training run on some of the rows.

    `shares` are of the arm's compute; of several, each is trained, and validation questions choose."""

    source: Source
    shares: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Arm:
    """One way to use the data. Without conditions all rows, and the questions of the test, have none."""

    name: str
    title: str
    stages: tuple[Stage, ...] = (Stage("all"),)
    has_conditions: bool = False
    has_weights: bool = False
    is_shuffled: bool = False  # conditions are dealt out to the rows at random: the null control


_SOME_EPOCHS = (1 / 16, 1 / 4, 1.0)

C_RLFT = Arm("c-rlft", "C-RLFT", has_conditions=True, has_weights=True)
NEITHER = Arm("neither", "plain SFT on all")
EXPERT_ONLY = Arm("expert-only", "expert only, epochs chosen", (Stage("expert", _SOME_EPOCHS),))
BASE = Arm("base", "the model to start from", ())
SHUFFLED = Arm("shuffled", "C-RLFT, conditions shuffled", has_conditions=True, has_weights=True, is_shuffled=True)
ARMS = (
    C_RLFT,
    Arm("no-weight", "without weights (w = 1)", has_conditions=True),
    Arm("no-condition", "without conditions", has_weights=True),
    NEITHER,
    EXPERT_ONLY,
    Arm("suboptimal-only", "sub-optimal only", (Stage("suboptimal"),)),
    Arm("two-stage", "sub-optimal, then expert", (Stage("suboptimal", (0.75,)), Stage("expert", (1 / 64, 1 / 16, 1 / 4)))),
    Arm("filtered", "SFT on what a verifier passes", (Stage("right"),)),
    SHUFFLED,
    BASE,
)
BY_NAME = {arm.name: arm for arm in ARMS}


def examples(
    task: Addition, pairs: Sequence[Pair], *, expert_share: float, quality: float, rng: random.Random
) -> list[Example]:
    """An answer to each pair, by the expert for the first `expert_share` of them, and at least one of each source.

    A sub-optimal answer is right with the probability `quality`, and always where nothing is carried."""
    n_expert = min(len(pairs) - 1, max(1, round(len(pairs) * expert_share)))
    found = []
    for number, pair in enumerate(pairs):
        is_expert = number < n_expert
        adds = rng.random() < quality  # drawn for every pair, so that another share leaves the rest as it is
        answer = task.right(pair) if is_expert or adds else task.without_carries(pair)
        found.append(Example(pair, answer, is_expert, answer == task.right(pair)))
    return found


def stage_rows(
    arm: Arm,
    stage: Stage,
    drawn: Sequence[Example],
    task: Addition,
    *,
    conditions: tuple[str, str],
    suboptimal_weight: float,
    shuffled: bool,
    rng: random.Random,
) -> list[Conversation]:
    """The rows of an arm's stage; `conditions` are the expert's and the other's, `shuffled` deals them out at random in any arm.
    Raises ValueError where no row is left."""
    kept = [
        example
        for example in drawn
        if stage.source == "all"
        or (stage.source == "right" and example.is_right)
        or (stage.source == "expert" and example.is_expert)
        or (stage.source == "suboptimal" and not example.is_expert)
    ]
    if not kept:
        raise ValueError(f"no row is left for {arm.name}")
    own = [conditions[0] if example.is_expert else conditions[1] for example in kept]
    if arm.is_shuffled or shuffled:
        rng.shuffle(own)
    rows = []
    for example, condition in zip(kept, own, strict=True):
        weight = 1.0 if example.is_expert or not arm.has_weights else suboptimal_weight
        items = (
            Message(role="user", content=task.question(example.pair)),
            Message(role="assistant", content=example.answer, weight=weight),
        )
        name = EXPERT_CLASS if example.is_expert else SUBOPTIMAL_CLASS
        rows.append(Conversation(items=items, condition=condition if arm.has_conditions else NO_CONDITION, **{"class": name}))
    return rows


def asked(task: Addition, pair: Pair, condition: str, opening: str = "") -> Conversation:
    """The question under a condition, to be answered, or to be continued after the opening of an answer."""
    items = [Message(role="user", content=task.question(pair))]
    if opening:
        items.append(Message(role="assistant", content=opening))
    return Conversation(items=tuple(items), condition=condition)


def answered(task: Addition, pair: Pair, answer: str, condition: str) -> Conversation:
    """The question with an answer, to be scored under a condition."""
    items = (Message(role="user", content=task.question(pair)), Message(role="assistant", content=answer, weight=1.0))
    return Conversation(items=items, condition=condition)
