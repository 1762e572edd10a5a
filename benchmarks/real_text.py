"""C-RLFT on real text: `python benchmarks/real_text.py --train ROWS.jsonl.gz --heldout PAIRS.jsonl.gz [--seeds 1,2] [--json FILE]`.

A small model is trained on the answers of a strong and of a weak model, few of the first and many of the second, once by C-RLFT and once
as plain SFT on all. On prompts that training never saw: how likely are the strong model's answers under each condition, and the weak
one's; and how long, and of what manner, are the replies under each condition. Nothing judges which reply is better.

`--train` holds conversations of two classes by condition, GPT4 and GPT3, one turn each; `--heldout` a prompt a line with both answers:
{"prompt", "gpt4", "davinci003"}. Repeated with the same folder, it goes on from what is there.

Only what the condition changes within one model is the condition's doing: the strong answers bear another share of the weight in each arm."""

import argparse
import asyncio
import hashlib
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
from ochat.files import new_file, write_json
from ochat.processes import free_port, run_command, server

CONDITIONS = {"GPT4": "GPT4 Correct", "GPT3": "GPT3"}  # the rows', and those of the model type that stand for them
STRONG, WEAK = CONDITIONS.values()
N_STRONG, N_WEAK = 100, 900  # rows
EPOCHS, LEARNING_RATE, BATCH_TOKENS, WEIGHT = 2, 2e-4, 2048, 0.1
N_REPLIES, MAX_REPLY_TOKENS = 60, 256
SETTINGS = (N_STRONG, N_WEAK, EPOCHS, LEARNING_RATE, BATCH_TOKENS, WEIGHT, N_REPLIES, MAX_REPLY_TOKENS)
ARMS = {"c-rlft": (True, WEIGHT), "plain-sft": (False, 1.0)}
BASE = "base model"
ASKED = {"c-rlft": (STRONG, WEAK), "plain-sft": ("none",), BASE: ("none", STRONG, WEAK)}  # the base: what the words do untaught


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


def strong_share(data: Path) -> float:
    """The strong class's share of the weight of all answers' tokens."""
    classes = json.loads((data / "meta.json").read_text(encoding="utf-8"))["classes"]
    weight = {name: of_class["weight_sum"] for name, of_class in classes.items()}
    return float(weight["GPT4"] / sum(weight.values()))


def losses(
    model: Path, pairs: list[dict[str, str]], conditions: tuple[str, ...], kept: Path
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Of each answer, by its source and the condition: the sum of −ln p and the number of tokens, the end of turn among them; [pairs]."""
    from ochat.model.load import load
    from ochat.model.score import answer_losses
    from ochat.training.attention import NAME

    names = [(source, condition) for source in ("gpt4", "davinci003") for condition in conditions]
    if not kept.is_file():
        loaded, template = load(model, "bfloat16", NAME)
        found: dict[str, np.ndarray] = {}
        for number, (source, condition) in enumerate(names):
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
            found[f"sums_{number}"], found[f"counts_{number}"] = answer_losses(loaded, template, rows)
        with new_file(kept) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
    with np.load(kept) as file:
        return {name: (file[f"sums_{number}"], file[f"counts_{number}"]) for number, name in enumerate(names)}


def replies(model: Path, folder: Path, prompts: list[str], conditions: tuple[str, ...]) -> dict[str, list[Reply]]:
    """Greedy replies by condition, through the server."""
    files = {condition: folder / f"replies-{condition.replace(' ', '-')}.json" for condition in conditions}
    missing = [condition for condition, path in files.items() if not path.is_file()]
    if missing:
        with server(model, free_port(), folder / "server.log") as running:
            endpoint = Endpoint(running.url, model="openchat_smollm2")
            for condition in missing:
                got: list[Reply] = [Reply("")] * len(prompts)

                def keep(index: int, turns: list[Reply], got: list[Reply] = got) -> str:
                    got[index] = turns[0]
                    return ""

                asked = [Asked((prompt,), MAX_REPLY_TOKENS, condition) for prompt in prompts]
                with Journal(files[condition].with_suffix(".jsonl")) as journal:
                    asyncio.run(ask_all(endpoint, asked, journal, 32, keep))
                write_json(files[condition], [vars(reply) for reply in got])
    return {name: [Reply(**reply) for reply in json.loads(path.read_text(encoding="utf-8"))] for name, path in files.items()}


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


def ratio(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    """Σsums / Σcounts over prompts with its normal interval (Cochran, Sampling Techniques, 6.3): long answers count for more."""
    value = sums.sum() / counts.sum()
    half = Z95 * (sums - value * counts).std(ddof=1) / (counts.mean() * np.sqrt(len(counts)))
    return Estimate(float(value), float(value - half), float(value + half))


def style(of_seeds: list[list[str]]) -> dict[str, np.ndarray]:
    """Each measure of the texts to each prompt, as its mean over the seeds; [prompts]."""
    return {name: np.mean([[measure(text) for text in texts] for texts in of_seeds], axis=0) for name, measure in STYLE.items()}


def style_lines(styles: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """A table of styles, a line a source of texts."""
    lines = ["| | " + " | ".join(STYLE) + " |", "|---" * (len(STYLE) + 1) + "|"]
    for name, measured in styles.items():
        cells = [mean(values) for values in measured.values()]
        lines.append(f"| {name} | " + " | ".join(f"{c.value:.2f} [{c.low:.2f}, {c.high:.2f}]" for c in cells) + " |")
    return lines


def keep_to_settings(folder: Path, train_rows: Path, heldout: Path) -> None:
    """Note what the folder's runs are of; ends where they are of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    of_files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (train_rows, heldout)]
    made_with = json.loads(json.dumps([*SETTINGS, *of_files]))
    path = folder / "config.json"
    if not path.is_file():
        write_json(path, made_with)
    elif json.loads(path.read_text(encoding="utf-8")) != made_with:
        sys.exit(f"{folder} holds runs of other settings or files. Choose another --folder.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/real-text"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--json", type=Path, help="write the figures here; no text of the data is among them")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_to_settings(options.folder, options.train, options.heldout)
    base = options.folder / "base"
    if not base.is_dir():
        run_command("model", "base", "--output", base)
    pairs: list[dict[str, str]] = [dict(value) for _, value in read_json_lines(options.heldout)]  # type: ignore[call-overload]
    seen = {item.content.strip() for _, row in read_conversations(options.train) for item in row.items if item.role == "user"}
    if known := sum(pair["prompt"].strip() in seen for pair in pairs):
        sys.exit(f"{known} of the {len(pairs)} prompts of {options.heldout} are in {options.train} too. Leave them out of one.")
    prompts = [pair["prompt"] for pair in pairs[:N_REPLIES]]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    models: list[tuple[str, Path]] = [(BASE, base)]
    strong_shares: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        rows = draw_rows(options.train, seed)
        for arm in ARMS:
            folder = options.folder / f"seed-{seed}" / arm
            models.append((arm, train(folder, base, arm_rows(rows, arm), seed)))
            strong_shares[arm].append(strong_share(folder / "data"))
    # By arm, source and condition: each seed's sums and counts.
    found: dict[tuple[str, str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    said: dict[str, list[list[str]]] = {
        "the strong model's answers": [[pair["gpt4"] for pair in pairs[:N_REPLIES]]],
        "the weak model's answers": [[pair["davinci003"] for pair in pairs[:N_REPLIES]]],
    }
    cut: dict[str, list[float]] = {}
    for arm, model in models:
        conditions, folder = ASKED[arm], options.folder if arm == BASE else model.parent.parent
        for (source, condition), measured in losses(model, pairs, conditions, folder / "losses.npz").items():
            found.setdefault((arm, source, condition), []).append(measured)
        for condition, got in replies(model, folder, prompts, conditions).items():
            name = f"{arm}, condition {condition}"
            said.setdefault(name, []).append([reply.text for reply in got])
            cut.setdefault(name, []).append(sum(reply.finish != "stop" for reply in got) / len(got))
    figures: dict[str, Any] = {"seeds": seeds, "prompts": len(pairs), "replies": len(prompts), "settings": SETTINGS}
    figures["strong_share_of_weight"] = strong_shares
    print("\n".join(["", *loss_lines(found, figures), "", *reply_lines(said, cut, figures)]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def loss_lines(found: dict[tuple[str, str, str], list[tuple[np.ndarray, np.ndarray]]], figures: dict[str, Any]) -> list[str]:
    """Tables of the losses and of their differences. Over prompts: of the seeds' mean, the seeds as they are; and the other way."""
    lines = [
        "| model | answers of | condition | −ln p a token, mean of answers | over seeds | mean of tokens |",
        "|---|---|---|---|---|---|",
    ]
    figures["losses"], figures["differences"] = [], {}
    a_token = {name: [sums / counts for sums, counts in of_seeds] for name, of_seeds in found.items()}
    for name, of_seeds in a_token.items():
        of_tokens = mean_of_runs([float(sums.sum() / counts.sum()) for sums, counts in found[name]])
        told = over(of_seeds)
        lines.append(f"| {' | '.join(name)} | {told[0]} | {told[1]} | {of_tokens} |")
        named = dict(zip(("model", "answers", "condition"), name, strict=True))
        figures["losses"].append(named | as_json(told) | {"of_tokens": of_tokens.as_json()})
    lines += [
        "",
        "| difference, same answers | over prompts | over seeds | mean of tokens, over prompts |",
        "|---|---|---|---|",
    ]
    for what, one, other in (
        ("strong answers: weak condition − strong condition", ("c-rlft", "gpt4", WEAK), ("c-rlft", "gpt4", STRONG)),
        ("weak answers: strong condition − weak condition", ("c-rlft", "davinci003", STRONG), ("c-rlft", "davinci003", WEAK)),
        ("strong answers: weak − strong condition, base model", (BASE, "gpt4", WEAK), (BASE, "gpt4", STRONG)),
        ("weak answers: strong − weak condition, base model", (BASE, "davinci003", STRONG), (BASE, "davinci003", WEAK)),
        ("strong answers: plain SFT − C-RLFT, strong condition", ("plain-sft", "gpt4", "none"), ("c-rlft", "gpt4", STRONG)),
        ("weak answers: plain SFT − C-RLFT, strong condition", ("plain-sft", "davinci003", "none"), ("c-rlft", "davinci003", STRONG)),
    ):  # fmt: skip
        told = over([a - b for a, b in zip(a_token[one], a_token[other], strict=True)])
        sums = [np.mean([sums for sums, _ in found[name]], axis=0) for name in (one, other)]
        of_tokens = ratio(sums[0] - sums[1], found[one][0][1])
        lines.append(f"| {what} | {told[0].signed()} | {told[1].signed()} | {of_tokens.signed()} |")
        figures["differences"][what] = as_json(told) | {"of_tokens_over_prompts": of_tokens.as_json()}
    return lines


def over(of_seeds: list[np.ndarray]) -> tuple[Estimate, Estimate]:
    """The mean with its interval over prompts, and with that over seeds."""
    return mean(np.mean(of_seeds, axis=0)), mean_of_runs([float(values.mean()) for values in of_seeds])


def as_json(told: tuple[Estimate, Estimate]) -> dict[str, dict[str, float | None]]:
    """Both, as a file keeps them."""
    return {"over_prompts": told[0].as_json(), "over_seeds": told[1].as_json()}


def reply_lines(said: dict[str, list[list[str]]], cut: dict[str, list[float]], figures: dict[str, Any]) -> list[str]:
    """A table of the style of answers and replies, of what the condition changes in it, and how many were cut."""
    styles = {name: style(of_seeds) for name, of_seeds in said.items()}
    one, other = (styles[f"c-rlft, condition {condition}"] for condition in (STRONG, WEAK))
    shown = styles | {"c-rlft: strong condition − weak condition": {name: one[name] - other[name] for name in STYLE}}
    figures["style"] = {name: {what: mean(values).as_json() for what, values in of.items()} for name, of in shown.items()}
    figures["cut"] = {name: sum(of_seeds) / len(of_seeds) for name, of_seeds in cut.items()}
    told = ", ".join(f"{name}: {share:.0%}" for name, share in figures["cut"].items())
    return [*style_lines(shown), "", f"Replies cut at {MAX_REPLY_TOKENS} tokens: {told}."]


if __name__ == "__main__":
    main()
