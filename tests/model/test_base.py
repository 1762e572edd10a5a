"""`ochat model base` copies the model that it keeps."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.model.base import Options, main


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_folder: Path) -> Path:
    """What stands in the cache, where the model was converted before: its small files."""
    folder = tmp_path / "cache" / "smollm2-135m-instruct"
    shutil.copytree(embedded_folder, folder)
    (folder / "openchat.json").write_text('{"model_type": "of an older version"}')
    monkeypatch.setenv("OCHAT_CACHE", str(folder.parent))
    return folder


def test_what_was_converted_before_is_copied_with_this_versions_texts(cached: Path, tmp_path: Path) -> None:
    main(Options(tmp_path / "small"))
    tokenizer = (tmp_path / "small" / "tokenizer.json").read_bytes()
    assert tokenizer == (cached / "tokenizer.json").read_bytes()
    assert (tmp_path / "small" / "openchat.json").read_text() == '{"model_type": "openchat_smollm2"}\n'


def test_a_full_disk_is_one_line_with_a_remedy(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)  # the standard library's copying comes to it
    with pytest.raises(OchatError, match=r"/small can't be written: its disk is full. Make room"):
        main(Options(tmp_path / "small"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
