"""A recipe is the whole mix in one file: what it writes can be read, edited and built, offline and again."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from public_sets import EXPECTED, ROWS, write_copy

from ochat.conversation import read_conversations
from ochat.data import build, recipe
from ochat.data.dataset import Dataset
from ochat.errors import DataError, OchatError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the examples."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str) -> Path:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return Path("recipe.yaml")


def built(recipe: Path, output: str = "mix", *, skip_absent: bool = False) -> Counter[tuple[str, str, float | None]]:
    """The classes of a build's rows."""
    build.main(build.Options(recipe, Path(output), skip_absent=skip_absent))
    rows = [row for _, row in read_conversations(Path(output) / "rows.jsonl")]
    return Counter((row.class_name, row.condition, row.items[-1].weight) for row in rows)


@pytest.mark.parametrize(("name", "maths"), [("openchat_3.5", "GPT4 Correct"), ("openchat_3.5-1210", "Math Correct")])
def test_the_model_cards_mix_is_built_from_local_copies(here: Path, name: str, maths: str) -> None:
    for id in ROWS:
        write_copy(here / "copies", id)
    recipe.main(recipe.Options(name, Path("recipe.yaml")))
    text = Path("recipe.yaml").read_text()
    # The three sets of Pure-Dove's form hold the same row here, and near-duplicates are none of this test's.
    Path("recipe.yaml").write_text(text.replace("  # steps: [turns, exact, near]\n  jaccard: 0.8", "  steps: [turns]\n  #"))
    expected = Counter[tuple[str, str, float]]()
    for of_set in EXPECTED.values():
        for (class_name, condition, weight), count in of_set.items():
            of_maths = class_name in ("goat", "metamath", "mathinstruct")
            expected[class_name, maths if of_maths else condition, weight] += count
    del expected["sharegpt-gpt3", "GPT3", 0.1]  # as 3.5 did
    assert built(Path("recipe.yaml")) == expected


def test_what_a_recipe_tells_can_be_changed(here: Path) -> None:
    write_copy(here / "copies", "TIGER-Lab/MathInstruct")
    recipe.main(recipe.Options("openchat_3.5", Path("all.yaml")))
    head, *sources = Path("all.yaml").read_text().split("  # Licence: ")
    source = sources[-1].partition("# Cleaning")[0]
    changed = source.replace("weight: 1.0", "weight: 0.25", 1).replace('      - "source=*camel*"', "      #")
    assert built(written(f"{head}  # {changed}")) == {
        ("mathinstruct", "GPT4 Correct", 0.25): 2,
        ("mathinstruct-unchecked", "GPT4", 1.0): 2,
    }


def test_the_example_is_built_offline_to_a_data_set_and_the_same_again(
    here: Path, toy_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (here / "examples/recipe.yaml").read_text().replace("# tokenize:", "tokenize:").replace("#   ", "  ")
    path = written(
        text.replace("runs/base", str(toy_folder("openchat_3.5"))).replace("heldout", "model_type: openchat_3.5\n  heldout")
    )
    classes = built(path)
    assert {name: sum(n for (of, *_), n in classes.items() if of == name) for name in ("goat", "suboptimal")} == {
        "goat": 4,
        "suboptimal": 8,
    }
    assert classes.total() == 20
    dataset = Dataset(Path("mix/dataset"))
    assert dataset.meta["train_rows"] + dataset.meta["heldout_rows"] == 20
    assert dataset.meta["heldout_share"] == 0.1
    capsys.readouterr()
    before = {file: file.stat().st_mtime_ns for file in Path("mix").rglob("*.jsonl")}
    built(path)
    assert {file: file.stat().st_mtime_ns for file in Path("mix").rglob("*.jsonl")} == before
    assert capsys.readouterr().out.count("from before") == 4
    built(path, "again")
    for file in ("rows.jsonl", "dataset/train-00000.parquet", "dataset/heldout-00000.parquet"):
        assert Path("again", file).read_bytes() == Path("mix", file).read_bytes()


def test_a_build_that_ended_goes_on_and_makes_only_what_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = "sources:\n- {from: examples/own-data/expert.jsonl, condition: GPT4}\n- {from: bad.jsonl, name: other}\nclean:\n"
    Path("bad.jsonl").write_text('{"question": "Hi"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        built(written(two))
    assert not Path("mix/rows.jsonl").exists()
    Path("bad.jsonl").write_text('{"question": "Hi", "answer": "Ho"}\n')
    assert built(written(two)).total() == 9
    assert "mix/sources/expert.jsonl: from before, 8 conversations" in capsys.readouterr().out
    # another source file, another field, other cleaning
    Path("bad.jsonl").write_text('{"question": "Hi", "answer": "Ho"}\n{"question": "Hi?", "answer": "Hum"}\n')
    assert built(written(two)).total() == 10
    assert built(written(two.replace("GPT4", "GPT3"))).keys() == {("GPT3", "GPT3", 1.0), ("", "", 1.0)}
    capsys.readouterr()
    assert built(written(two.replace("GPT4", "GPT3") + "  min_words: 2\n")).keys() == {("GPT3", "GPT3", 1.0)}
    assert capsys.readouterr().out.count("from before") == 2
    # a benchmark's questions
    asked = written(two + "  questions: [asked.jsonl]\n")
    Path("asked.jsonl").write_text('{"question": "Nobody asks this?"}\n')
    assert built(asked).total() == 10
    Path("asked.jsonl").write_text('{"question": "Hi"}\n')  # a user's whole message in three rows
    assert built(asked).total() == 7
    # without cleaning
    assert built(written(two.replace("GPT4", "GPT3").replace("clean:\n", ""))).total() == 10


def test_sources_that_cannot_be_had_are_told_in_a_line_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(
        "sources:\n- {from: examples/own-data/expert.jsonl, condition: GPT4}\n- set: tiedong/goat\n- {from: gone.jsonl}\n"
    )
    with pytest.raises(DataError, match=r"2 sources can't be had: goat, gone.*1 other source is imported.*--skip-absent"):
        built(path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "can't be had" in line]
    assert len(lines) == 2
    assert "hf download tiedong/goat --repo-type dataset --local-dir" in lines[0]
    assert "gone.jsonl doesn't exist" in lines[1]
    assert not Path("mix/rows.jsonl").exists()
    assert built(path, skip_absent=True).total() == 8
    assert "without goat, gone" in capsys.readouterr().out
    assert set(json.loads(Path("mix/build.json").read_text())["absent"]) == {"goat", "gone"}
    # with a copy at hand, it goes on
    Path("gone.jsonl").write_text('{"question": "Hi", "answer": "Ho"}\n')
    path.write_text(
        path.read_text().replace("- set: tiedong/goat", "- {set: tiedong/goat, from: examples/copies/tiedong/goat}")
    )
    assert built(path).total() == 15


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("sources: []", 1, "at least 1 item"),
        ("sorces: []", 1, "unknown field 'sorces'. Did you mean: sources"),
        ("sources:\n- {from: x, condtion: A}", 2, "unknown field 'condtion'. Did you mean: condition"),
        ("sources:\n- condition: A", 2, "neither `from` nor `set`"),
        ("sources:\n- from: x\n  weight: -1", 2, "--weight is -1.0"),
        ("sources:\n- from: x\n  cap: many", 3, "cap is 'many'. Give a whole number"),
        ("sources:\n- from: x\n- from: b/x", 3, "two sources are called 'x'"),
        ("sources:\n- set: tiedong/goats", 2, "Did you mean: tiedong/goat"),
        ("sources:\n- from: [x, 5]", 2, "`from` is ['x', 5]"),
        ("sources:\n- from: x\n  classes:\n  - {name: a, condition: A, wieght: 1}", 4, "unknown field 'wieght'"),
        ("sources:\n- from: x\n  classes: [{name: a, condition: A, weight: 1}]\n  weight: 2", 2, "Leave out those fields"),
        ("sources:\n- from: x\nclean:\n  jacard: 0.8", 4, "Did you mean: jaccard"),
        ("sources:\n- from: x\nclean:\n  output: y", 4, "unknown field 'output'"),
        ("sources:\n- from: x\nclean:\n  jaccard: 0.1", 3, "--jaccard is 0.1"),
        ("sources:\n- from: x\ntokenize:\n  heldout: 0.1", 3, "tokenizer is missing"),
        ("sources:\n- from: x\n  drop_class: [b]\n  set: goat", 2, "--drop-class b: no such class"),
    ],
)
def test_a_wrong_recipe_is_refused_at_its_line(here: Path, text: str, line: int, problem: str) -> None:
    with pytest.raises(OchatError) as raised:
        built(written(text))
    assert str(raised.value).startswith(f"recipe.yaml:{line}: ")
    assert problem in str(raised.value)
    assert not Path("mix").exists()


def test_a_folder_of_something_else_and_an_edited_recipe_are_left_alone(here: Path) -> None:
    with pytest.raises(OchatError, match="examples exists and is no build"):
        built(here / "examples/recipe.yaml", "examples")
    recipe.main(recipe.Options("openchat_3.5", Path("mine.yaml")))
    with pytest.raises(OchatError, match="perhaps with your changes"):
        recipe.Options("openchat_3.5", Path("mine.yaml"))
    with pytest.raises(OchatError, match=r"Did you mean: openchat_3\.5"):
        recipe.Options("openchat3.5")


def test_a_recipe_is_printed_where_no_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe.main(recipe.Options("openchat_3.5"))
    assert capsys.readouterr().out.count("- set: ") == 10


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        # Of no model type, so that the tokenizer alone knows it.
        ("A <s>", r"expert: The condition 'A <s>' holds a control token"),
        ("A <|end_of_turn|>", r"recipe\.yaml:2: --condition is .* holds the control token <\|end_of_turn\|>"),
    ],
)
def test_a_condition_that_the_template_refuses_ends_a_build_before_anything_is_imported(
    here: Path, toy_folder: Callable[..., Path], condition: str, said: str
) -> None:
    path = written(
        f'sources:\n- {{from: examples/own-data/expert.jsonl, condition: "{condition}", class: a}}\n'
        f"tokenize: {{tokenizer: {toy_folder('openchat_3.5')}, model_type: openchat_3.5}}\n"
    )
    with pytest.raises(OchatError, match=said):
        built(path)
    assert not Path("mix").exists()
