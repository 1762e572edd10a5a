"""C-RLFT inside TRL: our packs, attention and weighted loss, TRL's loop, optimizer, logging and saving.

    python -m examples.trl MODEL DATASET OUTPUT

MODEL is a folder from `ochat model add-tokens`, DATASET one from `ochat data tokenize`. Run it as a module, as above: by its path,
Python would take this file for the package of its name. Tested with trl 1.16 on transformers 5.19 and 5.23."""

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from ochat.data.dataset import Dataset
from ochat.data.packing import pack, shuffled
from ochat.training import attention
from ochat.training.batch import Batch, dataset_batch
from ochat.training.loss import LossModel

PACK_TOKENS = 4096
# What TRL must leave as it is: rows that are tokenized and packed already, the column that it doesn't know, a pack a forward.
OURS = {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}, "per_device_train_batch_size": 1}


class WeightedTrainer(SFTTrainer):
    """Minimises Σ w · nll / the mean Σ w of a step. The mean is a constant of the run: with a step's own Σ w in its place, a step
    of cheap rows would count as much as one of expert rows. Its rows are packs, each a list of our data set's row numbers."""

    loss_is_scaled_for_ga = True  # a sum over a constant: else the Trainer may divide it by the number of accumulated forwards

    def __init__(self, model: Any, args: SFTConfig, dataset: Dataset, pack_tokens: int, **others: Any) -> None:
        packs = pack(dataset.lengths, shuffled(len(dataset), args.seed, 0), pack_tokens)
        packs_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        packs += [np.zeros(0, np.int64)] * (-len(packs) % packs_a_step)  # else ranks repeat packs to fill the last step
        self.mean_weight_sum = float(dataset.weight_sums.sum()) * packs_a_step / len(packs)

        def collate(examples: list[dict[str, list[int]]]) -> dict[str, Any]:
            rows = np.array([row for example in examples for row in example["rows"]], np.int64)
            return dict(vars(dataset_batch(dataset, rows)))

        super().__init__(model, args, collate, datasets.Dataset.from_dict({"rows": packs}), **others)
        # In place of the model's forward, not beside it, so that what TRL wraps around the model (autocast, DDP) still applies.
        # It passes row_lengths to our attention and never a cache or a mask: with those, packed rows would see each other.
        self.model.forward = LossModel(self.model).forward

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Σ w · nll of the batch over the constant; DDP takes the mean over ranks, so times their number."""
        total: torch.Tensor = model(Batch(**inputs)).total
        return total * self.accelerator.num_processes / self.mean_weight_sum


if __name__ == "__main__":
    model_folder, data_folder, output = sys.argv[1:]
    on_gpu = torch.cuda.is_available()
    trainer = WeightedTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention.NAME, dtype=torch.float32),
        SFTConfig(output, num_train_epochs=5, gradient_accumulation_steps=4, bf16=on_gpu, use_cpu=not on_gpu, **OURS),
        Dataset(Path(data_folder)),
        PACK_TOKENS,
        processing_class=AutoTokenizer.from_pretrained(model_folder),
    )
    trainer.train()
    trainer.save_model()
