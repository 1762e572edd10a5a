"""The objective of C-RLFT: reward-weighted regression, maximise Σ w_c · log π(y | x, c) (arXiv 2309.11235, equation 6).

The condition c stands in the prompt; the class's weight w_c is here. The sum is divided by a constant of the run, never by the
batch's own weights: that would give a small batch of cheap rows the say of a full one. Whose constant is the loop's business.

Logits are the largest tensor of a training step: 8,192 tokens by 49,152 pieces fill 1.6 GB in float32, and the plain formula
holds several such. Here only tokens that are learned from reach the head, a chunk at a time, and each chunk's gradient is made
at once while its logits exist. That is possible because the loss is a scalar that is only ever multiplied by another scalar."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from ochat.errors import ModelError
from ochat.training.attention import RowLengths
from ochat.training.batch import Batch

Kernel = Literal["auto", "chunked", "naive", "liger"]


class TokenLosses(NamedTuple):
    """What a forward gives: the sum to minimise, and what is reported of each of the L learned tokens."""

    total: torch.Tensor  # scalar, float32: Σ w · nll, differentiable
    nll: torch.Tensor  # [L], float32, detached
    correct: torch.Tensor  # [L], bool: the most probable token is the label


def naive_weighted_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    weights: torch.Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
) -> TokenLosses:
    """The plain formula, all logits at once: what the other kernels must equal. Arguments as of `weighted_linear_nll`."""
    logits = head_logits(hidden, weight, bias, softcap, scale)
    nll = cross_entropy(logits, labels, reduction="none")
    return TokenLosses((weights * nll).sum(), nll.detach(), logits.detach().argmax(-1) == labels)


def weighted_linear_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    weights: torch.Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk_tokens: int = 1024,
) -> TokenLosses:
    """Σ w · nll of a linear head, without [L, V] logits. hidden [L, H], weight [V, H], bias [V], labels [L], weights [L].

    Leave out tokens that aren't learned from before the call: they cost as much as the others, and a label of -100 is an error.
    Logits are softcap · tanh(scale · (W h + b) / softcap), as Gemma 2 and Cohere have them. L may be 0: the sum is then 0, and
    differentiable still, so that a rank without a learned token takes part in its group's backward."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # all products then follow, as they do in the plain formula
        hidden = hidden.to(torch.get_autocast_dtype(device))
    needed = torch.is_grad_enabled()
    apply: Any = _ChunkedLoss.apply  # torch gives it no types
    return TokenLosses(*apply(hidden, weight, bias, labels, weights, softcap, scale, chunk_tokens, needed))


class _ChunkedLoss(torch.autograd.Function):
    """Three products a chunk (logits, and the two gradients), none of them computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,  # torch's context of a function
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        weights: torch.Tensor,
        softcap: float | None,
        scale: float,
        chunk_tokens: int,
        needed: bool,  # in here gradients are always off, whatever the caller's mode
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        head = weight.to(hidden.dtype)
        for_hidden, for_weight, for_bias = (needed and wanted for wanted in ctx.needs_input_grad[:3])
        wanted = for_hidden or for_weight or for_bias
        # All in float32 until the backward pass: hundreds of chunks summed in bfloat16 would lose the small ones.
        hidden_grad = torch.empty_like(hidden, dtype=torch.float32) if for_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and for_bias else None
        nll = hidden.new_empty(len(labels), dtype=torch.float32)
        correct = hidden.new_empty(len(labels), dtype=torch.bool)
        for start in range(0, len(labels), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            nll[part], correct[part], grad = _chunk(hidden[part], head, bias, labels[part], softcap, scale, wanted)
            if grad is None:
                continue
            # The products' factors are rounded to the dtype. The weights aren't in `grad`, where a label's entry is about -w in
            # every token of a class, and all would be rounded alike; in the hidden states' many values rounding averages out.
            w = weights[part, None].float()
            rounded = grad.to(hidden.dtype)
            weighted = hidden[part].float() * w
            if hidden_grad is not None:
                hidden_grad[part] = (rounded @ head).float() * w
            if bias_grad is not None:
                bias_grad.addmv_(grad.t(), w[:, 0])
            if weight_grad is not None and hidden.dtype == torch.float32:
                weight_grad.addmm_(grad.t(), weighted)
            elif weight_grad is not None and hidden.is_cuda:
                torch.addmm(weight_grad, rounded.t(), weighted.to(hidden.dtype), out_dtype=torch.float32, out=weight_grad)
            elif weight_grad is not None:
                # No CPU kernel gives a float32 product of bfloat16 factors (torch 2.13), and one of float32 factors takes three
                # times as long: each chunk's product is rounded once, to the nearest, and their sum is float32.
                weight_grad.add_(rounded.t() @ weighted.to(hidden.dtype))
            del grad, rounded  # before the next chunk's logits are made
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(nll, correct)
        return weights.float().dot(nll), nll, correct

    @staticmethod
    def backward(ctx: Any, grad_total: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        given = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(None if grad is None else _times(grad, grad_total, dtype) for grad, dtype in given), *(None,) * 6)


def _times(tensor: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The product, rounded once to the dtype, without a float32 copy between."""
    return torch.mul(tensor, factor, out=torch.empty_like(tensor, dtype=dtype))


def _chunk(
    hidden: torch.Tensor,
    head: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    softcap: float | None,
    scale: float,
    wanted: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A chunk's nll [n], whether its best guess is right [n], and where it's wanted d nll / d (W h + b) [n, V], float32.

    One tensor of [n, V] is the logits, then the probabilities, then the gradient."""
    label = labels[:, None]
    x = linear(hidden, head, None if bias is None else bias.to(head.dtype)).float()
    if scale != 1.0:
        x.mul_(scale)
    slope = None
    if softcap is not None:
        x.div_(softcap).tanh_()
        slope = x.square().neg_().add_(1.0) if wanted else None
        x.mul_(softcap)
    top, best = x.max(-1, keepdim=True)
    at_label = x.gather(-1, label)
    x.sub_(top).exp_()
    norm = x.sum(-1, keepdim=True)
    nll, correct = ((top - at_label) + norm.log())[:, 0], (best == label)[:, 0]
    if not wanted:
        return nll, correct, None
    x.div_(norm).scatter_add_(-1, label, torch.full_like(norm, -1.0))
    if slope is not None:
        x.mul_(slope)
    if scale != 1.0:
        x.mul_(scale)
    return nll, correct, x


def head_logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, softcap: float | None = None, scale: float = 1.0
) -> torch.Tensor:
    """All logits in float32, by the plain formula. hidden [L, H], weight [V, H], bias [V] -> [L, V]."""
    logits = linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)).float()
    if scale != 1.0:
        logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class Head(NamedTuple):
    """How a model makes logits of its last hidden states."""

    module: torch.nn.Linear
    softcap: float | None
    scale: float


def model_parts(model: PreTrainedModel) -> tuple[torch.nn.Module, Head]:
    """The decoder of a stock model, or of peft's wrapper around one, and its head.

    Only a plain linear head is known: the loss reads its weight, so an adapter on it would be left out without a word."""
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        raise ModelError("Adapters that prepend a learned prompt aren't known to the trainer. Train LoRA on linear layers.")
    stock = model.get_base_model() if hasattr(model, "get_base_model") else model
    module, embeddings = stock.get_output_embeddings(), stock.get_input_embeddings()
    config = stock.config.get_text_config()
    adapted = [name for name, part in (("head", module), ("embeddings", embeddings)) if _is_adapted(part)]
    if adapted == ["embeddings"] and not config.tie_word_embeddings:
        adapted = []  # they are another tensor, and the decoder itself applies them
    if adapted:
        raise ModelError(
            f"The model's {adapted[0]} carries an adapter or is among modules_to_save, and the loss would leave that out. "
            "Adapt the layers between embeddings and head only (peft's target_modules='all-linear' does)."
        )
    if not isinstance(module, torch.nn.Linear) or not module.weight.is_floating_point():
        raise ModelError(
            f"The model's head is {type(module).__name__}, not a linear layer of float weights. Choose a decoder with a language "
            "model's head, and leave that out of quantisation."
        )
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return stock.get_decoder(), Head(module, getattr(config, "final_logit_softcapping", None), scale)


def _is_adapted(module: torch.nn.Module | None) -> bool:
    return type(module).__module__.startswith("peft.")


class LossModel(torch.nn.Module):
    """A model and the loss in one forward, so that what shards a model's parameters has the head whole while it is read.

    `model` must use the attention named `ochat.training.attention.NAME`. `kernel` says who computes the loss: our chunks, the plain
    formula, Liger's (CUDA only), or "auto": Liger's where it keeps the weights (see `liger_weight_error`), else our chunks."""

    def __init__(self, model: PreTrainedModel, kernel: Kernel = "auto") -> None:
        super().__init__()
        model_parts(model)  # refuse before time is spent
        self.model = model
        self.kernel = kernel
        self._chosen: Callable[..., TokenLosses] | None = None

    def forward(self, batch: Batch) -> TokenLosses:
        decoder, head = model_parts(self.model)
        hidden = decoder(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            row_lengths=RowLengths(batch.row_lengths),
            cu_seqlens=batch.cu_seqlens,
            use_cache=False,
        ).last_hidden_state[0]
        hidden = hidden.index_select(0, batch.learned)
        self._chosen = self._chosen or choose_kernel(self.kernel, hidden.device, hidden.dtype)
        weight, bias = head.module.weight, head.module.bias
        return self._chosen(hidden, weight, bias, batch.labels, batch.weights, softcap=head.softcap, scale=head.scale)


def choose_kernel(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Callable[..., TokenLosses]:
    """The function of a kernel's name; raises ModelError where Liger was asked for and isn't right here."""
    if kernel == "naive":
        return naive_weighted_nll
    if kernel == "chunked" or (kernel == "auto" and device.type != "cuda"):
        return weighted_linear_nll
    error = liger_weight_error(device, dtype)
    if kernel == "auto":
        return weighted_linear_nll if error is None or error > _SAME_WEIGHT else liger_weighted_nll
    if error is None:
        raise ModelError(
            f"Liger's loss needs a CUDA device and liger-kernel >= {_LIGER}. Run: pip install -e '.[liger]', or take another loss "
            "kernel."
        )
    if error > torch.finfo(dtype).eps:
        raise ModelError(
            f"Liger's loss changes the weights by {error:.1%} on this machine, more than {dtype} itself does. Take another loss "
            "kernel."
        )
    return liger_weighted_nll


# Before this release a token's weight was lost: every gradient was multiplied by the first token's (Liger-Kernel #1298).
_LIGER = "0.8.2"
# A class's weight counts as kept within this. The test below finds in bfloat16, on the CPU: our chunks 2e-4, the plain formula 8e-4,
# Liger 0.8.5 (in Triton's interpreter) 2.4e-3, and in float32 nothing.
_SAME_WEIGHT = 5e-4


def liger_weight_error(device: torch.device, dtype: torch.dtype) -> float | None:
    """The largest relative error that Liger's gradients make in a class's weight; None where Liger can't be used.

    Liger 0.8.5 rounds the gradient of a token's loss, which is our weight, to the logits' dtype: in bfloat16 0.3 acts as 0.3008, for
    every token of the class alike."""
    if device.type != "cuda" or not _has_liger():
        return None
    return weight_error(liger_weighted_nll, device, dtype)


def weight_error(kernel: Callable[..., TokenLosses], device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative error of a class's weight, relative to that of the first of seven classes, in a kernel's gradients.

    The gradient is the sum of the classes' gradients, each times its weight; the factors are found again by least squares against
    the plain formula in float32, so that the rounding of single numbers averages out and an error of a weight doesn't."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(384, 128, generator=generator).to(device, dtype)
    weight = (torch.randn(384, 128, generator=generator) / 8).to(device, dtype)
    labels = torch.randint(384, (384,), generator=generator).to(device)
    of_class = torch.tensor([1.0, 0.1, 0.3, 0.7, 0.45, 0.15, 0.85], device=device)
    classes = torch.arange(384, device=device) % len(of_class)
    weights = of_class[classes]

    def gradients(kernel: Callable[..., TokenLosses], weights: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight)]
        with torch.enable_grad():
            total = kernel(*leaves, None, labels, weights).total
        return [x.double().cpu().flatten() for x in torch.autograd.grad(total, leaves)]

    parts = [gradients(naive_weighted_nll, weights * (classes == number), torch.float32) for number in range(len(of_class))]
    worst = 0.0
    for whole, *each in zip(gradients(kernel, weights, dtype), *parts, strict=True):
        factors = torch.linalg.lstsq(torch.stack(each, dim=1), whole[:, None]).solution
        worst = max(worst, float((factors / factors[0] - 1).abs().max()))
    return worst


def liger_weighted_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    weights: torch.Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
) -> TokenLosses:
    """Liger's fused kernel (read and fitted to 0.8.5), which makes its logits a second time in the backward pass."""
    if len(labels) == 0:  # its grid would be empty
        return weighted_linear_nll(hidden, weight, bias, labels, weights, softcap=softcap, scale=scale)
    functional = import_module("liger_kernel.transformers.functional")
    found = functional.liger_fused_linear_cross_entropy(
        hidden if scale == 1.0 else hidden * scale,
        weight.to(hidden.dtype),
        labels,
        bias if bias is None or scale == 1.0 else bias * scale,
        reduction="none",
        softcap=softcap,
        accum_dtype=torch.float32,
        return_token_accuracy=True,
    )
    return TokenLosses((weights * found.loss).sum(), found.loss.detach(), found.token_accuracy.detach() > 0.5)


def _has_liger() -> bool:
    try:
        found = version("liger-kernel")
    except PackageNotFoundError:
        return False
    return [int(part) for part in found.split(".")[:3] if part.isdigit()] >= [int(part) for part in _LIGER.split(".")]
