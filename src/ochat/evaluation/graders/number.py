"""Grade a reply whose last number is its answer."""

import re
from decimal import Decimal

from ochat.evaluation.graders.grade import Grade
from ochat.questions import Question

_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")


def grade_number(question: Question, reply: str) -> Grade:
    """The reply's last number is its answer, right where it equals a label as a number: `042` and `1,000.0` equal 42 and 1000."""
    found = _NUMBER.findall(reply)
    if not found:
        return Grade("", found=False, correct=False)
    return Grade(found[-1], found=True, correct=value(found[-1]) in {value(label) for label in question.label})


def value(number: str) -> Decimal | None:
    """The number that the digits say, thousands parted by commas or not; None for what is no number."""
    return Decimal(number.replace(",", "")) if _NUMBER.fullmatch(number) else None
