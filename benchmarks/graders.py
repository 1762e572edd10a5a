"""How often the graders are right: ours and the original's, against people, against perfect answers, and the original against itself.

    python benchmarks/graders.py --data FOLDER            # a minute; FOLDER as OCHAT_TEST_DATA, which is the default
    python benchmarks/graders.py --code                   # runs HumanEval's 164 solutions too

- parity: cases of the original on which our compatible grader gives its verdict, of those on which it gave one.
- people: cases on which the strict grader, and the original's, agree with what a person would say.
- perfect: of all questions, those whose own answer is graded right, in each of some phrases.
- code: HumanEval's solutions that pass, base and plus, and the seconds that all of them take."""

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ochat.evaluation.graders.by_task import Grader, check
from ochat.evaluation.graders.final_answer import boxed
from ochat.evaluation.graders.program import find_program, grade_program

# files of cases; those of v3.5.1 hold verdicts of that version, the others of 3.6.1
CASES = (
    "coding_humaneval",
    "fs_cothub_bbh",
    "fs_cothub_gsm8k",
    "fs_cothub_math",
    "fs_cothub_mmlu",
    "zs_agieval",
    "zs_bbh_mc_orca",
    "zs_gpqa",
    "zs_truthfulqa_orca",
    "v3.5.1_coding_humaneval",
    "v3.5.1_fs_cothub_bbh",
    "v3.5.1_zs_math",
)
PERFECT = (
    "zs/agieval",
    "zs/bbh_mc_orca",
    "zs/truthfulqa_orca",
    "fs_cothub/mmlu",
    "fs_cothub/bbh",
    "fs_cothub/gsm8k",
    "fs_cothub/math",
)
PHRASES = ("The answer is {}", "The answer is {}.", "So the answer is {}.", "{}", "Answer: {}")
MATH_PHRASES = (
    "The answer is ${}$",
    "The answer is ${}$.",
    "\\boxed{{{}}}",
    "The answer is {}.",
    "Final Answer: **{}**",
    "Thus, we get ${}$.",
)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) as file:
        yield from map(json.loads, file)


def cases(data: Path) -> list[dict[str, object]]:
    """Parity and people's agreement, a line a file of cases."""
    lines: list[dict[str, object]] = []
    for name in CASES:
        version: Grader = "3.5.1" if name.startswith("v3.5.1") else "3.6.1"
        n = n_same = n_judged = n_strict = n_original = 0
        for row in rows(data / "grader_parity" / f"{name}.jsonl.gz"):
            if row["exception"] is None:
                grade = check(row["task_type"], row["task_data"], row["response"], grader=version)
                n += 1
                n_same += (grade.found, grade.answer, grade.correct) == (row["is_matched"], row["answer"], row["is_correct"])
            if row["human_correct"] is not None:
                strict = check(row["task_type"], row["task_data"], row["response"], grader="strict")
                n_judged += 1
                n_strict += strict.correct == row["human_correct"]
                n_original += row["is_correct"] == row["human_correct"]
        lines.append({"cases": name, "version": version, "parity": [n_same, n],
                      "people, strict": [n_strict, n_judged], "people, original": [n_original, n_judged]})  # fmt: skip
    return lines


def perfect(data: Path, every: int) -> list[dict[str, object]]:
    """Questions whose own answer is graded right, a line a benchmark and phrase."""
    lines: list[dict[str, object]] = []
    for task_type in PERFECT:
        math = task_type.endswith("math")
        tasks = [task for path in sorted((data / "eval/eval_data" / task_type).iterdir()) for task in rows(path)][::every]
        for phrase in MATH_PHRASES if math else PHRASES:
            n_strict = n_original = 0
            for task in tasks:
                label = task["label"] if isinstance(task["label"], str) else task["label"][0]
                reply = phrase.format((boxed(task["_metadata"]["solution"]) or "2") if math else label)
                n_strict += check(task_type, task, reply, grader="strict").correct
                n_original += check(task_type, task, reply, grader="3.6.1").correct
            lines.append({"benchmark": task_type, "phrase": phrase.format("G"), "strict": [n_strict, len(tasks)],
                          "original": [n_original, len(tasks)]})  # fmt: skip
    return lines


def code(data: Path, every: int) -> dict[str, object]:
    """HumanEval's solutions, run."""
    tasks = [row["_metadata"] for row in rows(data / "eval/eval_data/coding/humaneval/humaneval.jsonl.gz")][::every]

    def solved(task: dict[str, Any]) -> bool:
        reply = f"```python\n{task['prompt']}{task['canonical_solution']}\n```"
        runs = grade_program(task, find_program(task["prompt"], task["entry_point"], reply))
        return runs.base and runs.plus is True

    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        n_passed = sum(pool.map(solved, tasks))
    return {"passed": [n_passed, len(tasks)], "seconds": round(time.monotonic() - start, 1), "cores": os.cpu_count()}


def table(lines: list[dict[str, object]]) -> str:
    """The lines as Markdown."""
    head = list(lines[0])
    cells = [[f"{one[0]}/{one[1]}" if isinstance(one, list) else f"{one}" for one in line.values()] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("OCHAT_TEST_DATA"))
    parser.add_argument("--code", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="only every n-th question of a benchmark")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.data is None:
        parser.error("Give --data, the folder that holds eval/ and grader_parity/")
    found: dict[str, Any] = {"cases": cases(options.data), "perfect": perfect(options.data, options.every)}
    if options.code:
        found["code"] = code(options.data, options.every)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(table(found["cases"]), table(found["perfect"]), *([table([found["code"]])] if options.code else []), sep="\n\n")


if __name__ == "__main__":
    main()
