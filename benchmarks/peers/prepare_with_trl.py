"""TRL's preparation of a data set, as SFTTrainer does it before it trains: run by ../tokenizing.py in TRL's environment.

    python prepare_with_trl.py ROWS.jsonl TOKENIZER_FOLDER CORES CHAT_TEMPLATE OUT.json

The model is one of a few hundred weights: the trainer wants one."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":
    rows, folder, cores, template, out = sys.argv[1:]
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(folder) / "tokenizer.json"), eos_token="<|end_of_turn|>", pad_token="<|end_of_turn|>"
    )
    tokenizer.chat_template = Path(template).read_text()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, head_dim=4
    )
    began = time.monotonic()
    trainer = SFTTrainer(
        model=LlamaForCausalLM(config),
        processing_class=tokenizer,
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        args=SFTConfig(
            output_dir=str(Path(out).parent / "run"),
            dataset_num_proc=int(cores),
            max_length=8192,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
        ),
    )
    seconds = time.monotonic() - began
    made = trainer.train_dataset
    n_tokens = sum(len(ids) for batch in made.iter(1000) for ids in batch["input_ids"])
    n_bytes = sum(Path(part["filename"]).stat().st_size for part in made.cache_files)
    found = {"rows": len(made), "tokens": n_tokens, "bytes": n_bytes, "seconds": seconds, "version": f"trl {version('trl')}"}
    Path(out).write_text(json.dumps(found))
