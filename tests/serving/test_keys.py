import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ochat.cli import main
from ochat.errors import OchatError
from ochat.serving.keys import Key, KeyStore, hashed, named_keys, read_keys, write_keys


def create(file: Path, name: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    main(["keys", "create", name, "--file", str(file), *options])
    return capsys.readouterr().out.strip()


def test_a_key_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    first = create(file, "ada", capsys, "--requests-per-minute", "5", "--conditions", "Code", "GPT3")
    second = create(file, "bob", capsys, "--metrics")
    assert [key.metrics for key in read_keys(file)] == [False, True]
    assert first != second
    assert len(first) > 50
    store = KeyStore(path=file)
    assert store.find(first) == read_keys(file)[0]
    assert store.find(second + "x") is None
    main(["keys", "list", "--file", str(file)])
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].startswith("ada  created: ")
    assert listed[0].endswith("requests/min: 5  conditions: Code, GPT3")
    assert listed[1].endswith("metrics: yes")
    main(["keys", "revoke", "ada", "--file", str(file)])
    assert [key.name for key in read_keys(file)] == ["bob"]


def test_no_key_itself_is_kept_and_only_the_owner_reads_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    key = create(file, "ada", capsys)
    assert key not in file.read_text()
    assert hashed(key) in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["create", "ada"], "has a key named ada"),
        (["create", "a b"], "A name has letters"),
        (["create", "key-1"], "is one that keys of the environment and of --api-keys get"),
        (["create", "bob", "--concurrent", "0"], "a limit is 1 or more"),
        (["revoke", "bob"], "has no key named bob. It has: ada."),
    ],
)
def test_what_cannot_be_done_is_told(words: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    create(file, "ada", capsys)
    with pytest.raises(SystemExit, match=found):
        main(["keys", *words, "--file", str(file)])


def test_a_file_that_is_absent_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="can't be read"):
        main(["keys", "revoke", "ada", "--file", str(tmp_path / "keys" / "keys.json")])
    assert list(tmp_path.iterdir()) == []


# Makes ten keys, and revokes every second one, as soon as it's told to begin.
MAKES_KEYS = """
import sys
from pathlib import Path
from ochat.serving import keys_create, keys_revoke
file, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    keys_create.main(keys_create.Options(f"{name}{number}", file))
    if number % 2:
        keys_revoke.main(keys_revoke.Options(f"{name}{number}", file))
"""


def test_keys_that_are_made_and_revoked_at_once_are_none_of_them_lost(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    commands = [[sys.executable, "-c", MAKES_KEYS, file, name] for name in "abc"]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate()
        assert maker.returncode == 0
    assert {key.name for key in read_keys(file)} == {f"{name}{number}" for name in "abc" for number in range(0, 10, 2)}


ROW: dict[str, Any] = {"name": "a", "sha256": hashed("a")}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"name": "a"}], "sha256"),
        ([{**ROW, "request_per_minute": 5}], "request_per_minute"),
        ([{**ROW, "concurrent": 0}], "concurrent"),
        ([ROW, {**ROW, "sha256": hashed("b")}], "two keys named a"),
        ([ROW, {**ROW, "name": "b"}], "a and b are the same key"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_its_field(rows: list[Any], found: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": rows}))
    with pytest.raises(OchatError, match=found):
        read_keys(file)


def test_a_changed_file_is_read_again_and_a_bad_one_leaves_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [Key(**ROW)])
    store = KeyStore(path=file)
    old = store.find("a")
    assert old is not None
    write_keys(file, [Key(name="b", sha256=hashed("b"))])
    assert store.find("b") is None
    store.reload()
    assert store.find("b") is not None
    assert not store.is_valid(old)
    for broken in ("{", None):
        file.write_text(broken) if broken else os.remove(file)
        store.reload()
        store.reload()
        assert store.find("b") is not None
        assert capsys.readouterr().err.count("The keys stay as they were") == 1


def test_a_bad_file_leaves_the_keys_though_nobody_can_be_told(tmp_path: Path, break_stderr: Callable[[], None]) -> None:
    break_stderr()
    file = tmp_path / "keys.json"
    write_keys(file, [Key(**ROW)])
    store = KeyStore(path=file)
    file.write_text("{")
    store.reload()
    assert store.find("a") is not None


def test_a_server_with_an_empty_file_of_keys_is_closed_not_open(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [])
    assert not KeyStore(path=file).is_empty
    assert KeyStore().is_empty


@pytest.mark.parametrize(
    ("given", "row", "found"),
    [
        (["x"], {"name": "key-1", "sha256": hashed("b")}, "has a key named key-1, as one of the environment"),
        (["a"], ROW, "a is a key of the environment, --api-key or --api-keys too"),
        (["x", "x"], ROW, "key-1 and key-2 of the environment, --api-key and --api-keys are the same key"),
    ],
)
def test_a_key_of_the_file_shares_its_name_and_its_limits_with_none_that_is_given_elsewhere(
    given: list[str], row: dict[str, Any], found: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [Key(**row)])
    with pytest.raises(OchatError, match=found):
        KeyStore(named_keys(given), file)


LIMITED: dict[str, Any] = {"name": "c", "sha256": hashed("c"), "concurrent": 1}


@pytest.mark.parametrize(
    "added", [LIMITED, {"name": "key-1", "sha256": hashed("c")}, {"name": "b", "sha256": hashed("c")}, {**ROW, "name": "b2"}]
)
def test_a_changed_file_that_cannot_be_used_revokes_keys_all_the_same(
    added: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    rows = [Key(**ROW), Key(name="b", sha256=hashed("b")), Key(name="gone", sha256=hashed("gone"))]
    write_keys(file, rows)
    store = KeyStore(named_keys(["x"]), file, allows_limits=False)
    write_keys(file, [*rows[:2], Key(**added)])
    store.reload()
    assert [store.find(text) == row for text, row in zip(("a", "b"), rows[:2], strict=True)] == [True, True]
    assert store.find("gone") is None
    assert store.find("c") is None
    assert store.find("x") is not None
    said = capsys.readouterr().err
    assert "Revoked all the same: gone. The other keys stay as they were." in said
    write_keys(file, [Key(**LIMITED)])
    store.reload()
    assert store.find("a") is None
    write_keys(file, rows[:1])
    store.reload()
    assert store.find("a") == rows[0]
