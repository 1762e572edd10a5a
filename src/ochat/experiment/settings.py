"""The settings of the ablation, fixed before the runs that count. How they were found stands in docs/ablation.md.

A change here makes other runs: the command refuses a folder that holds runs of other settings."""

from dataclasses import dataclass, replace

from ochat.experiment.addition import Addition
from ochat.model.tiny import TinyShape


@dataclass(frozen=True)
class Setting:
    """A task, a model, its training, and the runs that are made of it."""

    name: str
    task: Addition
    model_type: str
    conditions: tuple[str, str]  # the expert's, and the other's
    n_rows: int
    n_shown: int  # rows that a training of full length shows, over its epochs
    rows_a_step: int
    lr: float
    dtype: str
    seeds: tuple[int, ...]
    arms: tuple[str, ...]  # when none are named
    shape: TinyShape | None = None  # of a model of random weights, another for each seed; else it starts from a base model
    expert_share: float = 0.05
    weight: float = 0.1  # of the sub-optimal class
    quality: float = 0.3  # share of the sub-optimal answers that keep the carries, of sums that have any
    n_validation: int = 100
    n_test: int = 300
    max_reply_tokens: int = 8
    threads: int | None = None  # of a run; as many runs go on at once as the machine has room for


@dataclass(frozen=True)
class Point:
    """What may be turned in a setting, and which of it makes other runs."""

    expert_share: float
    weight: float
    quality: float
    shuffled: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"expert-{self.expert_share:g}-weight-{self.weight:g}-quality-{self.quality:g}" + "-shuffled" * self.shuffled


TINY = Setting(
    name="tiny",
    task=Addition(n_digits=2, padded=True, reversed=True),
    model_type="openchat_v3.2",  # the paper's templates
    conditions=("GPT4", "GPT3"),
    n_rows=3000,
    n_shown=1500 * 64,
    rows_a_step=64,
    lr=2.5e-3,
    dtype="float32",
    seeds=(1, 2, 3, 4, 5),
    arms=(
        *("c-rlft", "no-weight", "no-condition", "neither", "expert-only", "suboptimal-only", "two-stage", "filtered"),
        "shuffled",
    ),
    shape=TinyShape(hidden=96, layers=2, initial_std=0.06),
    threads=1,
)
# So short a training was chosen that 15 runs take about an hour on two cores; found with seeds 101 and 102.
SMOLLM2 = Setting(
    name="smollm2",
    task=Addition(n_digits=2),
    model_type="openchat_smollm2",
    conditions=("GPT4 Correct", "GPT3"),
    n_rows=1000,
    n_shown=2400,
    rows_a_step=16,
    lr=5e-4,
    dtype="bfloat16",
    seeds=(11, 12, 13, 14, 15),
    arms=("c-rlft", "neither", "expert-only", "base"),
    n_test=200,
    max_reply_tokens=12,
)
# The slow test's: experts are so many, and the others so seldom right, that it is learned soon, and that the weights alone turn the
# answers too. Found with seed 100.
SHORT = replace(
    TINY,
    name="short",
    n_rows=2000,
    n_shown=1000 * 64,
    expert_share=0.25,
    quality=0.1,
    n_test=200,
    seeds=(1, 2, 3),
    arms=("c-rlft", "no-condition", "neither"),
)
SETTINGS = {setting.name: setting for setting in (TINY, SMOLLM2, SHORT)}

# Values that a sweep goes through, and the arms that depend on them: the others are those of the setting itself.
SWEEPS: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "expert_share": ((0.01, 0.02, 0.05, 0.1, 0.2, 0.5), ("c-rlft", "neither", "expert-only")),
    "weight": ((0.0, 0.03, 0.1, 0.3, 1.0), ("c-rlft",)),
    "quality": ((0.0, 0.1, 0.3, 0.5, 0.7, 0.9), ("c-rlft", "neither")),
}
SWEEP_SEEDS = 3  # the first so many


def sweep_points(name: str, at: Point) -> list[Point]:
    """The points of a sweep through `at`, by its name in SWEEPS."""
    stays = {"expert_share": at.expert_share, "weight": at.weight, "quality": at.quality}
    turned = [{**stays, name: value} for value in SWEEPS[name][0]]
    return [Point(one["expert_share"], one["weight"], one["quality"], at.shuffled) for one in turned]
