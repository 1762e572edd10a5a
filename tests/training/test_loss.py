"""The loss of packed rows against the plain formula, row by row, on stock models."""

import copy
import math

import pytest
import torch
from toys import tiny_model
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig, Qwen3Config

from ochat.errors import ModelError
from ochat.training import attention
from ochat.training.batch import make_batch
from ochat.training.loss import batch_loss_sum, weighted_nll_sum

Row = tuple[list[int], list[int], list[float]]

ROWS: list[Row] = [
    ([5, 9, 3, 17, 8, 2, 6, 30, 11], [3, 4, 2], [0.0, 1.0, 0.0]),
    ([1], [1], [0.1]),  # nothing to predict
    ([7, 4, 4, 9, 12, 40, 3, 2, 9, 10, 33, 21, 6, 5, 4, 3, 2, 1, 8, 9], [10, 10], [0.0, 0.1]),
    ([2, 3], [1, 1], [0.0, 0.25]),
]
SHAPE = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}


def packed(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of the model with our attention; a config that is shared would change the first model too."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = attention.NAME
    other = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    other.load_state_dict(model.state_dict())
    return other


def plain_loss_sum(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    """Σ w · nll with each row alone in stock attention and all logits: the slow formula."""
    total = torch.zeros(())
    for ids, run_lengths, run_weights in rows:
        weights = [w for n, w in zip(run_lengths, run_weights, strict=True) for _ in range(n)]
        log_p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        for t in range(1, len(ids)):
            total = total - weights[t] * log_p[t - 1, ids[t]]
    return total


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(None, id="llama"),
        pytest.param(MistralConfig(**SHAPE, sliding_window=4), id="mistral-window-shorter-than-a-row"),
        pytest.param(Qwen3Config(**SHAPE), id="qwen3"),
    ],
)
def test_packed_rows_give_the_loss_and_gradients_of_separate_rows(config: object) -> None:
    torch.manual_seed(1)
    plain = tiny_model(50) if config is None else AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ours = packed(plain)
    expected = plain_loss_sum(plain, ROWS)
    expected.backward()
    loss = batch_loss_sum(ours, make_batch(ROWS))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for (name, a), (_, b) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_rows_in_a_pack_do_not_see_each_other() -> None:
    model = packed(tiny_model(50))
    first, other = ROWS[0], ([30, 31, 32, 33], [4], [0.0])
    alone = batch_loss_sum(model, make_batch([first]))
    behind = batch_loss_sum(model, make_batch([other, first]))
    assert float(behind.detach()) == pytest.approx(float(alone.detach()), rel=1e-6)


def test_attention_without_row_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="row_lengths"):
        packed(tiny_model(50))(input_ids=torch.tensor([[1, 2]]), use_cache=False)


def test_a_model_whose_attention_needs_more_is_refused() -> None:
    model = packed(AutoModelForCausalLM.from_config(Gemma2Config(**SHAPE), attn_implementation="eager"))
    with pytest.raises(ModelError, match="softcap"):
        batch_loss_sum(model, make_batch(ROWS))


def test_the_weighted_sum_is_that_of_the_formula() -> None:
    # Two tokens: p = 1/2 with weight 1, p = 1/4 with weight 0.1.
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf], [0.0, 0.0, 0.0, 0.0]])
    total = weighted_nll_sum(logits, torch.tensor([0, 3]), torch.tensor([1.0, 0.1]))
    assert float(total) == pytest.approx(math.log(2) + 0.1 * math.log(4))


def test_only_tokens_with_a_weight_reach_the_loss() -> None:
    batch = make_batch(ROWS)
    assert batch.learned.tolist() == [2, 3, 4, 5, *range(19, 29), 30]
    assert batch.labels.tolist() == [17, 8, 2, 6, 33, 21, 6, 5, 4, 3, 2, 1, 8, 9, 3]
    assert batch.weights.tolist() == pytest.approx([1.0] * 4 + [0.1] * 10 + [0.25])
    assert batch.position_ids[0].tolist() == [*range(9), 0, *range(20), 0, 1]
