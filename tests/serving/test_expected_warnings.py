import os
import subprocess
import sys

import pytest
from live_server import Server

from ochat.serving.expected_warnings import EXPECTED, HIDES_EXPECTED

SAY = """
import logging, sys
from ochat.serving.expected_warnings import hide_if_told
import os
hide_if_told(os.environ)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("vllm.platforms.cpu").warning("Triton is not installed. Install it.")
logging.getLogger("vllm.platforms.cpu").warning("Another")
logging.getLogger("vllm.other").warning("Triton is not installed.")
"""


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ({HIDES_EXPECTED: "1"}, ["Another", "Triton is not installed."]),
        ({}, ["Triton is not installed. Install it.", "Another", "Triton is not installed."]),
    ],
)
def test_only_what_is_expected_of_whom_is_hidden(told: dict[str, str], lines: list[str]) -> None:
    run = [sys.executable, "-c", SAY]
    said = subprocess.run(run, env={**os.environ, **told}, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == lines


def test_a_start_tells_nothing_of_our_own_choices(server: Server) -> None:
    start, served, _ = server.log.read_text(encoding="utf-8").partition("ochat: serving")
    assert served
    assert "eager mode" in start
    assert not [words for beginnings in EXPECTED.values() for words in beginnings if words in start]
    assert "FutureWarning" not in start
