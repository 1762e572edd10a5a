"""What `ochat data report` tells of the loss before training is what a training run then logs."""

import json
from pathlib import Path
from typing import Any

import pytest

from ochat.data import tokenize
from ochat.data.report import report_rows
from ochat.training.config import Options
from ochat.training.train import main

CLASSES = (("expert", "GPT4 Correct", 1.0, 6), ("middling", "GPT4", 0.4, 9), ("poor", "GPT3", 0.1, 40))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of unlike weights, numbers and lengths; every fourth reply has a second turn."""
    path = tmp_path_factory.mktemp("shares") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for name, condition, weight, n_rows in CLASSES:
            for n in range(n_rows):
                items = []
                for turn in range(1 + (n % 4 == 0)):
                    items.append({"role": "user", "content": f"{name[0]}{n}.{turn}?"})
                    reply = f"{name} " * (1 + n % 5) + "x" * (n % 7)
                    items.append({"role": "assistant", "content": reply, "weight": weight})
                file.write(json.dumps({"items": items, "condition": condition, "class": name}) + "\n")
    return path


@pytest.fixture(scope="module")
def dataset(rows: Path, base: Path) -> Path:
    folder = rows.parent / "dataset"
    tokenize.main(tokenize.Options((rows,), str(base), folder))
    return folder


def told(capsys: pytest.CaptureFixture[str], *inputs: Path, **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    report_rows.main(report_rows.Options(inputs, output=inputs[0].parent / "report.html", json=True, **options))
    return json.loads(capsys.readouterr().out)


def weights_of(found: dict[str, Any], part: str) -> dict[str, float]:
    return {name: of_class["weights"][part] for name, of_class in found["classes"].items()}


def weighted_losses(run: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Of each class, over all steps, the sum of w · nll, and that of w: as a class's weight is one, w · nll / mean nll."""
    losses = dict.fromkeys((name for name, *_ in CLASSES), 0.0)
    weights = dict(losses)
    for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
        for name, of_class in line.get("classes", {}).items():
            part = of_class["loss_share"] * line["loss"] * line["weight_sum"]
            losses[name] += part
            weights[name] += part / of_class["nll"]
    return losses, weights


def as_shares(values: dict[str, float]) -> dict[str, float]:
    return {name: value / sum(values.values()) for name, value in values.items()}


def test_the_shares_are_those_that_a_run_logs_over_an_epoch(
    tmp_path: Path, base: Path, rows: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    main(Options(str(base), dataset, run, epochs=1, lr=1e-2, batch_tokens=512))
    losses, weights = weighted_losses(run)
    for found in (told(capsys, rows, tokenizer=str(base)), told(capsys, dataset)):
        assert weights_of(found, "weight_sum") == pytest.approx(weights, rel=1e-4)
        assert weights_of(found, "loss_share") == pytest.approx(as_shares(weights), rel=1e-4)
        assert weights_of(found, "loss_share") != pytest.approx(as_shares(losses), rel=1e-2)  # the classes aren't equally hard
    for found in (told(capsys, rows, tokenizer=str(base), run=run), told(capsys, dataset, run=run)):
        assert weights_of(found, "loss_share") == pytest.approx(as_shares(losses), rel=1e-4)


def test_the_shares_under_another_weight_are_those_of_a_run_with_it(
    tmp_path: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "rows.jsonl"
    other.write_text(rows.read_text().replace('"weight": 0.1}', '"weight": 0.3}').replace('"weight": 0.4}', '"weight": 0.3}'))
    tokenize.main(tokenize.Options((other,), str(base), tmp_path / "dataset"))
    run = tmp_path / "run"
    main(Options(str(base), tmp_path / "dataset", run, epochs=1, lr=1e-2, batch_tokens=512))
    losses, weights = weighted_losses(run)
    assert told(capsys, rows, tokenizer=str(base))["what_if"]["0.3"] == pytest.approx(as_shares(weights), rel=1e-4)
    with_run = told(capsys, rows, tokenizer=str(base), run=run)
    assert with_run["what_if"]["0.3"] == pytest.approx(as_shares(losses), rel=1e-4)


def test_where_each_answer_counts_alike_the_other_share_is_told(
    tmp_path: Path, base: Path, rows: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    # Untrained, so that all tokens are about equally hard.
    main(Options(str(base), dataset, run, epochs=1, lr=1e-9, batch_tokens=512, per_sequence_loss=True))
    found = told(capsys, rows, tokenizer=str(base))
    logged = as_shares(weighted_losses(run)[0])
    assert weights_of(found, "per_answer_share") == pytest.approx(logged, rel=0.02)
    assert weights_of(found, "loss_share") != pytest.approx(logged, rel=0.1)
