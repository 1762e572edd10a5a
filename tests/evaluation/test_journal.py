"""The journal keeps whole lines whatever happens, and says where it's damaged."""

import os
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.evaluation.journal import Journal, Reply


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "5",
        '{"key": "b"}',
        '{"reply": "b"}',
        '{"key": "b", "reply": null}',
        '{"key": "b", "reply": "", "n_tokens": "x"}',
        "\0\0",
        "",
    ],
)
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    whole = '{"key": "a", "reply": "x"}\n'
    path.write_text(f"{whole}{line}\n{whole}")
    with pytest.raises(OchatError, match=r"replies\.jsonl:2: not a reply"):
        Journal(path)
    assert path.read_text() == f"{whole}{line}\n{whole}"


def test_opening_a_journal_writes_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "replies.jsonl"
    with Journal(path) as journal:
        journal.add("a", Reply("x", "length", 7))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "b"')

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "truncate", kill)
    with pytest.raises(KeyboardInterrupt):
        Journal(path)
    assert path.read_bytes().startswith(whole)
    monkeypatch.undo()
    with Journal(path) as journal:
        assert journal.replies == {"a": Reply("x", "length", 7)}
    assert path.read_bytes() == whole
