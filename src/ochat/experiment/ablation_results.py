"""What the ablation's runs came to: means and intervals over seeds, differences, and what they say in words."""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from ochat.experiment.arms import ARMS, BASE, BY_NAME, C_RLFT, EXPERT_CLASS, SHUFFLED, SUBOPTIMAL_CLASS
from ochat.experiment.settings import SWEEPS, Point, Setting, sweep_points

NOT_NOTED = "not noted"
SWEPT_ARMS = {arm for _, arms in SWEEPS.values() for arm in arms}


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
    machine: str  # empty where it wasn't noted
    losses: Mapping[str, Mapping[str, float]]  # nats a token of each source's answers, by condition
    versions: str = NOT_NOTED  # of ochat and torch


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
    return ArmRun(
        job.seed,
        conditions,
        accuracy,
        mistaken,
        tuple(done["shares"]),
        sum(done["steps"]),
        done["seconds"],
        done.get("machine", ""),
        losses,
        done.get("versions", NOT_NOTED),
    )


@dataclass(frozen=True)
class SweepValue:
    """The arms at one value of a sweep; those that don't depend on it are the same at each."""

    value: float
    arms: Mapping[str, Sequence[ArmRun]]

    @property
    def leads(self) -> dict[str, Estimate]:
        """By how much more C-RLFT is right than each other arm, over the seeds that both have."""
        full = self.arms.get(C_RLFT.name, ())
        return {arm: difference(full, runs) for arm, runs in self.arms.items() if full and arm != C_RLFT.name}


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

    @property
    def machines(self) -> list[str]:
        """What the runs were computed on, as far as it was noted."""
        return sorted({run.machine for run in self._runs()} - {""})

    @property
    def versions(self) -> list[str]:
        """The versions that the runs were made with, those that weren't noted as one."""
        return sorted({run.versions for run in self._runs()})

    def _runs(self) -> Iterator[ArmRun]:
        at = [value.arms for values in self.sweeps.values() for value in values]
        return (run for arms in (self.arms, *at) for runs in arms.values() for run in runs)

    def as_json(self) -> dict[str, Any]:
        """The runs' figures, and what they come to."""
        full = self.arms.get(C_RLFT.name, ())
        return {
            "setting": asdict(self.setting),
            "point": asdict(self.point),
            "seeds": self.seeds,
            "machines": self.machines,
            "versions": self.versions,
            "arms": {
                name: {
                    "title": BY_NAME[name].title,
                    "accuracy": accuracy(runs).as_json(),
                    "c_rlft_lead": difference(full, runs).as_json() if full and name != C_RLFT.name else None,
                    "condition_effect": condition_effect(runs).as_json() if len(runs[0].conditions) > 1 else None,
                    "loss_effects": {source: effect.as_json() for source, effect in loss_effects(runs).items()},
                    "runs": [asdict(run) for run in runs],
                }
                for name, runs in self.arms.items()
            },
            "sweeps": {
                name: [
                    {
                        "value": at.value,
                        "arms": {arm: {**accuracy(runs).as_json(), "by_seed": judged(runs)} for arm, runs in at.arms.items()},
                        "c_rlft_leads": {arm: lead.as_json() for arm, lead in at.leads.items()},
                    }
                    for at in values
                ]
                for name, values in self.sweeps.items()
            },
        }


def collect(jobs: Sequence[Job], setting: Setting, at: Point, names: Sequence[str]) -> Results:
    """The results of finished jobs: the named arms at the point, and sweeps through it, over the seeds that were swept."""
    found: dict[Point, dict[str, list[ArmRun]]] = {}
    folders: dict[str, list[Path]] = {}
    for job in jobs:
        found.setdefault(job.point, {}).setdefault(job.arm_name, []).append(read_arm(job))
        if job.point == at:
            folders.setdefault(job.arm_name, []).append(job.folder)
    arms = {arm.name: found[at][arm.name] for arm in ARMS if arm.name in names and arm.name in found[at]}
    sweeps: dict[str, list[SweepValue]] = {}
    for name, (values, of_arms) in SWEEPS.items():
        points = [(value, point) for value, point in zip(values, sweep_points(name, at), strict=True) if point in found]
        turned = [point for _, point in points if point != at]
        if not turned:
            continue
        seeds = {run.seed for point in turned for runs in found[point].values() for run in runs}
        same = {arm: runs for arm, runs in found.get(at, {}).items() if arm in SWEPT_ARMS and arm not in of_arms}
        sweeps[name] = []
        for value, point in points:
            there = {arm: found[point][arm] for arm in of_arms if arm in found[point]} | same
            of_seeds = {arm: [run for run in runs if run.seed in seeds] for arm, runs in there.items()}
            sweeps[name].append(SweepValue(value, of_seeds))
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


def loss_effects(runs: Sequence[ArmRun]) -> dict[str, Estimate]:
    """By how many nats a token each source's condition makes its own answers likelier than the other's does, in the same models."""
    if not all(run.losses for run in runs):
        return {}
    own, other = runs[0].conditions
    return {
        EXPERT_CLASS: mean_of_runs([run.losses[EXPERT_CLASS][other] - run.losses[EXPERT_CLASS][own] for run in runs]),
        SUBOPTIMAL_CLASS: mean_of_runs(
            [run.losses[SUBOPTIMAL_CLASS][own] - run.losses[SUBOPTIMAL_CLASS][other] for run in runs]
        ),
    }


def _told_losses(runs: Sequence[ArmRun]) -> str:
    effects = loss_effects(runs)
    return f"right answers {effects[EXPERT_CLASS].signed()}, forgotten carries {effects[SUBOPTIMAL_CLASS].signed()}"


def verdict(results: Results) -> list[str]:
    """What the arms say of C-RLFT, what beats it first; before that, whether the runs are of several versions."""
    told = _told_arms(results)
    if len(results.versions) > 1:
        told.insert(0, f"The runs are of several versions ({'; '.join(results.versions)}): what differs may be their doing.")
    return told


def _told_arms(results: Results) -> list[str]:
    if C_RLFT.name not in results.arms:
        return []
    if len(results.seeds) < 2:
        return ["One seed says nothing about the next: give two or more, as --seeds 3."]
    full = results.arms[C_RLFT.name]
    no_rivals = (C_RLFT.name, SHUFFLED.name, BASE.name)
    others = {name: difference(full, runs) for name, runs in results.arms.items() if name not in no_rivals}
    lines = []
    for title, chosen in (
        ("Better than C-RLFT (C-RLFT's lead, 95 % interval)", [name for name, d in others.items() if d.high < 0]),
        ("Not told apart from C-RLFT by these seeds", [name for name, d in others.items() if d.low <= 0 <= d.high]),
        ("C-RLFT is better than", [name for name, d in others.items() if d.low > 0]),
    ):
        if chosen:
            told = "; ".join(f"{BY_NAME[name].title} ({others[name].signed()})" for name in chosen)
            lines.append(f"{title}: {told}.")
    effect = condition_effect(full)
    lines.append(f"The same models are right by {effect.signed()} more under the expert's condition than under the other.")
    if loss_effects(full):
        lines.append(f"Nats a token that each source's condition makes its own answers likelier by: {_told_losses(full)}.")
    if results.point.shuffled:
        lines.append("In every arm the conditions were dealt out to the rows at random: there this effect should vanish.")
    elif SHUFFLED.name in results.arms:
        null = condition_effect(results.arms[SHUFFLED.name])
        vanished = null.low <= 0 <= null.high
        lines.append(
            f"Null control: with conditions shuffled between rows that effect is {null.signed()}: "
            + (
                "0 is within its interval, as it should be."
                if vanished
                else "0 is NOT within its interval, so something else than the condition is at work."
            )
        )
        if loss_effects(results.arms[SHUFFLED.name]):
            lines.append(f"The same nats a token with conditions shuffled: {_told_losses(results.arms[SHUFFLED.name])}.")
    return lines


def sweep_verdict(values: Sequence[SweepValue], other: str) -> str:
    """By how much C-RLFT is better than another arm along a sweep, and where that is more than 0, in words."""
    leads = {at.value: at.leads[other] for at in values if other in at.leads}
    of_sign = {
        "better": [value for value, lead in leads.items() if lead.low > 0],
        "not told apart": [value for value, lead in leads.items() if lead.low <= 0 <= lead.high],
        "worse": [value for value, lead in leads.items() if lead.high < 0],
    }
    told = ", ".join(f"{sign} at {', '.join(f'{v:g}' for v in at)}" for sign, at in of_sign.items() if at)
    figures = "; ".join(f"{value:g}: {lead.signed()}" for value, lead in leads.items())
    return f"C-RLFT's lead over {BY_NAME[other].title}: {told} ({figures})." if told else ""


def table(results: Results) -> str:
    """The arms' figures as text."""
    titles = [BY_NAME[name].title for name in results.arms]
    width = max(map(len, [*titles, "arm"]))
    n = len(results.seeds)
    lines = [f"{'arm':<{width}}  right [95 % interval, {n} seeds]  carries forgotten  other condition  C-RLFT's lead"]
    full = results.arms.get(C_RLFT.name)
    for title, (name, runs) in zip(titles, results.arms.items(), strict=True):
        mistaken = mean_of_runs([run.mistaken[run.conditions[0]] for run in runs]).value
        second = runs[0].conditions[1:]
        other = f"{mean_of_runs([run.accuracy[second[0]] for run in runs]).value:.3f}" if second else "–"
        lead = difference(full, runs).signed() if full and name != C_RLFT.name else ""
        lines.append(f"{title:<{width}}  {accuracy(runs)!s:<35}  {mistaken:>17.3f}  {other:>15}  {lead}".rstrip())
    for name, values in results.sweeps.items():
        of_arms = list(dict.fromkeys(arm for at in values for arm in at.arms))
        lines.append("")
        lines.append(f"{name.replace('_', ' '):<16}" + "".join(f"{BY_NAME[arm].title:>30}" for arm in of_arms))
        for at in values:
            cells = [f"{accuracy(at.arms[arm])!s:>30}" if arm in at.arms else f"{'–':>30}" for arm in of_arms]
            lines.append(f"{at.value:<16g}" + "".join(cells))
        lines += [told for arm in of_arms if arm != C_RLFT.name and (told := sweep_verdict(values, arm))]
    return "\n".join([*lines, "", *verdict(results)])
