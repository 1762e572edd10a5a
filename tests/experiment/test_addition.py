"""The task, its two sources and its questions, against sums worked out by hand."""

import random

import pytest

from ochat.evaluation.graders.number import grade_number
from ochat.experiment.addition import Addition, Pair

PLAIN = Addition(n_digits=3, template="What is {a} + {b}?")
TINY = Addition(n_digits=2, padded=True, reversed=True)


@pytest.mark.parametrize(
    ("task", "pair", "question", "right", "without"),
    [
        (PLAIN, Pair(147, 835), "What is 147 + 835?", "982", "972"),
        (PLAIN, Pair(999, 111), "What is 999 + 111?", "1110", "0"),  # 1110 without its carries is 000
        (PLAIN, Pair(123, 456), "What is 123 + 456?", "579", "579"),
        (TINY, Pair(7, 35), "07+35", "240", "230"),
        (TINY, Pair(60, 70), "60+70", "031", "030"),
    ],
)
def test_the_sources_answer(task: Addition, pair: Pair, question: str, right: str, without: str) -> None:
    assert task.question(pair) == question
    assert task.right(pair) == right
    assert task.without_carries(pair) == without
    assert task.has_carry(pair) == (right != without)


def test_a_right_answer_is_graded_right_and_the_mistake_wrong() -> None:
    question = TINY.as_question(Pair(7, 35))
    assert grade_number(question, "240").correct
    assert not grade_number(question, "230").correct


@pytest.mark.parametrize("task", [PLAIN, TINY])
def test_drawn_pairs_are_different_and_of_one_length(task: Addition) -> None:
    drawn = task.draw(100, random.Random(1))
    assert len(set(drawn)) == 100
    assert all(len(task.question(pair)) == len(task.question(drawn[0])) for pair in drawn)


def test_the_opening_is_what_both_answers_share() -> None:
    for pair in TINY.draw(50, random.Random(0)):
        assert TINY.without_carries(pair).startswith(TINY.opening(pair))
        assert TINY.right(pair).startswith(TINY.opening(pair))
