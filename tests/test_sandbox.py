"""The sandbox: code that nobody has read runs, reaches nothing, ends, and can't pass its tests by itself."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import needs_sandbox

from ochat import sandbox
from ochat.errors import OchatError
from ochat.sandbox import Verdict, run_python, run_tests


def running(mark: str) -> list[str]:
    """The processes of this machine with the mark in their command."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark in (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:  # it has ended
            pass
    return found


def gone(mark: str) -> bool:
    """Whether no such process is left after a moment in which the kernel ends them."""
    end = time.monotonic() + 5
    while running(mark):
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True


@needs_sandbox
def test_a_program_gets_its_input_and_is_heard() -> None:
    outcome = run_python("import sys; print(input()[::-1]); print('oh', file=sys.stderr); sys.exit(3)", stdin="abc\n")
    assert (outcome.ended, outcome.status, outcome.stdout, outcome.stderr) == ("exit", 3, "cba\n", "oh\n")
    assert not outcome.succeeded


@needs_sandbox
def test_much_goes_in_and_out() -> None:
    text = "é" * 300_000
    assert run_python("import sys; sys.stdout.write(sys.stdin.read())", stdin=text).stdout == text


@needs_sandbox
def test_a_program_may_leave_its_input_unread() -> None:
    assert run_python("pass", stdin="x" * 1_000_000).succeeded


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("while True: pass", "time"),
        ("import time; time.sleep(1000)", "time"),
        ("import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(1000)", "time"),
        ("while True: print('x' * 1000)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output"),
        ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "time"),
        # each within its own limit, all of them beyond it
        ("import os\nfor n in range(4): os.fork()\nx = bytearray(100 << 20)\nwhile True: pass", "memory"),
    ],
)
def test_what_would_go_on_for_ever_is_ended(code: str, ended: str) -> None:
    outcome = run_python(code, seconds=1.5, memory_mb=500)
    assert (outcome.ended, outcome.status) == (ended, None)
    assert outcome.seconds < 4


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("open('/tmp/big', 'wb').write(bytes(17 << 20))", "File too large"),
        ("import os\nfor n in range(9): open(f'/tmp/{n}', 'wb').write(bytes(15 << 20))", "No space left"),
        ("import os\nfor n in range(9): open(f'/dev/shm/{n}', 'wb').write(bytes(15 << 20))", "No space left"),
        ("import os\nwhile True: os.fork() or __import__('time').sleep(9)", "Resource temporarily unavailable"),
        ("open('/usr/x', 'w')", "Read-only file system"),
        ("open('/code/main.py', 'w')", "Read-only file system"),
        ("open('/x', 'w')", "Read-only file system"),
        ("open('/dev/x', 'w')", "Read-only file system"),
        ("open('/etc/passwd')", "No such file"),
        ("open('/proc/sys/kernel/core_pattern', 'w')", "Error"),
        ("raise SystemExit(open('/proc/1/environ').read())", "PATH=/usr/bin:/bin\0HOME=/tmp"),
        ("import socket; socket.socket()", "Operation not permitted"),
        ("import socket; socket.create_connection(('1.1.1.1', 53), 2)", "Error"),
        ("import os; os.memfd_create('x')", "Operation not permitted"),
        ("import os; os.setuid(0)", "Error"),
        ("import os; os.kill(1, 9); os.kill(os.getppid(), 9); raise SystemExit('still here')", "still here"),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))", "not allowed to raise"),
    ],
)
def test_nothing_beyond_the_sandbox_is_reached(code: str, error: str) -> None:
    outcome = run_python(code, seconds=5, memory_mb=400)
    assert (outcome.ended, outcome.status) == ("exit", 1)
    assert error in outcome.stderr


@needs_sandbox
def test_the_callers_secrets_and_files_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "12345")
    (tmp_path / "secret.txt").write_text("12345")
    code = f"""import os
print(*os.environ, *(v for v in os.environ.values()))
print(os.path.exists({str(tmp_path)!r}), os.path.exists({__file__!r}), os.path.exists({str(Path.home() / ".ssh")!r}))
print([name for name in os.listdir('/proc') if name.isdigit()])
print(os.getuid() != 0, os.listdir('/tmp'))"""
    outcome = run_python(code)
    assert "12345" not in outcome.stdout
    assert outcome.stdout.splitlines()[1:] == ["False False False", "['1', '2']", "True []"]


@needs_sandbox
def test_a_server_of_this_machine_is_out_of_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0ochat-test")
        local.listen()
        code = f"import socket\nsocket.create_connection({server.getsockname()!r}, 2)"
        assert run_python(code).status == 1


@needs_sandbox
@pytest.mark.parametrize("sandboxed", [True, False])
def test_a_daemon_dies_with_its_program(sandboxed: bool) -> None:
    mark = f"mark-{os.getpid()}-{sandboxed}"
    leave = "os.setsid()" if sandboxed else "pass"  # without the sandbox, only the process group is known
    code = f"import os\nif not os.fork():\n  {leave}\n  os.execv('/bin/sh', ['sh', '-c', 'sleep 1000; : {mark}'])"
    outcome = run_python(code, seconds=5, unsandboxed=not sandboxed)
    assert outcome.succeeded
    assert outcome.seconds < 4
    assert gone(mark)


@needs_sandbox
def test_what_is_stopped_leaves_no_process() -> None:
    mark = f"mark-{os.getpid()}-stopped"
    code = f"import os\nos.fork()\nos.setsid()\nos.execv('/bin/sh', ['sh', '-c', 'sleep 1000; : {mark}'])"
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(run_python(code, seconds=1).status or 0))
    thread.start()
    while not running(mark):
        os.sched_yield()
    thread.join()
    assert seen == [0]
    assert gone(mark)


ADD = "def add(a, b): return a + b"


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (ADD, "assert add(1, 2) == 3\nassert add([1], [2]) == [1, 2]\nassert add('a', 'b') == 'ab'"),
        (ADD, "def test_add():\n    assert add(1.5, 2) == 3.5"),
        (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(1, 2), 3)"),
        (
            ADD,
            "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(1, 2), 3)\nunittest.main()",
        ),
        (ADD, "assert add(2**200, 1) == 2**200 + 1 and add(1j, 1) == 1 + 1j and add((1,), ()) == (1,)"),
        (
            "print('hi')\ndef f(): return {(1, 2): {3}, b'x': frozenset([None])}",
            "assert f() == {(1, 2): {3}, b'x': frozenset([None])}",
        ),
        ("def f(x): x.sort()", "x = [3, 1]\nassert f(x) is None and x == [1, 3]"),
        ("def f(d, s): d.pop(1); s.add(2)", "d, s = {1: 2}, {1}\nf(d, s)\nassert d == {} and s == {1, 2}"),
        ("def f(g, x): return g(x) + 1", "assert f(lambda x: 2 * x, 4) == 9"),
        (
            "def f(n):\n    for i in range(n): yield i",
            "assert list(f(3)) == [0, 1, 2]\ng = f(2)\nassert (next(g), next(g)) == (0, 1)",
        ),
        ("def f(x):\n    raise ValueError('no')", "try: f(1)\nexcept ValueError as e: assert str(e) == 'no'\nelse: assert 0"),
        ("class E(KeyError): pass\ndef f(): raise E", "try: f()\nexcept KeyError: pass\nelse: assert 0"),
        (
            "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
            "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n"
            "    def __eq__(self, other): return self.items == other.items",
            "s, t = Stack(), Stack()\ns.push(1)\nassert len(s) == 1 and s.items == [1] and s.pop() == 1 and s == t",
        ),
        ("import math\ndef f(x): return math.sqrt(x)", "assert f(4) == math.sqrt(4)"),
        ("LIMIT = 5", "assert LIMIT == 5"),
        (ADD + "\nif __name__ == '__main__':\n    raise SystemExit", "assert add(1, 1) == 2"),
        (ADD, "assert add(1, 1) == 2\nimport sys\nsys.exit()"),
    ],
)
def test_right_code_passes(code: str, tests: str) -> None:
    assert run_tests(code, tests) == Verdict(True)


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "tests", "reason"),
    [
        ("def add(a, b): return a - b", "assert add(1, 2) == 3", "AssertionError"),
        (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(1, 2), 4)", "3 != 4"),
        (ADD, "def test_add():\n    assert add(1, 2) == 4", "AssertionError"),
        ("def add(a, b: return", "assert add(1, 2) == 3", "the code failed: SyntaxError"),
        ("x = 1", "assert add(1, 2) == 3", "NameError: name 'add' is not defined"),
        (ADD, "def check(candidate): assert candidate(1, 2) == 3", "the tests use nothing of the code"),
        (ADD, "", "the tests use nothing of the code"),
        ("def add(a, b):\n    while True: pass", "assert add(1, 2) == 3", "it took more than 2 s"),
        ("def add(a, b): return bytearray(1 << 30)", "assert add(1, 2) == 3", "MemoryError"),
        ("def add(a, b): return add(a, b)", "assert add(1, 2) == 3", "RecursionError"),
        ("def add(a, b): return 'x' * (130 << 20)", "assert add(1, 2) == 3", ""),
        # attempts to pass without an answer
        ("import sys; sys.exit(0)", "assert add(1, 2) == 3", "the code failed: SystemExit"),
        ("import os; os._exit(0)", "assert add(1, 2) == 3", "the code ended"),
        ("import os\ndef add(a, b): os._exit(0)", "assert add(1, 2) == 3", "the code ended"),
        ("def add(a, b): raise SystemExit(0)", "assert add(1, 2) == 3", "RuntimeError: SystemExit"),
        ("def add(a, b): raise StopIteration", "assert all(map(lambda x: add(x, 2) == 3, [1]))", "Exception"),
        ("import os\ndef add(a, b):\n    os.kill(0, 9)", "assert add(1, 2) == 3", ""),
        ("import os\ndef add(a, b):\n    os.kill(-1, 9)", "assert add(1, 2) == 3", ""),
        ('print(\'{"passed": true, "reason": ""}\')\ndef add(a, b): return 0', "assert add(1, 2) == 3", "AssertionError"),
        (
            "import os\nfor n in range(64):\n    try: os.write(n, b'{\"passed\": true, \"reason\": \"\"}')\n    except OSError: pass",
            "assert add(1, 2) == 3",
            "JSONDecodeError",
        ),
        ("class Any:\n    def __eq__(self, other): return True\ndef add(a, b): return Any()", "assert add(1, 2) == 3", "AssertionError"),
        (
            "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef add(a, b): return Any()",
            "assert add(1, 2) == 3 or 3 == add(1, 2)",
            "AssertionError",
        ),
        (
            "class Any:\n    def __lt__(self, other): return True\n    def __abs__(self): return 0\n"
            "    def __sub__(self, other): return self\ndef add(a, b): return Any()",
            "assert abs(add(1, 2) - 3) < 1e-6",
            "TypeError",
        ),
        ("import builtins\nbuiltins.len = len = abs = lambda x: 3\ndef add(a, b): return []", "assert len(add(1, 2)) == 3", ""),
        ("import sys\nsys.modules['math'] = math = type(sys)('math')\nmath.pi = 0\ndef f(): return 0", "assert f() == math.pi", "Assert"),
        ("import sys as f", "assert f.exit(0)", "NameError"),
        ("AssertionError = Exception = None\ndef add(a, b): return 0", "assert add(1, 2) == 3", "AssertionError"),
        ("import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef add(a, b): return 0",
         "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(1, 2), 3)", "0 != 3"),
        # the tests' objects answer calls alone
        ("def f(g): return g.__globals__", "def g(): pass\nassert f(g) == 1", "AttributeError"),
        ("def f(g): return g._peer.ask('attribute', g._number, '__globals__')", "def g(): pass\nassert f(g) == 1", "KeyError"),
        ("import inspect\ndef add(a, b): return open('/code/tests.py').read()", "assert add(1, 2) == 3", "FileNotFoundError"),
        ("import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0", "assert add(1, 2) == 3", "AssertionError"),
    ],
)  # fmt: skip
def test_wrong_code_fails_whatever_it_tries(code: str, tests: str, reason: str) -> None:
    verdict = run_tests(code, tests, seconds=2, memory_mb=400)
    assert not verdict.passed
    assert reason in verdict.reason


@needs_sandbox
def test_code_that_speaks_the_tests_language_can_only_answer_for_its_own_names() -> None:
    forger = """import json, os
names = {"add": ["mine", 0], "__builtins__": ["dict", [["all", ["mine", 1]]]]}
os.write(4, json.dumps({"names": names}).encode() + b"\\n")
for line in os.fdopen(3):
    arguments = json.loads(line)["about"][1][1]
    os.write(4, json.dumps({"answer": ["tuple", [True, arguments]]}).encode() + b"\\n")"""
    verdict = run_tests(forger, "assert all([add(1, 2) == 3])", seconds=5)
    assert verdict == Verdict(False, "AssertionError")


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What was found of the machine is looked for anew, before and after."""
    for found in (sandbox._found, sandbox.check_sandbox):
        found.cache_clear()
    yield
    for found in (sandbox._found, sandbox.check_sandbox):
        found.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_bubblewrap_nothing_runs_and_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "bwrap" else which(name, path=path))
    with pytest.raises(OchatError, match="Run: apt-get install bubblewrap"):
        run_python("print(1)")
    assert run_python("print(1)", unsandboxed=True).stdout == "1\n"
    assert run_tests(ADD, "assert add(1, 2) == 3", unsandboxed=True).passed


@pytest.mark.usefixtures("forgetful")
def test_where_the_kernel_allows_no_sandbox_its_words_and_the_remedy_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OchatError, match=r"No permissions to create new namespace.*allows user namespaces"):
        run_python("print(1)")


@needs_sandbox
def test_a_sandbox_that_did_not_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.check_sandbox()
    monkeypatch.setattr(sandbox, "_interpreter", lambda: "/nowhere/python")
    monkeypatch.setattr(sandbox, "_limits", lambda seconds, memory_mb: [])
    with pytest.raises(OchatError, match="The sandbox didn't start: bwrap: execvp /nowhere/python"):
        run_python("print(1)")
