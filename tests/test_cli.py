import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
import yaml

from ochat.cli import COMMANDS, Command, main, run_command, usage
from ochat.config_file import defaults
from ochat.errors import OchatError

HEAVY = ("torch", "transformers", "tyro", "vllm", "gradio", "tokenizers", "pydantic", "huggingface_hub", "pyarrow")


@dataclass(frozen=True)
class Options:
    """A command with an option of each kind."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """files"""
    model: str
    """a name"""
    batch_tokens: int = 4096
    """a count"""
    lr: float | None = 0.5
    """a rate"""
    fsdp: bool = False
    """a switch"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """a choice"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """an option of another name than its field"""
    licences: dict[str, str] = field(default_factory=dict)
    """names with values"""

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise OchatError(f"--batch-tokens is {self.batch_tokens}. Give 1 or more.")


RAN: list[Options] = []


def ran(options: Options) -> None:
    RAN.append(options)


@pytest.fixture
def run_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """Run a command of `Options` with a --config file of a text and more words; returns what it was given."""
    monkeypatch.setattr(sys.modules[__name__], "main", ran)
    monkeypatch.chdir(tmp_path)

    def run(text: str, *words: str) -> Options:
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        run_command("ochat try", Command(__name__, "a command"), ["--config", "run.yaml", *words])
        return RAN.pop()

    return run


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


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("data export", "ochat: interrupted.\n"),
        ("data tokenize", "ochat: interrupted. Repeat the command to go on.\n"),
        ("data build", "ochat: interrupted. Repeat the command to go on.\n"),
        ("eval run", "ochat: interrupted. Repeat the command to go on.\n"),
        ("experiment ablation", "ochat: interrupted. Repeat the command to go on.\n"),
        ("train run", "ochat: interrupted. Repeat the command to go on from its last saved state, if there is one.\n"),
    ],
)
def test_an_interrupted_command_says_so_and_whether_it_goes_on(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[__name__], "main", interrupted)
    with pytest.raises(SystemExit) as caught:
        run_command(f"ochat {name}", replace(COMMANDS[name], module=__name__), ["rows.jsonl", "--model", "m"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == told


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


FILE = """
inputs: [a.jsonl, ~/b.jsonl]
model: -base
batch-tokens: 1_024
lr: 1e-4
fsdp: true
dtype: float32
class: "7"
licences: {a.jsonl: mit}
"""


def test_a_config_files_fields_are_the_options(run_options: Callable[..., Options]) -> None:
    inputs = (Path("a.jsonl"), Path("~/b.jsonl").expanduser())
    assert run_options(FILE) == Options(inputs, "-base", 1024, 1e-4, True, "float32", "7", {"a.jsonl": "mit"})


def test_flags_win_over_the_config_file(run_options: Callable[..., Options]) -> None:
    words = "c.jsonl --model m --batch-tokens 2 --lr None --no-fsdp --dtype bfloat16 --class None --licences.a.jsonl c".split()
    assert run_options(FILE, *words) == Options((Path("c.jsonl"),), "m", 2, None, False, "bfloat16", None, {"a.jsonl": "c"})
    assert run_options(FILE, "--lr=2e-4").lr == 2e-4
    assert run_options("# nothing yet", "c.jsonl", "--model", "m") == Options((Path("c.jsonl"),), "m")


@pytest.mark.parametrize(
    ("line", "lr"), [("lr: 3", 3.0), ("lr: '1e-4'", 1e-4), ("lr: null", None), ("lr:", None), ("lr: 1.0e-3", 1e-3)]
)
def test_a_config_files_number_may_be_written_in_many_ways(
    run_options: Callable[..., Options], line: str, lr: float | None
) -> None:
    found = run_options(line, "c.jsonl", "--model", "m").lr
    assert found == lr
    assert type(found) is type(lr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\nbatch_tokenz: 1", "run.yaml:2: unknown field 'batch_tokenz'. Did you mean: batch_tokens?"),
        ("class_name: x", "run.yaml:1: unknown field 'class_name'. Did you mean: class?"),
        (
            "zzz: 1",
            "run.yaml:1: unknown field 'zzz'. Did you mean: batch_tokens, class, dtype, fsdp, inputs, licences, lr, model?",
        ),
        ("<<: {model: m}", "run.yaml:1: unknown field '<<'. "),
        ("model: a\nlr: 1\nmodel: b", "run.yaml:3: model is given twice. Keep one."),
        ("batch-tokens: 1\nbatch_tokens: 2", "run.yaml:2: batch_tokens is given twice. Keep one."),
        ("batch_tokens: 1e3", "run.yaml: batch_tokens is '1e3'. Give a whole number."),
        ("batch_tokens: true", "run.yaml: batch_tokens is True. Give a whole number."),
        ("batch_tokens:", "run.yaml: batch_tokens is None. Give a whole number."),
        ("lr: fast", "run.yaml: lr is 'fast'. Give a number."),
        ("lr: yes", "run.yaml: lr is True. Give a number."),
        ("fsdp: 1", "run.yaml: fsdp is 1. Give true or false."),
        ("dtype: float16", "run.yaml: dtype is 'float16'. Give one of: bfloat16, float32."),
        ("model: no", "run.yaml: model is False. Give text. Put it in quotes."),
        ("class: 2026-01-01", "run.yaml: class is datetime.date(2026, 1, 1). Give text. Put it in quotes."),
        ("model: [a, b]", "run.yaml: model is ['a', 'b']. Give text."),
        ("inputs: [a, 3]", "run.yaml: inputs is ['a', 3]. Give a path."),
        ("licences: mit", "run.yaml: licences is 'mit'. Give `name: value` pairs."),
        ("licences: {a: 1}", "run.yaml: licences is {'a': 1}. Give text. Put it in quotes."),
        ("- model", "run.yaml holds no fields. Write one `name: value` a line."),
        ("model: 'm", "run.yaml can't be read as YAML (while scanning a quoted scalar"),
        ("model: !!python/object/apply:os.getcwd []", "run.yaml can't be read as YAML (could not determine a constructor"),
        ("batch_tokens: 0", "--batch-tokens is 0. Give 1 or more."),
    ],
)
def test_a_field_that_cannot_be_used_is_named_in_one_line(run_options: Callable[..., Options], text: str, said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run_options(text, *([] if text.startswith("inputs") else ["c.jsonl"]), *([] if "model" in text else ["--model", "m"]))
    assert str(caught.value).startswith(f"ochat: {said}")
    assert "\n" not in str(caught.value)
    assert not RAN


@pytest.mark.parametrize("words", [["--config"], ["--config", "--lr"], ["--config="], ["--config", "a", "--config=b"]])
def test_config_takes_one_file(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(capsys, "train", "run", *words) == (1, "ochat: --config takes one YAML file. Name it after --config.")


def test_a_config_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, message = stopped(capsys, "train", "run", "--config", str(tmp_path / "run.yaml"))
    assert status == 1
    assert message.startswith(
        f"ochat: {tmp_path / 'run.yaml'} can't be read (No such file or directory). Name a YAML file after --config."
    )


def test_a_commands_help_tells_of_config_files_and_their_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("condition: Math Correct", encoding="utf-8")
    status, message = stopped(capsys, "eval", "run", "--config", str(tmp_path / "run.yaml"), "--help")
    assert status == 0
    assert "--config FILE" in message
    assert "Math Correct" in message


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.reads_argv])
def test_a_config_file_can_hold_every_option_of_every_command(name: str, tmp_path: Path) -> None:
    options, path = importlib.import_module(COMMANDS[name].module).Options, tmp_path / "run.yaml"
    for option in fields(options):
        flag = "class" if option.name == "class_name" else option.name
        plain = [str(option.default) if isinstance(option.default, Path) else option.default, "x", 1, True, ["x"], {"x": "y"}]
        for value in plain:  # the default, where there is one, or a value of another kind for a required field
            try:
                path.write_text(yaml.safe_dump({flag: value}), encoding="utf-8")
                found = getattr(defaults(options, path), option.name)
            except (yaml.YAMLError, OchatError):
                continue
            assert found in (value, Path(str(value)), (Path("x"),))
            break
        else:
            raise AssertionError(f"{flag} can't be given in a file")
