"""Measure held-out rows: what is learned that training didn't show, and whether the condition does anything.

The counterfactual loss scores the same held-out answers under every condition. Where a class's answers are no likelier under
its own condition than under another, the model doesn't heed the condition."""

from pathlib import Path
from typing import Any

from ochat.data.dataset import Dataset
from ochat.data.tokenize import counterfactual_split
from ochat.training.trainer import Totals, Trainer


class Heldout:
    """A data set's held-out rows; false where there are none."""

    def __init__(self, data: Path, meta: dict[str, Any]) -> None:
        self._rows = Dataset(data, "heldout") if meta["heldout_rows"] else None
        conditions: list[str] = meta.get("conditions", []) if self._rows else []
        self._under = {
            condition: Dataset(data, counterfactual_split(number))
            for number, condition in enumerate(conditions)
            if any(data.glob(f"{counterfactual_split(number)}-*.parquet"))  # none for one condition, or where all rows were cut
        }

    def __bool__(self) -> bool:
        return self._rows is not None

    def __len__(self) -> int:
        """Tokens of a measurement."""
        return sum(int(split.lengths.sum()) for split in (self._rows, *self._under.values()) if split)

    def measure(self, trainer: Trainer) -> dict[str, object]:
        """`heldout`: tokens, nll and accuracy by class; `counterfactual`: by class and condition, the nll of a sample."""
        if self._rows is None:
            return {}
        of_class: dict[str, object] = {}
        for name, (tokens, nll, correct) in by_name(self._rows, trainer.measure(self._rows)).items():
            of_class[name] = {"tokens": int(tokens), "nll": nll / tokens, "accuracy": correct / tokens}
        result: dict[str, object] = {"heldout": of_class}
        counterfactual: dict[str, dict[str, float]] = {}
        for condition, split in self._under.items():
            for name, (tokens, nll, _) in by_name(split, trainer.measure(split)).items():
                counterfactual.setdefault(name, {})[condition] = nll / tokens
        return result | ({"counterfactual": counterfactual} if counterfactual else {})


def by_name(split: Dataset, totals: Totals) -> dict[str, tuple[float, float, float]]:
    """Tokens, nll and correct ones of the classes that have any."""
    rows = zip(split.class_names, totals.by_class.tolist(), strict=True)
    return {name: (tokens, nll, correct) for name, (tokens, nll, correct, _) in rows if tokens}
