"""Duplicates: exact by a hash that is the same everywhere, near by exact overlap; the heaviest of equals stays."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ochat.conversation import Conversation, Message, read_json_lines
from ochat.data.clean.exact import best_of_equals, drop_exact_duplicates, row_hash
from ochat.data.clean.near import band_keys, drop_near_duplicates, overlap, row_words, shingles
from ochat.data.clean.tally import Tally
from ochat.data.clean.words import run_hashes, words


def row(question: str, reply: str, weight: float = 1.0, class_name: str = "a", system: str = "") -> Conversation:
    items = (Message(role="user", content=question), Message(role="assistant", content=reply, weight=weight))
    return Conversation(items=items, system=system, class_name=class_name)


def exact(rows: list[Conversation], folder: Path) -> tuple[list[int], Tally]:
    """The numbers of the rows that stay."""
    tally = Tally()
    kept = drop_exact_duplicates(((str(number), row) for number, row in enumerate(rows)), tally, folder)
    return [int(place) for place, _ in kept], tally


def near(rows: list[Conversation], folder: Path, jaccard: float = 0.8) -> tuple[list[int], Tally]:
    tally = Tally()
    kept = drop_near_duplicates(((str(number), row) for number, row in enumerate(rows)), tally, folder, jaccard)
    return [int(place) for place, _ in kept], tally


def test_the_hash_of_a_row_is_the_same_in_every_process() -> None:
    assert row_hash(row("Hi", "Oh")) == 10649244851646955286


@pytest.mark.parametrize(
    "other",
    [
        row("Hi", "Oh!"),
        row("HiOh", ""),
        row("Hi", "Oh", system="Be brief."),
        row("Hi ", "Oh"),
        Conversation(items=(Message(role="assistant", content="Hi"), Message(role="user", content="Oh"))),
    ],
)
def test_rows_that_differ_in_text_or_role_have_different_hashes(other: Conversation) -> None:
    assert row_hash(other) != row_hash(row("Hi", "Oh"))


def test_the_first_of_equal_rows_stays(tmp_path: Path) -> None:
    kept, tally = exact([row("a", "1"), row("b", "2"), row("a", "1"), row("a", "1")], tmp_path)
    assert kept == [0, 1]
    assert (tally.n_read, tally.n_kept, tally.drops) == (4, 2, {"same text in its class": 2})


def test_of_one_text_in_two_classes_the_heavier_stays(tmp_path: Path) -> None:
    rows = [row("a", "1", 0.1, "poor"), row("b", "2"), row("a", "1", 1.0, "good"), row("a", "1", 0.1, "poor")]
    kept, tally = exact(rows, tmp_path)
    assert kept == [1, 2]
    assert tally.drops == {"same text in another class": 2}
    assert tally.examples[0].text == "user: a | assistant: 1 … as 2: user: a | assistant: 1"


def test_best_of_equals_agrees_with_the_plain_way() -> None:
    random.seed(0)
    hashes = np.array([random.randrange(5) for _ in range(200)], np.uint64)
    weights = np.array([random.choice([0.1, 0.5, 1.0]) for _ in range(200)], np.float32)
    plain = [max((weights[b], -b) for b in range(200) if hashes[b] == hashes[a]) for a in range(200)]
    assert best_of_equals(hashes, weights).tolist() == [-number for _, number in plain]


def test_words_are_without_case_and_punctuation() -> None:
    assert (
        words("Janet\u2019s DUCKS, lay_16 eggs!")
        == words("janet's ducks lay_16 eggs")
        == ["janet", "s", "ducks", "lay_16", "eggs"]
    )
    assert words("Straße é") == ["strasse", "é"]
    assert words("我喜欢 GPT4") == ["我", "喜", "欢", "gpt4"]  # no blanks between words: a letter is one


def test_runs_of_words_have_equal_hashes_only_where_the_words_are_equal() -> None:
    texts = [["a", "b", "c", "d"], ["b", "c"], ["c", "b"], [], ["x", "b", "c"]]
    hashes, counts = run_hashes(texts, 2)
    assert counts.tolist() == [3, 1, 1, 1, 2]
    runs = [("a", "b"), ("b", "c"), ("c", "d"), ("b", "c"), ("c", "b"), (), ("x", "b"), ("b", "c")]
    assert [[a == b for b in hashes.tolist()] for a in hashes.tolist()] == [[a == b for b in runs] for a in runs]


def test_overlap_is_shared_runs_over_all_runs() -> None:
    one, other = (shingles(words(text)) for text in ("a b c d e f", "b c d e f g"))
    assert overlap(one, other) == 1 / 3  # abcde, bcdef; bcdef, cdefg
    assert shingles(["a", "b"]) == {("a", "b")}


def test_band_keys_are_shared_as_often_as_the_overlap_says() -> None:
    """A pair of overlap j shares a band of 8 draws with chance j ** 8."""
    random.seed(0)
    texts, expected = [], []
    for _ in range(400):
        text = [str(random.random()) for _ in range(104)]
        changed = [*text[:88], *(str(random.random()) for _ in range(16))]  # 84 of 116 runs shared
        texts += [text, changed]
        expected.append(overlap(shingles(text), shingles(changed)) ** 8)
    keys = band_keys(texts)
    assert (keys[:, ::2] == keys[:, 1::2]).mean() == pytest.approx(np.mean(expected), abs=0.01)


SENTENCES = [
    f"the {a} {b} went to the {c} and saw" for a in ("red", "old") for b in ("fox", "cat") for c in ("sea", "town", "hill")
]
LONG = " ".join(SENTENCES)


@pytest.mark.parametrize(
    ("rows", "kept", "drops"),
    [
        # A word of a long reply, case and punctuation: near.
        ([row("Tell me", LONG), row("tell me!", LONG.upper() + " nothing")], [0], {"near-duplicate in its class": 1}),
        # The heavier of two classes stays, though it comes later.
        (
            [row("Tell me", LONG, 0.1, "poor"), row("Tell me", LONG + " nothing", 1.0, "good")],
            [1],
            {"near-duplicate in another class": 1},
        ),
        # One long question, two short answers: what the classes differ in.
        ([row(LONG, "yes", 1.0, "good"), row(LONG, "no", 0.1, "poor")], [0, 1], {}),
        # One system prompt isn't a likeness.
        ([row("a", "1", system=LONG), row("b", "2", system=LONG)], [0, 1], {}),
        ([row("Hi", "Oh"), row("hi", "oh!")], [0], {"near-duplicate in its class": 1}),
        ([row("?", "!"), row("?", "?")], [0, 1], {}),  # no words at all
        ([], [], {}),
    ],
)
def test_near_duplicates(rows: list[Conversation], kept: list[int], drops: dict[str, int], tmp_path: Path) -> None:
    found, tally = near(rows, tmp_path)
    assert (found, tally.drops) == (kept, drops)


def test_near_duplicates_are_those_of_the_plain_way(tmp_path: Path) -> None:
    """Every pair compared, and each row dropped for one that stays; only pairs that share no band may differ, of which there
    are none at these overlaps."""
    random.seed(0)
    rows = []
    for _ in range(60):
        text = [str(random.randrange(10_000)) for _ in range(120)]
        rows.append(row("q", " ".join(text)))
        for n_changed in (1, 2, 6, 60):
            start = random.randrange(20, 30)
            other = [*text[:start], *(str(random.random()) for _ in range(n_changed)), *text[start + n_changed :]]
            rows.append(row("q", " ".join(other)))
    sets = [shingles(row_words(one)) for one in rows]
    plain: list[int] = []
    for number, of_row in enumerate(sets):
        if all(overlap(of_row, sets[other]) < 0.8 for other in plain):
            plain.append(number)
    kept, tally = near(rows, tmp_path)
    assert kept == plain
    assert 60 < len(kept) < 300
    assert tally.n_read == tally.n_kept + tally.n_dropped == 300


def test_of_many_rows_of_the_same_words_the_heaviest_stays_and_is_compared_with_others(tmp_path: Path) -> None:
    rows = [row("Tell me", LONG.upper() + "!" * number, 0.1, "poor") for number in range(5)]
    rows += [row("Tell me", LONG, 0.5, "fair"), row("Tell me", LONG + " nothing", 1.0, "good"), row("Tell me", "Nothing.")]
    kept, tally = near(rows, tmp_path)
    assert kept == [6, 7]
    assert tally.drops == {"near-duplicate in another class": 6}


def test_rows_of_one_template_are_kept_and_those_not_compared_with_all_are_told(tmp_path: Path) -> None:
    """Of 110 words 100 are the template's: 96 of 124 runs shared, 0.77."""
    random.seed(0)
    template = " ".join(f"form{number}" for number in range(100))
    rows = [row(f"{template} {' '.join(str(random.random()) for _ in range(5))}", str(number)) for number in range(120)]
    kept, tally = near([*rows, row(rows[7].items[0].content + " x", "7")], tmp_path)
    assert kept == list(range(120))  # the copy among them is found
    assert list(tally.notes) == ["kept after comparing with 50 rows like it, of more"]


def test_planted_near_duplicates_are_found_among_real_rows(test_file: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [
        row(str(value["instruction"]), str(value["output"]), 0.1, "davinci")
        for _, value in read_json_lines(test_file("train/alpaca_davinci003_52k.jsonl.gz"))
        if isinstance(value, dict) and value["idx"] < 4000
    ]
    long = [number for number, one in enumerate(rows) if len(words(one.items[1].content)) >= 120][:100]
    for number in long:  # a changed word at the end, in a heavier class
        question, reply = (item.content for item in rows[number].items)
        rows.append(row(question, reply.rsplit(maxsplit=1)[0] + " indeed", 1.0, "expert"))
    kept, tally = near(rows, tmp_path)
    assert len(long) == 100
    assert tally.drops == {"near-duplicate in another class": 100}
    assert set(range(len(rows))) - set(kept) == set(long)
