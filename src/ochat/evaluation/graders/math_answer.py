"""Grade a reply to a question of MATH, whose answer is a number, an expression, or several of them."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

from ochat.evaluation.graders.expression import MAX_LENGTH, numeral, same_value
from ochat.evaluation.graders.final_answer import boxed, first_sentence, marked, own_part
from ochat.evaluation.graders.grade import Grade

_LONGEST = 1000  # characters of an answer; no gold one has a third of it
_SPAN = re.compile(r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.DOTALL)
_JOINS = re.compile(r"[\s,;]*(?:\\text\s*\{)?[\s,;]*(?:\b(?:and|or)\b)?[\s,;]*\}?\s*")
_REASON = re.compile(r",?\s+(?:since|because|which|where|as|so|when|for|by|attained|achieved)\b.*", re.DOTALL)
_BEFORE = re.compile(
    r"^(?:not\b.*?,?\s+but\s+|(?:the|simply|just|exactly|point|number|value|interval|set|vector|matrix|equation|function|polynomial)\s+)+"
)
_CONCLUDES = re.compile(
    r"(?:\b(?:is|are|be|equals|so|thus|hence|therefore|get|gets|have|gives|obtain|find)|[,:])\s*\W{0,2}$", re.IGNORECASE
)
_SIMPLIFIED = re.compile(
    r"[\s,]*(?:which|that|and|this)?\s*(?:can be )?(?:simplif(?:ies|ied)|reduces|is equal|equals|or simply)\s*(?:to)?\s*"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{(?:align|aligned|equation|gather|eqnarray)\*?\}")
_PLAIN_NUMBER = re.compile(
    r"(?<!\S)(?<![+*/-] )-?\$?(?:\d{1,3}(?:,\d{3})+|\d+(?:/\d+)?)(?:\.\d+)?(?![\w(]|\s*[-+*/^=\\]|\.\d|,\d)"
)
_STATED = re.compile(rf".*\b(?:is|are|be|equals) ({_PLAIN_NUMBER.pattern}),? ")
# of words, and whole: where a reply was cut, a number is no answer
_SENTENCE = re.compile(r"(?=.*[a-z]{3})(?:(?:so|thus|hence|therefore)\b|.*[.!]\W*$)", re.IGNORECASE)
_UNITS = re.compile(
    r"(?<=[\d})%])(?:\s|\\[ ,])*(?:\\(?:text|mbox|textrm|mathrm)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?|(?:\s[a-z]{2,}\.?)+(?:\s?\^\{?[23]\}?)?)\s*$"
)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mbox|mathrm|operatorname|mathbf|emph)\s*\{([^{}]*)\}")
_NAME = re.compile(
    r"\s*(?:[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-zA-Z0-9](?:,\s*[a-zA-Z0-9])*\))?|\\[a-z]+(?: ?[A-Z]{1,4})?|[A-Za-z ]{1,20}|\([a-z](?:,\s*[a-z])+\))\s*"
)
_TEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|,\s?\\!)\s?(?=\d{3})")
_THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:(?:,\d{3})+|(?:[ \u00a0\u2009\u202f]\d{3})+)(?!\d)")
_FUNCTION = re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln)(?![a-z])")
_MATRIX = re.compile(r"\\begin\{(?:[pbvBV]?matrix|array)\}(?:\{[lcr|]*\})?(.*?)\\end\{(?:[pbvBV]?matrix|array)\}", re.DOTALL)
_REPLACED = (
    ("\\\\", "⏎"), ("−", "-"), ("–", "-"), ("²", "^2"), ("³", "^3"), ("√", "\\sqrt"), ("π", "\\pi"), ("∞", "\\infty"), ("∪", "\\cup"), ("±", "\\pm"), ("·", "*"),
    ("×", "*"), ("÷", "/"), ("°", ""), ("\\left", ""), ("\\right", ""), ("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\:", " "),
    ("\\ ", " "), ("~", " "), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"), ("\\cdot", "*"), ("\\times", "*"),
    ("\\div", "/"), ("^{\\circ}", ""), ("^\\circ", ""), ("\\degree", ""), ("\\%", ""), ("%", ""), ("\\$", ""), ("$", ""),
    ("\\displaystyle", ""), ("\\quad", " "), ("\\le ", "\\leq "), ("\\ge ", "\\geq "), ("≤", "\\leq "), ("≥", "\\geq "),
    ("**", "^"), ("+\\infty", "\\infty"), ("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\{", "⟨"), ("\\}", "⟩"),
)  # fmt: skip
_PAIRS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩"}


def grade_math(solution: str, reply: str) -> Grade:
    """Strict: right where the reply's final answer is that in the box of the solution, as a person would say.

    - The final answer is the last closed box, with those that it is listed with, "\\boxed{2} and \\boxed{3}"; else the formula or the
      words after the last phrase that announces it ("The answer is", "Final Answer:"), to the end of that sentence; else in the last
      line the formula that it concludes with ("so $x=5$", "the minimum is $2$, attained at $x=3$"), the only number of a sentence, or
      all of it.
    - Spaces, sizes of brackets, `\\dfrac`, degrees, percent, currency, units after a number, `x =` before it, full stops and markup
      don't matter.
    - A number must be worked out: 650 isn't `649+1`; `0.5` is `1/2`, and `1 1/2` is `3/2`, but `2/4` is unfinished, and `1.667` isn't
      `5/3`. What isn't a number is equal where its value is: `2^{1/2}` is `\\sqrt{2}`, `(x+1)^2` is `x^2+2x+1`.
    - Tuples, intervals and matrices are compared in order, piece by piece; lists and sets in any order; equations with their sides
      either way. "1/2 or 0.5" is one answer, "3 or 4" two.
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
    """With ASCII's digits, minus signs and fractions, and without characters and TeX's spaces of no width."""
    text = _TEX_COMMA.sub("", reply)
    text = re.sub("[\u200b-\u200f\u2060\ufeff]|\\\\!", "", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda sign: " " + unicodedata.normalize("NFKC", sign[0]).replace("⁄", "/"), text)
    text = re.sub(r"\b(?:negative|minus)\s+(\$?)(?=[\d\\])", r"\1-", text)
    return "".join(str(int(character)) if character.isdecimal() else character for character in text)


def _final(reply: str) -> tuple[str, bool]:
    """The final answer, and whether it is announced."""
    if box := _boxes(reply):
        return box, True
    for text in marked(reply):
        if answer := _answer(text):
            return answer, True
    reply, n_environments = _ENVIRONMENT.subn(" ", reply)
    reply = reply.strip()
    if n_environments and "matrix" not in reply:
        reply = next((line.strip("= \t\n") for line in reversed(reply.replace("&", "").split("\\\\")) if line.strip()), "")
    if not reply:
        return "", False
    spans = list(_SPAN.finditer(reply))
    ends_with_formula = bool(spans) and not re.search(r"\w", reply[spans[-1].end() :])
    start = reply.rfind("\n", 0, spans[-1].start() if ends_with_formula else len(reply)) + 1  # of the last line
    spans = [span for span in spans if span.end() > start]
    before = [reply[max(start, span.start() - 40) : span.start()] for span in spans]
    concluding = [at for at, text in enumerate(before) if _CONCLUDES.search(text)]
    if spans:
        stated = None if concluding else _STATED.match(_SPAN.sub(" ", reply[start:]))
        return stated[1] if stated else _listed_from(reply, spans, concluding[-1] if concluding else len(spans) - 1), False
    line = reply[start:].strip('#*_` "')
    words = line.replace("**", "").replace("\\$", "$")
    numbers = _PLAIN_NUMBER.findall(words) if _SENTENCE.match(words) and "\\" not in words else []
    return (numbers[0] if len(numbers) == 1 else line), False


def _boxes(reply: str) -> str:
    """What the last box holds, with what the boxes do that it is listed with, "\\boxed{2} and \\boxed{3}"; "" for no box."""
    held, before = boxed(reply), reply
    found = [held] if held else []
    while found and len(found) < 10 and (start := max(before.rfind("\\boxed"), before.rfind("\\fbox"))) > 0:
        before = before[:start].rstrip("$ ")
        earlier = re.search(r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\})*)\}\$?((?:[\s,]|\\text|[{}]|and|or)*)$", before[-300:])
        if not earlier or not _JOINS.fullmatch(earlier[2]) or not earlier[2].strip():
            break
        before = before[-300:][: earlier.end(1) + 1]
        found.insert(0, earlier[1].strip())
    return ", ".join(dict.fromkeys(found))


def _inner(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None).strip()


def _answer(text: str) -> str:
    """The formula that the text gives first, with those that it lists beside it; else its first sentence."""
    spans = list(_SPAN.finditer(text))
    before = text[: spans[0].start()] if spans else text
    if not spans or re.search(r"\d|[.!?]\s", before):
        sentence = first_sentence(before)[:_LONGEST].strip(" \t\n*_`")
        return _REASON.sub("", _BEFORE.sub("", sentence)).strip(" *_`")
    return _listed_from(text, spans, 0)


def _listed_from(text: str, spans: Sequence[re.Match[str]], at: int) -> str:
    """That formula, and those that the text lists after it."""
    listed = [_inner(spans[at])]
    for one, other in itertools.pairwise(spans[at:]):
        between = text[one.end() : other.start()]
        if _SIMPLIFIED.fullmatch(between):
            listed[-1] = _inner(other)
        elif between.strip() and len(between) <= 40 and _JOINS.fullmatch(between):
            listed.append(_inner(other))
        else:
            break
    return ", ".join(listed)


def same_answer(given: str, gold: str) -> bool:
    """Whether two answers are the same, as `grade_math` says."""
    return len(given) <= _LONGEST and _same(_plain(given), _plain(gold), 0)


def _plain(text: str) -> str:
    text = text.strip(" \n\t\"'“”").rstrip(".,;").strip()
    text = re.split(r"\\approx|≈", text)[0] or text
    text = _TEX_COMMA.sub("", text)
    if not re.search(r"[(\[]", text):  # there it parts elements
        text = _THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _UNITS.sub("", text)
    text = _TEXT.sub(r" \1 ", text)
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = text.strip().rstrip(".").strip()
    text = _UNITS.sub("", " ".join(text.split())) or text
    text = re.sub(r"_\{(\w)\}", r"_\1", _FUNCTION.sub(r"\\\1", text))
    if text[:1] == "{" and "," in text and _held(text):
        text = f"⟨{text[1:-1]}⟩"
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
    if len(given_sides) == 2 and len(gold_sides) == 1 and re.fullmatch(r"\s*[a-zA-Z]\s*", given_sides[1]):
        return _same(given_sides[0].strip(), gold, depth + 1)  # 5 = x
    if len(gold_sides) == 2 and len(given_sides) == 1 and _NAME.fullmatch(gold_sides[0]):
        return _same(given, gold_sides[1].strip(), depth + 1)
    if (
        len(given_sides) > 1 == len(gold_sides)
        and numeral(gold) is not None
        and not re.search("[a-z]", re.sub(r"\\[a-z]+", "", given))
    ):
        *worked, last = given_sides  # 2+3=5
        return all(same_value(side, last) for side in worked) and _same(last.strip(), gold, depth + 1)
    if given[0] == "⟨" and given[-1] == "⟩" and len(_listed(gold)) > 1:
        given = given[1:-1]  # a set where the answers are listed
    for split, ordered in ((_rows, True), (_unions, False), (_listed, False), (_elements, True)):
        parts, wanted = split(given), split(gold)
        if split is _listed and len(wanted) == 1 < len(parts):
            return all(_same(part, gold, depth + 1) for part in parts)  # 1/2 or 0.5
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
    text = re.sub(r"(?<=\d)\s+(?=\d)", "␣", text)  # 1 1/2 isn't 11/2
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
