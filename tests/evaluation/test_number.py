"""The last number of a reply is its answer."""

import pytest

from ochat.evaluation.graders.number import grade_number
from ochat.questions import Question


@pytest.mark.parametrize(
    ("reply", "label", "answer", "correct"),
    [
        ("42", "42", "42", True),
        ("It's 40 + 2 = 42.", "42", "42", True),
        ("042", "42", "042", True),
        ("1,000", "1000", "1,000", True),
        ("1000.0", "1000", "1000.0", True),
        ("-5", "5", "-5", False),
        ("-5", "-5", "-5", True),
        ("7-5", "5", "5", True),
        ("42 or 43", "42", "43", False),
        ("9007199254740993", "9007199254740992", "9007199254740993", False),  # the same as floats
        ("v42b", "42", "", False),
        ("", "42", "", False),
    ],
)
def test_the_last_number_is_graded(reply: str, label: str, answer: str, correct: bool) -> None:
    grade = grade_number(Question(question="?", label=(label,)), reply)
    assert (grade.answer, grade.found, grade.correct) == (answer, bool(answer), correct)


def test_one_of_several_labels_is_enough() -> None:
    assert grade_number(Question(question="?", label=("1", "2")), "2").correct
