"""Rows a second of `ochat data import` and of each step of `ochat data clean`: whole commands, with all processes that they start.

    python benchmarks/cleaning.py --rows 100000 --json FILE

Rows are those of --input in their own format; where more are asked for they come again, with that round's number
after each word, so that a row of one round is no near-duplicate of another's. Decontamination is against --questions."""

import argparse
import gzip
import json
import os
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

from process_tree import Measured, measure
from tokenizing import machine


def write_alpaca(path: Path, source: Path, n_rows: int) -> None:
    """The source's first rows; after its end they come again with other words between."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with path.open("w", encoding="utf-8") as out:
        for number in range(n_rows):
            again, at = divmod(number, len(rows))
            row = {name: rows[at][name] for name in ("instruction", "input", "output")}
            if again:
                row = {name: f" {again} ".join(text.split(" ")) for name, text in row.items()}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("OCHAT_TEST_DATA")
    alpaca = Path(data) / "train" / "alpaca_davinci003_52k.jsonl.gz" if data else None
    parser.add_argument("--input", type=Path, default=alpaca, help="Alpaca rows (default: those of OCHAT_TEST_DATA)")
    questions = Path(data) / "eval" / "eval_data" if data else None
    parser.add_argument(
        "--questions", type=Path, default=questions, help="folder of benchmark questions (default: OCHAT_TEST_DATA's)"
    )
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON instead, or write it here")
    options = parser.parse_args()
    if not options.input or not options.questions:
        parser.error("give --input and --questions, or set OCHAT_TEST_DATA to the folder of test data")
    results: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_alpaca(work / "alpaca.jsonl", options.input, options.rows)
        ochat = [sys.executable, "-m", "ochat.cli", "data"]
        given = ["--condition", "GPT3", "--weight", 0.1]
        results["import"] = measure(
            [*ochat, "import", work / "alpaca.jsonl", "--output", work / "rows.jsonl", *given], work / "log"
        )
        for step in ("exact", "near", "decontaminate"):
            more = ["--questions", options.questions] if step == "decontaminate" else []
            command = [*ochat, "clean", work / "rows.jsonl", "--output", work / "clean.jsonl", "--steps", step, *more]
            results[step] = measure(command, work / "log")
        lines = ["| step | seconds | rows/s | CPU seconds | peak memory |", "|---" * 5 + "|"]
        for step, found in results.items():
            rates = f"{found.seconds:.1f} | {options.rows / found.seconds:,.0f} | {found.cpu_seconds:.1f}"
            lines.append(f"| {step} | {rates} | {found.peak_bytes / 2**20:,.0f} MB |")
    facts = {"date": str(date.today()), "machine": machine(), "input": options.input.name, "rows": options.rows}
    as_json = json.dumps({**facts, "results": {step: asdict(found) for step, found in results.items()}}, indent=1)
    if options.json == "-":
        print(as_json)
        return
    print(", ".join(f"{name}: {value}" for name, value in facts.items()) + "\n\n" + "\n".join(lines))
    if options.json:
        Path(options.json).write_text(as_json + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
