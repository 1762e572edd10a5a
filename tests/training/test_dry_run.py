"""A dry run: the plan as it will be, a prediction, and nothing written but what was asked for."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ochat.data.dataset import Dataset
from ochat.errors import OchatError
from ochat.training.config import Options
from ochat.training.train import main

SIZES = {"epochs": 2, "lr": 1e-3, "batch_tokens": 512, "pack_tokens": 128, "dtype": "float32"}


def read_plan(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dry_run_writes_the_plan_and_nothing_else(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", dry_run=True, plan=tmp_path / "plan.jsonl", **SIZES))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.jsonl"]
    steps = read_plan(tmp_path / "plan.jsonl")
    lengths = Dataset(dataset).lengths
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    packs = [pack for step in steps for pack in step["packs"]]
    assert all(lengths[pack["rows"]].sum() <= 128 or len(pack["rows"]) == 1 for pack in packs)
    assert all(len(step["packs"]) <= 4 for step in steps)
    rows = [row for pack in packs for row in pack["rows"]]
    assert sorted(rows) == sorted(2 * list(range(len(lengths))))


def test_the_real_run_takes_the_steps_of_the_dry_run(tmp_path: Path, base: Path, dataset: Path) -> None:
    main(Options(str(base), dataset, tmp_path / "run", dry_run=True, plan=tmp_path / "plan.jsonl", **SIZES))
    main(Options(str(base), dataset, tmp_path / "run", **SIZES))
    lengths = Dataset(dataset).lengths
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    planned = [sum(int(lengths[pack["rows"]].sum()) for pack in step["packs"]) for step in read_plan(tmp_path / "plan.jsonl")]
    assert [line["tokens"] for line in lines if line["step"]] == planned


def test_ranks_divide_the_packs_and_change_no_step(tmp_path: Path, base: Path, dataset: Path) -> None:
    plans = []
    for ranks in (1, 2):
        path = tmp_path / f"{ranks}.jsonl"
        main(Options(str(base), dataset, tmp_path / "run", dry_run=True, plan=path, ranks=ranks, **SIZES))
        plans.append(read_plan(path))
    for one, two in zip(*plans, strict=True):
        assert [pack["rows"] for pack in one["packs"]] == [pack["rows"] for pack in two["packs"]]
        assert {pack["rank"] for pack in one["packs"]} == {0}
        if len(two["packs"]) > 1:
            assert {pack["rank"] for pack in two["packs"]} == {0, 1}


def test_it_tells_time_memory_and_disk_and_shows_packed_rows(
    tmp_path: Path, base: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(str(base), dataset, tmp_path / "run", dry_run=True, **SIZES))
    told = capsys.readouterr().out
    n_tokens = 2 * int(Dataset(dataset).lengths.sum())
    assert f"{n_tokens:,} tokens in" in told
    assert re.search(r"steps at [\d,]+ tokens/s take [\d.]+ s", told)
    assert re.search(r"memory of a process: \d+\.\d GB", told)
    assert re.search(r"disk: \d+\.\d GB in", told)
    assert len(re.findall(r"^row \d+, \d+ tokens, class ", told, re.MULTILINE)) == 3
    assert "<|im_end|>" in told


def test_a_step_of_fewer_packs_than_processes_is_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    with pytest.raises(OchatError, match=r"A step has 4 packs for 8 processes. Give --pack-tokens 64 or less"):
        main(Options(str(base), dataset, tmp_path / "run", dry_run=True, ranks=8, **SIZES))


def test_more_processes_than_a_step_has_tokens_are_refused(tmp_path: Path, base: Path, dataset: Path) -> None:
    with pytest.raises(OchatError, match=r"A step has 512 tokens for 513 processes. Give --batch-tokens 513 or more"):
        main(Options(str(base), dataset, tmp_path / "run", dry_run=True, ranks=513, **SIZES))


def test_the_costs_of_a_step_are_those_of_its_shape(base: Path) -> None:
    import torch

    from ochat.training.checkpoint import load_model
    from ochat.training.cost import shape_of

    model = load_model(str(base), torch.float32)
    shape = shape_of(model)
    # Two layers, 32 wide: q and o 32 x 32, k and v 32 x 16, the MLP's three 32 x 64.
    assert shape.body == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert shape.head == 32 * model.config.vocab_size
    assert shape.attention == 2 * 4 * 8
    # One row of ten tokens, four of them learned.
    flops = shape.flops(np.array([10]), np.array([4]), np.array([100]))
    assert float(flops[0]) == 6 * shape.body * 10 + 6 * shape.head * 4 + 6 * shape.attention * 100
