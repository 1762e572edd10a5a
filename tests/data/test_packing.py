"""The plan: every row once an epoch, no pack over its size, the same for the same seed."""

import pytest

from ochat.data.packing import Step, pack, plan

LENGTHS = [5, 9, 3, 7, 7, 2, 30, 1, 4, 6] * 10


def rows_of(steps: list[Step]) -> list[int]:
    return sorted(row for step in steps for row in step.rows)


@pytest.mark.parametrize(("batch_tokens", "pack_tokens"), [(20, 20), (60, 20), (1000, 1000)])
def test_each_row_is_seen_once_an_epoch(batch_tokens: int, pack_tokens: int) -> None:
    steps = plan(LENGTHS, epochs=3, batch_tokens=batch_tokens, pack_tokens=pack_tokens, seed=0)
    assert rows_of(steps) == sorted([*range(len(LENGTHS))] * 3)


def test_packs_hold_at_most_their_tokens_but_for_one_longer_row() -> None:
    for numbers in pack(LENGTHS, range(len(LENGTHS)), 20):
        assert sum(LENGTHS[row] for row in numbers) <= 20 or len(numbers) == 1


def test_the_plan_depends_on_the_seed_alone() -> None:
    sizes = {"epochs": 2, "batch_tokens": 40, "pack_tokens": 20}
    assert plan(LENGTHS, seed=1, **sizes) == plan(LENGTHS, seed=1, **sizes) != plan(LENGTHS, seed=2, **sizes)


def test_epochs_differ_in_their_order() -> None:
    steps = plan(LENGTHS, epochs=2, batch_tokens=1000, pack_tokens=1000, seed=0)
    assert steps[0].rows != steps[1].rows


def test_steps_do_not_depend_on_the_size_of_packs() -> None:
    sizes = {"epochs": 2, "batch_tokens": 64, "seed": 0}
    whole, divided = plan(LENGTHS, pack_tokens=64, **sizes), plan(LENGTHS, pack_tokens=16, **sizes)
    assert [step.rows for step in whole] == [step.rows for step in divided]
    assert {len(step.packs) for step in whole} == {1}
    assert max(len(step.packs) for step in divided) > 3


def test_the_last_step_of_each_epoch_is_marked() -> None:
    steps = plan(LENGTHS, epochs=3, batch_tokens=64, pack_tokens=64, seed=0)
    ends = [number for number, step in enumerate(steps) if step.ends_epoch]
    starts = [0, *(number + 1 for number in ends)]
    assert len(ends) == 3
    for start, end in zip(starts, ends, strict=False):
        assert sorted(row for step in steps[start : end + 1] for row in step.rows) == [*range(len(LENGTHS))]
