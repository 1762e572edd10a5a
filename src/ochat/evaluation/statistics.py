"""Intervals for shares and for differences of shares, so that noise isn't read as progress."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
