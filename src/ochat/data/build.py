"""`ochat data build`: make the mix that a recipe describes: import each source, clean all rows together, and, if asked, tokenize.

Each result stands with a note of what it was made of, and is made again only when that changed: a build that was killed, or whose
sources weren't all at hand, goes on when repeated. A source that can't be had ends the build after the others are imported, since a
mix without it is another one."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro

from ochat.conversation import read_lines
from ochat.data import tokenize
from ochat.data.clean import clean_rows
from ochat.data.clean.contamination import question_files
from ochat.data.hub_rows import AbsentError
from ochat.data.import_report import report
from ochat.data.import_rows import import_rows
from ochat.data.problem import counted
from ochat.data.read import files_of, is_on_hub
from ochat.data.recipe import Recipe, Source, read_recipe, rows_file
from ochat.errors import DataError, OchatError, TemplateError
from ochat.files import file_sha256, hold, make_folder, new_file, write_json, write_text
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import detect_model_type, load_template

BUILD_FILE = "build.json"
Note = dict[str, Any]  # what JSON holds


@dataclass(frozen=True)
class Options:
    recipe: Annotated[Path, tyro.conf.Positional]
    """YAML file, such as `ochat data recipe` writes"""
    output: Path
    """folder to write: rows.jsonl, each source's rows in sources/, the data set of tokens in dataset/ where asked for"""
    skip_absent: bool = False
    """mix without sources that can't be had, and say which; otherwise they end the build"""


def main(options: Options) -> None:
    folder = options.output
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / BUILD_FILE).is_file())):
        raise OchatError(f"{folder} exists and is no build. Choose another --output.")
    recipe = read_recipe(options.recipe, folder)
    check_tokenizer(recipe)
    make_folder(folder / "sources")
    with hold(folder):
        if not (folder / BUILD_FILE).is_file():
            write_json(folder / BUILD_FILE, {})  # the folder is ours from here on
        made, absent = import_sources(recipe)
        for name, why in absent.items():
            print(f"{name}: can't be had. {why}")
        if absent and not (options.skip_absent and made):
            others = (
                f"{counted(len(made), 'other source is', 'other sources are')} imported, and won't be again. " if made else ""
            )
            raise DataError(
                f"{options.recipe}: {counted(len(absent), 'source')} can't be had: {', '.join(absent)}. {others}Get copies and repeat"
                f"{', or mix without them: --skip-absent' if made else ''}."
            )
        rows = mix(recipe, folder, made)
        if recipe.tokenize:
            print("== tokens")
            tokenize.main(recipe.tokenize)
        write_text(folder / "recipe.yaml", options.recipe.read_text(encoding="utf-8"))
        write_json(folder / BUILD_FILE, {"rows": rows["rows"], "absent": absent, "made_by": f"ochat {version('ochat-crlft')}"})
    without = f", without {', '.join(absent)}" if absent else ""
    print(
        f"Built {folder}: {counted(rows['rows'], 'conversation')} of {counted(len(made), 'source')}{without}, in {rows_file(folder)}"
    )


def check_tokenizer(recipe: Recipe) -> None:
    """Raise at the start what would end the build at its end."""
    if recipe.tokenize:
        folder = model_folder(recipe.tokenize.tokenizer, TOKENIZER_FILES)
        template = load_template(detect_model_type(folder, recipe.tokenize.model_type), folder)
        for source in recipe.sources:
            of_table = source.plan.table.classes.values() if source.plan.table else ()
            for condition in (source.plan.options.condition or "", *(one.condition for one in of_table)):
                try:
                    template.check_condition(condition)
                except TemplateError as error:
                    raise OchatError(f"{source.name}: {error}") from error


def import_sources(recipe: Recipe) -> tuple[dict[str, Note], dict[str, str]]:
    """Import each source; the notes of those that were had, and why each other wasn't."""
    made: dict[str, Note] = {}
    absent: dict[str, str] = {}
    for source in recipe.sources:
        print(f"== {source.name}")
        try:
            made[source.name] = import_source(source)
        except AbsentError as error:
            absent[source.name] = str(error)
    return made, absent


def import_source(source: Source) -> Note:
    """Import a source, unless it's there from before. Raises AbsentError where it can't be had."""
    plan = source.plan
    inputs: dict[str, str] = {}
    for path in plan.options.inputs:
        if is_on_hub(path):
            inputs[str(path)] = "on the hub"  # read once; remove its rows to read it again
        else:
            inputs |= {str(file): file_sha256(file) for file in files_of(path, plan.only)}
    files = [path for path in (plan.options.classes, plan.options.columns) if path]
    made_of = {
        "source": dict(source.given),
        "inputs": inputs,
        "files": {str(path): file_sha256(path) for path in files},
        "plan": _sha256(repr((plan.options, plan.table, plan.exclude, plan.cap))),
        "made_by": f"ochat {version('ochat-crlft')}",
    }
    if before := from_before(plan.options.output, made_of):
        return before
    counts = import_rows(plan)
    print(report(counts, plan))
    return noted(
        plan.options.output,
        made_of,
        {
            "rows": counts.n_written - counts.n_capped,
            "read": counts.n_read,
            "excluded": {str(one): counts.excluded[one] for one in plan.exclude},
            "rejected": dict(counts.rejected),
            "dropped": dict(counts.dropped),
            "left_out_by_cap": counts.n_capped,
        },
    )


def mix(recipe: Recipe, folder: Path, made: dict[str, Note]) -> Note:
    """Put the sources' rows together, cleaned where the recipe says so, unless they're there from before."""
    output = rows_file(folder)
    inputs = tuple(source.plan.options.output for source in recipe.sources if source.name in made)
    clean = replace(recipe.clean, inputs=inputs) if recipe.clean else None
    questions = [file for path in (clean.questions if clean else ()) for _, file in question_files(path)]
    made_of = {
        "sources": {name: _sha256(json.dumps(note["made_of"], sort_keys=True, default=str)) for name, note in made.items()},
        "clean": repr(clean),
        "questions": {str(path): file_sha256(path) for path in questions},
    }
    print("== all rows")
    if before := from_before(output, made_of):
        return before
    if clean:
        clean_rows.main(clean)
    else:
        with new_file(output) as part, part.open("wb") as out:
            for path in inputs:
                with path.open("rb") as rows:
                    shutil.copyfileobj(rows, out)
    return noted(output, made_of, {"rows": sum(1 for _ in read_lines(output))})


def from_before(output: Path, made_of: Note) -> Note | None:
    """The note of a file that is there and made of just this."""
    path = note_file(output)
    if not (output.is_file() and path.is_file()):
        return None
    note: Note = json.loads(path.read_text(encoding="utf-8"))
    if note.get("made_of") != json.loads(json.dumps(made_of, default=str)):
        return None
    print(f"{output}: from before, {counted(note['rows'], 'conversation')}")
    return note


def noted(output: Path, made_of: Note, result: Note) -> Note:
    """Write what a file was made of, and what came of it. Written last: a file whose note isn't right is made again."""
    note = {"made_of": made_of, **result}
    write_text(note_file(output), json.dumps(note, indent=2, ensure_ascii=False, default=str) + "\n")
    return note


def note_file(output: Path) -> Path:
    """Where a result's note stands."""
    return output.with_name(f"{output.name}.made.json")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
