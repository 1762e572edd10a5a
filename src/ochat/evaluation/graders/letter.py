"""Grade a reply that should name one of a question's lettered options."""

import itertools
import re
from collections.abc import Iterator, Sequence

from ochat.evaluation.graders.final_answer import boxed, first_sentence, marked, own_part, plain
from ochat.evaluation.graders.grade import Grade

_LETTER = re.compile(
    r"[(\[{]\s*(?P<held>[A-Za-z])\s*[)\]}]|(?<![A-Za-z0-9])(?<![A-Za-z0-9]['’])(?P<bare>[A-Z])(?![A-Za-z0-9]|['’](?:m|d|s|ve|ll)\b|-\w)"
)
# "A careful reader", "I think": words of one letter, where a small word follows that could not follow an option's name
_WORD = re.compile(
    r"[ \t]+(?!(?:is|are|was|because|since|as|and|or|but|for|holds?|would|must|with|due|follows|seems|in|by|from)\b)[a-z]"
)
_PRONOUN = re.compile(r"[ \t]+(?:would|must|was)\b")
_NEAR = 40  # characters in which a word about a letter stands
_NOT = re.compile(
    r"(?:\b(?:(?:can)?not(?: be)?|never|neither|none of|nor|than|except|excludes?|excluding|eliminates?|eliminating|rules? out|ruling out|instead of)"
    r"|n['’]t(?: be)?)\s+(?:(?:option|choice|answer)\s+)?\W*$",
    re.IGNORECASE,
)
_TOO = re.compile(r"[\s*()]*(?:,|\b(?:or|nor|and)\b|/)[\s*()]*(?:(?:or|nor|and|option|choice)[\s*()]*)*", re.IGNORECASE)
_EXCEPTED = re.compile(
    r"\b(?:(?P<none>none|no|nothing)|all|every|each|any)\b[^.;:]{0,40}\b(?:except|but|besides|apart from|other than)(?: for)?\s+"
    r"(?:(?:option|choice|answer)\s+)?\W*$",
    re.IGNORECASE,
)
_OUT = r"(?:wrong|incorrect|false|ruled out|eliminated|excluded)\b"
_WRONG = re.compile(
    rf"\W*(?:(?:is|are|was|seems|must be|can be)\s+(?:not\b|clearly |also )?{_OUT}|(?:is|are|was) not\b|(?:is|are|was|do|does)n['’]t\b"
    r"|does not\b|can(?:not|['’]t) be\b|fails?\b)",
    re.IGNORECASE,
)
# "A. Incorrect", "B? No.": a verdict, or the option's own text
_VERDICT = re.compile(rf"\W*(?:{_OUT}|no\b(?=\s*(?:[.,;\n]|$)))|\W*?[✗✘❌✕]", re.IGNORECASE)
_LIST = r"(?:[\s()*]*(?:,|\band\b|\bor\b)+[\s()*]*[A-Z]\b)+[\s)*]+"
_ALL_WRONG = re.compile(
    rf"{_LIST}(?:are|can be)\s+(?:all |both |clearly )?{_OUT}|[\s()*]+or[\s()*]+[A-Z]\b[\s)*]+is\s+{_OUT}", re.IGNORECASE
)
# "among A through D" names none of them
_RANGE = re.compile(r"(?<!\w)\(?A\)?(?:\s+(?:through|to)\s+|[-–])\(?[B-Z]\)?(?!\w)")
_NAME = re.compile(r"\b(?:vitamin|hepatitis|blood type|grade|plan|step|figure)\s+$", re.IGNORECASE)
# "The answer is A. No wait, it's B."
_REVISED = re.compile(
    r"\b(?:wait|actually|correction|on second thought|I mean|but it is|but it['’]s|no(?=\s*[,.:;!—-]))\b[\s,.:;!*—-]*"
    r"(?:no\b[\s,.:;!*—-]*)?(?:it(?:['’]s| is| must be| should be)\s+)?(?:actually\s+)?(?:(?:option|choice)\s+)?[(\[*]{0,3}(?P<letter>[A-Z])[)\]*]{0,3}"
    r"(?=\s*(?:[.!]|$))",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"(?:\b(?:so|therefore|thus|hence|choose|chose|select|pick|with|be|it is|it['’]s|option|choice)|→|=>)[\s:,]*\W*$",
    re.IGNORECASE,
)
_HOLDS = re.compile(
    r"\W*(?:(?:is|holds|fits|seems|must be)\s*(?:the\s+)?(?:right|correct|true|best|answer)?\b|yes\b)|\W*?[✓✔✅]", re.IGNORECASE
)


def grade_letter(options: Sequence[str], label: Sequence[str], reply: str) -> Grade:
    """Strict: the option that the reply settles on.

    - The last phrase that announces an answer ("the answer is", "Answer:", "correct option is") or box decides: of what follows it
      the first option that isn't negated, "not (A) but (B)" being B, and "(A), not (B)" being A. A later phrase revises, and so do
      "No wait, it's B." and "Actually B." after it.
    - Without such a phrase: the one option that is named; or that which the reply opens with ("B. It follows…"), concludes with
      ("So B.", "it must be B") or calls right. Several without an order, "A or B", "A, B", are no answer, after a phrase either.
    - "All options except B are wrong" is B. "(B) False" is B, whose text is False; in a list of verdicts, "A. False. B. True.", False
      is one.
    - Letters count as words of their own: not in "Answer", "Because", "I think", "A careful reader". Parentheses may be there or not.
      Small letters count in parentheses alone, since "a" is a word. Full-width letters count as what they look like.
    - A letter that is none of the options is an answer, and wrong. Text of an option without its letter is no answer, unless the
      label itself is such a text.
    - Text after a new question ("\\n\\nQ:") is not of the reply."""
    letter = _settled(options, label, _RANGE.sub(" ", plain(own_part(reply))))
    answer = next((option for option in (*options, *label) if _bare(option) == letter), letter)
    return Grade(answer, found=bool(letter), correct=answer in label)


def _bare(option: str) -> str:
    """`B` of `(B)`."""
    return option[1:-1] if len(option) > 2 and option[0] == "(" and option[-1] == ")" else option


def _settled(options: Sequence[str], label: Sequence[str], reply: str) -> str:
    known = [_bare(option) for option in (*options, *label)]
    box = boxed(reply)
    texts = [*marked(reply), *([box] if box else [])]
    # options such as `[` or `a`, and labels that are texts, are found where they are announced or alone
    if unusual := [option for option in known if not re.fullmatch("[A-Z]", option)]:
        for text in (*texts, reply):
            if found := _announced(text, unusual):
                return found
    for text in texts:
        for part in (first_sentence(text), text):
            if named := list(_named(part, known, announced=True)):
                if 1 in _joined(part, named):
                    return ""
                revised = [found["letter"] for found in _REVISED.finditer(text, named[0][1].end()) if found["letter"] in known]
                return revised[-1] if revised else named[0][0]
    named = list(_named(reply, known))
    if not named:
        named = list(_named(reply, known, verdicts=False))
        named = named if len({letter for letter, _ in named}) == 1 else []
    if texts:  # it announces something else: only an option that it opens with is its answer
        named = [(letter, found) for letter, found in named if not re.search(r"\w", reply[: found.start()])][:1]
    return _one_of(reply, named)


def _announced(text: str, options: Sequence[str]) -> str:
    """The option that the text begins with, as it is or in parentheses or quotes, and that no further word follows."""
    stripped = text.strip().strip("*\"'“”$").strip()
    for option in sorted(options, key=len, reverse=True):
        for form in (option, f"({option})", f"`{option}`", f'"{option}"'):
            if re.match(re.escape(form) + r"[*\"'“”$]*(?:[.,;:!]?\s*(?:$|\n\s*\n)|[.,;:!]\s)", stripped):
                return option
    return ""


def _named(
    text: str, known: Sequence[str], *, announced: bool = False, verdicts: bool = True
) -> Iterator[tuple[str, re.Match[str]]]:
    """The letters that the text names without negating them, in its order. What follows the first letter of an announced answer is no
    verdict on it."""
    negated_to = -_NEAR
    for found in _LETTER.finditer(text):
        before, after = _around(text, found)
        letter = found["bare"] or found["held"]
        if letter not in known:
            letter = letter.upper()
            if found["bare"] and letter not in known and len(text.strip()) > 2:
                continue  # a name: "vitamin C"
        word = (found["bare"] in ("A", "I") and _WORD.match(after)) or (found["bare"] == "I" and _PRONOUN.match(after))
        if found["bare"] and (word or _NAME.search(before)):
            continue
        too = (
            negated_to >= 0
            and _TOO.fullmatch(text, negated_to, found.start())
            and "but" not in text[negated_to : found.start()]
        )
        excepted = _EXCEPTED.search(text, max(0, found.start() - 2 * _NEAR), found.start())
        if excepted and (excepted["none"] or re.search(_OUT, after)):
            yield letter, found
            continue
        verdict = verdicts and not (announced and not re.search(r"\w", text[: found.start()])) and _VERDICT.match(after)
        if too or _NOT.search(before) or _WRONG.match(after) or verdict or _ALL_WRONG.match(after):
            negated_to = found.end()
        else:
            yield letter, found


def _around(text: str, found: re.Match[str]) -> tuple[str, str]:
    return text[max(0, found.start() - _NEAR) : found.start()], text[found.end() : found.end() + _NEAR]


def _joined(text: str, named: list[tuple[str, re.Match[str]]], more: str = "") -> set[int]:
    """The places of letters that stand beside the one before them, "A or B", as no more than one of several."""
    pattern = re.compile(rf"\W*\b(?:and|or|to|through|nor|versus|vs)\b\W*|\W*[/&+{more}]\W*", re.IGNORECASE)
    only_letters = re.compile(r"(?:[\s()*,]|\b(?:and|or)\b|\b[A-Z]\b)*[.!]?\s*")
    pairs = enumerate(itertools.pairwise(named), start=1)
    return {
        at
        for at, ((_, one), (_, other)) in pairs
        if text[one.start() : one.end()] != text[other.start() : other.end()]
        and other.start() - one.end() < _NEAR
        and (
            pattern.fullmatch(text, one.end(), other.start())
            or (re.fullmatch(r"\W*,\W*", text[one.end() : other.start()]) and only_letters.fullmatch(text, other.end()))
            or (one["held"] and other["held"] and not text[one.end() : other.start()].strip(" "))
        )
    }


def _one_of(reply: str, named: list[tuple[str, re.Match[str]]]) -> str:
    if len({letter for letter, _ in named}) < 2:
        return named[0][0] if named else ""
    joined = _joined(reply, named, ",")
    single = [named[at] for at in range(len(named)) if not {at, at + 1} & joined]
    for letter, found in single[:1]:
        if not re.search(r"\w", reply[: found.start()]):
            return letter
    for letter, found in reversed(single):
        before, after = _around(reply, found)
        if _CONCLUDES.search(before) or _HOLDS.match(after) or not after.strip(" \n.*`$)}"):
            return letter
    return ""
