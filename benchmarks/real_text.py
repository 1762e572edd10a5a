"""C-RLFT on real text: `python benchmarks/real_text.py --train ROWS.jsonl.gz --heldout PAIRS.jsonl.gz [--seeds 1,2] [--json FILE]`.

A small model is trained on the answers of a strong and of a weak model, few of the first and many of the second, once by C-RLFT and once
as plain SFT on all. On prompts that training never saw: how likely are the strong model's answers under each condition, and the weak
one's; and how long, and of what manner, are the replies under each condition. Nothing judges which reply is better.

`--train` holds conversations of two classes by condition, GPT4 and GPT3, one turn each; `--heldout` a prompt a line with both answers:
{"prompt", "gpt4", "davinci003"}. Repeated with the same folder, it goes on from what is there."""

import argparse
import asyncio
import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ochat.conversation import Conversation, Message, read_conversations, read_json_lines
from ochat.evaluation.ask import Asked, Endpoint, ask_all
from ochat.evaluation.journal import Journal, Reply
from ochat.evaluation.statistics import Z95, Estimate, mean_of_runs
from ochat.processes import free_port, run_command, server

CONDITIONS = {"GPT4": "GPT4 Correct", "GPT3": "GPT3"}  # the rows', and those of the model type that stand for them
STRONG, WEAK = CONDITIONS.values()
N_STRONG, N_WEAK = 100, 1900  # rows
EPOCHS, LEARNING_RATE, BATCH_TOKENS, WEIGHT = 2, 2e-4, 2048, 0.1
N_REPLIES, MAX_REPLY_TOKENS = 100, 256
ARMS = {"c-rlft": (True, WEIGHT), "plain-sft": (False, 1.0)}
ASKED = {"c-rlft": (STRONG, WEAK), "plain-sft": ("none",)}


def arm_rows(rows: list[Conversation], arm: str) -> list[Conversation]:
    """The rows with the conditions and weights of an arm."""
    conditioned, weak_weight = ARMS[arm]
    made = []
    for row in rows:
        condition = CONDITIONS[row.condition]
        weight = 1.0 if condition == STRONG else weak_weight
        items = tuple(item.model_copy(update={"weight": weight if item.role == "assistant" else 0.0}) for item in row.items)
        update = {"items": items, "condition": condition if conditioned else "none", "class_name": row.condition}
        made.append(row.model_copy(update=update))
    return made


def draw_rows(path: Path, seed: int) -> list[Conversation]:
    """So many rows of each class, drawn by the seed."""
    rows = [row for _, row in read_conversations(path)]
    rng, drawn = random.Random(seed), []
    for condition, n in (("GPT4", N_STRONG), ("GPT3", N_WEAK)):
        drawn += rng.sample([row for row in rows if row.condition == condition], n)
    return drawn


def train(folder: Path, base: Path, rows: list[Conversation], seed: int) -> Path:
    """The trained model of these rows."""
    source = folder / "rows.jsonl"
    if not (folder / "run" / "final").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        source.write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
        run_command("data", "tokenize", source, "--tokenizer", base, "--output", folder / "data", "--max-tokens", 1024)
        settings = ["--epochs", EPOCHS, "--lr", LEARNING_RATE, "--batch-tokens", BATCH_TOKENS, "--seed", seed]
        run_command("train", "run", "--model", base, "--data", folder / "data", "--output", folder / "run", *settings)
    return folder / "run" / "final"


def losses(model: Path, pairs: list[dict[str, str]], conditions: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """Of each answer, by its source and the condition: −ln p a token, [pairs]."""
    from ochat.model.load import load
    from ochat.model.score import answer_losses
    from ochat.training.attention import NAME

    loaded, template = load(model, "bfloat16", NAME)
    found: dict[str, dict[str, np.ndarray]] = {}
    for source in ("gpt4", "davinci003"):
        for condition in conditions:
            rows = [
                Conversation(
                    items=(
                        Message(role="user", content=pair["prompt"]),
                        Message(role="assistant", content=pair[source], weight=1.0),
                    ),
                    condition=condition,
                )
                for pair in pairs
            ]
            sums, counts = answer_losses(loaded, template, rows)
            found.setdefault(source, {})[condition] = sums / counts
    return found


def replies(model: Path, folder: Path, prompts: list[str], conditions: tuple[str, ...]) -> dict[str, list[str]]:
    """Greedy replies by condition, through the server."""
    found: dict[str, list[str]] = {}
    with server(model, free_port(), folder / "server.log") as running:
        endpoint = Endpoint(running.url, model="openchat_smollm2")
        for condition in conditions:
            texts = found[condition] = [""] * len(prompts)

            def keep(index: int, got: list[Reply], texts: list[str] = texts) -> str:
                texts[index] = got[0].text
                return ""

            asked = [Asked((prompt,), MAX_REPLY_TOKENS, condition) for prompt in prompts]
            with Journal(folder / f"replies-{condition.replace(' ', '-')}.jsonl") as journal:
                asyncio.run(ask_all(endpoint, asked, journal, 32, keep))
    return found


STYLE: dict[str, Callable[[str], float]] = {
    "words": lambda text: len(text.split()),
    "sentences": lambda text: len(re.findall(r"[.!?](?=\s|$)", text)),
    "with a list": lambda text: float(bool(re.search(r"(?m)^\s*(?:[-*•]|\d+[.)])\s", text))),
    "letters a word": lambda text: sum(map(len, text.split())) / max(1, len(text.split())),
}


def mean(values: np.ndarray) -> Estimate:
    """A mean over prompts with its normal interval."""
    half = Z95 * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def style_lines(texts: dict[str, list[str]]) -> list[str]:
    """A table of the style of replies or answers, by where they are from."""
    lines = ["| | " + " | ".join(STYLE) + " |", "|---" * (len(STYLE) + 1) + "|"]
    for name, of_name in texts.items():
        cells = [mean(np.array([measure(text) for text in of_name])) for measure in STYLE.values()]
        lines.append(f"| {name} | " + " | ".join(f"{c.value:.2f} [{c.low:.2f}, {c.high:.2f}]" for c in cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/real-text"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--json", type=Path, help="write the figures here; no text of the data is among them")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    base = options.folder / "base"
    if not base.is_dir():
        run_command("model", "base", "--output", base)
    pairs: list[dict[str, str]] = [dict(value) for _, value in read_json_lines(options.heldout)]  # type: ignore[call-overload]
    prompts = [pair["prompt"] for pair in pairs[:N_REPLIES]]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    found: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {}  # arm, source, condition: a seed's losses of all prompts
    said: dict[str, list[str]] = {
        "the strong model's answers": [pair["gpt4"] for pair in pairs[:N_REPLIES]],
        "the weak model's answers": [pair["davinci003"] for pair in pairs[:N_REPLIES]],
    }
    arms: list[tuple[str, int, Path]] = [("base model", 0, base)]
    for seed in seeds:
        rows = draw_rows(options.train, seed)
        for arm in ARMS:
            arms.append((arm, seed, train(options.folder / f"seed-{seed}" / arm, base, arm_rows(rows, arm), seed)))
    for arm, _, model in arms:
        for source, of_answers in losses(model, pairs, ASKED.get(arm, ("none",))).items():
            for condition, values in of_answers.items():
                found.setdefault(arm, {}).setdefault(source, {}).setdefault(condition, []).append(values)
    for arm, seed, model in arms[1:]:
        for condition, texts in replies(model, model.parent.parent, prompts, ASKED[arm]).items():
            said.setdefault(f"{arm}, condition {condition}", []).extend(texts)
            print(
                f"{arm}, seed {seed}, {condition}: {sum(map(len, texts)) / len(texts):.0f} characters a reply", file=sys.stderr
            )
    lines = ["| model | answers of | condition | −ln p a token, mean over prompts | over seeds |", "|---|---|---|---|---|"]
    figures: dict[str, Any] = {"seeds": seeds, "prompts": len(pairs), "losses": [], "differences": {}}
    for arm, by_source in found.items():
        for source, by_condition in by_source.items():
            for condition, of_seeds in by_condition.items():
                over_prompts, over_seeds = mean(np.mean(of_seeds, axis=0)), mean_of_runs([float(v.mean()) for v in of_seeds])
                lines.append(f"| {arm} | {source} | {condition} | {over_prompts} | {over_seeds} |")
                named = {"model": arm, "answers": source, "condition": condition}
                figures["losses"].append(named | {"over_prompts": vars(over_prompts), "over_seeds": vars(over_seeds)})
    lines += ["", "| difference, same prompts | mean over prompts | over seeds |", "|---|---|---|"]
    full, plain = found["c-rlft"], found["plain-sft"]
    differences = {
        "strong answers: weak condition − strong condition": (full["gpt4"][WEAK], full["gpt4"][STRONG]),
        "weak answers: strong condition − weak condition": (full["davinci003"][STRONG], full["davinci003"][WEAK]),
        "strong answers: plain SFT − C-RLFT, strong condition": (plain["gpt4"]["none"], full["gpt4"][STRONG]),
        "weak answers: plain SFT − C-RLFT, strong condition": (plain["davinci003"]["none"], full["davinci003"][STRONG]),
    }
    for name, (one, other) in differences.items():
        apart = [a - b for a, b in zip(one, other, strict=True)]
        over_prompts, over_seeds = mean(np.mean(apart, axis=0)), mean_of_runs([float(v.mean()) for v in apart])
        lines.append(f"| {name} | {over_prompts} | {over_seeds} |")
        figures["differences"][name] = {"over_prompts": vars(over_prompts), "over_seeds": vars(over_seeds)}
    figures["style"] = {
        name: {what: vars(mean(np.array([measure(text) for text in texts]))) for what, measure in STYLE.items()}
        for name, texts in said.items()
    }
    print("\n".join([*lines, "", *style_lines(said)]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
