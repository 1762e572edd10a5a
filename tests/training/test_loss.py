"""The losses against the plain formula: values, gradients, dtypes, frozen heads, adapters, and what memory they take."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from decoders import CONFIGS, SHAPE, decoder, gradient_difference, gradients, plain_loss, random_rows, with_our_attention
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from toys import tiny_model
from transformers import CohereConfig, GraniteConfig, PreTrainedConfig

from ochat.errors import ModelError
from ochat.training import attention
from ochat.training.batch import make_batch
from ochat.training.loss import (
    LossModel,
    TokenLosses,
    choose_kernel,
    liger_weight_error,
    liger_weighted_nll,
    naive_weighted_nll,
    weight_error,
    weighted_linear_nll,
)

CPU = torch.device("cpu")
TOKENS, WIDTH, VOCABULARY = 100, 24, 61


def inputs(dtype: torch.dtype = torch.float32, bias: bool = False, device: torch.device = CPU) -> list[torch.Tensor | None]:
    """hidden, weight, bias; labels, weights."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, WIDTH, generator=generator).to(device, dtype) for n in (TOKENS, VOCABULARY))
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    weights = torch.rand(TOKENS, generator=generator)
    of_bias = torch.randn(VOCABULARY, generator=generator).to(device, dtype) if bias else None
    return [hidden, weight, of_bias, labels.to(device), weights.to(device)]


def with_gradients(kernel: Callable[..., TokenLosses], given: list[torch.Tensor | None], **options: object) -> tuple:
    leaves = [x if x is None else x.clone().requires_grad_() for x in given[:3]]
    losses = kernel(*leaves, *given[3:], **options)
    return losses, torch.autograd.grad(losses.total / 7, [x for x in leaves if x is not None])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.mark.parametrize(("bias", "softcap", "scale"), list(product([False, True], [None, 2.0], [1.0, 0.25])))
@pytest.mark.parametrize("chunk_tokens", [1, 32, 1000])
def test_chunks_give_the_loss_and_gradients_of_the_plain_formula(
    bias: bool, softcap: float | None, scale: float, chunk_tokens: int
) -> None:
    given = inputs(bias=bias)
    expected, expected_gradients = with_gradients(naive_weighted_nll, given, softcap=softcap, scale=scale)
    found, found_gradients = with_gradients(weighted_linear_nll, given, softcap=softcap, scale=scale, chunk_tokens=chunk_tokens)
    assert relative(found.total.detach(), expected.total.detach()) < 1e-6
    torch.testing.assert_close(found.nll, expected.nll, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.correct, expected.correct)
    assert found.total.dtype == found.nll.dtype == torch.float32
    assert not found.nll.requires_grad
    for a, b in zip(found_gradients, expected_gradients, strict=True):
        assert relative(a, b) < 1e-6


def test_the_sum_is_that_of_the_formula() -> None:
    # Two tokens: p = 1/2 with weight 1, p = 1/4 with weight 0.1.
    head = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-1e4, 0.0], [-1e4, 0.0]])
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for kernel in (naive_weighted_nll, weighted_linear_nll):
        losses = kernel(hidden, head, None, torch.tensor([0, 3]), torch.tensor([1.0, 0.1]))
        assert float(losses.total) == pytest.approx(math.log(2) + 0.1 * math.log(4))
        assert losses.nll.tolist() == pytest.approx([math.log(2), math.log(4)])
        assert losses.correct.tolist() == [True, False]


def test_in_bfloat16_the_gradient_of_the_head_is_rounded_once() -> None:
    # The same rounded inputs in float32 give the exact gradient; chunks of 4 must come as near to it as one chunk does.
    given = inputs(torch.bfloat16)
    exact = with_gradients(naive_weighted_nll, [x if x is None or not x.is_floating_point() else x.float() for x in given])[1]
    errors = {}
    for chunk_tokens in (4, 1000):
        found = with_gradients(weighted_linear_nll, given, chunk_tokens=chunk_tokens)[1]
        assert [g.dtype for g in found] == [torch.bfloat16] * 2
        errors[chunk_tokens] = relative(found[1], exact[1])
    assert errors[1000] < 6e-3
    assert errors[4] < 1.05 * errors[1000]


def test_classes_keep_their_weights_in_bfloat16_and_the_check_of_kernels_sees_where_not() -> None:
    def rounded(h: torch.Tensor, w: torch.Tensor, b: None, labels: torch.Tensor, weights: torch.Tensor) -> TokenLosses:
        return naive_weighted_nll(h, w, b, labels, weights.bfloat16().float())

    def first_only(h: torch.Tensor, w: torch.Tensor, b: None, labels: torch.Tensor, weights: torch.Tensor) -> TokenLosses:
        return naive_weighted_nll(h, w, b, labels, weights[:1].expand(len(weights)))  # as Liger before 0.8.2

    assert weight_error(weighted_linear_nll, CPU, torch.float32) < 1e-6
    ours, plain = (weight_error(kernel, CPU, torch.bfloat16) for kernel in (weighted_linear_nll, naive_weighted_nll))
    assert ours < 5e-4 < plain  # the plain formula rounds w · (p - 1), which is about -w for every unlikely token
    assert weight_error(rounded, CPU, torch.bfloat16) == pytest.approx(float(torch.tensor(0.3).bfloat16()) / 0.3 - 1, rel=0.5)
    assert weight_error(first_only, CPU, torch.bfloat16) > 1


class Widest(TorchDispatchMode):
    """The most tokens whose logits exist in one tensor while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0

    def __torch_dispatch__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dim() == 2 and out.shape[1] == VOCABULARY:
            self.tokens = max(self.tokens, len(out))
        return out


def test_no_logits_of_all_tokens_exist_at_once() -> None:
    with Widest() as widest:
        with_gradients(weighted_linear_nll, inputs(), chunk_tokens=30)
    assert widest.tokens == 30
    with Widest() as widest:
        with_gradients(naive_weighted_nll, inputs())
    assert widest.tokens == TOKENS


@pytest.mark.parametrize("trained", [0, 1])
def test_what_is_frozen_gets_no_gradient(trained: int) -> None:
    given = inputs()
    given[trained].requires_grad_()
    losses = weighted_linear_nll(*given, chunk_tokens=32)
    kept = [saved for saved in losses.total.grad_fn.saved_tensors if saved is not None]
    assert [saved.shape for saved in kept] == [given[trained].shape]
    (found,) = torch.autograd.grad(losses.total, [given[trained]])
    (expected,) = torch.autograd.grad(naive_weighted_nll(*given).total, [given[trained]])
    assert relative(found, expected) < 1e-6


def test_without_gradients_none_are_made() -> None:
    given = [x if x is None or not x.is_floating_point() else x.requires_grad_() for x in inputs()]
    with torch.no_grad():
        losses = weighted_linear_nll(*given)
    assert not losses.total.requires_grad
    torch.testing.assert_close(losses.total, naive_weighted_nll(*given).total.detach())


def test_under_autocast_products_are_in_half_precision_and_float32_weights_get_float32_gradients() -> None:
    given = inputs()
    exact = with_gradients(naive_weighted_nll, given)[1]
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_gradients = with_gradients(naive_weighted_nll, given)
        found, found_gradients = with_gradients(weighted_linear_nll, given, chunk_tokens=32)
    torch.testing.assert_close(found.nll, expected.nll, rtol=1e-5, atol=1e-5)
    for a, b, c in zip(found_gradients, expected_gradients, exact, strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < relative(a, c) <= 1.2 * relative(b, c)


@pytest.mark.parametrize("kernel", ["chunked", "naive"])
def test_a_pack_without_a_learned_token_gives_zero_and_zero_gradients(kernel: str) -> None:
    model = with_our_attention(decoder(CONFIGS["gemma-2"]))
    losses = LossModel(model, kernel)(make_batch([(np.array([3, 4]), np.array([2]), np.array([0.0]))]))
    assert float(losses.total.detach()) == 0
    assert losses.nll.shape == losses.correct.shape == (0,)
    losses.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # DDP and FSDP wait for each
        assert not parameter.grad.any()


ROWS = random_rows([9, 1, 14])
SCALED = {"cohere": CohereConfig(**SHAPE, logit_scale=0.25), "granite": GraniteConfig(**SHAPE, logits_scaling=4.0)}


@pytest.mark.parametrize("kernel", ["chunked", "naive"])
@pytest.mark.parametrize("config", [SCALED["cohere"], SCALED["granite"], CONFIGS["gemma-2"]], ids=[*SCALED, "gemma-2"])
def test_a_models_own_cap_and_scale_of_logits_are_kept(config: PreTrainedConfig, kernel: str) -> None:
    plain = decoder(config)
    expected = gradients(plain_loss(plain, ROWS), plain)
    ours = with_our_attention(plain)
    assert gradient_difference(expected, gradients(LossModel(ours, kernel)(make_batch(ROWS)).total, ours)) < 5e-6


@pytest.mark.parametrize("kernel", ["chunked", "naive"])
def test_adapters_are_trained_through_the_loss(kernel: str) -> None:
    plain = get_peft_model(decoder(CONFIGS["llama"]), LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False))
    ours = get_peft_model(decoder(CONFIGS["llama"], attention.NAME), LoraConfig(target_modules="all-linear", r=4))
    ours.load_state_dict(plain.state_dict())
    expected = gradients(plain_loss(plain, ROWS), plain)
    assert all("lora" in name for name in expected)
    assert gradient_difference(expected, gradients(LossModel(ours, kernel)(make_batch(ROWS)).total, ours)) < 5e-6


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LoraConfig(target_modules=["q_proj", "lm_head"], r=2), "head"),
        (LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], r=2), "head"),
        (PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2), "prompt"),
    ],
)
def test_adapters_that_the_loss_would_leave_out_are_refused(config: object, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        LossModel(get_peft_model(tiny_model(50), config))


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match="head"):
        LossModel(tiny_model(50).model)


def test_the_loss_is_never_ligers_without_a_cuda_device() -> None:
    assert liger_weight_error(CPU, torch.float32) is None
    assert choose_kernel("auto", CPU, torch.float32) is weighted_linear_nll
    with pytest.raises(ModelError, match="CUDA"):
        choose_kernel("liger", CPU, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("bias", "softcap", "scale"), [(False, None, 1.0), (True, 2.0, 0.5)])
def test_on_cuda_every_kernel_gives_the_plain_formulas_gradients(
    dtype: torch.dtype, bias: bool, softcap: float | None, scale: float
) -> None:
    cuda = torch.device("cuda")
    given = inputs(dtype, bias, cuda)
    expected, expected_gradients = with_gradients(naive_weighted_nll, given, softcap=softcap, scale=scale)
    kernels: list[Callable[..., TokenLosses]] = [weighted_linear_nll]
    if liger_weight_error(cuda, dtype) is not None:
        kernels.append(liger_weighted_nll)
    for kernel in kernels:
        found, found_gradients = with_gradients(kernel, given, softcap=softcap, scale=scale)
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        assert relative(found.total.detach(), expected.total.detach()) < tolerance
        for a, b in zip(found_gradients, expected_gradients, strict=True):
            assert relative(a, b) < tolerance


@pytest.mark.gpu
def test_on_cuda_our_chunks_keep_the_weights() -> None:
    assert weight_error(weighted_linear_nll, torch.device("cuda"), torch.bfloat16) < 5e-4
