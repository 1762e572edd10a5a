"""The tables of the benchmark on real text, from toy figures: what is averaged over what."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PATH = Path(__file__).parent.parent.parent / "benchmarks" / "real_text.py"
STRONG, WEAK = "GPT4 Correct", "GPT3"


@pytest.fixture(scope="module")
def real_text() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_text", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_losses_are_told_over_prompts_and_over_seeds(real_text: ModuleType) -> None:
    counts = np.array([1, 3])
    found = {("base model", "gpt4", "none"): [(np.array([1.0, 9.0]), counts)]}
    for arm, source, condition, sums in (
        ("c-rlft", "gpt4", STRONG, (1.0, 3.0)),
        ("c-rlft", "gpt4", WEAK, (2.0, 9.0)),
        ("c-rlft", "davinci003", STRONG, (2.0, 6.0)),
        ("c-rlft", "davinci003", WEAK, (1.0, 3.0)),
        ("plain-sft", "gpt4", "none", (1.0, 6.0)),
        ("plain-sft", "davinci003", "none", (1.0, 3.0)),
    ):
        found[arm, source, condition] = [(np.array(sums), counts)] * 2
    figures: dict[str, Any] = {}
    lines = real_text.loss_lines(found, figures)
    assert "| base model | gpt4 | none | 2.000 [0.040, 3.960] | 2.000 | 2.500 |" in lines  # of 1 and 3; of 10 over 4 tokens
    assert json.loads(json.dumps(figures, allow_nan=False))["losses"][0]["over_seeds"]["low"] is None
    apart = figures["differences"]["strong answers: weak condition − strong condition"]
    assert apart["over_prompts"]["value"] == pytest.approx(1.5)  # of 1 and 2
    assert apart["over_prompts"]["low"] == pytest.approx(0.52, abs=1e-3)  # two prompts, not four
    assert apart["over_seeds"]["low"] == pytest.approx(1.5)  # both seeds say the same


def test_seeds_of_one_prompt_are_averaged_and_conditions_paired(real_text: ModuleType) -> None:
    said = {
        f"c-rlft, condition {STRONG}": [["a b c", "a b c d"], ["a", "a b"]],
        f"c-rlft, condition {WEAK}": [["a", "a b"], ["a", "a b"]],
    }
    figures: dict[str, Any] = {}
    lines = real_text.reply_lines(said, {f"c-rlft, condition {STRONG}": [0.5, 0.0]}, figures)
    assert figures["style"][f"c-rlft, condition {STRONG}"]["words"]["value"] == 2.5  # of 2 and 3
    longer = figures["style"]["c-rlft: strong condition − weak condition"]["words"]
    assert (longer["low"], longer["high"]) == (1.0, 1.0)  # by one word at each prompt
    assert lines[-1].endswith(f"c-rlft, condition {STRONG}: 25%.")
