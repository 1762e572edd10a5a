"""TRL's SFTTrainer for one optimizer step over all rows of a case. Tokenized rows; weights aren't offered (huggingface/trl#5761)."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from gradients import run_cases
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer


def run(case: dict[str, Any]) -> None:
    """One case."""
    rows = [json.loads(line) for line in Path(case["rows"]).read_text().splitlines()]
    packing = {"block": "bfd", "joined": "wrapped"}.get(case["packing"])

    trainer = SFTTrainer(
        model=case["model"],
        processing_class=AutoTokenizer.from_pretrained(case["model"]),
        train_dataset=Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]),
        args=SFTConfig(
            output_dir=str(Path(case["out"]).parent / "run"),
            model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
            per_device_train_batch_size=case["batch"],
            gradient_accumulation_steps=case["accumulation"],
            max_length=case["max_tokens"],
            **({"packing": True, "packing_strategy": packing} if packing else {}),
            max_steps=case["steps"],
            learning_rate=case["lr"],
            weight_decay=0.0,
            max_grad_norm=0.0,
            bf16=False,
            use_cpu=True,
            ddp_backend="gloo" if case["ranks"] > 1 else None,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
    )
    trainer.train()


if __name__ == "__main__":
    run_cases(run)
