"""How well a class can be told from the mere form of its texts: the easy thing that a condition may come to mean.

If the good class's replies are the long ones, the condition teaches length first. So we measure it: a logistic regression on a dozen
signs of form (no words but the first), cross-validated, and its AUC: the chance that a text of the class gets a higher score than one
of another; 0.5 is a guess, 1 is certainty. Folds are by prompt. It's thirty lines of numpy; scikit-learn would be a hundred megabytes."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ochat.data.report.row_table import Array

FOLDS = 5
MIN_ROWS = 50  # of a class, below which an AUC says nothing
OPENINGS = 20  # first words that become signs
_LISTED = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_MARKED = re.compile(r"\*\*|^#{1,6} |^\|", re.MULTILINE)
_PENALTY = 1.0


class Form(NamedTuple):
    """Signs of one text's form, each a number."""

    length: float
    lines: float
    list_items: float
    markdown: float
    code: float
    digits: float
    capitals: float
    opens_with_capital: float
    ends_a_sentence: float
    exclamation_marks: float
    question_marks: float
    commas: float
    word_length: float
    beyond_ascii: float


NAMES = {
    "length": "length in words",
    "lines": "lines",
    "list_items": "list items",
    "markdown": "bold, headings, tables",
    "code": "code blocks",
    "digits": "share of digits",
    "capitals": "share of capitals",
    "opens_with_capital": "opens with a capital",
    "ends_a_sentence": "ends with . ! or ?",
    "exclamation_marks": "exclamation marks",
    "question_marks": "question marks",
    "commas": "commas a word",
    "word_length": "letters a word",
    "beyond_ascii": "share of letters beyond ASCII",
}


def form(text: str) -> Form:
    """The text's form."""
    text = text.strip()
    words, n_letters = len(text.split()), max(1, len(text))
    return Form(
        length=words,
        lines=text.count("\n") + bool(text),
        list_items=len(_LISTED.findall(text)),
        markdown=len(_MARKED.findall(text)),
        code=text.count("```") / 2,
        digits=sum(map(str.isdecimal, text)) / n_letters,
        capitals=sum(map(str.isupper, text)) / n_letters,
        opens_with_capital=text[:1].isupper(),
        ends_a_sentence=text.endswith((".", "!", "?", "。")),
        exclamation_marks=text.count("!"),
        question_marks=text.count("?"),
        commas=text.count(",") / max(1, words),
        word_length=(n_letters - text.count(" ")) / max(1, words),
        beyond_ascii=0.0 if text.isascii() else sum(letter > "\x7f" for letter in text) / n_letters,
    )


def opening(text: str) -> str:
    """The text's first word in lower case, without signs."""
    return next(iter(text.split(maxsplit=1)), "").strip(".,:;!?\"'*#-").lower()[:20]


@dataclass(frozen=True)
class Sign:
    """One sign of form: what it alone tells, and its mean in the class and in the others."""

    name: str
    auc: float
    in_class: float
    in_others: float


@dataclass(frozen=True)
class Told:
    """How well a class can be told from the others."""

    auc: float
    signs: list[Sign]  # the most telling first


def auc(scores: Array, is_class: Array) -> float:
    """The chance that a score of the class is above another's, half where they are equal; nan where either has none."""
    _, ranks_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[ranks_of]  # of equals, their mean rank
    n_class, n_others = int(is_class.sum()), int((~is_class).sum())
    if not n_class or not n_others:
        return float("nan")
    return float((ranks[is_class].sum() - n_class * (n_class + 1) / 2) / (n_class * n_others))


def logistic_regression(signs: Array, is_class: Array) -> Array:
    """Weights [F + 1], the last of a constant, by Newton's method with a ridge on all but that. signs [n, F], is_class [n]."""
    given = np.column_stack([signs, np.ones(len(signs))])
    ridge = np.full(given.shape[1], _PENALTY)
    ridge[-1] = 1e-6
    weights = np.zeros(given.shape[1])
    for _ in range(20):
        chances = 1 / (1 + np.exp(-np.clip(given @ weights, -30, 30)))
        gradient = given.T @ (chances - is_class) + ridge * weights
        curvature = (given * (chances * (1 - chances))[:, None]).T @ given + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def cross_validated_auc(signs: Array, is_class: Array, folds: Array) -> float:
    """The mean over folds of the AUC on texts that the regression hasn't seen. signs [n, F], is_class [n], folds [n]."""
    found = []
    for fold in np.unique(folds).tolist():
        seen = folds != fold
        if len(np.unique(is_class[seen])) < 2 or len(np.unique(is_class[~seen])) < 2:
            continue
        mean, scale = signs[seen].mean(axis=0), signs[seen].std(axis=0)
        standard = (signs - mean) / np.where(scale > 0, scale, 1.0)
        weights = logistic_regression(standard[seen], is_class[seen])
        found.append(auc(standard[~seen] @ weights[:-1], is_class[~seen]))
    return float(np.mean(found)) if found else float("nan")


def told_apart(forms: Sequence[Form], openings: Sequence[str], classes: Array, folds: Array) -> dict[int, Told]:
    """For each class's number that has enough texts, how well it's told from the others; of two classes, the smaller number only,
    since the other's is the same."""
    counts = np.bincount(classes) if len(classes) else np.zeros(0, int)
    numbers = [number for number, count in enumerate(counts.tolist()) if count >= MIN_ROWS]
    if len(numbers) < 2:
        return {}
    common = [word for word, count in Counter(openings).most_common(OPENINGS) if word and count >= MIN_ROWS / 5]
    plain = np.array(forms, float)
    opens = np.array([[word == own for word in common] for own in openings], float).reshape(len(openings), len(common))
    names = [*(NAMES[name] for name in Form._fields), *(f"opens with “{word}”" for word in common)]
    values = np.hstack([plain, opens])
    signs = np.hstack([np.log1p(plain), opens])  # lengths and counts: what matters is by how many times
    found = {}
    for number in numbers[:1] if len(numbers) == 2 else numbers:
        is_class = classes == number
        score = cross_validated_auc(signs, is_class, folds)
        if np.isnan(score):  # all of one prompt
            continue
        alone = [auc(column, is_class) for column in values.T]
        order = sorted(range(len(names)), key=lambda at: -abs(alone[at] - 0.5))
        told = [
            Sign(names[at], alone[at], float(values[is_class, at].mean()), float(values[~is_class, at].mean())) for at in order
        ]
        found[number] = Told(score, told)
    return found
