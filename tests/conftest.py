"""What all tests share: tokenizers built once, test data of others, and which tests wait for `make soak` or a GPU."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from browser import chromium, context, page  # noqa: F401 - fixtures
from hypothesis import settings
from toys import Style, embedded_tokenizer, openchat_tokenizer, toy_tokenizer

from ochat.registry import load_template, model_type
from ochat.template import ConversationTemplate
from ochat.tokenizer import Tokenizer, load_tokenizer

TEST_DATA = "OCHAT_TEST_DATA"

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches the network, nor does a process that it starts
os.environ["OMP_NUM_THREADS"] = "1"  # threads cost more than they give on models of two layers
settings.register_profile("ochat", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("ochat")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("--soak") or "soak" in config.getoption("-m")
    for item in items:
        if item.get_closest_marker("soak") and not asked:
            item.add_marker(pytest.mark.skip(reason="slow; run with --soak"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _skipped_for_data(config: pytest.Config) -> int:
    skipped = config.pluginmanager.get_plugin("terminalreporter").getreports("skipped")
    return sum(TEST_DATA in str(report.longrepr) for report in skipped)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Where the data is promised, a test that can't find its part of it would hide what it should show.
    if os.environ.get(TEST_DATA) and _skipped_for_data(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = _skipped_for_data(config)
    failed = bool(count and os.environ.get(TEST_DATA))
    note = ": failed, since it is set" if failed else ""
    terminalreporter.write_line(f"{count} tests skipped for want of {TEST_DATA}{note}", red=failed)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of other people's data; `test_file` asks for one file of it."""
    given = os.environ.get(TEST_DATA)
    if not given:
        pytest.skip(f"set {TEST_DATA} to the folder of test data")
    if not Path(given).is_dir():
        pytest.skip(f"{TEST_DATA}={given} is not a folder")
    return Path(given)


@pytest.fixture(scope="session")
def test_file(test_data: Path) -> Callable[[str], Path]:
    """The path of a file or folder of the test data, by its path there; skips the test where it's absent."""

    def found(name: str) -> Path:
        if not (test_data / name).exists():
            pytest.skip(f"{TEST_DATA}={test_data} lacks {name}")
        return test_data / name

    return found


@pytest.fixture(scope="session")
def openchat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenChat 3.5's own tokenizer, rebuilt."""
    return openchat_tokenizer(tmp_path_factory.mktemp("openchat_3.5"))


@pytest.fixture(scope="session")
def openchat(openchat_folder: Path) -> Tokenizer:
    return load_tokenizer(openchat_folder)


@pytest.fixture(scope="session")
def openchat_template(openchat: Tokenizer) -> ConversationTemplate:
    return ConversationTemplate(model_type("openchat_3.5").format, openchat)


@pytest.fixture(scope="session")
def embedded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base model's own tokenizer."""
    return embedded_tokenizer(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="session")
def embedded(embedded_folder: Path) -> Tokenizer:
    return load_tokenizer(embedded_folder)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a toy tokenizer for a model type's name, in the style of its real one or another."""

    @cache
    def folder(name: str, style: Style | None = None) -> Path:
        return toy_tokenizer(tmp_path_factory.mktemp(name), model_type(name), style)

    return folder


@pytest.fixture(scope="session")
def toy_template(toy_folder: Callable[..., Path]) -> Callable[..., ConversationTemplate]:
    """The template of a model type's name with a toy tokenizer."""

    @cache
    def template(name: str, style: Style | None = None) -> ConversationTemplate:
        return load_template(model_type(name), toy_folder(name, style))

    return template
