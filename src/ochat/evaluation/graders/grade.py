"""What a grader says about one reply."""

from dataclasses import dataclass

Answer = str | bool | dict[str, str]  # the original's graders answer with a truth value for MATH, and a record for code


@dataclass(frozen=True)
class Grade:
    """What a reply was taken to answer. No answer is not a wrong answer: `found` tells them apart."""

    answer: Answer
    found: bool
    correct: bool
