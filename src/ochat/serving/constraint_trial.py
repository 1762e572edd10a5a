"""Try a schema, regex or grammar in a process that can be stopped, before vLLM gets it.

vLLM prepares it in the process that answers everybody. llguidance bounds most of its work and not all: 2 KB of a schema whose references
double take it minutes and all memory, as do 70 characters of a grammar that holds a schema of a hundred million items (1.7). So
it's first prepared here, as the engine will, within bounds that the system holds. What it is refused for is then the work that it
makes, whatever it looks like.

Run as a program, this module is that process: it reads a line of JSON for each trial, and answers with one."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

CPU_SECONDS = 0.25  # a schema of 17 KB with sixty objects takes a tenth of it, on a slow core
MEMORY_BYTES = 512 * 1024 * 1024
WAIT_SECONDS = 30  # for those seconds of a core, on a busy machine
MAX_KNOWN = 1_000
_BEGUN, _DONE = b"begun\n", b"done\n"


class Trials:
    """Trials in a process that is begun when first needed, one at a time. What has passed isn't tried again."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._passed: dict[bytes, None] = {}

    async def passes(self, grammar: str) -> bool:
        """Whether llguidance prepares this within the bounds, be it valid or not. `grammar` is as llguidance takes it: a JSON object
        or Lark's form. Raises RuntimeError where the process can't be begun."""
        name = hashlib.sha256(grammar.encode("utf-8", "surrogatepass")).digest()
        if name in self._passed:
            return True
        async with self._lock:
            passes = await self._try(grammar)
        if passes:
            self._passed[name] = None
            if len(self._passed) > MAX_KNOWN:
                del self._passed[next(iter(self._passed))]
        return passes

    async def _try(self, grammar: str) -> bool:
        process = self._process
        if process is None or process.returncode is not None:  # it may have been killed for another's want of memory
            process = await self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        is_done = False
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                process.stdin.write(json.dumps(grammar).encode() + b"\n")
                is_done = await process.stdout.readline() == _DONE
        except (TimeoutError, ConnectionError):
            pass
        finally:  # also where the request's client has left: its answer would be taken for the next one's
            if not is_done:
                await self.end()
        return is_done

    async def _begin(self) -> Process:
        self._process = process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)
        assert process.stdout is not None
        begun = b""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    begun = await process.stdout.readline()
        finally:
            if begun != _BEGUN:
                await self.end()
        if begun != _BEGUN:
            raise RuntimeError("the process that tries constraints couldn't begin; what it wrote says why")
        return process

    async def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def prepare_each() -> None:
    """Prepare what each line of the input holds, and answer with a line. Ends with the input, or where a trial takes too much."""
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    _bound_memory()
    # Where memory ends the library says so on stderr, a trace each time, with which clients could fill the server's log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    print(_BEGUN.decode(), end="", flush=True)
    for line in sys.stdin.buffer:
        # Nobody handles the timer's signal, which ends the process in the midst of a call.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        matcher = LLMatcher(tokenizer, json.loads(line), log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        del matcher
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(_DONE.decode(), end="", flush=True)


def _bound_memory() -> None:
    """From now on, let this process have so much more, and leave no core file where it ends for want of it."""
    if sys.platform != "linux":  # elsewhere the time alone bounds it
        return
    import resource
    from pathlib import Path

    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY_BYTES, has + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    prepare_each()
