"""`ochat train run`: fine-tune a model with C-RLFT on a data set.

The plan of steps is known before the first one, so a run is a position in it: killed and repeated, it goes on at its last saved
step and ends as the run that was not killed."""

import json
import os
from dataclasses import fields
from pathlib import Path

from ochat.data.dataset import META_FILE, Dataset, read_meta
from ochat.data.packing import plan
from ochat.errors import ModelError, OchatError, require
from ochat.files import file_sha256, hold, make_folder, write_json
from ochat.hub import model_folder
from ochat.registry import ModelType, model_type
from ochat.training.checkpoint_texts import checkpoint_texts
from ochat.training.config import CONFIG_FILE, FINAL_FOLDER, Options

# What may differ between a run and its continuation without changing the result; the data set's hash stands for its place.
_FREE = {"output", "save_minutes", "data"}


def run_config(options: Options, kind: ModelType) -> dict[str, object]:
    """What a run's result depends on; a continued run must have the same."""
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in _FREE}
    return {**given, "data_sha256": file_sha256(options.data / META_FILE), "model_type": kind.name}


def check_same_run(output: Path, config: dict[str, object]) -> None:
    """Raise OchatError where the folder holds something else, or a run with other settings."""
    path = output / CONFIG_FILE
    if not path.is_file():
        if any(entry.name != f".{CONFIG_FILE}.part" for entry in output.iterdir()):  # that one is of a run killed at its start
            raise OchatError(f"{output} exists and is no run of this command. Choose another --output.")
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OchatError(f"{path} can't be read ({error}), so the run can't go on. Choose another --output.") from error
    different = [name for name in config if earlier.get(name) != config[name]]
    if different:
        was = ", ".join(f"{name} {earlier.get(name)!r} (now {config[name]!r})" for name in different)
        raise OchatError(f"{output} holds a run with other settings: {was}. Repeat it with those, or choose another --output.")


def check_tokenizer(folder: Path, dataset: Dataset) -> None:
    """Raise ModelError where the data was tokenized with another tokenizer than the model's."""
    path = folder / "tokenizer.json"
    if not path.is_file() or file_sha256(path) != dataset.meta["tokenizer_sha256"]:
        raise ModelError(
            f"The data was not tokenized with {path}, so its ids mean other tokens there. Run `ochat data tokenize` again "
            f"with --tokenizer {folder}."
        )


def main(options: Options) -> None:
    require("torch", "train", "Training")
    require("transformers", "train", "Training")
    kind = model_type(read_meta(options.data)["model_type"])
    make_folder(options.output)
    with hold(options.output):
        config = run_config(options, kind)
        check_same_run(options.output, config)
        final = options.output / FINAL_FOLDER
        if final.is_dir():
            print(f"This run is finished: {final}")
            return
        dataset = Dataset(options.data)
        pack_tokens = options.pack_tokens or options.batch_tokens
        steps = plan(
            dataset.lengths,
            epochs=options.epochs,
            batch_tokens=options.batch_tokens,
            pack_tokens=pack_tokens,
            seed=options.seed,
        )
        n_long = sum(length > pack_tokens for length in dataset.lengths)
        if n_long:
            print(f"{n_long:,} rows are longer than {pack_tokens:,} tokens; each is a forward of its own.")
        folder = model_folder(options.model)
        check_tokenizer(folder, dataset)
        checkpoint_texts(folder, kind)  # what can't be saved is found out now
        write_json(options.output / CONFIG_FILE, config)
        # Threads that spin while they wait take the cores from each other when another job runs too. Read when torch loads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        print("Loading the model …", flush=True)
        from ochat.training.loop import train  # torch and transformers take seconds to load: after checks that need neither

        train(options, kind, dataset, steps)
        print(f"Trained model: {final}")
