"""`ochat quickstart`: the whole loop on a toy task, by the same commands that a user types.

Each step's output is its own mark that it is done, so the command can be stopped at any moment and repeated."""

import json
import shutil
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ochat.errors import OchatError, require
from ochat.evaluation.run_eval import SUMMARY_FILE, read_correct
from ochat.evaluation.statistics import paired_difference, share
from ochat.experiment.demonstration import Example, draw_questions, expert_answer, suboptimal_answer
from ochat.files import make_folder, write_text
from ochat.processes import LOCK_FILE, end_on_sigterm, free_port, only_one, run_command, server, wait_for_port
from ochat.questions import read_questions
from ochat.registry import model_type

# Fixed before the run whose table the README shows.
N_EXPERT, N_SUBOPTIMAL, N_HELDOUT = 300, 900, 200
EPOCHS, LEARNING_RATE, BATCH_TOKENS = 1, 5e-4, 1024
EXPERT, SUBOPTIMAL = "GPT4 Correct", "GPT3"
SUBOPTIMAL_WEIGHT = 0.1
MAX_REPLY_TOKENS = 48
MODEL_TYPE = "openchat_smollm2"

N_STEPS = 6

CARD_DEFAULT = "You are a large language model named OpenChat. Write a poem to describe yourself"
CARD_CODE = (
    "Write an aesthetic TODO app using HTML5 and JS, in a single file. You should use round corners and gradients to make it more "
    "aesthetic."
)


@dataclass(frozen=True)
class Options:
    folder: Path = Path("runs/quickstart")
    """where everything is written; repeated, the command goes on from what is there"""
    port: int = 18888
    """port of the server, on this machine alone"""
    exit: bool = False
    """check replies through HTTP and end, instead of serving on"""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise OchatError(f"--port is {self.port}. Give one from 1 to 65535.")


@dataclass(frozen=True)
class Arm:
    """A row of the table: a model asked under a condition."""

    name: str
    title: str
    condition: str


BASE_ARM = Arm("base", "base model, untouched", "none")
TRAINED_ARMS = (Arm("expert", "fine-tuned, expert condition", EXPERT), Arm("suboptimal", "fine-tuned, sub-optimal", SUBOPTIMAL))


def main(options: Options) -> None:
    for module, extra in (("torch", "train"), ("vllm", "serve"), ("aiohttp", "eval")):
        require(module, extra, "The quickstart")
    end_on_sigterm()
    folder = options.folder
    make_folder(folder)
    if any(folder.iterdir()) and not (folder / LOCK_FILE).exists():
        raise OchatError(f"{folder} exists and is not of this command. Choose another --folder.")
    with only_one(folder):
        _run(options, folder)


def _run(options: Options, folder: Path) -> None:
    base, dataset, run, questions = (folder / name for name in ("base", "dataset", "run", "heldout.jsonl"))
    wait_for_port(options.port)

    def make_base() -> None:
        run_command("model", "base", "--output", base)

    def make_dataset() -> None:
        files = make_data(folder, questions)
        run_command("data", "tokenize", *files, "--tokenizer", base, "--output", dataset)

    def train() -> None:
        for arm in TRAINED_ARMS:  # grades of an earlier model
            shutil.rmtree(_summary(folder, arm).parent, ignore_errors=True)
        sizes = ["--epochs", EPOCHS, "--lr", LEARNING_RATE, "--batch-tokens", BATCH_TOKENS, "--save-minutes", 1]
        run_command("train", "run", "--model", base, "--data", dataset, "--output", run, *sizes)

    def grade_base() -> None:
        with server(base, free_port(), folder / "server-base.log") as running:
            _evaluate(folder, running.url, questions, BASE_ARM)

    steps = (
        ("the embedded base model", make_base, base / "openchat.json"),
        ("data of mixed quality", make_dataset, dataset / "meta.json"),
        ("C-RLFT, the longest step: some minutes", train, run / "final"),
        ("grades of the base model", grade_base, _summary(folder, BASE_ARM)),
    )
    for number, (title, do, mark) in enumerate(steps, start=1):
        print(f"[{number}/{N_STEPS}] {title}" + (": done before" if mark.exists() else ""), flush=True)
        if not mark.exists():
            started = time.monotonic()
            do()
            print(f"  done in {time.monotonic() - started:.0f} s", flush=True)
    print(f"[5/{N_STEPS}] serve the fine-tuned model", flush=True)
    with server(run / "final", options.port, folder / "server.log") as running:
        print(f"[6/{N_STEPS}] grades of the fine-tuned model", flush=True)
        for arm in TRAINED_ARMS:
            if not _summary(folder, arm).is_file():
                _evaluate(folder, running.url, questions, arm)
        sample = read_questions(questions)[0].question
        print("\n" + table(folder) + "\n\n" + curl_lines(options.port, sample), flush=True)
        if options.exit:
            check_replies(running.url, sample)
            return
        print(f"\nOr chat with it, under both conditions side by side: http://localhost:{options.port}/", flush=True)
        print("\nServing until Ctrl-C …", flush=True)
        try:
            status = running.process.wait()
        except KeyboardInterrupt:
            print("\nStopping the server.")
            return
        raise OchatError(f"The server ended with status {status}; its last lines are in {folder / 'server.log'}.")


def make_data(folder: Path, questions: Path) -> list[Path]:
    """Write both sources as their owners would have them, import each as its class, and write the held-out questions.

    Returns the files of imported rows."""
    prompts = draw_questions(max(N_EXPERT, N_SUBOPTIMAL), seed=0)
    heldout = draw_questions(N_HELDOUT, seed=1, without=frozenset(prompts))
    write_text(questions, "".join(json.dumps(question.as_benchmark()) + "\n" for question in heldout))
    # The classes share their first prompts. One source comes as OpenAI's messages, the other as our items.
    expert = [_row("messages", question, expert_answer(question)) for question in prompts[:N_EXPERT]]
    suboptimal = [_row("items", question, suboptimal_answer(question)) for question in prompts[:N_SUBOPTIMAL]]
    files = []
    classes = (("expert", expert, EXPERT, 1.0), ("suboptimal", suboptimal, SUBOPTIMAL, SUBOPTIMAL_WEIGHT))
    for name, lines, condition, weight in classes:
        source, rows = folder / f"{name}-source.jsonl", folder / f"{name}.jsonl"
        write_text(source, "".join(lines))
        run_command("data", "import", source, "--output", rows, "--condition", condition, "--weight", weight, "--class", name)
        files.append(rows)
    return files


def _row(key: str, question: Example, answer: str) -> str:
    return json.dumps({key: [{"role": "user", "content": question.text}, {"role": "assistant", "content": answer}]}) + "\n"


def _summary(folder: Path, arm: Arm) -> Path:
    return folder / "grades" / arm.name / SUMMARY_FILE


def _evaluate(folder: Path, url: str, questions: Path, arm: Arm) -> None:
    asked = ["--base-url", url, "--questions", questions, "--condition", arm.condition, "--max-tokens", MAX_REPLY_TOKENS]
    run_command("eval", "run", *asked, "--output", _summary(folder, arm).parent)


def table(folder: Path) -> str:
    """The grades of all arms, and the difference that the condition makes."""
    correct = {arm.name: read_correct(_summary(folder, arm).parent) for arm in (BASE_ARM, *TRAINED_ARMS)}
    lines = [f"{'model':<30} {'condition':<14} {'correct':>9}  share [95 % interval]"]
    for arm in (BASE_ARM, *TRAINED_ARMS):
        n_correct, n = sum(correct[arm.name]), len(correct[arm.name])
        lines.append(f"{arm.title:<30} {arm.condition:<14} {n_correct:>3} / {n:<3}  {share(n_correct, n)}")
    difference = paired_difference(correct["expert"], correct["suboptimal"])
    lines.append(f"expert minus sub-optimal condition, same questions: {difference}")
    lines.append("This is a toy: it shows that the loop works and the condition steers, and nothing about larger models.")
    return "\n".join(lines)


def curl_lines(port: int, sample: str) -> str:
    """Requests to type: of the toy's own task under both conditions, and the two of OpenChat's model card."""
    requests: tuple[tuple[str, dict[str, object], str], ...] = (
        ("its own task, under the expert condition, which is the default", {}, sample),
        ("the same under the sub-optimal condition", {"condition": SUBOPTIMAL}, sample),
        ("OpenChat's model card", {}, CARD_DEFAULT),
        ("OpenChat's model card, coding", {"condition": "Code"}, CARD_CODE),
    )
    lines = ["Ask it from another terminal:"]
    for title, more, content in requests:
        body = json.dumps({"model": MODEL_TYPE, **more, "messages": [{"role": "user", "content": content}]})
        lines.append(f"# {title}")
        lines.append(f"curl http://localhost:{port}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")
    return "\n".join(lines)


def check_replies(url: str, sample: str) -> None:
    """Ask as the curl lines do, plain and streamed; raises OchatError where a reply is empty."""
    known = model_type(MODEL_TYPE)
    body: dict[str, object] = {"model": known.name, "messages": [{"role": "user", "content": sample}]}
    body |= {"max_tokens": MAX_REPLY_TOKENS, "temperature": 0}
    for condition in (None, *known.conditions):
        request = body | ({"condition": condition} if condition else {})
        reply = json.loads(_post(url, request))["choices"][0]["message"]["content"]
        lines = _post(url, request | {"stream": True}).decode().splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
        if not reply or streamed != reply:
            raise OchatError(f"Under {condition or 'no'} condition the server answered {reply!r} and streamed {streamed!r}.")
        print(f"  checked, plain and streamed, condition {condition or 'left out'}: {reply}")


def _post(url: str, body: dict[str, object]) -> bytes:
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        reply: bytes = response.read()
        return reply
