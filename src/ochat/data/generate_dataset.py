"""`python -m ochat.data.generate_dataset`: `ochat data tokenize` under the name and flags that the original gave it.

What it writes is our data-set folder. The original's parquet for its own trainer is made of that by `ochat data export --format ochat`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from ochat.data import tokenize
from ochat.errors import OchatError


@dataclass(frozen=True)
class Options:
    model_type: str
    """model type, such as openchat_v3.2_mistral"""
    model_path: str
    """folder or hub id of the model whose tokenizer is used"""
    in_files: tuple[Path, ...]
    """conversations, one JSON object a line (.gz too)"""
    out_prefix: Path
    """data-set folder to write"""
    per_sequence_loss: bool = False
    """divide each message's weight by its tokens"""
    eval_ratio: float = 0.005
    """share of prompts that is held out; the original held out single rows"""
    seed: int | None = None
    """refused, since nothing here is left to chance"""

    def __post_init__(self) -> None:
        if self.seed is not None:
            raise OchatError(
                "--seed: rows keep their order here, and their prompts decide which are held out. Leave it out; "
                "`ochat train run --seed` shuffles."
            )


def main(options: Options) -> None:
    tokenize.main(
        tokenize.Options(
            options.in_files,
            options.model_path,
            options.out_prefix,
            model_type=options.model_type,
            heldout=options.eval_ratio,
            per_message_loss=options.per_sequence_loss,
        )
    )


if __name__ == "__main__":
    from ochat.cli import Command, run_command

    run_command(
        "python -m ochat.data.generate_dataset",
        Command("ochat.data.generate_dataset", "conversations -> a data set"),
        sys.argv[1:],
    )
