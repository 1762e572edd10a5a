"""`ochat train run`: fine-tune a model with C-RLFT on a data set.

The plan of steps is known before the first one, so a run is a position in it: killed and repeated, it goes on at its last saved
step and ends as the run that was not killed. Under torchrun or `accelerate launch` the processes divide each step's packs."""

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import numpy as np

from ochat.data.dataset import META_FILE, Dataset, read_meta
from ochat.data.packing import Plan, plan
from ochat.errors import DataError, ModelError, OchatError, require
from ochat.files import file_sha256, hold, make_folder, remove_if_empty, write_json
from ochat.hub import model_folder
from ochat.registry import MODEL_TYPE_FILE, ModelType, detect_model_type, load_template, model_type
from ochat.template import ConversationTemplate
from ochat.training.card import DATA_FILE, CardFacts, card_text
from ochat.training.checkpoint_texts import checkpoint_texts
from ochat.training.config import CONFIG_FILE, FINAL_FOLDER, LOG_FILE, Options
from ochat.training.plan_report import normaliser_bias
from ochat.training.read_log import last_evaluation, read_log
from ochat.training.run_folder import remove_states, states
from ochat.training.trackers import check_tracker

# What may differ between a run and its continuation, since the steps don't depend on it; the data set's hash stands for its
# place.
_FREE = {"data", "output", "packs_per_forward", "loss_kernel", "gradient_checkpointing", "compile", "fsdp"}
_FREE |= {"save_minutes", "eval_steps", "track", "dry_run", "plan", "ranks"}
MAX_PLANNED_ROWS = 300_000_000  # of all epochs: planned in some minutes, and held in some gigabytes
_ROWS_AN_EPOCH_COSTS = 1000  # at least, in time and memory, however few it has
_ROWS_LOOKED_AT = 1000
_LOOKED_AT = 2**20  # bytes


def run_config(options: Options, kind: ModelType, steps: Plan) -> dict[str, object]:
    """What a run's result depends on; a continued run must have the same."""
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in _FREE}
    is_local = Path(options.model).expanduser().is_dir()
    rests_on = {
        "model": str(Path(options.model).expanduser().resolve()) if is_local else options.model,
        "pack_tokens": options.tokens_per_pack,
        "data_sha256": file_sha256(options.data / META_FILE),
        "plan_sha256": plan_sha256(steps),  # of the rows' lengths too, and of the packing that made it
        "model_type": kind.name,
    }
    # Under LoRA a saved state holds the adapters alone.
    return {**given, **rests_on, **({"base_sha256": base_sha256(model_folder(options.model))} if options.lora_rank else {})}


def plan_sha256(steps: Plan) -> str:
    """The SHA-256 of a plan's steps, packs and rows."""
    digest = hashlib.sha256()
    for part in (steps.rows, steps.pack_starts, steps.step_starts):
        digest.update(np.ascontiguousarray(part, "<i8").tobytes())
    return digest.hexdigest()


def base_sha256(folder: Path) -> str:
    """The SHA-256 of each weights file's name, size, beginning and end: enough to know another model."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_LOOKED_AT))
            file.seek(max(0, size - _LOOKED_AT))
            digest.update(file.read())
    return digest.hexdigest()


def check_same_run(output: Path, config: dict[str, object]) -> None:
    """Raise OchatError where the folder holds something else, or a run with other settings."""
    path = output / CONFIG_FILE
    if not path.is_file():
        if any(not entry.name.startswith(".") for entry in output.iterdir()):  # such are of a run killed at its start
            raise OchatError(f"{output} exists and is no run of this command. Choose another --output.")
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OchatError(f"{path} can't be read ({error}), so the run can't go on. Choose another --output.") from error
    if "data_sha256" not in earlier:
        raise OchatError(f"{output} exists and is no run of this command. Choose another --output.")
    if not states(output) and not (output / FINAL_FOLDER).exists():
        return  # nothing is kept of it, so other settings may be tried
    different = [name for name in config if earlier.get(name) != config[name]]
    different = [name for name in different if name != "plan_sha256"] or different  # it follows from the others
    if different:
        was = ", ".join(f"{name} {earlier.get(name)!r} (now {config[name]!r})" for name in different)
        raise OchatError(f"{output} holds a run with other settings: {was}. Repeat it with those, or choose another --output.")


def check_tokenizer(folder: Path, dataset: Dataset) -> None:
    """Raise ModelError where the data was tokenized with another tokenizer than the model's."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it's not a model. Give a model's folder, such as RUN/final.")
    path = folder / "tokenizer.json"
    if not path.is_file() or file_sha256(path) != dataset.meta["tokenizer_sha256"]:
        raise ModelError(
            f"The data was not tokenized with {path} but with another tokenizer, for {dataset.meta['model_type']}, so its ids mean "
            f"other tokens there. Run `ochat data tokenize` again with --tokenizer {folder}."
        )


def check_end_of_turn(dataset: Dataset, end_of_turn: int) -> None:
    """Raise DataError where no row teaches the model to end its turn: it would talk on until its limit."""
    for number in np.unique(np.linspace(0, len(dataset) - 1, _ROWS_LOOKED_AT, dtype=np.int64)).tolist():
        ids, lengths, weights = dataset.row(number)
        if (ids[1:][np.repeat(weights, lengths)[1:] > 0] == end_of_turn).any():
            return
    raise DataError(
        f"In {min(len(dataset), _ROWS_LOOKED_AT):,} rows no end of turn is learned, so the model would never stop. Are all rows cut? Run "
        "`ochat data tokenize` with a larger --max-tokens."
    )


def check_ranks(options: Options, count: int) -> None:
    """Raise OchatError where a step has fewer packs than there are processes."""
    n_packs = options.batch_tokens // options.tokens_per_pack
    if options.batch_tokens < count:
        raise OchatError(
            f"A step has {options.batch_tokens} tokens for {count} processes. Give --batch-tokens {count} or more."
        )
    if n_packs < count:
        n_packs_that_do = next(n for n in range(count, options.batch_tokens + 1) if options.batch_tokens % n == 0)
        raise OchatError(
            f"A step has {n_packs} packs for {count} processes. Give --pack-tokens {options.batch_tokens // n_packs_that_do} or less, or a "
            "larger --batch-tokens."
        )


def check_epochs(epochs: int, n_rows: int) -> None:
    """Raise OchatError where the plan of all epochs would take minutes to make and gigabytes to hold."""
    most = max(1, MAX_PLANNED_ROWS // max(n_rows, _ROWS_AN_EPOCH_COSTS))
    if epochs > most:
        raise OchatError(f"--epochs is {epochs:,}, more than can be planned of {n_rows:,} rows. Give --epochs {most} or less.")


def check_template(folder: Path, kind: ModelType, dataset: Dataset, template: ConversationTemplate) -> None:
    """Raise where the data was made for another model type than the model says it is of, or with another template."""
    if (folder / MODEL_TYPE_FILE).is_file() and (of_model := detect_model_type(folder)) is not kind:
        raise ModelError(
            f"The data was tokenized for {kind.name}, and {folder} is of the type {of_model.name}. Run `ochat data tokenize` again with "
            f"--model-type {of_model.name}."
        )
    if dataset.meta.get("template_sha256", template.sha256()) != template.sha256():
        raise DataError(
            f"The data was tokenized with another template of {kind.name} than this version's. Run `ochat data tokenize` again."
        )


def card_facts(options: Options, dataset: Dataset, config: dict[str, object]) -> CardFacts:
    """What the model card of this run's result says."""
    is_local = Path(options.model).expanduser().is_dir()
    path = options.output / LOG_FILE
    return CardFacts(
        base_model=options.model,
        base_is_local=is_local,
        is_adapter=bool(options.lora_rank),
        data=dataset.meta,
        settings=config,
        last_evaluation=last_evaluation(read_log(path)) if path.is_file() else {},
    )


def main(options: Options) -> None:
    require("torch", "train", "Training")
    require("transformers", "train", "Training")
    kind = model_type(read_meta(options.data)["model_type"])
    check_tracker(options.track)
    for module, extra, is_needed, purpose in (
        ("bitsandbytes", "bitsandbytes", options.optimizer == "adamw_8bit", "--optimizer adamw_8bit"),
        ("bitsandbytes", "bitsandbytes", options.quantize != "none", "--quantize"),
        ("liger_kernel", "liger", options.loss_kernel == "liger", "--loss-kernel liger"),
        ("peft", "train", bool(options.lora_rank), "--lora-rank"),
    ):
        if is_needed:
            require(module, extra, purpose)
    is_first = os.environ.get("RANK", "0") == "0"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    check_ranks(options, options.ranks or count)
    with ExitStack() as stack:
        if not options.dry_run:
            if is_first and not options.output.exists():
                stack.callback(remove_if_empty, options.output)  # what is refused below leaves nothing
            make_folder(options.output)
            if is_first:
                stack.enter_context(hold(options.output))
        dataset = Dataset(options.data)
        check_epochs(options.epochs, len(dataset))
        steps = plan(
            dataset.lengths,
            epochs=options.epochs,
            batch_tokens=options.batch_tokens,
            pack_tokens=options.tokens_per_pack,
            seed=options.seed,
        )
        folder = model_folder(options.model)
        config = run_config(options, kind, steps)
        if is_first and options.output.is_dir():
            check_same_run(options.output, config)
        final = options.output / FINAL_FOLDER
        if final.is_dir() and not options.dry_run:
            remove_states(options.output)  # killed before it did
            print(f"This run is finished: {final}")
            return
        if is_first:
            tell(options, dataset, steps)
        check_tokenizer(folder, dataset)
        template = load_template(kind, folder)
        check_template(folder, kind, dataset, template)
        checkpoint_texts(folder, kind)  # what can't be saved is found out now
        card_text(kind, template, card_facts(options, dataset, config))
        check_end_of_turn(dataset, template.end_of_turn)
        if is_first and not options.dry_run:
            write_json(options.output / CONFIG_FILE, config)
            write_json(options.output / DATA_FILE, dataset.meta)
        # Threads that spin while they wait take the cores from each other when another job runs too. Read when torch loads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if is_first:
            print("Loading the model …", flush=True)
        run(options, kind, template, dataset, steps, config)
        if is_first and not options.dry_run:
            print(f"Trained {'adapter' if options.lora_rank else 'model'}: {final}")


def run(
    options: Options,
    kind: ModelType,
    template: ConversationTemplate,
    dataset: Dataset,
    steps: Plan,
    config: dict[str, object],
) -> None:
    """The part that needs torch, which takes seconds to load: after checks that need none."""
    from ochat.training.dry_run import dry_run
    from ochat.training.loop import train
    from ochat.training.ranks import join_ranks, leave_ranks

    ranks = join_ranks()
    try:
        if options.dry_run:
            dry_run(options, kind, template, dataset, steps, ranks)
        else:
            train(
                options,
                kind,
                dataset,
                steps,
                ranks,
                config,
                card=lambda: card_text(kind, template, card_facts(options, dataset, config)),
            )
    finally:
        leave_ranks()


def tell(options: Options, dataset: Dataset, steps: Plan) -> None:
    """Print what the plan makes of the data, where that may surprise."""
    n_long = int((dataset.lengths > options.tokens_per_pack).sum())
    if n_long:
        print(
            f"{n_long:,} rows are longer than {options.tokens_per_pack:,} tokens, up to {int(dataset.lengths.max()):,}; each is a pack "
            "of its own, and takes more memory."
        )
    if options.normalise == "step":
        print(normaliser_bias(options, dataset, steps))
