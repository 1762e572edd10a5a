"""Grade a reply that should end by naming one of the question's options."""

import re

from ochat.evaluation.graders.final_answer import first_sentence, marked
from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.graders.letter import grade_letter
from ochat.questions import Question


def grade_choice(question: Question, reply: str) -> Grade:
    """The first option that the reply names after its last phrase that announces an answer, in that sentence; without one, the last
    that it names. Options are found as words, in any case; of two that overlap, the longer. Letters are graded as `grade_letter` does,
    since "a" is a word."""
    if all(re.fullmatch(r"\(?[A-Z]\)?", option) for option in question.options):
        return grade_letter(question.options, question.label, reply)
    options = {option.lower(): option for option in sorted(question.options, key=len, reverse=True)}
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, options))})(?!\w)", re.IGNORECASE)
    first = next((found for text in marked(reply) if (found := pattern.search(first_sentence(text)))), None)
    *_, last = None, *pattern.finditer(reply)
    named = first or last
    answer = options.get(named[0].lower(), named[0]) if named else ""
    return Grade(answer, found=bool(named), correct=bool(named) and answer in question.label)
