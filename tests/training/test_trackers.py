"""Trackers as their own readers see them; trackio and wandb where they're installed."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ochat.errors import OchatError
from ochat.training import trackers
from ochat.training.trackers import flatten, open_tracker

LINE = {
    "step": 1,
    "loss": 2.5,
    "classes": {"expert": {"tokens": 120, "nll": 1.25}, "": {"tokens": 3, "nll": 4.0}},
    "counterfactual": {"expert": {"GPT4 Correct": 1.1}},
    "note": "text",
}
FLAT = {
    "loss": 2.5,
    "classes/expert/tokens": 120.0,
    "classes/expert/nll": 1.25,
    "classes/(none)/tokens": 3.0,
    "classes/(none)/nll": 4.0,
    "counterfactual/expert/GPT4 Correct": 1.1,
}
CONFIG = {"epochs": 3, "lr": None, "data": Path("d")}


def installed(package: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not found, reason=f"needs {package}: pip install -e '.[{package}]'")


def test_a_nested_line_becomes_numbers_by_path() -> None:
    assert flatten(LINE) == FLAT


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    with open_tracker("none", tmp_path, CONFIG) as track:
        track(1, LINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_missing_is_named_with_its_extra(
    name: trackers.TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else found(module))
    with (
        pytest.raises(OchatError, match=rf"--track {name} needs `{name}`.*pip install -e '\.\[{name}\]'"),
        open_tracker(name, tmp_path, CONFIG),
    ):
        pass


def tensorboard_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@installed("tensorboard")
@pytest.mark.filterwarnings("ignore")  # tensorboard's and protobuf's own
def test_tensorboard_reads_back_what_was_sent_also_after_a_kill(tmp_path: Path) -> None:
    with open_tracker("tensorboard", tmp_path, CONFIG) as track:
        for step in (1, 2, 3):
            track(step, LINE | {"loss": step})
            assert [value for _, value in tensorboard_scalars(tmp_path)["loss"]] == [1, 2, 3][:step]
    assert set(tensorboard_scalars(tmp_path)) == set(FLAT)
    assert tensorboard_scalars(tmp_path)["classes/expert/nll"] == [(1, 1.25), (2, 1.25), (3, 1.25)]
    with open_tracker("tensorboard", tmp_path, CONFIG) as track:  # goes on after step 1, the last one saved
        track(2, LINE | {"loss": 20.0})
    assert tensorboard_scalars(tmp_path)["loss"] == [(1, 1.0), (2, 20.0)]


@installed("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_at_once_leaves_no_events(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_tracker("tensorboard", tmp_path, CONFIG):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


# In processes of their own: both start threads and services that outlive a test.
TRACK = """
import sys
sys.path.append(sys.argv[4])
from pathlib import Path
from ochat.training.trackers import open_tracker
line = {"loss": 2.5, "classes": {"expert": {"nll": 1.25}}}
with open_tracker(sys.argv[1], Path(sys.argv[2]), {"epochs": 3}) as track:
    for step in map(int, sys.argv[3].split(",")):
        track(step, line | {"loss": float(step)})
"""


def track_in_a_process(name: str, run: Path, steps: str, **environment: str) -> None:
    import os
    import subprocess

    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    command = [sys.executable, "-c", TRACK, name, str(run), steps, str(Path(spec.origin).parent.parent)]
    done = subprocess.run(
        command, env=os.environ | environment, cwd=run, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@installed("trackio")
def test_trackio_keeps_a_run_in_its_local_database(tmp_path: Path) -> None:
    import sqlite3

    run = tmp_path / "first"
    run.mkdir()
    track_in_a_process("trackio", run, "1,2", TRACKIO_DIR=str(tmp_path / "kept"))
    track_in_a_process("trackio", run, "3", TRACKIO_DIR=str(tmp_path / "kept"))  # the run goes on
    (database,) = (tmp_path / "kept").rglob("ochat*.db")
    with sqlite3.connect(database) as connection:
        rows: list[tuple[Any, ...]] = connection.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("first", 1), ("first", 2), ("first", 3)]
    assert json.loads(rows[1][2]) == {"loss": 2.0, "classes/expert/nll": 1.25}


@installed("wandb")
def test_wandb_keeps_an_offline_run_in_the_runs_folder(tmp_path: Path) -> None:
    run = tmp_path / "first"
    run.mkdir()
    track_in_a_process("wandb", run, "1,2", WANDB_MODE="offline", WANDB_SILENT="true")
    (record,) = run.rglob("run-*.wandb")
    assert b"classes/expert/nll" in record.read_bytes()
