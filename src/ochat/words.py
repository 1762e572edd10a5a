"""Encode text word by word, remembering the tokens of each word.

Texts repeat their words, and a tokenizer merges each anew. Where no token reaches over a blank that follows a word, a text's tokens
are those of its words one after the other, and nearly all of them have been seen before. Whether it is so is read from
tokenizer.json; a tokenizer of which we can't tell gets its texts whole."""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import tokenizers

# A text is cut before every blank that follows anything but white space. ▁ counts as that, as it does in SentencePiece's vocabularies.
_pieces = re.compile(r"[\s▁]*[^\s▁]+(?:(?! )[\s▁]+(?:[^\s▁]+|\Z))*|[\s▁]+").findall
_has_cut = re.compile(r"[^\s▁] ").search
_MAX_KNOWN = 2**18  # pieces, of some 250 bytes each
_MAX_LENGTH = 64  # a longer piece hardly comes again

# The patterns of GPT-4 and Llama 3, and of Qwen. Like GPT-2's, which ByteLevel has in it, they never match over a cut.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTTING_PATTERNS = (_LLAMA_3, _LLAMA_3.replace("{1,3}", ""))


class WordEncoder:
    """Encodes as the tokenizer that it is made of. Safe to share between threads."""

    def __init__(self, text_copy: tokenizers.Tokenizer, spec: dict[str, Any]) -> None:
        """`text_copy` reads control tokens as text and becomes this object's own; `spec` is its tokenizer.json, and can be cut."""
        self._before = ""
        if _PREPEND in _parts(spec["normalizer"], "normalizers"):  # its blank is for a text's first word alone
            self._before = " "
            text_copy.normalizer = tokenizers.normalizers.Replace(" ", "▁")
        self._tokenizer = text_copy
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text on its own."""
        known = self._known = self._known if len(self._known) < _MAX_KNOWN else {}
        rows = [_pieces(self._before + text) if text else [] for text in texts]
        unknown = [piece for piece in set().union(*rows) if piece not in known]
        encodings = self._tokenizer.encode_batch_fast(unknown, add_special_tokens=False)
        new = {piece: encoding.ids for piece, encoding in zip(unknown, encodings, strict=True)}
        known.update((piece, ids) for piece, ids in new.items() if len(piece) <= _MAX_LENGTH)
        encoded = []
        for pieces in rows:
            try:
                encoded.append([*chain.from_iterable(map(known.__getitem__, pieces))])
            except KeyError:
                encoded.append([*chain.from_iterable(new[piece] if piece in new else known[piece] for piece in pieces)])
        return encoded


def can_cut(spec: dict[str, Any]) -> bool:
    """Whether a text's tokens are always those of its pieces, by the tokenizer.json of the copy that reads control tokens as text."""
    model = spec["model"]
    if model["type"] != "BPE" or model["dropout"]:
        return False
    added = [token for token in spec["added_tokens"] if not token["special"]]
    if added and any(_has_cut(token["content"]) for token in spec["added_tokens"]):
        return False
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return False
    normalizers, splits = _parts(spec["normalizer"], "normalizers"), _parts(spec["pre_tokenizer"], "pretokenizers")
    if all(part == {"type": "NFC"} for part in normalizers):
        return any(map(_cuts, splits)) and all(_cuts(part) or part["type"] in ("ByteLevel", "Digits") for part in splits)
    if _PREPEND in normalizers and not added:  # it prepends to each part between added tokens
        normalizers.remove(_PREPEND)
    return normalizers == [_BLANK] and splits in ([], [_NO_SPLIT]) and _words_are_apart(model)


_PREPEND = {"type": "Prepend", "prepend": "▁"}
_BLANK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
# Gemma's: no blank is left where it looks for one.
_NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def _parts(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The parts of a normalizer or pre-tokenizer, which may be absent, one, or a sequence."""
    if step is None:
        return []
    return list(step[name]) if step["type"] == "Sequence" else [step]


def _cuts(split: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer ends a part wherever a blank follows a word, and doesn't look back over that."""
    if split["type"] == "ByteLevel":
        return bool(split["use_regex"])
    patterns = [{"Regex": pattern} for pattern in _CUTTING_PATTERNS]
    return split["type"] == "Split" and split["pattern"] in patterns and split["behavior"] == "Isolated" and not split["invert"]


def _words_are_apart(model: dict[str, Any]) -> bool:
    """Whether no merge joins a word with a blank (▁) after it, in a vocabulary of SentencePiece's kind: no token holds both."""
    vocab = model["vocab"]
    return (
        model["byte_fallback"]
        and not model.get("ignore_merges")
        and not model["continuing_subword_prefix"]
        and not model["end_of_word_suffix"]
        and all(f"<0x{byte:02X}>" in vocab for byte in range(256))  # else what isn't known melts into one token
        and not any("▁" in token.lstrip("▁") for token in vocab)
    )
