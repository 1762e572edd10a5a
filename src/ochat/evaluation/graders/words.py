"""Grade a reply whose answer is a few words or signs that must be those of the label: True, valid, a sorted list, closing brackets."""

import re
from collections.abc import Sequence

from ochat.evaluation.graders.final_answer import boxed, first_sentence, marked, own_part, plain
from ochat.evaluation.graders.grade import Grade
from ochat.evaluation.graders.number import final_number, value

_SETS = ("true", "false"), ("yes", "no"), ("valid", "invalid")
_WRAPPING = " \t\n\"'“”‘’`*_$"
_SIGNS = "()[]{}<> "


def grade_words(label: Sequence[str], reply: str) -> Grade:
    """Strict: the sentence after the last phrase that announces an answer, or the box, or the last line where there's neither, is its
    answer; right where it is a label, in any case, quotes, markup, commas and final full stops aside.

    - For True or False, Yes or No, valid or invalid the first of the two words after the phrase counts ("False, since…"), behind the
      last `=`; in a last line that nothing announces and that doesn't open with one, the last. "not valid" is invalid; "True or
      False" is no answer.
    - A number is compared as a number, and found as `grade_number` does.
    - Brackets are compared one by one, spaces and commas aside. A list of words needs the label's order; numbers and marks of a list,
      and the "and" before its last word, don't matter.
    - Text after a new question ("\\n\\nQ:") is not of the reply."""
    text = plain(own_part(reply)).strip()
    if all(value(one) is not None for one in label):
        number = final_number(text)
        return Grade(number, found=bool(number), correct=bool(number) and value(number) in map(value, label))
    box = boxed(text)
    announced = [*([box] if box else []), *marked(text)]
    choices = next((pair for pair in _SETS if label[0].lower() in pair), None)
    last_line = text.splitlines()[-1] if text and (choices or "\n" not in text) else ""
    for part in (*announced, last_line):
        if choices:
            answer = _choice(first_sentence(part), choices, last=part not in announced)
        elif all(sign in _SIGNS for sign in label[0]):
            answer = _signs(part)
        else:
            same = next((one for one in label if _words(one) and _words(one) == _words(part)), "")
            answer = _normal(same or first_sentence(part))
        if answer:
            return Grade(answer, found=True, correct=answer in {_normal(one) for one in label})
    return Grade("", found=False, correct=False)


def _choice(text: str, choices: tuple[str, str], *, last: bool) -> str:
    words = "|".join(choices)
    text = re.sub(rf"\b(?:{words})\s+or\s+(?:{words})\b(?!\s*(?:=|is\b))", "", text.rpartition("=")[2], flags=re.IGNORECASE)
    found = list(re.finditer(rf"(?:\b(not)\s+|(n['’]t)\s+|\b)({words})\b", text, re.IGNORECASE))
    if not found:
        return ""
    opens = not re.search(r"\w", text[: found[0].start()])
    chosen = found[-1 if last and not opens else 0]
    word = chosen[3].lower()
    return choices[1 - choices.index(word)] if chosen[1] or chosen[2] else word


def _signs(text: str) -> str:
    """The run of brackets that the text begins with, or else ends with."""
    run = _SIGNS + ",\n\t"
    text = text.lstrip(_WRAPPING).rstrip(_WRAPPING + ".")
    begins, ends = text[: len(text) - len(text.lstrip(run))], text[len(text.rstrip(run)) :]
    return _normal((begins if begins.strip() else ends).replace(",", " "))


def _words(text: str) -> str:
    """The words of the first paragraph, without the numbers and marks of a list, one space between them."""
    words = re.findall(r"[^\W\d_](?:[\w'’-]*\w)?", re.split(r"\n\s*\n", text.strip())[0].lower())
    return " ".join(words[:-2] + words[-1:] if words[-2:-1] == ["and"] else words)


def _normal(text: str) -> str:
    text = re.sub(r"[.!。]+$", "", text.strip(_WRAPPING)).strip(_WRAPPING)
    if text and all(sign in _SIGNS for sign in text):
        return text.replace(" ", "")
    return " ".join(text.lower().replace(",", " ").split())
