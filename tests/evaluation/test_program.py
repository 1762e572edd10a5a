"""The grader of programs: what a reply's program is, and that only being right passes."""

import gzip
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sandboxes import needs_sandbox

from ochat.evaluation.graders.by_task import check
from ochat.evaluation.graders.program import NoTests, Runs, find_program, grade_program

HELPED = {
    "task_id": "Toy/0",
    "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef quarter(x):\n    """A quarter of x."""\n',
    "entry_point": "quarter",
    "canonical_solution": "    return half(half(x))\n",
    "base_input": [[4], [8.0]],
    "plus_input": [[0.3], [-7]],
    "atol": 0,
}
BODY = "    return half(half(x))\n"
WHOLE = "def quarter(x):\n" + BODY


def runs(reply: str, task: dict[str, Any] = HELPED) -> Runs:
    return grade_program(task, find_program(task["prompt"], task["entry_point"], reply))


@needs_sandbox
@pytest.mark.parametrize(
    "reply",
    [
        WHOLE,
        BODY,
        BODY[1:],  # a server took the first blank
        "return half(half(x))",
        f"Sure!\n\n{WHOLE}\nThat's it.",
        f"```python\n{WHOLE}```",
        f"```\n{BODY}```",
        f"~~~py\n{WHOLE}~~~",
        f"```python\n{WHOLE}",
        f"```python\r\n{WHOLE}```".replace("\n", "\r\n"),
        "1. So:\n   ```python\n   def quarter(x):\n       return half(half(x))\n   ```",
        f"```python\ndef quarter(x): return 0\n```\nNo:\n```python\n{WHOLE}```",
        "```python\nQ = 4\ndef fourth(x): return x / Q\n```\nThen:\n```python\ndef quarter(x): return fourth(x)\n```\n```bash\nls\n```",
        f"```python\n{WHOLE}\nassert quarter(4) == 7\nprint(quarter(input()))\n```",
        f"```python\n{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit(1)\n```",
        "```python\ndef quarter(x):\n    '''So:\n    ```\n    quarter(4)\n    ```\n    '''\n    return x / 4\n```",
        "quarter = lambda x: x / 4",
        "```python\nclass S:\n    def quarter(self, x): return x / 4\nquarter = S().quarter\n```",
        "```python\nQ = []\nfor i in range(5): Q.append(i)\ndef quarter(x): return x / Q[4]\n```",
        "```python\nQ = 3\nQ += 1\ndef quarter(x): return x / Q\nfor x in range(9): assert quarter(x) == Q\n```",
        f"{BODY}\nIt halves twice.",
        f"Here it is:\n\n{BODY}\nIt halves twice.",
        "Here it is:\n\n    def fourth(y):\n        return y / 4\n    return fourth(x)\n\nIt divides.",
        "`def quarter(x): return x / 4`",
        f"```python\n{WHOLE}x = 'cut of",
    ],
)
def test_a_right_program_is_found_and_passes(reply: str) -> None:
    assert runs(reply) == Runs(True, True, "")


@needs_sandbox
@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("I cannot write this.", Runs(False, False, "the reply has no program")),
        ("", Runs(False, False, "the reply has no program")),
        ("def fourth(x): return x / 4", Runs(False, False, "the reply has no program")),
        ("class S:\n    def quarter(self, x): return x / 4", Runs(False, False, "the reply has no program")),
        ("def quarter(x): return x / 5", Runs(False, False, "base 0")),
        ("def quarter(x): return x / 4 if x > 0 else 0", Runs(True, False, "plus 1")),
        ("async def quarter(x): return x / 4", Runs(False, False, "base 0")),
        ("def quarter(x): return str(x / 4)", Runs(False, False, "base 0")),
        ("def quarter(x): return [x / 4]", Runs(False, False, "base 0")),
    ],
)
def test_a_wrong_program_fails(reply: str, verdict: Runs) -> None:
    assert runs(reply) == verdict


@needs_sandbox
def test_floats_may_differ_by_little_and_a_root_is_any_value_near_one() -> None:
    assert runs("def quarter(x): return x / 4 + 1e-7").plus
    assert runs("def quarter(x): return x / 4 + 1e-4").reason == "base 0"
    poly = HELPED | {"prompt": "def find_zero(xs):\n", "entry_point": "find_zero", "canonical_solution": "    return 0\n"}
    poly |= {"base_input": [[[-4, 0, 1]]], "plus_input": [], "atol": 1e-4}
    assert runs("def find_zero(xs): return -2", poly).base
    assert not runs("def find_zero(xs): return 1.9", poly).base
    assert not runs("def find_zero(xs): return float('nan')", poly).base


@needs_sandbox
def test_the_arguments_that_a_program_changes_are_its_own() -> None:
    task = HELPED | {"base_input": [[[3, 1]]], "plus_input": [], "prompt": "def f(x):\n", "entry_point": "f"}
    assert runs(
        "def f(x):\n    x.clear()\n    return [1, 3]", task | {"canonical_solution": "    x.sort()\n    return x\n"}
    ).base


HOSTILE = {
    "fork bomb": "import os\ndef quarter(x):\n    while True: os.fork()",
    "memory": "def quarter(x):\n    a = []\n    while True: a.append(bytearray(1 << 24))",
    "disk": "def quarter(x):\n    while True: open('/tmp/x', 'ab').write(bytes(1 << 20))",
    "network": "import urllib.request\ndef quarter(x): return urllib.request.urlopen('http://1.1.1.1', timeout=1) and x / 4",
    "reading files": "def quarter(x): return x / 4 if open('SECRET').read() else 0",
    "writing files": "def quarter(x):\n    open('SECRET', 'w').write('gone')\n    return x / 4",
    "removing files": "import os\ndef quarter(x):\n    os.remove('SECRET')\n    return x / 4",
    "home": "import os\ndef quarter(x): return x / 4 if os.listdir(os.path.expanduser('~root')) else 0",
    "killing": "import os\ndef quarter(x):\n    os.kill(-1, 9)\n    os.kill(0, 9)",
    "fake verdict": 'print(\'{"passed": true, "reason": ""}\')\nimport os\nos.write(2, b\'{"passed": true}\')\ndef quarter(x): return None',
    "hanging": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef quarter(x): time.sleep(10**6)",
    "exiting": "import os\ndef quarter(x): os._exit(0)",
    "exiting at once": "import sys\nsys.exit(0)\ndef quarter(x): return x / 4",
    "equal to all": "class E(float):\n    __eq__ = lambda s, o: True\n    __sub__ = lambda s, o: 0.0\ndef quarter(x): return E(9)",
    "judge's names": "reference = judge = near = is_right = task = lambda *a: True\ndef quarter(x): return 0",
    "raises success": "def quarter(x): raise AssertionError('plus 1')",
}


SLOW = "memory", "hanging"


@needs_sandbox
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW)) for name in HOSTILE])
def test_a_hostile_program_fails_and_the_host_is_untouched(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    # as it stands: of a reply, only definitions would be run
    program = f"def half(x): return x / 2\n{HOSTILE[name].replace('SECRET', str(secret))}"
    result = grade_program(HELPED, program)
    assert (result.base, result.plus) == (False, False)
    assert secret.read_text() == "kept"


@needs_sandbox
def test_humaneval_is_the_functions_own_inputs_and_humaneval_plus_both() -> None:
    task = {"label": "", "_metadata": HELPED}
    reply = "def quarter(x): return x / 4 if x > 0 else 0"
    assert check("coding/humaneval", task, reply, grader="strict").correct
    assert not check("coding/humaneval+", task, reply, grader="strict").correct
    none = check("coding/humaneval", task, "no", grader="strict")
    assert (none.answer, none.found, none.correct) == ("", False, False)


def test_a_question_without_inputs_is_told() -> None:
    with pytest.raises(NoTests, match=r"Toy/0 has no base_input, plus_input.*--data-path"):
        grade_program({name: HELPED[name] for name in HELPED if not name.endswith("input")}, WHOLE)


@pytest.fixture(scope="session")
def humaneval(test_file: Callable[[str], Path]) -> list[dict[str, Any]]:
    with gzip.open(test_file("eval/eval_data/coding/humaneval/humaneval.jsonl.gz")) as file:
        return [json.loads(line)["_metadata"] for line in file]


def solved(task: dict[str, Any]) -> Runs:
    reply = f"```python\n{task['prompt']}{task['canonical_solution']}\n```"
    return grade_program(task, find_program(task["prompt"], task["entry_point"], reply))


@needs_sandbox
def test_solutions_of_humaneval_pass(humaneval: list[dict[str, Any]]) -> None:
    for task in humaneval[0], humaneval[10], humaneval[32], humaneval[38]:  # three of them use a helper of the prompt
        assert solved(task) == Runs(True, True, ""), task["task_id"]


@needs_sandbox
@pytest.mark.soak
def test_all_solutions_of_humaneval_pass(humaneval: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = dict(zip([task["task_id"] for task in humaneval], pool.map(solved, humaneval), strict=True))
    assert {name: runs.reason for name, runs in verdicts.items() if runs != Runs(True, True, "")} == {}


@pytest.mark.parametrize(
    "reply", ["```python\nx\n```\n" * 2000, "def f(x):\n" + "    (\n" * 20_000, "```\n" * 20_000, "def (" * 20_000]
)
def test_looking_for_a_program_takes_no_time_that_counts(reply: str) -> None:
    start = time.process_time()
    find_program(HELPED["prompt"], "quarter", reply)  # type: ignore[arg-type]
    assert time.process_time() - start < 5
