"""Form: its signs, the AUC, and a classifier that finds what was planted and nothing where there is nothing."""

import random

import numpy as np
import pytest

from ochat.data.report.surface import NAMES, Form, auc, cross_validated_auc, form, logistic_regression, opening, told_apart


def test_the_signs_of_a_text_by_hand() -> None:
    found = form("Sure! Two:\n- **Ab**, 1\n- cd é?\n")
    # 30 letters after stripping, 8 words
    assert found == Form(
        length=8,
        lines=3,
        list_items=2,
        markdown=2,
        code=0,
        digits=1 / 30,
        capitals=3 / 30,
        opens_with_capital=True,
        ends_a_sentence=True,
        exclamation_marks=1,
        question_marks=1,
        commas=1 / 8,
        word_length=25 / 8,
        beyond_ascii=1 / 30,
    )
    assert set(NAMES) == set(Form._fields)
    assert form("").length == form("").lines == 0
    assert [opening(text) for text in ("**Sure!** yes", "", "1. Ab", "À la")] == ["sure", "", "1", "à"]


@pytest.mark.parametrize(
    ("scores", "is_class", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 3.5 / 4),  # of four pairs one is equal
        ([5, 1, 3], [1, 0, 0], 1.0),
    ],
)
def test_the_auc_is_the_share_of_pairs_in_order(scores: list[int], is_class: list[int], expected: float) -> None:
    assert auc(np.array(scores, float), np.array(is_class, bool)) == pytest.approx(expected)


def test_the_regression_finds_the_weights_that_made_the_data() -> None:
    draw = np.random.default_rng(0)
    signs = draw.standard_normal((20_000, 2))
    is_class = draw.random(20_000) < 1 / (1 + np.exp(-(2 * signs[:, 0] - signs[:, 1] + 0.5)))
    assert logistic_regression(signs, is_class) == pytest.approx([2, -1, 0.5], abs=0.08)


def test_what_was_learned_by_heart_is_no_auc() -> None:
    draw = np.random.default_rng(0)
    signs, is_class, folds = draw.standard_normal((100, 60)), draw.random(100) < 0.5, np.arange(100) % 5
    weights = logistic_regression(signs, is_class)
    assert auc(signs @ weights[:-1], is_class) > 0.95  # on what it has seen
    assert abs(cross_validated_auc(signs, is_class, folds) - 0.5) < 0.12


def texts(draw: random.Random, n: int, long: float, first: str = "") -> list[str]:
    return [
        f"{first} " + " ".join(draw.choices("lorem ipsum dolor sit amet".split(), k=int(long * draw.uniform(5, 50))))
        for _ in range(n)
    ]


def told(*classes: list[str]) -> dict[int, object]:
    all_texts = [text for of_class in classes for text in of_class]
    numbers = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in classes])
    return told_apart(
        [form(text) for text in all_texts], [opening(text) for text in all_texts], numbers, np.arange(len(numbers)) % 5
    )


def test_texts_of_like_form_are_not_told_apart_and_long_ones_are() -> None:
    draw = random.Random(0)
    alike = told(texts(draw, 300, 1), texts(draw, 300, 1))
    assert list(alike) == [0]
    assert abs(alike[0].auc - 0.5) < 0.06
    long = told(texts(draw, 300, 4), texts(draw, 300, 1))[0]
    assert long.auc > 0.9
    assert long.signs[0].name == "length in words"
    assert long.signs[0].in_class > 3 * long.signs[0].in_others


def test_a_first_word_gives_a_class_away() -> None:
    draw = random.Random(0)
    found = told(texts(draw, 200, 1, "Sure"), texts(draw, 200, 1, "Well"), texts(draw, 200, 1, "Yes"))
    assert set(found) == {0, 1, 2}
    assert found[0].auc > 0.99
    assert found[0].signs[0].name == "opens with “sure”"
    assert found[1].signs[0].name == "opens with “well”"


def test_of_few_rows_nothing_is_said() -> None:
    assert told(texts(random.Random(0), 300, 1), texts(random.Random(0), 49, 1)) == {}
    assert told() == {}
