"""What a model makes of given conversations: how probable it finds the answers, and where it puts the prompts.

The first compares conditions without sampling; the second draws what a condition does inside the model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from ochat.conversation import Conversation
from ochat.model.generate import of_one_length
from ochat.template import ConversationTemplate
from ochat.training.batch import make_batch
from ochat.training.loss import LossModel

BATCH_TOKENS = 4096


@torch.inference_mode()
def answer_losses(
    model: PreTrainedModel, template: ConversationTemplate, rows: Sequence[Conversation]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The summed −ln p of each row's learned tokens, and how many there are: [n] nats and [n].

    What is learned is what a message's weight says; the weight itself doesn't count. The model must have been loaded with the
    attention of training, `ochat.training.attention.NAME`."""
    losses = LossModel(model, "chunked").eval()
    encoded = [template.tokens_and_weights(row) for row in rows]
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    start = 0
    while start < len(rows):
        stop, n_tokens = start, 0
        while stop < len(rows) and (stop == start or n_tokens + len(encoded[stop][0]) <= BATCH_TOKENS):
            n_tokens += len(encoded[stop][0])
            stop += 1
        part = [(np.asarray(ids), np.ones(len(ids), np.int32), np.asarray(w) > 0) for ids, w in encoded[start:stop]]
        batch = make_batch(part, range(start, stop)).to(model.device)
        found = losses(batch)
        np.add.at(sums, batch.classes.cpu().numpy(), found.nll.double().cpu().numpy())
        np.add.at(counts, batch.classes.cpu().numpy(), 1)
        start = stop
    return sums, counts


@torch.inference_mode()
def last_hidden_states(
    model: PreTrainedModel, template: ConversationTemplate, rows: Sequence[Conversation]
) -> npt.NDArray[np.float32]:
    """The last layer's state at each prompt's last token, from which the reply's first token is predicted: [n, hidden size]."""
    decoder = model.get_decoder()
    prompts = [template.prompt(row) for row in rows]
    states = np.empty((len(rows), model.config.hidden_size), np.float32)
    for numbers in of_one_length(prompts, 0):
        ids = torch.tensor([prompts[number] for number in numbers], device=model.device)
        states[numbers] = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, -1].float().cpu().numpy()
    return states
