"""Grade a reply that should end by naming one of the question's options."""

import re
from dataclasses import dataclass

from ochat.questions import Question


@dataclass(frozen=True)
class Grade:
    """What a reply was taken to answer. No answer is not a wrong answer: `found` tells them apart."""

    answer: str
    found: bool
    correct: bool


def grade_choice(question: Question, reply: str) -> Grade:
    """The last option that the reply names as a word, in any case, is its answer."""
    last, answer = -1, ""
    for option in question.options:
        for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", reply, re.IGNORECASE):
            if match.end() > last:
                last, answer = match.end(), option
    return Grade(answer, found=bool(answer), correct=answer in question.label)
