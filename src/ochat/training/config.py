"""The options of a training run, and the names of the files in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ochat.errors import OchatError

CONFIG_FILE, LOG_FILE, STATE_FILE, FINAL_FOLDER = "config.json", "log.jsonl", "state.safetensors", "final"


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
    """tokens an optimizer step, at most (a longer row is a step of its own)"""
    pack_tokens: int | None = None
    """tokens a forward, at most, to save memory; --batch-tokens when left out"""
    seed: int = 0
    """seed of the order of rows"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """what the model computes in; the weights that are trained are float32"""
    save_minutes: float = 2.0
    """minutes between saved states, from which an interrupted run goes on"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "pack_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OchatError(f"--{name.replace('_', '-')} is {value}. Give 1 or more.")
        if self.lr is not None and not 0 < self.lr < 1:
            raise OchatError(f"--lr is {self.lr}. Give a number between 0 and 1, such as 5e-4 or 1e-5.")
        if not 0 <= self.save_minutes < float("inf"):
            raise OchatError(f"--save-minutes is {self.save_minutes}. Give 0 (after each step) or more.")
