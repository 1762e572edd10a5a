import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.cli import main
from ochat.conversation import Conversation
from ochat.registry import load_template, model_type

ROW = {"items": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi", "weight": 0.1}]}
VECTORS = "template_vectors/openchat_3.5.jsonl.gz"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], toy_folder: Callable[..., Path]) -> Callable[..., str]:
    """What `ochat template show` prints for a file, with a toy of OpenChat 3.5's tokenizer or the one that is named."""

    def run(file: Path, *options: str) -> str:
        if "--tokenizer" not in options:
            options = ("--tokenizer", str(toy_folder("openchat_v3.2_mistral")), *options)
        main(["template", "show", str(file), *options])
        return capsys.readouterr().out

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """A file with these rows."""

    def write(*rows: object) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("tokenizer", ["rebuilt", "given"])
@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
def test_the_originals_vectors_are_printed(
    test_file: Callable[[str], Path],
    openchat_folder: Path,
    show: Callable[..., str],
    rows: Callable[..., Path],
    tokenizer: str,
    inference: bool,
) -> None:
    with gzip.open(test_file(VECTORS), "rt", encoding="utf-8") as file:
        vectors = [vector for vector in map(json.loads, file) if vector["inference"] is inference]
    assert len(vectors) > 100
    folder = openchat_folder if tokenizer == "rebuilt" else test_file("tokenizers/openchat_3.5")
    path = rows(*(vector["conversation"] for vector in vectors))
    flags = ["--inference"] if inference else []
    lines = show(path, "--tokenizer", str(folder), "--model-type", "openchat_3.5", "--json", *flags).splitlines()
    expected = [
        {"tokens": vector["tokens"], "weights": vector["weights"] or [0.0] * len(vector["tokens"])} for vector in vectors
    ]
    assert [json.loads(line) for line in lines] == expected


def test_people_see_the_text_the_ids_and_the_weights(
    show: Callable[..., str], rows: Callable[..., Path], openchat_folder: Path
) -> None:
    path = rows(ROW, {**ROW, "condition": "Code"})
    shown = show(path, "--tokenizer", str(openchat_folder), "--model-type", "openchat_3.5")
    first, second, _ = shown.split("\n\n")
    assert first.splitlines() == [
        f"{path}:1: 9 tokens, weight sum 0.2",
        "<s> User: Hello<|end_of_turn|> Assistant:Hi<|end_of_turn|>",
        "ids      [1, 1247, 28747, 22557, 32000, 21631, 28747, 15359, 32000]",
        "weights  0 x 7, 0.1 x 2",
    ]
    assert second.startswith(f"{path}:2: 11 tokens")


def test_inference_shows_the_prompt_with_the_default_condition(
    show: Callable[..., str], rows: Callable[..., Path], openchat_folder: Path
) -> None:
    row = {"items": [ROW["items"][0], {"role": "assistant", "content": ""}]}
    (line,) = show(
        rows(row), "--tokenizer", str(openchat_folder), "--model-type", "openchat_3.5", "--inference", "--json"
    ).splitlines()
    assert json.loads(line)["tokens"] == [
        *(1, 420, 6316, 28781, 3198, 3123, 1247, 28747, 22557, 32000),
        *(420, 6316, 28781, 3198, 3123, 21631, 28747),
    ]


@pytest.mark.parametrize("name", ["openchat_v3.2_mistral", "openchat_smollm2"])
@pytest.mark.parametrize("n_items", [1, 2, 3])
def test_inference_shows_what_the_server_would_send(
    show: Callable[..., str], rows: Callable[..., Path], toy_folder: Callable[..., Path], name: str, n_items: int
) -> None:
    said = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "the end"},
    ]
    row = {"items": said[:n_items]}
    (line,) = show(rows(row), "--tokenizer", str(toy_folder(name)), "--inference", "--json").splitlines()
    prompt = load_template(model_type(name), toy_folder(name)).prompt(Conversation.model_validate(row))
    assert json.loads(line) == {"tokens": prompt, "weights": [0.0] * len(prompt)}


def test_the_datas_own_escape_sequences_do_not_reach_the_terminal(
    show: Callable[..., str], rows: Callable[..., Path], toy_folder: Callable[..., Path]
) -> None:
    row = {"items": [{"role": "user", "content": "a\x1b[2Jb\r\x7f\x9b\tc\n\u2028é"}]}
    text = show(rows(row), "--tokenizer", str(toy_folder("openchat_3.6")), "--inference")
    assert "a\\x1b[2Jb\\r\\x7f\\x9b\tc\n\u2028é" in text


def test_the_type_is_read_from_the_tokenizers_folder(
    show: Callable[..., str], rows: Callable[..., Path], toy_folder: Callable[..., Path]
) -> None:
    folder = toy_folder("openchat_3.6")
    template = load_template(model_type("openchat_3.6"), folder)
    (line,) = show(rows(ROW), "--tokenizer", str(folder), "--json").splitlines()
    tokens = json.loads(line)["tokens"]
    assert template.tokenizer.decode(tokens).startswith(
        "<|begin_of_text|><|start_header_id|>User<|end_header_id|>\n\nHello<|eot_id|>"
    )


def test_compressed_rows_are_shown(show: Callable[..., str], rows: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(rows(ROW).read_bytes()))
    assert show(path, "--json") == show(rows(ROW), "--json")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"items": [{"role": "assistant", "content": "Hi"}]}, "assistant message has no `weight`. Give 1.0 to learn from it"),
        ({"items": [{"role": "assistant", "content": "Hi", "weight": -1}]}, "items.0.weight: Input should be greater"),
        (
            {"items": [{"role": "assistant", "content": "Hi", "weight": float("nan")}]},
            "items.0.weight: Input should be a finite",
        ),
        ({"items": [{"role": "tool", "content": "Hi"}]}, "items.0.role: Input should be 'user' or 'assistant'"),
        ({"items": [{"role": "user", "content": "\ud800"}]}, "items.0.content: half of a character"),
        ({"items": []}, "items: there is no message"),
        ({**ROW, "sytem": ""}, "sytem: Extra inputs are not permitted"),
        ({**ROW, "condition": "<s>"}, "The condition '<s>' holds a control token"),
        ({**ROW, "condition": " Code"}, "The condition ' Code' must be one line"),
    ],
)
def test_a_row_that_cannot_be_rendered_is_named(
    show: Callable[..., str], rows: Callable[..., Path], row: object, problem: str
) -> None:
    path = rows(ROW, row)
    with pytest.raises(SystemExit) as caught:
        show(path)
    message = caught.value.code
    assert isinstance(message, str)  # which Python prints, with status 1
    assert message.startswith(f"ochat: {path}:2: {problem}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tokenizer", "./absent"], "./absent is not a folder. Give a model's folder or a hub id"),
        (
            ["--tokenizer", "{empty}"],
            "{empty} has no openchat.json that tells its model type, and no chat template that does. Pass one with --model-type: ",
        ),
        (["--tokenizer", "{empty}", "--model-type", "gemma_it"], "{empty} has no tokenizer.json. Convert"),
        (
            ["--tokenizer", "{openchat_3.5}", "--model-type", "openchat_3.7"],
            "Unknown model type 'openchat_3.7'. Known: openchat_3.6, ",
        ),
        (
            ["--tokenizer", "{openchat_3.5}", "--model-type", "gemma_it"],
            "The tokenizer has no token <end_of_turn>, which ends a turn",
        ),
        (["--tokenizer", "someone/absent"], "someone/absent is not in the hub's cache and the hub can't be reached."),
        (["--tokenizer", "not a name"], "not a name is neither a folder nor a model on the hub."),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named(
    show: Callable[..., str],
    rows: Callable[..., Path],
    tmp_path: Path,
    toy_folder: Callable[..., Path],
    options: list[str],
    problem: str,
) -> None:
    (tmp_path / "empty").mkdir()

    def filled(text: str) -> str:
        return text.replace("{empty}", str(tmp_path / "empty")).replace(
            "{openchat_3.5}", str(toy_folder("openchat_v3.2_mistral"))
        )

    with pytest.raises(SystemExit) as caught:
        show(rows(ROW), *map(filled, options))
    assert str(caught.value.code).startswith(f"ochat: {filled(problem)}")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("bad.jsonl", b"{\n", ":1: not JSON"),
        ("blank.jsonl", json.dumps(ROW).encode() + b"\n\n", ":2: the line is empty"),
        ("latin.jsonl", b'{"items": "\xe9"}\n', ":1: not UTF-8"),
        ("cut.jsonl.gz", gzip.compress(json.dumps(ROW).encode())[:-9], ": can't be read ("),
        ("absent.jsonl", None, ": can't be read ("),
        (".", None, ": can't be read ("),
    ],
)
def test_a_file_that_cannot_be_read_ends_in_one_line(
    show: Callable[..., str], tmp_path: Path, name: str, content: bytes | None, place: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        show(path)
    assert str(caught.value.code).startswith(f"ochat: {path}{place}")
    assert "\n" not in str(caught.value.code)


def test_a_users_mistake_ends_with_status_1_and_no_trace(rows: Callable[..., Path], toy_folder: Callable[..., Path]) -> None:
    path = rows(ROW, {"items": [{"role": "assistant", "content": "\ud800", "weight": 1}]})
    command = [sys.executable, "-m", "ochat.cli", "template", "show", str(path), "--tokenizer", str(toy_folder("openchat_3.6"))]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1  # the good row before it
    assert done.stderr.startswith(f"ochat: {path}:2: items.0.content: half of a character")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_stops_early_stops_the_command(rows: Callable[..., Path], toy_folder: Callable[..., Path]) -> None:
    path = rows(*[ROW] * 5000)
    command = [sys.executable, "-m", "ochat.cli", "template", "show", str(path), "--tokenizer", str(toy_folder("openchat_3.6"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(f"{path}:1: ")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141
