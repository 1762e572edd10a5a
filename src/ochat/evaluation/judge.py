"""`ochat eval judge`: a model's answers to MT-Bench or Vicuna bench, scored from 1 to 10 by another model.

The way is FastChat's (fastchat/llm_judge): its prompts, read from the questions' folder; each turn judged by itself, with a reference
answer in mathematics, reasoning and coding; temperature 0; the first [[n]] of a judgment is the score, else the first [n], else there
is none, which is counted and left out. A score means nothing without its judge, so judge and prompts are kept beside it."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ochat.conversation import read_json_lines
from ochat.errors import DataError, OchatError, require
from ochat.evaluation.journal import Journal, Reply
from ochat.evaluation.results import JOURNAL_FILE
from ochat.evaluation.run_eval import ANSWERS_FILE, BASE_URL, keep_to_model
from ochat.evaluation.statistics import Estimate, mean_of_runs
from ochat.evaluation.tasks import CHATS
from ochat.files import hold, make_folder, write_json, write_text

if TYPE_CHECKING:
    from ochat.evaluation.ask import Asked, Endpoint

NO_SCORE = -1.0
SCORES_FILE, JUDGMENTS_FILE = "{}-scores.json", "{}-judgments.jsonl"
NEED_REFERENCE = "math", "reasoning", "coding"
REFERENCE = "gpt-4"  # whose answers FastChat has as references
_SCORES = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")


@dataclass(frozen=True)
class Options:
    answers: Annotated[Path, tyro.conf.Positional]
    """folder of an `ochat eval run` of mt_bench or vicuna_bench; or a jsonl of answers in FastChat's form"""
    output: Path | None = None
    """folder for judgments and scores; repeated, what was judged isn't asked again; a folder beside the answers, named for the judge, when
    left out"""
    benchmark: str = ""
    """mt_bench or vicuna_bench, for a jsonl whose name doesn't begin with it"""
    data_path: Path = Path("eval_data")
    """folder of the benchmarks' questions, with FastChat's judge_prompts.jsonl and reference answers"""
    base_url: str = BASE_URL
    """the judge's OpenAI-compatible server; its key, if it wants one, is read from OPENAI_API_KEY"""
    model: str = ""
    """the judge; the server's first model when left out"""
    condition: str = ""
    """the condition to ask the judge under, where it knows conditions"""
    max_tokens: int = 2048
    """tokens of a judgment, at most"""
    parallel: int = 16
    """requests in flight, at most"""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "parallel"):
            if getattr(self, name) < 1:
                raise OchatError(f"--{name.replace('_', '-')} is {getattr(self, name)}. Give 1 or more.")
        if self.benchmark not in ("", *CHATS):
            raise OchatError(f"--benchmark is {self.benchmark!r}. Give one of: {', '.join(CHATS)}.")


@dataclass(frozen=True)
class Match:
    """A turn of an answer, to be judged."""

    question_id: int
    category: str
    turn: int
    model: str
    prompt_name: str
    system: str
    prompt: str


def main(options: Options) -> None:
    require("aiohttp", "eval", "Evaluation")
    matches = {
        kind: read_matches(kind, options.data_path, path)
        for kind, path in answer_files(options.answers, options.benchmark).items()
    }
    asyncio.run(_judge(options, matches))


async def _judge(options: Options, matches: dict[str, list[Match]]) -> None:
    from ochat.evaluation.ask import Asked, Endpoint, served_model

    key = os.environ.get("OPENAI_API_KEY")
    headers = (("Authorization", f"Bearer {key}"),) if key else ()
    url = options.base_url.rstrip("/")
    judge = await served_model(Endpoint(url, headers, options.model))
    endpoint = Endpoint(url, headers, judge["id"])
    beside = options.answers if options.answers.is_dir() else options.answers.parent
    output = options.output or beside / f"judged-by-{re.sub(r'[^a-z0-9.]+', '-', judge['id'].lower()).strip('-')}"
    make_folder(output)
    with hold(output):
        keep_to_model(output, judge | {"condition": options.condition})
        for kind, some in matches.items():
            asked = [Asked((match.prompt,), options.max_tokens, options.condition, 0, (), match.system) for match in some]
            print(f"{len(asked)} answers of {kind}, judged by {judge['id']}", flush=True)
            judgments = await _judgments(endpoint, asked, output, options.parallel)
            scores = [score(judgment) for judgment in judgments]
            write_judgments(output / JUDGMENTS_FILE.format(kind), judge["id"], some, judgments, scores)
            write_json(output / SCORES_FILE.format(kind), {"benchmark": kind, "judge": judge} | summary(some, scores))
            print(table(some, scores))
    print(f"judgments and scores: {output}")


async def _judgments(endpoint: "Endpoint", asked: Sequence["Asked"], output: Path, parallel: int) -> list[str]:
    from ochat.evaluation.ask import ask_all

    judgments = [""] * len(asked)

    def done(index: int, replies: list[Reply]) -> str:
        judgments[index] = replies[0].text
        return ""

    with Journal(output / JOURNAL_FILE) as journal:
        try:
            await ask_all(endpoint, asked, journal, parallel, done)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # one line for the first of many requests that failed alike
    return judgments


def score(judgment: str) -> float:
    """The score that a judgment gives: its first [[n]], else its first [n], else NO_SCORE."""
    found = next((match for pattern in _SCORES if (match := pattern.search(judgment))), None)
    return float(found[1]) if found else NO_SCORE


def answer_files(answers: Path, benchmark: str) -> dict[str, Path]:
    """The files of answers by benchmark; raises OchatError where there are none."""
    if answers.is_dir():
        files = {kind: path for kind in CHATS if (path := answers / ANSWERS_FILE.format(kind)).is_file()}
        if not files:
            below = next(iter(sorted(answers.glob(f"*/{ANSWERS_FILE.format('*')}"))), None)
            remedy = (
                f"Judge each condition's: ochat eval judge {below.parent}"
                if below
                else "Ask for them: ochat eval run --eval-sets mt_bench"
            )
            raise OchatError(f"{answers} holds no answers to judge. {remedy}.")
        return {kind: path for kind, path in files.items() if benchmark in ("", kind)} or files
    kind = benchmark or next((kind for kind in CHATS if answers.name.startswith(kind)), "")
    if not kind:
        raise OchatError(f"{answers}: of which benchmark are these answers? Give --benchmark mt_bench or vicuna_bench.")
    return {kind: answers}


def read_matches(kind: str, data_path: Path, answers: Path) -> list[Match]:
    """What is to be judged, in the answers' order, first turns first. Raises DataError at an answer that can't be."""
    questions = {
        row["question_id"]: row for row in _rows(data_path / kind / "question.jsonl", "question_id", "category", "turns")
    }
    prompts = {row["name"]: row for row in _rows(_prompts(data_path, kind), "name", "system_prompt", "prompt_template")}
    references_file = data_path / kind / "reference_answer" / f"{REFERENCE}.jsonl"
    references = {row["question_id"]: _turns(row) for row in _rows(references_file, "question_id", "choices")}
    matches = []
    for number, row in enumerate(_rows(answers, "question_id", "model_id", "choices"), start=1):
        place, question = f"{answers}:{number}", questions.get(row["question_id"])
        if question is None:
            raise DataError(f"{place}: question {row['question_id']} is not in {data_path / kind}. Give the answers of {kind}.")
        turns, needs_reference = _turns(row), question["category"] in NEED_REFERENCE
        reference = references.get(row["question_id"], []) if needs_reference else []
        for turn in range(1, len(question["turns"]) + 1):
            name = f"single-{'math-' if needs_reference else ''}v1{'-multi-turn' if turn > 1 else ''}"
            if name not in prompts:
                raise DataError(f"{_prompts(data_path, kind)} has no prompt {name}. Fetch FastChat's: ochat eval fetch.")
            if len(turns) < turn or (needs_reference and len(reference) < turn):
                lacks = (
                    f"the answer to question {row['question_id']}"
                    if len(turns) < turn
                    else f"its reference in {references_file}"
                )
                raise DataError(
                    f"{place}: {lacks} has no turn {turn}. Repeat the run that it comes from, or fetch the questions again."
                )
            values = {"question": question["turns"][0], "answer": turns[0]}
            for at in range(turn):
                values |= {f"question_{at + 1}": question["turns"][at], f"answer_{at + 1}": turns[at]}
                values |= {f"ref_answer_{at + 1}": reference[at]} if needs_reference else {}
            try:
                prompt = prompts[name]["prompt_template"].format(**values)
            except (KeyError, IndexError, ValueError) as error:
                raise DataError(
                    f"{_prompts(data_path, kind)}: {name} is no prompt of FastChat's ({error!r}). Fetch it again."
                ) from error
            matches.append(
                Match(
                    row["question_id"],
                    question["category"],
                    turn,
                    row["model_id"],
                    name,
                    prompts[name]["system_prompt"],
                    prompt,
                )
            )
    if not matches:
        raise DataError(f"{answers} has no answers. Ask for them: ochat eval run --eval-sets {kind}.")
    return sorted(matches, key=lambda match: match.turn)


def _prompts(data_path: Path, kind: str) -> Path:
    """FastChat has one file for both benchmarks."""
    paths = [data_path / folder / "judge_prompts.jsonl" for folder in (kind, "mt_bench", ".")]
    return next((path for path in paths if path.is_file()), paths[1])


def _rows(path: Path, *keys: str) -> list[dict[str, Any]]:
    rows = []
    for place, row in read_json_lines(path):
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if not isinstance(row, dict) or lacking:
            raise DataError(f"{place}: no `{lacking[0]}`. Give a file of FastChat's form; `ochat eval fetch` gets its own.")
        rows.append(row)
    return rows


def _turns(row: dict[str, Any]) -> list[str]:
    """The texts of an answer, "" for none."""
    match row["choices"]:
        case [{"turns": list(turns)}, *_]:
            return [str(turn) for turn in turns]
    return []


def write_judgments(
    path: Path, judge: str, matches: Sequence[Match], judgments: Sequence[str], scores: Sequence[float]
) -> None:
    """The judgments in FastChat's form, with the question's category."""
    lines = [
        {
            "question_id": match.question_id,
            "category": match.category,
            "model": match.model,
            "judge": [judge, match.prompt_name],
            "user_prompt": match.prompt,
            "judgment": judgment,
            "score": given,
            "turn": match.turn,
        }
        for match, judgment, given in zip(matches, judgments, scores, strict=True)
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))  # in ASCII: a reply may hold half of a character


def summary(matches: Sequence[Match], scores: Sequence[float]) -> dict[str, object]:
    """The mean score of all judgments that give one, as FastChat has it, by turn and category too; and the system prompts with a
    hash of each judgment's prompt, by which the same prompts are known again."""
    groups = _groups(matches, scores)
    texts = "\0".join(match.prompt for match in matches)
    return {
        "model": matches[0].model,
        "mean": _mean(scores),
        "n_judged": len(scores),
        "n_without_score": sum(given == NO_SCORE for given in scores),
        "by": {name: {"mean": _mean(some), "n": len(some)} for name, some in groups.items()},
        "prompts": {match.prompt_name: match.system for match in matches},
        "prompts_sha256": hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest(),
    }


def _groups(matches: Sequence[Match], scores: Sequence[float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for match, given in zip(matches, scores, strict=True):
        groups.setdefault(f"turn {match.turn}", []).append(given)
    for match, given in zip(matches, scores, strict=True):
        groups.setdefault(match.category, []).append(given)
    return groups


def _mean(scores: Sequence[float]) -> float | None:
    given = _given(scores)
    return sum(given) / len(given) if given else None


def _given(scores: Sequence[float]) -> list[float]:
    return [one for one in scores if one != NO_SCORE]


def table(matches: Sequence[Match], scores: Sequence[float]) -> str:
    """The mean score of all, of each turn and of each category."""
    lines = [f"{'':<14}  judged  no score  mean of 1 … 10 [95 % interval]"]
    for name, some in {"all": list(scores), **_groups(matches, scores)}.items():
        given = _given(some)
        mean: Estimate | str = mean_of_runs(given) if given else "-"
        lines.append(f"{name:<14}  {len(some):>6}  {len(some) - len(given):>8}  {mean}")
    return "\n".join(lines)


def read_score(folder: Path, kind: str) -> tuple[float, int] | None:
    """The mean score that a run's answers were given, and how many turns were judged; None where no judge, or more than one, gave
    one."""
    found = sorted(folder.glob(f"*/{SCORES_FILE.format(kind)}"))
    if len(found) != 1:
        return None
    try:
        scores = json.loads(found[0].read_text(encoding="utf-8"))
        return None if scores["mean"] is None else (float(scores["mean"]), int(scores["n_judged"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OchatError(f"{found[0]} can't be read ({error!r}). Repeat the `ochat eval judge`.") from error
