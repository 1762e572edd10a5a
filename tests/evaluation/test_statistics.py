"""Intervals against values worked out elsewhere."""

import pytest

from ochat.evaluation.statistics import paired_difference, share


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
