"""One server for all tests that need one: starting it takes most of their time."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_server import Server, random_checkpoint, running


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, openchat_folder: Path) -> Path:
    """With a longer context of its own than the type's."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return random_checkpoint(openchat_folder, folder, max_position_embeddings=32768)


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The card's server, its old options included."""
    options = ["--engine-use-ray", "--worker-use-ray", "--disable-log-requests"]
    with running(tmp_path_factory.mktemp("server"), checkpoint, *options) as (started, _):
        yield started


@pytest.fixture
def break_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """What makes standard error one whose reader has gone, as when `tee` was killed. A test calls it: before, pytest sets its own."""
    reading, writing = os.pipe()
    os.close(reading)
    file = os.fdopen(writing, "w")
    yield lambda: monkeypatch.setattr(sys, "stderr", file)
    with contextlib.suppress(OSError):
        file.close()
