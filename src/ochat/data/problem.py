"""What is wrong with one row of a user's, said twice: so that it can be counted, and so that it can be mended."""

import reprlib

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80


class RowProblem(Exception):
    """A row that can't be used. `reason` is the same for all rows with this problem; the message names the field, what was
    found and what to do, and its reader puts `file:line` before it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def counted(n: int, one: str, many: str = "", *, width: int = 0) -> str:
    """The number, and what is counted as one or as many (left out: with an s): `1 row`, `2,000 rows`."""
    return f"{n:>{width},} {one if n == 1 else many or f'{one}s'}"


def shown(value: object) -> str:
    """A user's value for a message: short, on one line, and without characters that a terminal acts on."""
    return _shorten.repr(value)
