"""The proof in minutes: C-RLFT beats plain SFT on all, and weights alone beat it too, each with every seed.

The setting `short` was found in advance with a seed that is not among these. Where conditions get lost on the way from the rows to the
prompt, the first two are one; where weights do, the last two are."""

import json
from pathlib import Path

import pytest

from ochat.experiment.ablation import Options, main


@pytest.mark.soak
def test_conditions_and_weights_each_do_their_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Options(setting="short", folder=tmp_path, json=True))
    arms = json.loads(capsys.readouterr().out)["arms"]
    full, weighted, plain = (
        [next(iter(run["accuracy"].values())) for run in arms[name]["runs"]] for name in ("c-rlft", "no-condition", "neither")
    )
    for by_seed in zip(full, weighted, plain, strict=True):
        with_both, with_weights, with_neither = by_seed
        assert with_both > with_neither + 0.3, by_seed
        assert with_both > with_weights, by_seed  # else it may be the weights alone that do it
        assert with_weights > with_neither + 0.1, by_seed
