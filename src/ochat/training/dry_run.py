"""`ochat train run --dry-run`: what a run will do and take, found by running some of its steps and keeping nothing.

Time and memory are measured on this machine with the run's own model and rows, since a table of devices would be wrong for
most of them."""

import sys
import time
from dataclasses import dataclass

import numpy as np

from ochat.data.dataset import Dataset
from ochat.data.packing import Plan
from ochat.files import new_file
from ochat.registry import ModelType
from ochat.template import ConversationTemplate
from ochat.template_show import coloured
from ochat.training.config import Options
from ochat.training.cost import memory_used
from ochat.training.heldout import Heldout
from ochat.training.loop import peak_learning_rate
from ochat.training.plan_report import plan_lines, plan_summary
from ochat.training.ranks import Ranks
from ochat.training.trainer import Trainer

N_TIMED_STEPS = 6
N_SHOWN_ROWS = 3


@dataclass(frozen=True)
class Prediction:
    """What a run will take."""

    steps: int
    tokens_per_second: float
    seconds: float  # of steps and held-out measurements, without loading and saving
    memory: int  # bytes of a process: on the device, or in all on a CPU
    disk: int  # bytes of RUN at its fullest


def dry_run(
    options: Options, kind: ModelType, template: ConversationTemplate, dataset: Dataset, plan: Plan, ranks: Ranks
) -> Prediction:
    """Print the plan, some packed rows and a prediction; write the plan where that was asked for."""
    started = time.monotonic()
    trainer = Trainer(options, dataset, plan, ranks)
    loading = time.monotonic() - started
    ranks.say(plan_summary(options, dataset, plan))
    if options.plan and ranks.is_first:
        with new_file(options.plan) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(plan_lines(plan, trainer.row_costs, options.ranks or ranks.count))
        ranks.say(f"Wrote {options.plan}")
    peak_learning_rate(options, kind, dataset, plan, ranks)
    ranks.say("\n" + packed_rows(dataset, plan, template, colour=sys.stdout.isatty()) + "\n")
    ranks.say(f"Running {N_TIMED_STEPS + 1} steps to time them; nothing is kept …")
    with trainer.advising():
        prediction = predict(trainer, Heldout(options.data, dataset.meta))
    ranks.say(
        f"{prediction.steps:,} steps at {prediction.tokens_per_second:,.0f} tokens/s take {duration(prediction.seconds)}, and loading "
        f"{duration(loading)}\n"
        f"memory of {'a process' if ranks.device.type == 'cpu' else 'a device'}: {prediction.memory / 1e9:.1f} GB, of which "
        + ", ".join(f"{name} {size / 1e9:.2f}" for name, size in trainer.standing.items() if size)
        + f"\ndisk: {prediction.disk / 1e9:.1f} GB in {options.output}"
    )
    return prediction


def predict(trainer: Trainer, heldout: Heldout) -> Prediction:
    """Run the step with the most work, then some others, and reckon from their operations to the whole run's."""
    options, flops = trainer.options, trainer.step_flops
    heaviest = int(np.argmax(flops))
    others = np.linspace(0, len(flops) - 1, N_TIMED_STEPS + 2)[1:-1].astype(int).tolist()
    rates = []
    for step in (heaviest, *others):  # the first one warms up, and needs the most memory
        started = time.monotonic()
        trainer.gradients(step)
        trainer.optimizer.gradient_norm()
        trainer.optimizer.step(0.0)
        rates.append((time.monotonic() - started) / float(flops[step]))
    in_steps = float(np.median(rates[1:])) * float(flops.sum())  # the median: other work may slow one of them
    n_tokens = int(trainer.step_tokens.sum())
    n_measurements = 1 + (len(flops) // options.eval_steps if options.eval_steps else int(trainer.plan.epoch_ends.sum()))
    in_heldout = n_measurements * len(heldout) * in_steps / n_tokens / 3  # a forward is a third of a step
    return Prediction(
        steps=len(flops),
        tokens_per_second=n_tokens / in_steps,
        seconds=in_steps + in_heldout,
        memory=memory_used(trainer.ranks.device),
        disk=2 * 12 * trainer.n_trained + trainer.result_bytes,  # two states of master and moments, and the result
    )


def packed_rows(dataset: Dataset, plan: Plan, template: ConversationTemplate, *, colour: bool) -> str:
    """The first row of each class in the plan, and more of its first rows if need be, as text grouped by weight."""
    parts = []
    rows = plan.rows[: len(dataset)]
    first_of_class = np.unique(dataset.class_codes[rows], return_index=True)[1]
    places = list(dict.fromkeys([*first_of_class.tolist(), *range(min(len(rows), N_SHOWN_ROWS))]))
    for row in rows[places[:N_SHOWN_ROWS]].tolist():
        ids, lengths, weights = dataset.row(row)
        learned = sorted({round(float(w), 6) for w in weights if w > 0}, reverse=True)
        told = ", ".join(f"{w:g}" for w in learned)
        title = (
            f"row {row}, {len(ids):,} tokens, class {dataset.class_names[dataset.class_codes[row]] or '(none)'}, weight {told}:"
        )
        if colour:
            text = coloured(template, ids.tolist(), np.repeat(weights, lengths).tolist(), colour)
        else:
            ends = np.cumsum(lengths)
            runs = zip(weights, ends - lengths, ends, strict=True)
            text = "\n".join(f"{w:>8g}  {template.tokenizer.decode(ids[start:end].tolist())!r}" for w, start, end in runs)
        parts.append(f"{title}\n{text}")
    return "\n\n".join(parts)


def duration(seconds: float) -> str:
    """A time that people read: 12 s, 4 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
