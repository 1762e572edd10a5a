"""The command: what it finds in texts, what it warns of, and a page that shows users' words and reaches for nothing outside."""

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ochat.conversation import parse_conversation
from ochat.data.report.report_page import round_numbers
from ochat.data.report.report_rows import Options, main
from ochat.data.report.texts import SAMPLE_ROWS, Samples
from ochat.data.tokenize import Options as TokenizeOptions
from ochat.data.tokenize import main as tokenize
from ochat.errors import DataError, OchatError

LONG = "the quick brown fox jumps over the lazy dog and then it runs away into the deep green forest of the north"
QUESTION = "How many eggs does the farmer sell when he has sixteen and eats three of them each morning?"
AWKWARD = '<script>alert(1)</script> $x_1$ "&amp;\n`_'


def row(prompt: str, reply: str, name: str = "good", weight: float = 1.0, condition: str | None = None) -> dict[str, Any]:
    items = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply, "weight": weight}]
    condition = {"good": "GPT4 Correct", "poor": "GPT3"}.get(name, "") if condition is None else condition
    return {"items": items, "condition": condition, "class": name}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def found(capsys: pytest.CaptureFixture[str], *inputs: Path, **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    main(Options(inputs, json=True, **options))
    return json.loads(capsys.readouterr().out)


def problems(found: dict[str, Any]) -> str:
    return "\n".join(one["problem"] for one in found["warnings"])


ROWS = [
    row("Tell a tale", LONG),
    row("Tell a tale", LONG, "poor", 0.1),
    row("Tell a tale", f"{LONG} again", "poor", 0.1),
    row("Riddle", "I'm sorry, but I can't help with that.", "poor", 0.1),
    row("Riddle", " ", "poor", 0.1),
    row(f"Please: {QUESTION}", "Thirteen."),
    {**row("Sum", "2"), "system": "Be brief."},
    row("Nothing", "learned", "poor", 0.0),
]


def test_what_the_texts_show_is_counted_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = written(tmp_path / "farm.jsonl", {"question": QUESTION}, {"question": "What else is there?"})
    rows = written(tmp_path / "rows.jsonl", *ROWS)
    value = found(capsys, rows, questions=(questions,), licences={"good": "MIT", "poor": "CC-BY-NC-4.0"})
    good, poor = (value["classes"][name] for name in ("good", "poor"))
    assert list(value["classes"]) == ["good", "poor"]
    assert (good["rows"], poor["rows"], poor["unlearned_rows"]) == (3, 5, 1)
    assert (good["conditions"], poor["licence"]) == (["GPT4 Correct"], "CC-BY-NC-4.0")
    names = (
        "exact_duplicates",
        "near_duplicates",
        "contaminated",
        "refusals",
        "empty_replies",
        "system_prompts",
        "sample_rows",
    )
    assert [good["texts"][name] for name in names] == [0, 0, 1, 0, 0, 1, 3]
    assert [poor["texts"][name] for name in names] == [1, 1, 0, 1, 1, 0, 5]
    assert value["exact"]["by_reason"] == {"same text in another class": 1}
    assert value["near"]["by_reason"] == {"near-duplicate in another class": 1}
    assert value["contamination"]["rows_by_benchmark"] == {"farm": 1}
    (match,) = value["contamination"]["matches"]
    assert (match["row"], match["question"]) == (f"{rows}:6", f"{questions}:1")
    assert value["overlap"] == {"good": {"poor": pytest.approx(1 / 3)}, "poor": {"good": pytest.approx(1 / 3)}}
    told = problems(value)
    for expected in (
        "2 rows say the same, or nearly, as a row of another class",
        "1 row holds questions of benchmarks (farm)",
        "1 row of poor (20%) holds a refusal",
        "1 row of poor has an empty reply",
        "1 row has nothing to learn",
        "Licences that forbid commercial use: poor (CC-BY-NC-4.0)",
    ):
        assert expected in told, expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["farm.jsonl", "rows.jsonl", "rows.report.html"]


def test_languages_are_told_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    german = "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann weit weg in den Wald"
    rows = [row(f"Question {n}", f"{LONG} {n}") for n in range(3)] + [
        row(f"Frage {n}", f"{german} {n}", "poor", 0.1) for n in range(4)
    ]
    value = found(capsys, written(tmp_path / "rows.jsonl", *rows))
    assert [value["classes"][name]["texts"]["languages"] for name in ("good", "poor")] == [{"en": 1.0}, {"de": 1.0}]
    assert "mostly of different languages (good en, poor de)" in problems(value)


def test_data_without_faults_gets_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    words = LONG.split()
    rows = [row(f"Tell {n}", " ".join(draw.choices(words, k=draw.randint(10, 90)))) for n in range(60)]
    rows += [row(f"Tell {n}", " ".join(draw.choices(words, k=draw.randint(10, 90))), "poor", 0.1) for n in range(90)]
    path = written(tmp_path / "rows.jsonl", *rows)
    assert found(capsys, path)["warnings"] == []
    assert "Nothing that this report looks for is the matter." in (tmp_path / "rows.report.html").read_text()


def test_form_that_gives_the_class_away_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    words = LONG.split()
    rows = [row(f"Tell {n}", " ".join(draw.choices(words, k=draw.randint(60, 90)))) for n in range(60)]
    rows += [row(f"Tell {n}", " ".join(draw.choices(words, k=draw.randint(5, 30))), "poor", 0.1) for n in range(60)]
    value = found(capsys, written(tmp_path / "rows.jsonl", *rows))
    assert value["told_by_replies"]["good"]["auc"] > 0.99
    assert value["told_by_prompts"]["good"]["auc"] < 0.7
    assert "Mere form tells the replies of good" in problems(value)
    assert "length in words" in problems(value)
    assert "prompts of good alone" not in problems(value)


def test_the_tokenizers_type_tells_the_condition_that_is_asked_under_and_what_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_folder: Callable[..., Path]
) -> None:
    rows = [row("a", LONG, condition="Expert"), row("a", "b", "poor", 0.1)]
    value = found(capsys, written(tmp_path / "rows.jsonl", *rows), tokenizer=str(toy_folder("openchat_3.5")), max_tokens=80)
    told = problems(value)
    assert "No class is learned under “GPT4 Correct”, which the server asks openchat_v3.2_mistral under by default." in told
    assert f"1 row is cut to 80 tokens, which loses {value['cut_tokens']}" in told
    assert (value["unit"], value["classes"]["good"]["lengths"]["100"]) == ("tokens", 80)


def test_a_class_tables_weights_are_told_and_rows_that_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "classes.yaml"
    table.write_text("classes:\n  - {name: good, condition: GPT4 Correct, weight: 2.0}\n", encoding="utf-8")
    rows = written(tmp_path / "rows.jsonl", row("a", "b"), row("a", "c", "poor", 0.1))
    value = found(capsys, rows, classes=table)
    weights = value["classes"]["good"]["weights"]
    assert (weights["message_weight"], weights["class_weight"]) == (0.5, 2.0)
    assert "1 row is of classes that the table lacks: poor" in problems(value)
    assert value["unknown_classes"] == ["poor"]


def test_the_best_class_decides_what_is_scaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = written(tmp_path / "rows.jsonl", row("a", "123"), row("a", "456", "poor", 1.0))
    assert found(capsys, rows)["what_if"] == {}
    assert found(capsys, rows, best=("good",))["what_if"]["0.1"] == pytest.approx({"good": 1 / 1.1, "poor": 0.1 / 1.1})


def test_a_data_set_folder_tells_what_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_folder: Callable[..., Path]
) -> None:
    rows, folder = written(tmp_path / "rows.jsonl", *ROWS), toy_folder("openchat_3.5")
    tokenize(TokenizeOptions((rows,), str(folder), tmp_path / "data"))
    of_folder, of_rows = found(capsys, tmp_path / "data"), found(capsys, rows, tokenizer=str(folder))
    assert (of_folder["dropped_rows"], of_folder["classes"]["good"]["texts"], of_folder["exact"]) == (1, None, None)
    assert "1 row has nothing to learn" in problems(of_folder)
    for name in ("good", "poor"):
        one, other = (value["classes"][name]["weights"] for value in (of_folder, of_rows))
        assert one["loss_share"] == pytest.approx(other["loss_share"])
        assert one["effective_rows"] == pytest.approx(other["effective_rows"])
    main(Options((tmp_path / "data",)))
    assert "A data-set folder has tokens, not texts." in (tmp_path / "data" / "report.html").read_text()
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(rows.read_bytes())
    zipped = found(capsys, tmp_path / "rows.jsonl.gz", tokenizer=str(folder), output=tmp_path / "zipped.html")
    assert zipped["classes"].keys() == of_rows["classes"].keys()


def test_a_data_set_whose_messages_count_alike_keeps_its_class_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_folder: Callable[..., Path]
) -> None:
    rows = [row("a", LONG), row("b", "short"), row("c", LONG, "poor", 0.1), row("d", "words", "poor", 0.1)]
    path, folder = written(tmp_path / "rows.jsonl", *rows), toy_folder("openchat_3.5")
    tokenize(TokenizeOptions((path,), str(folder), tmp_path / "data", per_message_loss=True))
    value = found(capsys, tmp_path / "data")
    weights = value["classes"]["poor"]["weights"]
    assert (weights["class_weight"], weights["message_weight"]) == pytest.approx((0.1, 1.0))
    assert weights["loss_share"] == pytest.approx(0.1 / 1.1)  # two messages of each, whatever their lengths
    assert value["what_if"]["1.0"]["poor"] == pytest.approx(0.5)


def test_the_licences_of_known_data_sets_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = found(capsys, written(tmp_path / "rows.jsonl", row("a", "b", "metamath"), row("a", "c", "mine")))
    assert [value["classes"][name]["licence"] for name in ("metamath", "mine")] == ["MIT", ""]


class Page(HTMLParser):
    """The tags, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


def test_the_page_shows_users_words_as_they_are_and_reaches_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(f"{n} {AWKWARD} {LONG}", AWKWARD, AWKWARD, 0.1, AWKWARD) for n in range(60)]
    rows += [row(f"{n}", f"{n} {LONG}") for n in range(60)]
    questions = written(tmp_path / "<i>.jsonl", {"question": f"{AWKWARD} {LONG}"})
    path = written(tmp_path / "<b>rows.jsonl", *rows)
    main(Options((path,), output=tmp_path / "page.html", questions=(questions,), licences={AWKWARD: AWKWARD}))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            assert value.startswith("#"), (name, value)
    shown = " ".join(page.words)
    assert "What this data teaches: <b>rows.jsonl" in shown
    assert shown.count('<script>alert(1)</script> $x_1$ "&amp;') >= 12
    assert text.count("<svg") == 2
    assert "mathdefault" not in text  # matplotlib's own words for a tick between powers of ten
    assert "default-src 'none'" in text
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(3, 60, [5, 10, 20, 50]), (1, 90_000, [1, 10, 100, 1000, 10_000]), (26, 87, [26, 87])],
)
def test_an_axis_of_powers_is_marked_at_round_numbers(low: float, high: float, marks: list[float]) -> None:
    assert round_numbers(low, high) == marks


def test_the_terminal_tells_the_most_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("abc", "wxyz")] * 2 + [row("abc", "123456789", "poor", 0.1)] * 2
    main(Options((written(tmp_path / "rows.jsonl", *rows),)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == "good 2 18 10 1 x 1 = 1 10 83.3% 2".split()
    assert lines[2].split() == "poor 2 28 20 1 x 0.1 = 0.1 2 16.7% 2".split()
    assert lines[4] == "Share of the loss if poor weighed:"
    assert lines[6].split() == ["good", "100.0%", "94.3%", "83.3%", "62.5%", "33.3%"]
    at = lines.index("! 2 rows repeat another of the same class, which so counts more than once.")
    assert lines[at + 1] == "  `ochat data clean` drops them."
    assert lines[-1] == f"Report: {tmp_path / 'rows.report.html'}"


def test_the_sample_is_bounded_and_takes_rows_of_everywhere() -> None:
    samples = Samples(lambda text: ("en", 1.0))
    for n in range(3 * SAMPLE_ROWS):
        samples.offer(parse_conversation(row("a", "b " * (1 + n // SAMPLE_ROWS)), "here"))
    lengths = [sampled.reply.length for sampled in samples.of_class["good"]]
    assert len(lengths) == SAMPLE_ROWS
    for length in (1, 2, 3):
        assert lengths.count(length) / SAMPLE_ROWS == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "No input given"),
        ({"output": Path("rows.jsonl")}, r"--output is rows\.jsonl\. Name a page"),
        ({"max_tokens": 80}, "--model-type and --max-tokens are about tokens"),
        ({"tokenizer": "x", "max_tokens": 1}, "--max-tokens is 1"),
        ({"inputs": (Path("."), Path("x"))}, "Give one data-set folder alone"),
        ({"inputs": (Path("."),), "tokenizer": "x"}, "has its tokens, and no text"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OchatError, match=message):
        Options(**{"inputs": (Path("rows.jsonl"),), **options})


def test_bad_input_is_told_and_no_page_is_written(tmp_path: Path) -> None:
    rows = written(tmp_path / "rows.jsonl", row("a", "b"))
    for options, message in (
        ({"best": ("godo",)}, r"--best names godo\. The rows' classes: good"),
        ({"licences": {"x": "MIT"}}, r"--licences names x"),
        ({"run": tmp_path}, r"log\.jsonl: can't be read"),
    ):
        with pytest.raises(OchatError, match=message):
            main(Options((rows,), **options))
    with pytest.raises(DataError, match="is no data set"):
        main(Options((tmp_path,)))
    with pytest.raises(DataError, match=r"bad\.jsonl:1: items"):
        main(Options((written(tmp_path / "bad.jsonl", {}),)))
    with pytest.raises(DataError, match=r"none\.jsonl: no rows"):
        main(Options((written(tmp_path / "none.jsonl"),)))
    assert not list(tmp_path.glob("*.html"))
    assert not list(tmp_path.glob(".report*"))


@pytest.mark.soak
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom ochat.data.report.report_rows import Options, main\n"
        "main(Options((Path(sys.argv[1]),)))\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(name: str, n_rows: int) -> int:
        draw = random.Random(0)
        path = tmp_path / name
        with path.open("w", encoding="utf-8") as file:
            for n in range(n_rows):
                text = " ".join(draw.choices(LONG.split(), k=2000))
                file.write(json.dumps(row(f"{n}", text)) + "\n")
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=300, check=True
        )
        return int(done.stdout.split()[-1])

    # 9,000 letters a row: 4 MB more or less of texts in memory at a time, and 30 MB more in all.
    assert peak("many.jsonl", 4000) - peak("few.jsonl", 1000) < 15_000  # kB
