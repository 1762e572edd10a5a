"""Which trainers change the gradient when only the division of a step's rows changes: packing, accumulation, ranks, weights.

    python benchmarks/invariance.py --trainer trl --install      # makes its environment, outside of the repository
    python benchmarks/invariance.py --trainer ours trl llamafactory llamafactory-v1 ms-swift axolotl --json FILE --table FILE

A tiny random Llama is given the same eight conversations in one optimizer step, divided in every way below, and the gradient
that the optimizer is handed is compared with the plain formula, calculated row by row in float64. What is handed over must be
the same however the rows were divided. Each trainer runs as its users run it, by its own options, in its own environment; one
file in peers/ reproduces each."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

HERE = Path(__file__).parent
SAME = 1e-4  # of the largest gradient; float32 rounding is at 1e-6
MAX_TOKENS = 72  # a pack's; some trainers need a multiple of 8
NO_LR = 1e-12  # a step of this size changes no float32 weight, so all steps are at the same weights
TIME_LIMIT = 120  # seconds for a case
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "system", "user", "assistant")
VOCABULARY = 128
WEIGHTS = {"expert": 1.0, "middle": 0.3, "plain": 0.1}
# Class and the words of each message, user first. Tokens: words + 3 a message; in all 10 to 50, and four packs of at most 72.
ROWS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("expert", (2, 2)),
    ("plain", (3, 5)),
    ("middle", (7, 5)),
    ("plain", (2, 3, 2, 3)),
    ("expert", (4, 20)),
    ("plain", (12, 20)),
    ("middle", (10, 12, 6, 6)),
    ("middle", (9, 35)),
)


@dataclass(frozen=True)
class Case:
    """One way to divide the rows of a step. `batch` rows (with packing: packs) a forward."""

    name: str
    asks: str
    batch: int
    accumulation: int = 1
    ranks: int = 1
    packing: Literal["none", "block", "joined"] = "none"  # "joined": the trainer's option that joins without boundaries
    weights: Literal["none", "classes", "one row"] = "none"
    rows: int = 8
    steps: int = 1


CASES = (
    Case("padded", "8 rows in one forward", batch=8),
    Case("accumulation", "2 rows x 4 accumulated", batch=2, accumulation=4),
    Case("last window", "6 rows: 2 x 3 of 4 accumulated", batch=2, accumulation=4, rows=6),
    Case("ranks", "2 ranks x 4 rows", batch=4, ranks=2),
    Case("ranks, accumulation", "2 ranks x 1 row x 4", batch=1, accumulation=4, ranks=2),
    Case("packing", "4 packs in one forward", batch=4, packing="block"),
    Case("packing, accumulation", "1 pack x 4 accumulated", batch=1, accumulation=4, packing="block"),
    Case("packing, ranks", "2 ranks x 1 pack x 2", batch=1, accumulation=2, ranks=2, packing="block"),
    Case("packing without boundaries", "1 pack x 4, its option that joins rows", batch=1, accumulation=4, packing="joined"),
    Case("weights", "8 rows in one forward", batch=8, weights="classes"),
    Case("weights, accumulation", "1 row x 8: each forward has one class", batch=1, accumulation=8, weights="classes"),
    Case("weights, ranks", "2 ranks x 4 rows", batch=4, ranks=2, weights="classes"),
    Case("weights, packing", "1 pack x 4 accumulated", batch=1, accumulation=4, packing="block", weights="classes"),
    Case("weights, steps", "one row at w = 1 and again at 0.1, a step each", batch=1, weights="one row", rows=2, steps=2),
)


@dataclass(frozen=True)
class Trainer:
    """How a trainer is installed and run."""

    name: str
    script: str
    requires: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    shown: tuple[str, ...] = ("transformers", "torch")
    environment: str = ""
    mask: Literal["reply", "message"] = "reply"  # "message": the header of an assistant's message is learned as well
    end_of_turn_weight: float | None = None  # where a message's weight doesn't reach its end-of-turn token
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    not_offered: dict[str, str] = field(
        default_factory=dict
    )  # reason by what a case uses: "weights", "joined", or a case's name


# torch is the CPU build, from pip's own folders of wheels; what only a GPU needs is left out.
CPU = ("torch==2.13.0",)
WITHOUT_GPU = tuple(
    f"{name} ; sys_platform == 'never'" for name in ("torchvision", "torchaudio", "xformers", "flash-linear-attention")
)
TRAINERS = (
    Trainer(
        "ours",
        "with_ours.py",
        shown=("ochat-crlft", "transformers", "torch"),
        settings={"normalise": "run"},
        not_offered={"joined": "no such option"},
    ),
    Trainer(
        "trl",
        "with_trl.py",
        ("trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0"),
        CPU,
        ("trl", "transformers", "torch"),
        not_offered={"weights": "no weights (huggingface/trl#5761)"},
    ),
    Trainer(
        "llamafactory",
        "with_llamafactory.py",
        ("llamafactory==0.9.5", "transformers==5.6.0"),
        CPU + WITHOUT_GPU,
        ("llamafactory", "transformers", "torch"),
        not_offered={"weights": "no weights in its v0 code"},
    ),
    Trainer(
        "llamafactory-v1",
        "with_llamafactory_v1.py",
        ("llamafactory==0.9.5", "transformers==5.6.0"),
        CPU + WITHOUT_GPU,
        ("llamafactory", "transformers", "torch"),
        environment="llamafactory",
        mask="message",
        variables={"USE_V1": "1"},
        not_offered={"last window": "its loader always drops the last window"},
    ),
    Trainer(
        "ms-swift",
        "with_ms_swift.py",
        ("ms-swift==4.6.0", "transformers==5.19.0"),
        CPU + WITHOUT_GPU,
        ("ms-swift", "transformers", "torch"),
        end_of_turn_weight=1.0,
        not_offered={"joined": "no such option"},
    ),
    Trainer(
        "axolotl",
        "with_axolotl.py",
        ("axolotl==0.19.0", "transformers==5.16.1", "triton==3.9.0"),
        CPU + WITHOUT_GPU,
        ("axolotl", "transformers", "torch"),
        variables={"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"},
        not_offered={"weights": "a message's `weight` is 0 or 1 only", "joined": "no such option with sdpa"},
    ),
)


def rows_of(case: Case) -> list[dict[str, Any]]:
    """The conversations, as messages and as tokens. A `labels` of -100 is not learned; `message_labels` learn headers too."""
    random = np.random.default_rng(7)
    word = {text: index for index, text in enumerate(SPECIAL)}
    rows = []
    for name, sizes in ROWS:
        weight = 1.0 if case.weights == "none" else WEIGHTS[name]
        row: dict[str, Any] = {
            "class": name,
            "weight": weight,
            "messages": [],
            "input_ids": [],
            "labels": [],
            "message_labels": [],
        }
        for number, n_words in enumerate(sizes):
            role = ("user", "assistant")[number % 2]
            words = random.integers(len(SPECIAL), VOCABULARY, n_words).tolist()
            ids = [word["<|im_start|>"], word[role], *words, word["<|im_end|>"]]
            hidden = [-100] * len(ids)
            row["messages"].append({"role": role, "content": " ".join(f"w{w}" for w in words)})
            row["input_ids"] += ids
            row["labels"] += hidden[:2] + ids[2:] if role == "assistant" else hidden
            row["message_labels"] += ids if role == "assistant" else hidden
        rows.append(row)
    if case.weights == "one row":
        return [{**rows[4], "class": name, "weight": WEIGHTS[name]} for name in ("expert", "plain")]
    return rows[: case.rows]


def make_model(folder: Path) -> None:
    """A Llama of 2 layers, 32 wide, and a tokenizer of whole words with the ChatML template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=SPECIAL.index("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than usual, norms too: attention that leaks is to be seen
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1))
    model.save_pretrained(folder)
    words = {**{text: index for index, text in enumerate(SPECIAL)}, **{f"w{n}": n for n in range(len(SPECIAL), VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=512,
    )
    fast.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(folder)


def token_weights(trainer: Trainer, row: dict[str, Any]) -> np.ndarray:
    """The weight of each token but the first: which are learned, and with the weight of their message, is the trainer's choice."""
    targets = np.array(row["labels" if trainer.mask == "reply" else "message_labels"])[1:]
    weights = np.where(targets == -100, 0.0, row["weight"])
    if trainer.end_of_turn_weight is not None:
        weights[targets == SPECIAL.index("<|im_end|>")] = trainer.end_of_turn_weight
    return weights


def plain_gradient(trainer: Trainer, model: Path, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Gradient of Σ w · nll / Σ w over the rows' tokens, one row at a time, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64, attn_implementation="eager").eval()
    for row in rows:
        ids = torch.tensor(row["input_ids"])
        nll = torch.nn.functional.cross_entropy(reference(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")
        (torch.from_numpy(token_weights(trainer, row)) @ nll).backward()
    weight_sum = sum(token_weights(trainer, row).sum() for row in rows)
    return {name: parameter.grad.numpy() / weight_sum for name, parameter in reference.named_parameters()}


@dataclass(frozen=True)
class Result:
    """A case's outcome. Differences are shares of the plain gradient's largest entry."""

    trainer: str
    case: str
    verdict: Literal["same", "scaled", "changed", "other rows", "not run", "not offered"]
    difference: float | None = None  # as it is
    factor: float | None = None  # the best fit of the plain gradient
    shape_difference: float | None = None  # after that factor
    forwards: str = ""
    note: str = ""


def compare(found: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """(difference as it is, best-fit factor, difference after the factor). Every parameter must be there."""
    if found.keys() != plain.keys():
        raise ValueError(f"gradients of {sorted(found.keys() ^ plain.keys())} are on one side only")
    f = np.concatenate([found[name].ravel() for name in sorted(plain)]).astype(np.float64)
    p = np.concatenate([plain[name].ravel() for name in sorted(plain)])
    largest = np.abs(p).max()
    factor = float(f @ p / (p @ p))
    return float(np.abs(f - p).max() / largest), factor, float(np.abs(f / factor - p).max() / largest) if factor else 1.0


def run_cases(trainer: Trainer, cases: Iterable[Case], python: Path, model: Path, folder: Path) -> dict[Case, Result]:
    """Run the cases in the trainer's environment, and compare."""
    results, prepared = {}, []
    for case in cases:
        used = (case.name, "weights" if case.weights != "none" else "", case.packing)
        reasons = [trainer.not_offered[name] for name in used if name in trainer.not_offered]
        if reasons:
            results[case] = Result(trainer.name, case.name, "not offered", note=reasons[0])
            continue
        of_case = folder / case.name.replace(", ", "-").replace(" ", "-")
        shutil.rmtree(of_case, ignore_errors=True)
        of_case.mkdir(parents=True)
        (of_case / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(case)))
        told: dict[str, object] = {**asdict(case), **trainer.settings, "model": str(model), "rows": str(of_case / "rows.jsonl")}
        told |= {
            "out": str(of_case / "gradients"),
            "pad_id": 0,
            "max_tokens": MAX_TOKENS,
            "lr": NO_LR,
            "time_limit": TIME_LIMIT,
        }
        (of_case / "case.json").write_text(json.dumps(told))
        prepared.append((case, of_case))
    if not prepared:
        return results
    given = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    given |= {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", **trainer.variables}
    with (folder / "output.txt").open("w") as output:
        subprocess.run(
            [str(python), str(HERE / "peers" / trainer.script), *(str(of_case / "case.json") for _, of_case in prepared)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | given,
            cwd=folder,
        )
    return results | {case: judge(trainer, case, model, of_case) for case, of_case in prepared}


def judge(trainer: Trainer, case: Case, model: Path, folder: Path) -> Result:
    """Compare the gradients that a case left in its folder."""
    rows, out = rows_of(case), folder / "gradients"
    if not (out / f"step-{case.steps}.npz").exists():
        told = folder / "output.txt" if (folder / "output.txt").exists() else folder.parent / "output.txt"
        lines = [line.strip() for line in told.read_text().splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return Result(trainer.name, case.name, "not run", note=(errors or [f"no step within {TIME_LIMIT} s"])[-1][:300])
    forwards = [f for path in sorted(out.glob("*.json")) for f in json.loads(path.read_text())]
    sizes = " ".join("x".join(map(str, f["shape"])) for f in forwards)
    seen, note = Counter(token for f in forwards for token in f["ids"]), ""
    trained = rows
    if seen != Counter(token for row in rows for token in row["input_ids"]):
        trained = [row for row in rows if any(is_within(row["input_ids"], f["ids"]) for f in forwards)]
        note = f"the step had {len(trained)} of the {len(rows)} rows, and is compared with those"
        if seen != Counter(token for row in trained for token in row["input_ids"]):
            note = "what was trained on isn't whole rows, each once"
            return Result(trainer.name, case.name, "other rows", forwards=sizes, note=note)
    steps = [dict(np.load(out / f"step-{number}.npz")) for number in range(1, case.steps + 1)]
    if case.steps > 1:
        return judge_steps(trainer, case, model, steps, rows, sizes)
    difference, factor, shape = compare(steps[0], plain_gradient(trainer, model, trained))
    verdict = "same" if difference <= SAME else "scaled" if shape <= SAME else "changed"
    of_forwards = [[row for row in trained if is_within(row["input_ids"], f["ids"])] for f in forwards]
    if verdict == "changed" and all(of_forwards):  # is it the known fault?
        means = [plain_gradient(trainer, model, of_forward) for of_forward in of_forwards]
        mean = {name: np.mean([m[name] for m in means], axis=0) for name in means[0]}
        if compare(steps[0], mean)[0] <= SAME:
            note = "equals the mean of the forwards' own means, however many tokens each has"
    return Result(trainer.name, case.name, verdict, difference, factor, shape, sizes, note)  # type: ignore[arg-type] # one of three


def is_within(part: list[int], whole: list[int]) -> bool:
    """Whether the numbers stand in the list one after the other."""
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))


def judge_steps(
    trainer: Trainer,
    case: Case,
    model: Path,
    steps: list[dict[str, np.ndarray]],
    rows: list[dict[str, Any]],
    sizes: str,
) -> Result:
    """The row in a step at one weight, and in another at a lower one. `factor` is the weight that the lower one acts as."""
    steps = sorted(steps, key=lambda step: max(float(np.abs(gradient).max()) for gradient in step.values()), reverse=True)
    fits = [compare(step, plain_gradient(trainer, model, [row])) for step, row in zip(steps, rows, strict=True)]
    # The plain gradient is of Σ w · nll / Σ w of the one row; what stands before Σ w · nll must be equal in both steps.
    high, low = (factor / token_weights(trainer, row).sum() for (_, factor, _), row in zip(fits, rows, strict=True))
    acts_as, shape = rows[1]["weight"] * low / high, max(shape for *_, shape in fits)
    is_same = abs(low / high - 1) <= SAME and shape <= SAME
    return Result(trainer.name, case.name, "same" if is_same else "changed", None, acts_as, shape, sizes)


def environment_of(trainer: Trainer, environments: Path) -> Path:
    """The Python of the trainer's environment."""
    return (
        Path(sys.executable)
        if not trainer.requires
        else environments / (trainer.environment or trainer.name) / "bin" / "python"
    )


def install(trainer: Trainer, environments: Path) -> None:
    """Make the trainer's environment with uv. What pip is told about indexes and folders of wheels is handed on to uv."""
    folder = environments / (trainer.environment or trainer.name)
    uv = [sys.executable, "-m", "uv"]
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    told = {
        line.partition("=")[0].rpartition(".")[2]: line.partition("=")[2].strip("'").replace("\\n", " ") for line in settings
    }
    links = [part for place in told.get("find-links", "").split() for part in ("--find-links", place)]
    index = ["--default-index", told["index-url"]] if "index-url" in told else []
    if not folder.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    overrides = folder / "overrides.txt"
    overrides.write_text("".join(line + "\n" for line in trainer.overrides))
    subprocess.run(
        [
            *(*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *links, *index),
            *("--override", str(overrides), *CPU, *trainer.requires),
        ],
        check=True,
    )


def versions(trainer: Trainer, python: Path) -> str:
    """Name and version of what decides the result."""
    code = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    return subprocess.run([str(python), "-c", code, *trainer.shown], capture_output=True, text=True, check=True).stdout.strip()


def cell(result: Result) -> str:
    """A result in a few characters."""
    if result.case == "weights, steps" and result.factor is not None:
        return f"{'same' if result.verdict == 'same' else '**changed**'}: acts as {result.factor:.3g}"
    match result.verdict:
        case "same":
            return f"same {result.difference:.0e}"
        case "scaled":
            return f"scaled x{result.factor:.3g}"
        case "changed":
            return f"**changed** {result.shape_difference:.2g} (x{result.factor:.3g})"
    return result.verdict


def table(results: dict[tuple[str, str], Result], named: dict[str, str]) -> str:
    """Markdown: a line a case, a column a trainer, notes below. `results` by trainer and case."""
    lines = ["| case | the step's rows | " + " | ".join(named) + " |", "|---" * (2 + len(named)) + "|"]
    for case in CASES:
        cells = [cell(results[name, case.name]) if (name, case.name) in results else "" for name in named]
        if any(cells):
            lines.append(f"| {case.name} | {case.asks} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {name}: {version}" for name, version in named.items())]
    notes: dict[tuple[str, str], list[str]] = {}
    for (name, case_name), result in results.items():
        if result.note and name in named:
            notes.setdefault((name, f"{result.verdict}: {result.note}"), []).append(case_name)
    return "\n".join([*lines, "", *(f"- {name}, {'; '.join(cases)}: {text}" for (name, text), cases in notes.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", nargs="+", choices=[t.name for t in TRAINERS], default=[t.name for t in TRAINERS])
    parser.add_argument("--case", nargs="+", choices=[c.name for c in CASES], default=[c.name for c in CASES])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ochat-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="folder of the peers' environments (%(default)s)")
    parser.add_argument("--install", action="store_true", help="make the environments first")
    parser.add_argument("--work", type=Path, help="keep model, rows, output and gradients here")
    parser.add_argument("--json", type=Path, help="write the results here; those in it of other trainers and cases stay")
    parser.add_argument("--table", type=Path, help="write the table here")
    options = parser.parse_args()
    named, results = read_results(options.json) if options.json and options.json.exists() else ({}, {})
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        make_model(work / "model")
        for trainer in (t for t in TRAINERS if t.name in options.trainer):
            if options.install and trainer.requires:
                install(trainer, options.environments)
            python = environment_of(trainer, options.environments)
            if not python.exists():
                sys.exit(
                    f"{python} not found: {trainer.name} has no environment. Add --install, or say where with --environments."
                )
            named[trainer.name] = versions(trainer, python)
            cases = [c for c in CASES if c.name in options.case]
            for case, result in run_cases(trainer, cases, python, work / "model", work / trainer.name).items():
                results[trainer.name, case.name] = result
                print(f"{trainer.name}: {case.name}: {cell(result)} {result.forwards} {result.note}", flush=True)
            if options.json:
                written = {"versions": named, "results": [asdict(r) for r in results.values()]}
                options.json.write_text(json.dumps(written, indent=1) + "\n")
    text = table(results, {t.name: named[t.name] for t in TRAINERS if t.name in named})
    print(f"\n{text}")
    if options.table:
        options.table.write_text(text + "\n")


def read_results(path: Path) -> tuple[dict[str, str], dict[tuple[str, str], Result]]:
    """The versions and results of an earlier run's --json."""
    earlier = json.loads(path.read_text())
    results = [Result(**fields) for fields in earlier["results"]]
    return earlier["versions"], {(r.trainer, r.case): r for r in results}


if __name__ == "__main__":
    main()
