"""The schedule's corners, and steps that bfloat16 alone would lose."""

import pytest
import torch

from ochat.training.optimizer import MasterAdamW, automatic_learning_rate, learning_rate


@pytest.mark.parametrize(("step", "expected"), [(1, 0.2), (5, 1.0), (100, 0.1), (52, 0.1 + 0.9 * 0.5 * 1.0165)])
def test_the_rate_warms_up_over_5_percent_and_falls_to_a_tenth(step: int, expected: float) -> None:
    assert learning_rate(step, 100, 1.0) == pytest.approx(expected, abs=2e-3)


def test_the_automatic_rate_is_the_originals() -> None:
    # 81,920 tokens on 8 GPUs, 60 % learned, Mistral: 1.57e-5.
    assert automatic_learning_rate(3e-4 / 6, 81920 * 8 * 0.6) == pytest.approx(1.57e-5, rel=5e-3)


def test_small_steps_add_up_in_the_master_weights() -> None:
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("weight", weight)])
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.add_gradients()
        optimizer.gradient_norm()
        optimizer.step(1e-4)  # a bfloat16 one stays one under each of these
    assert float(optimizer.masters["weight"]) == pytest.approx(0.99 * (1 - 1e-5) ** 100, rel=1e-3)
    assert float(weight.detach()) == pytest.approx(0.99, abs=4e-3)


def test_gradients_of_several_forwards_add_up_in_float32() -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("weight", weight)])
    for gradient in (1.0, 1e-3):  # their sum isn't a bfloat16 number
        weight.grad = torch.tensor([gradient], dtype=torch.bfloat16)
        optimizer.add_gradients()
    assert optimizer.masters["weight"].grad is not None
    assert float(optimizer.masters["weight"].grad) == pytest.approx(1.001, abs=1e-5)
