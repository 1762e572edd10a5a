"""Random decoders of two or three layers in many architectures, and the plain, slow formula of the loss to compare with."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from ochat.training import attention

VOCABULARY = 50
# Weights large enough that scores differ, and a wrong mask shows.
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.3}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
SHAPE |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_ROPE |= {"original_max_position_embeddings": 16}
SLIDING = ["sliding_attention", "full_attention"]

# Windows are shorter than the rows, and caps low enough to bite.
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "llama-3-rope": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
    "mistral-window": MistralConfig(**SHAPE, sliding_window=4),
    "gemma-2": Gemma2Config(
        **SHAPE, sliding_window=4, layer_types=SLIDING, attn_logit_softcapping=1.5, final_logit_softcapping=2.0
    ),
    "gemma-3": Gemma3TextConfig(**SHAPE, sliding_window=4, layer_types=SLIDING),
    "phi-3-window": Phi3Config(**SHAPE, sliding_window=4),
    "qwen-2": Qwen2Config(**SHAPE),
    "qwen-2-window": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen-3": Qwen3Config(**SHAPE),
    "qwen-3-moe": Qwen3MoeConfig(**SHAPE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
}

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # input_ids, run_lengths, run_weights


def random_rows(lengths: Sequence[int], seed: int = 0) -> list[Row]:
    """Rows of random tokens, each token with a weight of its own in (0, 1], but one in four of 0."""
    generator = np.random.default_rng(seed)
    rows = []
    for n in lengths:
        weights = np.where(generator.random(n) < 0.25, 0.0, 1.0 - generator.random(n)).astype(np.float32)
        rows.append((generator.integers(VOCABULARY, size=n).astype(np.int32), np.ones(n, np.int32), weights))
    return rows


def decoder(config: PreTrainedConfig, attn_implementation: str = "eager", seed: int = 0) -> PreTrainedModel:
    """A random model. Its config is a copy: one that is shared would change another model's attention too."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=attn_implementation)


def with_our_attention(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model, with the attention that keeps rows apart."""
    other = decoder(model.config, attention.NAME)
    other.load_state_dict(model.state_dict())
    return other.to(model.dtype)


def plain_loss(model: PreTrainedModel, rows: Sequence[Row]) -> torch.Tensor:
    """Σ w · nll with each row alone through the stock model and all its logits."""
    total = torch.zeros(())
    for ids, run_lengths, run_weights in rows:
        weights = np.repeat(run_weights, run_lengths)
        log_p = model(input_ids=torch.tensor(ids[None]).long(), use_cache=False).logits[0].log_softmax(-1)
        for t in range(1, len(ids)):
            total = total - float(weights[t]) * log_p[t - 1, int(ids[t])]
    return total


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The loss's gradient by parameter, of those that are trained."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}


def gradient_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference, as a share of the largest gradient."""
    largest = max(float(g.abs().max()) for g in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest
