"""Benchmark questions: what is asked, the options if there are any, and the right answers."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ochat.conversation import first_problem, read_json_lines
from ochat.errors import DataError


class Question(BaseModel):
    """One question; `label` holds every answer that counts as right."""

    model_config = ConfigDict(frozen=True)

    question: str = Field(min_length=1)
    options: tuple[str, ...] = ()
    label: tuple[str, ...] = Field(min_length=1)


def read_questions(path: Path) -> list[Question]:
    """The questions of a jsonl file, in its order; raises DataError at the first bad line and for an empty file."""
    questions = []
    for place, value in read_json_lines(path):
        try:
            questions.append(Question.model_validate(value))
        except ValidationError as error:
            raise DataError(
                f'{place}: {first_problem(error)}. A line is {{"question": …, "options": […], "label": […]}}.'
            ) from error
    if not questions:
        raise DataError(f"{path} has no questions. Give one JSON object a line.")
    return questions
