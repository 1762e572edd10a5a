"""Grade a reply that should complete a Python function, by running it.

The program runs in the core's sandbox; its results are compared in another (`program_tests.py`), so it can't print, raise or exit its
way to a verdict."""

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any  # task data is what the benchmark's file holds

from ochat.errors import OchatError
from ochat.evaluation.graders import program_tests
from ochat.sandbox import run_tests

SECONDS, MEMORY_MB = 180, 2048  # for all inputs; a hang ends at its input's own limit
NEEDED = ("prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
_FENCE = re.compile(r"^[ \t]*(?P<mark>```|~~~)[ \t]*(?P<language>[\w+-]*)[^\n]*$", re.MULTILINE)
_OTHER_LANGUAGES = re.compile(r"(?:bash|sh|shell|text|txt|console|output|json|java|javascript|js|c|cpp|c\+\+)$", re.IGNORECASE)
_CODE_LINE = re.compile(r"^(?:def |async def |class |import |from \w[\w.]* import |@\w)", re.MULTILINE)
_INDENTED = re.compile(r"(?:\n[ \t]+\S.*(?:\n[ \t]*(?=\n))*)+")
_MAX_BLOCKS = 50  # the last ones; a reply of more loops
_MAX_INNER_FENCES = 8  # in a docstring, before the one that closes the block
_MAX_LENGTH = 20_000  # characters of a program that is cut
_MAX_CUT = 100  # lines dropped from the end, at most, until the rest is Python


class NoTests(OchatError):
    """A question without the inputs that its reply's program would be run on."""

    def __init__(self, message: str, program: str) -> None:
        super().__init__(message)
        self.program = program


@dataclass(frozen=True)
class Runs:
    """Whether a program is right on HumanEval's own inputs, and on those that EvalPlus added; None where they weren't run."""

    base: bool
    plus: bool | None
    reason: str


def grade_program(task: Mapping[str, Any], program: str, *, plus: bool = True, unsandboxed: bool = False) -> Runs:
    """Run a program on the task's inputs; `plus` asks for EvalPlus's too, which only count after its own ones.
    Raises NoTests where the task has none, and OchatError where there's no sandbox."""
    missing = [name for name in NEEDED if name not in task]
    if missing:
        raise NoTests(
            f"{task.get('task_id', 'A question of coding/humaneval')} has no {', '.join(missing)}, so replies can't be run. "
            "Name the folder of questions with --data-path.",
            program,
        )
    if not program:
        return Runs(False, False if plus else None, "the reply has no program")
    data = {
        "reference": task["prompt"] + task["canonical_solution"],
        "entry_point": task["entry_point"],
        "base": task["base_input"],
        "plus": task["plus_input"],
        "atol": task["atol"],
    }
    verdict = _run(program, data, ["base", "plus"] if plus else ["base"], unsandboxed)
    if verdict == "":
        return Runs(True, True if plus else None, "")
    if not plus or verdict.startswith("base "):
        return Runs(False, False if plus else None, verdict)
    if not verdict.startswith("plus "):  # ended at a limit, who knows where
        base = _run(program, data, ["base"], unsandboxed)
        return Runs(not base, False, base or verdict)
    return Runs(True, False, verdict)


def _run(program: str, data: dict[str, Any], parts: list[str], unsandboxed: bool) -> str:
    """ "" where the program is right on all inputs, else which was the first that it wasn't, or what ended it."""
    text = json.dumps(data | {"parts": parts})
    # taken before anything is defined, since the candidate's names are there first
    tests = f"candidate = globals().get({data['entry_point']!r})\n{_script()}\njudge(candidate, __import__('json').loads({text!r}))\n"
    verdict = run_tests(program, tests, seconds=SECONDS, memory_mb=MEMORY_MB, unsandboxed=unsandboxed)
    return "" if verdict.passed else verdict.reason.removeprefix("AssertionError: ") or "no reason given"


def _script() -> str:
    return Path(program_tests.__file__).read_text(encoding="utf-8")


def find_program(prompt: str, entry_point: str, reply: str) -> str:
    """The program that the reply gives for the task, "" for none.

    - The last block of code that defines the function, after the prompt's imports and helpers, and the definitions of earlier
      blocks: a later block mends an earlier one. Tests and examples beside the definitions aren't run.
    - A block, or a reply without blocks, that is the function's body alone follows the prompt, indented or not; between prose its
      lines are indented.
    - Blocks may be fenced by ``` or ~~~, indented in a list, left open, or hold fences in their docstrings. Without fences the
      code may stand between prose, and what comes after it, or a line that was cut, is dropped.
    - A function of another name, or inside a class or another function, isn't the task's."""
    reply = reply.replace("\0", "").replace("\r\n", "\n")
    before = prompt[: prompt.rindex(f"def {entry_point}")] if f"def {entry_point}" in prompt else ""
    blocks = list(_blocks(reply))[-_MAX_BLOCKS:] or [reply.strip("\n").removeprefix("`").removesuffix("`")]
    trees = [_tree(block) for block in blocks]
    for at in reversed(range(len(blocks))):
        tree = trees[at]
        if tree and entry_point in _names(tree):
            return "\n\n".join([before, *(_definitions(tree, entry_point) for tree in trees[: at + 1] if tree)])
    for block in reversed(blocks):
        indented = (
            None if re.search(r"^(?:async )?(?:def|class) ", block, re.MULTILINE) else _INDENTED.search("\n" + block)
        )  # between prose
        bodies = block, " " + block, textwrap.indent(textwrap.dedent(block), "    "), indented[0] if indented else ""
        for body in bodies:
            tree = _parsed(prompt + body)
            if tree and _has_body(tree, entry_point):
                return prompt + body
    return ""


def _blocks(reply: str) -> Iterator[str]:
    """The fenced blocks that may be Python, each to the first closing fence with which it is, else to the first; or to the end."""
    fences, at = list(_FENCE.finditer(reply)), 0
    while at < len(fences):
        opened = fences[at]
        later = range(at + 1, len(fences))
        same = (one for one in later if fences[one]["mark"] == opened["mark"] and not fences[one]["language"])
        ends = list(islice(same, _MAX_INNER_FENCES))
        texts = [textwrap.dedent(reply[opened.end() + 1 : fences[number].start()]) for number in ends]
        good = next((number for number, text in zip(ends, texts, strict=True) if text.strip() and _parsed(text)), None)
        closed = good if good is not None else next(iter(ends), len(fences))
        if not _OTHER_LANGUAGES.match(opened["language"]):
            # a body alone keeps its indent, which tells it from a program
            text = reply[opened.end() + 1 : fences[closed].start() if closed < len(fences) else len(reply)]
            yield textwrap.dedent(text) if _CODE_LINE.search(textwrap.dedent(text)) else text.strip("\n")
        at = closed + 1


def _tree(text: str) -> ast.Module | None:
    """The text as Python, from its first line of code on, without lines at its end that aren't."""
    if (whole := _parsed(text)) is not None:
        return whole
    found = _CODE_LINE.search(text)
    lines = text[found.start() :][:_MAX_LENGTH].splitlines() if found else []
    for end in range(len(lines), max(0, len(lines) - _MAX_CUT), -1):
        tree = _parsed("\n".join(lines[:end]))
        if tree is not None:
            return tree
    return None


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _names(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _definitions(tree: ast.Module, entry_point: str) -> str:
    """Imports, functions, classes, and the values that these use with what is done to them; nothing that calls the function."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    used = {entry_point}.union(*(_loaded(node) for node in tree.body if isinstance(node, kept)))
    values = {name for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) for name in _stored(node)} & used
    calling = {entry_point, "print", "input"} | {
        node.name for node in tree.body if isinstance(node, kept[2:]) and entry_point in _loaded(node)
    }
    parts = []
    for node in tree.body:
        wanted = isinstance(node, (*kept, ast.Try))
        if isinstance(node, ast.Assign | ast.AnnAssign):
            wanted = bool(_stored(node) & used) or isinstance(node.value, ast.Lambda)
        elif isinstance(node, ast.AugAssign | ast.For | ast.While | ast.If | ast.Expr):
            names = _loaded(node) | _stored(node)
            tests = any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
            wanted = bool(names & values - {entry_point}) and not names & calling and not tests
        if wanted:
            parts.append(ast.unparse(node))
    return "\n\n".join(parts)


def _loaded(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}


def _stored(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if hasattr(node, "target") else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _has_body(tree: ast.Module, name: str) -> bool:
    """Whether the function returns something itself, which a docstring, prose or a function within it doesn't."""
    waiting: list[ast.AST] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    for node in waiting:
        if isinstance(node, ast.Return):
            return True
        inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, inner)]
    return False
