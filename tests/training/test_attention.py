"""Packed rows against each row alone in stock attention: any architecture, any length, compiled or checkpointed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from decoders import CONFIGS, decoder, gradient_difference, gradients, plain_loss, random_rows, with_our_attention

from ochat.errors import ModelError
from ochat.training import attention
from ochat.training.attention import packed_attention
from ochat.training.batch import Batch, make_batch
from ochat.training.loss import LossModel

ROWS = random_rows([9, 1, 20, 2, 13, 7, 31])
SAME = 5e-6  # of the largest gradient: rounding in float32
WRONG = 1e-3


def packed_gradients(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    return gradients(LossModel(model)(batch).total, model)


def shifted_boundary(batch: Batch) -> Batch:
    """The batch with its third row given away a token to the fourth."""
    lengths = [n + {2: -1, 3: 1}.get(number, 0) for number, n in enumerate(batch.row_lengths)]
    return replace(batch, row_lengths=lengths, cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).int())


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_give_the_gradients_of_each_row_alone(name: str) -> None:
    plain = decoder(CONFIGS[name])
    expected = gradients(plain_loss(plain, ROWS), plain)
    ours = with_our_attention(plain)
    batch = make_batch(ROWS)
    assert gradient_difference(expected, packed_gradients(ours, batch)) <= SAME
    assert gradient_difference(expected, packed_gradients(ours, shifted_boundary(batch))) > WRONG
    ours.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert gradient_difference(expected, packed_gradients(ours, batch)) <= SAME


def test_a_window_of_four_tokens_is_the_token_and_three_before_it() -> None:
    # Equal scores: each token's output is the mean of the values it sees.
    value = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]).reshape(1, 1, 5, 1).expand(1, 1, 5, 8)
    zeros = torch.zeros(1, 1, 5, 8)
    for softcap in (None, 5.0):  # two paths, one meaning
        out, _ = packed_attention(
            torch.nn.Module(), zeros, zeros, value, None, sliding_window=4, softcap=softcap, row_lengths=[5]
        )
        torch.testing.assert_close(out[0, 4, 0, 0], torch.tensor(11110.0 / 4))
        torch.testing.assert_close(out[0, 3, 0, 0], torch.tensor(1111.0 / 4))


def attend(**options: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 6, 8, generator=generator) for heads in (4, 2, 2))
    return packed_attention(torch.nn.Module(), q, k, v, **({"attention_mask": None, "row_lengths": [4, 2]} | options))[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"position_bias": torch.zeros(4)}, "position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "later tokens"),
    ],
)
def test_attention_that_would_change_the_result_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        attend(**options)


@pytest.mark.parametrize("options", [{"row_lengths": None}, {"attention_mask": torch.ones(6, 6)}])
def test_rows_that_would_see_each_other_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="row_lengths"):
        attend(**options)


def test_a_cache_is_refused() -> None:
    model = with_our_attention(decoder(CONFIGS["llama"]))
    ids = torch.tensor([[1, 2, 3]])
    cache = model(input_ids=ids, row_lengths=[3], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cache"):
        model(input_ids=ids, row_lengths=[3], past_key_values=cache)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at each input's
def test_compiled_layers_take_any_rows_without_compiling_again() -> None:
    model = with_our_attention(decoder(CONFIGS["llama"]))
    batches = [
        make_batch(random_rows(lengths, seed)) for seed, lengths in enumerate(([9, 4], [3, 8, 1], [30], [2] * 9, [5, 6]))
    ]
    expected = [packed_gradients(model, batch) for batch in batches]
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    for layer in model.model.layers:
        layer.compile(backend=count, dynamic=True)
    counts = []
    for batch, gradient in zip(batches, expected, strict=True):
        assert gradient_difference(gradient, packed_gradients(model, batch)) <= SAME
        counts.append(graphs)
    assert counts[0] > 0
    assert len(set(counts)) == 1


gpu = pytest.mark.gpu


@gpu
@pytest.mark.parametrize("window", [None, 16], ids=["whole", "window"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_all_rows_in_one_kernel_equal_a_row_at_a_time(window: int | None, heads: int, kv_heads: int) -> None:
    assert attention._VARLEN is not None
    lengths = [100, 1, 37, 260]
    generator = torch.Generator("cuda").manual_seed(0)
    leaves = [
        torch.randn(1, n, sum(lengths), 64, generator=generator, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for n in (heads, kv_heads, kv_heads)
    ]
    q, k, v = leaves
    cu_seqlens = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    assert attention._fits_varlen(q, v, None)
    at_once = attention._varlen(q, k, v, lengths, cu_seqlens, max(lengths), window, 0.1)
    one_by_one = torch.cat(
        [
            attention._row(*(x[:, :, start:end].float() for x in leaves), window, 0.1).transpose(1, 2)
            for start, end in pairwise(cu_seqlens.tolist())
        ],
        dim=1,
    )
    torch.testing.assert_close(at_once.float(), one_by_one, rtol=2e-2, atol=2e-2)
    cotangent = torch.randn(at_once.shape, generator=generator, device="cuda")
    for a, b in zip(
        torch.autograd.grad(at_once, leaves, cotangent.bfloat16()),
        torch.autograd.grad(one_by_one, leaves, cotangent),
        strict=True,
    ):
        assert float((a - b).abs().max()) <= 2e-2 * float(b.abs().max())


@gpu
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_give_the_gradients_of_each_row_alone_in_half_precision(name: str) -> None:
    plain = decoder(CONFIGS[name])
    expected = gradients(plain_loss(plain, ROWS), plain)
    ours = with_our_attention(plain).to("cuda", torch.bfloat16)
    batch = make_batch(ROWS).to(torch.device("cuda"))
    found = {name: g.float().cpu() for name, g in packed_gradients(ours, batch).items()}
    planted = {
        name: g.float().cpu() for name, g in packed_gradients(ours, shifted_boundary(batch).to(torch.device("cuda"))).items()
    }
    assert gradient_difference(expected, found) < 0.1
    assert gradient_difference(expected, planted) > gradient_difference(expected, found)
