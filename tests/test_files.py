"""Nothing that is there is lost: not by a failure between two steps, not by another process, not by a wrong path."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ochat.errors import OchatError
from ochat.files import hold, new_file, new_folder, refuse_existing, told_if_full, write_text


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() if path.is_file() else "folder" for path in folder.iterdir()}


def test_a_failure_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_folder(target) as part:
        (part / "new").write_text("new")
        raise KeyboardInterrupt
    assert files(target) == {"old": "old"}
    assert files(tmp_path) == {"data": "folder"}


def test_an_interrupt_between_the_renames_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if path.name.endswith(".part"):
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(target):
        pass
    assert files(target) == {"old": "old"}


def test_what_a_killed_process_left_is_cleared_or_brought_back(tmp_path: Path) -> None:
    (tmp_path / ".data.old").mkdir()
    (tmp_path / ".data.old" / "old").write_text("old")
    (tmp_path / ".data.part").mkdir()
    (tmp_path / ".data.part" / "half").write_text("ha")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "data") as part:
        assert files(part) == {}
        raise ZeroDivisionError
    assert files(tmp_path / "data") == {"old": "old"}
    with new_folder(tmp_path / "data") as part:
        (part / "new").write_text("new")
    assert files(tmp_path / "data") == {"new": "new"}
    assert files(tmp_path) == {"data": "folder"}


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    other = "import sys; from pathlib import Path; from ochat.files import new_folder\nwith new_folder(Path(sys.argv[1])): pass"
    with new_folder(tmp_path / "data") as part:
        (part / "mine").write_text("mine")
        done = subprocess.run([sys.executable, "-c", other, str(tmp_path / "data")], stderr=subprocess.PIPE, text=True)
    assert "another process is writing there" in done.stderr
    assert files(tmp_path / "data") == {"mine": "mine"}


def test_a_held_folder_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(OchatError, match="another process"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), new_file(path) as part:
        part.write_text("ne")
        raise ZeroDivisionError
    assert files(tmp_path) == {"rows": "old"}


@pytest.mark.parametrize("name", ["/dev/full", "."])
def test_a_device_or_folder_is_never_replaced_by_a_file(name: str) -> None:
    with pytest.raises(OchatError, match="folder or device"), new_file(Path(name)):
        pass
    assert not Path(name).is_file()


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    with new_folder(tmp_path / "link") as part:
        (part / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert files(tmp_path / "real") == {"new": "new"}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    refuse_existing(tmp_path)
    (tmp_path / "thesis").write_text("years")
    with pytest.raises(OchatError, match="exists"):
        refuse_existing(tmp_path)


def test_two_processes_cannot_write_one_file(tmp_path: Path) -> None:
    other = "import sys; from pathlib import Path; from ochat.files import write_text\nwrite_text(Path(sys.argv[1]), 'yours')"
    with new_file(tmp_path / "rows") as part:
        part.write_text("mi")
        done = subprocess.run([sys.executable, "-c", other, str(tmp_path / "rows")], stderr=subprocess.PIPE, text=True)
        with part.open("a") as file:
            file.write("ne")
    assert "another process is writing there" in done.stderr
    assert files(tmp_path) == {"rows": "mine"}


def test_a_file_behind_a_link_is_the_one_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "rows")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "rows").read_text() == "new"


def test_a_file_without_a_name_is_refused() -> None:
    with pytest.raises(OchatError, match="Name a file"), new_file(Path("")):
        pass


def test_a_full_disk_is_told_with_the_file_it_was_for(tmp_path: Path) -> None:
    message = r"rows can't be written: its disk is full\. Make room, or choose another output\."
    with pytest.raises(OchatError, match=message), told_if_full(tmp_path / "rows"), Path("/dev/full").open("w") as file:
        file.write("x")


def test_processes_that_share_a_folder_must_write_the_same_there(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with new_folder(target, resume="one", shared=True) as part:
        (part / "half").write_text("one's")
        with new_folder(target, resume="one", shared=True):
            assert (part / "half").is_file()
        with pytest.raises(OchatError, match="another process"), new_folder(target, resume="other", shared=True):
            pass
        assert (part / "half").is_file()
    with new_folder(target, resume="other", shared=True) as part:
        assert not (part / "half").exists()


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    write_text(tmp_path / "rows", "new")
    assert files(tmp_path) == {"rows": "new"}
