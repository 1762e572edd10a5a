"""Greedy replies of a model in this process: for experiments on many small models, where a server would take longer to start
than to answer.

The prompts come from the template that training and serving use, so the replies are those that the server gives at temperature
0, up to ties that rounding breaks."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ochat.conversation import Conversation
from ochat.template import ConversationTemplate

BATCH_TOKENS = 16_384  # of prompts and replies in a batch: bounds the memory of keys and values


def of_one_length(prompts: Sequence[Sequence[int]], room: int) -> Iterator[list[int]]:
    """The numbers of the prompts in batches of one length, so that none is padded; `room` is for tokens to come."""
    of_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        of_length[len(prompt)].append(number)
    for length, numbers in sorted(of_length.items()):
        per_batch = max(1, BATCH_TOKENS // (length + room))
        for start in range(0, len(numbers), per_batch):
            yield numbers[start : start + per_batch]


@torch.inference_mode()
def greedy_replies(
    model: PreTrainedModel, template: ConversationTemplate, rows: Sequence[Conversation], max_tokens: int
) -> list[str]:
    """The most probable reply to each conversation, of at most `max_tokens` tokens, the first blank removed.

    No prompt is padded, so a reply doesn't depend on what else is asked."""
    prompts = [template.prompt(row) for row in rows]
    replies = [""] * len(rows)
    end = template.end_of_turn
    with tqdm(total=len(rows), unit="reply", mininterval=1, disable=None) as bar:
        for asked in of_one_length(prompts, max_tokens):
            ids = torch.tensor([prompts[number] for number in asked], device=model.device)
            said = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_tokens,
                eos_token_id=end,
                pad_token_id=end,
            )
            for number, reply in zip(asked, said[:, ids.shape[1] :].tolist(), strict=True):
                until_end = reply[: reply.index(end)] if end in reply else reply
                replies[number] = template.tokenizer.decode(until_end).removeprefix(" ")
            bar.update(len(asked))
    return replies
