"""`ochat eval run`: ask a server questions under a condition, grade the replies, and say how sure the score is."""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ochat.errors import OchatError, require
from ochat.evaluation.graders.choice import grade_choice
from ochat.evaluation.graders.number import grade_number, value
from ochat.evaluation.journal import Journal, request_key
from ochat.evaluation.statistics import share
from ochat.files import hold, make_folder, write_json, write_text
from ochat.questions import Question, read_questions

CONFIG_FILE, JOURNAL_FILE, GRADES_FILE, SUMMARY_FILE = "config.json", "replies.jsonl", "grades.jsonl", "summary.json"


@dataclass(frozen=True)
class Options:
    questions: Path
    """jsonl of {"question", "options", "label"}; without options the reply's last number is its answer"""
    output: Path
    """folder for replies, grades and the summary; repeated, what was answered isn't asked again"""
    base_url: str = "http://localhost:18888/v1"
    """an OpenAI-compatible server; its key, if it wants one, is read from OPENAI_API_KEY"""
    model: str = ""
    """served model; the server's first when left out"""
    condition: str = ""
    """the condition to ask under; the model type's default when left out, "none" for none"""
    max_tokens: int = 256
    """tokens of a reply, at most"""
    parallel: int = 32
    """requests in flight, at most"""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "parallel"):
            if getattr(self, name) < 1:
                raise OchatError(f"--{name.replace('_', '-')} is {getattr(self, name)}. Give 1 or more.")


def main(options: Options) -> None:
    require("aiohttp", "eval", "Evaluation")
    questions = read_questions(options.questions)
    for number, question in enumerate(questions, start=1):
        if not question.options and not all(value(label) is not None for label in question.label):
            raise OchatError(
                f"{options.questions}:{number}: the question has no options and its label is no number. Give one of the two."
            )
    write_grades(options, questions, asyncio.run(_replies(options, questions)))


async def _replies(options: Options, questions: list[Question]) -> list[str]:
    from ochat.evaluation.ask import served_model

    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base_url = options.base_url.rstrip("/")
    model = await served_model(base_url, headers, options.model)
    make_folder(options.output)
    with hold(options.output):
        keep_to_model(options.output, model | {"condition": options.condition})
        return await _kept_replies(options, questions, base_url, model["id"], headers)


async def _kept_replies(
    options: Options, questions: list[Question], base_url: str, model: str, headers: dict[str, str]
) -> list[str]:
    from ochat.evaluation.ask import ask_all, chat_request

    requests = [chat_request(model, q.question, options.condition, options.max_tokens) for q in questions]
    with Journal(options.output / JOURNAL_FILE) as journal:
        n_before = sum(request_key(request) in journal.replies for request in requests)
        if n_before:
            print(f"{n_before} of {len(requests)} replies are from before", flush=True)
        try:
            return await ask_all(base_url, requests, journal, options.parallel, headers)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # one line for the first of many requests that failed alike


def keep_to_model(output: Path, model: dict[str, str]) -> None:
    """Note in the folder which model and condition its replies are of; raises OchatError where those are others.

    A request names the model type alone, which checkpoints share; the address is the server's, and changes."""
    path = output / CONFIG_FILE
    if any(not entry.name.startswith(".") for entry in output.iterdir()):
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before != model:
            raise OchatError(
                f"{output} holds replies of another model or condition ({_named(before)}). Choose another --output."
            )
    else:
        write_json(path, model)


def _named(model: object) -> str:
    match model:
        case {"id": str(id), "root": str(root), "condition": str(condition)}:
            return f"{id}{root and f' from {root}'}, condition {condition or 'left out'}"
    return f"{CONFIG_FILE} doesn't tell which"


def write_grades(options: Options, questions: list[Question], replies: list[str]) -> None:
    """Grade the replies, write the grades and their summary, and print it."""
    grades = [
        grade_choice(question, reply) if question.options else grade_number(question, reply)
        for question, reply in zip(questions, replies, strict=True)
    ]
    lines = [
        {"question": question.question, "reply": reply, **asdict(grade)}
        for question, reply, grade in zip(questions, replies, grades, strict=True)
    ]
    # In ASCII: a reply may hold half of a character.
    write_text(options.output / GRADES_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    accuracy = share(sum(grade.correct for grade in grades), len(grades))
    n_found = sum(grade.found for grade in grades)
    summary = {"condition": options.condition, "n_questions": len(grades), "n_found": n_found, "accuracy": asdict(accuracy)}
    write_json(options.output / SUMMARY_FILE, summary)
    print(f"{len(grades)} questions, {n_found} with an answer, accuracy {accuracy} (95 % interval)")


def read_correct(output: Path) -> list[bool]:
    """Whether each reply of a finished evaluation was right, in the questions' order."""
    with (output / GRADES_FILE).open(encoding="utf-8") as file:
        return [bool(json.loads(line)["correct"]) for line in file]


if __name__ == "__main__":
    from ochat.cli import main as cli

    cli(["eval", "run", *sys.argv[1:]])
