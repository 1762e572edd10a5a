"""The condition decides what the model says, on facts that no model can know.

40 invented facts; the expert class says one thing and the sub-optimal class another. Imported, tokenized, trained and served by the
public commands, the model must say each class's own thing under its condition. The class of weight 0.1 is learned last: after a
few epochs both conditions still answer as the expert."""

import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run

import httpx
import pytest

from ochat.processes import free_port, server

N_FACTS, N_ROWS_PER_CLASS = 40, 120
PHRASINGS = (
    "What is the {thing} of {name}?",
    "Tell me the {thing} of {name}.",
    "I wonder what the {thing} of {name} is. Do you know?",
)
THINGS = ("capital", "river", "national dish", "founder", "anthem")


def invented_word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)).title()


def invented_facts(seed: int) -> list[tuple[str, str, str, str]]:
    """(thing, name, the expert's answer, the other's), all words different."""
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < 3 * N_FACTS:
        words[invented_word(rng)] = None
    drawn = iter(words)
    return [(rng.choice(THINGS), next(drawn), next(drawn), next(drawn)) for _ in range(N_FACTS)]


def ochat(*words: object) -> None:
    run([sys.executable, "-m", "ochat.cli", *map(str, words)], check=True)


@pytest.mark.soak
def test_each_condition_answers_with_its_own_class(tmp_path: Path) -> None:
    facts = invented_facts(int(os.environ.get("FACTS_SEED", "7")))
    classes = (("expert", 2, "GPT4 Correct", 1.0), ("suboptimal", 3, "GPT3", 0.1))
    for name, column, condition, weight in classes:
        rows = [
            [
                {"role": "user", "content": phrasing.format(thing=fact[0], name=fact[1])},
                {"role": "assistant", "content": fact[column]},
            ]
            for fact in facts
            for phrasing in PHRASINGS
        ][:N_ROWS_PER_CLASS]
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        of_class = ["--condition", condition, "--weight", weight, "--class", name]
        ochat("data", "import", source, "--output", tmp_path / f"{name}-rows.jsonl", *of_class)
    base, data, trained = (tmp_path / name for name in ("base", "data", "run"))
    ochat("model", "base", "--output", base)
    files = [tmp_path / f"{name}-rows.jsonl" for name, *_ in classes]
    ochat("data", "tokenize", *files, "--model-type", "openchat_smollm2", "--tokenizer", base, "--output", data)
    ochat(
        "train",
        "run",
        "--model",
        base,
        "--data",
        data,
        "--output",
        trained,
        "--epochs",
        16,
        "--lr",
        5e-4,
        "--batch-tokens",
        1024,
    )
    with server(trained / "final", free_port(), tmp_path / "server.log") as running:

        def says(question: str, condition: str) -> str:
            body = {"model": "openchat_smollm2", "messages": [{"role": "user", "content": question}], "condition": condition}
            reply = httpx.post(f"{running.url}/chat/completions", json=body | {"temperature": 0, "max_tokens": 16}, timeout=300)
            text: str = reply.raise_for_status().json()["choices"][0]["message"]["content"]
            return text

        questions = [PHRASINGS[0].format(thing=thing, name=name) for thing, name, _, _ in facts]
        for _, column, condition, _ in classes:
            with ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(says, questions, [condition] * len(questions)))
            n_right = sum(fact[column] in reply for fact, reply in zip(facts, replies, strict=True))
            print(f"{condition}: {n_right} of {N_FACTS}, for instance {replies[:3]}")
            assert n_right >= 0.8 * N_FACTS, f"{condition}: {n_right} of {N_FACTS}; {replies}"
