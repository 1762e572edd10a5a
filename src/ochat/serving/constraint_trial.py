"""Try a schema, regex or grammar in a process that can be stopped, before vLLM gets it.

vLLM prepares it in the process that answers everybody. llguidance bounds most of its work and not all: 2 KB of a schema whose references
double take it minutes and all memory, as do 70 characters of a grammar that holds a schema of a hundred million items (1.7). So
it's first prepared here, as the engine will, within bounds that the system holds. What it is refused for is then the work that it
makes, whatever it looks like.

Run as a program, this module is that process: it reads a tokenizer in a line of JSON, then a line for each trial, and answers each with
one."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CPU_SECONDS = 0.25  # forty objects in 9 KB take a fifteenth of it
MEMORY_BYTES = 512 * 1024 * 1024
WAIT_SECONDS = 30  # for those seconds of a core, on a busy machine
# For llguidance's LLParserLimits, here and in the engine, where later tokens of a reply may cost more than the first: 35 characters of an
# ambiguous grammar took three seconds a token, and a regex 250 MB for each reply. Its own bounds are 2,000, 50,000 and 250,000.
LIMITS: dict[str, Any] = {"max_items_in_row": 500, "step_max_items": 5_000, "max_lexer_states": 25_000}
MAX_KNOWN = 1_000
# How the process ends where a bound is reached: by the timer; by want of memory or of stack.
_BY_BOUNDS = (-signal.SIGPROF, -signal.SIGABRT, -signal.SIGSEGV)
_BEGUN = b"begun\n"


class TakesTooMuch(Exception):
    """llguidance can't prepare this within the bounds."""


class Trials:
    """Trials in a process that is begun when first needed, one at a time. What came of the last ones is remembered.

    `tokenizer` gives the JSON of a tokenizer (the library `tokenizers`'), which grammars may name tokens of; "" for one of bytes."""

    def __init__(self, tokenizer: Callable[[], str] = str) -> None:
        self._tokenizer = tokenizer
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._known: dict[bytes, str | None] = {}
        self.n_waiting = 0

    async def problem(self, grammar: str) -> str:
        """What llguidance says is wrong with it; "" for nothing. `grammar` is as llguidance takes it: a JSON object or Lark's form.

        Raises TakesTooMuch, and RuntimeError where it can't be tried."""
        name = hashlib.sha256(grammar.encode("utf-8", "surrogatepass")).digest()
        if name not in self._known:
            self.n_waiting += 1
            try:
                async with self._lock:
                    if name not in self._known:  # another request's trial may have told meanwhile
                        self._known[name] = await self._try(grammar)
            finally:
                self.n_waiting -= 1
        found = self._known[name]
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        if found is None:
            raise TakesTooMuch
        return found

    async def _try(self, grammar: str) -> str | None:
        for _ in range(2):  # the process may have been killed for another's want of memory
            process = self._process or await self._begin()
            answer = await self._ask(process, grammar)
            if answer:
                return str(json.loads(answer))
            if process.returncode in _BY_BOUNDS:
                return None
        raise RuntimeError("the process that tries constraints has ended")

    async def _ask(self, process: Process, grammar: str) -> bytes:
        """Its answer, or nothing where it has ended."""
        answer = b""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                with suppress(ConnectionError):
                    await _write(process, json.dumps(grammar))
                    answer = await _read(process)
                if not answer:
                    await process.wait()
        except TimeoutError as error:
            raise RuntimeError(f"a constraint wasn't tried within {WAIT_SECONDS} s") from error
        finally:  # also where the request's client has left: its answer would be taken for the next one's
            if not answer:
                await self.end()
        return answer

    async def _begin(self) -> Process:
        # -P: else a file in the working folder could stand for a library's. Ctrl-C is the server's to handle.
        command = (sys.executable, "-P", "-m", __name__)
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        begun = b""
        try:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await _write(process, json.dumps(self._tokenizer()))
                    begun = await _read(process)
        finally:
            if begun != _BEGUN:
                await self.end()
        if begun != _BEGUN:
            raise RuntimeError("the process that tries constraints couldn't begin; what it wrote says why")
        return process

    async def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _write(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    await process.stdin.drain()


async def _read(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


def prepare_each() -> None:
    """Prepare what each line of the input holds, and answer with a line: what is wrong with it. Ends with the input, or where one takes
    too much."""
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    tokenizer = LLTokenizer(json.loads(sys.stdin.buffer.readline()) or "byte")
    limits = LLParserLimits(**LIMITS)
    _bound_memory()
    # Where memory ends the library says so on stderr, a trace each time, with which clients could fill the server's log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    _answer(_BEGUN)
    for line in sys.stdin.buffer:
        # Nobody handles the timer's signal, which ends the process in the midst of a call.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        grammar = json.loads(line)
        problem = LLMatcher.validate_grammar(grammar, None)  # as vLLM does, with the same words
        if not problem:
            matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.compute_bitmask()
            del matcher
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(json.dumps(problem).encode() + b"\n")


def _answer(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _bound_memory() -> None:
    """From now on, let this process have so much more, and leave no core file where it ends for want of it."""
    if sys.platform != "linux":  # elsewhere the time alone bounds it
        return
    import resource
    from pathlib import Path

    bound = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY_BYTES
    most = resource.getrlimit(resource.RLIMIT_AS)[1]  # of who runs the server, if they set one
    bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    prepare_each()
