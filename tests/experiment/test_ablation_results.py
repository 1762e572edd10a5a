"""What the ablation says of its runs, from runs that are made by hand."""

from pathlib import Path

import pytest

from ochat.experiment import ablation_results
from ochat.experiment.ablation_results import ArmRun, Results, SweepValue, collect, loss_effects, sweep_verdict, table, verdict
from ochat.experiment.ablation_run import Job
from ochat.experiment.settings import TINY, Point, sweep_points

AT = Point(TINY.expert_share, TINY.weight, TINY.quality)
LOSSES = {"expert": {"GPT4": 0.1, "GPT3": 0.4}, "suboptimal": {"GPT4": 0.9, "GPT3": 0.3}}


def arm_run(seed: int, right: float, other: float | None = None, losses: dict[str, dict[str, float]] | None = None) -> ArmRun:
    accuracy = {"none": right} if other is None else {"GPT4": right, "GPT3": other}
    mistaken = dict.fromkeys(accuracy, 0.0)
    return ArmRun(seed, tuple(accuracy), accuracy, mistaken, (1.0,), 10, 1.0, "", losses or {})


def results(arms: dict[str, list[float]], shuffled: list[tuple[float, float]] | None = None) -> Results:
    """Arms with a run of each seed; C-RLFT's models are right 0.1 of the time under the other condition."""
    runs = {
        name: [arm_run(seed, value, 0.1 if name == "c-rlft" else None) for seed, value in enumerate(values)]
        for name, values in arms.items()
    }
    if shuffled:
        runs["shuffled"] = [arm_run(seed, *values) for seed, values in enumerate(shuffled)]
    return Results(TINY, AT, runs, {}, {})


def test_what_beats_c_rlft_is_said_first() -> None:
    told = verdict(
        results(
            {
                "c-rlft": [0.90, 0.91, 0.92],
                "neither": [0.40, 0.42, 0.41],
                "filtered": [1.00, 1.00, 1.00],
                "two-stage": [0.80, 0.99, 0.93],
            }
        )
    )
    assert told[0].startswith("Better than C-RLFT (C-RLFT's lead, 95 % interval): SFT on what a verifier passes (-0.090 [")
    assert told[1].startswith("Not told apart from C-RLFT by these seeds: sub-optimal, then expert (")
    assert told[2].startswith("C-RLFT is better than: plain SFT on all (+0.500 [")
    assert told[3].startswith("The same models are right by +0.810 [")


@pytest.mark.parametrize(
    ("shuffled", "says"),
    [
        ([(0.5, 0.52), (0.5, 0.48), (0.5, 0.5)], "0 is within its interval, as it should be."),
        ([(0.60, 0.50), (0.61, 0.50), (0.62, 0.50)], "0 is NOT within its interval"),
    ],
)
def test_the_null_control_is_judged_by_its_interval(shuffled: list[tuple[float, float]], says: str) -> None:
    told = verdict(results({"c-rlft": [0.9, 0.91, 0.92]}, shuffled))
    assert says in told[-1]
    assert not any(
        line.startswith(("Better", "Not told apart", "C-RLFT is better")) for line in told
    )  # the control is no rival


def test_one_seed_says_nothing() -> None:
    assert verdict(results({"c-rlft": [0.9], "neither": [0.1]})) == [
        "One seed says nothing about the next: give two or more, as --seeds 3."
    ]


def test_losses_are_compared_in_the_same_models_each_source_under_its_own_condition() -> None:
    less = {"expert": {"GPT4": 0.1, "GPT3": 0.2}, "suboptimal": {"GPT4": 0.5, "GPT3": 0.3}}
    found = loss_effects([arm_run(1, 0.9, 0.1, LOSSES), arm_run(2, 0.9, 0.1, less)])
    assert found["expert"].value == pytest.approx((0.3 + 0.1) / 2)
    assert found["suboptimal"].value == pytest.approx((0.6 + 0.2) / 2)
    assert found["expert"].low < found["expert"].value < found["expert"].high
    assert loss_effects([arm_run(1, 0.9)]) == {}


def test_where_a_sweep_stops_helping_is_told() -> None:
    def at(value: float, full: list[float], plain: list[float]) -> SweepValue:
        return SweepValue(
            value,
            {
                "c-rlft": [arm_run(seed, right, 0.1) for seed, right in enumerate(full)],
                "neither": [arm_run(seed, right) for seed, right in enumerate(plain)],
            },
        )

    values = [
        at(0.1, [0.9, 0.91], [0.5, 0.52]),
        at(0.2, [0.9, 0.7], [0.7, 0.9]),
        at(0.5, [0.80, 0.81], [0.90, 0.91]),
    ]
    told = sweep_verdict(values, "neither")
    assert told.startswith(
        "C-RLFT's lead over plain SFT on all: better at 0.1, not told apart at 0.2, worse at 0.5 (0.1: +0.395"
    )
    assert sweep_verdict(values, "filtered") == ""


def test_a_sweeps_values_have_the_same_seeds_and_its_arms_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_results, "read_arm", lambda job: arm_run(job.seed, job.point.weight, 0.0))

    def job(point: Point, name: str, seed: int) -> Job:
        return Job(TINY, point, name, seed, Path("base"), Path(name) / str(seed))

    jobs = [job(AT, "neither", seed) for seed in (1, 2, 3, 4, 5)]
    jobs += [job(point, "c-rlft", seed) for point in sweep_points("weight", AT) for seed in (1, 2, 3)]
    found = collect(jobs, TINY, AT, ["neither"])
    assert list(found.arms) == ["neither"]
    assert len(found.arms["neither"]) == 5
    assert [at.value for at in found.sweeps["weight"]] == [0.0, 0.03, 0.1, 0.3, 1.0]
    for at in found.sweeps["weight"]:
        assert {name: [run.seed for run in runs] for name, runs in at.arms.items()} == {
            "c-rlft": [1, 2, 3],
            "neither": [1, 2, 3],
        }
    swept = found.as_json()["sweeps"]["weight"]
    assert swept[1]["arms"]["c-rlft"]["by_seed"] == {1: 0.03, 2: 0.03, 3: 0.03}
    assert "5 seeds" in table(found)
