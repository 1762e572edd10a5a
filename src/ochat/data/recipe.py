"""`ochat data recipe`: a whole mix of data as one file that a person can edit, and `ochat data build` can make.

A recipe has no fields of its own beside the list of sources: a source takes the options of `ochat data import`, its classes written in
place; `clean` takes those of `ochat data clean`, `tokenize` those of `ochat data tokenize`. What a known set's entry says
(`sets.py`) is written out, so that it can be seen and changed."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ochat.config_file import options_of
from ochat.data import import_plan, tokenize
from ochat.data.classes import class_table
from ochat.data.clean import clean_rows
from ochat.data.import_plan import Plan, plan_of
from ochat.data.sets import SETS, DataSet, set_named
from ochat.data.yaml_file import Place, YamlFile, read_yaml
from ochat.errors import OchatError
from ochat.files import write_text

EXAMPLE = "See examples/recipe.yaml, or write one with `ochat data recipe openchat_3.5`."
_TABLE = ("beta", "classes", "rules", "fallback")


@dataclass(frozen=True)
class Mix:
    """A model's public data."""

    about: str
    math_condition: bool = False
    drop_class: Mapping[str, tuple[str, ...]] | None = None
    """by set"""


_NO_GPT3 = {"openchat/openchat_sharegpt4_dataset": ("sharegpt-gpt3",)}
MIXES = {
    "openchat_3.5": Mix("OpenChat 3.5: the data sets that its model card names", drop_class=_NO_GPT3),
    "openchat_3.5-1210": Mix(
        'OpenChat 3.5-1210: the data sets of 3.5, with mathematics under "Math Correct"',
        math_condition=True,
        drop_class=_NO_GPT3,
    ),
}


@dataclass(frozen=True)
class Options:
    name: Annotated[str, tyro.conf.Positional]
    """the mix: openchat_3.5 or openchat_3.5-1210"""
    output: Path | None = None
    """YAML file to write; printed when left out"""

    def __post_init__(self) -> None:
        if self.name not in MIXES:
            near = difflib.get_close_matches(self.name, MIXES, n=1, cutoff=0.4) or list(MIXES)
            raise OchatError(f"Unknown recipe {self.name!r}. Did you mean: {', '.join(near)}?")
        if self.output and self.output.exists():
            raise OchatError(f"{self.output} exists, perhaps with your changes. Choose another --output.")


def flow(value: object) -> str:
    """The value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1_000_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def recipe_text(name: str, mix: Mix) -> str:
    """The mix as a recipe, with what a person should know as comments."""
    lines = [
        f"# {mix.about}.",
        "# The card doesn't say how much of each was taken, nor the conditions, and a part of the mix is private: those here are ours.",
        f"# Change what you like, then: ochat data build {name}.yaml --output runs/mix",
        "",
        "# Local copies are looked for in this folder, as OWNER/NAME below it; what isn't there is read from the hub. To make one:",
        "#   hf download OWNER/NAME --repo-type dataset --local-dir copies/OWNER/NAME",
        "copies: copies",
        "",
        "# Each source takes the options of `ochat data import`, such as `from` (a file or folder, instead of the copy), `cap` (the",
        "# most conversations), `exclude` (COLUMN=PATTERN of rows to leave out), `drop_class`. Of a known set, what you leave out is",
        "# as below: write `exclude: []` to exclude nothing, `cap: 0` to take all.",
        "# A condition stands in the prompt; a weight is what the rows count in the loss. Where a source has several classes, the",
        "# first rule that knows a row decides.",
        "sources:",
    ]
    for one in SETS:
        lines += [*source_lines(one, mix), ""]
    lines += [
        "# Cleaning, over the whole mix. The fields are the options of `ochat data clean`.",
        "clean:",
        "  # Left out, the steps are these, and that of each option below. turns: user and assistant take turns; exact, near: of rows",
        "  # that are equal, or nearly, one stays. A long mix can do without near, which takes longest.",
        "  # steps: [turns, exact, near]",
        "  jaccard: 0.8 # overlap from which two rows are nearly equal",
        "  # questions: [FOLDER] # drop rows that hold a question of these benchmarks",
        "  # languages: [en] # keep these",
        "  # max_length: 24000 # letters; longer rows are dropped, or `too_long: split`",
        "",
        "# Tokens. The fields are the options of `ochat data tokenize`. Name a tokenizer and take the marks away.",
        "# tokenize:",
        "#   tokenizer: FOLDER",
        "#   model_type: openchat_3.5",
        "#   heldout: 0.005 # share of prompts that is kept from training, to measure on; all answers of each",
    ]
    return "\n".join(lines) + "\n"


def source_lines(one: DataSet, mix: Mix) -> list[str]:
    """A known set as a source, written out."""
    classes = one.table(math_condition=mix.math_condition)["classes"]
    lines = [f"  # Licence: {one.licence}.", *(f"  # {note}" for note in one.notes), f"  - set: {one.id}"]
    if one.rules:
        lines += ["    classes:", *(f"      - {flow(of_class)}" for of_class in classes)]
        lines += ["    rules:", *(f"      - {flow(rule)}" for rule in one.rules)]
    else:
        (only,) = classes
        lines += [
            f"    class: {flow(only['name'])}",
            f"    condition: {flow(only['condition'])}",
            f"    weight: {only['weight']}",
        ]
    if one.exclude:
        lines += ["    exclude:", *(f'      - "{pattern}" # {reason}' for pattern, reason in one.exclude)]
    if one.cap:
        lines.append(f"    cap: {one.cap}")
    if dropped := (mix.drop_class or {}).get(one.id):
        lines.append(f"    drop_class: {flow(list(dropped))}")
    return lines


def main(options: Options) -> None:
    text = recipe_text(options.name, MIXES[options.name])
    if options.output is None:
        print(text, end="")
        return
    write_text(options.output, text)
    print(f"Wrote {options.output}. Edit it, then: ochat data build {options.output} --output runs/mix")


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sources: Annotated[list[dict[str, object]], Field(min_length=1)]
    copies: str = ""
    clean: dict[str, object] | None = None
    tokenize: dict[str, object] | None = None


@dataclass(frozen=True)
class Source:
    name: str
    given: Mapping[str, object]
    """as the recipe has it"""
    plan: Plan


@dataclass(frozen=True)
class Recipe:
    sources: tuple[Source, ...]
    clean: clean_rows.Options | None
    tokenize: tokenize.Options | None


def read_recipe(path: Path, folder: Path) -> Recipe:
    """The recipe of a YAML file, with its results in `folder`. Raises OchatError, naming the line, for what can't be used."""
    file = read_yaml(path, "a recipe", EXAMPLE)
    given = file.checked(_Given, file.values, ())
    sources: dict[str, Source] = {}
    for at, one in enumerate(given.sources):
        source = _source(file, one, ("sources", at), folder, given.copies)
        if source.name in sources:
            raise file.wrong(("sources", at), f"two sources are called {source.name!r}. Give one another `name`.")
        sources[source.name] = source
    rows, mixed = rows_file(folder), tuple(source.plan.options.output for source in sources.values())
    clean = {} if "clean" in file.values and given.clean is None else given.clean  # `clean:` alone asks for the usual steps
    return Recipe(
        tuple(sources.values()),
        None
        if clean is None
        else options_of(clean_rows.Options, clean, _wrong(file, ("clean",)), inputs=mixed, output=rows, json=False),
        None
        if given.tokenize is None
        else options_of(
            tokenize.Options, given.tokenize, _wrong(file, ("tokenize",)), inputs=(rows,), output=folder / "dataset", shard=""
        ),
    )


def rows_file(folder: Path) -> Path:
    """Where a build's conversations are."""
    return folder / "rows.jsonl"


def _wrong(file: YamlFile, where: Place) -> Callable[[str, str], OchatError]:
    return lambda field, message: file.wrong((*where, field) if field else where, message)


def _source(file: YamlFile, given: Mapping[str, object], where: Place, folder: Path, copies: str) -> Source:
    try:
        known = set_named(str(given["set"])) if given.get("set") else None
    except OchatError as error:
        raise file.wrong((*where, "set"), str(error)) from error
    inputs = _inputs(file, given, where, known, copies)
    name = str(given.get("name") or (known.id if known else inputs[0].name)).rpartition("/")[2].partition(".")[0]
    if not name.replace("-", "").replace("_", "").isalnum():
        raise file.wrong(where, f"the source's name would be {name!r}. Give it a `name` of letters, digits, - and _.")
    table = {key: given[key] for key in _TABLE if key in given} if isinstance(given.get("classes"), list) else {}
    others = {key: value for key, value in given.items() if key not in ("from", "name", *table)}
    output = folder / "sources" / f"{name}.jsonl"
    options = options_of(import_plan.Options, others, _wrong(file, where), inputs=inputs, output=output)
    if table and (options.condition is not None or options.weight is not None or options.class_name is not None):
        raise file.wrong(where, "`classes` says what each row's condition, weight and class are. Leave out those fields.")
    try:
        plan = plan_of(options, class_table(file, table, where) if table else None, f"{file.path}")
    except OchatError as error:
        raise error if str(error).startswith(f"{file.path}:") else file.wrong(where, str(error)) from error
    return Source(name, given, plan)


def _inputs(file: YamlFile, given: Mapping[str, object], where: Place, known: DataSet | None, copies: str) -> tuple[Path, ...]:
    """What the source reads: the paths that it names, or its set's copy, or the set on the hub."""
    named = given.get("from")
    paths = named if isinstance(named, list) else [named] if named else []
    if not all(isinstance(path, str) and path for path in paths):
        raise file.wrong(
            (*where, "from"), f"`from` is {named!r}. Give a path or the id of a data set on the hub, or a list of them."
        )
    if paths:
        return tuple(Path(str(path)).expanduser() for path in paths)
    if known is None:
        raise file.wrong(where, "the source has neither `from` nor `set`. Give a path, or a known set's id.")
    copy = Path(copies).expanduser() / known.id
    return (copy if copies and copy.exists() else Path(known.id),)
