"""Seconds and memory of `ochat data report`, all that it does switched on: `python benchmarks/data_report.py [--json]`.

    python benchmarks/data_report.py --train FOLDER        # real rows: Alpaca's 52,002, and 9,954 of the same prompts by GPT-4
    python benchmarks/data_report.py --rows 50000 200000   # rows of words drawn by a seed: does memory grow with the text?

FOLDER holds alpaca_davinci003_52k.jsonl.gz and alpaca_gpt4_found.jsonl.gz (instruction, input, output); --questions names benchmark
questions to look for. The tokenizer is the embedded base model's. Drawn rows come in two lengths, the second four times the first;
memory is the process's peak."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALPACA = {
    "alpaca_davinci003_52k.jsonl.gz": ("GPT3", 0.1, "suboptimal"),
    "alpaca_gpt4_found.jsonl.gz": ("GPT4 Correct", 1.0, "expert"),
}


def write_rows(path: Path, n_rows: int, n_words: int) -> None:
    """Conversations of two classes, a sixth of the expert's, whose texts have `n_words` words on average."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("etaoinshrdlucmfwypvbgk", k=draw.randint(2, 9))) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(n_rows):
            asked, said = (" ".join(draw.choices(vocabulary, k=draw.randint(1, n_words))) for _ in range(2))
            expert = number % 6 == 0
            items = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": said, "weight": 1.0 if expert else 0.1},
            ]
            condition, of_class = ("GPT4 Correct", "expert") if expert else ("GPT3", "suboptimal")
            file.write(json.dumps({"items": items, "condition": condition, "class": of_class}) + "\n")


def ochat(*words: object) -> tuple[float, float]:
    """Run a command; its seconds, and its peak memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "ochat.cli", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"`ochat {' '.join(map(str, words))}` ended with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def measure(name: str, rows: list[Path], base: Path, questions: Path | None) -> dict[str, object]:
    """One line of the table."""
    n_rows = sum(1 for path in rows for _ in path.open("rb"))
    asked = ["--questions", questions] if questions else []
    seconds, memory = ochat("data", "report", *rows, "--tokenizer", base, *asked, "--output", rows[0].with_suffix(".html"))
    megabytes = sum(path.stat().st_size for path in rows) / 1e6
    return {"data": name, "rows": n_rows, "MB": megabytes, "seconds": seconds, "rows/s": n_rows / seconds, "peak MB": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="folder of real rows")
    parser.add_argument("--questions", type=Path, help="file or folder of benchmark questions")
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ochat("model", "base", "--output", folder / "base")
        if options.train:
            files = []
            for file, (condition, weight, of_class) in ALPACA.items():
                files.append(folder / f"{of_class}.jsonl")
                marks = ("--condition", condition, "--weight", weight, "--class", of_class, "--allow-extra-keys")
                ochat("data", "import", options.train / file, "--output", files[-1], *marks)
            found.append(measure("Alpaca and GPT-4", files, folder / "base", options.questions))
        for n_rows in options.rows or ([] if options.train else [50_000]):
            for n_words in (60, 240):
                path = folder / "rows.jsonl"
                write_rows(path, n_rows, n_words)
                found.append(measure(f"drawn, up to {n_words} words", [path], folder / "base", options.questions))
    if options.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "results": found}))
        return
    print(f"{len(os.sched_getaffinity(0))} cores")
    print(f"{'data':<24} {'rows':>9} {'MB':>7} {'seconds':>8} {'rows/s':>8} {'peak MB':>8}")
    for one in found:
        print(
            f"{one['data']:<24} {one['rows']:>9,} {one['MB']:>7.1f} {one['seconds']:>8.1f} {one['rows/s']:>8,.0f} {one['peak MB']:>8,.0f}"
        )


if __name__ == "__main__":
    main()
