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
        *(("base model", source, condition, (1.0, 3.0)) for source in ("gpt4", "davinci003") for condition in (STRONG, WEAK)),
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
    assert apart["of_tokens_over_prompts"]["value"] == pytest.approx(1.75)  # 1 + 6 over 4 tokens
    untaught = figures["differences"]["strong answers: weak − strong condition, base model"]
    assert untaught["over_prompts"] == pytest.approx({"value": 0, "low": 0, "high": 0})


def test_a_ratios_interval_is_of_what_departs_from_it(real_text: ModuleType) -> None:
    exact = real_text.ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert (exact.value, exact.low, exact.high) == pytest.approx((2, 2, 2))  # long answers have more, and all the same a token
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 200, 400)
    sums = counts * rng.normal(1, 0.5, 400)
    drawn = [ratio_of(sums, counts, rng.integers(0, 400, 400)) for _ in range(2000)]
    told = real_text.ratio(sums, counts)
    assert (told.low, told.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.01)


def ratio_of(sums: np.ndarray, counts: np.ndarray, which: np.ndarray) -> float:
    return float(sums[which].sum() / counts[which].sum())


def test_a_folder_is_bound_to_both_files_and_no_prompt_may_have_been_learned(
    real_text: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"items": [{"role": "user", "content": "Name a tree."}, {"role": "assistant", "content": "Oak", "weight": 1.0}]}
    train, heldout, other = (tmp_path / name for name in ("train.jsonl", "heldout.jsonl", "other.jsonl"))
    train.write_text(json.dumps(row | {"condition": "GPT4"}) + "\n")
    heldout.write_text(json.dumps({"prompt": "Name a tree. ", "gpt4": "a", "davinci003": "b"}) + "\n")
    other.write_text(json.dumps({"prompt": "Name a bird.", "gpt4": "a", "davinci003": "b"}) + "\n")
    folder = tmp_path / "runs"
    (folder / "base").mkdir(parents=True)  # so that none is made
    arguments = ["real_text.py", "--train", str(train), "--folder", str(folder), "--heldout"]
    monkeypatch.setattr("sys.argv", [*arguments, str(heldout)])
    with pytest.raises(SystemExit, match="1 of the 1 prompts"):
        real_text.main()
    monkeypatch.setattr("sys.argv", [*arguments, str(other)])
    with pytest.raises(SystemExit, match="other settings or files"):
        real_text.main()


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
