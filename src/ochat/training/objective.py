"""The weights of C-RLFT's objective, over rows and steps: what each row brings, and what a step's loss is divided by."""

import numpy as np

from ochat.data.dataset import Array, Dataset


def weight_sums(dataset: Dataset, *, per_sequence: bool) -> Array:
    """The sum of the weights of each row's learned tokens, as the loss has them."""
    return dataset.weight_sums / np.maximum(1, dataset.learned_tokens) if per_sequence else dataset.weight_sums


def normalisers(normalise: str, step_weight_sums: Array) -> Array:
    """What each step's loss is divided by, [S] -> [S]: the mean weight sum of a step, a constant of the run, or its own.

    With the constant the mean of the steps' gradients, at fixed weights, is the gradient of Σ w·nll / Σ w over all the data; a
    step's own sum gives a step of cheap rows the say of a full one (docs/c-rlft.md)."""
    return step_weight_sums if normalise == "step" else np.full_like(step_weight_sums, step_weight_sums.mean())
