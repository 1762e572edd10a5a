"""`ochat eval run`: ask a server questions under a condition, grade the replies, and say how sure the score is."""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ochat.errors import OchatError, require
from ochat.evaluation.graders.choice import Grade, grade_choice
from ochat.evaluation.journal import Journal
from ochat.evaluation.statistics import share
from ochat.files import make_folder, write_json, write_text
from ochat.questions import Question, read_questions

JOURNAL_FILE, GRADES_FILE, SUMMARY_FILE = "replies.jsonl", "grades.jsonl", "summary.json"


@dataclass(frozen=True)
class Options:
    questions: Path
    """jsonl of {"question", "options", "label"}"""
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
        if not question.options:
            raise OchatError(f"{options.questions}:{number}: the question has no options, and none is graded without yet.")
    grades = asyncio.run(_graded(options, questions))
    write_grades(options, grades)


async def _graded(options: Options, questions: list[Question]) -> list[Grade]:
    from ochat.evaluation.ask import ask_all, chat_request, first_model

    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base_url = options.base_url.rstrip("/")
    model = options.model or await first_model(base_url, headers)
    make_folder(options.output)
    requests = [chat_request(model, q.question, options.condition, options.max_tokens) for q in questions]
    with Journal(options.output / JOURNAL_FILE) as journal:
        try:
            replies = await ask_all(base_url, requests, journal, options.parallel, headers)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # one line for the first of many requests that failed alike
    lines = [
        {"question": q.question, "reply": r, **asdict(grade_choice(q, r))} for q, r in zip(questions, replies, strict=True)
    ]
    write_text(options.output / GRADES_FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return [grade_choice(question, reply) for question, reply in zip(questions, replies, strict=True)]


def write_grades(options: Options, grades: list[Grade]) -> None:
    """Write the summary and print it."""
    accuracy = share(sum(grade.correct for grade in grades), len(grades))
    n_found = sum(grade.found for grade in grades)
    summary = {"condition": options.condition, "n_questions": len(grades), "n_found": n_found, "accuracy": asdict(accuracy)}
    write_json(options.output / SUMMARY_FILE, summary)
    print(f"{len(grades)} questions, {n_found} with an answer, accuracy {accuracy} (95 % interval)")


def read_correct(output: Path) -> list[bool]:
    """Whether each reply of a finished evaluation was right, in the questions' order."""
    return [bool(json.loads(line)["correct"]) for line in (output / GRADES_FILE).read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    from ochat.cli import main as cli

    cli(["eval", "run", *sys.argv[1:]])
