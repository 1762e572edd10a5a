"""Drop rows that say nearly what another says.

Two rows are near-duplicates where the sets of their runs of five words overlap by `jaccard` or more, over the whole
conversation and over the replies alone. The second matters to C-RLFT: a long question with two different short answers is two
rows to learn from, and their contrast is what the classes are for. System prompts aren't compared; thousands of rows share one.

Candidates come from MinHash (Broder, 1997) in bands (locality-sensitive hashing), and each is then compared exactly, so no row
is dropped for a chance likeness. Pairs that overlap by 0.8 are found with 97 % chance, by 0.9 with more than 99.99 %. Of a pair
the row with the higher weight stays, then the earlier one; rows are compared with those that stay, so a chain of small changes
isn't dropped as a whole.

On disk a row costs its text and 160 bytes; in memory 70 bytes, and up to a kilobyte only if it looks like another whose words
aren't just the same."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from ochat.conversation import Conversation
from ochat.data.blocks import class_of
from ochat.data.clean.exact import ROWS_PER_BATCH, best_of_equals, row_weight
from ochat.data.clean.spool import Spool
from ochat.data.clean.tally import Rows, Tally, likeness, words_of
from ochat.data.clean.words import Hashes, mixed, run_hashes, words

SHINGLE_WORDS = 5
# A pair of overlap j shares a band with chance 1 - (1 - j ** ROWS_PER_BAND) ** N_BANDS.
N_BANDS, ROWS_PER_BAND = 20, 8
# Rows made by one template look like many others and equal none. Compared are so many, those that share most bands first: of
# those that share a band, the newest SEEN_OF_BAND.
MAX_COMPARED, SEEN_OF_BAND = 50, 200
SETS_IN_MEMORY = 10_000


def row_words(row: Conversation) -> list[str]:
    """The words of all turns; a text without any (only signs) counts as one word."""
    return [word for item in row.items for word in words(item.content)] or [item.content for item in row.items]


def shingles(text: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The text's runs of five words; of a shorter text, the whole."""
    return frozenset(tuple(text[start : start + SHINGLE_WORDS]) for start in range(max(1, len(text) - SHINGLE_WORDS + 1)))


def overlap(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """The Jaccard similarity of two sets: shared members / all members."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def band_keys(texts: Sequence[Sequence[str]]) -> Hashes:
    """For each band a key of each text, [N_BANDS, texts]: texts that overlap much likely share some."""
    hashes, counts = run_hashes(texts, SHINGLE_WORDS)
    starts = counts.cumsum() - counts
    factors = mixed(np.arange(N_BANDS * ROWS_PER_BAND, dtype=np.uint64)) | np.uint64(1)
    keys = np.zeros((N_BANDS, len(texts)), np.uint64)
    drawn = np.empty_like(hashes)
    for number, factor in enumerate(factors):
        # The least of the hashes in an order of its own is the least of both texts with chance j.
        np.bitwise_xor(hashes, factor, out=drawn)
        np.multiply(drawn, factor, out=drawn)
        band = number // ROWS_PER_BAND
        keys[band] = mixed(keys[band] ^ np.minimum.reduceat(drawn, starts) + np.uint64(band))
    return keys


def shared_keys(keys: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows whose key another row has too, and the number of each one's group."""
    order = np.argsort(keys, kind="stable")
    opens = np.ones(len(keys), bool)
    opens[1:] = keys[order[1:]] != keys[order[:-1]]
    group = opens.cumsum() - 1
    shared = np.bincount(group)[group] > 1
    return order[shared], group[shared]


class _Candidates:
    """Compares candidates exactly, keeping the sets of the last ones."""

    def __init__(self, spool: Spool, jaccard: float) -> None:
        self._spool, self._jaccard = spool, jaccard
        self._sets = lru_cache(SETS_IN_MEMORY)(self._read_sets)
        self._words = lru_cache(1)(self._read_words)

    def _read_sets(self, number: int) -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
        _, row = self._spool[number]
        replies = row.model_copy(update={"items": tuple(item for item in row.items if item.role == "assistant")})
        return shingles(row_words(row)), shingles(row_words(replies))

    def _read_words(self, number: int) -> list[tuple[str, list[str]]]:
        _, row = self._spool[number]
        return [(item.role, words(item.content) or [item.content]) for item in row.items]

    def alike(self, one: int, other: int) -> bool:
        """Whether the two rows are near-duplicates."""
        return all(overlap(a, b) >= self._jaccard for a, b in zip(self._sets(one), self._sets(other), strict=True))

    def same_words(self, one: int, other: int) -> bool:
        """Whether the two rows differ in nothing but case and signs; `one` is kept for the next question."""
        return self._words(one) == self._read_words(other)


def same_words_instead(candidates: _Candidates, all_bands: Hashes, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row the one that stands for all of its words (itself: -1), of those whose bands all agree."""
    best = best_of_equals(all_bands, weights)
    (others,) = np.nonzero(best != np.arange(len(best)))
    instead = np.full(len(best), -1)
    for row in others[np.argsort(best[others], kind="stable")].tolist():  # those of one best together
        if candidates.same_words(int(best[row]), row):
            instead[row] = best[row]
    return instead


def kept_instead(
    candidates: _Candidates, bands: Iterable[Hashes], instead: NDArray[np.int64], weights: NDArray[np.float32]
) -> set[int]:
    """Fill in, for each row to drop, the one that stands for it. Returns the rows that look like too many to be compared with
    all, and are kept."""
    (unlike,) = np.nonzero(instead < 0)
    rows, groups, n_groups = [], [], 0
    for keys in bands:
        of_band, group = shared_keys(keys[unlike])
        rows.append(unlike[of_band])
        groups.append(group + n_groups)
        n_groups += len(keys)
    all_rows, all_groups = np.concatenate(rows), np.concatenate(groups)
    order = np.lexsort((all_rows, -weights[all_rows]))  # the heaviest first, then in the rows' order
    all_rows, all_groups = all_rows[order], all_groups[order]
    ends = np.flatnonzero(np.diff(all_rows, append=-1)) + 1
    kept: defaultdict[int, list[int]] = defaultdict(list)  # by group
    crowded = set()
    start = 0
    for end in ends.tolist():
        row, of_row = int(all_rows[start]), all_groups[start:end].tolist()
        start = end
        n_shared = Counter(other for group in of_row for other in kept[group][-SEEN_OF_BAND:])
        likely = [other for other, _ in n_shared.most_common(MAX_COMPARED)]
        found = next((other for other in likely if candidates.alike(row, other)), None)
        if found is None and len(n_shared) > MAX_COMPARED:
            crowded.add(row)
        if found is not None:
            instead[row] = found
            continue
        for group in of_row:
            kept[group].append(row)
    return crowded


def drop_near_duplicates(rows: Rows, tally: Tally, folder: Path, jaccard: float) -> Rows:
    """The rows without near-duplicates; they wait in `folder` meanwhile."""
    weights, classes, all_bands = [], [], []
    names: dict[str, int] = {}
    with Spool(folder) as spool, ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(N_BANDS)]
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            spool.extend(batch)
            keys = band_keys([row_words(row) for _, row in batch])
            for file, of_band in zip(files, keys, strict=True):
                file.write(of_band.tobytes())
            all_bands.append(np.bitwise_xor.reduce(keys, axis=0))
            weights.append(np.array([row_weight(row) for _, row in batch], np.float32))
            classes.append(np.array([names.setdefault(class_of(row), len(names)) for _, row in batch], np.int32))
        if not weights:
            return
        class_ids, all_weights = np.concatenate(classes), np.concatenate(weights)
        candidates = _Candidates(spool, jaccard)
        instead = same_words_instead(candidates, np.concatenate(all_bands), all_weights)
        for file in files:
            file.seek(0)
        # One band in memory at a time.
        crowded = kept_instead(candidates, (np.frombuffer(file.read(), np.uint64) for file in files), instead, all_weights)
        for number, (place, row) in enumerate(spool):
            if number in crowded:
                tally.note(f"kept after comparing with {MAX_COMPARED} rows like it, of more", place, words_of(row))
            other = int(instead[number])
            if other < 0:
                tally.keep(place)
                yield place, row
            else:
                reason = f"near-duplicate in {'its' if class_ids[other] == class_ids[number] else 'another'} class"
                tally.drop(reason, place, likeness(row, spool[other]) if tally.wants_example(reason) else "")
