"""`ochat model card`: write a checkpoint's model card, its README.md, from the files of its run.

A training run writes the card by itself; this makes it again when there is more to tell: licences, results, a name on the hub."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ochat.data.dataset import META_FILE, read_meta
from ochat.errors import ModelError, OchatError
from ochat.files import file_sha256, write_text
from ochat.registry import detect_model_type, load_template
from ochat.training.card import CARD_FILE, DATA_FILE, MARK, CardFacts, Evaluation, card_text
from ochat.training.config import CONFIG_FILE, LOG_FILE
from ochat.training.read_log import last_evaluation, read_log

# What an adapter's folder has and a model's hasn't.
ADAPTER_FILE = "adapter_config.json"


@dataclass(frozen=True)
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    """folder of the checkpoint, such as RUN/final; its README.md is written"""
    run: Path | None = None
    """folder of the training run; the one that the checkpoint lies in when left out"""
    data: Path | None = None
    """data-set folder that it was trained on; the run's own note of it when left out"""
    evaluation: tuple[Path, ...] = ()
    """output folders of `ochat eval run`"""
    name: str = "."
    """the model's id on the hub, for the card's commands; its own folder when left out"""
    base_model: str = ""
    """the base model's id on the hub, where the run was given a folder"""
    licence: str = ""
    """the model's licence, such as apache-2.0"""
    source_licences: dict[str, str] = field(default_factory=dict)
    """licences of the data's files: NAME LICENCE NAME LICENCE …"""


def main(options: Options) -> None:
    folder = options.folder
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder. Give a checkpoint's folder, such as RUN/final.")
    card = folder / CARD_FILE
    if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise OchatError(f"{card} was not made by this command. Rename it, and repeat.")
    kind = detect_model_type(folder)
    write_text(card, card_text(kind, load_template(kind, folder), read_facts(options)))
    print(f"Model card: {card}")


def read_facts(options: Options) -> CardFacts:
    """What the files tell. Raises OchatError where they don't belong together, or one can't be read."""
    run = options.run or _run_around(options.folder)
    settings = _read_json(run / CONFIG_FILE) if run else {}
    data: dict[str, Any] = {}
    if options.data:
        data = read_meta(options.data)
    elif run and (run / DATA_FILE).is_file():
        data = _read_json(run / DATA_FILE)
    if options.data and settings and settings.get("data_sha256") != file_sha256(options.data / META_FILE):
        raise OchatError(f"{options.data} is not the data set that {run} was trained on. Give that one with --data.")
    unknown = set(options.source_licences) - {name for path in data.get("sources", {}) for name in (path, Path(path).name)}
    if unknown:
        names = ", ".join(Path(path).name for path in data.get("sources", {})) or "none; give the data set with --data"
        raise OchatError(f"--source-licences names {', '.join(sorted(unknown))}. The data's files: {names}.")
    base = options.base_model or str(settings.get("model", ""))
    log = run / LOG_FILE if run else None
    return CardFacts(
        name=options.name,
        base_model=base,
        base_is_local=not options.base_model and (Path(base).expanduser().is_dir() or base.startswith((".", "/", "~"))),
        is_adapter=(options.folder / ADAPTER_FILE).is_file(),
        licence=options.licence,
        data=data,
        source_licences=options.source_licences,
        settings=settings,
        last_evaluation=last_evaluation(read_log(log)) if log and log.is_file() else {},
        evaluations=[read_evaluation(path, options.folder) for path in options.evaluation],
    )


def _run_around(folder: Path) -> Path | None:
    parent = folder.resolve().parent
    return parent if (parent / CONFIG_FILE).is_file() and (parent / LOG_FILE).is_file() else None


def read_evaluation(path: Path, folder: Path) -> Evaluation:
    """The result in an output folder of `ochat eval run`. Raises OchatError where it's of another checkpoint than `folder`, if
    that can be told: the journal holds the place where the server had found its model."""
    summary, asked = _read_json(path / "summary.json"), _read_json(path / "config.json")
    root = Path(str(asked.get("root") or ""))
    if root.is_absolute() and root.is_dir() and root.resolve() != folder.resolve():
        raise OchatError(f"{path} holds replies of another model, {root}. Leave it out.")
    try:
        accuracy = summary["accuracy"]
        return Evaluation(
            name=path.resolve().name,
            condition=str(summary["condition"]),
            n_questions=int(summary["n_questions"]),
            n_found=int(summary["n_found"]),
            value=float(accuracy["value"]),
            low=float(accuracy["low"]),
            high=float(accuracy["high"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OchatError(f"{path / 'summary.json'} isn't of `ochat eval run` ({error!r}). Leave it out.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or error  # an OSError's text has the path again
        raise OchatError(f"{path} can't be read ({problem}). Check the folder's name.") from error
    if not isinstance(value, dict):
        raise OchatError(f"{path} holds no JSON object. Check the folder's name.")
    return value
