"""The way back: what other trainers read, with the weights kept."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ochat.conversation import parse_conversation
from ochat.data import tokenize
from ochat.data.export import Format, Options, main
from ochat.errors import DataError, OchatError
from ochat.template import ConversationTemplate

ROWS = [
    {
        "items": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "No.", "weight": 0.0},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Yes. 👋", "weight": 0.25},
        ],
        "system": "Be brief.",
        "condition": "GPT3",
        "class": "weak",
    },
    {"items": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1.0}]},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("format", "messages"),
    [
        (
            "openai",
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "No.", "weight": 0.0},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Yes. 👋", "weight": 0.25},
            ],
        ),
        (
            "ms-swift",
            [
                {"role": "system", "content": "Be brief.", "loss_scale": 0.0},
                {"role": "user", "content": "Hi", "loss_scale": 0.0},
                {"role": "assistant", "content": "No.", "loss_scale": 0.0},
                {"role": "user", "content": "Hello", "loss_scale": 0.0},
                {"role": "assistant", "content": "Yes. 👋", "loss_scale": 0.25},
            ],
        ),
        (
            "llama-factory",
            [
                {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": weight}
                for role, text, weight in (
                    ("system", "Be brief.", 0.0),
                    ("user", "Hi", 0.0),
                    ("assistant", "No.", 0.0),
                    ("user", "Hello", 0.0),
                    ("assistant", "Yes. 👋", 0.25),
                )
            ],
        ),
    ],
)
def test_a_row_in_a_peers_format(
    source: Path, tmp_path: Path, format: Format, messages: object, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(source, tmp_path / "out.jsonl", format))
    first, _ = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["messages"] == messages
    assert ("1 of them has a condition" in capsys.readouterr().out) == (format != "openai")


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_the_originals_parquet_is_rebuilt_exactly(
    source: Path,
    tmp_path: Path,
    toy_folder: Callable[..., Path],
    toy_template: Callable[..., ConversationTemplate],
    weight: float,
) -> None:
    rows = [*ROWS, {"items": [{"role": "assistant", "content": "c", "weight": weight}, {"role": "user", "content": "last"}]}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenize.main(tokenize.Options((source,), str(toy_folder("openchat_3.5")), tmp_path / "data"))
    main(Options(tmp_path / "data", tmp_path / "out.parquet", "ochat"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert json.loads(table.schema.metadata[b"metadata_json"]) == {"model_type": "openchat_v3.2_mistral"}
    for given, row in zip(rows, table.to_pylist(), strict=True):
        # By the rules of the original: tokens and weights cut after the last weight, shifted by one.
        ids, weights = toy_template("openchat_3.5").tokens_and_weights(parse_conversation(given, "here"))
        while weights[-1] == 0:
            ids.pop(), weights.pop()
        shifted = [float(np.float32(w)) for w in [*weights[1:], 0.0]]
        assert row == {
            "total_length": len(ids),
            "num_seqs": pytest.approx(sum(shifted), rel=1e-6),
            "seqlens": [len(ids)],
            "nz_input_ids": ids,
            "nz_position_ids": list(range(len(ids))),
            "nz_shifted_label_ids": [*(id if w else 0 for id, w in zip(ids[1:], weights[1:], strict=True)), 0],
            "nz_shifted_loss_weights": shifted,
        }


def test_the_original_wants_a_data_set_and_the_others_rows(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no data set"):
        main(Options(source, tmp_path / "out.parquet", "ochat"))
    with pytest.raises(DataError, match="is a folder"):
        main(Options(tmp_path, tmp_path / "out.jsonl"))
    with pytest.raises(OchatError, match="is the input"):
        Options(source, source)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(DataError, match=r"rows\.jsonl: no rows\. Check the file\."):
        main(Options(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_bad_row_leaves_no_file(source: Path, tmp_path: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write('{"items": []}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:3"):
        main(Options(source, tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()
