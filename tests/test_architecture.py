"""The rules that keep the code base as it is: import direction, names, dependencies with reasons, nothing of one machine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ochat"
LOCKS = [ROOT / "requirements" / name for name in ("quickstart.txt", "dev.txt", "torch.txt")]


def ours() -> list[Path]:
    """The text files of the checkout that git holds or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.splitlines() or [str(path.relative_to(ROOT)) for path in SOURCE.rglob("*.py")]  # a source archive
    texts = [path for name in names if (path := ROOT / name).is_file()]
    return [path for path in texts if b"\0" not in path.read_bytes()[:1024]]


def test_imports_keep_their_direction() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_named_for_nothing() -> None:
    assert [path for path in SOURCE.rglob("*.py") if path.stem in ("utils", "common", "helpers")] == []


def test_packages_are_only_folders() -> None:
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_bytes()] == []
    assert {path.parent for path in SOURCE.rglob("*.py")} == {path.parent for path in SOURCE.rglob("__init__.py")}


def test_a_module_opens_with_why_it_exists() -> None:
    modules = [path for path in SOURCE.rglob("*.py") if path.name != "__init__.py"]
    assert [path for path in modules if not path.read_text(encoding="utf-8").startswith('"""')] == []


def test_each_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    dependencies = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    lines = text.splitlines()
    for dependency in dependencies:
        numbers = [number for number, line in enumerate(lines) if f'"{dependency}"' in line]
        assert numbers
        for number in numbers:  # in each extra that has it
            assert "# " in lines[number] or lines[number - 1].startswith("# "), f"{dependency} has no reason beside it"


def test_the_locks_agree() -> None:
    quickstart, dev = (set(path.read_text(encoding="utf-8").splitlines()) for path in LOCKS[:2])
    versions = [{line.partition(" ;")[0] for line in lock} for lock in (quickstart, dev)]
    assert versions[0] <= versions[1]


def test_the_locks_hold_versions_for_the_cpu_and_nothing_else() -> None:
    for path in LOCKS:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; .+)?", line), f"{path.name}: {line}"
            assert not re.match(r"(nvidia|cuda|triton|torchvision|torchaudio|torchcodec)\b", line), f"{path.name}: {line}"


def test_no_file_names_one_machine() -> None:
    # A home, a work folder or a registry's address would work here only.
    machine = re.compile(r"(?<![\w.~$}/])/(?:home|root|Users|work|opt)/\w|https?://[^\s\"')]*/simple\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in ours()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine.search(line)
    ]
    assert found == []
