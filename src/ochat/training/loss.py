"""The objective of C-RLFT: reward-weighted regression, maximise Σ w_c · log π(y | x, c) (arXiv 2309.11235, equation 6).

The condition c stands in the prompt; the class's weight w_c is here. The sum is divided by a constant of the run, never by the
batch's own weights: that would give a small batch of cheap rows the say of a full one."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from ochat.training.batch import Batch


def weighted_nll_sum(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ w · nll. logits [L, V], labels [L], weights [L] -> scalar, float32."""
    return (weights * cross_entropy(logits.float(), labels, reduction="none")).sum()


def batch_loss_sum(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Σ w · nll of a batch's rows. Only tokens that are learned from are projected to the vocabulary."""
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        row_lengths=batch.row_lengths,
        use_cache=False,
        logits_to_keep=batch.learned,
    ).logits[0]
    return weighted_nll_sum(logits, batch.labels, batch.weights)
