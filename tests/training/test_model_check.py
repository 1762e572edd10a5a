"""The check before a run: it passes what packed rows can train, refuses the rest with a reason, and leaves the model alone."""

import copy

import pytest
import torch
from decoders import CONFIGS, SHAPE, decoder
from peft import LoraConfig, get_peft_model
from transformers import (
    BloomConfig,
    CohereConfig,
    DeepseekV3Config,
    FalconH1Config,
    GptOssConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    MptConfig,
    Phi3Config,
    PreTrainedConfig,
    RecurrentGemmaConfig,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from ochat.errors import ModelError
from ochat.training import attention, model_check
from ochat.training.model_check import check_draws_nothing, check_model

MLA = {name: value for name, value in SHAPE.items() if name != "head_dim"} | {"num_key_value_heads": 4}
MLA |= {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
MLA |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1}
GOOD = CONFIGS | {
    "cohere-logit-scale": CohereConfig(**SHAPE, logit_scale=0.25),
    "granite-logits-scaling": GraniteConfig(**SHAPE, logits_scaling=4.0),
    "deepseek-3-value-heads-of-another-size": DeepseekV3Config(**MLA, first_k_dense_replace=1),
    "a-window-that-nothing-reads": LlamaConfig(**SHAPE, sliding_window=4),
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}
REFUSED: dict[str, tuple[PreTrainedConfig, str]] = {
    "mamba-2": (
        Mamba2Config(**SMALL, head_dim=8, num_heads=8, state_size=8, n_groups=1),
        "doesn't use the attention functions",
    ),
    "bloom": (BloomConfig(**SMALL, n_head=4), "doesn't use the attention functions"),
    "falcon-h1": (FalconH1Config(**SHAPE, mamba_d_ssm=32, **MAMBA), "from a row of a pack to the next"),
    "jamba": (
        JambaConfig(**SHAPE, use_mamba_kernels=False, num_experts=2, attn_layer_period=2, attn_layer_offset=1),
        "from a row of a pack to the next",
    ),
    "lfm-2-convolutions": (Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]), "from a row of a pack to the next"),
    "gpt-oss-sinks": (GptOssConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=4), "s_aux"),
    "llama-4-chunks": (Llama4TextConfig(**SHAPE, num_local_experts=2, attention_chunk_size=8), "chunks"),
    "recurrent-gemma": (
        RecurrentGemmaConfig(**SHAPE | {"num_hidden_layers": 3}, lru_width=32, attention_window_size=8),
        "sliding window of 8 tokens",
    ),
    "mpt-alibi": (MptConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4), "can't be run on packed rows"),
}
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GOOD)
def test_models_that_packed_rows_can_train_pass(name: str, dtype: torch.dtype) -> None:
    check_model(decoder(GOOD[name], attention.NAME).to(dtype), max_tokens=2048)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of some models' own
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", REFUSED)
def test_models_that_packed_rows_would_train_wrong_are_refused_with_the_reason(name: str, dtype: torch.dtype) -> None:
    config, reason = REFUSED[name]
    with pytest.raises(ModelError, match=reason) as caught:
        check_model(decoder(config, attention.NAME).to(dtype))
    assert "Choose another model" in str(caught.value)
    assert "\n" not in str(caught.value)


class WarmedLlama(LlamaForCausalLM):
    """A model of someone else's, whose own code makes its logits warmer."""

    def forward(self, *args: object, **kwargs: object) -> CausalLMOutputWithPast:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 1.5
        return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_scale_of_the_logits_that_the_loss_does_not_know_is_refused(dtype: torch.dtype) -> None:
    config = copy.deepcopy(CONFIGS["llama"])
    config._attn_implementation = attention.NAME
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"other logits by itself than in the trainer, 33\.\d% apart"):
        check_model(WarmedLlama(config).to(dtype))


@pytest.mark.parametrize(
    ("model", "planted"),
    [("mistral-window", {"sliding_window": 5}), ("llama", {"sliding_window": 12}), ("llama", {"scaling": 0.6})],
)
def test_attention_that_is_not_the_models_own_is_seen(
    model: str, planted: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in DTYPES:
        found = decoder(CONFIGS[model], attention.NAME).to(dtype)
        with monkeypatch.context() as patch:
            wrong = attention.packed_attention
            patch.setattr(model_check, "packed_attention", lambda *a, **k: wrong(*a, **k | planted))  # noqa: B023
            with pytest.raises(ModelError, match="other logits by itself"):
                check_model(found)


LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    "config",
    [
        Phi3Config(
            **SHAPE,
            max_position_embeddings=4096,
            original_max_position_embeddings=1024,
            rope_parameters=LONG_ROPE | {"original_max_position_embeddings": 1024},
        ),
        LlamaConfig(
            **SHAPE, max_position_embeddings=1024, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        ),
    ],
    ids=["longrope", "dynamic"],
)
def test_positions_that_depend_on_the_longest_row_are_refused_for_rows_that_long(config: PreTrainedConfig) -> None:
    model = decoder(config, attention.NAME)
    check_model(model, max_tokens=1024)
    with pytest.raises(ModelError, match=r"longer than 1,024 tokens.*--max-tokens 1024"):
        check_model(model, max_tokens=1025)


def test_a_window_longer_than_every_row_need_not_reach_the_attention() -> None:
    config, _ = REFUSED["recurrent-gemma"]
    with pytest.raises(ModelError, match="from a row of a pack to the next"):  # what else is wrong with it
        check_model(decoder(config, attention.NAME), max_tokens=8)


@pytest.mark.parametrize("name", ["gemma-2", "falcon-h1"])  # one that passes, one that doesn't
def test_the_model_is_left_as_it_was(name: str) -> None:
    config = CONFIGS.get(name) or REFUSED[name][0]
    model = decoder(config, attention.NAME)
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    try:
        check_model(model)
    except ModelError:
        assert name == "falcon-h1"
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == model.model.config._attn_implementation == attention.NAME
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_a_model_with_adapters_is_checked_with_them() -> None:
    lora = LoraConfig(target_modules="all-linear", r=4, lora_dropout=0.5, init_lora_weights=False)
    model = get_peft_model(decoder(CONFIGS["llama"], attention.NAME), lora).train()
    check_model(model)
    assert model.training


def test_a_model_that_draws_random_numbers_in_training_is_refused() -> None:
    config = LlamaConfig(**SHAPE)
    model = decoder(config, attention.NAME)
    check_draws_nothing(model)
    mlp = model.model.layers[0].mlp
    mlp.register_forward_hook(lambda module, _, out: out + module.training * torch.rand_like(out))
    with pytest.raises(ModelError, match="draws random numbers"):
        check_draws_nothing(model)
