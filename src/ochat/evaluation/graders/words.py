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
    """Strict: the sentence after the last phrase that announces an answer, or the box, or the whole reply where it's no longer than a
    line, is its answer; right where it is a label, in any case, quotes, markup, commas and final full stops aside.

    - For True or False, Yes or No, valid or invalid the first of the two words in that sentence counts ("False, since…");
      "not valid" is invalid.
    - A number is compared as a number, and found as `grade_number` does.
    - Brackets are compared one by one, spaces aside. A list of words needs the label's order.
    - Text after a new question ("\\n\\nQ:") is not of the reply."""
    text = plain(own_part(reply)).strip()
    if all(value(one) is not None for one in label):
        number = final_number(text)
        return Grade(number, found=bool(number), correct=bool(number) and value(number) in map(value, label))
    box = boxed(text)
    texts = [*([box] if box else []), *marked(text), *([text] if text and "\n" not in text else [])]
    choices = next((pair for pair in _SETS if label[0].lower() in pair), None)
    for part in texts:
        if choices:
            answer = _choice(first_sentence(part), choices)
        elif all(sign in _SIGNS for sign in label[0]):
            answer = _signs(part)
        else:
            answer = _normal(first_sentence(part))
        if answer:
            return Grade(answer, found=True, correct=answer in {_normal(one) for one in label})
    return Grade("", found=False, correct=False)


def _choice(text: str, choices: tuple[str, str]) -> str:
    found = re.search(rf"\b(not\s+)?({'|'.join(choices)})\b", text, re.IGNORECASE)
    if not found:
        return ""
    word = found[2].lower()
    return choices[1 - choices.index(word)] if found[1] else word


def _signs(text: str) -> str:
    """The run of brackets that the text begins with."""
    found = re.match(r"[()\[\]{}<>\s]*", text.lstrip(_WRAPPING))
    return _normal(found[0]) if found else ""


def _normal(text: str) -> str:
    text = re.sub(r"[.!。]+$", "", text.strip(_WRAPPING)).strip(_WRAPPING)
    if text and all(sign in _SIGNS for sign in text):
        return text.replace(" ", "")
    return " ".join(text.lower().replace(",", " ").split())
