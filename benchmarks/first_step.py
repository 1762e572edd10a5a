"""Seconds from a jsonl file to the first optimizer step: `python benchmarks/first_step.py [--rows 50000] [--json]`.

The rows are made of words, drawn by a seed: lognormal lengths with a median of 282 tokens and a mean of 400, two classes. The commands are
the public ones, on the embedded base model, with steps of 1,024 tokens: what is measured is the way to the step, and the step itself of
some seconds is told apart. The second time the data set is found made already."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "the a of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were her "
    "all she there would their we him been has when who will more no if out so said what up its about into than them can only other new "
    "some could time these two may then do first any my now such like our over man me even most made after also did many before must "
    "through back years where much your way well down should because each just those people mister how too little state good very make "
    "world still own see men work long get here between both life being under never day same another know while last might us great"
).split()


def write_rows(path: Path, n_rows: int) -> None:
    """Conversations of two classes, one in ten of the expert's."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(n_rows):
            n_words = min(1800, max(6, int(draw.lognormvariate(5.64, 0.836))))
            words = draw.choices(WORDS, k=n_words)
            at = max(1, n_words // 3)
            expert = number % 10 == 0
            items = [
                {"role": "user", "content": " ".join(words[:at])},
                {"role": "assistant", "content": " ".join(words[at:]), "weight": 1.0 if expert else 0.1},
            ]
            condition, of_class = ("GPT4 Correct", "expert") if expert else ("GPT3", "suboptimal")
            file.write(json.dumps({"items": items, "condition": condition, "class": of_class}) + "\n")


def ochat(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "ochat.cli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def seconds_to_first_step(folder: Path, name: str) -> dict[str, float]:
    """Tokenize, then train until the log has its first step; the run is stopped there."""
    started = time.monotonic()
    ochat("data", "tokenize", folder / "rows.jsonl", "--tokenizer", folder / "base", "--output", folder / "data")
    tokenized = time.monotonic()
    log = folder / name / "log.jsonl"
    words = ["--model", folder / "base", "--data", folder / "data", "--output", folder / name, "--batch-tokens", 1024]
    command = [sys.executable, "-m", "ochat.cli", "train", "run", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.exists() and log.read_text().count("\n")):
            time.sleep(0.05)
        done = time.monotonic()
        process.kill()
    step = json.loads(log.read_text().splitlines()[0])["seconds"]
    return {"tokenize": tokenized - started, "start": done - tokenized - step, "first step": step, "all": done - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", options.rows)
        ochat("model", "base", "--output", folder / "base")
        found = {which: seconds_to_first_step(folder, which) for which in ("first time", "second time")}
        meta = json.loads((folder / "data" / "meta.json").read_text())
    if options.json:
        print(json.dumps({"rows": options.rows, "tokens": meta["tokens"], **found}))
        return
    print(f"{options.rows:,} rows, {meta['tokens']:,} tokens; seconds")
    print(f"{'':<12} " + " ".join(f"{part:>11}" for part in found["first time"]))
    for which, seconds in found.items():
        print(f"{which:<12} " + " ".join(f"{value:>11.1f}" for value in seconds.values()))


if __name__ == "__main__":
    main()
