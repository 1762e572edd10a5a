"""Send a run's figures to TensorBoard, trackio or Weights & Biases besides its own log.

The log has everything, so no tracker is needed, and each is an extra to install. What they do with the figures is theirs:
TensorBoard writes files, trackio a local database unless it's told of a server, Weights & Biases asks its own settings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module  # of packages that few have, so that their types needn't be known
from pathlib import Path
from typing import Any, Literal

from ochat.errors import require

TrackerName = Literal["none", "tensorboard", "trackio", "wandb"]
Track = Callable[[int, Mapping[str, object]], None]
PROJECT = "ochat"
TENSORBOARD_FOLDER = "tensorboard"


def check_tracker(name: TrackerName) -> None:
    """Raise OchatError where the tracker isn't installed, so that a run can find that out before it loads a model."""
    if name != "none":
        require(name, name, f"--track {name}")


@contextmanager
def open_tracker(name: TrackerName, run: Path, config: Mapping[str, object]) -> Iterator[Track]:
    """A function that takes a step's number and its line of the log, for as long as the block runs.

    What the line nests is named by its path: `classes/expert/nll`. Raises OchatError where the tracker isn't installed."""
    check_tracker(name)
    trackers = {"none": _none, "tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}
    with trackers[name](run, {key: _plain(value) for key, value in config.items()}) as send:
        yield lambda step, line: send(step, flatten(line))


def flatten(line: Mapping[str, object], within: str = "") -> dict[str, float]:
    """The numbers of a line of the log by their path, the step's own number left out."""
    flat: dict[str, float] = {}
    for name, value in line.items():
        path = f"{within}/{name or '(none)'}" if within else name  # a class or condition may be ""
        if isinstance(value, Mapping):
            flat |= flatten(value, path)
        elif isinstance(value, int | float) and path != "step":
            flat[path] = float(value)
    return flat


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


Send = Callable[[int, dict[str, float]], None]


@contextmanager
def _none(run: Path, config: dict[str, object]) -> Iterator[Send]:
    yield lambda step, values: None


@contextmanager
def _tensorboard(run: Path, config: dict[str, object]) -> Iterator[Send]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = None

    def send(step: int, values: dict[str, float]) -> None:
        nonlocal writer
        if writer is None:
            # A run that goes on repeats the steps after its last saved state: TensorBoard drops what it had of them.
            writer = SummaryWriter(run / TENSORBOARD_FOLDER, purge_step=step)
            writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()), step)
        for path, value in values.items():
            writer.add_scalar(path, value, step)
        writer.flush()  # a kill then loses nothing that the log has

    try:
        yield send
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _trackio(run: Path, config: dict[str, object]) -> Iterator[Send]:
    trackio = import_module("trackio")
    # The machine's own figures aren't asked for: the log has the memory.
    tracked = trackio.init(
        PROJECT, name=_run_name(run), config=config, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
    )
    try:
        yield lambda step, values: tracked.log(values, step=step)
    finally:
        tracked.finish()


@contextmanager
def _wandb(run: Path, config: dict[str, object]) -> Iterator[Send]:
    wandb = import_module("wandb")
    name = _run_name(run)
    tracked = wandb.init(project=PROJECT, name=name, group=name, dir=run, config=config)
    # Its own steps can only go on; those of a run that was killed go back to the last saved state.
    tracked.define_metric("step")
    tracked.define_metric("*", step_metric="step")
    try:
        yield lambda step, values: tracked.log({"step": step, **values})
    finally:
        tracked.finish()


def _run_name(run: Path) -> str:
    return run.resolve().name
