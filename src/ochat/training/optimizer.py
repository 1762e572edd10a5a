"""The original's optimizer and schedule, on float32 master weights whatever the model computes in.

A step of 1e-5 on a weight of 1 vanishes in bfloat16's 8 bits, so the step is taken in float32 and rounded for the next forward."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

BETAS, EPS = (0.9, 0.95), 1e-5  # the original's; the rest of its recipe is the options' defaults


def learning_rate(step: int, n_steps: int, peak: float, *, warmup: float = 0.05, floor: float = 0.1) -> float:
    """The rate of step 1 … n_steps: linear warm-up over a share of the steps, then a cosine down to a share of the peak."""
    n_warmup = max(1, round(warmup * n_steps)) if warmup else 0
    if step <= n_warmup:
        return peak * step / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def automatic_learning_rate(at_4m_tokens: float, learned_tokens_per_step: float) -> float:
    """The original's rule: the model type's rate at 4e6 learned tokens a step, falling with the root of the step's size."""
    return at_4m_tokens * math.sqrt(learned_tokens_per_step / 4e6)


class MasterAdamW:
    """AdamW on float32 weights, with gradients summed in float32 over a step's forwards and ranks.

    A parameter that is float32 is its own master; of another one a copy is kept. Sharded parameters (FSDP2) are float32, and
    their gradients are summed over the ranks by the backward pass."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        weight_decay: float = 0.1,
        max_grad_norm: float = 1.0,
        eight_bit: bool = False,
    ) -> None:
        self.parameters = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self.masters = {
            name: parameter if parameter.dtype == torch.float32 else parameter.detach().float().clone()
            for name, parameter in self.parameters.items()
        }
        self.max_grad_norm = max_grad_norm
        self.eight_bit = eight_bit
        if eight_bit:
            from bitsandbytes.optim import AdamW8bit

            self.adamw: torch.optim.Optimizer = AdamW8bit(
                list(self.masters.values()), lr=0.0, betas=BETAS, eps=EPS, weight_decay=weight_decay
            )
        else:
            fused = not self.is_sharded  # torch 2.13 has no fused step for shards
            self.adamw = torch.optim.AdamW(
                self.masters.values(), lr=0.0, betas=BETAS, eps=EPS, weight_decay=weight_decay, fused=fused
            )

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the weights."""
        return any(isinstance(master, DTensor) for master in self.masters.values())

    def add_gradients(self) -> None:
        """Take what a backward left on the model's parameters into the step's sum, and free it."""
        for name, master in self.masters.items():
            parameter = self.parameters[name]
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.float() if master.grad is None else master.grad.add_(parameter.grad)
                parameter.grad = None

    def gradient_norm(self) -> float:
        """Sum the gradients over the ranks, scale them down to the norm that is allowed, and return the norm before that."""
        for master in self.masters.values():
            if master.grad is None:  # no forward of this rank used it
                master.grad = torch.zeros_like(master)
        if distributed.is_initialized() and not self.is_sharded:
            gradients = [master.grad for master in self.masters.values() if master.grad is not None]
            for work in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
                work.wait()
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm or math.inf)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self, rate: float) -> None:
        """One step at a learning rate, by the gradients that `gradient_norm` left."""
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad()
        self.write_back()

    def write_back(self) -> None:
        """Round the masters into the model."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter is not self.masters[name]:
                    parameter.copy_(self.masters[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Masters and moments as tensors named `master:PARAMETER`, `exp_avg:PARAMETER` and so on."""
        state = {f"master:{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            of_master = self.adamw.state[master].items()
            state |= {f"{key}:{name}": torch.as_tensor(value) for key, value in of_master}
        return state

    def load(self, keys: Iterable[str], read: Callable[[str], torch.Tensor]) -> None:
        """Continue from a state of `state_dict`'s keys, whose whole tensors `read` gives one at a time."""
        with torch.no_grad():
            for key in keys:
                kind, name = key.split(":", 1)
                master = self.masters[name]
                value = _placed_like(master, read(key))
                if kind == "master":
                    master.copy_(value)
                else:  # bitsandbytes counts its steps in an int
                    self.adamw.state[master][kind] = int(value) if self.eight_bit and kind == "step" else value
        self.write_back()


def _placed_like(master: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A tensor of a state on the master's device, and sharded as the master where it has its shape."""
    value = value.to(master.device)
    if isinstance(master, DTensor) and value.shape == master.shape:
        return distribute_tensor(value, master.device_mesh, master.placements, src_data_rank=None)
    return value
