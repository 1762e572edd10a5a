"""Which rows make which step: a pure function of the rows' lengths, the seed, the epoch and the sizes.

Rows are joined end to end into packs, so that no token is padding; a step is the same number of packs each time. The plan is
known before the first step, so a run can be resumed at a step's number alone. How many ranks share the packs of a step and how
many packs go through the model at once is not the plan's business: the sequence of steps stays the same.

The fewest steps: a plan that drops nothing has at least ceil(tokens / pack) packs, as a pack holds no more than its tokens (a
row longer than a pack counts as a whole one), so at least ceil(packs / packs a step) steps. Packing by length over the whole
data gets there too, but with steps of long rows and steps of short ones, whose gradients are not the data's. On chat data we
get there within 0.1 % with steps as mixed as a random draw (benchmarks/packing.py): a step takes the oldest rows of the shuffle
as long as they fit, and only what they leave empty is filled from a reservoir, the rows that come next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.float64)

# How many of the next rows may fill what is empty: with more there is a better fit, but short rows are used up early. That is
# not to be seen in an epoch's mean lengths while they are about 1/32 of the rows.
RESERVOIR_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a run: step s is packs step_starts[s] to step_starts[s + 1], pack p rows pack_starts[p] to pack_starts[p + 1].

    rows [rows of all epochs], pack_starts [packs + 1], step_starts [steps + 1], epoch_ends [steps]: is it an epoch's last?"""

    rows: Ints
    pack_starts: Ints
    step_starts: Ints
    epoch_ends: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.epoch_ends)

    def packs(self, step: int) -> list[Ints]:
        """The row numbers of each pack of a step; steps are counted from 0 here."""
        starts = self.pack_starts[self.step_starts[step] : self.step_starts[step + 1] + 1]
        return [self.rows[start:end] for start, end in pairwise(starts)]

    def step_rows(self, step: int) -> Ints:
        """All row numbers of a step."""
        return self.rows[self.pack_starts[self.step_starts[step]] : self.pack_starts[self.step_starts[step + 1]]]

    def sums(self, values: NDArray[Number]) -> NDArray[Number]:
        """The sum of the rows' values for each step: values [rows of the data] -> [steps]."""
        wide = np.float64 if values.dtype.kind == "f" else np.int64
        if not len(self):
            return np.zeros(0, wide)  # reduceat takes no empty list
        return np.add.reduceat(values[self.rows], self.pack_starts[self.step_starts[:-1]], dtype=wide)


def plan(lengths: Ints, *, epochs: int, batch_tokens: int, pack_tokens: int, seed: int) -> Plan:
    """All steps of a run: batch_tokens // pack_tokens packs each, of at most pack_tokens tokens; fewer in an epoch's last step.

    A row longer than pack_tokens is a pack of its own: the caller tells the user."""
    assert 0 < pack_tokens <= batch_tokens, (batch_tokens, pack_tokens)
    assert batch_tokens % pack_tokens == 0, (batch_tokens, pack_tokens)
    assert len(lengths) < 2**31, len(lengths)
    clipped = np.minimum(lengths, pack_tokens, dtype=np.int64)
    assert (clipped > 0).all()
    reservoir = min(RESERVOIR_ROWS, 64 + len(lengths) // 32)
    packs_a_step = min(batch_tokens // pack_tokens, len(lengths))  # those beyond would stay empty, and take memory
    rows, epoch_ends = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    pack_starts, step_starts = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    for epoch in range(epochs if len(lengths) else 0):
        order = shuffled(len(lengths), seed, epoch)
        places, pack_ends, step_ends = _pack_epoch(clipped[order], packs_a_step, pack_tokens, reservoir)
        rows.append(order[places])
        pack_starts.append(pack_starts[-1][-1] + pack_ends)
        step_starts.append(step_starts[-1][-1] + step_ends)
        epoch_ends.append(np.arange(1, len(step_ends) + 1) == len(step_ends))
    return Plan(np.concatenate(rows), np.concatenate(pack_starts), np.concatenate(step_starts), np.concatenate(epoch_ends))


def shuffled(n_rows: int, seed: int, epoch: int) -> Ints:
    """The order of the rows in an epoch.

    Rows are sorted by a hash of our own, because numpy promises the same random stream for no version but its own, and a run
    must resume with another one. The hash is splitmix64 (Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number
    Generators): one to one in the row's number, so no two rows tie."""
    gamma = np.uint64(0x9E3779B97F4A7C15)
    start = _mixed(_mixed(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch))
    return np.argsort(_mixed(start + gamma * np.arange(1, n_rows + 1, dtype=np.uint64)), kind="stable")


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pack(lengths: Ints, order: Sequence[int] | Ints, pack_tokens: int) -> list[Ints]:
    """Rows joined in the order given, into packs of at most `pack_tokens` tokens; a longer row is a pack of its own."""
    rows = np.asarray(order, np.int64)
    ends = np.cumsum(np.asarray(lengths, np.int64)[rows])
    packs, start = [], 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + pack_tokens, side="right")))
        packs.append(rows[start:end])
        start = end
    return packs


def assign_ranks(costs: Sequence[float], ranks: int) -> Ints:
    """The rank of each pack of a step: costs [packs] -> [packs]. Equal numbers of packs (+-1), balanced in cost.

    The dearest pack goes first, to the rank that has the least to do and may take one. Then, as long as it brings two ranks
    closer by 1/10,000, a pack of the rank with the most to do is swapped for one of another."""
    cost = np.asarray(costs, np.float64)
    room = np.full(ranks, len(cost) // ranks)
    room[: len(cost) % ranks] += 1
    load = np.zeros(ranks)
    rank_of = np.zeros(len(cost), np.int64)
    for number in np.argsort(-cost, kind="stable"):
        rank = np.argmin(np.where(room > 0, load, np.inf))
        rank_of[number] = rank
        load[rank] += cost[number]
        room[rank] -= 1
    for _ in cost:
        most = np.argmax(load)
        ours, theirs = np.flatnonzero(rank_of == most), np.flatnonzero(rank_of != most)
        less = cost[ours][:, None] - cost[theirs]  # [ours, theirs]: what `most` has less after the swap
        gain = np.minimum(less, load[most] - load[rank_of[theirs]] - less)
        if not gain.size or gain.max() <= 1e-4 * load[most]:
            break
        our, their = np.unravel_index(np.argmax(gain), gain.shape)
        other = rank_of[theirs[their]]
        rank_of[ours[our]], rank_of[theirs[their]] = other, most
        load[most] -= less[our, their]
        load[other] += less[our, their]
    return rank_of


def _compiled(function: Callable[..., tuple[Ints, Ints, Ints]]) -> Callable[..., tuple[Ints, Ints, Ints]]:
    """Machine code, kept for the next process where numba finds a folder that it may write to: this one's, else the user's."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # "cannot cache function": there is none
        return njit(function)


@_compiled
def _pack_epoch(lengths: Ints, packs_a_step: int, pack_tokens: int, reservoir: int) -> tuple[Ints, Ints, Ints]:
    """The steps of an epoch. lengths [rows], in the epoch's order, none over pack_tokens -> the rows' places in that order,
    pack by pack [rows]; where in these each pack ends [packs]; where in the packs each step ends [steps]."""
    n_rows = len(lengths)
    places, n_placed = np.empty(n_rows, np.int64), 0
    pack_ends, n_packs = np.empty(n_rows, np.int64), 0
    step_ends, n_steps = np.empty(n_rows, np.int64), 0
    placed = np.zeros(n_rows, np.bool_)
    taken = np.empty(n_rows, np.int64)
    # The packs of a step: their last row, and of each row the one before it in its pack, or -1.
    last = np.empty(packs_a_step, np.int32)
    before = np.empty(n_rows, np.int32)
    room = np.empty(packs_a_step, np.int64)
    squares = np.empty(packs_a_step, np.int64)
    # The reservoir: the newest row of each length, and of each row the next older of its length, or -1. Some are placed.
    newest = np.full(lengths.max() + 1, -1, np.int32)
    older = np.empty(n_rows, np.int32)
    oldest = n_seen = 0
    while n_placed < n_rows:
        # 1. Take the oldest rows as long as they fit. Two over half a pack can't share one.
        while placed[oldest]:
            oldest += 1
        n_taken = n_tokens = n_large = 0
        place = oldest
        while place < n_rows:
            if not placed[place]:
                n_tokens += lengths[place]
                n_large += 2 * lengths[place] > pack_tokens
                if n_tokens > packs_a_step * pack_tokens or n_large > packs_a_step:
                    break
                taken[n_taken] = place - (lengths[place] << 32)  # sorts by length, the longest first, then by age
                n_taken += 1
            place += 1
        while n_seen < min(n_rows, place + reservoir):
            older[n_seen] = newest[lengths[n_seen]]
            newest[lengths[n_seen]] = n_seen
            n_seen += 1
        # 2. The longest first, each goes to the pack with the least sum of squares that has room. So no pack stays empty but
        #    in the last step. A row that no pack has room for is among the oldest of the next step.
        last[:], room[:], squares[:] = -1, pack_tokens, 0
        taken[:n_taken].sort()
        for key in taken[:n_taken]:
            place = key & 0xFFFFFFFF
            best, least = -1, np.iinfo(np.int64).max
            for number in range(packs_a_step):
                if room[number] >= lengths[place] and squares[number] < least:
                    best, least = number, squares[number]
            if best >= 0:
                squares[best] += lengths[place] ** 2
                room[best] -= lengths[place]
                before[place], last[best], placed[place] = last[best], place, True
        for number in range(packs_a_step):
            # 3. Fill what is empty with the longest row of the reservoir that fits, as often as there is one.
            length = min(room[number], len(newest) - 1)
            while length > 0:
                place = newest[length]
                if place < 0:
                    length -= 1
                    continue
                newest[length] = older[place]
                if not placed[place]:
                    before[place], last[number], placed[place] = last[number], place, True
                    room[number] -= length
                    length = min(length, room[number])
            # 4. Swap a row for one that is longer by just what is still empty; it is among the oldest of the next step.
            after, place = -1, last[number]
            while place >= 0 and room[number] > 0:
                length = min(lengths[place] + room[number], len(newest) - 1)
                while newest[length] >= 0 and placed[newest[length]]:
                    newest[length] = older[newest[length]]
                better = newest[length]
                if better >= 0 and length == lengths[place] + room[number]:
                    before[better], placed[better], placed[place] = before[place], True, False
                    if after >= 0:
                        before[after] = better
                    else:
                        last[number] = better
                    room[number] = 0
                after, place = place, before[place]
            place = last[number]
            while place >= 0:
                places[n_placed] = place
                n_placed += 1
                place = before[place]
            if last[number] >= 0:
                pack_ends[n_packs] = n_placed
                n_packs += 1
        step_ends[n_steps] = n_packs
        n_steps += 1
    return places, pack_ends[:n_packs].copy(), step_ends[:n_steps].copy()
