"""Samples a second, CPU seconds and memory of evaluation clients, beside each other against the same echo server.

    python benchmarks/evaluation.py --install --work FOLDER         # makes the peers' environments there, outside the repository
    python benchmarks/evaluation.py --work FOLDER --samples 5000 --in-flight 128 512 --json FILE

Every client asks the same prompts of 4 kB, generated, at temperature 0, and is a process of its own; its start is measured too and told
apart where the client tells it. Grading is left out of it: inspect and lm-eval grade with their plainest scorer, ours with its own."""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PEERS = {
    "inspect": ("inspect-ai", "openai"),
    "lm-eval": ("lm-eval[api]", "transformers", "torch"),
    "openai": ("openai",),
}
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--clients", nargs="+", default=["ours", *PEERS])
    parser.add_argument("--seconds", type=float, default=0.05, help="the server's time for an answer")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.install:
        install(options.work)
        return
    prompts = options.work / "prompts.jsonl"
    write_prompts(prompts, options.samples)
    rows = []
    asked = options.work / "asked.txt"
    with echo_server(options.seconds, asked) as url:
        for in_flight in options.in_flight:
            for client in options.clients:
                asked.write_bytes(b"")
                row = measured(client, options.work, prompts, url, in_flight, options.samples)
                n_asked = asked.read_bytes().count(b"\n")
                if "note" not in row and n_asked < options.samples:  # inspect ends without a word where requests fail
                    row["note"] = f"asked {n_asked:,} of {options.samples:,} questions"
                rows.append(row)
                print(told(row), flush=True)
    if options.json:
        machine: dict[str, object] = {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        machine |= {"load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d")}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def install(work: Path) -> None:
    """An environment a peer."""
    for name, packages in PEERS.items():
        subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
        subprocess.run([work / name / "bin" / "pip", "install", "--quiet", *packages], check=True)


def write_prompts(path: Path, n: int) -> None:
    """Generated questions with four letters as options, each about 4 kB."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(500)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            text = f"{number}: {' '.join(draw.choices(words, k=570))}?"
            file.write(json.dumps({"question": text, "options": ["A", "B", "C", "D"], "label": ["A"]}) + "\n")


@contextmanager
def echo_server(seconds: float, asked: Path) -> Iterator[str]:
    """The server in a process of its own while the block runs; its address. `asked` gets a line a question that it answers."""
    port = 18970
    url = f"http://127.0.0.1:{port}/v1"
    process = subprocess.Popen(
        [sys.executable, HERE / "echo_server.py", "--port", str(port), "--seconds", str(seconds), "--count", asked],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/models", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def measured(client: str, work: Path, prompts: Path, url: str, in_flight: int, n: int) -> dict[str, object]:
    """What one client takes. `seconds` is from the client's own clock, without its start, where it tells; `wall_seconds` holds all."""
    python = sys.executable if client == "ours" else str(work / client / "bin" / "python")
    row: dict[str, object] = {"client": client, "in_flight": in_flight, "samples": n}
    if not Path(python).exists():
        return row | {"note": "not installed: run with --install"}
    with tempfile.TemporaryDirectory() as folder:
        words = [python, str(HERE / "peers" / "ask.py"), client, str(prompts), url, str(in_flight), folder]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        # The peak of all children so far would hide a smaller one: each client tells its own.
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OPENAI_API_KEY": "none"})
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return row | {"note": f"failed: {done.stderr.strip().splitlines()[-1:]}"}
    own = json.loads(done.stdout.strip().splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return row | own | {"wall_seconds": wall, "cpu_seconds": cpu, "samples_per_second": n / own["seconds"]}


def told(row: dict[str, object]) -> str:
    """A row as a line."""
    head = f"{row['client']:<8} {row['in_flight']:>4} in flight"
    if "note" in row:
        return f"{head}  {row['note']}"
    return (
        f"{head}  {row['samples_per_second']:>7.0f} samples/s  {row['cpu_seconds']:>6.1f} CPU s  {row['peak_mb']:>5.0f} MB  "
        f"{row['wall_seconds']:>6.1f} s with its start  {row['version']}"
    )


if __name__ == "__main__":
    main()
