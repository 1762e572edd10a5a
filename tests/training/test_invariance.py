"""Training comes to the same however its steps are divided, computed or interrupted.

That a planted fault is found is tested through the command: tests/experiment/test_doctor.py."""

import json
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.training.invariance import LOSS_LIMIT, WEIGHT_LIMIT, Arm, Comparison, arms, compare, compare_with


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def comparisons(folder: Path) -> dict[str, Comparison]:
    told: list[Comparison] = []
    found = compare(folder / "sound", tell=told.append)
    assert sorted(told, key=str) == sorted(found, key=str)
    return {comparison.name: comparison for comparison in found}


@pytest.mark.parametrize("arm", arms(), ids=lambda arm: arm.name)
def test_a_training_comes_to_the_same(comparisons: dict[str, Comparison], arm: Arm) -> None:
    found = comparisons[arm.name]
    assert not found.error
    assert found.is_same
    assert found.loss_difference <= (0 if arm.exact else LOSS_LIMIT)
    assert found.weight_difference <= (0 if arm.exact else WEIGHT_LIMIT)


def test_the_reference_is_30_steps_of_three_classes_that_learn(comparisons: dict[str, Comparison], folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "sound" / "reference" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert {name for line in lines for name in line["classes"]} == {"expert", "middle", "plain"}
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert len(comparisons) == len(arms())


def test_a_run_that_fails_or_leaves_other_steps_is_told(comparisons: dict[str, Comparison], folder: Path) -> None:
    def fail(output: Path) -> None:
        raise OchatError("no room")

    def stop_early(output: Path) -> None:
        output.mkdir()
        (output / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')

    reference = folder / "sound" / "reference"
    failed = compare_with(Arm("fails", fail), reference)
    stopped = compare_with(Arm("stops", stop_early), reference)
    assert not failed.is_same
    assert "DIFFERS  fails" in failed.line()
    assert "no room" in failed.line()
    assert not stopped.is_same
    assert "it took 1 steps, the reference 30" in stopped.line()
