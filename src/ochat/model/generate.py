"""Greedy replies of a model in this process: for experiments on many small models, where a server would take longer to start
than to answer.

The prompts come from the template that training and serving use, so the replies are those that the server gives at temperature
0, up to ties that rounding breaks."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ochat.conversation import Conversation
from ochat.template import ConversationTemplate

BATCH_TOKENS = 16_384  # of prompts and replies in a batch: bounds the memory of keys and values


@torch.inference_mode()
def greedy_replies(
    model: PreTrainedModel, template: ConversationTemplate, rows: Sequence[Conversation], max_tokens: int, what: str = ""
) -> list[str]:
    """The most probable reply to each conversation, of at most `max_tokens` tokens, the first blank removed.

    Prompts of one length go together, so none is padded and a reply doesn't depend on who else is asked."""
    prompts = [template.prompt(row) for row in rows]
    of_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        of_length[len(prompt)].append(number)
    replies = [""] * len(rows)
    end = template.end_of_turn
    with tqdm(total=len(rows), unit="reply", desc=what or None, mininterval=1, disable=None) as bar:
        for length, numbers in sorted(of_length.items()):
            per_batch = max(1, BATCH_TOKENS // (length + max_tokens))
            for start in range(0, len(numbers), per_batch):
                asked = numbers[start : start + per_batch]
                ids = torch.tensor([prompts[number] for number in asked], device=model.device)
                said = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=max_tokens,
                    eos_token_id=end,
                    pad_token_id=end,
                )
                for number, reply in zip(asked, said[:, length:].tolist(), strict=True):
                    until_end = reply[: reply.index(end)] if end in reply else reply
                    replies[number] = template.tokenizer.decode(until_end).removeprefix(" ")
                bar.update(len(asked))
    return replies
