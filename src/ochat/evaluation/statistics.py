"""Intervals for shares and for differences of shares, so that noise isn't read as progress."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964  # standard normal quantile of 0.975
# Student's t quantiles of 0.975 for 1 … 30 degrees of freedom (Fisher & Yates 1938, table III).
T95 = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, whose ends are infinite where nothing tells it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.high) else "")

    def signed(self) -> str:
        """As a difference is written."""
        return f"{self.value:+.3f}" + (f" [{self.low:+.3f}, {self.high:+.3f}]" if math.isfinite(self.high) else "")


def share(n_correct: int, n: int) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927), which holds near 0 and 1 too. Raises ValueError for n = 0."""
    if n < 1:
        raise ValueError("a share of no questions")
    p, z2 = n_correct / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Mean of first - second over the same questions, with the normal interval of paired differences."""
    n = len(first)
    differences = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    if n < 2:
        raise ValueError("a difference needs two questions")
    mean = sum(differences) / n
    half = Z95 * math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    return Estimate(mean, mean - half, mean + half)


def mean_of_runs(values: Sequence[float]) -> Estimate:
    """The mean of a figure over runs that share nothing but their settings, with Student's interval for so few (Student 1908).

    For a difference give each run's own. One run has no interval: its ends are infinite. Raises ValueError for none."""
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no runs")
    mean = sum(values) / n
    if n == 1:
        return Estimate(mean, -math.inf, math.inf)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = spread * (T95[n - 2] if n - 2 < len(T95) else Z95)
    return Estimate(mean, mean - half, mean + half)


def mcnemar(n_only_first: int, n_only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: that among questions which only one of two got right, so uneven a split
    arises where both are as good (McNemar 1947)."""
    n = n_only_first + n_only_second
    tail = sum(math.comb(n, k) for k in range(min(n_only_first, n_only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def mean_share(groups: Sequence[Sequence[bool]]) -> Estimate:
    """The mean of groups' shares, each group counting alike, with a bootstrap interval over the questions of each."""
    return _bootstrap([[int(right) for right in group] for group in groups], lowest=0)


def mean_paired_difference(groups: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> Estimate:
    """The mean over groups of first - second on the same questions, each group counting alike, with a paired bootstrap interval."""
    return _bootstrap([[int(a) - int(b) for a, b in zip(first, second, strict=True)] for first, second in groups], lowest=-1)


def _bootstrap(groups: Sequence[Sequence[int]], lowest: int, n_draws: int = 10_000) -> Estimate:
    """The mean of the groups' means, with the 2.5 and 97.5 % points of means of questions drawn anew (Efron 1979); the values are
    `lowest` … 1. One question more of the lowest and of the highest value is drawn from (Bonett & Price 2012), since few questions
    that were all alike tell little. Raises ValueError for a group of no questions."""
    if not groups or not all(groups):
        raise ValueError("a mean of no questions")
    random = np.random.default_rng(0)
    values = np.arange(lowest, 2)
    total = np.zeros(n_draws)
    for group in groups:
        counts = np.array([group.count(value) + (value in (lowest, 1)) for value in values])
        draws = random.multinomial(len(group), counts / counts.sum(), size=n_draws)
        total += draws @ values / len(group)
    low, high = np.quantile(total / len(groups), [0.025, 0.975])
    return Estimate(sum(sum(group) / len(group) for group in groups) / len(groups), float(low), float(high))
