"""Every command in the documents exists, with the options it's shown with."""

import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import tyro

from ochat import cli
from ochat.config_file import take_config
from ochat.registry import MODEL_TYPES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:ochat |make |python -m ochat\.)[^`\n]*)`")


def commands_of(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield each of our commands as words; the flag says whether it stands in a block, so is shown whole."""
    found = [(line, True) for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    found += [(code, False) for code in INLINE.findall(BLOCK.sub("", text))]
    for line, whole in found:
        for part in re.split(r"&&|;|\|", line):
            if not re.match(r"\s*(\$ )?(\.venv/bin/)?(\S+=\S+ )*(ochat |make |python -m ochat\.)", part):
                continue
            words = shlex.split(part.strip().removeprefix("$ ").removeprefix(".venv/bin/"), comments=True)
            while "=" in words[0]:  # settings of the environment before a command
                words.pop(0)
            yield words, whole


DOCUMENTED = [
    pytest.param(words, whole, id=f"{path.relative_to(ROOT)}: {shlex.join(words)}")
    for path in DOCUMENTS
    for words, whole in commands_of(path.read_text(encoding="utf-8"))
]


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):(?!=)", makefile, re.MULTILINE)
    for word in words[1:]:
        setting, is_setting, _ = word.partition("=")
        assert (f"$({setting})" in makefile or f"\n{setting} ?=" in makefile) if is_setting else word in targets, word


def command_of(words: list[str]) -> tuple[cli.Command, list[str]]:
    """The command that the words call, and its arguments; SystemExit or KeyError where there is none."""
    if words[0] == "ochat":
        name, rest = cli.find_command(words[1:])
        return cli.COMMANDS[name], rest
    modules = {command.module: command for command in cli.COMMANDS.values()}
    return modules.get(words[2], cli.Command(words[2], "the original's name of a command")), words[3:]


def check_ochat(words: list[str], whole: bool) -> None:
    if words[1] in ("--help", "--version"):
        return
    command, rest = command_of(words)
    module = importlib.import_module(command.module)
    if command.reads_argv or not (whole or rest):  # the server's arguments have a test of their own
        return
    path, rest = take_config(rest)
    if whole and path is None:
        tyro.cli(module.Options, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
    else:
        with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
            tyro.cli(module.Options, args=["--help"], config=(tyro.conf.FlagCreatePairsOff,))
        assert {word for word in rest if word.startswith("--")} <= set(re.findall(r"--[a-z][\w-]*", out.getvalue()))


def check(words: list[str], whole: bool) -> None:
    """Raise AssertionError where the command or one of its options isn't there."""
    if words[0] == "make":
        check_make(words)
        return
    try:
        check_ochat(words, whole)
    except SystemExit as stop:  # --help ends so too
        assert not stop.code, f"{shlex.join(words)} isn't understood"  # noqa: PT017


@pytest.mark.parametrize(("words", "whole"), DOCUMENTED)
def test_a_documented_command_exists_with_its_options(words: list[str], whole: bool) -> None:
    check(words, whole)


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nochat data imprt x --output y\n```",
        "```bash\nochat data import x \\\n  --outptu y\n```",
        "```bash\nochat train run\n```",
        "```bash\nmake install && make tset\n```",
        "```bash\nmake quickstart ARG=1\n```",
        "`ochat data import --outptu`",
    ],
)
def test_a_wrong_command_in_a_document_is_found(text: str) -> None:
    *_, (words, whole) = commands_of(text)
    with pytest.raises(AssertionError):
        check(words, whole)


# Importing vLLM takes long and changes the process, so another one reads all the arguments.
READ_SERVER_ARGUMENTS = """
import json, sys
from ochat.serving.openai_api_server import make_parser
parser = make_parser()
for arguments in json.load(sys.stdin):
    parser.parse_args(arguments)
"""


def test_the_server_reads_its_documented_options() -> None:
    commands = [words for case in DOCUMENTED for words in case.values[:1] if case.values[1] and words[0] != "make"]
    arguments = [rest for command, rest in map(command_of, commands) if command.reads_argv]
    assert arguments, "no document shows how to serve"
    done = subprocess.run(
        [sys.executable, "-c", READ_SERVER_ARGUMENTS], input=json.dumps(arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in cli.COMMANDS if f"`ochat {name}`" not in readme] == []


def test_links_and_files_in_documents_exist() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
        assert [link for link in links if link and not (path.parent / link).exists()] == [], path
        files = re.findall(r"\b(?:examples|docs|scripts|requirements)/[\w./-]*\w", text)
        assert [file for file in files if not (ROOT / file).exists()] == [], path


def test_the_table_of_conditions_is_the_registrys() -> None:
    expected = []
    for kind in MODEL_TYPES:
        aliases = ", ".join(f"`{alias}`" for alias in kind.aliases)
        known = ", ".join(kind.conditions) if kind.format.takes_condition else "refused"
        cells = [f"`{kind.name}`", aliases, known, kind.format.default_condition]
        expected.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    text = (ROOT / "docs/conditions.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if re.match(r"\| `\w", line)] == expected


def test_the_readmes_data_commands_run_on_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    imports = [words[1:] for words, whole in commands_of(readme) if whole and words[1:3] == ["data", "import"]]
    assert len(imports) == 2
    for words in imports:
        cli.main(words)
        rows = [json.loads(line) for line in Path(words[words.index("--output") + 1]).read_text(encoding="utf-8").splitlines()]
        assert len(rows) == 8
        assert {row["condition"] for row in rows} == {words[words.index("--condition") + 1]}
        assert {row["class"] for row in rows} == {words[words.index("--class") + 1]}
    assert "8 rows of OpenAI messages" in capsys.readouterr().out
