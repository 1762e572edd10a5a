"""The ablation as a command, on a setting so small that it learns nothing: what it keeps, repeats, refuses and prints."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from ochat import cli
from ochat.errors import OchatError
from ochat.experiment import ablation, ablation_run, settings
from ochat.experiment.ablation import Options, command_of, parse_seeds, run
from ochat.experiment.ablation_run import Job, draw, make_base
from ochat.experiment.addition import Addition, Pair
from ochat.experiment.arms import BY_NAME
from ochat.experiment.settings import SETTINGS, SWEEPS, TINY, Point, Setting, sweep_points
from ochat.model import base as embedded
from ochat.model.tiny import TinyShape

MICRO = replace(
    TINY,
    n_rows=60,
    n_shown=120,
    rows_a_step=30,
    n_validation=5,
    n_test=20,
    shape=TinyShape(hidden=32, layers=1, initial_std=0.06),
    arms=("c-rlft", "expert-only", "shuffled"),
)
POINT = Point(MICRO.expert_share, MICRO.weight, MICRO.quality)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two seeds were run."""
    folder = tmp_path_factory.mktemp("ablation")
    run(Options(folder=folder, seeds="7,8"), MICRO)
    return folder


def arm(done: Path, name: str, seed: int = 7) -> Path:
    return done / POINT.name / f"seed-{seed}" / name


def test_replies_checkpoints_and_rows_are_kept(done: Path) -> None:
    for name, conditions in (("c-rlft", ("GPT4", "GPT3")), ("expert-only", ("none",))):
        for condition in conditions:
            lines = (arm(done, name) / f"replies-{condition}.jsonl").read_text(encoding="utf-8").splitlines()
            assert len(lines) == MICRO.n_test
            assert json.loads(lines[0]).keys() == {"question", "label", "without_carries", "reply"}
        model = arm(done, name) / json.loads((arm(done, name) / "done.json").read_text(encoding="utf-8"))["model"]
        assert (model / "model.safetensors").is_file()
        assert len((arm(done, name) / "stage-1" / "rows.jsonl").read_text(encoding="utf-8").splitlines()) in (60, 3)


def test_of_several_lengths_the_chosen_one_keeps_its_weights(done: Path) -> None:
    weights = list(arm(done, "expert-only").rglob("model.safetensors"))
    assert len(weights) == 1
    assert len(list(arm(done, "expert-only").rglob("validation-*.jsonl"))) == 3


def test_the_results_tell_each_seed_and_the_mean(done: Path) -> None:
    results = json.loads((done / "results.json").read_text(encoding="utf-8"))
    assert results["seeds"] == [7, 8]
    assert list(results["arms"]) == ["c-rlft", "expert-only", "shuffled"]
    full = results["arms"]["c-rlft"]
    values = [one["accuracy"]["GPT4"] for one in full["runs"]]
    assert full["accuracy"]["value"] == pytest.approx(sum(values) / 2)
    assert full["runs"][0]["losses"].keys() == {"expert", "suboptimal"}


def test_the_page_shows_every_part(done: Path) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    for title in ("Every arm", "Does the condition do anything?", "Inside the model", "Curves", "What doesn't carry over"):
        assert f"<h2>{title}</h2>" in page
    assert {path.stem for path in (done / "figures").glob("*.svg")} == {"arms", "losses", "states", "curves"}


def test_repeated_it_trains_nothing_and_grades_the_kept_replies(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "pool", None)  # no process may be started
    path = arm(done, "expert-only", 8) / "replies-none.jsonl"
    before = path.read_text(encoding="utf-8")
    entries = [json.loads(line) for line in before.splitlines()]
    path.write_text("".join(json.dumps(e | {"reply": e["label"]}) + "\n" for e in entries), encoding="utf-8")
    try:
        run(Options(folder=done, seeds="8,", json=True), MICRO)
    finally:
        path.write_text(before, encoding="utf-8")
    results = json.loads(capsys.readouterr().out)
    assert results["arms"]["expert-only"]["accuracy"]["value"] == 1.0


def test_a_run_that_was_cut_off_is_finished_as_if_it_had_not_been(done: Path) -> None:
    run(Options(folder=done, seeds="7,8"), MICRO)
    before = json.loads((done / "results.json").read_text(encoding="utf-8"))["arms"]
    # The second after its lengths were compared, when the weights of those that weren't chosen are gone already.
    for name, lost in {"c-rlft": ("done.json", "replies-GPT3.jsonl", "losses.json"), "expert-only": ("done.json",)}.items():
        for file in lost:
            (arm(done, name) / file).unlink()
    run(Options(folder=done, seeds="7,8"), MICRO)
    after = json.loads((done / "results.json").read_text(encoding="utf-8"))["arms"]
    for name in before:
        for one, other in zip(before[name]["runs"], after[name]["runs"], strict=True):
            assert one | {"seconds": 0} == other | {"seconds": 0}
    assert len(list(arm(done, "expert-only").rglob("model.safetensors"))) == 1


@pytest.mark.parametrize(
    ("right", "chosen"), [({"0.0625": 1, "0.25": 3, "1": 2}, 0.25), ({"0.0625": 2, "0.25": 1, "1": 2}, 0.0625)]
)
def test_validation_questions_choose_the_length_and_of_equals_the_shortest(
    right: dict[str, int], chosen: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(setting: Setting, base: Path, data: Path, run: Path, share: float, seed: int) -> int:
        (run / "final").mkdir(parents=True)
        (run / "final" / "model.safetensors").touch()
        return round(100 * share)

    def ask(job: Job, model: Path, pairs: Sequence[Pair], condition: str, output: Path) -> None:
        n_right = right[model.parent.name.removeprefix("run-")]
        replies = [{"question": "1+1", "label": "2", "reply": "2" if number < n_right else "3"} for number in range(5)]
        output.write_text("".join(json.dumps(reply) + "\n" for reply in replies), encoding="utf-8")

    monkeypatch.setattr(ablation_run, "_train", train)
    monkeypatch.setattr(ablation_run, "_ask", ask)
    make_base(MICRO, 7, tmp_path / "base")
    job = Job(MICRO, POINT, "expert-only", 7, tmp_path / "base", tmp_path / "runs")
    job.folder.mkdir()
    model, share, steps = ablation_run._stage(job, 0, job.arm.stages[0], draw(MICRO, POINT, 7), job.base)
    assert (share, steps) == (chosen, round(100 * chosen))
    assert list(job.folder.rglob("model.safetensors")) == [model / "model.safetensors"]


def test_runs_of_several_versions_are_told(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is gone on with after an update holds runs of both."""
    own = f"ochat {version('ochat-crlft')}, torch {version('torch')}"
    path = arm(done, "c-rlft") / "done.json"
    text = path.read_text(encoding="utf-8")
    noted = json.loads(text)
    assert noted["versions"] == own
    run(Options(folder=done, seeds="7,8"), MICRO)
    assert "several versions" not in capsys.readouterr().out
    without = {key: value for key, value in noted.items() if key != "versions"}  # as an earlier ochat wrote it
    for older, name in ((noted | {"versions": "ochat 0.0.9, torch 2.0"}, "ochat 0.0.9, torch 2.0"), (without, "not noted")):
        try:
            path.write_text(json.dumps(older), encoding="utf-8")
            run(Options(folder=done, seeds="7,8"), MICRO)
        finally:
            path.write_text(text, encoding="utf-8")
        told = f"The runs are of several versions ({'; '.join(sorted((own, name)))}): what differs may be their doing."
        assert told in capsys.readouterr().out
        assert f"<p>{told}</p>" in (done / "report.html").read_text(encoding="utf-8")
        assert sorted((own, name)) == json.loads((done / "results.json").read_text(encoding="utf-8"))["versions"]


def test_shuffled_conditions_reach_the_rows(tmp_path: Path) -> None:
    options = Options(folder=tmp_path, seeds="7,", arms=("c-rlft",), shuffle_conditions=True)
    run(options, MICRO)
    folder = tmp_path / replace(POINT, shuffled=True).name / "seed-7" / "c-rlft"
    rows = [json.loads(line) for line in (folder / "stage-1" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["condition"] for row in rows if row["class"] == "expert"} != {"GPT4"}
    assert sum(row["condition"] == "GPT4" for row in rows) == 3


def test_a_sweep_is_told_beside_what_does_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(settings.SWEEPS, "weight", ((0.0, 0.1), ("c-rlft",)))  # weight 0: no sub-optimal row is left
    options = Options(folder=tmp_path, seeds="7,", arms=("c-rlft", "neither"), weight=0.0, sweep=("weight",), json=True)
    run(options, MICRO)
    results = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    plain = results["arms"]["neither"]["accuracy"]
    assert plain["low"] is None  # one seed has no interval
    assert [at["value"] for at in results["sweeps"]["weight"]] == [0.0, 0.1]
    for at in results["sweeps"]["weight"]:
        assert at["arms"]["neither"] == plain | {"by_seed": {"7": plain["value"]}}
        assert at["c_rlft_leads"]["neither"]["value"] == pytest.approx(at["arms"]["c-rlft"]["value"] - plain["value"])
    assert results["machines"] == [results["arms"]["neither"]["runs"][0]["machine"]]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "lead over plain SFT on all" in page
    assert results["machines"][0] in page


def test_the_page_tells_its_command(done: Path) -> None:
    assert "ochat experiment ablation --seeds 7,8 --arms c-rlft" in command_of(Options(seeds="7,8", arms=("c-rlft",)))
    assert f"ochat experiment ablation --folder {done} --seeds" in (done / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "base", "told"),
    [
        (replace(MICRO, lr=1e-3), None, ": lr is 0.0025 there and 0.001 here. Choose"),
        (
            replace(MICRO, n_rows=61, task=Addition(n_digits=3, padded=True, reversed=True)),
            Path("/model"),
            ": task.n_digits is 2 there and 3 here; n_rows is 60 there and 61 here; base is None there and /model here. Choose",
        ),
        (SETTINGS["smollm2"], None, ": name is tiny there and smollm2 here. Choose"),
    ],
)
def test_runs_of_other_settings_are_refused_and_the_fields_named(
    setting: Setting, base: Path | None, told: str, done: Path
) -> None:
    with pytest.raises(OchatError, match=re.escape(f"{done} holds runs of other settings{told}")):
        run(Options(folder=done, seeds="7,8", setting="smollm2", base=base), setting)


HOLDER = """
import signal, sys
from pathlib import Path
from ochat.processes import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


@contextmanager
def at_work(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another experiment that holds the folder; what this process does on SIGTERM is put back after it."""
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
            signal.signal(signal.SIGTERM, before)


def test_a_mistaken_second_command_leaves_the_running_one_alone(done: Path) -> None:
    with at_work(done) as running:
        with pytest.raises(OchatError, match="name is tiny there and short here"):
            ablation.main(Options(folder=done, setting="short"))
        assert running.poll() is None


def test_with_json_nothing_else_is_printed_where_another_run_is_stopped(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "tiny", MICRO)
    with at_work(done) as running:
        ablation.main(Options(folder=done, seeds="7,8", json=True))
        assert running.wait(10) == -signal.SIGTERM
    printed = capsys.readouterr()
    assert json.loads(printed.out)["seeds"] == [7, 8]
    assert f"process {running.pid}); it is stopped" in printed.err


@pytest.mark.parametrize(
    ("text", "seeds"), [("", (1, 2, 3, 4, 5)), ("2", (1, 2)), ("7,", (7,)), ("9,8,9", (9, 8)), (" 3 , 4 ", (3, 4))]
)
def test_seeds_are_a_number_of_them_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text, (1, 2, 3, 4, 5)) == seeds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "six"}, "--seeds is 'six'"),
        ({"seeds": "6"}, "--seeds is 6, and the setting has 5"),
        ({"seeds": "0"}, "--seeds is 0"),
        ({"seeds": ","}, "--seeds is ',', a list without a number. Give which, as 11,12,13"),
        ({"seeds": " , ,"}, "a list without a number"),
        ({"seeds": "-1,-2"}, "--seeds is '-1,-2', and a seed is 0 or more"),
        ({"seeds": "3,-1"}, "and a seed is 0 or more"),
        ({"seeds": "-1"}, "--seeds is -1"),
        ({"arms": ("c-rltf",)}, "Unknown arm 'c-rltf'. Known: c-rlft"),
        ({"weight": 1.5}, "--weight is 1.5"),
        ({"expert_share": 0.0}, "--expert-share is 0"),
        ({"quality": -0.1}, "--quality is -0.1"),
        ({"jobs": 0}, "--jobs is 0"),
        ({"lr": 0.0}, "--lr is 0.0. Give a number between 0 and 1"),
        ({"lr": -1.0}, "--lr is -1.0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"lr": 1.0}, "--lr is 1.0"),
        ({"base": Path("model")}, "--base is for a setting that starts from a model"),
    ],
)
def test_a_wrong_option_is_told(given: dict[str, object], message: str) -> None:
    with pytest.raises(OchatError) as error:
        Options(**given)  # type: ignore[arg-type]  # of many types
    assert message in str(error.value)


def test_a_wrong_rate_leaves_the_folder_to_the_right_one(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with pytest.raises(SystemExit, match=r"--lr is 0\.0"):
        cli.main(["experiment", "ablation", "--folder", str(folder), "--lr", "0"])
    assert not folder.exists()


def test_help_names_every_arm(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["experiment", "ablation", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())  # its box and line breaks apart
    assert f"arms by name: {', '.join(BY_NAME)};" in told


def test_with_json_the_base_models_notice_is_not_in_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache holds a tiny model in the embedded one's place."""
    kind = replace(MICRO, model_type=embedded.MODEL_TYPE)
    make_base(kind, 3, tmp_path / "smollm2-135m-instruct")
    monkeypatch.setenv("OCHAT_CACHE", str(tmp_path))
    options = Options(folder=tmp_path / "runs", setting="smollm2", seeds="7,", arms=("base",), json=True)
    run(options, replace(kind, shape=None, name="smollm2"))
    printed = capsys.readouterr()
    assert list(json.loads(printed.out)["arms"]) == ["base"]
    assert f"Base model, type {embedded.MODEL_TYPE}: {tmp_path / 'runs' / 'base'}" in printed.err


def test_another_base_is_trained_at_another_share_and_quality(tmp_path: Path) -> None:
    base, setting = tmp_path / "base", replace(MICRO, shape=None, name="smollm2")
    make_base(MICRO, 3, base)
    options = Options(
        folder=tmp_path / "runs", setting="smollm2", seeds="7,", arms=("c-rlft",), base=base, expert_share=0.5, quality=1.0
    )
    run(options, setting)
    own = tmp_path / "runs" / "expert-0.5-weight-0.1-quality-1" / "seed-7" / "c-rlft"
    rows = [json.loads(line) for line in (own / "stage-1" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(row["class"] == "expert" for row in rows) == 30
    for row in rows:  # all kept their carries
        one, other = map(int, row["items"][0]["content"].split("+"))
        assert row["items"][1]["content"] == str(one + other).zfill(3)[::-1]
    config = json.loads((own / "stage-1" / "run-1" / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == str(base)


def test_a_base_without_a_place_for_conditions_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "runs"
    with pytest.raises(OchatError, match="there's no such folder"):
        ablation.main(Options(setting="smollm2", folder=folder, base=base))
    base.mkdir()
    (base / "openchat.json").write_text('{"model_type": "chatml_8192"}', encoding="utf-8")
    with pytest.raises(OchatError, match="chatml_8192, whose prompts have no condition"):
        ablation.main(Options(setting="smollm2", folder=folder, base=base))
    assert not folder.exists()


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("", encoding="utf-8")
    with pytest.raises(OchatError, match="is not of this command"):
        ablation.main(Options(folder=tmp_path))


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_no_question_is_answered_by_a_row(setting: Setting) -> None:
    drawn = draw(setting, Point(setting.expert_share, setting.weight, setting.quality), seed=1)
    rows, asked = {e.pair for e in drawn.train}, {*drawn.validation, *drawn.test}
    assert len(rows) == setting.n_rows
    assert len(asked) == setting.n_validation + setting.n_test
    assert not rows & asked


def test_the_questions_are_the_same_at_every_point_of_a_sweep() -> None:
    at = Point(MICRO.expert_share, MICRO.weight, MICRO.quality)
    for name in SWEEPS:
        points = sweep_points(name, at)
        assert at in points
        assert len({tuple(draw(MICRO, point, seed=1).test) for point in points}) == 1
