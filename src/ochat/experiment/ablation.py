"""`ochat experiment ablation`: does C-RLFT beat every simpler use of the same data, and where doesn't it?

Each arm is trained from the same start on the same rows of a task that code can check, and asked the same new questions; each
seed draws rows, questions and a start of random weights anew, so an interval over seeds covers them. What is finished is kept:
repeated, the command goes on, grades all replies again and writes the page."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Literal, TextIO

from tqdm import tqdm

from ochat.errors import OchatError, require
from ochat.experiment import ablation_run
from ochat.experiment.ablation_report import write_report
from ochat.experiment.ablation_results import collect, read_arm, table
from ochat.experiment.ablation_run import Job, make_base, run_job
from ochat.experiment.arms import BY_NAME
from ochat.experiment.settings import SETTINGS, SWEEP_SEEDS, SWEEPS, Point, Setting, sweep_points
from ochat.files import make_folder, write_json
from ochat.model import base as embedded
from ochat.processes import LOCK_FILE, end_on_sigterm, end_with_parent, only_one
from ochat.registry import detect_model_type

CONFIG_FILE, RESULTS_FILE, REPORT_FILE = "config.json", "results.json", "report.html"


@dataclass(frozen=True)
class Options:
    setting: Literal["tiny", "smollm2", "short"] = "tiny"
    """tiny: models of random weights, half an hour on two cores; smollm2: the embedded base model, an hour or two; short: minutes"""
    folder: Path = Path("runs/ablation")
    """where everything is kept; repeated, the command goes on from what is there"""
    seeds: str = ""
    """so many of the setting's seeds, as 3; or these, as 11,12,13; all when left out"""
    arms: tuple[str, ...] = ()
    """arms by name: c-rlft, no-weight, no-condition, neither, expert-only, suboptimal-only, two-stage, filtered, shuffled, base; those of
    the setting when left out"""
    sweep: tuple[Literal["expert-share", "weight", "quality"], ...] = ()
    """also go through values of these, with the first three seeds"""
    base: Path | None = None
    """with --setting smollm2: start from this model instead, whose type takes conditions"""
    lr: float | None = None
    """peak learning rate, for another --base"""
    expert_share: float | None = None
    """share of the rows that are the expert's"""
    weight: float | None = None
    """weight of the sub-optimal class"""
    quality: float | None = None
    """share of the sub-optimal answers that keep the carries, of sums that have any"""
    shuffle_conditions: bool = False
    """deal the conditions out to the rows at random, in every arm: the null control"""
    jobs: int | None = None
    """runs at once; by the machine when left out"""
    json: bool = False
    """print the results as JSON, progress going to the error stream"""

    def __post_init__(self) -> None:
        for name in ("expert_share", "weight", "quality"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise OchatError(f"--{name.replace('_', '-')} is {value}. Give a share from 0 to 1.")
        if self.expert_share == 0:
            raise OchatError("--expert-share is 0. Give a share above 0: without expert rows there's nothing to compare.")
        unknown = [name for name in self.arms if name not in BY_NAME]
        if unknown:
            raise OchatError(f"Unknown arm {unknown[0]!r}. Known: {', '.join(BY_NAME)}.")
        # Training's own check, but before the folder is made and holds the rate.
        if self.lr is not None and not 0 < self.lr < 1:
            raise OchatError(f"--lr is {self.lr}. Give a number between 0 and 1, such as 5e-4 or 1e-5.")
        if self.jobs is not None and self.jobs < 1:
            raise OchatError(f"--jobs is {self.jobs}. Give 1 or more.")
        if self.base is not None and SETTINGS[self.setting].shape is not None:
            raise OchatError(
                f"--base is for a setting that starts from a model, and {self.setting} doesn't: --setting smollm2."
            )
        parse_seeds(self.seeds, SETTINGS[self.setting].seeds)


def parse_seeds(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """The first so many of the known seeds for a number, or the numbers of a list with commas; all for nothing. Raises OchatError for
    a list without a number, and for seeds below 0."""
    try:
        given = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise OchatError(f"--seeds is {text!r}. Give how many, as 3, or which, as 11,12,13.") from None
    if not text.strip():
        return known
    if not given:
        raise OchatError(f"--seeds is {text!r}, a list without a number. Give which, as 11,12,13, or leave it out for all.")
    if "," in text:
        if min(given) < 0:
            raise OchatError(f"--seeds is {text!r}, and a seed is 0 or more. Give which, as 11,12,13.")
        return tuple(dict.fromkeys(given))
    if not 1 <= given[0] <= len(known):
        raise OchatError(f"--seeds is {text}, and the setting has {len(known)}. Name other seeds with commas, as 11,12,13.")
    return known[: given[0]]


def main(options: Options) -> None:
    for module in ("torch", "transformers", "matplotlib"):
        require(module, "train", "The ablation")
    setting = SETTINGS[options.setting]
    if options.lr is not None:
        setting = replace(setting, lr=options.lr)
    if options.base is not None:
        check_base(options.base)
    make_folder(options.folder)
    if any(options.folder.iterdir()) and not (options.folder / LOCK_FILE).exists():
        raise OchatError(f"{options.folder} exists and is not of this command. Choose another --folder.")
    # Before the folder is taken: whoever mistypes a setting shouldn't end the experiment that works there.
    check_setting(options.folder, setting, options.base)
    end_on_sigterm()
    with only_one(options.folder, sys.stderr if options.json else sys.stdout):
        run(options, setting)


def check_base(base: Path) -> None:
    """Raise OchatError where no arm's condition could stand in the model's prompts."""
    if not base.is_dir():
        raise OchatError(f"--base {base}: there's no such folder. Give a model's folder.")
    found = detect_model_type(base)
    if not found.format.takes_condition:
        raise OchatError(
            f"--base {base} is of the model type {found.name}, whose prompts have no condition: nothing to compare."
        )


def run(options: Options, setting: Setting) -> None:
    """Train what isn't yet, then grade, print and draw."""
    keep_to_setting(options.folder, setting, options.base)
    seeds = parse_seeds(options.seeds, setting.seeds)
    names = options.arms or setting.arms
    at = Point(
        setting.expert_share if options.expert_share is None else options.expert_share,
        setting.weight if options.weight is None else options.weight,
        setting.quality if options.quality is None else options.quality,
        options.shuffle_conditions,
    )
    out = sys.stderr if options.json else sys.stdout
    wanted = [(at, name, seed) for seed in seeds for name in names]
    for sweep in options.sweep:
        field = sweep.replace("-", "_")
        for point in sweep_points(field, at):
            wanted += [(point, name, seed) for seed in seeds[:SWEEP_SEEDS] for name in SWEEPS[field][1]]
    jobs = [job_of(options, setting, *one) for one in dict.fromkeys(wanted)]
    train(options, setting, [job for job in jobs if not job.is_done], seeds, out)
    results = collect(jobs, setting, at, names)
    write_json(options.folder / RESULTS_FILE, results.as_json())
    report = options.folder / REPORT_FILE
    write_report(report, results, command_of(options))
    if options.json:
        print(json.dumps(results.as_json(), allow_nan=False))
        return
    print("\n" + table(results) + f"\n\nReport: {report}")


def command_of(options: Options) -> str:
    """The command line of options that differ from the defaults."""
    words = ["ochat", "experiment", "ablation"]
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if value is True else map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join(words)


def config_of(setting: Setting, base: Path | None) -> dict[str, Any]:
    """What the runs of a folder have in common, as its file holds it."""
    config: dict[str, Any] = {"setting": asdict(setting), "base": str(base.resolve()) if base else None}
    as_read: dict[str, Any] = json.loads(json.dumps(config))  # tuples come back as lists
    return as_read


def check_setting(folder: Path, setting: Setting, base: Path | None) -> None:
    """Raise OchatError, naming the fields, where the folder's runs are of other settings."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        return
    before, now = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(config_of(setting, base))
    other = [name for name in before | now if before.get(name) != now.get(name)]
    if "name" in other:
        other = ["name"]  # nearly all of the rest differs too
    if other:
        told = "; ".join(f"{name} is {before.get(name)} there and {now.get(name)} here" for name in other)
        raise OchatError(f"{folder} holds runs of other settings: {told}. Choose another --folder.")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Each field by its name, as task.n_digits; those of the setting without its own."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        found |= {key if name == "setting" else f"{name}.{key}": one for key, one in inner.items()} or {name: value}
    return found


def keep_to_setting(folder: Path, setting: Setting, base: Path | None) -> None:
    """Note in the folder what its runs are of; raises OchatError where they are of something else."""
    check_setting(folder, setting, base)
    if not (folder / CONFIG_FILE).is_file():
        write_json(folder / CONFIG_FILE, config_of(setting, base))


def job_of(options: Options, setting: Setting, point: Point, name: str, seed: int) -> Job:
    """The job of an arm with a seed at a point."""
    folder = options.folder.resolve()
    base = options.base.resolve() if options.base else folder / "base"
    if setting.shape is not None:
        base = base_of(options, seed)
    return Job(setting, point, name, seed, base, folder / point.name / f"seed-{seed}" / name)


def train(options: Options, setting: Setting, jobs: Sequence[Job], seeds: Sequence[int], out: TextIO) -> None:
    """Do the jobs, as many at once as the machine has room for, and say what each came to."""
    if not jobs:
        return
    # A run on all cores, or on its share of them. Read when torch loads, in the processes that are started below.
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_at_once = options.jobs or (max(1, n_cores // setting.threads) if setting.threads else 1)
    os.environ["OMP_NUM_THREADS"] = str(setting.threads or max(1, n_cores // n_at_once))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["TQDM_DISABLE"] = "1"  # of the runs' own bars, in their logs; ours is told otherwise below
    if setting.shape is None and options.base is None and not (options.folder / "base").is_dir():
        with redirect_stdout(out):  # it tells what it does on stdout, which under --json is ours alone
            embedded.main(embedded.Options(options.folder / "base"))
    print(f"{len(jobs)} runs, {n_at_once} at once; the log of each is {options.folder}/…/{ablation_run.LOG_FILE}", file=out)
    with pool(n_at_once) as executor:
        if setting.shape is not None:
            missing = [seed for seed in seeds if not base_of(options, seed).is_dir()]
            list(executor.map(make_base, [setting] * len(missing), missing, [base_of(options, seed) for seed in missing]))
        waiting = {executor.submit(run_job, job): job for job in jobs}
        with tqdm(total=len(jobs), unit="run", disable=False, smoothing=0, file=sys.stderr) as bar:
            for future in as_completed(waiting):
                job = waiting[future]
                future.result()
                bar.write(line_of(job), file=out)
                bar.update()


def base_of(options: Options, seed: int) -> Path:
    """The folder of a seed's model of random weights."""
    return options.folder.resolve() / "base" / f"seed-{seed}"


def line_of(job: Job) -> str:
    """What a finished job came to."""
    found = read_arm(job)
    value = f"{found.accuracy[found.conditions[0]]:.3f} right"
    more = f", {found.accuracy[found.conditions[1]]:.3f} under {found.conditions[1]}" if len(found.conditions) > 1 else ""
    return f"  seed {job.seed:<4} {job.arm.title:<32} {value}{more}  ({found.seconds:.0f} s)"


@contextmanager
def pool(n_at_once: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes that end when this one does, however it ends."""
    executor = ProcessPoolExecutor(n_at_once, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),))
    try:
        yield executor
        executor.shutdown()
    except BrokenProcessPool as error:
        raise OchatError(
            "A run's process was killed, perhaps for want of memory. Give --jobs 1, or repeat to go on."
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in active_children():
            child.terminate()


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent(parent)
