"""What a reply shows: the number it ends in, and its code."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from ochat.conversation import read_json_lines
from ochat.data.verify import final_number, python_code, same_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 + 2 = 4\n#### 1,200", 1200),
        ("#### 72\nThe answer is: 72", 72),
        ("So \\boxed{\\frac{3}{4}} of 100", Fraction(3, 4)),
        ("\\boxed{-\\frac{1}{2}}", Fraction(-1, 2)),
        ("\\boxed{\\text{about } 5}, not 6", 5),
        ("The answer is 5 of the 12 apples.", 5),
        ("**Answer:** $3.50", Fraction(7, 2)),
        ("The answer is x = -7.", -7),
        ("First 3, then 4.", 4),
        ("He drives 3-5 miles", 5),
        ("-5", -5),
        ("−5", -5),
        ("1 1/2 cups", Fraction(3, 2)),
        ("2 × 10^5", 200_000),
        ("6.5e3 m", 6500),
        (".5", Fraction(1, 2)),
        ("10%", 10),
        ("It weighs 5kg.", 5),
        ("1, 2, 345", 345),
    ],
)
def test_the_final_number_is_found(text: str, number: Fraction | int) -> None:
    assert final_number(text) == (Fraction(number), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "undefined",
        "Of 4 options, the answer is B.",
        "5 apples\n#### none",
        "\\boxed{x}, as 3 shows",
        "1/0",
        "2^10",
        "H2O",
        "x2",
    ],
)
def test_where_the_answer_is_no_number_there_is_none(text: str) -> None:
    assert final_number(text) is None


def test_a_remainder_is_part_of_the_answer() -> None:
    assert same_number("7132 / 10 = 713 R 2", "713 R 2") is True
    assert same_number("7132 / 10 = 712 R 2", "713 R 2") is False


def test_numbers_are_compared_as_numbers_and_an_absent_one_is_no_verdict() -> None:
    assert same_number("It's 1,200.00", "1200") is True
    assert same_number("0.75", "3/4") is True
    assert same_number("It's 1,201", "1200") is False
    assert same_number("I don't know", "1200") is None
    assert same_number("12", "B") is None


def test_gsm8k_answers_agree_with_their_gold_and_with_no_other_number(test_file: Callable[[str], Path]) -> None:
    rows = [row for _, row in read_json_lines(test_file("train/gsm8k_train.jsonl.gz")) if isinstance(row, dict)]
    assert len(rows) == 7473
    golds = [row["answer"].split("####")[1].strip() for row in rows]
    assert all(same_number(row["answer"], gold) is True for row, gold in zip(rows, golds, strict=True))
    numbers = [int(gold.replace(",", "")) for gold in golds]
    assert all(same_number(row["answer"], str(number + 1)) is False for row, number in zip(rows, numbers, strict=True))


def test_goats_outputs_agree_with_their_answers(test_file: Callable[[str], Path]) -> None:
    rows = [row for _, row in read_json_lines(test_file("train/goat_generated_200.jsonl.gz")) if isinstance(row, dict)]
    for row in rows:
        assert same_number(row["output"], row["answer"]) is (None if row["answer"] == "undefined" else True), json.dumps(row)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Here:\n```python\nx = 1\n```\nRun it:\n```bash\npython x.py\n```", "x = 1\n"),
        ("```py\nx = 1\n```\n```Python\ny = 2\n```", "x = 1\n\ny = 2\n"),
        ("```\nx = 1\n```\n```\ndef f():\n    return 1\n```", "def f():\n    return 1\n"),
        ("x = 1", "x = 1"),
        ("```c++\nint x;\n```", None),
    ],
)
def test_the_program_is_taken_out_of_a_reply(reply: str, code: str | None) -> None:
    assert python_code(reply) == code
