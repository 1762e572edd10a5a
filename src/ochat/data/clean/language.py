"""Keep the languages that are asked for.

The detector is py3langid (BSD-3-Clause; its model of 4.6 MB comes in the wheel). It judges the conversation's text without
fenced code, its first 2,000 letters. Short texts, code and bare numbers belong to no language: where the detector is unsure the
row stays, and is counted."""

import re
from collections.abc import Callable

from ochat.conversation import Conversation
from ochat.data.clean.tally import Rows, Tally, words_of
from ochat.errors import OchatError, require

LETTERS = 2000
NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content, such as numbers and code
# The detector's confidence in another language from which a row is dropped.
SURE = 0.5
_FENCED = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1|\Z)", re.DOTALL | re.MULTILINE)

# The text's language and the confidence in it.
Detect = Callable[[str], tuple[str, float]]


def load_detector(languages: tuple[str, ...]) -> Detect:
    """The detector. Raises OchatError where it isn't installed or knows none of a language's name."""
    require("py3langid", "data", "--languages")
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = {str(label) for label in detector.labels}
    for language in languages:
        if language not in known:
            raise OchatError(f"Unknown language {language!r}. Known: {', '.join(sorted(known))}. Pass some with --languages.")
    return detector.classify


def prose(row: Conversation) -> str:
    """The row's text without fenced code, as much of it as is judged."""
    return _FENCED.sub("", "\n".join(item.content for item in row.items))[:LETTERS]


def keep_languages(rows: Rows, tally: Tally, languages: tuple[str, ...], detect: Detect) -> Rows:
    """The rows that aren't surely of another language."""
    for place, row in rows:
        language, confidence = detect(prose(row))
        if language not in languages and language != NO_LANGUAGE and confidence >= SURE:
            tally.drop(f"language {language}", place, words_of(row))
            continue
        if language not in languages:
            tally.note("no language, kept" if language == NO_LANGUAGE else "language unsure, kept", place, words_of(row))
        tally.keep(place)
        yield place, row
