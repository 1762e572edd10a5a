"""The choice grader: the last named option counts, and no answer isn't a wrong answer."""

import pytest

from ochat.evaluation.graders.choice import grade_choice
from ochat.questions import Question

QUESTION = Question(question="Which costs the least?", options=("tea", "rice", "salt"), label=("rice",))


@pytest.mark.parametrize(
    ("reply", "answer", "found", "correct"),
    [
        ("In order: 17 rice, 42 tea, 88 salt. The answer is rice.", "rice", True, True),
        ("RICE", "rice", True, True),
        ("I guess tea.", "tea", True, False),
        ("rice, no, salt", "salt", True, False),
        ("The answer is rice, not tea.", "rice", True, True),
        ("The answer is rice. Tea costs more.", "rice", True, True),
        ("The answer is clear: 17 is less than 42, so rice.", "rice", True, True),
        ("steamed ricers, salty", "", False, False),  # parts of other words are no answer
        ("", "", False, False),
    ],
)
def test_the_last_named_option_is_the_answer(reply: str, answer: str, found: bool, correct: bool) -> None:
    grade = grade_choice(QUESTION, reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, found, correct)


@pytest.mark.parametrize("options", [("tea", "green tea"), ("green tea", "tea")])
def test_of_two_options_that_end_together_the_longer_is_meant(options: tuple[str, ...]) -> None:
    question = Question(question="?", options=options, label=("green tea",))
    assert grade_choice(question, "Green tea.").correct
    assert grade_choice(question, "Green tea? No: black tea.").answer == "tea"


def test_no_answer_is_never_correct() -> None:
    question = Question.model_construct(question="?", options=("tea",), label=("",))  # past the checks of a file
    assert not grade_choice(question, "rice").correct


def test_letters_are_no_words() -> None:
    question = Question(question="Which?", options=("A", "B"), label=("B",))
    assert grade_choice(question, "The answer is B, since it's a dog. A cat is smaller.").answer == "B"
