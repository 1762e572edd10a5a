"""Whether two answers to a question of MATH are the same, as the original decided it.

First as texts, in the way of the MATH release; then as texts, in the way of a later grader; then piece by piece with sympy. Each step
and its order is the original's: see `matchers.py` for why none of it is mended."""

import logging
import re
import warnings

from ochat.evaluation.graders.compatible.symbolic import is_zero

logging.getLogger("pylatexenc").setLevel(logging.CRITICAL)  # a model's LaTeX is its own business

_UNITS = "degree cm centimeter meter mile second minute hour day week month year foot feet inch yard".split()
_BRACKETS = "()[]"
_TEXT = re.compile(r"^\\text\{(?P<text>.+?)\}$")
_THOUSANDS = re.compile(r"(\d)(,)(\d\d\d)($|\D)")
_FRACTION = re.compile(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$")
_HARD = re.compile(r"\^\{|\^\(|\^[0-9]+\^|\^[0-9][0-9]+")


def same_answer(given: str, gold: str) -> bool:
    """The original's verdict."""
    if _as_the_release(gold) == _as_the_release(given):
        return True
    wanted, found = _normal(gold), _normal(given)
    if wanted == found:
        return True
    if not found:
        return False
    wanted_parts, found_parts = _parts(wanted), _parts(found)
    if len(wanted_parts) > 1 and (wanted[0] != found[0] or wanted[-1] != found[-1]):
        return False
    return len(wanted_parts) == len(found_parts) and all(map(_same_part, wanted_parts, found_parts))


def _same_part(wanted: str, found: str) -> bool:
    if _FRACTION.search(wanted) and _FRACTION.search(found):
        return wanted == found  # not reduced is not right
    if _is_whole(wanted) != _is_whole(found):
        return False
    difference = f"({wanted})-({found})"
    letters = {character for character in difference.replace("sqrt", "").replace("frac", "") if character.isalpha()}
    return len(letters) <= 2 and not _HARD.search(difference) and is_zero(difference)


# The MATH release's texts


def _as_the_release(answer: str) -> str:
    answer = answer.strip()
    if found := _TEXT.search(answer):
        answer = found["text"].strip()
    try:
        return _stripped(answer)
    except (LookupError, ValueError):
        return answer


def _stripped(text: str) -> str:
    for old, new in (
        ("\n", ""),
        ("\\!", ""),
        ("\\\\", "\\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
    ):
        text = text.replace(old, new)
    before, *units = text.split("\\text{ ")
    if len(units) > 1:
        raise ValueError("two units")
    text = before.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text[0] == ".":
        text = "0" + text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = _braced_roots(text).replace(" ", "")
    text = _braced_fractions(text)
    return _fraction_of_slash("\\frac{1}{2}" if text == "0.5" else text)


def _braced_roots(text: str) -> str:
    """`\\sqrt3` as `\\sqrt{3}`; an IndexError where nothing follows."""
    first, *rest = text.split("\\sqrt")
    return first + "".join("\\sqrt" + (part if part[0] == "{" else "{" + part[0] + "}" + part[1:]) for part in rest)


def _braced_fractions(text: str) -> str:
    """`\\frac12` as `\\frac{1}{2}`; the text as it is where one has a single character after it, an IndexError for none."""
    made, *rest = text.split("\\frac")
    for part in rest:
        made += "\\frac"
        if part[0] == "{":
            made += part
        elif len(part) < 2:
            return text
        else:
            made += "{" + part[0] + "}" + (part[1:] if part[1] == "{" else "{" + part[1] + "}" + part[2:])
    return made


def _fraction_of_slash(text: str) -> str:
    """`1/2` as `\\frac{1}{2}`, where both are whole numbers as Python writes them."""
    sides = text.split("/")
    try:
        above, below = map(int, sides)
    except ValueError:
        return text
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text


# The later grader's texts


def _normal(text: str) -> str:
    if found := _TEXT.search(text):
        text = found["text"]
    for old, new in (
        ("\\%", "%"),
        ("\\$", "$"),
        ("$", ""),
        ("%", ""),
        (" or ", " , "),
        (" and ", " , "),
        ("million", "*10^6"),
        ("billion", "*10^9"),
        ("trillion", "*10^12"),
    ):
        text = text.replace(old, new)
    for unit in _UNITS:
        text = re.sub(rf"{unit}(es)?(s)? *(\^[0-9]+)?", "", text)
    text = re.sub(r"\^ *\\circ", "", text)
    if text and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    text = re.sub(r",\\! *", "", text)
    number = _number(text)
    if number is not None and _near_whole(number):
        text = str(round(number))
    if "\\" in text:
        text = _plain(text)
    text = re.sub(r"- *", "-", text)
    text = re.sub(r"([0-9]) +([0-9])", r"\1+\2", text)  # a mixed number
    text = text.replace(" ", "").replace("{", "").replace("}", "").lower()
    if _is_whole(text):
        text = str(int(float(text.replace(",", ""))))
    return text


def _plain(text: str) -> str:
    """LaTeX as sympy can read it; the text as it is where it can't be read."""
    from pylatexenc import latex2text

    for old, new in (("\\tfrac", "\\frac"), ("\\dfrac", "\\frac"), ("\\frac", " \\frac")):
        text = text.replace(old, new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plain = str(latex2text.LatexNodes2Text().latex_to_text(text))
        except Exception:  # whatever it raises, as in the original
            return text
    for old, new in (("√", "sqrt"), ("π", "pi"), ("∞", "inf"), ("∪", "U"), ("·", "*"), ("×", "*")):
        plain = plain.replace(old, new)
    return plain.strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _near_whole(number: float) -> bool:
    try:
        return abs(number - round(number)) <= 1e-7
    except (ValueError, OverflowError):  # nan, inf
        return False


def _is_whole(text: str) -> bool:
    number = _number(_without_thousands(text))
    return number is not None and _near_whole(number)


def _without_thousands(text: str) -> str:
    while (shorter := _THOUSANDS.sub(r"\1\3\4", text)) != text:
        text = shorter
    return text


def _parts(text: str) -> list[str]:
    """The elements of a tuple or interval; anything else is one part."""
    text = _without_thousands(text)
    if not text:
        return []
    inner = text[1:-1]
    if len(text) > 2 and text[0] in _BRACKETS and text[-1] in _BRACKETS and not any(mark in inner for mark in _BRACKETS):
        return [part.strip() for part in inner.split(",")]
    return [text]
