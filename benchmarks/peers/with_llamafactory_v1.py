"""LLaMA-Factory's v1 trainer (`USE_V1=1 llamafactory-cli sft`) for one optimizer step over all rows of a case.

A message's weight is its field `loss_weight`; the message's header is learned with it."""

import json
from pathlib import Path
from typing import Any

from gradients import run_cases
from llamafactory.v1.trainers.sft_trainer import run_sft


def run(case: dict[str, Any]) -> None:
    """One case."""
    data = Path(case["rows"]).with_name("messages.jsonl")
    with data.open("w") as file:
        for row in map(json.loads, Path(case["rows"]).read_text().splitlines()):
            messages = [
                {
                    "role": message["role"],
                    "content": [{"type": "text", "value": message["content"]}],
                    "loss_weight": row["weight"] if message["role"] == "assistant" else 0.0,
                }
                for message in row["messages"]
            ]
            file.write(json.dumps({"messages": messages}) + "\n")

    run_sft(
        {
            "model": case["model"],
            "template": "chatml",
            "train_dataset": str(data),
            "cutoff_len": case["max_tokens"],
            "micro_batch_size": case["batch"],
            "global_batch_size": case["batch"] * case["accumulation"] * case["ranks"],
            "batching_strategy": {"none": "normal", "block": "padding_free", "joined": "dynamic_padding_free"}[case["packing"]],
            "batching_workers": 0,
            "output_dir": str(Path(case["out"]).parent / "run"),
            "max_steps": case["steps"],
            "learning_rate": case["lr"],
            "max_grad_norm": 1e9,
            "bf16": False,
            "enable_activation_checkpointing": False,
        }
    )


if __name__ == "__main__":
    run_cases(run)
