"""ms-swift's `swift sft` for one optimizer step over all rows of a case.

Rows are handed over as messages under its template `chatml`. A reply's weight is its field `loss_scale`, which is only read as
a number with `--is_binary_loss_scale false`."""

import json
from pathlib import Path
from typing import Any

from gradients import run_cases
from swift import sft_main


def run(case: dict[str, Any]) -> None:
    """One case."""
    data = Path(case["rows"]).with_name("messages.jsonl")
    weighted = case["weights"] != "none"
    with data.open("w") as file:
        for row in map(json.loads, Path(case["rows"]).read_text().splitlines()):
            for message in row["messages"]:
                if weighted and message["role"] == "assistant":
                    message["loss_scale"] = row["weight"]
            file.write(json.dumps({"messages": row["messages"]}) + "\n")

    flags = {
        "model": case["model"],
        "model_type": "llama",
        "template": "chatml",
        "dataset": str(data),
        "split_dataset_ratio": 0,
        "tuner_type": "full",
        "torch_dtype": "float32",
        "attn_impl": "sdpa",
        "max_length": case["max_tokens"],
        "per_device_train_batch_size": case["batch"],
        "gradient_accumulation_steps": case["accumulation"],
        "packing": case["packing"] != "none",
        "output_dir": str(Path(case["out"]).parent / "run"),
        "max_steps": case["steps"],
        "learning_rate": case["lr"],
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "save_strategy": "no",
        "report_to": "none",
        **({"is_binary_loss_scale": False} if weighted else {}),
        **({"ddp_backend": "gloo"} if case["ranks"] > 1 else {}),
    }
    sft_main(
        [
            part
            for name, value in flags.items()
            for part in (f"--{name}", str(value).lower() if value in (True, False) else str(value))
        ]
    )


if __name__ == "__main__":
    run_cases(run)
