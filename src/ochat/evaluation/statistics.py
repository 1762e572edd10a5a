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

    def as_json(self) -> dict[str, float | None]:
        """What JSON can say of it: an end that isn't told is null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

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
    """The mean of groups' shares, each group counting alike. Raises ValueError for a group of no questions."""
    return _mean([share(sum(group), len(group)) for group in groups])


def mean_paired_difference(groups: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> Estimate:
    """The mean over groups of first - second on the same questions, each group counting alike, of paired bootstrap intervals.

    Raises ValueError for a group of no questions."""
    return _mean([_bootstrap([int(a) - int(b) for a, b in zip(first, second, strict=True)]) for first, second in groups])


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates; each side of its interval from that side of theirs (MOVER, Zou & Donner 2008)."""
    if not estimates:
        raise ValueError("a mean of nothing")
    n, mean = len(estimates), sum(one.value for one in estimates) / len(estimates)
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / n
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / n
    return Estimate(mean, mean - below, mean + above)


def _bootstrap(differences: Sequence[int], n_draws: int = 10_000) -> Estimate:
    """The mean of values from -1 to 1, with the 2.5 and 97.5 % points of means of questions drawn anew (Efron 1979). One question more
    of each of -1 and 1 is drawn from (Bonett & Price 2012), since few questions that were all alike tell little."""
    if not differences:
        raise ValueError("a mean of no questions")
    n, values = len(differences), np.arange(-1, 2)
    counts = np.array([differences.count(-1) + 1, differences.count(0), differences.count(1) + 1])
    draws = np.random.default_rng(0).multinomial(n, counts / counts.sum(), size=n_draws)
    low, high = np.quantile(draws @ values / n, [0.025, 0.975])
    return Estimate(sum(differences) / n, float(low), float(high))
