"""Intervals against values worked out elsewhere."""

import math

import pytest

from ochat.evaluation.statistics import Z95, mcnemar, mean_of_runs, mean_paired_difference, mean_share, paired_difference, share


@pytest.mark.parametrize(
    ("n_correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (15, 50, 0.1910, 0.4375),
        (81, 263, 0.2553, 0.3662),
    ],  # Newcombe 1998, table I
)
def test_a_share_has_wilsons_interval(n_correct: int, n: int, low: float, high: float) -> None:
    estimate = share(n_correct, n)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((n_correct / n, low, high), abs=1e-4)


def test_a_paired_difference_counts_only_questions_that_differ() -> None:
    first, second = [True] * 6 + [False] * 4, [True] * 3 + [False] * 7
    estimate = paired_difference(first, second)
    # Differences: three 1, seven 0; variance 0.21 * 10 / 9.
    half = 1.959964 * (0.21 / 9) ** 0.5
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_the_mean_of_runs_has_students_interval() -> None:
    # Student's own example of 1908: hours of sleep gained by ten patients, mean 2.33, s = 2.0022.
    gained = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = mean_of_runs(gained)
    assert found.value == pytest.approx(2.33)
    assert found.high - found.value == pytest.approx(2.262157 * 2.002249 / 10**0.5, abs=1e-5)


def test_many_runs_have_a_normal_interval() -> None:
    found = mean_of_runs([0.0, 1.0] * 50)
    assert found.high - found.value == pytest.approx(Z95 * (0.25 / 99) ** 0.5)


def test_one_run_has_no_interval() -> None:
    found = mean_of_runs([0.5])
    assert str(found) == "0.500"
    assert found.signed() == "+0.500"
    assert found.low == -math.inf
    with pytest.raises(ValueError, match="no runs"):
        mean_of_runs([])


def test_mcnemar_counts_the_questions_that_only_one_got_right() -> None:
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 0) == 1
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)


def test_a_mean_over_benchmarks_counts_each_alike() -> None:
    many, few = [True] * 600 + [False] * 400, [False] * 20
    mean = mean_share([many, few])
    assert mean.value == pytest.approx(0.3)
    assert 0.27 < mean.low < 0.3 < mean.high < 0.4
    assert mean_share([[False] * 20]).high > 0.1  # twenty alike don't make it certain


@pytest.mark.parametrize("right", [True, False])
def test_means_of_single_questions_lie_in_their_intervals(right: bool) -> None:
    singles = [[right]] * 12 + [[True, False, False, False] * 10]
    for mean in (mean_share(singles), mean_paired_difference([(group, [not right] * len(group)) for group in singles])):
        assert mean.low <= mean.value <= mean.high


def test_a_paired_difference_is_surer_than_that_of_two_samples() -> None:
    first = [i % 2 == 0 for i in range(400)]
    second = [right or i % 20 == 1 for i, right in enumerate(first)]
    difference = mean_paired_difference([(second, first)])
    assert difference.value == pytest.approx(0.05)
    assert 0.02 < difference.low < 0.05 < difference.high < 0.08
    unpaired = mean_paired_difference([(sorted(second), sorted(first, reverse=True))])
    assert unpaired.high - unpaired.low > 2 * (difference.high - difference.low)
