"""Attention over a pack of rows that don't see each other, for any stock `transformers` decoder.

The decoder hands unknown keyword arguments through to its attention function, so the rows' lengths arrive here and no mask is
made. A mask of the whole pack would cost the square of its length; worse, stock attention given packed rows and a cache or an
all-ones mask attends across them without a word. Read from transformers 5.16 to 5.19: no mask function is registered for our
name, so `attention_mask` is None."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ochat.errors import ModelError

NAME = "ochat_packed"

# Keyword arguments of stock attention functions that change nothing here.
_HARMLESS = {"position_ids", "use_cache", "is_causal", "output_attentions", "cache_position", "past_key_values"}


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    row_lengths: list[int] | None = None,
    **others: Any,  # whatever the decoder passes on; anything that would change the result is refused
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row. query [1, heads, T, d], key and value [1, kv heads, T, d] -> [1, T, heads, d].

    A sliding window of W lets a token see itself and the W - 1 before it, as in transformers."""
    if row_lengths is None or attention_mask is not None:
        raise ValueError("packed attention needs row_lengths and no attention_mask: else rows would see each other")
    unknown = {name for name, given in others.items() if given is not None and name not in _HARMLESS}
    if unknown or dropout:
        what = ", ".join(sorted(unknown)) or "attention dropout"
        raise ModelError(f"The model's attention uses {what}, which training doesn't know yet. Choose another model.")
    outputs = []
    for q, k, v in zip(*(x.split(row_lengths, dim=2) for x in (query, key, value)), strict=True):
        mask = _window_mask(q.shape[2], sliding_window, q.device)
        outputs.append(
            scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True)
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _window_mask(n: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """[n, n], True where a token may look; None where the window reaches over the whole row."""
    if window is None or window >= n:
        return None
    distance = torch.arange(n, device=device)[:, None] - torch.arange(n, device=device)
    return (distance >= 0) & (distance < window)


AttentionInterface.register(NAME, packed_attention)
