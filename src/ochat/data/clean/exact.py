"""Drop rows that say what another says, word for word.

Compared are roles, texts and system prompt, as they stand. The condition, class and weights are not: one text under two
classes would teach that both are right. Of equal rows the one with the highest weight stays, so that the text counts as its
best source says; among equal weights, the first.

A row costs 24 bytes of memory (hash, weight, class, its place on disk) and some 35 more while they are sorted: 0.6 GB for ten
million. The rows themselves wait on disk. The hash has 64 bits: among ten million rows the chance that any two different ones share
theirs is 3 in a million."""

import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ochat.conversation import Conversation
from ochat.data.blocks import class_of
from ochat.data.clean.spool import Spool
from ochat.data.clean.tally import Rows, Tally, likeness
from ochat.data.clean.turns import effective_weight

ROWS_PER_BATCH = 1000


def row_hash(row: Conversation) -> int:
    """64 bits of the row's roles, texts and system prompt; the same in every process."""
    hash = hashlib.blake2b(digest_size=8)
    for text in (row.system, *(part for item in row.items for part in (item.role, item.content))):
        data = text.encode()
        hash.update(len(data).to_bytes(8, "little"))
        hash.update(data)
    return int.from_bytes(hash.digest(), "little")


def row_weight(row: Conversation) -> float:
    """The sum of the row's weights: which of two equal rows counts for more."""
    return sum(map(effective_weight, row.items))


def best_of_equals(hashes: NDArray[np.uint64], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row, the row that stands for all of its hash: the heaviest, of those the first."""
    order = np.lexsort((-weights, hashes))  # stable: rows of one hash and weight stay in their order
    same = np.zeros(len(order), bool)
    same[1:] = hashes[order[1:]] == hashes[order[:-1]]
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    best = np.empty(len(order), np.int64)
    best[order] = order[firsts]
    return best


def drop_exact_duplicates(rows: Rows, tally: Tally, folder: Path) -> Rows:
    """The rows without exact duplicates; they wait in `folder` meanwhile."""
    hashes, weights, classes = [], [], []
    names: dict[str, int] = {}
    with Spool(folder) as spool:
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            spool.extend(batch)
            hashes.append(np.array([row_hash(row) for _, row in batch], np.uint64))
            weights.append(np.array([row_weight(row) for _, row in batch], np.float32))
            classes.append(np.array([names.setdefault(class_of(row), len(names)) for _, row in batch], np.int32))
        if not hashes:
            return
        best = best_of_equals(np.concatenate(hashes), np.concatenate(weights))
        del hashes, weights
        class_ids = np.concatenate(classes)
        for number, (place, row) in enumerate(spool):
            if best[number] == number:
                tally.keep(place)
                yield place, row
            else:
                across = class_ids[best[number]] != class_ids[number]
                reason = "same text in another class" if across else "same text in its class"
                tally.drop(reason, place, likeness(row, spool[best[number]]) if tally.wants_example(reason) else "")
