"""A server to ask, and a folder of benchmarks in the original's layout."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, running_server


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """Three benchmarks: ten and two questions of letters, four sums, two chats of two turns."""
    letters = [{"question": f"Q: {i}? A: Among A through B", "options": ["A", "B"], "label": ["A"]} for i in range(10)]
    sums = [{"question": f"Question: {i} + {i}?\n", "options": None, "label": [str(2 * i)]} for i in range(4)]
    chats = [
        {"question_id": 81 + i, "category": category, "turns": [f"Tell {i}.", "Shorter."]}
        for i, category in enumerate(("writing", "math"))
    ]
    files = {
        "eval_data/zs/agieval/first": letters,
        "eval_data/zs/agieval/second": letters[:2],
        "eval_data/fs_cothub/gsm8k/gsm8k": sums,
        "mt_bench/question": chats,
        "mt_bench/reference_answer/gpt-4": [{"question_id": 81}],
    }
    for name, rows in files.items():
        path = tmp_path / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "data"
