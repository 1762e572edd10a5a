"""The normal form that texts are compared in: words without case or punctuation, and hashes of runs of them.

Hashes are the same in every process and on every machine, so that cleaning twice gives the same rows."""

import re
import unicodedata
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Scripts written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese): each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The text's words in normal form."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def mixed(values: Hashes) -> Hashes:
    """Each value with its bits well mixed (splitmix64's finaliser: Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def run_hashes(texts: Sequence[Sequence[str]], n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of every run of `n` words of each text, one text after the other, and how many each text has. A text of fewer
    words has one run, of all of them."""
    lengths = np.fromiter((max(len(text), n) for text in texts), np.int64, len(texts))
    single = np.zeros(lengths.sum(), np.uint64)
    ends = lengths.cumsum()
    for text, start in zip(texts, (ends - lengths).tolist(), strict=True):
        single[start : start + len(text)] = [crc32(word.encode()) + 1 for word in text]  # 0 fills up the short ones
    if not len(single):
        return single, lengths
    hashes = np.zeros(len(single) - n + 1, np.uint64)
    factors = mixed(np.arange(1, n + 1, dtype=np.uint64)) | np.uint64(1)
    for offset in range(n):
        hashes += single[offset : offset + len(hashes)] * factors[offset]
    counts = lengths - (n - 1)
    starts = np.repeat(ends - lengths - (counts.cumsum() - counts), counts) + np.arange(counts.sum())
    return mixed(hashes[starts]), counts
