"""Reading: every kind of file gives the same rows, found by its content; what can't be read is named by place."""

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
import pytest

from ochat.data import read
from ochat.data.read import Unreadable, read_all, read_rows
from ochat.errors import DataError

ROWS = [{"prompt": "Grüße,\n“you”", "completion": "Hi 👋"}, {"prompt": "1 + 1", "completion": "2"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def as_csv(delimiter: str = ",") -> bytes:
    lines: list[str] = []

    class Sink:
        write = staticmethod(lines.append)

    writer = csv.DictWriter(Sink(), ["prompt", "completion"], delimiter=delimiter)  # type: ignore[arg-type]  # has a write
    writer.writeheader()
    writer.writerows(ROWS)
    return "".join(lines).encode()


KINDS = {
    "json lines": LINES,
    "json lines without a last line break": LINES.rstrip(),
    "json lines of Windows": LINES.replace(b"\n", b"\r\n"),
    "json lines after a byte order mark": b"\xef\xbb\xbf" + LINES,
    "array on one line": json.dumps(ROWS).encode(),
    "array on many lines": json.dumps(ROWS, indent=2, ensure_ascii=False).encode() + b"\n",
    "array after a byte order mark": b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode(),
    "csv": as_csv(),
    "csv with tabs": as_csv("\t"),
    "csv with semicolons, after a byte order mark": b"\xef\xbb\xbf" + as_csv(";"),
    "parquet": parquet(ROWS),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_its_rows_whatever_its_name(
    tmp_path: Path, kind: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(compress(KINDS[kind]))
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_compressed_parts_that_were_joined_are_all_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "rows"
    path.write_bytes(compress(LINES) + compress(LINES))
    assert [row for _, row in read_rows(path)] == ROWS * 2


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (LINES, ["1", "2"]),
        (b'[{"a": 1},\n{"a":\n2}, {"a": 3}]', ["1 (row 1)", "2 (row 2)", "3 (row 3)"]),
        (b'a,b\n1,"2\n3"\n4,5\n', ["2", "4"]),
        (parquet(ROWS), ["row 1", "row 2"]),
        (b"[1]\n[2]\n", ["1", "2"]),
        (b"[]", []),
    ],
)
def test_a_place_names_the_line_or_row(tmp_path: Path, content: bytes, places: list[str]) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    assert [place for place, _ in read_rows(path)] == [f"{path}:{place}" for place in places]


def test_an_array_longer_than_the_window_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": 'é\\"{[,]}' * length, "n": length, "x": [1.5, None, True]} for length in (*range(60), 5000)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False) + " \n ", encoding="utf-8")
    for window in (1, 2, 7, 64, 1000):
        monkeypatch.setattr(read, "WINDOW", window)
        assert [row for _, row in read_rows(path)] == rows
    path.write_text(json.dumps([12345, -1.5e3, True, "x"]), encoding="utf-8")
    monkeypatch.setattr(read, "WINDOW", 1)
    assert [row for _, row in read_rows(path)] == [12345, -1.5e3, True, "x"]


# content, the place and words of the problem, and how many rows are read in spite of it
BAD = [
    (b"", ":1", "the file is empty", 0),
    (b" \n\n", ":1", "the file is empty", 0),
    (b"\xef\xbb\xbf", ":1", "the file is empty", 0),
    (LINES + b"\n" + LINES, ":3", "the line is empty", 4),
    (LINES + b'{"prompt": \n' + LINES, ":3", "not JSON", 4),
    (LINES + '{"prompt": "é"}\n'.encode("latin-1") + LINES, ":3", "not UTF-8 at byte 13 (b'\\xe9')", 4),
    (LINES + b'{"prompt": "\x00"}\n' + LINES, ":3", "not JSON", 4),
    (LINES + b"[" * 100_000 + b"\n" + LINES, ":3", "nested too deep", 4),
    (LINES + b"1" * 5000 + b"\n" + LINES, ":3", "a number is too long", 4),
    (LINES.decode().encode("utf-16"), ":1", "this is UTF-16", 0),
    (b"\x7fELF\x02\x01\x01\x00\x00\xff\x93", ":1", "this is no text", 0),
    (b"A text, for people.\n", ":1", "not JSON", 0),
    (b'[{"a": 1}, {"a": 2}, {"a"', ":1 (row 3)", "not JSON (Expecting ':' delimiter", 2),
    (b'[{"a": 1},\n{"a": 2\n"b": 3}, {"a": 4}]', ":2 (row 2)", "not JSON (Expecting ',' delimiter, line 3)", 1),
    (b'[{"a": 1},', ":1 (row 2)", "not JSON", 1),
    (b'[{"a": 1},]', ":1 (row 2)", "not JSON", 1),
    (b'[{"a": 1} {"a": 2}]', ":1", "expected a comma", 1),
    (b'[{"a": 1}] {"a": 2}', ":1", "more after the array's end", 1),
    (b'[{"a": 1}, {"a": "\xe9"}, {"a": 3}]', ":1 (row 2)", "not UTF-8", 2),
    (b'[{"a": 1}, ' + b"[" * 100_000, ":1 (row 2)", "nested too deep", 1),
    (b'{\n "a": 1\n}\n{\n "a": \n}\n{}', ":4 (row 2)", "not JSON (Expecting value, line 6)", 1),
    (b"a,b\n1,2\n3\n4,5\n", ":3", "1 cells under 2 columns", 2),
    (b"a,b\n1,\xe9\n4,5\n", ":2", "not UTF-8", 1),
    (b'a,b\n1,2\n3,"4"5\n6,7\n', ":3", "not CSV", 2),
    (b'a,b\n1,2\n3,"4\n6,7\n', ":3", "not CSV (unexpected end of data)", 1),
    (b'a,b\n1,2\n3,"4\n6,7\n"8"9\n10,11\n', ":3", "From here on the file isn't read", 1),
    (b"\xe9,b\n1,2\n3,4\n", ":1", "not UTF-8", 0),
    (LINES + b'{"prompt": {"a": 1, "a": 2}}\n' + LINES, ":3", "has the field 'a' twice", 4),
    (b'[{"a": 1}, {"b": 2, "b": 3}, {"a": 4}]', ":1 (row 2)", "has the field 'b' twice", 2),
    (b"a,a\n1,2\n", ":1", "the header names 'a' twice", 0),
    (parquet(ROWS)[:-30], ":1", "damaged or cut off", 0),
    (gzip.compress(LINES)[:-9], ":1", "damaged or cut off", 0),
    (gzip.compress(LINES)[:12], ":1", "damaged or cut off", 0),
    (zstd(LINES)[:20], ":1", "damaged or cut off", 0),
    (zstd(LINES) + b"more", ":1", "damaged or cut off", 0),
]


@pytest.mark.parametrize(("content", "place", "problem", "n_rows"), BAD, ids=[f"{case[2]}{case[1]}" for case in BAD])
def test_what_cannot_be_read_is_named_and_the_rest_is_read(
    tmp_path: Path, content: bytes, place: str, problem: str, n_rows: int
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(read_rows(path))
    message = str(raised.value)
    assert message.startswith(f"{path}{place}: ")
    assert problem in message
    assert "\n" not in message
    assert sum(not isinstance(row, Unreadable) for _, row in read_all(path)) == n_rows


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_of_a_file_that_is_cut_off_the_rows_before_are_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    numbers = Random(0)
    lines = b"".join(b'{"n": "%x"}\n' % numbers.getrandbits(4000) for _ in range(300))
    path = tmp_path / "rows"
    path.write_bytes(compress(lines)[:-5])
    *rows, (place, bad) = read_all(path)
    assert 220 < len(rows) <= 300
    assert isinstance(bad, Unreadable)
    assert place == rows[-1][0] == f"{path}:{len(rows)}"
    assert "after this place" in str(bad.problem)


def test_a_line_without_end_is_refused_without_holding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_ROW_BYTES", 2**20)
    path = tmp_path / "rows"
    for content, n_rows in (
        (LINES + b'{"a": "' + b"x" * 30_000_000 + b'"}\n' + LINES, 4),
        (b'["' + b"x" * 30_000_000 + b'"]', 0),
    ):
        path.write_bytes(content)
        tracemalloc.start()
        found = [row for _, row in read_all(path)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 12_000_000
        (bad,) = (row for row in found if isinstance(row, Unreadable))
        assert "longer than 1,048,576" in str(bad.problem)
        assert len(bad.text) <= 1000
        assert len(found) == n_rows + 1


def test_a_folders_files_are_read_in_order_without_hidden_and_other_ones(tmp_path: Path) -> None:
    for name in ("b/2.jsonl.gz", "b/1.json", "a.parquet", ".cache/x.jsonl", ".rows.jsonl.part", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'{"name": "%s"}\n' % name.encode())
    assert [row for _, row in read_rows(tmp_path)] == [{"name": "a.parquet"}, {"name": "b/1.json"}, {"name": "b/2.jsonl.gz"}]


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of rows in this folder\. Known: \.jsonl"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize("name", ["absent.jsonl", "{here}/absent.jsonl", "{here}/a/b", "no-folder/rows.jsonl"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    path = Path(name.format(here=tmp_path))
    with pytest.raises(DataError, match=f"{path} doesn't exist"):
        list(read_rows(path))


def test_a_data_set_that_the_hub_cannot_give_ends_in_what_to_do() -> None:
    with pytest.raises(
        DataError, match=r"nobody/nothing: no such file here.*or name a local copy.*: hf download nobody/nothing"
    ) as raised:
        list(read_rows(Path("nobody/nothing")))
    assert "\n" not in str(raised.value)


def test_objects_of_several_lines_each_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for rows in (ROWS[:1], ROWS):
        path.write_text("\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in rows), encoding="utf-8")
        assert [row for _, row in read_rows(path)] == rows


def test_what_stands_behind_links_of_a_folder_is_read_once_or_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jsonl").write_text('{"a": 1}\n')
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "part").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "z.jsonl").symlink_to(tmp_path / "elsewhere" / "a.jsonl")
    assert [place for place, _ in read_rows(folder)] == [f"{folder}/part/a.jsonl:1", f"{folder}/z.jsonl:1"]
    (folder / "zz.jsonl").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"zz\.jsonl: can't be read \(No such file"):
        list(read_rows(folder))
