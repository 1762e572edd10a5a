import importlib.util
import subprocess
import sys
from importlib.metadata import entry_points, version

import pytest

from ochat.cli import COMMANDS, main, usage

HEAVY = ("torch", "transformers", "tyro", "vllm", "gradio", "tokenizers", "pydantic", "huggingface_hub", "pyarrow")


def stopped(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit status of a command line that must stop, and what it says."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    code = caught.value.code
    said = capsys.readouterr()
    return (1, code) if isinstance(code, str) else (int(code or 0), said.err + said.out)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    main(words)
    printed = capsys.readouterr().out
    assert printed == usage() + "\n"
    assert all(f"ochat {name} " in printed and command.summary in printed for name, command in COMMANDS.items())
    assert max(map(len, printed.splitlines())) <= 128


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["tarin"]])
def test_help_loads_no_heavy_library(words: list[str]) -> None:
    program = (
        "import sys\nfrom ochat.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_template_show_loads_no_model_library() -> None:
    program = (
        "import sys, ochat.template_show\nprint([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    main(words)
    assert capsys.readouterr().out == f"ochat {version('ochat-crlft')}\n"


@pytest.mark.parametrize(
    ("words", "typed", "near"),
    [
        (["tarin", "run"], "tarin run", "train run"),
        (["trainrun"], "trainrun", "train run"),
        (["train", "rnu"], "train rnu", "train run"),
        (["train", "--model", "x"], "train", "train run"),
        (["data", "tokenise"], "data tokenise", "data tokenize"),
        (["template-show"], "template-show", "template show"),
        (["srve"], "srve", "serve"),
        (["Serve"], "Serve", "serve"),
        (["--frobnicate"], "--frobnicate", "train run"),
        ([""], "", "train run"),
    ],
)
def test_an_unknown_command_names_near_ones(
    capsys: pytest.CaptureFixture[str], words: list[str], typed: str, near: str
) -> None:
    status, message = stopped(capsys, *words)
    assert status == 1
    assert message.startswith(f"ochat: unknown command {typed!r}. Did you mean: ")
    assert near in message.partition("Did you mean: ")[2]
    assert message.endswith("? All commands: ochat --help")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "near"),
    [
        (["--tokenizer", "x", "--inferense"], "--inference"),
        (["--tokenizer", "x", "--modle-type", "openchat_3.5"], "--model-type"),
        (["--tokenizer", "x", "--jsno"], "--json"),
        (["--tokeniser", "x"], "--tokenizer"),
    ],
)
def test_a_mistyped_option_stops_and_names_the_near_one(
    capsys: pytest.CaptureFixture[str], options: list[str], near: str
) -> None:
    status, message = stopped(capsys, "template", "show", "rows.jsonl", *options)
    assert status == 2
    assert next(option for option in options if option.startswith("--") and option != "--tokenizer") in message
    assert near in message
    assert "Traceback" not in message


def test_a_commands_help_tells_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    status, message = stopped(capsys, "template", "show", "--help")
    assert status == 0
    assert "usage: ochat template show" in message
    for told in ("--tokenizer", "--model-type", "--inference", "--json", "conversations, one JSON object a line"):
        assert told in message


def test_the_installed_command_is_this_one() -> None:
    (script,) = entry_points(group="console_scripts", name="ochat")
    assert script.load() is main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name: str) -> None:
    assert importlib.util.find_spec(COMMANDS[name].module) is not None


@pytest.mark.parametrize("words", [["data"], ["data", "--help"]])
def test_a_noun_alone_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    told = capsys.readouterr().out
    assert "ochat data import" in told
    assert "ochat data tokenize" in told
    assert "train run" not in told
