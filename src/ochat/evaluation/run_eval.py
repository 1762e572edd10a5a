"""`ochat eval run`: ask a model benchmark questions under a condition, grade the replies, and say how sure the score is.

The replies are kept as they come; whatever is computed from them is computed again by a repeated command. A checkpoint is served as
a process of its own for the time of the run, since a server of the user's is asked in the same way."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ochat.conversation import NO_CONDITION
from ochat.errors import DataError, OchatError, require
from ochat.evaluation.compare import comparison
from ochat.evaluation.graders.by_task import TASK_TYPES, check
from ochat.evaluation.grading import Compat, Graded, Grading, version
from ochat.evaluation.journal import Journal, Reply, request_key
from ochat.evaluation.results import (
    CONFIG_FILE,
    CONTROL,
    GRADES_FILE,
    JOURNAL_FILE,
    SUMMARY_FILE,
    Run,
    count,
    make_rows,
    read_correct,
    read_run,
    rows_of_others,
    write_results,
)
from ochat.evaluation.tasks import (
    BENCHMARKS,
    CARD_CHAT_TOKENS,
    CHATS,
    PRIVATE,
    Task,
    in_asking_order,
    own_tasks,
    read_tasks,
    subset,
)
from ochat.files import hold, make_folder, write_json, write_text
from ochat.processes import end_on_sigterm, free_port, server

if TYPE_CHECKING:
    from ochat.evaluation.ask import Asked, Endpoint

__all__ = ["GRADES_FILE", "SUMMARY_FILE", "read_correct"]  # what an experiment reads
BASE_URL = "http://localhost:18888/v1"
SERVER_LOG = "server.log"
# FastChat's form of a model's answers, which a judge reads.
ANSWERS_FILE = "{}-answers.jsonl"


@dataclass(frozen=True)
class Options:
    output: Path | None = None
    """folder for replies, grades and the summary; repeated, what was answered isn't asked again; runs/eval/MODEL when left out"""
    questions: Path | None = None
    """your own jsonl of {"question", "options", "label"}; without options the reply's last number is its answer"""
    data_path: Path = Path("eval_data")
    """folder of the benchmarks' questions, as `ochat eval fetch` writes it"""
    eval_sets: tuple[str, ...] = ()
    """which benchmarks of --data-path, by folder or file: coding fs_cothub/bbh zs/agieval …; all when left out"""
    model: str = ""
    """a checkpoint's folder or hub id, served for the time of the run; or a served model's name; the server's first when left out"""
    base_url: str = ""
    """an OpenAI-compatible server instead, http://localhost:18888/v1 when --model is left out too; its key, if it wants one, is read from
    OPENAI_API_KEY"""
    condition: str = ""
    """the condition to ask under, "none" for none; left out, the card's for each benchmark where the model knows it, else the
    model type's default"""
    conditions: tuple[str, ...] = ()
    """ask under each of these, and compare them with the first; a condition of no meaning is added as a control"""
    system_msg: str = ""
    """a system message before each question"""
    max_tokens: int | None = None
    """tokens of a reply, at most; each benchmark's own when left out"""
    parallel: int = 128
    """requests in flight, at most"""
    subset: str = ""
    """only a share of each file's questions, such as 10%"""
    seed: int = 0
    """which questions the subset draws"""
    card_parity: bool = False
    """ask as the model card's run did: no limit to a reply but the context, no stop strings"""
    compat: Compat = "3.6.1"
    """the original's version whose grader is reported beside ours"""
    continue_from: Path | None = None
    """a result file of the original: its replies are taken over"""
    output_file: Path | None = None
    """write the original's result file too"""
    model_type: str = ""
    """model type of a checkpoint to serve, where it doesn't tell"""
    tensor_parallel_size: int = 1
    """GPUs to serve a checkpoint on"""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "parallel", "tensor_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OchatError(f"--{name.replace('_', '-')} is {value}. Give 1 or more.")
        if self.questions and self.eval_sets:
            raise OchatError("--questions and --eval-sets are both given. Give one of the two.")
        if self.condition and self.conditions:
            raise OchatError("--condition and --conditions are both given. Put all of them into --conditions.")
        if len(set(map(_slug, self.conditions))) < len(self.conditions) or len(self.conditions) == 1:
            raise OchatError(f"--conditions are {', '.join(self.conditions)}. Give two or more that differ in their letters.")
        if self.conditions and (self.continue_from or self.output_file):
            raise OchatError(
                "--continue-from and --output-file are of one condition. Give --condition instead of --conditions."
            )
        if self.card_parity and self.max_tokens is not None:
            raise OchatError("--card-parity has no limit to replies. Leave out --max-tokens.")
        self.share()

    def share(self) -> float:
        """The share of the questions to ask."""
        if not self.subset:
            return 1.0
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%", self.subset)
        if not match or not 0 < float(match[1]) <= 100:
            raise OchatError(f"--subset is {self.subset!r}. Give a share such as 10%.")
        return float(match[1]) / 100

    @property
    def serves(self) -> bool:
        """Whether --model is a checkpoint to serve: a folder, or a hub id, which has an owner."""
        return bool(self.model) and not self.base_url and ("/" in self.model or Path(self.model).is_dir())

    @property
    def folder(self) -> Path:
        return self.output or Path("runs/eval") / (os.path.basename(self.model.rstrip("/")) or "served")


def main(options: Options) -> None:
    require("aiohttp", "eval", "Evaluation")
    tasks = own_tasks(options.questions) if options.questions else read_tasks(options.data_path, options.eval_sets)
    tasks = subset(tasks, options.share(), options.seed)
    names = ", ".join(dict.fromkeys(task.benchmark.name for task in tasks))
    print(f"{len(tasks)} {names}" if options.questions else f"{len(tasks)} questions of {names}", flush=True)
    make_folder(options.folder)
    with _endpoint(options) as endpoint:
        runs = asyncio.run(_runs(options, tasks, endpoint))
    for run in runs:
        print(told(run))
    if options.conditions and runs[0].rows:  # a judge's are compared when it has judged them
        table, differences = comparison(runs)
        write_json(options.folder / "comparison.json", differences)
        print(table)
    print(f"Tables and a page of every reply: ochat eval view {options.folder} --html {options.folder / 'report.html'}")


@contextmanager
def _endpoint(options: Options) -> Iterator["Endpoint"]:
    """The server to ask: the user's, or one of our own while the block runs."""
    from ochat.evaluation.ask import Endpoint

    if not options.serves:
        key = os.environ.get("OPENAI_API_KEY")
        headers = (("Authorization", f"Bearer {key}"),) if key else ()
        yield Endpoint((options.base_url or BASE_URL).rstrip("/"), headers, options.model)
        return
    require("vllm", "serve", "Serving a checkpoint")
    end_on_sigterm()
    more = ["--model-type", options.model_type] if options.model_type else []
    more += ["--allow-any-condition"] if options.conditions else []  # the control isn't known, nor may the user's own be
    more += ["--tensor-parallel-size", str(options.tensor_parallel_size)] if options.tensor_parallel_size > 1 else []
    with server(options.model, free_port(), options.folder / SERVER_LOG, more) as running:
        yield Endpoint(running.url)


async def _runs(options: Options, tasks: list[Task], endpoint: "Endpoint") -> list[Run]:
    from ochat.evaluation.ask import Endpoint, NoServerError, RefusedError, check_echo, known_conditions, served_model

    try:
        model = await served_model(endpoint)
    except NoServerError as error:
        if not options.model or options.base_url or options.serves:
            raise
        raise OchatError(
            f"--model {options.model} is no folder, so it was taken for the name of a served model. {error} Check --model too."
        ) from error
    endpoint = Endpoint(endpoint.base_url, endpoint.headers, model["id"])
    if not options.conditions:
        known = [] if options.questions and not options.condition else await known_conditions(endpoint)
        if options.condition and not known:
            print(
                f"warning: {endpoint.base_url} tells no conditions (GET /conditions), as a server that ignores them: "
                f"{options.condition!r} may have no effect. `ochat serve` knows them.",
                flush=True,
            )
        conditions = {
            benchmark: options.condition or (benchmark.condition if benchmark.condition in known else "")
            for benchmark in {task.benchmark for task in tasks}
        }
        for condition in sorted(set(conditions.values()) - {options.condition, ""}):
            names = ", ".join(sorted(benchmark.name for benchmark, given in conditions.items() if given == condition))
            print(f"under {condition!r}, as the model card's run: {names}", flush=True)
        asked = [_asked(options, task, conditions[task.benchmark]) for task in tasks]
        return [await _run(options, options.folder, tasks, asked, endpoint, model, options.condition)]
    sweep = {condition: _slug(condition) for condition in options.conditions}
    await check_echo(endpoint, options.conditions)
    if control := control_condition(options.conditions):
        try:
            await check_echo(endpoint, [control])
            sweep[control] = CONTROL
            print(f"control: the condition {control!r}, which means nothing to the model", flush=True)
        except RefusedError:
            print(
                "no control: the server takes known conditions only; `ochat serve --allow-any-condition` takes all", flush=True
            )
    runs = []
    for condition, name in sweep.items():
        print(f"condition {condition!r}", flush=True)
        asked = [_asked(options, task, condition) for task in tasks]
        runs.append(await _run(options, options.folder / name, tasks, asked, endpoint, model, condition))
    return runs


def control_condition(conditions: Sequence[str]) -> str:
    """A condition that no model was trained with but that looks like one: the first that has words, its words spelt backwards."""
    named = next((condition for condition in conditions if condition not in ("", NO_CONDITION)), "")
    return " ".join(word[::-1] for word in named.split())


def _slug(condition: str) -> str:
    """A condition as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", condition.lower()).strip("-") or "default"


def _asked(options: Options, task: Task, condition: str) -> "Asked":
    from ochat.evaluation.ask import Asked

    benchmark = task.benchmark
    max_tokens = options.max_tokens or benchmark.max_tokens
    if options.card_parity:
        return Asked(
            task.turns,
            CARD_CHAT_TOKENS if task.task_type in CHATS else None,
            condition,
            task.temperature,
            (),
            options.system_msg,
        )
    return Asked(task.turns, max_tokens, condition, task.temperature, benchmark.stop, options.system_msg)


async def _run(
    options: Options,
    output: Path,
    tasks: list[Task],
    asked: list["Asked"],
    endpoint: "Endpoint",
    model: dict[str, str],
    condition: str,
) -> Run:
    """Ask the tasks under one condition and write the folder of its results."""
    make_folder(output)
    with hold(output):
        config = model | {"condition": condition}
        keep_to_model(output, config)
        others = rows_of_others(output, tasks)  # before anything is asked, since they may not be readable
        replies, grades = await _replies(options, output, tasks, asked, endpoint)
        write_results(output, dict(config), [*make_rows(tasks, replies, grades), *others])
        for kind in sorted({task.task_type for task in tasks} & set(CHATS)):
            write_answers(output / ANSWERS_FILE.format(kind), model["id"], kind, tasks, replies)
        if options.output_file:
            write_original(options.output_file, tasks, replies, options.compat)
        return read_run(output)


async def _replies(
    options: Options, output: Path, tasks: list[Task], asked: list["Asked"], endpoint: "Endpoint"
) -> tuple[list[list[Reply]], dict[int, Graded]]:
    """The replies to each task, and the grades by the task's index."""
    from ochat.evaluation.ask import ask_all

    order = in_asking_order(tasks)
    replies: list[list[Reply]] = [[] for _ in tasks]
    with Journal(output / JOURNAL_FILE) as journal, Grading(tasks, options.compat) as grading:
        if options.continue_from:
            _take_over(options.continue_from, tasks, asked, endpoint.model, journal)

        def done(index: int, answered: list[Reply]) -> str:
            replies[order[index]] = answered
            return grading.add(order[index], answered)

        try:
            await ask_all(endpoint, [asked[index] for index in order], journal, options.parallel, done)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # one line for the first of many requests that failed alike
        return replies, grading.finish()


def keep_to_model(output: Path, model: dict[str, str]) -> None:
    """Note in the folder which model and condition its replies are of; raises OchatError where those are others.

    A request names the model type alone, which checkpoints share; the address is the server's, and changes."""
    path = output / CONFIG_FILE
    held = {entry.name for entry in output.iterdir() if not entry.name.startswith(".")} - {SERVER_LOG}
    if held:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before == model:
            return
        of_refused_run = _named(before) and held <= {CONFIG_FILE, JOURNAL_FILE} and not _has_replies(output)
        if not of_refused_run:
            which = _named(before) or f"{CONFIG_FILE} doesn't tell which"
            raise OchatError(f"{output} holds replies of another model or condition ({which}). Choose another --output.")
    write_json(path, model)


def _has_replies(output: Path) -> bool:
    journal = output / JOURNAL_FILE
    return journal.exists() and journal.stat().st_size > 0


def _named(model: object) -> str:
    """The model and condition of a folder's note in words; "" where it's none."""
    match model:
        case {"id": str(id), "root": str(root), "condition": str(condition)}:
            return f"{id}{root and f' from {root}'}, condition {condition or 'left out'}"
    return ""


def _take_over(path: Path, tasks: Sequence[Task], asked: Sequence["Asked"], model: str, journal: Journal) -> None:
    """File the replies of the original's result file as if they had been given to these requests."""
    given: dict[tuple[str, str], str] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            if entry["response"]:
                given[entry["task_name"], entry["question"]] = entry["response"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a result file of the original ({error!r}). It is a list of questions with `response`."
        ) from error
    taken = 0
    for task, conversation in zip(tasks, asked, strict=True):
        key = request_key(conversation.request(model, ()))
        if (response := given.get((task.task_name, task.turns[0]))) and key not in journal.replies:
            journal.add(key, Reply(response))
            taken += 1
    print(f"{taken} replies taken over from {path}", flush=True)


def write_original(path: Path, tasks: Sequence[Task], replies: Sequence[Sequence[Reply]], compat: Compat) -> None:
    """The result file that the original writes: each question with `response`, `is_matched`, `answer` and `is_correct`; of GPQA
    neither question nor reply, which may repeat it."""
    entries = []
    for task, answered in zip(tasks, replies, strict=True):
        entry = task.data | {"task_name": task.task_name, "task_type": task.task_type, "response": answered[-1].text}
        if task.task_type == PRIVATE:
            entry = {key: entry[key] for key in ("label", "options", "task_name", "task_type")} | {
                "question": "",
                "response": "",
            }
        if task.task_type in TASK_TYPES:
            graded = check(task.task_type, task.data, answered[-1].text, grader=version(task, compat))
            entry |= {"is_matched": graded.found, "answer": graded.answer, "is_correct": graded.correct}
        entries.append(entry)
    write_text(path, json.dumps(entries, indent=2) + "\n")


def write_answers(path: Path, model: str, kind: str, tasks: Sequence[Task], replies: Sequence[Sequence[Reply]]) -> None:
    """The answers to a chat benchmark in FastChat's form."""
    lines = [
        {
            "question_id": task.data["question_id"],
            "answer_id": f"{model}-{task.data['question_id']}",
            "model_id": model,
            "choices": [{"index": 0, "turns": [reply.text for reply in answered]}],
        }
        for task, answered in zip(tasks, replies, strict=True)
        if task.task_type == kind
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def told(run: Run) -> str:
    """A run's figures as a table: a line a benchmark."""
    if not run.rows:
        return f"{run.folder}: answers for a judge: ochat eval judge {run.folder}"
    width = max(len(BENCHMARKS[task_type].name) for task_type in run.by(lambda row: row.task_type))
    lines = [f"{run.name}:", f"  {'':{width}}  questions  right [95 % interval]    original's  no answer    cut"]
    for task_type, rows in run.by(lambda row: row.task_type).items():
        of = count(rows)
        original = "-" if of.compatible is None else f"{of.compatible:.3f}"
        lines.append(
            f"  {BENCHMARKS[task_type].name:{width}}  {of.n:>9}  {of.accuracy!s:<22}  {original:>10}  "
            f"{1 - of.n_found / of.n:>9.1%}  {of.n_cut / of.n:>5.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from ochat.cli import main as cli

    cli(["eval", "run", *sys.argv[1:]])
