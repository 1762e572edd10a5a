"""The model card's tables: which benchmarks are their columns, and what others reported.

The figures are OpenChat's, from the cards of openchat-3.5 (November 2023) and openchat-3.5-0106, which took some of them from other
papers; none was measured here."""

from collections.abc import Mapping
from dataclasses import dataclass

MT_BENCH = "mt_bench"  # a judge's mean score of 1 … 10, not a share


@dataclass(frozen=True)
class Table:
    """A table of the card; columns by the benchmarks' folders."""

    title: str
    columns: dict[str, str]
    reported: dict[str, tuple[float | None, ...]]

    def average(self, scores: Mapping[str, float | None]) -> float | None:
        """The mean of the columns in percent, MT-Bench ten times its score; None unless all are there."""
        values = [scores.get(folder) for folder in self.columns]
        if any(value is None for value in values):
            return None
        weights = [10 if folder == MT_BENCH else 1 for folder in self.columns]
        return sum(value * weight for value, weight in zip(values, weights, strict=True) if value is not None) / len(values)

    def reported_scores(self) -> dict[str, dict[str, float | None]]:
        """The reported rows by column."""
        return {name: dict(zip(self.columns, row, strict=True)) for name, row in self.reported.items()}


CARD = Table(
    "The model card's benchmarks",
    {
        MT_BENCH: "MT-Bench",
        "zs/agieval": "AGIEval",
        "zs/bbh_mc_orca": "BBH MC",
        "zs/truthfulqa_orca": "TruthfulQA",
        "fs_cothub/mmlu": "MMLU",
        "coding/humaneval": "HumanEval",
        "fs_cothub/bbh": "BBH CoT",
        "fs_cothub/gsm8k": "GSM8K",
    },
    {
        "OpenChat-3.5-0106": (7.8, 49.1, 51.5, 61.0, 65.8, 71.3, 62.2, 77.4),
        "OpenChat-3.5": (7.81, 47.4, 47.6, 59.1, 64.3, 55.5, 63.5, 77.3),
        "ChatGPT (March)": (7.94, 47.1, 47.6, 57.7, 67.3, 48.1, 70.1, 74.9),
        "OpenHermes 2.5": (7.54, 46.5, 49.4, 57.5, 63.8, 48.2, 59.9, 73.5),
        "OpenOrca Mistral": (6.86, 42.9, 49.4, 45.9, 59.3, 38.4, 58.1, 59.1),
        "Zephyr-β": (7.34, 39.0, 40.6, 40.8, 39.8, 22.0, 16.0, 5.1),
        "Mistral": (6.84, 38.0, 39.0, None, 60.1, 30.5, None, 52.2),
        "Open-source SOTA (13B-70B)": (7.71, 41.7, 49.7, 62.3, 63.7, 73.2, 41.4, 82.3),
    },
)
GROK = Table(
    "Beside Grok",
    {"fs_cothub/mmlu": "MMLU", "coding/humaneval": "HumanEval", "zs/math": "MATH", "fs_cothub/gsm8k": "GSM8K"},
    {
        "OpenChat-3.5-0106": (65.8, 71.3, 29.3, 77.4),
        "OpenChat-3.5": (64.3, 55.5, 28.6, 77.3),
        "Grok-0 (33B)": (65.7, 39.7, 15.7, 56.8),
        "Grok-1 (314B)": (73.0, 63.2, 23.9, 62.9),
    },
)
