"""What a reply shows by its text: its final number, its short answer, its code.

A final number is looked for where people mark it, and only then at the end. Where a mark is followed by something else there is no
number, rather than some number of the text: a row whose answer can't be read gets no verdict."""

import re
from fractions import Fraction

from ochat.data.clean.words import words

# 1,234.5; 3/4; 1 1/2; \frac{3}{4}; 6.5e3; 2 × 10^5; a sign belongs to it unless it stands between two numbers
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\d)}}.])[-−]\s?)?\$?(?<![\w^.])(?:"
    rf"\\[dt]?frac\{{(?P<above>-?\d+)\}}\{{(?P<below>\d+)\}}"
    rf"|(?P<part>\d+)\s+(?P<top>\d+)/(?P<bottom>\d+)"
    rf"|(?P<value>{_WHOLE}(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<e>[+-]?\d{1,3})\b|\s*(?:×|x|\\times|\*)\s*10\^\{?(?P<power>-?\d{1,3})\}?)?"
    rf"(?:\s?/\s?(?P<divisor>{_WHOLE}))?(?:\s+R\s+(?P<remainder>\d+)\b)?"
    r")"
)
_DIGIT = re.compile(r"\d")
_HASHES = re.compile(r"####[ \t]*(.*)")
_ANSWER = re.compile(r"\banswer(?: is|\s*[:=])[ \t]*:?(.*)", re.IGNORECASE)

# A verdict on a number this long would take long itself; no answer has one.
_MAX_NUMBER_LENGTH = 400

_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_PYTHON = ("python", "python3", "py")

# Another's answer is looked for in a reply only where it's short: nobody says twenty words the same twice.
_MAX_ANSWER_WORDS = 20
_VERDICTS = {"yes", "no", "true", "false"}
_NEGATIONS = {"not", "t", "no", "never", "isn", "neither", "nor", "without", "than"}  # t: of isn't, split at its sign
_CHOICE = re.compile(r"\(?([A-Z])\)(?:[.:]?\s.*)?|([A-Z])\.?")
_OPENS = re.compile(r"\s*\(?([A-Z])(?:[.)]|\s*$)")
_CHOSEN = re.compile(r"\(([A-Z])\)|\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: is|:)?\s*\(?([A-Z])\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")

# A quotient, and the remainder where the answer has one ("28 R 2").
Number = tuple[Fraction, int]


def final_number(text: str) -> Number | None:
    """The number that the text ends in: after the last `####`, in the last `\\boxed{}`, after the last "answer is" or "answer:",
    else the last one of all. None where there's none, or where the mark is followed by something else."""
    if marked := _HASHES.findall(text):
        return _first_number(marked[-1])
    boxed = _boxed(text)
    if boxed is not None:
        return _first_number(boxed)
    if marked := _ANSWER.findall(text):
        return _first_number(marked[-1].rpartition("=")[2])
    *_, last = None, *_NUMBER.finditer(text)
    # digits that are no number of their own come after it: the exponent of 2^10
    return None if last is None or _DIGIT.search(text, last.end()) else _value(last)


def _boxed(text: str) -> str | None:
    """What the last `\\boxed{…}` holds, braces within it counted."""
    _, found, rest = text.rpartition("\\boxed{")
    depth = 1
    for at, character in enumerate(rest if found else ""):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[:at]
    return None


def _first_number(text: str) -> Number | None:
    found = _NUMBER.search(text)
    return _value(found) if found else None


def _value(found: re.Match[str]) -> Number | None:
    part = found.groupdict()
    if len(found[0]) > _MAX_NUMBER_LENGTH or any(part[name] and not int(part[name]) for name in ("below", "bottom")):
        return None
    if part["above"]:
        value = Fraction(int(part["above"]), int(part["below"]))
    elif part["part"]:
        value = int(part["part"]) + Fraction(int(part["top"]), int(part["bottom"]))
    else:
        value = Fraction(part["value"].replace(",", "")) * Fraction(10) ** int(part["e"] or part["power"] or 0)
        if part["divisor"]:
            divisor = int(part["divisor"].replace(",", ""))
            if not divisor:
                return None
            value /= divisor
    return (-value if part["sign"] else value), int(part["remainder"] or 0)


def same_number(text: str, gold: str) -> bool | None:
    """Whether both texts end in the same number; None where one of them ends in none."""
    found, wanted = final_number(text), final_number(gold)
    return None if found is None or wanted is None else found == wanted


def is_short_answer(text: str) -> bool:
    """Whether the text is an answer that can be looked for in a reply."""
    return len(text) < 1000 and 0 < len(words(text)) <= _MAX_ANSWER_WORDS


def agrees(reply: str, answer: str) -> bool | None:
    """Whether a reply, which may explain itself, comes to another's short answer: the same number or letter of a choice, the same
    yes or no, or these words alone, at its end, or after "answer is". None where the reply can't be read so: other words may
    mean the same."""
    given = answer.strip().rstrip(".")
    if choice := _CHOICE.fullmatch(given):
        opens = _OPENS.match(reply)
        found = [one or other for one, other in _CHOSEN.findall(reply)] or ([opens[1]] if opens else [])
        return found[-1] == (choice[1] or choice[2]) if found else None
    if _NUMBER.fullmatch(given):
        return same_number(reply, given)
    wanted = words(given)
    sentences = [words(sentence) for sentence in _SENTENCE.split(reply.strip())]
    first, last = sentences[0], sentences[-1]
    if first == wanted or last == wanted:
        return True
    if len(wanted) == 1 and wanted[0] in _VERDICTS:
        said = [word for word in (*first[:1], *last[-1:]) if word in _VERDICTS]
        return None if len(set(said)) != 1 else said[0] == wanted[0]
    marked = _ANSWER.findall(reply)
    if marked and words(marked[-1])[: len(wanted)] == wanted:
        return True
    ends_so = last[-len(wanted) :] == wanted and not _NEGATIONS & set(last[: -len(wanted)])
    return True if ends_so else None


def python_code(reply: str) -> str | None:
    """The reply's program: its fenced blocks marked as Python, one after the other, else its longest block without a mark, else
    the reply itself where it has no block. None where all blocks are of other languages."""
    blocks = [(name.lower(), body) for name, body in _FENCED.findall(reply)]
    if not blocks:
        return reply
    if marked := [body for name, body in blocks if name in _PYTHON]:
        return "\n".join(marked)
    return max((body for name, body in blocks if not name), key=len, default=None)
