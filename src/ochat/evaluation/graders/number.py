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
    rf"(?:\s?/\s?(?P<below>{_WHOLE})| (?P<top>\d+)/(?P<bottom>\d+)|\s?(?P<times>thousand|[mb]illion))?(?!\w|\.\d)"
)
_SPACES = re.compile("(?<=\\d)[\u00a0\u2009\u202f'’_](?=\\d{3}(?!\\d))")
_GROUPS = re.compile(r"(?<![\w.,])\d{1,3}(?: \d{3})+(?![\w-])")  # 1 234
_TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_TEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|,\\!)\s?(?=\d{3})")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_UNIT = re.compile(r"(?<=\d)(?![eE][+-]?\d)(?=[^\W\d_])")
# more numbers beside the first: a sum that was left open, a range, a choice
_OPEN = re.compile(r"\s*(?:[-–+*×÷]|\b(?:or|to|and)\b)\s*[$€£¥]?[\d(](?!/)")
_NOT_BUT = re.compile(r"\bnot\b[^,;:]*?,?\s+but\b")
_MINUS = re.compile(r"\b(?:minus|negative)\s+(?=[$€£¥]?\d)|(?<!\S)–(?=[$€£¥]?\d)", re.IGNORECASE)
_MAX_LENGTH = 400  # a longer one would take long itself; no answer has it


def grade_number(question: Question, reply: str) -> Grade:
    """Strict: the reply's final number, right where it equals a label as a number: `042` and `1,000.0` equal 42 and 1000.

    - It stands after the last `####`, in the last box, or first after the last phrase that announces an answer ("the answer is
      18. (Used 2 steps)" is 18), behind the last `=` of that sentence; else it's the last number of all.
    - Thousands may be parted by commas, or spaces where an answer is announced; currency, units, `%` and markup around it don't matter; `184/2` is 92,
      `5e1` is 50, `2 million` is 2000000. A sign belongs to the number: -92 isn't 92. Digits of other scripts are digits. Words
      ("twelve") are no numbers, and neither is a sum that was left open, a range or a choice ("18 or 20").
    - Text after a new question ("\\n\\nQuestion:") is not of the reply."""
    found = final_number(reply)
    if not found:
        return Grade("", found=False, correct=False)
    return Grade(found, found=True, correct=value(found) in {value(label) for label in question.label})


def final_number(reply: str) -> str:
    """The number that the reply ends in, as it is written there; "" for none."""
    text = _TEX_COMMA.sub("", plain(_SPACES.sub("", own_part(reply)))).replace("−", "-").replace("\\$", "$")
    text = _MINUS.sub("-", _FRACTION.sub(r" \1/\2", text))
    hashes = re.findall(r"####[ \t]*(.*)", text)
    for part in [*hashes[-1:], boxed(text) or "", *_sentences(text)]:
        part = _GROUPS.sub(lambda groups: groups[0].replace(" ", ""), part.rpartition("=")[2])
        if found := _NUMBER.search(part):
            return "" if _OPEN.match(part, found.end()) else found[0]
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
    size = size * _TIMES.get(part["times"] or "", 1) + Fraction(int(part["top"] or 0), bottom)
    return -size if part["sign"] else size
