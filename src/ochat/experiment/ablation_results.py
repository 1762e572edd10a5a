"""What the ablation's runs came to: means and intervals over seeds, differences, and what they say in words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ochat.evaluation.statistics import Estimate, mean_of_runs
from ochat.experiment.ablation_run import (
    DONE_FILE,
    LOSSES_FILE,
    Job,
    conditions_asked,
    read_correct,
    read_mistaken,
    replies_file,
)
from ochat.experiment.arms import ARMS, BY_NAME, C_RLFT, SHUFFLED
from ochat.experiment.settings import SWEEPS, Point, Setting, sweep_points


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed: shares of the questions, by the condition asked under."""

    seed: int
    conditions: tuple[str, ...]
    accuracy: Mapping[str, float]
    mistaken: Mapping[str, float]  # of the questions with a carry, the share answered as if there were none
    shares: tuple[float, ...]
    steps: int
    seconds: float
    losses: Mapping[str, Mapping[str, float]]  # nats a token of each source's answers, by condition


def read_arm(job: Job) -> ArmRun:
    """A finished job's results, its replies graded now."""
    done = json.loads((job.folder / DONE_FILE).read_text(encoding="utf-8"))
    conditions = conditions_asked(job.arm, job.setting)
    accuracy: dict[str, float] = {}
    mistaken: dict[str, float] = {}
    for condition in conditions:
        path = job.folder / replies_file(condition)
        for into, graded in ((accuracy, read_correct(path)), (mistaken, read_mistaken(path))):
            into[condition] = sum(graded) / len(graded)
    losses_file = job.folder / LOSSES_FILE
    losses = json.loads(losses_file.read_text(encoding="utf-8")) if losses_file.is_file() else {}
    return ArmRun(job.seed, conditions, accuracy, mistaken, tuple(done["shares"]), sum(done["steps"]), done["seconds"], losses)


@dataclass(frozen=True)
class SweepValue:
    """The arms at one value of a sweep."""

    value: float
    arms: Mapping[str, Sequence[ArmRun]]


@dataclass(frozen=True)
class Results:
    """All runs of a setting that were asked for, by arm."""

    setting: Setting
    point: Point
    arms: Mapping[str, Sequence[ArmRun]]
    sweeps: Mapping[str, Sequence[SweepValue]]
    folders: Mapping[str, Sequence[Path]]  # of each arm's runs, in the order of `arms`

    @property
    def seeds(self) -> list[int]:
        """The seeds of the arms."""
        return sorted({run.seed for runs in self.arms.values() for run in runs})

    def as_json(self) -> dict[str, Any]:
        """The runs' figures, and what they come to."""
        full = self.arms.get(C_RLFT.name, ())
        return {
            "setting": asdict(self.setting),
            "point": asdict(self.point),
            "seeds": self.seeds,
            "arms": {
                name: {
                    "title": BY_NAME[name].title,
                    "accuracy": asdict(accuracy(runs)),
                    "below_c_rlft": asdict(difference(full, runs)) if full and name != C_RLFT.name else None,
                    "condition_effect": asdict(condition_effect(runs)) if len(runs[0].conditions) > 1 else None,
                    "runs": [asdict(run) for run in runs],
                }
                for name, runs in self.arms.items()
            },
            "sweeps": {
                name: [
                    {"value": at.value, "arms": {arm: asdict(accuracy(runs)) for arm, runs in at.arms.items()}} for at in values
                ]
                for name, values in self.sweeps.items()
            },
        }


def collect(jobs: Sequence[Job], setting: Setting, at: Point) -> Results:
    """The results of finished jobs: arms at the point, and sweeps through it."""
    found: dict[Point, dict[str, list[ArmRun]]] = {}
    folders: dict[str, list[Path]] = {}
    for job in jobs:
        found.setdefault(job.point, {}).setdefault(job.arm_name, []).append(read_arm(job))
        if job.point == at:
            folders.setdefault(job.arm_name, []).append(job.folder)
    arms = {arm.name: found[at][arm.name] for arm in ARMS if arm.name in found[at]}
    sweeps = {}
    for name, (values, of_arms) in SWEEPS.items():
        points = list(zip(values, sweep_points(name, at), strict=True))
        if any(point != at and point in found for _, point in points):
            sweeps[name] = [
                SweepValue(value, {arm: found[point][arm] for arm in of_arms if arm in found[point]})
                for value, point in points
                if point in found
            ]
    return Results(setting, at, arms, sweeps, folders)


def judged(runs: Sequence[ArmRun]) -> dict[int, float]:
    """Each seed's share of right answers, under the condition that the arm is judged by."""
    return {run.seed: run.accuracy[run.conditions[0]] for run in runs}


def accuracy(runs: Sequence[ArmRun]) -> Estimate:
    """The mean share of right answers over the seeds."""
    return mean_of_runs(list(judged(runs).values()))


def difference(one: Sequence[ArmRun], other: Sequence[ArmRun]) -> Estimate:
    """By how much more of its answers `one` is right, over the seeds that both have. Raises ValueError for none."""
    first, second = judged(one), judged(other)
    return mean_of_runs([first[seed] - second[seed] for seed in first if seed in second])


def condition_effect(runs: Sequence[ArmRun]) -> Estimate:
    """By how much more answers of the same models are right under the expert's condition than under the other."""
    return mean_of_runs([run.accuracy[run.conditions[0]] - run.accuracy[run.conditions[1]] for run in runs])


def verdict(results: Results) -> list[str]:
    """What the arms say of C-RLFT, what beats it first."""
    if C_RLFT.name not in results.arms:
        return []
    if len(results.seeds) < 2:
        return ["One seed says nothing about the next: give two or more, as --seeds 3."]
    full = results.arms[C_RLFT.name]
    others = {name: difference(full, runs) for name, runs in results.arms.items() if name not in (C_RLFT.name, SHUFFLED.name)}
    lines = []
    for title, chosen in (
        ("Better than C-RLFT (C-RLFT's lead, 95 % interval)", [name for name, d in others.items() if d.high < 0]),
        ("Not told apart from C-RLFT", [name for name, d in others.items() if d.low <= 0 <= d.high]),
        ("C-RLFT is better than", [name for name, d in others.items() if d.low > 0]),
    ):
        if chosen:
            told = "; ".join(f"{BY_NAME[name].title} ({others[name].signed()})" for name in chosen)
            lines.append(f"{title}: {told}.")
    if SHUFFLED.name in results.arms:
        effect = condition_effect(results.arms[SHUFFLED.name])
        vanished = effect.low <= 0 <= effect.high
        lines.append(
            f"Null control: with conditions shuffled between rows the condition's effect is {effect.signed()}: "
            + (
                "it vanishes, as it should."
                if vanished
                else "it does NOT vanish, so something else than the condition is at work."
            )
        )
    return lines


def sweep_verdict(values: Sequence[SweepValue], other: str) -> str:
    """Where in a sweep C-RLFT is better than another arm, in words."""
    of_sign: dict[str, list[str]] = {"better": [], "not told apart": [], "worse": []}
    for at in values:
        if C_RLFT.name in at.arms and other in at.arms:
            d = difference(at.arms[C_RLFT.name], at.arms[other])
            of_sign["better" if d.low > 0 else "worse" if d.high < 0 else "not told apart"].append(f"{at.value:g}")
    told = ", ".join(f"{sign} at {', '.join(places)}" for sign, places in of_sign.items() if places)
    return f"C-RLFT beside {BY_NAME[other].title}: {told}." if told else ""


def table(results: Results) -> str:
    """The arms' figures as text."""
    titles = [BY_NAME[name].title for name in results.arms]
    width = max(map(len, [*titles, "arm"]))
    n = len(results.seeds)
    lines = [f"{'arm':<{width}}  right [95 % interval, {n} seeds]  without carries  other condition  C-RLFT's lead"]
    full = results.arms.get(C_RLFT.name)
    for title, (name, runs) in zip(titles, results.arms.items(), strict=True):
        mistaken = mean_of_runs([run.mistaken[run.conditions[0]] for run in runs]).value
        second = runs[0].conditions[1:]
        other = f"{mean_of_runs([run.accuracy[second[0]] for run in runs]).value:.3f}" if second else "–"
        lead = difference(full, runs).signed() if full and name != C_RLFT.name else ""
        lines.append(f"{title:<{width}}  {accuracy(runs)!s:<35}  {mistaken:>15.3f}  {other:>15}  {lead}".rstrip())
    for name, values in results.sweeps.items():
        of_arms = list(dict.fromkeys(arm for at in values for arm in at.arms))
        lines.append("")
        lines.append(f"{name.replace('_', ' '):<16}" + "".join(f"{BY_NAME[arm].title:>30}" for arm in of_arms))
        for at in values:
            cells = [f"{accuracy(at.arms[arm])!s:>30}" if arm in at.arms else f"{'–':>30}" for arm in of_arms]
            lines.append(f"{at.value:<16g}" + "".join(cells))
        lines += [told for arm in of_arms if arm != C_RLFT.name and (told := sweep_verdict(values, arm))]
    return "\n".join([*lines, "", *verdict(results)])
