"""A model made ready to be trained, and the gradient of one step of the plan.

What a step is stands in the plan; how its packs are spread over forwards and ranks is decided here, and changes nothing but
rounding: every forward's loss is a sum over its tokens, divided by a number that the plan alone gives."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from ochat.data.dataset import Array, Dataset
from ochat.data.packing import Plan, pack
from ochat.errors import ModelError
from ochat.hub import model_folder
from ochat.registry import load_template, model_type
from ochat.training import attention
from ochat.training.batch import Batch, dataset_batch
from ochat.training.checkpoint import load_model
from ochat.training.config import Options
from ochat.training.cost import Shape, memory_there, row_costs, shape_of, standing_bytes
from ochat.training.loss import LossModel, TokenLosses
from ochat.training.model_check import check_draws_nothing, check_model
from ochat.training.objective import normalisers, weight_sums
from ochat.training.optimizer import MasterAdamW
from ochat.training.plan_report import packs_with_ranks
from ochat.training.ranks import Ranks

_DRAWN = re.compile("dropout|layerdrop|jitter")  # what models call the strength of their random draws
_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Totals:
    """Sums over learned tokens for each of C classes: [C, 4] float64, tokens, nll, correct ones, w · nll."""

    by_class: torch.Tensor

    @classmethod
    def none(cls, n_classes: int, device: torch.device) -> "Totals":
        """Sums of no tokens."""
        return cls(torch.zeros(n_classes, 4, dtype=torch.float64, device=device))

    def add(self, batch: Batch, losses: TokenLosses) -> None:
        """Add a forward's tokens."""
        columns = [torch.ones_like(losses.nll), losses.nll, losses.correct, batch.weights * losses.nll]
        self.by_class.index_add_(0, batch.classes, torch.stack([column.double() for column in columns], dim=1))


class Trainer:
    """The model, its optimizer, and the plan's steps."""

    def __init__(self, options: Options, dataset: Dataset, plan: Plan, ranks: Ranks) -> None:
        self.options, self.dataset, self.plan, self.ranks = options, dataset, plan, ranks
        is_sharded = options.fsdp and ranks.count > 1
        # FSDP2 holds float32 shards, and casts them for each forward.
        model = prepare_model(options, dataset, torch.float32 if is_sharded else getattr(torch, options.dtype))
        self.shape: Shape = shape_of(model)
        self.losses = LossModel(adapted(model, options) if options.lora_rank else model, options.loss_kernel)
        standing = standing_bytes(
            self.losses, eight_bit=options.optimizer == "adamw_8bit", shards=ranks.count if is_sharded else 1
        )
        there = memory_there(ranks.device)
        if sum(standing.values()) - (standing["weights"] if ranks.device.type == "cpu" else 0) > there:
            raise ModelError(out_of_memory(options, standing, there))
        self.standing = standing
        if is_sharded:  # moves each layer to the device as it cuts it
            shard(self.losses, model, getattr(torch, options.dtype))
        else:
            self.losses.to(ranks.device)
        self.losses.train()
        self.optimizer = MasterAdamW(
            self.losses.named_parameters(),
            weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm,
            eight_bit=options.optimizer == "adamw_8bit",
        )
        self.row_costs = row_costs(dataset.lengths, self.shape.quadratic)
        self.row_weight_sums = weight_sums(dataset, per_sequence=options.per_sequence_loss)
        self.step_weight_sums = plan.sums(self.row_weight_sums)
        self.normalisers = normalisers(options.normalise, self.step_weight_sums)
        squares = plan.sums(np.square(dataset.lengths, dtype=np.float64))
        self.epochs_done = plan.sums(np.ones(len(dataset))).cumsum() / len(dataset)
        self.step_tokens = plan.sums(dataset.lengths)
        self.step_flops = self.shape.flops(self.step_tokens, plan.sums(dataset.learned_tokens), squares)

    @property
    def n_trained(self) -> int:
        """How many weights are trained."""
        return sum(master.numel() for master in self.optimizer.masters.values())

    @property
    def result_bytes(self) -> int:
        """What the weights in RUN/final take on disk: the model's, or under LoRA the adapters'."""
        if self.options.lora_rank:
            return 4 * self.n_trained
        return (4 if self.options.dtype == "float32" else 2) * sum(p.numel() for p in self.losses.parameters())

    @contextmanager
    def advising(self) -> Iterator[None]:
        """Say what to do where the memory gets full."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise ModelError(out_of_memory(self.options, self.standing, memory_there(self.ranks.device))) from error

    def forwards(self, step: int) -> Iterator[Array]:
        """The row numbers of each forward of this rank in a step, 0 … S - 1; as many forwards on every rank, some with none."""
        packs = packs_with_ranks(self.plan, step, self.row_costs, self.ranks.count)
        mine = [rows for rows, rank in packs if rank == self.ranks.rank]
        per_forward = self.options.packs_per_forward
        most = max(Counter(rank for _, rank in packs).values())
        for start in range(0, most, per_forward):
            yield np.concatenate([_NO_ROWS, *mine[start : start + per_forward]])

    def gradients(self, step: int) -> Totals:
        """Forward and backward of a step; leaves its gradient with the optimizer and returns the sums over all ranks.

        Raises ModelError, naming rows, where a loss isn't a number."""
        totals = Totals.none(len(self.dataset.class_names), self.ranks.device)
        done: list[tuple[Array, Batch, TokenLosses]] = []
        for rows in self.forwards(step):
            batch = dataset_batch(self.dataset, rows, per_sequence=self.options.per_sequence_loss).to(self.ranks.device)
            losses: TokenLosses = self.losses(batch)
            (losses.total / self.normalisers[step]).backward()
            self.optimizer.add_gradients()
            totals.add(batch, losses)
            done.append((rows, batch, losses))
        self.ranks.sum(totals.by_class)
        if not bool(totals.by_class.isfinite().all()):
            bad = [row for forward in done for row in _rows_without_loss(*forward)]
            where = f"row {', '.join(map(str, bad[:5]))} of its {len(bad):,} such rows" if bad else "rows of another rank"
            raise ModelError(
                f"Step {step + 1}: the loss isn't a number; {where} in {self.options.data} (counted from 0). Look "
                "at them, or start anew with a smaller --lr and another --output."
            )
        return totals

    @torch.no_grad()
    def measure(self, split: Dataset) -> Totals:
        """Sums over another split's rows, packed in their order and divided over the ranks."""
        totals = Totals.none(len(split.class_names), self.ranks.device)
        packs = pack(split.lengths, np.arange(len(split)), self.options.tokens_per_pack)
        self.losses.eval()
        for start in range(0, len(packs), self.ranks.count):
            place = start + self.ranks.rank
            mine = packs[place] if place < len(packs) else _NO_ROWS
            batch = dataset_batch(split, mine).to(self.ranks.device)
            totals.add(batch, self.losses(batch))
        self.losses.train()
        self.ranks.sum(totals.by_class)
        return totals


def _rows_without_loss(rows: Array, batch: Batch, losses: TokenLosses) -> list[int]:
    """The numbers of a forward's rows with a token whose nll isn't finite."""
    bad = batch.learned[~losses.nll.isfinite()]
    places = torch.searchsorted(batch.cu_seqlens.long(), bad, right=True) - 1
    return [int(rows[place]) for place in places.unique().tolist()]


def out_of_memory(options: Options, standing: dict[str, int], there: int) -> str:
    """What to do where a run doesn't fit a memory of so many bytes, beside what stands in it all the time by what for."""
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in standing.items() if size)
    total = f"{sum(standing.values()) / 1e9:.1f} GB"
    advice = []
    if not options.gradient_checkpointing:
        advice.append("--gradient-checkpointing")
    if options.packs_per_forward > 1:
        advice.append("--packs-per-forward 1")
    advice.append(f"--pack-tokens {max(1, options.tokens_per_pack // 2)}")
    if not options.lora_rank:
        advice.append("--lora-rank 16")
        advice.append("--fsdp under torchrun with more devices")
    return (
        f"The run doesn't fit into {there / 1e9:.1f} GB: {total} stand there all the time ({parts}), and activations come on top. Try, "
        f"the mildest first: {', '.join(advice)}."
    )


def prepare_model(options: Options, dataset: Dataset, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model, and refuse one that packed rows would confuse or that lacks an embedding for the data's tokens."""
    model = load_model(options.model, dtype, attention.NAME, quantize=options.quantize)
    n_embeddings = model.get_input_embeddings().weight.shape[0]
    if dataset.max_id >= n_embeddings:
        raise ModelError(
            f"The data's largest token id is {dataset.max_id}, but the model has {n_embeddings} embeddings. Give it the model "
            "type's tokens with `ochat model add-tokens`, and tokenize with that model's folder."
        )
    for module in model.modules():  # as the original; and a resumed run would draw another mask
        for name, value in vars(module).items():
            if isinstance(value, float) and ((name == "p" and "Dropout" in type(module).__name__) or _DRAWN.search(name)):
                setattr(module, name, 0.0)
    check_model(model, int(dataset.lengths.max()))
    check_draws_nothing(model)
    if options.lora_rank:
        check_end_of_turn_is_known(model, options, dataset)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if options.compile:
        for layer in model.get_decoder().layers:
            layer.compile(dynamic=True)
    return model


def check_end_of_turn_is_known(model: PreTrainedModel, options: Options, dataset: Dataset) -> None:
    """Raise ModelError where the end of turn has the embedding of another token: adapters can't tell the two apart."""
    end = load_template(model_type(dataset.meta["model_type"]), model_folder(options.model)).end_of_turn
    rows = model.get_output_embeddings().weight
    if int((rows == rows[end]).all(dim=1).sum()) > 1:
        raise ModelError(
            "The model's end of turn was never trained: it has the embedding of another token, and LoRA trains no embeddings, so "
            "replies would not end. Train all weights, without --lora-rank, or choose a base that knows its model type's tokens."
        )


def adapted(model: PreTrainedModel, options: Options) -> torch.nn.Module:
    """The model with LoRA adapters on all linear layers but the head; only they are trained."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(options.seed)  # the adapters' first halves are drawn
    alpha = options.lora_alpha or 2 * options.lora_rank
    config = LoraConfig(r=options.lora_rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def shard(losses: LossModel, model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Shard each layer and the rest over the ranks; the loss, inside the root's forward, sees a whole head."""
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*model.get_decoder().layers, losses):
        sharded = fully_shard(module, mp_policy=policy)
        # Summed over ranks, not averaged: the normaliser is the whole step's.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other
