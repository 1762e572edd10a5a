"""axolotl's `axolotl train` for one optimizer step over all rows of a case. Tokenized rows; its message `weight` is 0 or 1 only."""

import json
from pathlib import Path
from typing import Any

import yaml
from gradients import run_cases


def run(case: dict[str, Any]) -> None:
    """One case."""
    from axolotl.cli.train import do_cli

    folder = Path(case["rows"]).parent
    with (folder / "tokens.jsonl").open("w") as file:
        for row in map(json.loads, Path(case["rows"]).read_text().splitlines()):
            mask = [1] * len(row["input_ids"])
            file.write(json.dumps({"input_ids": row["input_ids"], "attention_mask": mask, "labels": row["labels"]}) + "\n")
    config = {
        "base_model": case["model"],
        "datasets": [{"path": str(folder / "tokens.jsonl"), "ds_type": "json", "type": None}],
        "dataset_num_proc": 1,
        "dataset_prepared_path": str(folder / "prepared"),
        "sequence_len": case["max_tokens"],
        "sample_packing": case["packing"] != "none",
        "attn_implementation": "sdpa",
        "micro_batch_size": case["batch"],
        "gradient_accumulation_steps": case["accumulation"],
        "max_steps": case["steps"],
        "num_epochs": 1,
        "optimizer": "adamw_torch",
        "learning_rate": case["lr"],
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "gradient_checkpointing": False,
        "output_dir": str(Path(case["out"]).parent / "run"),
        "save_strategy": "no",
    }
    path = folder / "axolotl.yaml"
    path.write_text(yaml.safe_dump(config))
    do_cli(str(path))


if __name__ == "__main__":
    import axolotl.train  # noqa: F401 # before the fork; not where its worker processes read this file

    run_cases(run)
