"""Encoding word by word gives what the tokenizer gives for the whole text, and is left alone where that isn't sure."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from ochat import words
from ochat.registry import MODEL_TYPES
from ochat.words import WordEncoder, can_cut

TOYS = [f"{kind.name} {style}" for kind in MODEL_TYPES for style in ("bytes", "sentencepiece")]
# Words that the toys merge, all kinds of blanks, and marks that touch them.
PARTS = [
    "Hello",
    "the",
    "a",
    "User:",
    "'s",
    "12345",
    ".",
    ";\n",
    "é",
    "\u0301",
    "你好",
    " ",
    "  ",
    "\n",
    "\t",
    "\u00a0",
    "\u3000",
    "\x1c",
    "▁",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join), st.text(st.characters(codec="utf-8"), max_size=30)
)


def as_text(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The copy that reads control tokens as text, and its tokenizer.json, as `ochat.tokenizer` makes them."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    for token in spec["added_tokens"]:
        token["special"] = bool(token["content"].strip(" \t\r\n▁"))
    text_copy = tokenizers.Tokenizer.from_str(json.dumps(spec))
    text_copy.encode_special_tokens = True
    return text_copy, json.loads(text_copy.to_str())


def with_pattern(folder: Path, pattern: str) -> Path:
    """A folder with the toy of bytes whose text is split by the pattern, as Llama 3's and Qwen's are."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    spec["model"]["vocab"][".Ċ"] = 999  # a token of a mark and the end of its line, which these patterns leave together
    spec["model"]["merges"].append([".", "Ċ"])
    copied = folder.with_name("with-pattern")
    copied.mkdir(exist_ok=True)
    (copied / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return copied


@pytest.fixture(scope="module", params=["openchat_3.5", "embedded", *TOYS, *words._CUTTING_PATTERNS])
def both(
    request: pytest.FixtureRequest, openchat_folder: Path, embedded_folder: Path, toy_folder: Callable[..., Path]
) -> tuple[tokenizers.Tokenizer, WordEncoder]:
    """The tokenizer of the whole text, and ours of its words."""
    folders = {"openchat_3.5": openchat_folder, "embedded": embedded_folder}
    if request.param in words._CUTTING_PATTERNS:
        folders[request.param] = with_pattern(toy_folder("openchat_3.6", "bytes"), request.param)
    folder = folders.get(request.param) or toy_folder(*request.param.split(" "))
    whole, spec = as_text(folder / "tokenizer.json")
    assert can_cut(spec)
    return whole, WordEncoder(as_text(folder / "tokenizer.json")[0], spec)


@given(texts=st.lists(TEXTS, max_size=3))
@example(
    texts=["", " ", "  a  b ", "a\n b", "a \n b", "Hello\u00a0 the", "a  \n  b", "a.\n", "a.\n\n b.\n ", "\x1c a", "▁ a ▁▁  a"]
)
def test_the_tokens_of_a_text_are_those_of_its_words(both: tuple[tokenizers.Tokenizer, WordEncoder], texts: list[str]) -> None:
    whole, encoder = both
    assert encoder.encode(texts) == [whole.encode(text, add_special_tokens=False).ids for text in texts]


def test_a_memory_that_is_full_is_emptied_and_long_words_are_not_kept(
    openchat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "_MAX_KNOWN", 3)
    whole, spec = as_text(openchat_folder / "tokenizer.json")
    encoder = WordEncoder(as_text(openchat_folder / "tokenizer.json")[0], spec)
    for text in ("one two three", "four " + "x" * 100, "one two"):
        assert encoder.encode([text, text]) == [whole.encode(text, add_special_tokens=False).ids] * 2
    assert set(encoder._known) == {" one", " two"} | {" four"}


def openchat_spec(openchat_folder: Path) -> dict[str, Any]:
    return as_text(openchat_folder / "tokenizer.json")[1]


def with_merge_over_a_blank(spec: dict[str, Any]) -> None:
    spec["model"]["vocab"]["a▁"] = len(spec["model"]["vocab"])


def with_dropout(spec: dict[str, Any]) -> None:
    spec["model"]["dropout"] = 0.1


def with_whole_texts_looked_up(spec: dict[str, Any]) -> None:
    spec["model"]["ignore_merges"] = True


def without_a_byte(spec: dict[str, Any]) -> None:
    del spec["model"]["vocab"]["<0xFF>"]


def with_lower_case(spec: dict[str, Any]) -> None:
    spec["normalizer"]["normalizers"].append({"type": "Lowercase"})


def with_another_split(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": r"\w+ "}, "behavior": "Isolated", "invert": False}


def with_a_token_of_blanks_before_which_a_blank_is_put(spec: dict[str, Any]) -> None:
    spec["added_tokens"].append(
        {
            "id": 9,
            "content": "  ",
            "special": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
            "normalized": False,
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        with_merge_over_a_blank,
        with_dropout,
        with_whole_texts_looked_up,
        without_a_byte,
        with_lower_case,
        with_another_split,
        with_a_token_of_blanks_before_which_a_blank_is_put,
    ],
)
def test_a_tokenizer_that_may_reach_over_blanks_gets_whole_texts(
    openchat_folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    spec = openchat_spec(openchat_folder)
    assert can_cut(copy.deepcopy(spec))
    change(spec)
    assert not can_cut(spec)
