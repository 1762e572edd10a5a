"""Real tokens a second of training, ours beside what others would use: the same model, rows, precision and learned tokens.

    python benchmarks/throughput.py                       # this machine's CPU, SmolLM2-135M's shape, about an hour
    python benchmarks/throughput.py --tiny                # does it all work? a minute or two
    python benchmarks/throughput.py --device cuda --shape mistral-7b --checkpointing --plain-adamw --tokens 131072

Arms: `padded`, transformers' Trainer on batches padded to their longest row, drawn at random; `grouped`, the same with the
batches of train_sampling_strategy="group_by_length"; `trl`, TRL's SFTTrainer with best-fit-decreasing packing; `ours`. Each runs
in a process of its own, the arms in turn, round after round; the peers in an environment that is made at the first call, outside
of the repository. A figure is the median over the rounds.

Rows are the quantiles of a distribution of lengths, and the first third of each isn't learned. The padded arms get a sample of
the batches that 20,000 rows make, by quantiles of their size, since a few rows alone would pad more than a data set does.

On a CPU every arm has one thread, and tokens a second of *processor time* is the figure: others may use the machine's cores at
the same time. On a GPU it is wall time. In bf16 the peers' weights are bf16 themselves, which is faster for both of them than
autocast over float32 weights (`--precisions bf16-autocast` measures that); ours has float32 masters beside."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from throughput_arm import ARMS, SHAPES, Spec, quantiles

TRL = "1.16.0"
PEER_PACKAGES = [f"trl=={TRL}", "transformers==5.23.0", "datasets==5.2.0", "accelerate==1.15.0", "numpy<3"]
LONGEST = {"conversations": 2048, "short": 512, "bimodal": 2048}
FORWARD_SLOTS = 8192  # a padded batch is as many rows as never fill more slots than this, whichever rows they are
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 of the SXM boards, by the makers


def main() -> None:
    """Measure, then print the tables, or JSON."""
    options = parse()
    distributions = options.distributions
    peer = environment(options.environments / "trl") if set(options.arms) - {"ours"} else None
    results: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    report: dict[str, Any] = {}
    for number in range(options.rounds):
        for arm in options.arms:
            if arm in failed:
                continue
            specs = [spec(options, arm, precision, d) for precision in options.precisions for d in distributions]
            python = Path(sys.executable) if arm == "ours" or peer is None else peer
            try:
                lines = run(python, specs, options.device)
            except SystemExit as error:
                if arm == "ours":
                    raise
                failed[arm] = str(error)
                print(f"{arm} is left out from here on: {error}", file=sys.stderr)
                continue
            for given, line in zip(specs, lines, strict=True):
                name = distributions[specs.index(given) % len(distributions)]
                results.setdefault((given.precision, name, arm), []).append(line)
                rate = line["tokens"] / clock(options, line)
                print(f"round {number + 1} {given.precision} {name} {arm}: {rate:.0f} tokens/s", file=sys.stderr)
            report = summary(options, results) | {"failed": failed}
            if options.json and options.json != "-":  # whatever comes of the others
                Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not report:
        raise SystemExit("No arm could be measured.")
    print(json.dumps(report, indent=1) if options.json == "-" else tables(report))


def parse() -> argparse.Namespace:
    """The command line; --tiny sets what isn't given."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, help="of the model, with random weights (default smollm2-135m)")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, to save time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp32", "bf16-autocast"], default=["bf16", "fp32"])
    parser.add_argument("--distributions", nargs="+", choices=LONGEST, default=list(LONGEST))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--tokens", type=int, help="of an epoch, which is what is timed (default 4,096)")
    parser.add_argument("--step-tokens", type=int, default=4096, help="of an optimizer step, about")
    parser.add_argument("--checkpointing", action="store_true", help="activation checkpointing, in every arm")
    parser.add_argument("--plain-adamw", action="store_true", help="no float32 masters in our arm, where they don't fit")
    parser.add_argument("--compile", action="store_true", help="torch.compile each layer in our arm")
    parser.add_argument("--trl-attention", default="sdpa", help="e.g. flash_attention_2 where flash-attn is installed")
    parser.add_argument("--environments", type=Path, default=cache / "ochat-peers", help="folder for the peers' environment")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, one round, some thousand tokens")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="print JSON instead, or write it beside the tables"
    )
    options = parser.parse_args()
    options.shape = options.shape or ("tiny" if options.tiny else "smollm2-135m")
    options.rounds = options.rounds or (1 if options.tiny else 3)
    options.tokens = options.tokens or 4096
    return options


def environment(folder: Path) -> Path:
    """The python of an environment with the peers' packages, made where there is none."""
    python = folder / "bin" / "python"
    check = f"import importlib.metadata as m, torch, datasets, accelerate; assert m.version('trl') == '{TRL}'"
    if python.exists() and subprocess.run([python, "-c", check], check=False, capture_output=True).returncode == 0:
        return python
    import torch

    print(f"making {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    # Our own build of torch first: a resolver that is free to choose takes another, and on a CPU gigabytes of CUDA.
    torch_version = f"torch=={torch.__version__}"
    if torch.version.cuda is None:
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--no-deps"]
        tries = [[*pip, "--no-deps", "--no-index", torch_version], [*uv, "--torch-backend=cpu", torch_version]]
    else:
        tries = [[*pip, torch_version]]
    if all(subprocess.run(command, check=False).returncode for command in tries):
        raise SystemExit(f"No {torch_version} found for {folder}. Put its wheel in a folder and set PIP_FIND_LINKS to that.")
    subprocess.run([*pip, *PEER_PACKAGES, torch_version], check=True)
    return python


def spec(options: argparse.Namespace, arm: str, precision: str, distribution: str) -> Spec:
    """What an arm is to do."""
    mean = statistics.fmean(quantiles(distribution, 1000))
    micro_rows = max(1, FORWARD_SLOTS // LONGEST[distribution])
    if arm in ("padded", "grouped"):
        # A sample of few rows pads more than the data: grouping finds no rows alike. So sample whole batches of the large set.
        of_all = sorted(padded_batches(distribution, micro_rows, grouped=arm == "grouped"), key=lambda b: len(b) * max(b))
        least = max(2, round(options.tokens / (micro_rows * mean)))
        samples = [
            [length for i in range(n) for length in of_all[int((i + 0.5) / n * len(of_all))]]
            for n in range(least, 3 * least // 2 + 1)
        ]
    else:
        least = max(8, round(options.tokens / mean))
        samples = [quantiles(distribution, n) for n in range(least, 3 * least // 2 + 1)]
    # Long rows are few, and cost most: take the number of batches or rows whose mean is nearest to the distribution's.
    lengths = min(samples, key=lambda sample: abs(statistics.fmean(sample) - mean))
    return Spec(
        arm=arm,
        shape=options.shape,
        layers=options.layers,
        precision=precision,
        lengths=lengths,
        step_tokens=options.step_tokens,
        row_tokens=2048,
        micro_rows=micro_rows,
        device=options.device,
        checkpointing=options.checkpointing,
        masters=not options.plain_adamw,
        trl_attention=options.trl_attention,
        compile=options.compile,
    )


def run(python: Path, specs: list[Spec], device: str) -> list[dict[str, Any]]:
    """The measurements of an arm's process."""
    threads = {} if device == "cuda" else {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), str(Path(__file__).with_name("throughput_arm.py")), json.dumps([asdict(given) for given in specs])]
    done = subprocess.run(command, env=os.environ | threads, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{specs[0].arm} failed with status {done.returncode}:\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def clock(options: argparse.Namespace, line: dict[str, Any]) -> float:
    """The seconds that count: of the processor on a CPU, of the wall on a GPU."""
    return float(line["seconds" if options.device == "cuda" else "cpu_seconds"])


def summary(options: argparse.Namespace, results: dict[tuple[str, str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians and spreads, each arm's ratio to the best peer, what was run on what."""
    rows = []
    for (precision, distribution, arm), lines in results.items():
        rates = [line["tokens"] / clock(options, line) for line in lines]
        first = lines[0]
        peak = next((flops for name, flops in PEAK_FLOPS.items() if name in first["device"]), None)
        per_second = statistics.median(line["flops"] / clock(options, line) for line in lines)
        rows.append(
            {
                "precision": precision,
                "distribution": distribution,
                "arm": arm,
                "tokens_per_second": statistics.median(rates),
                "rates": rates,
                "wall_tokens_per_second": statistics.median(line["tokens"] / line["seconds"] for line in lines),
                "tflops": per_second / 1e12,
                "mfu": per_second / peak if peak and precision != "fp32" else None,
                "slots_per_token": first["slots"] / first["tokens"],
                "memory_gb": max(line["memory_gb"] for line in lines),
                **{name: first[name] for name in ("tokens", "learned", "steps", "threads", "device", "versions")},
            }
        )
    for row in rows:
        peers = [
            other["tokens_per_second"]
            for other in rows
            if other["arm"] != "ours" and all(other[key] == row[key] for key in ("precision", "distribution"))
        ]
        row["to_best_peer"] = row["tokens_per_second"] / max(peers) if peers else None
    from ochat.training.cost import processor  # loads torch, after the measuring

    config = {name: value for name, value in vars(options).items() if name not in ("environments", "json")}
    return {
        "date": date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "options": config,
        "rows": rows,
        "padding": {name: padding(name) for name in options.distributions},
    }


def padded_batches(distribution: str, rows: int, *, grouped: bool) -> list[list[int]]:
    """The lengths in each batch that transformers' Trainer makes of 20,000 rows, at random or by its group_by_length."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = quantiles(distribution, 20_000)  # in a random order
    generator = torch.Generator().manual_seed(0)
    order = get_length_grouped_indices(lengths, rows, generator=generator) if grouped else range(len(lengths))
    in_order = [lengths[i] for i in order]
    return [in_order[start : start + rows] for start in range(0, len(order), rows)]


def slots_per_token(batches: list[list[int]]) -> float:
    """Places that padded batches take for each real token."""
    return sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches))


def padding(distribution: str) -> dict[str, float]:
    """Slots for each real token in padded batches of 8, 32 and 128 rows, drawn at random and grouped by length."""
    return {
        f"{name} {rows}": slots_per_token(padded_batches(distribution, rows, grouped=name == "grouped"))
        for rows in (8, 32, 128)
        for name in ("random", "grouped")
    }


def tables(report: dict[str, Any]) -> str:
    """The figures as markdown."""
    gpu = report["options"]["device"] == "cuda"
    out = [
        f"{report['rows'][0]['device'] if gpu else report['machine']}, {report['date']}; "
        f"{report['options']['shape']}, {report['options']['layers'] or 'all'} layers; {report['options']['rounds']} rounds; "
        f"tokens/s of {'wall' if gpu else 'processor'} time, median (lowest to highest)",
        "",
        "| precision | lengths | arm | tokens/s | to the best peer | tokens/s, wall | "
        + ("MFU" if gpu else "GFLOP/s")
        + " | slots a token | memory, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(report["rows"], key=lambda row: (row["precision"], row["distribution"])):
        ratio = "" if row["to_best_peer"] is None else f"{row['to_best_peer']:.2f}"
        work = (f"{row['mfu']:.1%}" if row["mfu"] else "") if gpu else f"{1000 * row['tflops']:.0f}"
        out.append(
            f"| {row['precision']} | {row['distribution']} | {row['arm']} | {row['tokens_per_second']:,.0f} "
            f"({min(row['rates']):,.0f} to {max(row['rates']):,.0f}) | {ratio} | {row['wall_tokens_per_second']:,.0f} | {work} | "
            f"{row['slots_per_token']:.2f} | {row['memory_gb']:.1f} |"
        )
    names = list(next(iter(report["padding"].values())))
    out += [
        "",
        "| slots a real token when padded, rows a batch: | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    out += [
        f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in of.values()) + " |" for name, of in report["padding"].items()
    ]
    return "\n".join(out)


if __name__ == "__main__":
    main()
