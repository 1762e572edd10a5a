"""Length, language and heuristics: what each keeps, cuts and drops, and what it calls it."""

from collections.abc import Iterator

import pytest

from ochat.conversation import Conversation, Message
from ochat.data.clean.heuristics import is_refusal, long_enough, repeated_share, without_refusal, without_repetition
from ochat.data.clean.language import keep_languages, load_detector, prose
from ochat.data.clean.length import TooLong, blank_separated_words, fitting, letters
from ochat.data.clean.tally import Tally
from ochat.errors import OchatError


def row(*texts: str, system: str = "") -> Conversation:
    items = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)]
    return Conversation(items=tuple(items), system=system, condition="GPT4")


def lengths(rows: tuple[Conversation, ...]) -> list[str]:
    return [" ".join(str(len(item.content)) for item in one.items) for one in rows]


def row_of(sizes: str, system: int = 0) -> Conversation:
    return row(*("x" * int(size) for size in sizes.split()), system="s" * system)


@pytest.mark.parametrize(
    ("sizes", "too_long", "expected", "changes", "dropped"),
    [
        ("4 6", "drop", ["4 6"], (), ""),  # just fits
        ("4 7", "drop", [], (), "too long"),
        ("2 3 2 3 1 1", "cut", ["2 3 2 3"], ("cut after an exchange",), ""),
        ("2 3 2 9 1 1", "cut", ["2 3"], ("cut after an exchange",), ""),  # what comes after a gap would answer nothing
        ("5 6 1 1", "cut", [], (), "too long, no exchange fits"),
        ("2 3 2 3 1 1", "split", ["2 3 2 3", "1 1"], ("split between exchanges",), ""),
        ("1 1 5 6 1 1", "split", ["1 1", "1 1"], ("split between exchanges", "exchanges too long on their own left out"), ""),
        ("5 6 7 8", "split", [], (), "too long, no exchange fits"),
    ],
)
def test_what_is_too_long_for_ten_letters(
    sizes: str, too_long: TooLong, expected: list[str], changes: tuple[str, ...], dropped: str
) -> None:
    outcome = fitting(row_of(sizes), 10, too_long, letters)
    assert (lengths(outcome.rows), outcome.changes, outcome.dropped) == (expected, changes, dropped)


def test_the_system_prompt_counts_in_each_piece_and_stays_with_it() -> None:
    outcome = fitting(row_of("1 2 1 2 1 2", system=4), 10, "split", letters)
    assert lengths(outcome.rows) == ["1 2 1 2", "1 2"]
    assert {(one.system, one.condition) for one in outcome.rows} == {("ssss", "GPT4")}


def test_words_are_separated_by_blanks() -> None:
    assert blank_separated_words(["a b\n c", ""]) == [3, 0]


GERMAN = "Die Katze schläft auf dem Sofa, weil sie müde ist und es draußen regnet."
ENGLISH = "The cat sleeps on the sofa because she is tired and it rains outside."


@pytest.mark.parametrize(
    ("rows", "kept", "drops", "notes"),
    [
        ([row("What is it?", ENGLISH), row("Was ist das?", GERMAN)], ["0"], {"language de": 1}, {}),
        ([row("8", "8")], ["0"], {}, {"language unsure, kept": 1}),
        ([row("7108254150+7239028262109 = ?", "7246136516259; 12 * 4 = 48, 48 / 3 = 16")], ["0"], {}, {"no language, kept": 1}),
        ([row("Show me the loop in the program", "```\n" + f"# {GERMAN}\n" * 20 + "```")], ["0"], {}, {}),
    ],
)
def test_rows_surely_of_another_language_go(
    rows: list[Conversation], kept: list[str], drops: dict[str, int], notes: dict[str, int]
) -> None:
    def placed() -> Iterator[tuple[str, Conversation]]:
        for number, one in enumerate(rows):
            yield str(number), one

    tally = Tally()
    detect = load_detector(("en",))
    assert [place for place, _ in keep_languages(placed(), tally, ("en",), detect)] == kept
    assert (tally.drops, tally.notes) == (drops, notes)


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OchatError, match=r"Unknown language 'english'\. Known: .*de.*en"):
        load_detector(("english",))


def test_code_is_no_language() -> None:
    assert prose(row("a", "b\n```python\nc\n```\nd\n```\nnot closed")) == "a\nb\n\nd\n"


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("As an AI language model, I don't have feelings.", True),
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, but I cannot do this.", True),
        ("I am unable to browse the internet.", True),
        ("I cannot provide medical advice.", True),
        ("I’m unable to create pictures.", True),
        ("As an AI, I have no body.", True),
        ("I apologize, but I have no data after 2021.", True),
        ("I can't wait to tell you: it's 4.", False),
        ("Tell them: I'm sorry, but no.", False),
        ("The AI assistant market grows. I cannot overstate it.", False),
        ("I'm sorry to hear that! You can try to restart it.", False),
        ("x" * 300 + " I'm sorry, I can't help.", False),  # not what the reply opens with
    ],
)
def test_a_refusal_is_said_at_the_start(reply: str, refuses: bool) -> None:
    assert is_refusal(reply) == refuses
    assert without_refusal(row("q", "fine", "q", reply)).dropped == ("a reply refuses" if refuses else "")


def test_the_repeated_share_is_of_runs_of_four_words() -> None:
    assert repeated_share("a b c d") == 0
    assert repeated_share("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # abcd, bcda, cdab, dabc, abcd
    assert repeated_share("no no no") == 0
    assert without_repetition(row("q", "no " * 50), 0.5).dropped == "a reply repeats itself"
    assert not without_repetition(row("q", ENGLISH), 0.5).dropped


def test_short_replies_go_by_their_words_together() -> None:
    assert long_enough(row("q", "one two", "q", "three"), 3).rows
    assert long_enough(row("a long question of many words", "Yes."), 2).dropped == "replies of fewer than 2 words"
