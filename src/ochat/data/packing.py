"""Which rows make which step: a pure function of the rows' lengths, the seed, the epoch and the sizes.

Rows are joined end to end into packs, so that no token is padding. The plan is known before the first step, so a run can be
resumed at a step's number alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """The packs of one optimizer step; each pack is some row numbers."""

    packs: tuple[tuple[int, ...], ...]
    ends_epoch: bool

    @property
    def rows(self) -> list[int]:
        return [row for pack in self.packs for row in pack]


def shuffled(n_rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in an epoch."""
    order = list(range(n_rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def pack(lengths: Sequence[int], order: Sequence[int], pack_tokens: int) -> list[tuple[int, ...]]:
    """Rows of the order joined into packs of at most `pack_tokens` tokens; a longer row is a pack of its own.

    The pack that a row doesn't fit is closed: with many rows a pack, little room is lost, and the mix stays random."""
    packs: list[tuple[int, ...]] = []
    current: list[int] = []
    n_tokens = 0
    for row in order:
        if current and n_tokens + lengths[row] > pack_tokens:
            packs.append(tuple(current))
            current, n_tokens = [], 0
        current.append(row)
        n_tokens += lengths[row]
    if current:
        packs.append(tuple(current))
    return packs


def plan(lengths: Sequence[int], *, epochs: int, batch_tokens: int, pack_tokens: int, seed: int) -> list[Step]:
    """All steps of a run, each of at most `batch_tokens` tokens (a longer row is a step of its own). Nothing is dropped.

    The rows of a step don't depend on `pack_tokens`, which only divides them."""
    steps = []
    for epoch in range(epochs):
        batches = pack(lengths, shuffled(len(lengths), seed, epoch), batch_tokens)
        steps += [
            Step(tuple(pack(lengths, rows, pack_tokens)), ends_epoch=number == len(batches))
            for number, rows in enumerate(batches, start=1)
        ]
    return steps
