"""The original's optimizer and schedule, with float32 master weights beside a model that computes in bfloat16.

A step of 1e-5 on a weight of 1 vanishes in bfloat16's 8 bits, so the step is taken in float32 and rounded for the next forward."""

import math
from collections.abc import Iterable

import torch

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's own state
BETAS, EPS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.95), 1e-5, 0.1, 1.0
WARMUP_SHARE, FLOOR = 0.05, 0.1


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """The rate of step 1 … n_steps: linear warm-up over 5 %, then a cosine down to a tenth of the peak."""
    warmup = max(1, round(WARMUP_SHARE * n_steps))
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def automatic_learning_rate(at_4m_tokens: float, learned_tokens_per_step: float) -> float:
    """The original's rule: the model type's rate at 4e6 learned tokens a step, falling with the root of the step's size."""
    return at_4m_tokens * math.sqrt(learned_tokens_per_step / 4e6)


class MasterAdamW:
    """AdamW on float32 copies of the parameters, with gradients summed in float32 over a step's forwards."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.masters = [parameter.detach().float().clone() for parameter in self.parameters]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.adamw = torch.optim.AdamW(self.masters, lr=0.0, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True)

    def add_gradients(self) -> None:
        """Take what a backward left on the parameters into the step's sum."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is not None:
                assert master.grad is not None
                master.grad += parameter.grad
                parameter.grad = None

    def step(self, rate: float) -> float:
        """One step at a learning rate; returns the gradient's norm before clipping to 1."""
        for group in self.adamw.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.masters, MAX_GRAD_NORM)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=False)
        self.write_back()
        return float(norm)

    def write_back(self) -> None:
        """Round the masters into the model."""
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Masters and moments as named tensors, for a safetensors file."""
        state = {f"master.{i}": master for i, master in enumerate(self.masters)}
        for i, master in enumerate(self.masters):
            state |= {f"{name}.{i}": value for name, value in self.adamw.state[master].items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from `state_dict`'s tensors."""
        with torch.no_grad():
            for i, master in enumerate(self.masters):
                master.copy_(state[f"master.{i}"])
                self.adamw.state[master] = {name: state[f"{name}.{i}"].to(master.device) for name in _MOMENTS}
        self.write_back()
