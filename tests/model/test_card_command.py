"""`ochat model card` on the folders that the other commands write."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import tiny_model

from ochat.conversation import Conversation, Message
from ochat.data import tokenize
from ochat.errors import OchatError
from ochat.evaluation import run_eval
from ochat.evaluation.results import Row, write_results
from ochat.files import file_sha256, write_json
from ochat.model.card import Options, main
from ochat.registry import load_template, model_type
from ochat.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[..., Path]) -> Path:
    """A folder with a data set of two classes and a run on it."""
    folder, source = tmp_path_factory.mktemp("work"), toy_folder("openchat_smollm2")
    rows = []
    for condition, weight in (("GPT4 Correct", 1.0), ("GPT3", 0.25)):
        items = (Message(role="user", content="hello"), Message(role="assistant", content="hell", weight=weight))
        rows.append(Conversation(items=items, condition=condition, class_name=condition.lower()).to_json() + "\n")
    (folder / "mix.jsonl").write_text("".join(rows), encoding="utf-8")
    tokenize.main(tokenize.Options(inputs=(folder / "mix.jsonl",), tokenizer=str(source), output=folder / "data"))
    run = folder / "run"
    run.mkdir()
    write_json(run / "config.json", {"model": str(source), "epochs": 2, "data_sha256": file_sha256(folder / "data/meta.json")})
    log = [{"step": 0, "heldout": {"gpt3": {"tokens": 9, "nll": 5.5, "accuracy": 0.0}}}, {"step": 1, "loss": 4.0}]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    kind = model_type("openchat_smollm2")
    save_checkpoint(tiny_model(load_template(kind, source).tokenizer.vocab_size), source, kind, run / "final")
    return folder


def card_of(finished: Path, **options: object) -> str:
    final = finished / "run" / "final"
    main(Options(final, **options))  # type: ignore[arg-type]  # fields by name
    return (final / "README.md").read_text(encoding="utf-8")


def evaluated(folder: Path, root: Path) -> Path:
    """An output folder as `ochat eval run` leaves it: two replies, one right."""
    folder.mkdir()
    config = {"id": "openchat_smollm2", "root": str(root.resolve()), "condition": "GPT3"}
    run_eval.keep_to_model(folder, config)
    rows = [Row("Which?", reply, reply, True, reply == "yes", row=n) for n, reply in enumerate(("yes", "no"))]
    write_results(folder, dict(config), rows)
    return folder


def test_the_card_is_made_from_the_run_around_it_its_data_and_its_grades(finished: Path, tmp_path: Path) -> None:
    grades = evaluated(tmp_path / "grades-gpt3", finished / "run" / "final")
    text = card_of(finished, data=finished / "data", evaluation=(grades,), source_licences={"mix.jsonl": "cc-by-nc-4.0"})
    assert "| gpt3 | " in text
    assert "| 0.25 | 20.0% |" in text
    assert "| gpt3 | 9 | 5.500 | 0.0% |" in text
    assert "| epochs | 2 |" in text
    assert "| grades-gpt3 | GPT3 | 2 | 2 | 0.500 [0.095, 0.905] |" in text
    assert "**Research only.**" in text
    assert str(finished) not in text
    assert card_of(finished, licence="mit").startswith("---\nlicense: mit\n")  # its own card is made again


def test_the_runs_own_note_of_its_data_is_enough(finished: Path) -> None:
    shutil.copyfile(finished / "data" / "meta.json", finished / "run" / "data.json")
    assert "| 0.25 | 20.0% |" in card_of(finished)
    (finished / "run" / "data.json").unlink()
    assert "The classes of the training data are unknown." in card_of(finished)


def test_what_does_not_belong_to_the_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    grades = evaluated(tmp_path / "grades", finished / "data")
    with pytest.raises(OchatError, match="replies of another model"):
        card_of(finished, evaluation=(grades,))
    shutil.copytree(finished / "data", tmp_path / "data")
    write_json(tmp_path / "data" / "meta.json", {"model_type": "x", "tokenizer_sha256": "", "heldout_rows": 0})
    with pytest.raises(OchatError, match="is not the data set that"):
        card_of(finished, data=tmp_path / "data")
    with pytest.raises(OchatError, match=r"--source-licences names x\.jsonl\. The data's files: mix\.jsonl"):
        card_of(finished, data=finished / "data", source_licences={"x.jsonl": "mit"})


def test_a_readme_that_somebody_wrote_is_kept(finished: Path, tmp_path: Path) -> None:
    final = shutil.copytree(finished / "run" / "final", tmp_path / "final")
    (final / "README.md").write_text("Mine.", encoding="utf-8")
    with pytest.raises(OchatError, match="was not made by this command"):
        main(Options(final))
    assert (final / "README.md").read_text(encoding="utf-8") == "Mine."


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="nothing is not a folder"):
        main(Options(tmp_path / "nothing"))
    with pytest.raises(OchatError, match=r"has no openchat\.json"):
        main(Options(tmp_path))


def test_a_wrong_run_is_named_once(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(OchatError) as caught:
        card_of(finished, run=tmp_path / "nope")
    said = f"{tmp_path}/nope/config.json can't be read (No such file or directory). Check the folder's name."
    assert str(caught.value) == said
