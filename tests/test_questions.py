import json
from pathlib import Path

import pytest

from ochat.errors import DataError
from ochat.questions import read_questions


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"options": [""], "label": ["a"]}, r"options\.0: String should have at least 1 character"),
        ({"label": [""]}, r"label\.0: String should have at least 1 character"),
        ({"options": ["a", "b"], "label": ["a", "c"]}, "the label 'c' is not among the options"),
    ],
)
def test_a_question_that_cannot_be_graded_is_named(more: dict[str, object], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    lines = [{"question": "x", "label": ["free"]}, {"question": "x", **more}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=rf"questions.jsonl:2: {problem}"):
        read_questions(path)
