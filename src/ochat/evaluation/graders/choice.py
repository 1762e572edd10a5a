"""Grade a reply that should end by naming one of the question's options."""

import re

from ochat.evaluation.graders.grade import Grade
from ochat.questions import Question


def grade_choice(question: Question, reply: str) -> Grade:
    """The last option that the reply names as a word, in any case, is its answer; of two that end together, the longer."""
    named = [
        (match.end(), len(option), option)
        for option in question.options
        for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", reply, re.IGNORECASE)
    ]
    answer = max(named)[2] if named else ""
    return Grade(answer, found=bool(named), correct=bool(named) and answer in question.label)
