"""Rows of the files that people have: JSON lines, a JSON array, CSV or parquet, each plain or compressed, or a folder of them.

What a file holds is seen from its first bytes: names lie (a `.json` of lines, a `.jsonl` that is one array), so a suffix only
decides where the bytes leave it open. Every kind is streamed: lines one at a time, an array through a window that holds one
element at least, parquet by batches. Memory therefore depends on the longest row, and that is bounded too.

A row that can't be read doesn't end the reading, so that whoever wants to can count it and go on."""

import codecs
import csv
import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from ochat.data.hub_rows import AbsentError, hub_rows, is_hub_id
from ochat.data.problem import RowProblem, shown
from ochat.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
COMPRESSED = (".gz", ".zst")
# No conversation is this long (some 8 million tokens); a file without line breaks is, and would fill the memory.
MAX_ROW_BYTES = 32 * 2**20
WINDOW = 2**20
BUFFER = 2**16  # where a compressed file is cut off, as much of it before the cut is lost too
ROWS_PER_BATCH = 1000
REST = "From here on the file isn't read."
_AND_REST = ", and the rest of its file isn't read"  # of a reason: so many rejected rows stand for more

_COLUMN = re.compile(r"[\w][\w .-]{0,63}")
_SPACE = re.compile(r"[ \t\r\n]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # \x1b opens a terminal's colours, which logs have


@dataclass(frozen=True)
class Unreadable:
    """Stands in a row's place where there is one that can't be read, or where the rest of a file can't."""

    problem: RowProblem
    text: str = ""
    """the line, as far as it's text, or its beginning"""


def read_rows(path: Path) -> Iterator[tuple[str, object]]:
    """Yield `(place, value)` for each row of a file or folder, or of a data set on the hub; raises DataError at the first one
    that can't be read. The place is `file:line`, and for an array or parquet it names the row."""
    for place, value in read_all(path):
        if isinstance(value, Unreadable):
            raise DataError(f"{place}: {value.problem}")
        yield place, value


def read_all(path: Path, only: Sequence[str] = ()) -> Iterator[tuple[str, object | Unreadable]]:
    """As `read_rows`, with an Unreadable for what can't be read; of a folder or a data set on the hub only the files of these names,
    if any are given. Raises DataError only where there is nothing at the path."""
    if is_on_hub(path):
        yield from hub_rows(str(path), only)
    else:
        for file in files_of(path, only):
            yield from _read_file(file)


def is_on_hub(path: Path) -> bool:
    """Whether the name can only be that of a data set on the hub."""
    return is_hub_id(path) and not _has_rows(path)


def files_of(path: Path, only: Sequence[str] = ()) -> list[Path]:
    """The file, or a folder's files of rows (of these names, if any are given) in the order of their paths; hidden ones are left out.
    Raises DataError where there are none."""
    if not path.is_dir():
        if not path.exists():
            raise AbsentError(f"{path} doesn't exist. Name a file, a folder, or a data set on the hub as OWNER/NAME.")
        return [path]
    files = [one for one in _below(path, {path.resolve()}) if _has_rows(one) and (one.is_file() or not one.exists())]
    if not files:
        raise DataError(f"{path}: no file of rows in this folder. Known: {', '.join(SUFFIXES)}, each also .gz or .zst.")
    named = [file for file in files if file.name in only]
    if only and not named:
        there = ", ".join(file.name for file in files[:10])
        raise DataError(
            f"{path} has no {' or '.join(only)}, which holds this data set's rows. Name the file to read; there: {there}."
        )
    return named or files


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files of a folder and of those in it, in the order of their paths, without hidden ones. Links are followed, but not in circles."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in seen:
            yield from _below(path, seen | {path.resolve()})


def _has_rows(path: Path) -> bool:
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name.endswith(SUFFIXES)


def _read_file(path: Path) -> Iterator[tuple[str, object | Unreadable]]:
    place = f"{path}:1"
    try:
        with _opened(path) as file:
            for place, value in _rows_of(file, path):
                yield place, value
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the machine's trouble, not the file's
            raise DataError(f"{path}: can't be read ({error.strerror}). Check the path and its permissions.") from error
        reason = shown(str(error) or type(error).__name__)[1:-1]
        message = f"the file is damaged or cut off after this place ({reason}). {REST} Get it again."
        yield place, Unreadable(RowProblem(f"the file is damaged or cut off{_AND_REST}", message))


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """The file's bytes, decompressed as its own first bytes say."""
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        magic = file.peek(4)[:4]  # type: ignore[attr-defined]  # opened with a buffer; no seeking back, it may be a pipe
        if magic[:2] == b"\x1f\x8b":
            file = stack.enter_context(gzip.open(file, "rb"))  # type: ignore[assignment]  # mode "rb" gives bytes
        elif magic == b"\x28\xb5\x2f\xfd":
            file = stack.enter_context(pyarrow.CompressedInputStream(file, "zstd"))
        yield stack.enter_context(io.BufferedReader(file, BUFFER))  # type: ignore[arg-type]  # reads like a raw file


def _rows_of(file: io.BufferedReader, path: Path) -> Iterator[tuple[str, object | Unreadable]]:
    head = file.peek(BUFFER)
    if head[:4] == b"PAR1":
        return _parquet(file, path)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _unreadable(path, "not UTF-8", "this is UTF-16. Save the file as UTF-8.")
    if head.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
        head = head[len(codecs.BOM_UTF8) :]
    text = head.lstrip()
    if not text:
        return _unreadable(path, "the file is empty", "the file is empty. Give it rows, or leave it out.")
    if text.startswith(b"[") and not _is_lines(text):
        return _json_values(file, path, listed=True)
    if text.partition(b"\n")[0].strip() == b"{":  # written for people: no line is an object
        return _json_values(file, path, listed=False)
    if not text.startswith((b"{", b"[")):
        if _CONTROL.search(head):
            return _unreadable(path, "not a file of rows", "this is no text. Give JSON lines, a JSON array, CSV or parquet.")
        header = head.split(b"\n", 1)[0].decode("utf-8", "replace")
        delimiter = max(",\t;", key=header.count)
        columns = header.strip().split(delimiter)
        if {".csv", ".tsv"} & set(path.suffixes) or (len(columns) > 1 and all(map(_COLUMN.fullmatch, columns))):
            return _csv(file, path, delimiter)
    return _json_lines(file, path)


def _is_lines(text: bytes) -> bool:
    """Whether the first line is a whole array, and not the only line: then each line is a row."""
    line, _, others = text.partition(b"\n")
    try:
        return bool(others.strip()) and isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def _unreadable(path: Path, reason: str, message: str) -> Iterator[tuple[str, Unreadable]]:
    yield f"{path}:1", Unreadable(RowProblem(reason, message))


def _lines(file: io.BufferedReader) -> Iterator[bytes | Unreadable]:
    while line := file.readline(MAX_ROW_BYTES + 1):
        if len(line) <= MAX_ROW_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            beginning, line = line[:1000], file.readline(WINDOW)
        message = f"the line is longer than {MAX_ROW_BYTES:,} bytes. Give one conversation a line, or one JSON array."
        yield Unreadable(RowProblem("the line is too long", message), beginning.decode("utf-8", "backslashreplace"))


def _json_lines(file: io.BufferedReader, path: Path) -> Iterator[tuple[str, object | Unreadable]]:
    decoder = _Decoder()
    for number, line in enumerate(_lines(file), start=1):
        place = f"{path}:{number}"
        if isinstance(line, Unreadable):
            yield place, line
            continue
        try:
            value = _json(line, decoder)
        except RowProblem as problem:
            yield place, Unreadable(problem, line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        else:
            yield place, value


class _Decoder:
    """Decodes JSON, and notices a field that an object has twice: Python would keep the last in silence."""

    def __init__(self) -> None:
        decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.decode, self.raw_decode = decoder.decode, decoder.raw_decode
        self._twice: list[str] = []

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self._twice += sorted({name for name in names if names.count(name) > 1})
        return found

    def check(self) -> None:
        """Raise RowProblem where something since the last check had a field twice."""
        if self._twice:
            name, self._twice = self._twice[0], []
            raise RowProblem("a field is given twice", f"an object has the field {shown(name)} twice. Keep one.")


def _json(line: bytes, decoder: _Decoder) -> object:
    if not line.strip():
        raise RowProblem("the line is empty", "the line is empty. Remove it; each line is one JSON object.")
    try:
        value = decoder.decode(line.decode("utf-8"))
        decoder.check()
        return value
    except ValueError as error:
        raise _json_problem(error) from error
    except RecursionError as error:
        raise _too_deep() from error


def _json_problem(error: ValueError) -> RowProblem:
    if isinstance(error, UnicodeDecodeError):
        found = shown(error.object[error.start : error.start + 1])
        return RowProblem("not UTF-8", f"not UTF-8 at byte {error.start + 1} ({found}). Save the file as UTF-8.")
    if isinstance(error, json.JSONDecodeError):
        return RowProblem(
            "not JSON", f"not JSON ({error.msg}, column {error.colno}). Give one JSON object a line, or one JSON array."
        )
    # Python's own limit on the digits of a number
    return RowProblem("a number is too long", "a number is too long. Give weights such as 1.0.")


def _too_deep() -> RowProblem:
    return RowProblem("nested too deep", "the JSON is nested too deep. Give flat conversations.")


def _json_values(file: io.BufferedReader, path: Path, *, listed: bool) -> Iterator[tuple[str, object | Unreadable]]:
    """The elements of an array, or objects one after the other that take several lines each, decoded one by one from a window over
    the text. Where one is broken, nothing tells where the next one begins: the rest is unreadable."""
    window = _Window(file)
    broken = f"the {'array' if listed else 'JSON'} is broken{_AND_REST}"
    if listed:
        window.skip("[")
    for row in range(1, 2**62):
        ends = window.skip("]") if listed else not window.next_character()
        if listed and not ends and row > 1 and not window.skip(","):
            message = f"expected a comma or the array's end. {REST} Mend the JSON."
            yield f"{path}:{window.line}", Unreadable(RowProblem(broken, message), window.beginning())
            return
        if ends:
            if window.next_character():
                message = f"there is more after the array's end. {REST} Give one array, or one JSON object a line."
                yield (
                    f"{path}:{window.line}",
                    Unreadable(RowProblem(f"more after the array{_AND_REST}", message), window.beginning()),
                )
            return
        window.next_character()
        place = f"{path}:{window.line} (row {row})"
        try:
            value, source = window.decode()
        except RowProblem as problem:
            yield place, Unreadable(RowProblem(broken, f"{problem} {REST}"), window.beginning())
            return
        if _has_bad_bytes(source):
            text = source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield place, Unreadable(RowProblem("not UTF-8", "not UTF-8. Save the file as UTF-8."), text)
            continue
        try:
            window.decoder.check()
        except RowProblem as problem:
            yield place, Unreadable(problem, source)
        else:
            yield place, value


def _has_bad_bytes(text: str) -> bool:
    """Whether the text holds bytes that were no UTF-8, as `surrogateescape` keeps them."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


class _Window:
    """A piece of a long text of JSON, from the place that is read next on."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._to_text = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.decoder = _Decoder()
        self._text, self._at, self._ended = "", 0, False
        self.line = 1

    def next_character(self) -> str:
        """The next character that isn't blank, or nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found  # it matches nothing at all, too
            self._go_to(found.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read_on()

    def skip(self, character: str) -> bool:
        """Go past the character, if it comes next."""
        found = self.next_character() == character
        self._go_to(self._at + found)
        return found

    def decode(self) -> tuple[object, str]:
        """The next value, and the text that it stood in; raises RowProblem where it's broken, cut off or too long."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # An error in mid-text is a real one; one at the window's end may be the window's.
                if self._ended or not (error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16):
                    line = self.line + self._text.count("\n", self._at, error.pos)
                    message = f"not JSON ({error.msg}, line {line}). Mend it, or give one JSON object a line."
                    raise RowProblem("not JSON", message) from error
            except RecursionError as error:
                raise _too_deep() from error
            except ValueError as error:
                raise _json_problem(error) from error
            else:
                if end < len(self._text) or self._ended:  # a number at the window's end may go on
                    source = self._text[self._at : end]
                    self._go_to(end)
                    return value, source
            if len(self._text) - self._at > MAX_ROW_BYTES:
                message = f"the row is longer than {MAX_ROW_BYTES:,} characters. Give one conversation an element."
                raise RowProblem("the row is too long", message)
            self._read_on()

    def beginning(self) -> str:
        """The first characters of what comes next."""
        return self._text[self._at : self._at + 1000]

    def _go_to(self, at: int) -> None:
        self.line += self._text.count("\n", self._at, at)
        self._at = at

    def _read_on(self) -> None:
        """Drop what was read, and at least double what wasn't, so that a long element isn't decoded often."""
        rest = self._text[self._at :]
        block = self._file.read(max(WINDOW, len(rest)))
        self._ended = not block
        self._text, self._at = rest + self._to_text.decode(block, final=self._ended), 0


def _csv(file: io.BufferedReader, path: Path, delimiter: str) -> Iterator[tuple[str, object | Unreadable]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    overlong: list[Unreadable] = []

    def texts() -> Iterator[str]:
        for line in _lines(file):
            if isinstance(line, Unreadable):
                overlong.append(line)
                return
            yield line.decode("utf-8", "surrogateescape")

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        first_line = reader.line_num + 1
        place = f"{path}:{first_line}"
        try:
            cells = next(reader)
        except StopIteration:
            if overlong:
                yield place, overlong[0]
            return
        except csv.Error as error:
            # A quote that was left open took the lines below it: where the next row begins, nobody knows.
            is_lost = not columns or reader.line_num > first_line
            message = f"not CSV ({error}). Quote each cell that holds a quote or a line break, and double the quotes in it."
            yield (
                place,
                Unreadable(
                    RowProblem(f"not CSV{_AND_REST}", f"{message} {REST}") if is_lost else RowProblem("not CSV", message)
                ),
            )
            if is_lost:
                return
            continue
        if any(map(_has_bad_bytes, cells)):
            yield place, Unreadable(RowProblem("not UTF-8", "not UTF-8. Save the file as UTF-8."), repr(cells))
            if not columns:  # nothing below it has a name
                return
        elif not columns:
            columns = cells
            twice = sorted({column for column in columns if columns.count(column) > 1 or not column.strip()})
            if twice:
                message = f"the header names {', '.join(map(shown, twice))} twice or not at all. Name each column once."
                yield place, Unreadable(RowProblem("the header is wrong", message), repr(cells))
                return
        elif len(cells) != len(columns):
            message = f"{len(cells)} cells under {len(columns)} columns. Quote the cells, or mend the line."
            yield place, Unreadable(RowProblem("too few or too many cells", message), repr(cells))
        else:
            yield place, dict(zip(columns, cells, strict=True))


def _parquet(file: io.BufferedReader, path: Path) -> Iterator[tuple[str, object | Unreadable]]:
    with tempfile.TemporaryFile() as copy:
        whole: BinaryIO = file
        if not isinstance(file.raw, io.BufferedReader) or not file.seekable():  # it is read from its end
            shutil.copyfileobj(file, copy)
            whole = copy
        table = pyarrow.parquet.ParquetFile(whole)
        names = table.schema_arrow.names
        if len(set(names)) < len(names):
            yield from _unreadable(path, "the header is wrong", "two columns have one name. Name each column once.")
            return
        row = 1
        for batch in table.iter_batches(ROWS_PER_BATCH):
            try:
                values = batch.to_pylist()
            except (ValueError, OverflowError) as error:  # text that is no UTF-8, a time beyond Python's years
                message = f"a row from here on can't be read ({shown(str(error))}). {REST}"
                yield f"{path}:row {row}", Unreadable(RowProblem(f"a row can't be read{_AND_REST}", message))
                return
            for value in values:
                yield f"{path}:row {row}", value
                row += 1
