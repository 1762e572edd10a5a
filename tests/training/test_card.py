"""The card of a tiny checkpoint: its Python runs, its commands parse, and what users named stays text."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from toys import tiny_model

from ochat.conversation import Conversation, Message
from ochat.data.licences import is_non_commercial
from ochat.registry import MODEL_TYPES, ModelType, load_template, model_type
from ochat.serving.conditions import server_conditions, take_condition
from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.routes import routes_at
from ochat.training.card import CITATION, CardFacts, Evaluation, card_text, plain
from ochat.training.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent.parent
POOR = "It's `poor` 🚀"
DATA = {
    "sources": {"/somewhere/private/expert.jsonl": "a" * 64, "more/mediocre.jsonl": "b" * 64},
    "train_rows": 5,
    "heldout_rows": 1,
    "tokens": 900,
    "classes": {
        "expert": {"rows": 2, "learned_tokens": 100, "weight_sum": 100.0},
        "sub|optimal": {"rows": 3, "learned_tokens": 500, "weight_sum": 50.0},
    },
    "conditions": ["GPT4 Correct", POOR],
    "class_conditions": {"expert": ["GPT4 Correct"], "sub|optimal": [POOR]},
}
FACTS = CardFacts(
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="apache-2.0",
    data=DATA,
    source_licences={"mediocre.jsonl": "cc-by-nc-4.0"},
    settings={"model": "x", "epochs": 3, "lr": None, "data_sha256": "c" * 64, "config": "/somewhere/private/run.yaml"},
    last_evaluation={"step": 30, "heldout": {"expert": {"tokens": 300, "nll": 1.125, "accuracy": 0.705}}},
    evaluations=[Evaluation("grades", "", 200, 190, 0.94, 0.898, 0.965)],
)


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


def requests_of(card: str) -> list[dict[str, object]]:
    """The body of each curl as a shell would send it."""
    commands = [shlex.split(block.replace("\\\n", " ")) for block in blocks(card, "bash")]
    return [json.loads(words[words.index("-d") + 1]) for words in commands if words[0] == "curl"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[..., Path]) -> Path:
    kind, source = model_type("openchat_smollm2"), toy_folder("openchat_smollm2")
    folder = tmp_path_factory.mktemp("run") / "final"
    save_checkpoint(tiny_model(load_template(kind, source).tokenizer.vocab_size), source, kind, folder)
    (folder / "README.md").write_text(card_text(kind, load_template(kind, folder), FACTS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def card(checkpoint: Path) -> str:
    return (checkpoint / "README.md").read_text(encoding="utf-8")


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_cards_python_runs_and_a_wrong_id_in_it_is_found(checkpoint: Path, card: str) -> None:
    tokens, generation = blocks(card, "python")
    assert tokens.count("assert ") == 4
    done = run_python(f"{tokens}\n{generation}", checkpoint)
    assert done.returncode == 0, done.stderr[-2000:]
    first_id = re.search(r"assert ids == \[\n    (\d+)", tokens)
    assert first_id
    wrong = tokens[: first_id.start(1)] + str(int(first_id[1]) + 1) + tokens[first_id.end(1) :]
    assert "AssertionError" in run_python(wrong, checkpoint).stderr


@pytest.mark.parametrize("kind", MODEL_TYPES, ids=lambda kind: kind.name)
def test_the_asserted_ids_are_what_transformers_gives_for_every_type(
    tmp_path: Path, toy_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: ModelType
) -> None:
    template = load_template(kind, toy_folder(kind.name))
    save_checkpoint(tiny_model(template.tokenizer.vocab_size), toy_folder(kind.name), kind, tmp_path / "final")
    monkeypatch.chdir(tmp_path / "final")
    text = card_text(kind, template, CardFacts())
    exec(blocks(text, "python")[0], {})
    requests = requests_of(text)
    assert [request["model"] for request in requests] == [kind.served_names[0]] * len(requests)
    assert ["condition" in request for request in requests] == [False, True][: 1 + kind.format.takes_condition]


def test_the_serving_command_is_understood_and_finds_the_model(
    checkpoint: Path, card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ochat.serving.openai_api_server import check_model

    (serve,) = [shlex.split(block) for block in blocks(card, "bash") if block.startswith("ochat ")]
    assert serve[:2] == ["ochat", "serve"]
    monkeypatch.chdir(checkpoint)
    check_model(serve[2:])
    code = "import json, sys\nfrom ochat.serving.openai_api_server import make_parser\n"
    code += f"args = make_parser().parse_args(json.loads({json.dumps(serve[2:])!r}))\nprint(args.model, args.port)"
    done = run_python(code, checkpoint)
    assert done.stdout.split() == [".", "18888"], done.stderr[-2000:]


def test_the_curls_send_what_the_server_takes(checkpoint: Path, card: str) -> None:
    plain_request, conditioned = requests_of(card)
    assert "condition" not in plain_request
    assert conditioned["condition"] == POOR
    served = server_conditions(model_type("openchat_smollm2"), GatewayOptions(conditions=(POOR,)))
    assert take_condition(dict(conditioned), routes_at("/v1/chat/completions")["POST"], served) == POOR
    template = load_template(model_type("openchat_smollm2"), checkpoint)
    template.prompt(Conversation(items=(Message(role="user", content="x"),), condition=str(conditioned["condition"])))


def test_the_front_matter_is_read_by_the_hubs_library(card: str) -> None:
    from huggingface_hub import ModelCard

    fields = ModelCard(card).data.to_dict()
    assert fields == {
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["openchat", "C-RLFT", "ochat"],
    }


def test_the_tables_have_the_runs_numbers(card: str) -> None:
    assert "| expert | GPT4 Correct | 2 | 100 | 1 | 66.7% |" in card
    assert "| sub\\|optimal | It's \\`poor\\` 🚀 | 3 | 500 | 0.1 | 33.3% |" in card
    assert "| expert | 300 | 1.125 | 70.5% |" in card
    assert "| epochs | 3 |" in card
    assert "| lr | not set |" in card
    assert "| grades | the default | 200 | 190 | 0.940 [0.898, 0.965] |" in card
    assert "in the training data: `GPT4 Correct`, `` It's `poor` 🚀 ``" in card


def test_a_non_commercial_source_says_research_only(card: str) -> None:
    assert "**Research only.** Licences that forbid commercial use: mediocre.jsonl (cc-by-nc-4.0)." in card
    assert f"| expert.jsonl | `{'a' * 16}`… | unknown |" in card
    assert f"| mediocre.jsonl | `{'b' * 16}`… | cc-by-nc-4.0 (research only) |" in card


@pytest.mark.parametrize(
    ("licence", "forbidden"),
    [
        ("cc-by-nc-4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("fair-noncommercial-research-license", True),
        ("Non-Commercial", True),
        ("research-only", True),
        ("apache-2.0", False),
        ("cc-by-4.0", False),
        ("ncsa", False),
        ("bigscience-openrail-m", False),
        ("", False),
    ],
)
def test_licences_that_forbid_commercial_use_are_known(licence: str, forbidden: bool) -> None:
    assert is_non_commercial(licence) is forbidden


def test_what_is_not_known_is_called_unknown_and_no_folder_of_one_machine_is_told(
    card: str, toy_template: Callable[..., object]
) -> None:
    assert "/somewhere" not in card
    kind = model_type("openchat_3.6")
    facts = CardFacts(base_model="/somewhere/base", base_is_local=True)
    bare = card_text(kind, toy_template("openchat_3.6"), facts)
    assert "base_model" not in yaml.safe_load(bare.split("---")[1])
    assert "/somewhere" not in bare
    for part in ("licence of this model", "classes of the training data", "settings of the training run", "sources"):
        assert re.search(rf"{part}.* unknown", bare), part
    assert "has not been evaluated" in bare


def test_a_default_condition_that_was_not_trained_is_told(toy_template: Callable[..., object]) -> None:
    facts = CardFacts(data={"conditions": ["", "Poet"]})
    text = card_text(model_type("openchat_3.6"), toy_template("openchat_3.6"), facts)
    assert "**The default, GPT4 Correct, was not in the training data**" in text
    assert requests_of(text)[1]["condition"] == "Poet"


def test_an_adapters_card_sends_to_the_merge_first(toy_template: Callable[..., object]) -> None:
    text = card_text(model_type("openchat_3.6"), toy_template("openchat_3.6"), CardFacts(is_adapter=True))
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "peft"
    assert "`ochat model merge`" in text
    assert "ochat serve --model" not in text
    assert len(blocks(text, "python")) == 1


def test_names_of_users_stay_text() -> None:
    assert plain("a|b\n# <b>*x*</b> [y](z) `c` & d") == (r"a\|b \# &lt;b&gt;\*x\*&lt;/b&gt; \[y\](z) \`c\` &amp; d")


def test_the_citation_is_the_repositorys() -> None:
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    assert f"title = {{{paper['title']}}}" in CITATION
    authors = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    assert f"author = {{{authors}}}" in CITATION
    assert f"year = {{{paper['year']}}}" in CITATION
    assert f"url = {{{paper['url']}}}" in CITATION
