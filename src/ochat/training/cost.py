"""What a step costs, in floating-point operations and bytes, from the model's shape, and what computes it."""

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ochat.data.dataset import Array

# Dense bfloat16 matmul peaks of data sheets, FLOP/s; of a name that holds another the longer one counts.
_PEAKS = {
    "A10G": 70e12,
    "A100": 312e12,
    "B200": 2250e12,
    "GeForce RTX 3090": 71e12,
    "GeForce RTX 4090": 165e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
}


@dataclass(frozen=True)
class Shape:
    """What decides the work of a forward and a backward pass."""

    body: int  # weights that each token is multiplied with, but for the head
    head: int  # weights of the head, with which only learned tokens are multiplied
    attention: int  # layers x heads x head size

    @property
    def quadratic(self) -> float:
        """The a of a row's cost L + a·L²: what its attention costs beside its matmuls."""
        return self.attention / self.body

    def flops(self, tokens: Array, learned_tokens: Array, squared_lengths: Array) -> Array:
        """Of a forward and a backward pass: 6 a weight and token, 6 a causal pair of attention's (Kaplan 2020, arXiv 2001.08361, §2.1).

        Work that's done twice for --gradient-checkpointing is not counted, nor is padding: there is none."""
        return 6.0 * self.body * tokens + 6.0 * self.head * learned_tokens + 6.0 * self.attention * squared_lengths


def shape_of(model: PreTrainedModel) -> Shape:
    """The shape of a decoder, from its weights and its configuration."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    apart = {id(embedding), id(head)}
    config = model.config.get_text_config()
    n_body = sum(p.numel() for p in model.parameters() if id(p) not in apart and p.dim() > 1)
    if experts := getattr(config, "num_experts_per_tok", None):  # a token meets some experts of many
        of_experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
        n_experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", experts)
        n_body -= round(of_experts * (1 - experts / n_experts))
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(n_body, head.numel(), config.num_hidden_layers * config.num_attention_heads * head_size)


def peak_flops(device: torch.device) -> float | None:
    """The device's peak in bfloat16, FLOP/s; None where no data sheet is known here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((_PEAKS[known] for known in sorted(_PEAKS, key=len, reverse=True) if known in name), None)


def processor() -> str:
    """The processor's name, or its kind where the system doesn't tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """What computes in this process: another processor, or another number of threads, rounds otherwise."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def standing_bytes(model: torch.nn.Module, *, eight_bit: bool, shards: int) -> dict[str, int]:
    """Memory that a run holds all the time, by what for; activations come on top."""
    trained = [p for p in model.parameters() if p.requires_grad]
    n = sum(p.numel() for p in trained)
    copies = sum(p.numel() for p in trained if p.dtype != torch.float32)
    return {
        "weights": sum(p.nbytes for p in model.parameters()) // shards,
        "float32 copies": 4 * copies // shards,
        "gradients": 4 * n // shards,
        "AdamW's moments": (2 if eight_bit else 8) * n // shards,
    }


def memory_used(device: torch.device) -> int:
    """The most memory that this process has held so far, in bytes: on the device, or in all on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(peak[0].split()[1])


def memory_there(device: torch.device) -> int:
    """Memory that a run may take, in bytes: the device's, or what is free on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    free = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:")]
    return 1024 * int(free[0].split()[1])


def row_costs(lengths: Array, quadratic: float) -> Array:
    """L + a·L² of each row."""
    return lengths + quadratic * np.square(lengths, dtype=np.float64)
