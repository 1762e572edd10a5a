"""Who drives the training: each class's share of the loss, now and under other weights, and how many rows that really is.

The loss is Σ w·nll over learned tokens. Before training nothing is known of nll, so every token counts as equally hard to predict,
and a class's share of the loss is its share of Σ w; a run's log tells the classes' mean nll, and then the share is the run's own.

The effective size (Σw)² / Σw² (Kish, 1965) is the number of equally weighted ones that would average as well. Over rows, w is a
row's sum of weights, its say in the loss: a few long rows among short ones make it small. Over tokens, w is the token's weight."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ochat.conversation import read_json_lines
from ochat.data.report.row_table import Array, MessageWeights, RowTable
from ochat.errors import DataError

WHAT_IF = (0.0, 0.03, 0.1, 0.3, 1.0)
LOG_FILE = "log.jsonl"  # of a training run


@dataclass(frozen=True)
class ClassWeights:
    """The weights of one class."""

    message_weight: float  # mean over the learned tokens: their message's own weight, as a part of the class's
    class_weight: float
    weight_sum: float
    loss_share: float
    per_answer_share: float
    """with `--per-sequence-loss`, where each row's weights are divided by its learned tokens"""
    effective_rows: float
    effective_tokens: float


def commonest(weights: MessageWeights | None) -> float:
    """The weight that most of a class's learned messages have: the class's, where no table says it."""
    return weights.by_weight.most_common(1)[0][0] if weights else 0.0


def effective_size(total: float, squares: float) -> float:
    """(Σw)² / Σw²."""
    return total**2 / squares if squares else 0.0


def shares(values: Array) -> Array:
    """Each as a part of the sum, [C] -> [C]; zeros where that is 0."""
    total = values.sum()
    return values / total if total else np.zeros(len(values))


def class_weights(table: RowTable, given: Mapping[str, float], losses: Mapping[str, float] | None) -> dict[str, ClassWeights]:
    """The weights of each class. `given`: class weights that a table says; `losses`: mean nll of each class."""
    sums, squares = table.sums(table.weight_sums), table.sums(table.square_sums)
    row_squares = table.sums(table.weight_sums**2)
    per_answer = table.sums(table.weight_sums / np.maximum(1, table.learned))
    loss_shares = shares(sums * _losses(table, losses))
    answer_shares = shares(per_answer * _losses(table, losses))
    found = {}
    for number, name in enumerate(table.class_names):
        of_messages = table.message_weights.get(name)
        weight = given.get(name, commonest(of_messages))
        mean = of_messages.sum / of_messages.tokens if of_messages and of_messages.tokens else 0.0
        found[name] = ClassWeights(
            message_weight=mean / weight if weight else 0.0,
            class_weight=weight,
            weight_sum=float(sums[number]),
            loss_share=float(loss_shares[number]),
            per_answer_share=float(answer_shares[number]),
            effective_rows=effective_size(sums[number], row_squares[number]),
            effective_tokens=effective_size(sums[number], squares[number]),
        )
    return found


def _losses(table: RowTable, losses: Mapping[str, float] | None) -> Array:
    return np.array([1.0 if losses is None else losses[name] for name in table.class_names])


def sub_optimal(weights: Mapping[str, ClassWeights], best: Collection[str]) -> list[str]:
    """The classes that aren't the best: those named so, or else those of the largest class weight."""
    most = max((of_class.class_weight for of_class in weights.values()), default=0.0)
    return [name for name, of_class in weights.items() if (name not in best if best else of_class.class_weight < most)]


def shares_if(
    table: RowTable,
    weights: Mapping[str, ClassWeights],
    losses: Mapping[str, float] | None,
    names: Collection[str],
    weight: float,
) -> dict[str, float]:
    """Each class's share of the loss if the named classes had this class weight."""
    units = unit_sums(table, weights)
    values = [weight * units[name] if name in names else of_class.weight_sum for name, of_class in weights.items()]
    return dict(zip(weights, shares(np.array(values) * _losses(table, losses)).tolist(), strict=True))


def unit_sums(table: RowTable, weights: Mapping[str, ClassWeights]) -> dict[str, float]:
    """Each class's sum of weights if the class weight were 1. Of a class that weighs 0 every reply counts whole."""
    replies = table.sums(table.replies)
    return {
        name: of_class.weight_sum / of_class.class_weight if of_class.class_weight else float(replies[number])
        for number, (name, of_class) in enumerate(weights.items())
    }


def weight_for_share(
    table: RowTable, weights: Mapping[str, ClassWeights], losses: Mapping[str, float] | None, names: Sequence[str], share: float
) -> float:
    """The weight under which the named classes together have this share of the loss; 0 where none gives it."""
    units, of_loss = unit_sums(table, weights), dict(zip(weights, _losses(table, losses).tolist(), strict=True))
    theirs = sum(units[name] * of_loss[name] for name in names)
    others = sum(of_class.weight_sum * of_loss[name] for name, of_class in weights.items() if name not in names)
    return others * share / (1 - share) / theirs if theirs else 0.0


def losses_of_run(run: Path, class_names: Sequence[str]) -> dict[str, float]:
    """Each class's mean nll of a learned token over a training run. Raises DataError where its log lacks a class."""
    tokens = dict.fromkeys(class_names, 0.0)
    nll = dict.fromkeys(class_names, 0.0)
    for place, line in read_json_lines(run / LOG_FILE):
        try:
            assert isinstance(line, dict)
            for name, of_class in (line.get("classes") or {}).items():
                tokens[name] = tokens.get(name, 0.0) + of_class["tokens"]
                nll[name] = nll.get(name, 0.0) + of_class["tokens"] * of_class["nll"]
        except (AssertionError, AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{place}: not a line of a training log ({error!r}). Name the folder of a run with --run."
            ) from error
    missing = [name or "(none)" for name in class_names if not tokens[name]]
    if missing:
        known = ", ".join(repr(name) for name in nll if tokens[name]) or "none"
        raise DataError(
            f"{run / LOG_FILE} has no losses of the class {', '.join(missing)}; its classes: {known}. Name a run on this data."
        )
    return {name: nll[name] / tokens[name] for name in class_names}
