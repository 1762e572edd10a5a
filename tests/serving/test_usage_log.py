import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.serving.usage_log import RequestLog, UsageLog


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = UsageLog(tmp_path / "usage.jsonl")
    for number in range(3):
        log.write({"id": number, "user": "\udc80é\u2028\x85\n"})  # lines' ends to some readers
        rows = [json.loads(line) for line in (tmp_path / "usage.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == list(range(number + 1))


def test_a_file_that_was_moved_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    log = UsageLog(path)
    log.write({"id": 1})
    log.reopen_if_moved()
    path.rename(tmp_path / "old")
    log.write({"id": 2})
    log.reopen_if_moved()
    log.write({"id": 3})
    assert ((tmp_path / "old").read_text(), path.read_text()) == ('{"id": 1}\n{"id": 2}\n', '{"id": 3}\n')


def test_where_no_new_file_can_be_begun_it_is_told_once_and_the_old_one_is_kept_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    log = UsageLog(tmp_path / "logs" / "usage.jsonl")
    (tmp_path / "logs").rename(tmp_path / "away")
    for number in range(2):
        log.reopen_if_moved()
        log.write({"id": number})
    assert (tmp_path / "away" / "usage.jsonl").read_text().count("\n") == 2
    assert capsys.readouterr().err.count("can't be written") == 1
    (tmp_path / "logs").mkdir()
    log.reopen_if_moved()
    log.write({"id": 2})
    assert (tmp_path / "logs" / "usage.jsonl").read_text() == '{"id": 2}\n'


def test_a_full_disk_is_told_once_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = UsageLog(Path("/dev/full"))
    log.write({"id": 1})
    log.write({"id": 2})
    assert capsys.readouterr().err.count("can't be written") == 1


def test_a_full_disk_stops_nothing_though_nobody_can_be_told(tmp_path: Path, break_stderr: Callable[[], None]) -> None:
    break_stderr()
    usage, requests = UsageLog(Path("/dev/full")), RequestLog(Path("/dev/full"), 1, 1)
    for number in range(2):
        usage.write({"id": number})
        requests.write({"id": number})
    requests.close()
    (tmp_path / "logs").mkdir()
    usage = UsageLog(tmp_path / "logs" / "usage.jsonl")
    (tmp_path / "logs").rename(tmp_path / "away")
    usage.reopen_if_moved()


def test_a_full_disk_is_told_once_without_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    log = RequestLog(Path("/dev/full"), 1, 1)
    for number in range(2):
        log.write({"id": number, "request": "a secret"})
    log.close()
    told = capsys.readouterr().err
    assert told.splitlines() == [
        "ochat: /dev/full can't be written ([Errno 28] No space left on device); prompts and replies aren't recorded."
    ]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="--usage-log"):
        UsageLog(tmp_path)
    with pytest.raises(OchatError, match="--request-log"):
        RequestLog(tmp_path, 1, 1)


def test_the_request_log_is_its_owners_and_is_rotated(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", 0.0001, 1)
    for number in range(5):
        log.write({"id": number, "request": "x" * 60})
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert json.loads((tmp_path / "log").read_text())["id"] == 4
    assert (tmp_path / "log").stat().st_mode & 0o77 == 0
