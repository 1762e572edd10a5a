"""Whether a model can be trained on packed rows at all, found by trying it before a run.

Decoders differ where their configurations don't say so: state that is carried from a row to the next, positions that depend on the
longest row, scores or logits that are changed by something our attention or our head never sees. Each would be trained wrong without
a word. A list of good architectures would be out of date tomorrow, so we compare the model with itself: packed rows in the trainer's
attention, against each row alone in the stock one. What so short a run can't show, being about long rows, is read from the
configuration. A model is left as it was found."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from ochat.errors import ModelError
from ochat.training.attention import RowLengths, packed_attention
from ochat.training.loss import head_logits, model_parts

# How far apart a token's logits may be, as a share of their spread. What is looked for is farther: hybrids of two random layers leak 60
# to 150 %, and a real model in the wrong positions or with a head unknown to us is another model.
# - of a row alone and packed: two kernels round differently, and depth multiplies it. The embedded base model (30 layers, random
#   tokens) measures 3 % in bfloat16, 2e-6 in float32.
_APART = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
# - of a row behind one and behind another: the same kernels at the same shapes, so nothing but a router of experts may feel it.
_LEAK = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}
_ROW = 24  # tokens of the rows that are tried
_WINDOW = 128  # rows reach over sliding windows up to this
_WATCHED = "ochat_packed_watched"
_REMEDY = "Choose another model: decoders of the Llama, Mistral, Qwen, Gemma or Phi families can be trained."


def check_model(model: PreTrainedModel, max_tokens: int | None = None) -> None:
    """Raise ModelError where rows of up to `max_tokens` tokens, packed, wouldn't give the model's own logits of each row alone.

    `model` is a stock model or peft's wrapper around one, in any dtype, on any device, not yet wrapped, sharded or compiled. It takes
    five forwards of some fifty tokens."""
    model_parts(model)  # refuses a head that the loss doesn't know
    stock = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(stock).__name__
    _check_positions(name, stock.config.get_text_config(), max_tokens)
    try:
        with _as_found(stock), torch.no_grad():
            _compare(name, stock, max_tokens)
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a stock model may fail on our arguments in any way
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{name} can't be run on packed rows ({cause}). {_REMEDY}") from error


def check_draws_nothing(model: PreTrainedModel) -> None:
    """Raise ModelError where a forward in training mode depends on the random state: another split of a step's packs would draw
    otherwise, and so would a resumed run. `model` uses the trainer's attention, its dropout is off."""
    with _as_found(model), torch.no_grad():
        model.train()
        ids = torch.arange(_ROW, device=model.device) + 4
        dtype = max({p.dtype for p in model.parameters()} & _LEAK.keys(), key=lambda dtype: _LEAK[dtype])
        drawn = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            drawn.append(_packed_logits(model, [ids]))
    if not float(_difference(*drawn).max()) <= _LEAK[dtype]:
        raise ModelError(
            f"{type(model).__name__} draws random numbers while it trains, beside the dropout that the trainer turns off, so a run "
            f"could not be repeated. {_REMEDY}"
        )


def _check_positions(name: str, config: PreTrainedConfig, max_tokens: int | None) -> None:
    """Refuse what would only show in rows longer than those we try."""
    if "chunked_attention" in (getattr(config, "layer_types", None) or []):
        raise ModelError(f"{name} attends within chunks of a row, which the trainer's attention doesn't know. {_REMEDY}")
    found = getattr(config, "rope_parameters", None) or {}
    for rope in [found, *(value for value in found.values() if isinstance(value, dict))]:
        kind = rope.get("rope_type", "default")
        if kind not in ("dynamic", "longrope"):
            continue
        limit = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        limit = limit or config.max_position_embeddings
        if max_tokens is not None and max_tokens > limit:
            raise ModelError(
                f"{name} has '{kind}' rotary positions, which turn all rows of a pack differently once one is longer than {limit:,} "
                f"tokens; rows here may have {max_tokens:,}. Tokenize with --max-tokens {limit}, or choose another model."
            )
    context = getattr(config, "max_position_embeddings", None)
    if max_tokens is not None and isinstance(context, int) and max_tokens > context:
        raise ModelError(
            f"{name} takes rows of up to {context:,} tokens, and the data has one of {max_tokens:,}. Run `ochat data tokenize` again with "
            f"--max-tokens {context}."
        )


def _compare(name: str, model: PreTrainedModel, max_tokens: int | None) -> None:
    config = model.config.get_text_config()
    dtype = max({p.dtype for p in model.parameters()} & _APART.keys(), key=lambda dtype: _APART[dtype])
    if dtype == torch.float32 and model.device.type == "cuda":
        dtype = torch.float16  # its digits are those of TF32, which products may be in
    window = getattr(config, "sliding_window", None)
    n = _ROW + (window if isinstance(window, int) and window <= _WINDOW else 0)
    generator = torch.Generator().manual_seed(0)
    windows: list[int | None] = []  # of each call of our attention

    def row(tokens: int) -> torch.Tensor:  # from the middle: the first and last ids often mean something
        return torch.randint(config.vocab_size // 4, config.vocab_size * 3 // 4, (tokens,), generator=generator).to(
            model.device
        )

    def watched(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        windows.append(kwargs.get("sliding_window"))
        return packed_attention(*args, **kwargs)

    AttentionInterface.register(_WATCHED, watched)
    first, second = row(n), row(n + 3)
    with _attention(model, _WATCHED):
        packed = _packed_logits(model, [first, second])
        if not windows:
            raise ModelError(
                f"{name} doesn't use the attention functions of transformers, where the trainer keeps rows apart. {_REMEDY}"
            )
        _check_windows(name, model, windows, max_tokens)
        # Twice: in half precision a router of experts may once choose otherwise by rounding alone.
        leaks = [float(_difference(_packed_logits(model, [row(n), second])[n:], packed[n:]).max()) for _ in range(2)]
    if not min(leaks) <= _LEAK[dtype]:
        raise ModelError(
            f"{name} carries something from a row of a pack to the next, as recurrent and convolutional layers do: other tokens in a "
            f"row changed the next row's logits by {min(leaks):.1%}. {_REMEDY}"
        )
    with _attention(model, "eager"):
        alone = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in (first, second)])
    apart = float(_difference(packed, alone).median())
    if not apart <= _APART[dtype]:
        raise ModelError(
            f"{name} gives other logits by itself than in the trainer, {apart:.1%} apart: its attention, positions or head do something "
            f"that the trainer doesn't know. {_REMEDY}"
        )


def _check_windows(name: str, model: PreTrainedModel, windows: list[int | None], max_tokens: int | None) -> None:
    """Refuse a model that makes a sliding window by a mask alone, which our attention doesn't get."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or getattr(config, "use_sliding_window", True) is False:
        return
    if not hasattr(sys.modules[type(model).__module__], "create_sliding_window_causal_mask"):
        return  # the number is in the configuration, and nothing reads it
    expected = (getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers).count(
        "sliding_attention"
    )
    if windows.count(window) < expected and (max_tokens is None or max_tokens > window):
        raise ModelError(
            f"{name} has a sliding window of {window:,} tokens that doesn't reach the trainer's attention, so that longer rows would be "
            f"trained wrong. {_REMEDY}"
        )


def _packed_logits(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """The logits as the trainer makes them. rows [n] each -> [T, V], float32."""
    decoder, head = model_parts(model)
    lengths = [len(ids) for ids in rows]
    hidden = decoder(
        input_ids=torch.cat(rows)[None],
        position_ids=torch.cat([torch.arange(n, device=model.device) for n in lengths])[None],
        row_lengths=RowLengths(lengths),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(model.device, torch.int32),
        use_cache=False,
    ).last_hidden_state[0]
    return head_logits(hidden, head.module.weight, head.module.bias, head.softcap, head.scale)


def _difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far apart two tokens' logits are, as a share of their spread: a number added to all changes nothing. a, b [T, V] -> [T]."""
    apart, spread = ((x - x.mean(-1, keepdim=True)).norm(dim=-1) for x in (a - b, b))
    return apart / spread.clamp_min(1e-30)


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model with another attention. Written to the configurations themselves, since set_attn_implementation turns some names
    into others, and one configuration may be shared by many modules (transformers 5.16 to 5.19)."""
    configs: dict[int, PreTrainedConfig] = {}
    for module in model.modules():
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
            for one in (config, *(getattr(config, key, None) for key in config.sub_configs)):
                if one is not None:
                    configs[id(one)] = one
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]


@contextmanager
def _as_found(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module's mode and the random state are what they were."""
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
