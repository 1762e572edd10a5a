"""Where a reply says its final answer. What the answer is, is each grader's to read."""

import re
import unicodedata

_PHRASE = re.compile(
    r"(?<!other )(?<!wrong )(?<!incorrect )"
    r"\b(?:answers?|(?:right|correct|best) (?:option|choice|statement|one)s?)\b[\s\"'*_`)\]}]*"
    r"(?:(?:is|are|was|(?:would|must|should|will) be)\b(?:[\s*_]*[:：])?|[:：=])"
    r"|答案(?:是|为)?\s*[:：]?"
    r"|^[#>*_ \t]*(?:final |correct )?answer[*_ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_TAKEN_BACK = re.compile(r"\W*(?:wrong|incorrect|unlikely|not (?:correct|right))\b", re.IGNORECASE)
_NEXT_QUESTION = re.compile(r"\n[ \t]*(?:Q|Question)(?: ?\d+)?[.:]|\n[ \t]*A: Let's think step by step")
_FRACTION_SIGN = re.compile(r"(?=[¼-¾⅐-⅞])")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'*_`)$\]]*(?=\s|$)|\n\s*\n")


def own_part(reply: str) -> str:
    """The reply without questions that the model went on to ask itself, as base models do after examples."""
    found = _NEXT_QUESTION.search(reply)
    if not found or not reply[: found.start()].strip():
        return reply
    own = reply[: found.start()]
    if found[0].lstrip().startswith("A:"):  # the new question has no mark of its own; it stands in the paragraph before
        own = own.rpartition("\n\n")[0] or own
    return own


def marked(reply: str) -> list[str]:
    """What follows each phrase that announces an answer ("the answer is", "Answer:"), up to the next; the last one first, since a
    later answer revises an earlier one. A phrase that takes answers back ("answers are wrong") announces none."""
    phrases = list(_PHRASE.finditer(reply))
    ends = [*(phrase.start() for phrase in phrases), len(reply)][1:]
    texts = [reply[phrase.end() : end].strip() for phrase, end in zip(phrases, ends, strict=False)]
    return [text for text in reversed(texts) if text and not _TAKEN_BACK.match(text)]


def first_sentence(text: str) -> str:
    """Up to the mark that ends a sentence, without it, or to an empty line."""
    text = text.lstrip()
    found = _SENTENCE_END.search(text)
    return text[: found.start()] if found else text


def boxed(text: str) -> str | None:
    """What the last `\\boxed{…}` or `\\fbox{…}` holds, braces counted; None where there's none or it doesn't close."""
    *_, last = None, *re.finditer(r"\\f?box(?:ed)?\s*\{", text)
    if last is None:
        return None
    depth = 1
    for at in range(last.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[last.end() : at].strip()
    return None


def plain(reply: str) -> str:
    """The reply with its letters, digits and fractions as ASCII has them, where they are the same in other forms, and without
    characters that have no width."""
    text = unicodedata.normalize("NFKC", _FRACTION_SIGN.sub(" ", reply)).replace("⁄", "/")
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in text
        if unicodedata.category(character) != "Cf"
    )
