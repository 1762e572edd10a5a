"""Train and question one arm of the ablation, through the functions that a user's own commands call.

Everything is kept in the arm's folder: rows, runs with their logs and final checkpoints, replies, losses. `done.json` is written last,
so that whatever is interrupted is repeated, its training from the last saved step."""

import json
import random
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ochat.conversation import NO_CONDITION, Conversation
from ochat.data import tokenize
from ochat.data.dataset import Dataset
from ochat.errors import OchatError
from ochat.evaluation.graders.number import grade_number
from ochat.experiment.addition import Pair
from ochat.experiment.arms import (
    BY_NAME,
    EXPERT_CLASS,
    SUBOPTIMAL_CLASS,
    Arm,
    Example,
    Stage,
    answered,
    asked,
    examples,
    stage_rows,
)
from ochat.experiment.settings import Point, Setting
from ochat.files import make_folder, new_file, write_json, write_text
from ochat.questions import Question

DONE_FILE, LOSSES_FILE, STATES_FILE, LOG_FILE = "done.json", "losses.json", "states.npz", "log.txt"
QUESTIONS_FILE = "questions.jsonl"
N_STATES = 200  # questions of the picture, under each condition


@dataclass(frozen=True)
class Job:
    """One arm, with one seed, at one point of the setting."""

    setting: Setting
    point: Point
    arm_name: str
    seed: int
    base: Path
    folder: Path

    @property
    def arm(self) -> Arm:
        return BY_NAME[self.arm_name]

    @property
    def is_done(self) -> bool:
        return (self.folder / DONE_FILE).is_file()


@dataclass(frozen=True)
class Drawn:
    """A seed's data: the same for all its arms."""

    train: list[Example]
    validation: list[Pair]
    test: list[Pair]


def draw(setting: Setting, point: Point, seed: int) -> Drawn:
    """The seed's rows and questions; no question is asked that a row answers. Questions don't depend on the point."""
    task, rng = setting.task, random.Random(f"questions {seed}")
    n_asked = setting.n_validation + setting.n_test
    pairs = task.draw(n_asked + setting.n_rows, rng)
    rows = examples(
        task,
        pairs[n_asked:],
        expert_share=point.expert_share,
        quality=point.quality,
        rng=random.Random(f"answers {seed}"),
    )
    return Drawn(rows, pairs[: setting.n_validation], pairs[setting.n_validation : n_asked])


def replies_file(condition: str, what: str = "replies") -> str:
    """The file of the replies under a condition."""
    return f"{what}-{condition.replace(' ', '-')}.jsonl"


def conditions_asked(arm: Arm, setting: Setting) -> tuple[str, ...]:
    """The conditions that an arm's model is asked under, the one that it is judged by first."""
    return setting.conditions if arm.has_conditions else (NO_CONDITION,)


def read_correct(path: Path) -> list[bool]:
    """Whether each reply of a file is right, graded now."""
    with path.open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    return [grade_number(Question(question=e["question"], label=(e["label"],)), e["reply"]).correct for e in entries]


def read_mistaken(path: Path) -> list[bool]:
    """Whether each reply makes the systematic mistake, of those questions where it shows."""
    with path.open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    carried = [e for e in entries if e["label"] != e["without_carries"]]
    return [grade_number(Question(question=e["question"], label=(e["without_carries"],)), e["reply"]).correct for e in carried]


def run_job(job: Job) -> None:
    """Train and question the arm, what was done before not again. Raises OchatError, naming the log, where it fails."""
    make_folder(job.folder)
    with _logged(job.folder / LOG_FILE):
        _run(job)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what is printed to a file."""
    with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield
        except OchatError:
            raise
        except Exception as error:  # of any library: the process lives on, and the log tells all
            traceback.print_exc()
            raise OchatError(f"A run failed ({error!r}); see {path}.") from None


def _run(job: Job) -> None:
    from ochat.training.cost import machine

    started = time.monotonic()
    setting, arm = job.setting, job.arm
    drawn = draw(setting, job.point, job.seed)
    model, chosen, n_steps = job.base, [], []
    for number, stage in enumerate(arm.stages):
        model, share, steps = _stage(job, number, stage, drawn, model)
        chosen.append(share)
        n_steps.append(steps)
    questions = [setting.task.as_question(pair).model_dump_json() + "\n" for pair in drawn.test]
    write_text(job.folder / QUESTIONS_FILE, "".join(questions))  # for `ochat eval run`, against a server
    for condition in conditions_asked(arm, setting):
        _ask(job, model, drawn.test, condition, job.folder / replies_file(condition))
    if arm.has_conditions:
        _measure(job, model, drawn.test)
    write_json(
        job.folder / DONE_FILE,
        {
            "arm": arm.name,
            "seed": job.seed,
            "model": str(model.relative_to(job.folder)) if arm.stages else str(model),
            "shares": chosen,
            "steps": n_steps,
            "seconds": round(time.monotonic() - started, 1),  # of this process: those of an interrupted one aren't counted
            "machine": machine(),
            "versions": f"ochat {version('ochat-crlft')}, torch {version('torch')}",
        },
    )


def _stage(job: Job, number: int, stage: Stage, drawn: Drawn, base: Path) -> tuple[Path, float, int]:
    """Train a stage from a model: the folder of its best one, the share of the compute that it took, and its steps."""
    setting, point = job.setting, job.point
    rows = stage_rows(
        job.arm,
        stage,
        drawn.train,
        setting.task,
        conditions=setting.conditions,
        suboptimal_weight=point.weight,
        shuffled=point.shuffled,
        rng=random.Random(f"shuffle {job.seed}"),
    )
    folder = job.folder / f"stage-{number + 1}"
    source, data = folder / "rows.jsonl", folder / "data"
    if not data.is_dir():
        write_text(source, "".join(row.to_json() + "\n" for row in rows))
        tokenize.main(tokenize.Options((source,), str(base), data))
    found = []
    for share in stage.shares:
        run = folder / f"run-{share:g}"
        steps = _train(setting, base, data, run, share, job.seed)
        score = 0
        if len(stage.shares) > 1:
            replies = folder / replies_file(f"{share:g}", "validation")
            if not replies.is_file():
                _ask(job, run / "final", drawn.validation, conditions_asked(job.arm, setting)[0], replies)
            score = sum(read_correct(replies))
        found.append((score, -share, run, steps))
    score, minus_share, best, steps = max(found)  # of equally good ones the shortest
    for _, _, run, _ in found:
        if run != best:
            shutil.rmtree(run / "final", ignore_errors=True)
            (run / "final").mkdir()  # trained, and not kept
    return best / "final", -minus_share, steps


def _train(setting: Setting, base: Path, data: Path, run: Path, share: float, seed: int) -> int:
    """Train on a data set for a share of the full length; the number of steps."""
    from ochat.training import train
    from ochat.training.config import LOG_FILE as STEPS_FILE
    from ochat.training.config import Options

    rows = Dataset(data)
    batch_tokens = int(np.ceil(rows.lengths.mean() * setting.rows_a_step))
    epochs = max(1, round(share * setting.n_shown / len(rows)))
    train.main(
        Options(
            model=str(base),
            data=data,
            output=run,
            epochs=epochs,
            lr=setting.lr,
            batch_tokens=batch_tokens,
            seed=seed,
            dtype="bfloat16" if setting.dtype == "bfloat16" else "float32",
        )
    )
    with (run / STEPS_FILE).open(encoding="utf-8") as file:
        return sum(1 for _ in file)


def _ask(job: Job, model: Path, pairs: Sequence[Pair], condition: str, output: Path) -> None:
    from ochat.model.generate import greedy_replies
    from ochat.model.load import load

    task = job.setting.task
    loaded, template = load(model, job.setting.dtype)
    replies = greedy_replies(loaded, template, [asked(task, pair, condition) for pair in pairs], job.setting.max_reply_tokens)
    lines = [
        {"question": task.question(p), "label": task.right(p), "without_carries": task.without_carries(p), "reply": reply}
        for p, reply in zip(pairs, replies, strict=True)
    ]
    write_text(output, "".join(json.dumps(line) + "\n" for line in lines))


def _measure(job: Job, model: Path, pairs: Sequence[Pair]) -> None:
    """The loss of each source's answers, where they differ, under each condition, and the states before the answer."""
    from ochat.model.load import load
    from ochat.model.score import answer_losses, last_hidden_states
    from ochat.training.attention import NAME

    task, conditions = job.setting.task, job.setting.conditions
    loaded, template = load(model, job.setting.dtype, NAME)
    carried = [pair for pair in pairs if task.has_carry(pair)]
    losses: dict[str, dict[str, float]] = {}
    for name, answer in ((EXPERT_CLASS, task.right), (SUBOPTIMAL_CLASS, task.without_carries)):
        for condition in conditions:
            rows: list[Conversation] = [answered(task, pair, answer(pair), condition) for pair in carried]
            sums, counts = answer_losses(loaded, template, rows)
            losses.setdefault(name, {})[condition] = float(sums.sum() / counts.sum())
    write_json(job.folder / LOSSES_FILE, losses)
    loaded, template = load(model, job.setting.dtype)
    states = {
        condition: last_hidden_states(
            loaded, template, [asked(task, pair, condition, task.opening(pair)) for pair in pairs[:N_STATES]]
        ).astype(np.float16)
        for condition in conditions
    }
    with new_file(job.folder / STATES_FILE) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **states)


def make_base(setting: Setting, seed: int, output: Path) -> None:
    """Write the model of random weights that the runs of a seed begin with."""
    from ochat.model.tiny import write_tiny_model
    from ochat.registry import model_type

    assert setting.shape is not None
    words = (*setting.conditions, "User:", "Assistant:")
    write_tiny_model(output, model_type(setting.model_type), words, setting.shape, seed)
