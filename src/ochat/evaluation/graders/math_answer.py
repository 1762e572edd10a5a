"""Grade a reply to a question of MATH, whose answer is a number, an expression, or several of them."""

import itertools
import re
from collections.abc import Sequence

from ochat.evaluation.graders.expression import MAX_LENGTH, numeral, same_value
from ochat.evaluation.graders.final_answer import boxed, first_sentence, marked, own_part
from ochat.evaluation.graders.grade import Grade

_LONGEST = 1000  # characters of an answer; no gold one has a third of it
_SPAN = re.compile(r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.DOTALL)
_JOINS = re.compile(r"[\s,;]*(?:\b(?:and|or)\b)?[\s,;]*")
_REASON = re.compile(r",?\s+(?:since|because|which|where|as|so|when|for|by)\b.*", re.DOTALL)
_UNITS = re.compile(
    r"(?<=[\d})%])(?:\s|\\[ ,])*(?:\\(?:text|mbox|textrm|mathrm)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?|(?:\s[a-z]{2,}\.?)+(?:\s?\^\{?[23]\}?)?)\s*$"
)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mbox|mathrm|operatorname|mathbf|emph)\s*\{([^{}]*)\}")
_NAME = re.compile(
    r"\s*(?:[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-zA-Z](?:,\s*[a-zA-Z])*\))?|\\[a-z]+|[A-Za-z ]{1,20}|\([a-z](?:,\s*[a-z])+\))\s*"
)
_TEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|,\s?\\!)\s?(?=\d{3})")
_THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
_FUNCTION = re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln)(?![a-z])")
_MATRIX = re.compile(r"\\begin\{(?:[pbvBV]?matrix|array)\}(?:\{[lcr|]*\})?(.*?)\\end\{(?:[pbvBV]?matrix|array)\}", re.DOTALL)
_REPLACED = (
    ("\\\\", "⏎"), ("−", "-"), ("–", "-"), ("²", "^2"), ("³", "^3"), ("√", "\\sqrt"), ("π", "\\pi"), ("∞", "\\infty"), ("∪", "\\cup"), ("·", "*"),
    ("×", "*"), ("÷", "/"), ("°", ""), ("\\left", ""), ("\\right", ""), ("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\:", " "),
    ("\\ ", " "), ("~", " "), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"), ("\\cdot", "*"), ("\\times", "*"),
    ("\\div", "/"), ("^{\\circ}", ""), ("^\\circ", ""), ("\\degree", ""), ("\\%", ""), ("%", ""), ("\\$", ""), ("$", ""),
    ("\\displaystyle", ""), ("\\quad", " "), ("\\le ", "\\leq "), ("\\ge ", "\\geq "), ("≤", "\\leq "), ("≥", "\\geq "),
    ("**", "^"), ("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\{", "⟨"), ("\\}", "⟩"),
)  # fmt: skip
_PAIRS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩"}


def grade_math(solution: str, reply: str) -> Grade:
    """Strict: right where the reply's final answer is that in the box of the solution, as a person would say.

    - The final answer is the last closed box, else the formula or the words after the last phrase that announces it ("The answer
      is", "Final Answer:"), to the end of that sentence, else the last formula of the last line, or a reply of one line.
    - Spaces, sizes of brackets, `\\dfrac`, degrees, percent, currency, units after a number, `x =` before it, full stops and markup
      don't matter.
    - A number must be worked out: 650 isn't `649+1`; `0.5` is `1/2`, and `1 1/2` is `3/2`, but `2/4` is unfinished, and `1.667` isn't
      `5/3`. What isn't a number is equal where its value is: `2^{1/2}` is `\\sqrt{2}`, `(x+1)^2` is `x^2+2x+1`.
    - Tuples, intervals and matrices are compared in order, piece by piece; lists and sets in any order; equations with their sides
      either way.
    - Words are compared without regard to case. Text after a new question is not of the reply. No box in the solution: a ValueError."""
    gold = boxed(solution)
    if not gold:
        # some solutions write `\\boxed 5`
        short = re.findall(r"\\boxed\s*([^\s{}$])", solution)
        if not short:
            raise ValueError("the solution has no answer in a box")
        gold = str(short[-1])
    answer, announced = _final(own_part(_readable(reply)))
    correct = bool(answer) and same_answer(answer, gold)
    found = correct or (bool(answer) and (announced or bool(re.search(r"\d", answer))))
    return Grade(answer if found else "", found, correct)


def _readable(reply: str) -> str:
    """With ASCII's digits, and without characters and TeX's spaces of no width."""
    text = _TEX_COMMA.sub("", reply)
    text = re.sub("[\u200b-\u200f\u2060\ufeff]|\\\\!", "", text)
    return "".join(str(int(character)) if character.isdecimal() else character for character in text)


def _final(reply: str) -> tuple[str, bool]:
    """The final answer, and whether it is announced."""
    box = boxed(reply)
    if box:
        return box, True
    for text in marked(reply):
        if answer := _answer(text):
            return answer, True
    lines = reply.strip().splitlines()
    if not lines:
        return "", False
    spans = [_inner(found) for found in _SPAN.finditer(lines[-1] if len(lines) > 1 else reply)]
    if len(lines) > 1 and not spans:
        return lines[-1].strip("# "), False
    return (spans[-1] if spans else lines[-1].strip("# ")), False


def _inner(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None).strip()


def _answer(text: str) -> str:
    """The formula that the text gives first, with those that it lists beside it; else its first sentence."""
    spans = list(_SPAN.finditer(text))
    before = text[: spans[0].start()] if spans else text
    if not spans or re.search(r"\d|[.!?]\s", before):
        return _REASON.sub("", first_sentence(before)[:_LONGEST].strip(" \t\n*_`")).strip(" *_`")
    listed = [_inner(spans[0])]
    for one, other in itertools.pairwise(spans):
        between = text[one.end() : other.start()]
        if not between.strip() or len(between) > 40 or not _JOINS.fullmatch(between):
            break
        listed.append(_inner(other))
    return ", ".join(listed)


def same_answer(given: str, gold: str) -> bool:
    """Whether two answers are the same, as `grade_math` says."""
    return len(given) <= _LONGEST and _same(_plain(given), _plain(gold), 0)


def _plain(text: str) -> str:
    text = text.strip().rstrip(".").strip()
    text = re.split(r"\\approx|≈", text)[0] or text
    text = _TEX_COMMA.sub("", text)
    if not re.search(r"[(\[]", text):  # there it parts elements
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    text = _UNITS.sub("", text)
    text = _TEXT.sub(r" \1 ", text)
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = text.strip().rstrip(".").strip()
    text = _UNITS.sub("", " ".join(text.split())) or text
    text = _FUNCTION.sub(r"\\\1", text)
    while 2 < len(text) <= MAX_LENGTH and text[0] in "({" and _split(text[1:-1], ",") == [text[1:-1]] and _held(text):
        text = text[1:-1].strip()
    return text


def _held(text: str) -> bool:
    """Whether the bracket that opens the text closes at its end."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([{⟨") - (character in ")]}⟩")
        if depth == 0:
            return at == len(text) - 1
    return False


def _same(given: str, gold: str, depth: int) -> bool:
    if not given or depth > 4:
        return False
    if _squeezed(given) == _squeezed(gold):
        return True
    given, gold = (re.sub(r"^[a-zA-Z] \\in ?", "", text) for text in (given, gold))
    given_sides, gold_sides = given.split("="), gold.split("=")
    if len(given_sides) == len(gold_sides) == 2:
        straight, crossed = (given_sides, given_sides[::-1])
        return any(all(map(_same, sides, gold_sides, [depth + 1] * 2)) for sides in (straight, crossed))
    if len(given_sides) == 2 and len(gold_sides) == 1 and _NAME.fullmatch(given_sides[0]):
        return _same(given_sides[1].strip(), gold, depth + 1)
    if len(gold_sides) == 2 and len(given_sides) == 1 and _NAME.fullmatch(gold_sides[0]):
        return _same(given, gold_sides[1].strip(), depth + 1)
    if len(given_sides) > 1 == len(gold_sides) and numeral(gold) is not None and not re.search("[a-z]", given):
        *worked, last = given_sides  # 2+3=5
        return all(same_value(side, last) for side in worked) and _same(last.strip(), gold, depth + 1)
    if given[0] == "⟨" and given[-1] == "⟩" and len(_listed(gold)) > 1:
        given = given[1:-1]  # a set where the answers are listed
    for split, ordered in ((_rows, True), (_unions, False), (_listed, False), (_elements, True)):
        parts, wanted = split(given), split(gold)
        if len(wanted) > 1 or len(parts) > 1:
            return _same_parts(parts, wanted, ordered and not gold.startswith("⟨"), depth)
    number = numeral(gold)
    if number is not None:
        return numeral(given) == number
    return same_value(given, gold)


def _same_parts(given: Sequence[str], gold: Sequence[str], ordered: bool, depth: int) -> bool:
    if len(given) != len(gold):
        return False
    left = list(gold)
    for part in given:
        match = next((one for one in (left[:1] if ordered else left) if _same(part, one, depth + 1)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _squeezed(text: str) -> str:
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    return re.sub(r"\s", "", text).lower() if re.search(r"[a-z]{2}", text) and "\\" not in text else re.sub(r"\s", "", text)


def _split(text: str, mark: str) -> list[str]:
    """Where no bracket is open."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{⟨") - (character in ")]}⟩")
        if depth == 0 and text.startswith(mark, at):
            parts.append(text[start:at].strip())
            start = at + len(mark)
    return [*parts, text[start:].strip()]


def _rows(text: str) -> list[str]:
    found = _MATRIX.fullmatch(text)
    if not found:
        return [text]
    rows = [row for row in found[1].split("⏎") if row.strip()]
    return [f"{len(rows)} rows", *(cell.strip() for row in rows for cell in row.split("&"))]


def _unions(text: str) -> list[str]:
    return _split(text, "\\cup")


def _listed(text: str) -> list[str]:
    """`1, 3` and `1 and 3`; `1 \\pm 3` is two."""
    parts = [part for part in _split(re.sub(r"[,\s]*\b(?:and|or)\b\s*", ", ", text), ",") if part]
    return [part.replace("\\pm", sign) for part in parts for sign in ("+-" if "\\pm" in part else "+")]


def _elements(text: str) -> list[str]:
    """Brackets and what stands between them, for a tuple, an interval or a set; anything else is one."""
    if len(text) < 3 or (text[-1] != _PAIRS.get(text[0]) and not (text[0] in "([" and text[-1] in ")]")):
        return [text]
    inside = _split(text[1:-1], ",")
    if len(inside) < 2 and text[0] != "⟨":
        return [text]
    return [f"opens {text[0]}", *inside, f"closes {text[-1]}"]
