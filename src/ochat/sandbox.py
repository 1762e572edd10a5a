"""Run code that nobody has read: what a model wrote, or a data set holds.

bubblewrap gives each run a file system of its own (a read-only /usr and the interpreter, a small work folder in memory), no network, no
other processes and no environment, as a user who owns nothing: nobody, where we are root. The kernel's limits hold for each process;
we watch what all of them need together, their output and the clock, and end the whole tree. How code is tested without being able to
pass by itself is told in `sandboxed.py`.

Where the kernel allows no sandbox, nothing weaker takes its place unasked: `unsandboxed` is the caller's explicit choice."""

import json
import math
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Literal

from ochat import sandboxed
from ochat.errors import OchatError

NOBODY = "65534"
MAX_PROCESSES = 32  # and threads
MAX_FILE_MB = 16
MAX_OPEN_FILES = 128
WORK_FOLDER_MB = 64
MAX_OUTPUT_BYTES = 2**20
_WATCHED_EVERY = 0.05  # seconds
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same verdict each time
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # an arena a thread would use up the address space
}
# System calls that no test needs and that reach beyond the sandbox or hold memory that no limit counts; by machine:
# socket (some families know no network namespace), memfd_create, shmget, msgget, ptrace, process_vm_readv and _writev, unshare, setns,
# mount, open_tree, move_mount, fsopen, bpf, perf_event_open, keyctl, add_key, request_key, io_uring_setup, userfaultfd, memfd_secret
_MACHINES = {
    "x86_64": (
        0xC000003E,
        (41, 319, 29, 68, 101, 310, 311, 272, 308, 165, 428, 429, 430, 321, 298, 250, 248, 249, 425, 323, 447),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 279, 194, 186, 117, 270, 271, 97, 268, 40, 428, 429, 430, 280, 241, 219, 217, 218, 425, 282, 447),
    ),
}

Ended = Literal["exit", "time", "memory", "output"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended: by itself, or at a limit."""

    ended: Ended
    status: int | None
    """its exit status, negative for a signal; None where a limit ended it"""
    stdout: str
    stderr: str
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether the program ended by itself with status 0, which a program can do at any point: no verdict on what it did."""
        return self.status == 0


@dataclass(frozen=True)
class Verdict:
    """Whether code passed its tests, and why not."""

    passed: bool
    reason: str = ""


def run_python(code: str, *, seconds: float = 10, memory_mb: int = 512, stdin: str = "", unsandboxed: bool = False) -> Outcome:
    """Run a Python program, and what it starts, to its end or to a limit: wall time, or memory of all its processes together.
    Raises OchatError where there's no sandbox."""
    with _folder({"main.py": code}) as folder, ExitStack() as stack:
        program = _Program(stack, folder, ["main.py"], seconds, memory_mb, unsandboxed)
        process = program.start(subprocess.PIPE, subprocess.PIPE)
        ended, took = _watch([process], seconds, memory_mb, stdin.encode("utf-8", "surrogatepass"), output := _Output())
        program.check(process, output.stderr)
    status = None if ended != "exit" else process.returncode
    return Outcome(ended, status, output.stdout.decode("utf-8", "replace"), output.stderr.decode("utf-8", "replace"), took)


def run_tests(code: str, tests: str, *, seconds: float = 10, memory_mb: int = 512, unsandboxed: bool = False) -> Verdict:
    """Whether `tests`, a Python program that uses the names of `code`, runs to its end. Each is in a process of its own, so calls
    carry data: the tests can't ask whether a value is an instance of a class of the code's, nor catch its exceptions by class. Tests that
    use nothing of the code don't pass; functions `test_…` and unittest's cases are called.
    Raises OchatError where there's no sandbox."""
    files = {sandboxed.SOLUTION: code}, {sandboxed.TESTS: tests}
    script = Path(sandboxed.__file__)
    with ExitStack() as stack:
        solution, checker = (
            _Program(
                stack,
                stack.enter_context(_folder({script.name: script.read_text(encoding="utf-8"), **own})),
                [script.name, part],
                seconds,
                memory_mb,
                unsandboxed,
            )
            for own, part in zip(files, ("solution", "tests"), strict=True)
        )
        to_solution, to_checker = os.pipe(), os.pipe()
        try:
            processes = [
                solution.start(to_solution[0], to_checker[1], subprocess.DEVNULL),
                checker.start(to_checker[0], to_solution[1]),
            ]
        finally:
            for end in (*to_solution, *to_checker):
                os.close(end)
        ended, _ = _watch(processes, seconds, memory_mb, b"", output := _Output())
        solution.check(processes[0], b"")
        checker.check(processes[1], output.stderr)
    if ended != "exit":
        return Verdict(False, {"time": f"it took more than {seconds:g} s"}.get(ended, f"it needed too much {ended}"))
    try:
        verdict = json.loads(output.stderr)
        return Verdict(verdict["passed"] is True, str(verdict["reason"]))
    except (ValueError, LookupError, TypeError):
        return Verdict(False, "the tests ended without a verdict")


@contextmanager
def _folder(files: dict[str, str]) -> Iterator[Path]:
    """A folder with these files, which nobody can read."""
    with tempfile.TemporaryDirectory(prefix="ochat-sandbox-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, text in files.items():
            (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
            (folder / file).chmod(0o644)
        yield folder


class _Program:
    """A Python script of a folder, started in the sandbox."""

    def __init__(
        self, stack: ExitStack, folder: Path, arguments: list[str], seconds: float, memory_mb: int, unsandboxed: bool
    ) -> None:
        self.folder, self.arguments, self.unsandboxed, self.stack = folder, arguments, unsandboxed, stack
        self.limits = _limits(seconds, memory_mb)
        self.status: IO[bytes] | None = None
        if not unsandboxed:
            check_sandbox()

    def start(self, stdin: int, stdout: int, stderr: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
        """Start it; it is killed when the stack is closed."""
        passed: list[int] = []
        if self.unsandboxed:
            # Of processes the kernel would count all of this user's.
            command = [limit for limit in self.limits if "nproc" not in limit] + _python(self.folder, self.arguments)
        else:
            reads, writes = os.pipe()
            self.status = self.stack.enter_context(os.fdopen(reads, "rb"))
            rules = os.memfd_create("seccomp")
            passed = [rules, writes]
            os.write(rules, _seccomp())
            os.lseek(rules, 0, os.SEEK_SET)
            command = [*_sandbox(self.folder, rules, writes), *self.limits, *_python(Path("/code"), self.arguments)]
        try:
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder if self.unsandboxed else "/",
                env=_ENVIRONMENT,
                pass_fds=passed,
                start_new_session=True,
            )
        finally:
            for number in passed:
                os.close(number)
        self.stack.callback(_end, process)
        return process

    def check(self, process: "subprocess.Popen[bytes]", said: bytes | bytearray) -> None:
        """Raise OchatError where it ended without having started, which is no verdict on the program."""
        assert process.returncode is not None
        if self.status and process.returncode >= 0 and b"exit-code" not in self.status.read():
            raise OchatError(f"The sandbox didn't start: {said.decode('utf-8', 'replace')[:500].strip() or 'no reason given'}.")


def _python(folder: Path, arguments: list[str]) -> list[str]:
    script, *rest = arguments
    return [_interpreter(), "-P", "-s", str(folder / script), *rest]  # -P: no module from the script's folder


def _interpreter() -> str:
    """The interpreter itself: a virtual environment's link to it may lie where nobody looks."""
    return str(Path(sys.executable).resolve())


def _limits(seconds: float, memory_mb: int) -> list[str]:
    return [
        _found("prlimit"),
        f"--as={memory_mb * 2**20}",
        f"--cpu={math.ceil(seconds) + 1}",
        f"--nproc={MAX_PROCESSES}",
        f"--fsize={MAX_FILE_MB * 2**20}",
        f"--nofile={MAX_OPEN_FILES}",
        "--core=0",
        "--",
    ]


def _sandbox(folder: Path, rules: int, status: int) -> list[str]:
    """The command that the program's own follows."""
    bwrap = _found("bwrap")
    python = str(Path(sys.base_prefix).resolve())
    # As root, limits on processes don't hold, so we become nobody first; who may not read our home, where the interpreter or the
    # folder may lie. Both are therefore put where nobody can reach them.
    lower: list[str] = []
    python_at, folder_at = python, str(folder)
    if os.geteuid() == 0:
        python_at, folder_at = "/tmp/python", "/tmp/code"
        lower = [bwrap, "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/tmp", "--ro-bind", python, python_at]
        lower += ["--ro-bind", str(folder), folder_at, "--", _found("setpriv"), "--reuid", NOBODY, "--regid", NOBODY]
        lower += ["--clear-groups", "--no-new-privs", "--"]
    size = str(WORK_FOLDER_MB * 2**20)
    command = [*lower, bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--clearenv", "--seccomp", str(rules), "--json-status-fd", str(status)]
    for name, value in _ENVIRONMENT.items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "lib32", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    # The sandbox's own /, /dev and /dev/shm are memory too.
    command += ["--proc", "/proc", "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    command += ["--size", size, "--tmpfs", "/tmp"]
    if not python.startswith("/usr/") and python != "/usr":
        command += ["--ro-bind", python_at, python]
    return [*command, "--ro-bind", folder_at, "/code", "--remount-ro", "/", "--chdir", "/tmp", "--"]


@cache
def _seccomp() -> bytes:
    """Rules, as the kernel reads them, that refuse some system calls with EPERM."""
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    machine, refused = _MACHINES[platform.machine()]

    def rule(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_so, if_not, value)

    rules = [rule(load, 4), rule(equal, machine, 1, 0), rule(end, 0x80000000), rule(load, 0)]  # another machine's call: killed
    n_left = len(refused) + 1
    rules.append(rule(at_least, 0x40000000, n_left, 0))  # x86's second set of numbers
    rules += [rule(equal, number, n_left - 1 - at, 0) for at, number in enumerate(refused)]
    rules += [rule(end, 0x7FFF0000), rule(end, 0x00050000 | 1)]
    return b"".join(rules)


@cache
def _found(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        package = "bubblewrap" if program == "bwrap" else "util-linux"
        raise OchatError(f"Running code needs `{program}`, which isn't installed. Run: apt-get install {package}")
    return path


@cache
def check_sandbox() -> None:
    """Raise OchatError, with what to do, where no sandbox can be made."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise OchatError(f"Code is run in a sandbox on Linux ({', '.join(_MACHINES)}) only. Use such a machine.")
    with _folder({}) as folder:
        rules, (reads, writes) = os.memfd_create("seccomp"), os.pipe()
        with os.fdopen(reads, "rb"), os.fdopen(writes, "wb"), os.fdopen(rules, "w+b") as file:
            file.write(_seccomp())
            file.seek(0)
            done = subprocess.run(
                [*_sandbox(folder, rules, writes), *_limits(10, 256), _interpreter(), "-c", "print('works')"],
                pass_fds=(rules, writes),
                capture_output=True,
                text=True,
                check=False,
            )
    if done.stdout != "works\n":
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise OchatError(
            f"bubblewrap can't make a sandbox here ({said}). It needs version 0.8, and a kernel or container that allows user "
            "namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu, "
            "docker run --security-opt seccomp=unconfined in a container."
        )


class _Output:
    def __init__(self) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()


def _watch(
    processes: Sequence["subprocess.Popen[bytes]"], seconds: float, memory_mb: int, stdin: bytes, output: _Output
) -> tuple[Ended, float]:
    """Feed and read the last process until it ends or all of them reach a limit; then end them all."""
    last, start = processes[-1], time.monotonic()
    ended: Ended | None = None
    with selectors.DefaultSelector() as selector, os.fdopen(os.pidfd_open(last.pid)) as exit_mark:
        selector.register(exit_mark, selectors.EVENT_READ)
        if last.stdin:
            _register(selector, last.stdin, selectors.EVENT_WRITE, partial(_write, last.stdin, bytearray(stdin)))
        for stream, kept in ((last.stdout, output.stdout), (last.stderr, output.stderr)):
            if stream:
                _register(selector, stream, selectors.EVENT_READ, partial(_read, stream, kept))
        checked = start
        while ended is None:
            exited = False
            for key, _ in selector.select(_WATCHED_EVERY):
                if key.data is None:
                    exited = True
                elif not key.data():
                    selector.unregister(key.fileobj)  # closed or not
            if exited:  # what it wrote last
                for key in list(selector.get_map().values()):
                    while key.data and key.events == selectors.EVENT_READ and not _full(output) and key.data():
                        pass
            now = time.monotonic()
            if _full(output):
                ended = "output"
            elif exited:
                ended = "exit"
            elif now - start > seconds:
                ended = "time"
            elif now - checked > _WATCHED_EVERY:
                checked = now
                if sum(_resident_bytes(process.pid) for process in processes) > memory_mb * 2**20:
                    ended = "memory"
    for process in processes:
        _end(process)
    del output.stdout[MAX_OUTPUT_BYTES:], output.stderr[MAX_OUTPUT_BYTES:]
    return ended, time.monotonic() - start


def _register(selector: selectors.BaseSelector, stream: IO[bytes], event: int, step: Callable[[], bool]) -> None:
    os.set_blocking(stream.fileno(), False)
    selector.register(stream, event, step)


def _full(output: _Output) -> bool:
    return len(output.stdout) + len(output.stderr) > MAX_OUTPUT_BYTES


def _read(stream: IO[bytes], kept: bytearray) -> bool:
    """Take one read's bytes; False where there are none, now or ever."""
    try:
        found = os.read(stream.fileno(), 65536)
    except BlockingIOError:
        return False
    kept += found
    return bool(found)


def _write(stream: IO[bytes], left: bytearray) -> bool:
    """Give one write's bytes of those left; closes the stream, and returns False, where none is left or none is wanted."""
    try:
        del left[: os.write(stream.fileno(), left[:65536])]
    except BrokenPipeError:
        left.clear()
    if not left:
        _close(stream)
    return bool(left)


def _close(stream: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        stream.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it with all that it started: the sandbox's processes die with the one that we know."""
    if process.returncode is None:  # not yet waited for, so its number is still its own
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            _close(stream)


def _resident_bytes(pid: int) -> int:
    """Memory of a process and all below it, now."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        below = [number for task in Path(f"/proc/{pid}/task").iterdir() for number in (task / "children").read_text().split()]
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident_bytes(int(number)) for number in below)
