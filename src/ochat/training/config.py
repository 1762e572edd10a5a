"""The options of a training run, and the names of the files in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ochat.errors import OchatError

CONFIG_FILE, LOG_FILE, FINAL_FOLDER = "config.json", "log.jsonl", "final"
MAX_COUNT = 2**31 - 1  # more than any run has of anything, and far from what 64 bits hold of products


@dataclass(frozen=True)
class Options:
    model: str
    """folder or hub id of the model to start from"""
    data: Path
    """data-set folder, made by `ochat data tokenize`"""
    output: Path
    """run folder: log.jsonl has a line a step, final/ is the trained model; repeated, an interrupted run goes on"""

    epochs: int = 1
    """times that each row is seen"""
    lr: float | None = None
    """peak learning rate; by the model type's rule when left out"""
    batch_tokens: int = 4096
    """tokens an optimizer step, at most"""
    pack_tokens: int | None = None
    """tokens a pack: rows joined end to end; --batch-tokens is a multiple of it, and it itself when left out"""
    packs_per_forward: int = 1
    """packs that go through the model together: more memory, less overhead, the same result"""
    seed: int = 0
    """seed of the order of rows"""

    normalise: Literal["run", "step"] = "run"
    """divide a step's loss by the run's mean weight sum of a step, or, as the original does, by the step's own"""
    per_sequence_loss: bool = False
    """a row's weight is shared by its learned tokens, so that a long answer counts as much as a short one"""
    loss_kernel: Literal["auto", "chunked", "naive", "liger"] = "auto"
    """how the loss is computed; the result is the same"""

    weight_decay: float = 0.1
    """decay of all weights, times the learning rate, a step"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm; 0 for never"""
    warmup: float = 0.05
    """share of the steps in which the learning rate rises to its peak"""
    lr_floor: float = 0.1
    """share of the peak to which the learning rate falls, along a cosine"""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """what the model computes in; the weights that are trained are float32"""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """8 bit: AdamW's moments in a quarter of the memory, on CUDA with bitsandbytes"""
    lora_rank: int = 0
    """rank of LoRA adapters on all linear layers, the rest frozen; 0 trains all weights"""
    lora_alpha: int | None = None
    """adapters are scaled by alpha / rank; twice the rank when left out"""
    quantize: Literal["none", "nf4"] = "none"
    """keep the frozen weights under LoRA in 4 bits (QLoRA), on CUDA with bitsandbytes"""
    gradient_checkpointing: bool = False
    """keep only each layer's input and compute the rest again in the backward pass: less memory, a third more work"""
    compile: bool = False
    """compile each layer with torch.compile: a minute or more at the start, faster steps after"""
    fsdp: bool = False
    """shard weights, gradients and optimizer states over the processes of torchrun (FSDP2)"""

    save_minutes: float = 2.0
    """minutes between saved states, from which an interrupted run goes on"""
    eval_steps: int | None = None
    """steps between measurements on held-out rows; at the ends of epochs when left out"""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """where else the figures of log.jsonl go"""
    dry_run: bool = False
    """train nothing: check, predict time, memory and disk, and show some packed rows"""
    plan: Path | None = None
    """with --dry-run: write the steps to this file, a JSON object each"""
    ranks: int | None = None
    """with --dry-run: divide the plan's packs over so many processes; over those of torchrun when left out"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "pack_tokens", "packs_per_forward", "eval_steps", "ranks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OchatError(f"--{name.replace('_', '-')} is {value}. Give 1 or more.")
            if value is not None and value > MAX_COUNT:
                raise OchatError(f"--{name.replace('_', '-')} is {value}. Give {MAX_COUNT:,} or less.")
        if self.lr is not None and not 0 < self.lr < 1:
            raise OchatError(f"--lr is {self.lr}. Give a number between 0 and 1, such as 5e-4 or 1e-5.")
        for name in ("save_minutes", "weight_decay", "max_grad_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OchatError(f"--{name.replace('_', '-')} is {getattr(self, name)}. Give 0 or more.")
        for name in ("warmup", "lr_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise OchatError(f"--{name.replace('_', '-')} is {getattr(self, name)}. Give a share from 0 to 1.")
        if self.batch_tokens % self.tokens_per_pack:
            raise OchatError(
                f"--batch-tokens is {self.batch_tokens:,} and --pack-tokens {self.tokens_per_pack:,}. A step is whole packs: give a "
                f"multiple, such as --batch-tokens {max(1, self.batch_tokens // self.tokens_per_pack) * self.tokens_per_pack}."
            )
        if self.lora_rank < 0 or (self.lora_alpha is not None and self.lora_alpha < 1):
            raise OchatError(f"--lora-rank is {self.lora_rank} and --lora-alpha {self.lora_alpha}. Give 1 or more.")
        if not self.lora_rank and (self.lora_alpha is not None or self.quantize != "none"):
            raise OchatError("--lora-alpha and --quantize are for LoRA. Give --lora-rank too, such as 16.")
        if self.fsdp and (self.lora_rank or self.optimizer != "adamw"):
            raise OchatError("--fsdp goes with full fine-tuning by adamw. Leave --lora-rank and --optimizer out.")
        if not self.dry_run and (self.plan or self.ranks):
            raise OchatError("--plan and --ranks are for --dry-run. Give it too.")

    @property
    def tokens_per_pack(self) -> int:
        """--pack-tokens, or what stands for it."""
        return self.pack_tokens or self.batch_tokens
