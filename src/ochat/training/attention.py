"""Attention over a pack of rows that don't see each other, for any stock `transformers` decoder.

The decoder hands unknown keyword arguments through to its attention function, so the rows' lengths arrive here and no mask is
made. A mask of the whole pack would cost the square of its length; worse, stock attention given packed rows and a cache or an
all-ones mask attends across them without a word. Read from transformers 5.16 to 5.19: no mask function is registered for our
name, so `attention_mask` is None.

On CUDA in half precision torch's own variable-length flash attention computes all rows at once; elsewhere, and for what that
kernel can't do, a row is one call. What neither can do is refused: `ochat.training.model_check` looks for it before a run."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ochat.errors import ModelError

NAME = "ochat_packed"

# Keyword arguments of stock attention functions that change nothing here.
_HARMLESS = {"position_ids", "use_cache", "output_attentions", "output_router_logits", "cache_position", "past_key_values"}


def _find_varlen() -> tuple[Callable[..., Any], frozenset[str]] | None:
    """torch's variable-length attention and its parameters; None where it can't be told to be causal and scaled as asked.

    Its signature moved: `is_causal` at first, without a scale or a window; then `scale` and `window_size`, which is what makes it
    causal (exactly (-1, 0)); `enable_gqa` beside them in torch 2.13, where it is needed for fewer key-value heads."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = frozenset(inspect.signature(varlen_attn).parameters)
    return (varlen_attn, known) if {"scale", "window_size"} <= known and "is_causal" not in known else None


_VARLEN = _find_varlen()
_BLOCK, _MOST_IN_BLOCKS = 128, 1024  # tokens


class RowLengths:
    """The lengths of a pack's rows, opaque to torch.compile: of a list it would watch the length, and compile a layer again for
    each number of rows until it gives up (its limit is 8 times, torch 2.13)."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths


# Outside of compiled code: inside, the lengths would be constants of the graph, and each batch a new graph.
@torch.compiler.disable(reason="the rows' lengths change with each batch")  # type: ignore[untyped-decorator]  # torch's has no types
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
    softcap: float | None = None,
    is_causal: bool | None = None,
    row_lengths: RowLengths | list[int] | None = None,
    cu_seqlens: torch.Tensor | None = None,
    **others: Any,  # whatever the decoder passes on; anything that would change the result is refused
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row. query [1, heads, T, d], key and value [1, kv heads, T, d] -> [1, T, heads, d].

    A sliding window of W lets a token see itself and the W - 1 before it, as in transformers. `softcap` bounds the scores, as in
    Gemma 2. `cu_seqlens` [S + 1] int32 spares the kernels on CUDA a copy of the lengths to the device in every layer."""
    if row_lengths is None or attention_mask is not None:
        raise ValueError("packed attention needs row_lengths and no attention_mask: else rows would see each other")
    unknown = {name for name, given in others.items() if given is not None and name not in _HARMLESS}
    if dropout:
        unknown.add("attention dropout")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        unknown.add("attention to later tokens")
    if unknown:
        raise ModelError(
            f"The model's attention uses {', '.join(sorted(unknown))}, which training doesn't know yet. Choose another model."
        )
    if key.shape[2] != query.shape[2]:
        raise ValueError("packed attention knows no cache: call the model with use_cache=False")
    lengths = row_lengths.lengths if isinstance(row_lengths, RowLengths) else row_lengths
    longest = max(lengths)
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    if _fits_varlen(query, value, softcap):
        return _varlen(query, key, value, lengths, cu_seqlens, longest, window, scaling), None
    outputs = []
    for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True):
        row = _capped(q, k, v, window, scaling, softcap) if softcap is not None else _row(q, k, v, window, scaling)
        outputs.append(row.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def _fits_varlen(query: torch.Tensor, value: torch.Tensor, softcap: float | None) -> bool:
    """Whether torch's flash attention can do it: CUDA, half precision, no cap, and a head size that its kernels have."""
    size = query.shape[3]
    half = query.dtype in (torch.bfloat16, torch.float16)
    return (
        _VARLEN is not None and query.is_cuda and half and softcap is None and size == value.shape[3] <= 256 and size % 8 == 0
    )


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_lengths: list[int],
    cu_seqlens: torch.Tensor | None,
    longest: int,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """All rows in one kernel; shapes as of `packed_attention`."""
    assert _VARLEN is not None
    function, known = _VARLEN
    if cu_seqlens is None:
        cu_seqlens = torch.tensor([0, *row_lengths]).cumsum(0)
    cu_seqlens = cu_seqlens.to(query.device, torch.int32)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    return function(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)[None]


def _row(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, scaling: float | None) -> torch.Tensor:
    """One row through torch's fused attention. q [1, heads, n, d], k and v [1, kv heads, n, d] -> [1, heads, n, d]."""
    n = q.shape[2]
    if not q.is_cuda and q.dtype == torch.bfloat16 and n <= _MOST_IN_BLOCKS:
        return _in_blocks(q, k, v, window, scaling)
    mask = _visible(n, window, q.device) if window is not None and window < n else None
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True)


def _in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, scaling: float | None) -> torch.Tensor:
    """One row as plain products, a block of queries with the keys that it may see at a time. Shapes as of `_row`.

    On a CPU in bfloat16 it takes half the time of torch's fused kernel; the probabilities are kept for the backward pass, n² / 2
    a head, so long rows go the other way."""
    heads, n, size = q.shape[1:]
    groups = k.shape[1]
    q = q * (size**-0.5 if scaling is None else scaling)
    outputs = []
    for start in range(0, n, _BLOCK):
        end = min(n, start + _BLOCK)
        first = 0 if window is None else max(0, start - window + 1)
        # The query heads that share a key head as more queries of it.
        scores = q[:, :, start:end].reshape(1, groups, -1, size) @ k[:, :, first:end].transpose(2, 3)
        distance = torch.arange(start, end)[:, None] - torch.arange(first, end)
        hidden = (distance < 0) | (distance >= (n if window is None else window))
        by_head = scores.view(1, heads, end - start, end - first)
        p = by_head.masked_fill_(hidden, -torch.inf).softmax(-1).view_as(scores)
        outputs.append((p @ v[:, :, first:end]).view(1, heads, end - start, -1))
    return torch.cat(outputs, dim=2)


def _capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, scaling: float | None, softcap: float
) -> torch.Tensor:
    """One row whose scores s are softcap · tanh(s / softcap): no fused kernel of torch has that. Shapes as of `_row`."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    n = q.shape[2]
    visible = _visible(n, n if window is None else window, q.device)
    p = scores.masked_fill(~visible, -torch.inf).softmax(-1, dtype=torch.float32).to(q.dtype)
    return p @ v


def _visible(n: int, window: int, device: torch.device) -> torch.Tensor:
    """[n, n], True where a token may look: at itself and the window - 1 before it."""
    distance = torch.arange(n, device=device)[:, None] - torch.arange(n, device=device)
    return (distance >= 0) & (distance < window)


AttentionInterface.register(NAME, packed_attention)
