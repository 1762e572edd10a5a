"""Peak memory and time of the loss, forward and backward: the plain formula beside our chunks.

    python benchmarks/loss_memory.py                                # 8,192 tokens, SmolLM2-135M's head, on the CPU
    python benchmarks/loss_memory.py --device cuda --hidden 4096    # Liger's kernel too, where it's installed
    python benchmarks/loss_memory.py --table FILE --json FILE

Each measurement is a process of its own, so that none profits from memory that another has freed; the variants take turns, and
the median is given. Memory is what the loss adds to its inputs at the peak, its gradients included: resident memory on the CPU
(one thread, and its processor time, so that others on the machine count little), allocated memory on CUDA (wall time)."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

VARIANTS = ("naive", "chunks of 256", "chunks of 1024", "chunks of 2048")
LARGE = (32_768, 128_256)  # tokens and vocabulary for which the plain formula is computed, not run
MEGABYTE = 1e6


def resident(field: str) -> float:
    """This process's memory in MB: VmRSS now, or VmHWM at its peak."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / MEGABYTE


def measure(variant: str, dtype_name: str, tokens: int, vocabulary: int, hidden_size: int, device: str) -> dict[str, float]:
    """One forward and backward in this process."""
    import torch

    from ochat.training.loss import liger_weighted_nll, naive_weighted_nll, weighted_linear_nll

    torch.set_num_threads(1)
    dtype = getattr(torch, dtype_name)
    generator = torch.Generator(device).manual_seed(0)

    def run(tokens: int) -> None:
        hidden, weight = (torch.randn(n, hidden_size, generator=generator, device=device) for n in (tokens, vocabulary))
        hidden, weight = hidden.to(dtype).requires_grad_(), (weight / hidden_size**0.5).to(dtype).requires_grad_()
        labels = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
        weights = torch.rand(tokens, generator=generator, device=device)
        if device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
            before, started = resident("VmRSS"), time.process_time()
        else:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, started = torch.cuda.memory_allocated() / MEGABYTE, time.perf_counter()
        if variant == "naive":
            losses = naive_weighted_nll(hidden, weight, None, labels, weights)
        elif variant == "liger":
            losses = liger_weighted_nll(hidden, weight, None, labels, weights)
        else:
            losses = weighted_linear_nll(hidden, weight, None, labels, weights, chunk_tokens=int(variant.split()[-1]))
        losses.total.backward()
        if device == "cpu":
            found["seconds"], found["megabytes"] = time.process_time() - started, resident("VmHWM") - before
        else:
            torch.cuda.synchronize()
            found["seconds"] = time.perf_counter() - started
            found["megabytes"] = torch.cuda.max_memory_allocated() / MEGABYTE - before
        found["mean_nll"] = float(losses.nll.mean())

    found: dict[str, float] = {}
    if device != "cpu":
        run(64)  # kernels are loaded and compiled
    run(tokens)
    return found


def table(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The medians, as Markdown."""
    lines = ["| dtype | loss | extra MB at the peak | of naive | seconds | mean nll |", "|---|---|---|---|---|---|"]
    naive = {row["dtype"]: row["megabytes"] for row in results if row["variant"] == "naive"}
    for row in results:
        of_naive = f"1/{naive[row['dtype']] / row['megabytes']:.1f}" if row["variant"] != "naive" else ""
        lines.append(
            f"| {row['dtype']} | {row['variant']} | {row['megabytes']:,.0f} | {of_naive} | {row['seconds']:.1f} | {row['mean_nll']:.4f} |"
        )
    tokens, vocabulary = LARGE
    lines.append("")
    for dtype, megabytes in naive.items():
        a_logit = megabytes * MEGABYTE / (options.tokens * options.vocabulary)
        lines.append(
            f"Naive at {tokens:,} tokens x {vocabulary:,}, computed from the {a_logit:.1f} bytes a logit above, not run: "
            f"{a_logit * tokens * vocabulary / 1e9:.0f} GB ({dtype})."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--table", type=Path, help="also write the table to this file")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    parser.add_argument(
        "--one", nargs=2, metavar=("VARIANT", "DTYPE"), help=argparse.SUPPRESS
    )  # what a process is started with
    options = parser.parse_args()
    shape = (options.tokens, options.vocabulary, options.hidden)
    if options.one:
        variant, dtype = options.one
        print(json.dumps(measure(variant, dtype, *shape, options.device)))
        return
    variants = (*VARIANTS, "liger") if options.device == "cuda" else VARIANTS
    measured: dict[tuple[str, str], list[dict[str, float]]] = {(dtype, v): [] for dtype in options.dtype for v in variants}
    for repeat in range(options.repeats):
        for (dtype, variant), results in measured.items():
            sizes = [str(n) for n in shape]
            command = [sys.executable, __file__, "--one", variant, dtype, "--device", options.device]
            command += ["--tokens", sizes[0], "--vocabulary", sizes[1], "--hidden", sizes[2]]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{dtype}, {variant}: failed", file=sys.stderr)
                continue
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{repeat + 1}/{options.repeats} {dtype}, {variant}: {results[-1]}", file=sys.stderr)
    rows = [
        {"dtype": dtype, "variant": variant, "runs": results}
        | {key: median(result[key] for result in results) for key in ("megabytes", "seconds", "mean_nll")}
        for (dtype, variant), results in measured.items()
        if results
    ]
    text = table(rows, options)
    print(text)
    if options.table:
        options.table.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(
            json.dumps({"shape": shape, "device": options.device, "rows": rows}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
