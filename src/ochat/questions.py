"""Benchmark questions: what is asked, the options if there are any, and the right answers."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ochat.conversation import first_problem, read_json_lines
from ochat.errors import DataError

Words = Annotated[str, Field(min_length=1)]


class Question(BaseModel):
    """One question; `label` holds every answer that counts as right, each among the options where there are any."""

    model_config = ConfigDict(frozen=True)

    question: Words
    options: tuple[Words, ...] = ()
    label: tuple[Words, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _label_among_options(self) -> Self:
        for label in self.label:
            if self.options and label not in self.options:
                raise PydanticCustomError("label", "the label {label} is not among the options", {"label": repr(label)})
        return self


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
