"""What runs inside the sandbox when code is tested: a script, which imports nothing of ours.

Code and tests never share a process, or the code could leave early, overwrite what the tests compare with, or look for the verdict in
memory. Each has a sandbox of its own; between them go lines of JSON that carry plain data. A call in the tests is a message to the
code's process, and its answer is built anew from numbers, texts and lists. An object of the code's own stays there: the tests hold a
`Remote`, which never answers for itself when it's compared with data."""

import builtins
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Never  # Any: values of the code's and the tests' making

MAX_LINE_BYTES = 128 * 2**20  # HumanEval has results of 70 MB; memory is limited apart
BUFFER_BYTES = 2**20
SOLUTION, TESTS = "solution.py", "tests.py"


class Remote:
    """An object that lives in the other process."""

    def __init__(self, peer: "Peer", number: int) -> None:
        self.__dict__.update(_peer=peer, _number=number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer.call(self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.ask("attribute", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set_attribute", self._number, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("item", self._number, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._peer.ask("set_item", self._number, key, value)

    def __len__(self) -> int:
        return int(self._peer.ask("length", self._number))

    def __str__(self) -> str:
        return str(self._peer.ask("text", self._number))

    def __repr__(self) -> str:
        return str(self._peer.ask("representation", self._number))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._peer.ask("iterator", self._number)
        while answer := self._peer.ask("next", iterator._number):
            yield answer[0]

    def __next__(self) -> Any:
        if answer := self._peer.ask("next", self._number):
            return answer[0]
        raise StopIteration

    def __eq__(self, other: object) -> bool:
        # An object that calls itself equal to whatever is expected would pass every test.
        return isinstance(other, Remote) and bool(self._peer.ask("equal", self._number, other))

    __hash__ = None  # type: ignore[assignment]  # equality is the other side's


# What may be asked about an object of the code's. Nothing of this may be asked about the tests' objects.
QUESTIONS: dict[str, Callable[..., Any]] = {
    "attribute": getattr,
    "set_attribute": setattr,
    "item": lambda value, key: value[key],
    "set_item": lambda value, key, item: value.__setitem__(key, item),
    "length": len,
    "text": str,
    "representation": repr,
    "iterator": iter,
    "next": lambda value: next(([item] for item in value), []),
    "equal": lambda value, other: bool(value == other),
}


class Peer:
    """One end of the talk between the two processes: it asks, and serves what the other side asks in the meantime."""

    def __init__(self, reads: BinaryIO, writes: BinaryIO, questions: dict[str, Callable[..., Any]]) -> None:
        self.reads, self.writes, self.questions = reads, writes, questions
        self.objects: list[Any] = []
        self.n_asked = 0

    def encode(self, value: Any) -> Any:
        """The value as JSON. Data is copied; anything else keeps its place here and gets a number."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            whole = int.__int__(value)
            return whole if whole.bit_length() < 64 else ["int", format(whole, "x")]  # of any length
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, bytes):
            return ["bytes", bytes.hex(value)]
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                items = list(kind.__iter__(value))  # type: ignore[arg-type]
                return [kind.__name__, items if _plain(items) else [self.encode(item) for item in items]]
        if isinstance(value, dict):
            return ["dict", [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]]
        if isinstance(value, Remote) and value._peer is self:
            return ["yours", value._number]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        self.objects.append(value)
        return ["mine", len(self.objects) - 1]

    def decode(self, value: Any) -> Any:
        """The value of JSON, of the plain types alone."""
        if not isinstance(value, list):
            return value
        kind, *parts = value
        if kind == "int":
            return int(parts[0], 16)
        if kind == "complex":
            return complex(float(parts[0]), float(parts[1]))
        if kind == "bytes":
            return bytes.fromhex(parts[0])
        if kind == "dict":
            return {self.decode(key): self.decode(item) for key, item in parts[0]}
        if kind == "mine":
            return Remote(self, int(parts[0]))
        if kind == "module":
            raise ImportError(f"the module {parts[0]} can't be passed")
        if kind == "yours":
            return self.objects[parts[0]]
        items = parts[0] if list not in set(map(type, parts[0])) else map(self.decode, parts[0])
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](items)

    def send(self, message: dict[str, Any]) -> None:
        self.writes.write(json.dumps(message).encode())
        self.writes.write(b"\n")
        self.writes.flush()

    def receive(self) -> dict[str, Any]:
        line = self.reads.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError("the code ended, or answered too much")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message

    def call(self, number: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call an object of the other side. What it changes in a list, dict or set among its arguments changes here too."""
        answer, changed = self.ask("call", number, arguments, named)
        for own, new in zip(arguments, changed, strict=True):
            if type(own) is not type(new):  # None where nothing changed
                continue
            if isinstance(own, list):
                own[:] = new
            elif isinstance(own, dict | set):
                own.clear()
                own.update(new)
        return answer

    def ask(self, question: str, *about: Any) -> Any:
        """The other side's answer; raises what was raised there, as one of Python's own exceptions."""
        self.n_asked += 1
        self.send({"ask": question, "about": self.encode(about)})
        while True:
            message = self.receive()
            if "ask" in message:
                self.answer(message)
            elif "raised" in message:
                raise _exception(message["raised"], str(message.get("said")))
            else:
                return self.decode(message["answer"])

    def serve(self) -> None:
        while True:
            self.answer(self.receive())

    def answer(self, message: dict[str, Any]) -> None:
        try:
            question = message["ask"]
            number, *about = self.decode(message["about"])
            subject = self.objects[number]
            if question == "call":
                arguments, named = about
                value: Any = subject(*arguments, **named)
                # what wasn't changed isn't sent back
                after, before = self.encode(arguments)[1], message["about"][1][1][1]
                changed = ["list", [new if new != old else None for new, old in zip(after, before, strict=True)]]
                encoded = ["tuple", [self.encode(value), changed]]
            else:
                encoded = self.encode(self.questions[question](subject, *about))
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            self.send({"raised": names, "said": _said(error)})
        else:
            self.send({"answer": encoded})


def _plain(items: list[Any]) -> bool:
    """Whether all of them are JSON's as they are: a list of a million numbers isn't walked in Python."""
    kinds = set(map(type, items))
    if not kinds <= {bool, int, float, str, type(None)}:
        return False
    whole = [item for item in items if type(item) is int] if int in kinds else [0]
    return min(whole) > -(2**63) and max(whole) < 2**63


def _said(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:
        return ""


def _exception(names: list[str], said: str) -> Exception:
    """The nearest of Python's own exceptions. One that ends a loop or the process doesn't cross: it could end the tests early."""
    for name in names:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration | StopAsyncIteration):
            try:
                return kind(said)
            except TypeError:  # a UnicodeError wants more
                continue
    return RuntimeError(f"{names[0] if names else 'nothing'}: {said}")


def _take_streams(*numbers: int) -> list[BinaryIO]:
    """The streams as files that only we know; nobody's print or input gets into them any more."""
    taken = [os.fdopen(os.dup(number), "rb" if number == 0 else "wb", BUFFER_BYTES) for number in numbers]
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(nothing, number)
    return taken


def _source(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        return file.read().decode("utf-8", "surrogatepass")


def serve_solution() -> None:
    """Run the code, tell its names, and answer for them."""
    reads, writes = _take_streams(0, 1)
    peer = Peer(reads, writes, QUESTIONS)
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(_source(SOLUTION), SOLUTION, "exec"), module.__dict__)
    except BaseException as error:
        peer.send({"failed": f"{type(error).__name__}: {_said(error)}"})
        return
    peer.send({"names": {name: peer.encode(value) for name, value in vars(module).items() if not name.startswith("__")}})
    peer.serve()


def _tell(verdict: BinaryIO, passed: bool, reason: str) -> Never:
    verdict.write(json.dumps({"passed": passed, "reason": reason[:500]}).encode())
    verdict.flush()
    os._exit(0)  # what the tests registered to run at exit has no say


def _names(told: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """The code's names for the tests. Python's own keep their meaning: with a `len` or `math` of the code's, the tests would say
    what it likes."""
    names: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, list) and value[0] == "module":
            if name in sys.stdlib_module_names:
                names[name] = importlib.import_module(name)
        elif not (hasattr(builtins, name) or name.startswith("__")):  # `__builtins__` would be all of Python's at once
            names[name] = peer.decode(value)
    return names


def _words(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_words, inner))


def _call_tests(space: dict[str, Any]) -> None:
    """Run what pytest or unittest would find. Raises at the first test that fails."""
    for name, value in list(space.items()):
        if isinstance(value, types.FunctionType) and name.startswith("test_") and not value.__code__.co_argcount:
            value()
        elif (
            isinstance(value, type) and value.__module__ == "__main__" and any(k.__name__ == "TestCase" for k in value.__mro__)
        ):
            import unittest

            result = unittest.defaultTestLoader.loadTestsFromTestCase(value).run(unittest.TestResult())
            if not result.wasSuccessful():
                test, trace = (result.failures + result.errors)[0]
                raise AssertionError(f"{test}: {trace.strip().splitlines()[-1]}")


def run_tests() -> None:
    """Run the tests against the other process's names, and tell the verdict."""
    reads, writes, verdict = _take_streams(0, 1, 2)
    peer = Peer(reads, writes, {})
    try:
        first = peer.receive()
        if "names" not in first:
            _tell(verdict, False, f"the code failed: {first.get('failed')}")
        names = _names(first["names"], peer)
        # a program of its own, as unittest.main expects
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv = [TESTS]
        space = module.__dict__
        space.update(names)
        tests = compile(_source(TESTS), TESTS, "exec")
        data = {name for name, value in names.items() if not isinstance(value, Remote | types.ModuleType)}
        try:
            exec(tests, space)
            _call_tests(space)
        except SystemExit as error:  # of the tests: nothing that the code does arrives here as one
            if error.code not in (None, 0, False):
                raise
        if not peer.n_asked and not data & _words(tests):
            _tell(verdict, False, "the tests use nothing of the code")
    except BaseException as error:
        _tell(verdict, False, f"{type(error).__name__}: {_said(error)}".removesuffix(": "))
    _tell(verdict, True, "")


if __name__ == "__main__":
    {"solution": serve_solution, "tests": run_tests}[sys.argv[1]]()
