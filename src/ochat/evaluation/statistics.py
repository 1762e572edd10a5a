"""Intervals for shares and for differences of shares, so that noise isn't read as progress."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
