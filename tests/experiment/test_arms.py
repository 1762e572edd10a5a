"""What each arm makes of the same rows."""

import random
from collections import Counter

import pytest

from ochat.conversation import Conversation
from ochat.experiment.addition import Addition
from ochat.experiment.arms import ARMS, BY_NAME, Example, examples, stage_rows

TASK = Addition(n_digits=2, padded=True, reversed=True)


def drawn(quality: float = 0.3, expert_share: float = 0.1) -> list[Example]:
    pairs = TASK.draw(200, random.Random(0))
    return examples(TASK, pairs, expert_share=expert_share, quality=quality, rng=random.Random(1))


def rows_of(name: str, stage: int = 0, shuffled: bool = False) -> list[Conversation]:
    arm = BY_NAME[name]
    conditions = ("GPT4", "GPT3")
    return stage_rows(
        *(arm, arm.stages[stage], drawn(), TASK),
        conditions=conditions,
        suboptimal_weight=0.1,
        shuffled=shuffled,
        rng=random.Random(2),
    )


@pytest.mark.parametrize(
    ("name", "n_rows", "kinds"),
    [
        ("c-rlft", 200, {("expert", "GPT4", 1.0), ("suboptimal", "GPT3", 0.1)}),
        ("no-weight", 200, {("expert", "GPT4", 1.0), ("suboptimal", "GPT3", 1.0)}),
        ("no-condition", 200, {("expert", "none", 1.0), ("suboptimal", "none", 0.1)}),
        ("neither", 200, {("expert", "none", 1.0), ("suboptimal", "none", 1.0)}),
        ("expert-only", 20, {("expert", "none", 1.0)}),
        ("suboptimal-only", 180, {("suboptimal", "none", 1.0)}),
    ],
)
def test_conditions_and_weights_of_an_arm(name: str, n_rows: int, kinds: set[tuple[str, str, float]]) -> None:
    rows = rows_of(name)
    assert len(rows) == n_rows
    assert {(row.class_name, row.condition, row.items[1].weight) for row in rows} == kinds


def test_all_rows_of_one_arm_are_those_of_another() -> None:
    texts = [[(row.items[0].content, row.items[1].content) for row in rows_of(name)] for name in ("c-rlft", "neither")]
    assert texts[0] == texts[1]


def test_shuffled_conditions_keep_their_shares_and_lose_their_rows() -> None:
    plain, shuffled = rows_of("c-rlft"), rows_of("shuffled")
    assert Counter(row.condition for row in plain) == Counter(row.condition for row in shuffled)
    experts = [row for row in shuffled if row.class_name == "expert"]
    assert sum(row.condition == "GPT4" for row in experts) < len(experts) / 2
    assert all(row.items[1].weight == 1.0 for row in experts)


def test_any_arm_can_be_shuffled() -> None:
    assert rows_of("c-rlft", shuffled=True) == rows_of("shuffled")
    assert rows_of("neither", shuffled=True) == rows_of("neither")  # it has no conditions


def test_the_two_stages_part_the_rows() -> None:
    assert {row.class_name for row in rows_of("two-stage", 0)} == {"suboptimal"}
    assert {row.class_name for row in rows_of("two-stage", 1)} == {"expert"}


def test_the_filter_keeps_right_answers_alone() -> None:
    right = {TASK.question(e.pair): TASK.right(e.pair) for e in drawn()}
    rows = rows_of("filtered")
    assert 20 < len(rows) < 200
    assert all(right[row.items[0].content] == row.items[1].content for row in rows)


@pytest.mark.parametrize(("quality", "expected"), [(0.0, 0), (1.0, 1)])
def test_the_quality_is_the_share_of_right_answers_with_a_carry(quality: float, expected: float) -> None:
    answers = [e for e in drawn(quality) if not e.is_expert and TASK.has_carry(e.pair)]
    assert sum(e.is_right for e in answers) / len(answers) == expected


def test_another_share_of_experts_leaves_the_other_answers() -> None:
    few, many = drawn(expert_share=0.1), drawn(expert_share=0.5)
    assert few[100:] == many[100:]


def test_both_sources_are_there_at_any_share() -> None:
    for share in (0.0001, 0.9999):
        assert len({e.is_expert for e in drawn(expert_share=share)}) == 2


def test_arms_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(ARMS)
