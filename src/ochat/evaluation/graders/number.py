"""Grade a reply whose answer is a number."""

import re
from collections.abc import Sequence
from fractions import Fraction

from ochat.evaluation.graders.final_answer import boxed, first_sentence, marked, own_part, plain
from ochat.evaluation.graders.grade import Grade
from ochat.questions import Question

_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>-\s?)?[$€£¥]?(?P<value>{_WHOLE}(?:\.\d+)?|\.\d+)(?:[eE](?P<power>[+-]?\d{{1,3}}))?"
    rf"(?:\s?/\s?(?P<below>{_WHOLE})| (?P<top>\d+)/(?P<bottom>\d+))?(?!\w|\.\d)"
)
_SPACES = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_TEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|,\\!)\s?(?=\d{3})")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_UNIT = re.compile(r"(?<=\d)(?![eE][+-]?\d)(?=[^\W\d_])")
_SUM = re.compile(r"\s*[-+*×÷]\s*[\d(]")
_NOT_BUT = re.compile(r"\bnot\b[^,;:]*?\bbut\b")
_MAX_LENGTH = 400  # a longer one would take long itself; no answer has it


def grade_number(question: Question, reply: str) -> Grade:
    """Strict: the reply's final number, right where it equals a label as a number: `042` and `1,000.0` equal 42 and 1000.

    - It stands after the last `####`, in the last box, or first after the last phrase that announces an answer ("the answer is
      18. (Used 2 steps)" is 18), behind the last `=` of that sentence; else it's the last number of all.
    - Thousands may be parted by commas or narrow spaces; currency, units, `%` and markup around it don't matter; `184/2` is 92,
      `5e1` is 50. A sign belongs to the number: -92 isn't 92. Digits of other scripts are digits. Words ("twelve") are no numbers,
      and neither is a sum that was left open.
    - Text after a new question ("\\n\\nQuestion:") is not of the reply."""
    found = final_number(reply)
    if not found:
        return Grade("", found=False, correct=False)
    return Grade(found, found=True, correct=value(found) in {value(label) for label in question.label})


def final_number(reply: str) -> str:
    """The number that the reply ends in, as it is written there; "" for none."""
    text = _FRACTION.sub(
        r"\1/\2", _TEX_COMMA.sub("", plain(_SPACES.sub("", own_part(reply)))).replace("−", "-").replace("\\$", "$")
    )
    hashes = re.findall(r"####[ \t]*(.*)", text)
    for part in [*hashes[-1:], boxed(text) or "", *_sentences(text)]:
        if found := _NUMBER.search(part):
            return "" if _SUM.match(part, found.end()) else found[0]
    return next((found[0] for found in reversed(list(_NUMBER.finditer(text)))), "")


def _sentences(text: str) -> Sequence[str]:
    return [_UNIT.sub(" ", _NOT_BUT.sub("", first_sentence(part)).rpartition("=")[2]) for part in marked(text)]


def value(number: str) -> Fraction | None:
    """The number that the digits say; None for what is no number."""
    found = _NUMBER.fullmatch(number) if len(number) <= _MAX_LENGTH else None
    if not found:
        return None
    part = found.groupdict()
    below, bottom = (int((part[name] or "1").replace(",", "")) for name in ("below", "bottom"))
    if not below or not bottom:
        return None
    size = Fraction(part["value"].replace(",", "")) * Fraction(10) ** int(part["power"] or 0) / below
    size += Fraction(int(part["top"] or 0), bottom)
    return -size if part["sign"] else size
