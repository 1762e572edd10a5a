"""Packs and steps of an epoch: ours beside those of the original openchat, TRL (bfd) and axolotl, by their own installed code.

    python benchmarks/packing.py --install                 # makes the original's environment, outside of the repository
    python benchmarks/packing.py --rows 100000 --table FILE

TRL's and axolotl's environments are those of invariance.py (`--trainer trl axolotl --install`). Lengths are drawn as in chat data.
A step is one pack a rank. For each number of ranks:

- efficiency: real tokens / (steps x ranks x tokens a pack). Over the bound of a plan that drops nothing, rows were left out.
- dropped: rows that are in no step of the epoch.
- CV of rows a step (std / mean, whole steps): how unlike each other the steps are, beside a random draw (rows in shuffled order as
  long as they fit into the step's tokens), and of the rows' mean length.
- imbalance: sum of L² of the rank that has most, over the ranks' mean; mean over the whole steps.
- CPU seconds: of one epoch's plan, code compiled before; where a trainer makes it in every process, or more than once, of one."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ochat.data.packing import pack, plan, shuffled

Ints = NDArray[np.int64]
SETTINGS = ((4096, 8192), (8192, 65536))  # longest row, tokens a pack
ORIGINAL = "ochat==3.6.1"
ENVIRONMENTS = {"original": "ochat-original", "trl": "trl", "trl-whole": "trl", "axolotl": "axolotl"}
REMEDIES = {"original": "python benchmarks/packing.py --install"}


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    packer: str
    rows: int
    max_tokens: int
    pack_tokens: int
    ranks: int
    steps: int
    fewest_steps: int
    efficiency: float
    bound: float
    dropped: int
    cv: float | None
    cv_random: float | None
    cv_length: float | None
    imbalance: float | None
    seconds: float


def chat_lengths(n_rows: int, max_tokens: int) -> Ints:
    """Median 282, mean 400 before the longest are cut: the lognormal of docs' and tests' figures."""
    normal = np.random.default_rng(0).standard_normal(n_rows)
    return np.clip(282 * np.exp(normal * np.sqrt(2 * np.log(400 / 282))), 1, max_tokens).astype(np.int64)


def variation(values: NDArray[np.number[Any]]) -> float | None:
    """std / mean, of ten values or more."""
    return float(np.std(values) / np.mean(values)) if len(values) >= 10 else None


def measured(
    packer: str,
    data: Ints,
    lengths: Ints,
    packs: Ints,
    steps: Ints,
    sizes: tuple[int, int, int],
    random: float | None,
    seconds: float,
) -> Result:
    """lengths: of the rows pack by pack; packs, steps: where each starts, and the end."""
    _, pack_tokens, ranks = sizes
    fewest = ceil(ceil(int(data.sum()) / pack_tokens) / ranks)
    step_starts = packs[steps]
    whole = len(steps) - 2  # an epoch's last step is short
    rows = np.diff(step_starts)[:whole]
    squares = np.add.reduceat(lengths.astype(np.float64) ** 2, packs[:-1])[: whole * ranks].reshape(whole, ranks)
    return Result(
        packer,
        len(data),
        *sizes,
        steps=len(steps) - 1,
        fewest_steps=fewest,
        efficiency=float(lengths.sum() / ((len(steps) - 1) * ranks * pack_tokens)),
        bound=float(data.sum() / (fewest * ranks * pack_tokens)),
        dropped=len(data) - len(lengths),
        cv=variation(rows),
        cv_random=random,
        cv_length=variation(np.add.reduceat(lengths, step_starts[:-1])[:whole] / rows),
        imbalance=float(np.mean(squares.max(1) / squares.mean(1))) if ranks > 1 and whole > 0 else None,
        seconds=seconds,
    )


def ours(data: Ints, ranks: int, pack_tokens: int) -> tuple[Ints, Ints, Ints, float]:
    """Our plan of one epoch, and its seconds."""
    began = time.process_time()
    steps = plan(data, epochs=1, batch_tokens=ranks * pack_tokens, pack_tokens=pack_tokens, seed=0)
    seconds = time.process_time() - began
    return data[steps.rows], steps.pack_starts, steps.step_starts, seconds


def install(environments: Path) -> None:
    """Make the original's environment: its package without what training with it needs."""
    folder = environments / ENVIRONMENTS["original"]
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "numba", "numpy"], check=True)
    subprocess.run([*pip, "--no-deps", ORIGINAL], check=True)


def run_peer(name: str, python: Path, lengths: Path, out: Path, pack_tokens: int, ranks: list[int]) -> str | None:
    """Let a peer pack in its environment; returns what went wrong."""
    if not python.exists():
        remedy = REMEDIES.get(name, f"python benchmarks/invariance.py --trainer {ENVIRONMENTS[name]} --install")
        return f"not installed: `{remedy}`"
    quiet = {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [python, Path(__file__).parent / "peers" / "packs.py", name, lengths, out, str(pack_tokens), *map(str, ranks)],
            env=os.environ | quiet | {"HF_DATASETS_CACHE": cache},
            cwd=cache,
            capture_output=True,
            text=True,
        )
    return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}" if done.returncode else None


def shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def table(results: list[Result], missing: dict[str, str], versions: dict[str, str]) -> str:
    """Markdown: a table a setting, a line a number of ranks and packer."""
    lines = []
    for sizes in dict.fromkeys((r.rows, r.max_tokens, r.pack_tokens) for r in results):
        lines += ["", f"{sizes[0]:,} rows of at most {sizes[1]:,} tokens, packs of {sizes[2]:,}", ""]
        heads = "ranks | packer | steps (fewest) | efficiency | bound | dropped rows | CV of rows a step | random draw's"
        lines += [f"| {heads} | CV of mean length | L² imbalance | CPU seconds |", "|---" * 11 + "|"]
        for r in (r for r in results if (r.rows, r.max_tokens, r.pack_tokens) == sizes):
            cells = [r.ranks, r.packer, f"{r.steps:,} ({r.fewest_steps:,})", f"{r.efficiency:.4f}", f"{r.bound:.4f}"]
            cells += [f"{r.dropped:,}", shown(r.cv, 4), shown(r.cv_random, 4), shown(r.cv_length, 4)]
            lines.append("| " + " | ".join(map(str, [*cells, shown(r.imbalance, 3), f"{r.seconds:.2f}"])) + " |")
    lines += ["", *(f"- {name}: {of}" for name, of in versions.items()), *(f"- {name}: {why}" for name, why in missing.items())]
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--peers", nargs="*", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS), help="none: ours alone")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ochat-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="folder of the peers' environments (%(default)s)")
    parser.add_argument("--install", action="store_true", help="make the original's environment first")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON instead, or write it here")
    parser.add_argument("--table", type=Path, help="write the table here")
    options = parser.parse_args()
    if options.install:
        install(options.environments)
    ours(chat_lengths(1000, 4096), 1, 8192)  # compiles
    results: list[Result] = []
    missing: dict[str, str] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        lengths_path, out = Path(temporary) / "lengths.npy", Path(temporary) / "packs.npz"
        for n_rows in options.rows:
            for max_tokens, pack_tokens in SETTINGS:
                data = chat_lengths(n_rows, max_tokens)
                np.save(lengths_path, data)
                of_setting = []
                random = {}
                for ranks in options.ranks:
                    drawn = pack(data, shuffled(n_rows, 0, 0), ranks * pack_tokens)[:-1]
                    random[ranks] = variation(np.array([len(rows) for rows in drawn]))
                    lengths, packs, steps, seconds = ours(data, ranks, pack_tokens)
                    sizes = (max_tokens, pack_tokens, ranks)
                    of_setting.append(measured("ours", data, lengths, packs, steps, sizes, random[ranks], seconds))
                for name in (name for name in options.peers if name not in missing):
                    python = options.environments / ENVIRONMENTS[name] / "bin" / "python"
                    why = run_peer(name, python, lengths_path, out, pack_tokens, options.ranks)
                    if why:
                        missing[name] = why
                        continue
                    made = np.load(out)
                    versions[name] = ", ".join(part for part in (str(made["version"]), str(made["note"])) if part)
                    for ranks in options.ranks:
                        lengths, packs, steps = (made[f"{part}_{ranks}"] for part in ("lengths", "packs", "steps"))
                        sizes = (max_tokens, pack_tokens, ranks)
                        if len(steps) > 1:
                            of_setting.append(
                                measured(
                                    name, data, lengths, packs, steps, sizes, random[ranks], float(made[f"seconds_{ranks}"])
                                )
                            )
                        else:
                            missing[f"{name}, {n_rows:,} rows, {ranks} ranks of {pack_tokens:,}"] = "no step at all"
                    print(f"{n_rows:,} rows, packs of {pack_tokens:,}: {name} done", file=sys.stderr, flush=True)
                results += sorted(of_setting, key=lambda result: result.ranks)
    found = {"versions": versions, "missing": missing, "results": [asdict(result) for result in results]}
    as_json = json.dumps(found, indent=1)
    text = table(results, missing, versions)
    print(as_json if options.json == "-" else text)
    if options.table:
        options.table.write_text(text + "\n")
    if options.json and options.json != "-":
        Path(options.json).write_text(as_json + "\n")


if __name__ == "__main__":
    main()
