"""Conversations to tokens: `ochat data tokenize` beside the original's generate_dataset and TRL's preparation.

    python benchmarks/tokenizing.py --install              # the peers' environments, outside of the repository
    python benchmarks/tokenizing.py --rows 10000 100000 --json FILE
    python benchmarks/tokenizing.py --rows 10000 100000 1000000 --peers

The same rows, tokenizer and cores; whole commands, as a user would type them, the arms in turn, median of --rounds. Rows are those of
--input (conversations, plain or .gz); where more are asked for, they come again, each with its number in the question. Memory and processor seconds
are of the command and all that it starts. "rows/s after the start" is between the smallest and the largest number of rows, so that what a
command takes to start, which is most of a peer's time for few rows, is left out. (It isn't named tokenize.py: Python has a module of that name.)

The original runs `python -m ochat.data.generate_dataset` of its own package, which Ray spreads over the cores; of what its package asks for, only what
that command imports is installed. TRL has no weights: it tokenizes the conversations by a chat template of the same text."""

import argparse
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from invariance import CPU, TRAINERS, Trainer
from invariance import install as install_trainer
from process_tree import Measured, measure

from ochat.registry import load_template, model_type

KIND = "openchat_v3.2_mistral"
ORIGINAL = Trainer(
    "original",
    "",
    ("ray==2.60.0", "transformers==5.24.0", "orjson", "pyarrow", "pydantic", "sentencepiece", "protobuf"),
    CPU,
    environment="ochat-original-data",
)
ORIGINAL_PACKAGE = "ochat==3.6.1"
TRL = next(trainer for trainer in TRAINERS if trainer.name == "trl")
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": "",
    "PYTHONSAFEPATH": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "300",
}


@dataclass(frozen=True)
class Result:
    """An arm's run over a file."""

    arm: str
    rows: int
    tokens: int
    disk_bytes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def write_rows(path: Path, source: Path, n_rows: int) -> None:
    """The source's first rows; after its end they come again, numbered."""
    with gzip.open(source, "rt", encoding="utf-8") if source.suffix == ".gz" else source.open(encoding="utf-8") as file:
        rows = [row_of(json.loads(line)) for line in file]
    with path.open("w", encoding="utf-8") as out:
        for number, row in enumerate(islice(cycle(rows), n_rows)):
            if number >= len(rows):
                first, *rest = row["items"]
                row = {**row, "items": [{**first, "content": f"{first['content']} ({number})"}, *rest]}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def row_of(row: dict[str, Any]) -> dict[str, Any]:
    """A conversation with all weights, which the original wants, or an Alpaca row as one."""
    if "items" not in row:
        question = "\n\n".join(str(row[name]) for name in ("instruction", "input") if row.get(name))
        items = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"], "weight": 0.1}]
        row = {"items": items, "condition": "GPT3"}
    items = [{"weight": float(item["role"] == "assistant"), **item} for item in row["items"]]
    return {"items": items} | {name: row[name] for name in ("condition", "system") if row.get(name)}


def ours(rows: Path, tokenizer: Path, work: Path, cores: int) -> tuple[Measured, int, int]:
    """The run, its tokens, and its bytes on disk."""
    command = [sys.executable, "-m", "ochat.cli", "data", "tokenize", rows, "--tokenizer", tokenizer, "--output", work / "ours"]
    found = measure([*command, "--model-type", KIND, "--workers", cores], work / "log")
    return found, json.loads((work / "ours" / "meta.json").read_text())["tokens"], size(work / "ours")


def original(rows: Path, tokenizer: Path, work: Path, python: Path) -> tuple[Measured, int, int]:
    """The same of the original, whose file's name ends in the number of an epoch."""
    (work / "rows.0.jsonl").symlink_to(rows)
    command = [python, "-m", "ochat.data.generate_dataset", "--model-type", KIND, "--model-path", tokenizer]
    found = measure([*command, "--in-prefix", work / "rows", "--out-prefix", work / "out"], work / "log", env=QUIET, cwd=work)
    path = work / "out.0.parquet"
    return found, sum(pq.read_table(path, columns=["total_length"])["total_length"].to_pylist()), path.stat().st_size


def trl(rows: Path, tokenizer: Path, work: Path, python: Path, cores: int) -> tuple[Measured, int, int]:
    """The same of TRL, on `messages`, which is what it knows."""
    messages, template = work / "messages.jsonl", work / "template.jinja"
    with rows.open(encoding="utf-8") as file, messages.open("w", encoding="utf-8") as out:
        for line in file:
            items = json.loads(line)["items"]
            out.write(
                json.dumps({"messages": [{"role": i["role"], "content": i["content"]} for i in items]}, ensure_ascii=False)
                + "\n"
            )
    template.write_text(load_template(model_type(KIND), tokenizer).jinja(), encoding="utf-8")
    script = Path(__file__).parent / "peers" / "prepare_with_trl.py"
    command = [python, script, messages, tokenizer, cores, template, work / "trl.json"]
    found = measure(command, work / "log", env={**QUIET, "HF_DATASETS_CACHE": str(work / "cache")}, cwd=work)
    said = json.loads((work / "trl.json").read_text())
    return found, said["tokens"], said["bytes"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def install(environments: Path) -> None:
    """Make the peers' environments."""
    for trainer in (TRL, ORIGINAL):
        install_trainer(trainer, environments)
    python = environments / ORIGINAL.environment / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", python, ORIGINAL_PACKAGE], check=True
    )


def summary(results: Iterable[Result]) -> list[Result]:
    """The median run of each arm and number of rows, by its seconds."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.arm, result.rows), []).append(result)
    return [sorted(group, key=lambda result: result.seconds)[(len(group) - 1) // 2] for group in groups.values()]


def table(results: list[Result], cores: int) -> str:
    """Markdown: a line for each number of rows and arm, then the rates between the smallest and the largest number."""
    lines = ["| rows | arm | seconds | rows/s | tokens/s | CPU seconds | peak memory | bytes a token |", "|---" * 8 + "|"]
    for r in sorted(results, key=lambda result: result.rows):
        rates = f"{r.seconds:.1f} | {r.rows / r.seconds:,.0f} | {r.tokens / r.seconds:,.0f} | {r.cpu_seconds:.1f}"
        lines.append(f"| {r.rows:,} | {r.arm} | {rates} | {r.peak_bytes / 2**20:,.0f} MB | {r.disk_bytes / r.tokens:.2f} |")
    lines += [
        "",
        "| arm | rows/s after the start | tokens/s | tokens/CPU second | ours / it, by time | by CPU time |",
        "|---" * 6 + "|",
    ]
    speeds = {arm: after_start([r for r in results if r.arm == arm]) for arm in dict.fromkeys(r.arm for r in results)}
    for arm, speed in speeds.items():
        if speed and (own := speeds["ours"]):
            ratios = f"{own[1] / speed[1]:.2f} | {own[2] / speed[2]:.2f}"
            lines.append(f"| {arm} | {speed[0]:,.0f} | {speed[1]:,.0f} | {speed[2]:,.0f} | {ratios} |")
    return "\n".join(lines)


def after_start(results: list[Result]) -> tuple[float, float, float] | None:
    """Rows a second, tokens a second and tokens a CPU second between the smallest and the largest number of rows."""
    few, many = min(results, key=lambda r: r.rows), max(results, key=lambda r: r.rows)
    rows, tokens = many.rows - few.rows, many.tokens - few.tokens
    seconds, cpu_seconds = many.seconds - few.seconds, many.cpu_seconds - few.cpu_seconds
    return (rows / seconds, tokens / seconds, tokens / cpu_seconds) if seconds > 0 and cpu_seconds > 0 else None


def machine() -> str:
    """The processor and the system."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {name}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("OCHAT_TEST_DATA")
    alpaca = Path(data) / "train" / "alpaca_davinci003_52k.jsonl.gz" if data else None
    tokenizer = Path(data) / "tokenizers" / "openchat_3.5" if data else None
    parser.add_argument(
        "--input", type=Path, default=alpaca, help="conversations or Alpaca rows (default: those of OCHAT_TEST_DATA)"
    )
    parser.add_argument(
        "--tokenizer", type=Path, default=tokenizer, help=f"folder, for {KIND} (default: that of OCHAT_TEST_DATA)"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 52_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", nargs="*", choices=["original", "trl"], default=["original", "trl"], help="none: ours alone")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ochat-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="folder of the peers' environments (%(default)s)")
    parser.add_argument("--install", action="store_true", help="make the peers' environments first")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON instead, or write it here")
    options = parser.parse_args()
    if not options.input or not options.tokenizer:
        parser.error("give --input and --tokenizer, or set OCHAT_TEST_DATA to the folder of test data")
    if options.install:
        install(options.environments)
    cores = len(os.sched_getaffinity(0))
    pythons = {t.name: options.environments / (t.environment or t.name) / "bin" / "python" for t in (ORIGINAL, TRL)}
    missing = [name for name in options.peers if not pythons[name].exists()]
    arms: dict[str, Callable[[Path, Path], tuple[Measured, int, int]]] = {
        "ours": lambda rows, work: ours(rows, options.tokenizer, work, cores),
        "original": lambda rows, work: original(rows, options.tokenizer, work, pythons["original"]),
        "trl": lambda rows, work: trl(rows, options.tokenizer, work, pythons["trl"], cores),
    }
    results: list[Result] = []
    failed: dict[str, str] = {}
    versions = {"ours": f"ochat {version('ochat-crlft')}", "original": ORIGINAL_PACKAGE, "trl": TRL.requires[0]}
    facts = {"date": str(date.today()), "machine": machine(), "input": options.input.name, "rounds": options.rounds}

    def as_json() -> str:
        of_arms = [asdict(result) for result in summary(results)]
        return json.dumps({**facts, "versions": versions, "missing": missing, "failed": failed, "results": of_arms}, indent=1)

    with tempfile.TemporaryDirectory() as temporary:
        for n_rows in sorted(options.rows):
            rows = Path(temporary) / "rows.jsonl"
            write_rows(rows, options.input, n_rows)
            for _ in range(options.rounds):
                for arm in ("ours", *(name for name in options.peers if name not in missing)):
                    if arm in failed:
                        continue
                    work = Path(temporary) / "work"
                    work.mkdir()
                    try:
                        found, n_tokens, n_bytes = arms[arm](rows, work)
                    except SystemExit as error:
                        if arm == "ours":
                            raise
                        failed[arm] = f"{n_rows:,} rows: {error}"
                        print(f"{arm} failed, and is left out from here on: {failed[arm]}", file=sys.stderr, flush=True)
                        continue
                    finally:
                        shutil.rmtree(work)
                    results.append(Result(arm, n_rows, n_tokens, n_bytes, **asdict(found)))
                    print(
                        f"{n_rows:,} rows, {arm}: {found.seconds:.1f} s, {found.cpu_seconds:.1f} CPU s",
                        file=sys.stderr,
                        flush=True,
                    )
                    if options.json and options.json != "-":  # whatever comes of the others
                        Path(options.json).write_text(as_json() + "\n", encoding="utf-8")
    if options.json == "-":
        print(as_json())
        return
    print(", ".join(f"{name}: {value}" for name, value in facts.items()) + "\n\n" + table(summary(results), cores))
    for name in missing:
        print(f"- {name}: not installed: `python benchmarks/tokenizing.py --install`")
    for name, why in failed.items():
        print(f"- {name} failed: {why.splitlines()[0]}")


if __name__ == "__main__":
    main()
