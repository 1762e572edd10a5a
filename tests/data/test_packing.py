"""The plan: every row once an epoch, no pack over its size, as few steps as can be, each as mixed as a random draw."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ochat.data import packing
from ochat.data.packing import Ints, Plan, assign_ranks, pack, plan, shuffled

ROWS = st.lists(st.integers(1, 40), min_size=1, max_size=120)


def chat_lengths(n_rows: int, max_tokens: int, seed: int = 0) -> Ints:
    """Lengths as in chat data: median 282, mean 400 before the longest are cut."""
    normal = np.random.default_rng(seed).standard_normal(n_rows)
    return np.clip(282 * np.exp(normal * np.sqrt(2 * np.log(400 / 282))), 1, max_tokens).astype(np.int64)


def fewest_steps(lengths: Ints, n_packs: int, pack_tokens: int) -> int:
    return ceil(ceil(int(np.minimum(lengths, pack_tokens).sum()) / pack_tokens) / n_packs)


def per_step(steps: Plan, values: Ints) -> list[int]:
    return [int(sum(values[row] for row in steps.step_rows(number))) for number in range(len(steps))]


def variation(counts: Ints) -> float:
    """The coefficient of variation: std / mean."""
    return float(np.std(counts) / np.mean(counts))


@given(ROWS, st.integers(1, 5), st.integers(1, 30), st.integers(0, 2**70), st.integers(0, 3))
def test_every_row_is_in_one_pack_an_epoch_and_only_its_last_step_is_short(
    rows: list[int], n_packs: int, pack_tokens: int, seed: int, epochs: int
) -> None:
    lengths = np.array(rows)
    steps = plan(lengths, epochs=epochs, batch_tokens=n_packs * pack_tokens, pack_tokens=pack_tokens, seed=seed)
    ends = [0, *(np.flatnonzero(steps.epoch_ends) + 1)]
    assert len(ends) == epochs + 1
    assert ends[-1] == len(steps)
    for start, end in pairwise(ends):
        packs = [steps.packs(step) for step in range(start, end)]
        assert sorted(row for step in packs for numbers in step for row in numbers) == [*range(len(rows))]
        assert {len(step) for step in packs[:-1]} <= {n_packs}
        assert 1 <= len(packs[-1]) <= n_packs
        for numbers in (numbers for step in packs for numbers in step):
            assert 0 < lengths[numbers].sum() <= pack_tokens or len(numbers) == 1


@given(ROWS, st.integers(1, 5), st.integers(1, 30), st.integers(0, 9))
def test_a_plan_depends_on_lengths_sizes_seed_and_epoch_alone(
    rows: list[int], n_packs: int, pack_tokens: int, seed: int
) -> None:
    def made(epochs: int) -> Plan:
        np.random.default_rng().random()
        np.random.seed(len(rows) + epochs)  # the state that a plan must not read
        return plan(np.array(rows), epochs=epochs, batch_tokens=n_packs * pack_tokens, pack_tokens=pack_tokens, seed=seed)

    short, again, long = made(2), made(2), made(3)
    for name in ("rows", "pack_starts", "step_starts", "epoch_ends"):
        np.testing.assert_array_equal(getattr(short, name), getattr(again, name))
        n = len(getattr(short, name))
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:n])


def test_a_plan_stays_what_it_was_in_other_versions() -> None:
    lengths = np.arange(1, 3001) * 7919 % 997 + 1
    steps = plan(lengths, epochs=2, batch_tokens=8192, pack_tokens=2048, seed=11)
    parts = (steps.rows, steps.pack_starts, steps.step_starts)
    digest = sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()
    assert digest[:16] == "c9a1900e659d263d", "runs of an older version would go on with other steps than they began with"


def test_plans_of_other_seeds_and_epochs_differ() -> None:
    lengths = chat_lengths(500, 4096)
    steps = plan(lengths, epochs=2, batch_tokens=8192, pack_tokens=8192, seed=0)
    other = plan(lengths, epochs=2, batch_tokens=8192, pack_tokens=8192, seed=1)
    assert steps.step_rows(0).tolist() != other.step_rows(0).tolist()
    second_epoch = int(np.flatnonzero(steps.epoch_ends)[0]) + 1
    assert steps.step_rows(0).tolist() != steps.step_rows(second_epoch).tolist()


def test_the_shuffle_is_the_published_splitmix64() -> None:
    # Of seed 0: e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f f88bb8a8724c81ec 1b39896a51a8749b
    assert shuffled(5, seed=0, epoch=0).tolist() == [2, 4, 1, 0, 3]


def test_shuffled_rows_keep_no_trace_of_their_order_or_of_another_epochs() -> None:
    orders = [np.argsort(shuffled(10_000, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    correlations = np.corrcoef([np.arange(10_000), *orders])
    assert abs(correlations - np.eye(5)).max() < 0.05  # five standard deviations


@pytest.mark.parametrize(
    ("max_tokens", "pack_tokens", "n_packs"),
    [(4096, 8192, 1), (4096, 8192, 8), (4096, 8192, 64), (8192, 65536, 8), (4096, 4096, 1), (2048, 2048, 8)],
)
def test_a_plan_has_the_fewest_steps_and_each_is_as_mixed_as_a_random_draw(
    max_tokens: int, pack_tokens: int, n_packs: int
) -> None:
    lengths = chat_lengths(100_000, max_tokens)
    steps = plan(lengths, epochs=1, batch_tokens=n_packs * pack_tokens, pack_tokens=pack_tokens, seed=0)
    assert len(steps) <= 1.001 * fewest_steps(lengths, n_packs, pack_tokens)

    drawn = pack(lengths, shuffled(len(lengths), 0, 0), n_packs * pack_tokens)[:-1]
    rows = steps.sums(np.ones(len(lengths), np.int64))[:-1]
    assert variation(rows) < 1.1 * variation(np.array([len(numbers) for numbers in drawn]))

    lengths_in_order = lengths[steps.rows]
    for quarter in np.array_split(lengths_in_order, 4):
        assert quarter.mean() == pytest.approx(lengths.mean(), rel=0.02)
    assert np.median(lengths_in_order[:25_000]) == pytest.approx(np.median(lengths), rel=0.03)


@pytest.mark.parametrize("n_rows", [1, 7, 100, 1000, 3000])
@pytest.mark.parametrize(("max_tokens", "pack_tokens", "n_packs"), [(4096, 8192, 1), (4096, 8192, 8), (4096, 4096, 4)])
def test_small_data_takes_at_most_one_step_more_than_the_fewest(
    n_rows: int, max_tokens: int, pack_tokens: int, n_packs: int
) -> None:
    for seed in range(10):
        lengths = chat_lengths(n_rows, max_tokens, seed)
        steps = plan(lengths, epochs=1, batch_tokens=n_packs * pack_tokens, pack_tokens=pack_tokens, seed=seed)
        assert len(steps) <= fewest_steps(lengths, n_packs, pack_tokens) + 1


def test_short_rows_are_not_used_up_early_in_small_data() -> None:
    firsts, lasts = [], []
    for seed in range(40):
        lengths = chat_lengths(1000, 4096, seed)
        steps = plan(lengths, epochs=1, batch_tokens=4096, pack_tokens=4096, seed=seed)
        n = len(steps) // 4
        tokens, rows = steps.sums(lengths), steps.sums(np.ones(1000, np.int64))
        firsts.append(tokens[:n].sum() / rows[:n].sum() / lengths.mean())
        lasts.append(tokens[-n:].sum() / rows[-n:].sum() / lengths.mean())
    assert np.mean(firsts) == pytest.approx(1, abs=0.03)
    assert np.mean(lasts) == pytest.approx(1, abs=0.03)


def test_rows_that_leave_room_for_no_other_take_a_pack_each() -> None:
    steps = plan(np.full(50, 6), epochs=1, batch_tokens=40, pack_tokens=10, seed=0)
    assert [len(steps.packs(step)) for step in range(len(steps))] == [4] * 12 + [2]


def test_equal_rows_fill_each_pack_with_as_many_as_fit() -> None:
    steps = plan(np.full(1000, 4), epochs=1, batch_tokens=40, pack_tokens=10, seed=0)
    assert {len(numbers) for step in range(len(steps)) for numbers in steps.packs(step)} == {2}
    assert len(steps) == 125


def test_a_row_longer_than_a_pack_is_a_pack_of_its_own_and_ends_nothing() -> None:
    lengths = chat_lengths(2000, 4096)
    lengths[[3, 500, 1999]] = 20_000
    steps = plan(lengths, epochs=1, batch_tokens=32768, pack_tokens=8192, seed=0)
    packs = [numbers.tolist() for step in range(len(steps)) for numbers in steps.packs(step)]
    assert all([row] in packs for row in (3, 500, 1999))
    assert len(steps) <= fewest_steps(lengths, 4, 8192) + 1
    assert sorted(row for numbers in packs for row in numbers) == [*range(2000)]


def test_data_smaller_than_a_step_is_one_step_spread_over_its_packs() -> None:
    steps = plan(np.array([9, 1, 8, 2, 7, 3]), epochs=2, batch_tokens=300, pack_tokens=100, seed=0)
    assert steps.epoch_ends.tolist() == [True, True]
    squares = [sum(length**2 for length in packed) for packed in ((9,), (8,), (7, 3, 2, 1))]
    assert squares == [81, 64, 63]
    assert sorted(sorted(numbers.tolist()) for numbers in steps.packs(0)) == [[0], [1, 3, 4, 5], [2]]


def test_a_step_of_more_packs_than_there_are_rows_takes_no_more_memory() -> None:
    sizes = {"epochs": 1, "pack_tokens": 1, "seed": 0}
    few, many = (plan(np.array([2, 1, 3]), batch_tokens=n, **sizes) for n in (3, 2**31 - 1))
    assert (few.rows.tolist(), few.pack_starts.tolist()) == (many.rows.tolist(), many.pack_starts.tolist())


def test_no_rows_or_no_epochs_make_no_steps() -> None:
    for lengths, epochs in (([], 1), ([5, 6], 0)):
        steps = plan(np.array(lengths, np.int64), epochs=epochs, batch_tokens=10, pack_tokens=10, seed=0)
        assert len(steps) == len(steps.sums(np.array(lengths, np.int64))) == 0


@pytest.mark.parametrize(("batch_tokens", "pack_tokens"), [(10, 20), (25, 10), (10, 0)])
def test_a_batch_that_is_no_multiple_of_its_packs_is_our_mistake(batch_tokens: int, pack_tokens: int) -> None:
    with pytest.raises(AssertionError):
        plan(np.array([1]), epochs=1, batch_tokens=batch_tokens, pack_tokens=pack_tokens, seed=0)


def test_squares_of_lengths_are_balanced_over_the_packs_of_a_step() -> None:
    lengths = chat_lengths(50_000, 4096)
    steps = plan(lengths, epochs=1, batch_tokens=8 * 65536, pack_tokens=65536, seed=0)
    ratios = []
    for step in range(len(steps) - 1):
        squares = [int((lengths[numbers] ** 2).sum()) for numbers in steps.packs(step)]
        ratios.append(max(squares) / np.mean(squares))
    assert np.mean(ratios) < 1.02


def test_sums_are_those_of_a_steps_rows() -> None:
    lengths = chat_lengths(300, 4096)
    steps = plan(lengths, epochs=2, batch_tokens=16384, pack_tokens=4096, seed=5)
    sums = steps.sums(lengths)
    assert sums.dtype == np.int64
    assert sums.tolist() == per_step(steps, lengths)
    weights = lengths / 7
    assert steps.sums(weights).tolist() == pytest.approx([weights[steps.step_rows(step)].sum() for step in range(len(steps))])
    narrow = np.full(300, 2**31 - 1, np.int32)
    assert steps.sums(narrow).sum() == 600 * (2**31 - 1)  # type: ignore[type-var]  # a table's column may be of 32 bits


@given(ROWS, st.integers(1, 50))
def test_next_fit_keeps_the_order_and_closes_a_pack_at_the_row_that_does_not_fit(rows: list[int], pack_tokens: int) -> None:
    lengths = np.array(rows)
    order = shuffled(len(rows), 0, 0)
    packs = pack(lengths, order, pack_tokens)
    assert [row for numbers in packs for row in numbers] == order.tolist()
    assert all(lengths[numbers].sum() <= pack_tokens or len(numbers) == 1 for numbers in packs)
    assert all(lengths[numbers].sum() + lengths[after[0]] > pack_tokens for numbers, after in pairwise(packs))


def test_no_rows_make_no_packs() -> None:
    assert pack(np.array([3, 4]), [], 10) == []


@given(st.lists(st.floats(0, 1e9), max_size=40), st.integers(1, 9))
def test_ranks_get_equal_numbers_of_packs(costs: list[float], ranks: int) -> None:
    of_pack = assign_ranks(costs, ranks)
    assert len(of_pack) == len(costs)
    counts = np.bincount(of_pack, minlength=ranks)
    assert len(counts) == ranks
    assert counts.max() - counts.min() <= 1
    assert of_pack.tolist() == assign_ranks(costs, ranks).tolist()


def test_ranks_are_balanced_as_well_as_can_be() -> None:
    def loads(costs: list[float], ranks: int) -> list[float]:
        return sorted(np.bincount(assign_ranks(costs, ranks), costs, ranks).tolist())

    assert loads([10, 1, 2, 9, 5, 7], 2) == [17, 17]
    assert loads([8, 7, 6, 5, 4], 2) == [15, 15]  # three small ones against two large ones
    assert loads([3, 3, 3, 3], 4) == [3, 3, 3, 3]
    assert loads([5], 3) == [0, 0, 5]


# The cost of a row is L + a L². Of a 7B Llama a is 1/53,000, of SmolLM2-135M 1/7,800: 2 x layers x width / (2 x parameters).
@pytest.mark.parametrize("a", [1 / 53_000, 1 / 7_800])
@pytest.mark.parametrize(("pack_tokens", "ranks"), [(65536, 8), (8192, 8), (16384, 4)])
def test_ranks_with_65536_tokens_each_are_within_one_percent(pack_tokens: int, ranks: int, a: float) -> None:
    lengths = chat_lengths(60_000, 8192)
    row_costs = lengths + a * lengths.astype(np.float64) ** 2
    steps = plan(lengths, epochs=1, batch_tokens=ranks * 65536, pack_tokens=pack_tokens, seed=0)
    ratios = []
    for step in range(len(steps) - 1):
        costs = sorted(float(row_costs[numbers].sum()) for numbers in steps.packs(step))
        # A rank has as many packs as each other, so the one with the dearest has no less than the cheapest ones beside it.
        least = max(np.sum(costs) / ranks, costs[-1] + sum(costs[: len(costs) // ranks - 1]))
        ratios.append(max(np.bincount(assign_ranks(costs, ranks), costs, ranks)) / least)
    assert np.mean(ratios) < 1.01


def test_packing_works_where_no_folder_for_compiled_code_can_be_written(tmp_path: Path) -> None:
    shutil.copy(packing.__file__, tmp_path / "packing.py")
    (tmp_path / "__pycache__").write_text("a file where numba would make its folder")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "packing.py"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", "import packing"], cwd=tmp_path, env=environment, check=True)
