"""LLaMA-Factory's trainer (`llamafactory-cli train`, its v0 code) for one optimizer step over all rows of a case.

Rows are handed over as messages under its template `chatml`. `neat_packing` keeps rows apart, `packing` alone joins them.
Per-row weights aren't offered here; its v1 code has them."""

import importlib.util
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from gradients import run_cases

# It imports torchaudio at its start, for sound only, and PyPI's torchaudio loads with a CUDA build of torch only.
if importlib.util.find_spec("torchaudio") is None:
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.train.tuner import run_exp


def run(case: dict[str, Any]) -> None:
    """One case."""
    folder = Path(case["rows"]).parent
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages"}
    described = {"rows": {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}}
    (folder / "dataset_info.json").write_text(json.dumps(described))

    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "model_name_or_path": case["model"],
            "dataset": "rows",
            "dataset_dir": str(folder),
            "template": "chatml",
            "cutoff_len": case["max_tokens"],
            "per_device_train_batch_size": case["batch"],
            "gradient_accumulation_steps": case["accumulation"],
            "packing": case["packing"] != "none",
            "neat_packing": case["packing"] == "block",
            "flash_attn": "sdpa",
            "output_dir": str(Path(case["out"]).parent / "run"),
            "max_steps": case["steps"],
            "learning_rate": case["lr"],
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
            "bf16": False,
            "use_cpu": True,
            "disable_gradient_checkpointing": True,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            **({"ddp_backend": "gloo"} if case["ranks"] > 1 else {}),
        }
    )


if __name__ == "__main__":
    run_cases(run)
