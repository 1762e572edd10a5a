"""The training loop: the plan's steps in order, a line a step, measurements and a saved state now and then."""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from ochat.conversation import NO_CONDITION
from ochat.data.dataset import Dataset
from ochat.data.packing import Plan
from ochat.errors import ModelError
from ochat.files import write_text
from ochat.hub import model_folder
from ochat.registry import ModelType
from ochat.training.checkpoint import save_checkpoint
from ochat.training.config import FINAL_FOLDER, LOG_FILE, Options
from ochat.training.cost import memory_used, peak_flops
from ochat.training.heldout import Heldout
from ochat.training.optimizer import automatic_learning_rate, learning_rate
from ochat.training.ranks import Ranks
from ochat.training.run_folder import remove_states
from ochat.training.state import restore, save_state
from ochat.training.trackers import open_tracker
from ochat.training.trainer import Totals, Trainer


def train(
    options: Options,
    kind: ModelType,
    dataset: Dataset,
    plan: Plan,
    ranks: Ranks,
    config: dict[str, object],
    card: Callable[[], str],
) -> None:
    """Run the steps that are left, write RUN/final with the card, and remove the saved states."""
    heldout = Heldout(options.data, dataset.meta)  # first: it reads files that may be broken
    trainer = Trainer(options, dataset, plan, ranks)
    n_done = restore(options.output, trainer.optimizer, ranks.say)
    if not ranks.all_true(int(ranks.sum(torch.tensor(n_done, device=ranks.device))) == ranks.count * n_done):
        raise ModelError(
            f"The processes found different saved states in {options.output}, this one that of step {n_done}. Give a folder that "
            "all of them share, and repeat."
        )
    if ranks.is_first:
        remove_states(options.output, after=n_done)  # torn ones: the next save would keep one and drop this
    ranks.wait()
    check_room(options.output, trainer.result_bytes, ranks)
    peak = peak_learning_rate(options, kind, dataset, plan, ranks)
    ranks.say(f"{len(plan):,} steps of at most {options.batch_tokens:,} tokens on {ranks.count} x {ranks.device.type}")
    if n_done:
        ranks.say(f"Going on after step {n_done:,}")
    progress = Progress(trainer, n_done)
    with ExitStack() as stack:
        stack.enter_context(trainer.advising())
        log = Log(options, n_done, ranks, config, stack)
        if heldout and not n_done:
            log.write({"step": 0, "epoch": 0.0, **heldout.measure(trainer)})
        bar = stack.enter_context(
            tqdm(
                total=len(plan),
                initial=n_done,
                unit="step",
                mininterval=0.5 if sys.stderr.isatty() else 15,
                disable=not ranks.is_first,
            )
        )
        saved_at, pause = time.monotonic(), 60 * options.save_minutes
        for step in range(n_done, len(plan)):
            started = time.monotonic()
            rate = learning_rate(step + 1, len(plan), peak, warmup=options.warmup, floor=options.lr_floor)
            totals = trainer.gradients(step)
            norm = trainer.optimizer.gradient_norm()
            if not math.isfinite(norm):  # before the weights take it in
                raise ModelError(
                    f"Step {step + 1}: the gradient's norm is {norm}. Start anew with a smaller --lr and another --output, or look "
                    f"at rows {', '.join(map(str, plan.step_rows(step)[:5].tolist()))} … of {options.data} (counted from 0)."
                )
            trainer.optimizer.step(rate)
            line = step_line(trainer, step, totals) | {"lr": rate, "grad_norm": norm}
            line |= progress.after(step, time.monotonic() - started)
            is_due = (step + 1) % options.eval_steps == 0 if options.eval_steps else bool(plan.epoch_ends[step])
            if heldout and (is_due or step + 1 == len(plan)):
                line |= heldout.measure(trainer)
            log.write(line)
            bar.set_postfix_str(f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s", refresh=False)
            bar.update()
            # All ranks must agree on it, and their clocks may not.
            if step + 1 < len(plan) and ranks.all_true(time.monotonic() - saved_at >= pause):
                started = time.monotonic()
                save_state(options.output, step + 1, trainer.optimizer, ranks)
                saved_at = time.monotonic()
                if pause:  # a large state on a slow disk takes at most a tenth of the time
                    pause = max(pause, 10 * (saved_at - started))
    named = [name for names in dataset.meta.get("class_conditions", {}).values() for name in names if name != NO_CONDITION]
    save_checkpoint(
        trainer.losses.model,
        model_folder(options.model),
        kind,
        options.output / FINAL_FOLDER,
        conditions=tuple(dict.fromkeys(named)) if kind.format.takes_condition else (),
        card=card,
        writes=ranks.is_first,
    )
    if ranks.is_first:
        remove_states(options.output)
    ranks.wait()


def check_room(output: Path, n_bytes: int, ranks: Ranks) -> None:
    """Raise ModelError where the run's disk can't hold the weights that it ends with, before the first step and not after the last.

    Saved states stay until those are written, so a state that is there already makes no room for them."""
    disk = shutil.disk_usage(output)
    if not ranks.all_true(disk.free >= n_bytes or not disk.total):  # some network file systems tell nothing
        raise ModelError(
            f"{output}: the trained weights take {n_bytes / 1e9:.2f} GB, and its disk has {disk.free / 1e9:.2f} GB free. Make room, or choose "
            "another --output; --dry-run tells what saved states take besides."
        )


def peak_learning_rate(options: Options, kind: ModelType, dataset: Dataset, plan: Plan, ranks: Ranks) -> float:
    """The rate that was given, or the automatic one, with its reasoning printed."""
    if options.lr:
        return options.lr
    learned = float(plan.sums(dataset.learned_tokens).mean())
    peak = automatic_learning_rate(kind.learning_rate, learned)
    ranks.say(
        f"Peak learning rate {peak:.3g}: {kind.name} takes {kind.learning_rate:.3g} at 4,000,000 learned tokens a step, and the rate "
        f"goes with the root of their number, here {learned:,.0f}. --lr sets another."
    )
    return peak


def step_line(trainer: Trainer, step: int, totals: Totals) -> dict[str, Any]:
    """What a step's line in the log says of its loss, whole and by class."""
    loss_sum = float(totals.by_class[:, 3].sum())
    classes: dict[str, object] = {}
    for name, (tokens, nll, correct, weighted) in zip(trainer.dataset.class_names, totals.by_class.tolist(), strict=True):
        if tokens:
            share = weighted / loss_sum if loss_sum else 0.0
            classes[name] = {"tokens": int(tokens), "nll": nll / tokens, "accuracy": correct / tokens, "loss_share": share}
    return {
        "step": step + 1,
        "epoch": round(float(trainer.epochs_done[step]), 4),
        "loss": loss_sum / float(trainer.step_weight_sums[step]),
        "weight_sum": float(trainer.step_weight_sums[step]),
        "tokens": int(trainer.step_tokens[step]),
        "learned_tokens": int(totals.by_class[:, 0].sum()),
        "classes": classes,
    }


class Progress:
    """Speed, and the time that is left: steps differ in work, so time goes by their operations."""

    def __init__(self, trainer: Trainer, n_done: int) -> None:
        self.trainer, self.n_done, self.seconds = trainer, n_done, 0.0
        self.peak = peak_flops(trainer.ranks.device)

    def after(self, step: int, seconds: float) -> dict[str, float]:
        """The speed of a step that took so long; mfu only where the device's peak is known."""
        flops = self.trainer.step_flops
        self.seconds += seconds
        done, left = float(flops[self.n_done : step + 1].sum()), float(flops[step + 1 :].sum())
        tokens_per_second = float(self.trainer.step_tokens[step]) / seconds
        speed = {"seconds": round(seconds, 4), "tokens_per_second": round(tokens_per_second, 1)}
        speed |= {"seconds_left": round(self.seconds * left / done, 1)}
        speed |= {"memory_gb": round(memory_used(self.trainer.ranks.device) / 1e9, 3)}
        if self.peak:
            speed["mfu"] = round(float(flops[step]) / seconds / self.peak / self.trainer.ranks.count, 4)
        return speed


class Log:
    """RUN/log.jsonl, and the tracker that was asked for; only the first rank writes."""

    def __init__(self, options: Options, n_done: int, ranks: Ranks, config: dict[str, object], stack: ExitStack) -> None:
        self._file: TextIO | None = None
        if not ranks.is_first:
            return
        path = options.output / LOG_FILE
        rewind_log(path, n_done)
        self._file = stack.enter_context(path.open("a", encoding="utf-8"))
        self._track = stack.enter_context(open_tracker(options.track, options.output, config))

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
            self._track(line["step"], line)


def rewind_log(path: Path, n_done: int) -> None:
    """Drop the lines after the step that a run goes on from, and a torn one; they'll be written again."""
    if not path.is_file():
        return
    kept = []
    # Cut within a letter, perhaps. Not splitlines: a class's name may hold its other separators.
    for text in path.read_bytes().decode("utf-8", errors="replace").split("\n"):
        try:
            step = json.loads(text)["step"]
        except (ValueError, KeyError, TypeError):
            break
        if step > n_done or (step == 0 and not n_done):
            break
        kept.append(text + "\n")
    write_text(path, "".join(kept))
