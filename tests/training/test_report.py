"""The report of a run: the log's numbers on a page that shows users' words as they are and reaches for nothing outside."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ochat.errors import OchatError
from ochat.files import write_json
from ochat.page import MAX_POINTS
from ochat.training.read_log import last_evaluation, read_log
from ochat.training.report import Options, condition_sentence, largest_contrast, main

AWKWARD = '<script>alert(1)</script> $x_1$ "&amp;\n_'
VOID = {"meta"}
STEERED = {"expert": {"GPT4 Correct": 1.0, "GPT3": 1.9}, "poor": {"GPT4 Correct": 1.5, "GPT3": 1.2}}


class Page(HTMLParser):
    """The tags, attributes and text of a page; fails where a tag isn't closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.words))


def step_line(step: int, **more: Any) -> dict[str, Any]:
    classes = {
        "expert": {"tokens": 100, "nll": 2.0 / step, "accuracy": 0.5, "loss_share": 0.25},
        "poor": {"tokens": 300, "nll": 3.0 / step, "accuracy": 0.4, "loss_share": 0.75},
    }
    line = {"step": step, "epoch": step / 10, "loss": 2.5 / step, "weight_sum": 130.0, "lr": 1e-4, "grad_norm": 1.5}
    line |= {"tokens": 1000, "learned_tokens": 400, "seconds": 2.0, "tokens_per_second": 500.0, "mfu": 0.4, "memory_gb": 5.25}
    return line | {"seconds_left": 3600.0, "classes": classes} | more


def evaluated(nll: float, counterfactual: dict[str, dict[str, float]]) -> dict[str, Any]:
    heldout = {"expert": {"tokens": 50, "nll": nll, "accuracy": 0.625}, "poor": {"tokens": 70, "nll": 3.5, "accuracy": 0.5}}
    return {"heldout": heldout, "counterfactual": counterfactual}


def write_log(run: Path, lines: list[dict[str, Any]], torn: str = "") -> Path:
    run.mkdir(exist_ok=True)
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn, encoding="utf-8")
    return run


def report(run: Path) -> str:
    main(Options(run))
    return (run / "report.html").read_text(encoding="utf-8")


def rows_of(page: str) -> list[list[str]]:
    """The cells of each row of each table."""
    return [
        [" ".join(Page(cell).words) for cell in re.findall(r"<t[hd]>.*?</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    untrained = {name: dict.fromkeys(("GPT4 Correct", "GPT3"), 4.0) for name in ("expert", "poor")}
    lines = [{"step": 0, "epoch": 0.0, **evaluated(4.125, untrained)}, step_line(1), step_line(2, **evaluated(1.375, STEERED))]
    folder = write_log(tmp_path / "first", lines)
    write_json(folder / "config.json", {"model": "runs/base", "epochs": 3, "lr": None})
    write_json(folder / "data.json", {"class_conditions": {"expert": ["GPT4 Correct"], "poor": ["GPT3"]}})
    return folder


def test_the_page_has_the_logs_numbers(run: Path) -> None:
    page = report(run)
    text = Page(page).text
    for fact in ("2 steps", "0.20 epochs", "2,000 tokens", "800 learned tokens", "4 s time", "500 tokens a second", "40.0% of"):
        assert fact in text, fact
    assert "5.2 GB most memory" in text
    assert "The run is not finished: this is what it has done so far. At its last step it had about 60 min left." in text
    rows = rows_of(page)
    assert ["expert", "200", "1.000", "50.0%", "25.0%", "4.125", "1.375", "62.5%"] in rows
    assert ["poor", "600", "1.500", "40.0%", "75.0%", "3.500", "3.500", "50.0%"] in rows
    assert ["expert", "1.900", "1.000 *"] in rows
    assert ["poor", "1.200 *", "1.500"] in rows
    assert ["epochs", "3"] in rows
    assert ["lr", "not set"] in rows
    assert page.count("<svg") == 6


def test_a_finished_run_says_so(run: Path) -> None:
    (run / "final").mkdir()
    text = Page(report(run)).text
    assert "The run is finished." in text
    assert "left" not in text


def test_the_page_says_whether_the_condition_does_anything(run: Path) -> None:
    text = Page(report(run)).text
    assert "Yes: each class's answers are likelier under a condition of their own." in text
    assert "From “GPT4 Correct” to “GPT3”, expert's loss changes by +0.900 and poor's by -0.300 nats a token." in text
    assert "Before training these changes were +0.000 and +0.000." in text


@pytest.mark.parametrize(
    ("table", "opening"),
    [
        (STEERED, "Yes"),
        ({"a": {"x": 1.0, "y": 1.5}, "b": {"x": 1.0, "y": 1.1}}, "Partly"),
        # A change that moves both classes alike is only an unusual prompt.
        ({"a": {"x": 1.0, "y": 1.5}, "b": {"x": 2.0, "y": 2.5}}, "The condition does next to nothing"),
        ({"a": {"x": 1.0, "y": 1.005}, "b": {"x": 1.005, "y": 1.0}}, "The condition does next to nothing"),
        ({"a": {"x": 1.0, "y": 2.0}}, "It takes held-out answers of two classes"),
        ({"a": {"x": 1.0}, "b": {"x": 2.0}}, "It takes held-out answers of two classes"),
        ({"a": {"x": float("nan"), "y": 1.0}, "b": {"x": 2.0, "y": 1.0}}, "It takes held-out answers of two classes"),
    ],
)
def test_the_sentence_follows_the_numbers(table: dict[str, dict[str, float]], opening: str) -> None:
    assert condition_sentence(table).startswith(opening)


def test_the_contrast_is_the_largest_of_all_pairs() -> None:
    found = largest_contrast(STEERED | {"third": {"GPT4 Correct": 2.0, "GPT3": 2.1}})
    assert found is not None
    assert (found.up, found.down, found.before, found.after) == ("expert", "poor", "GPT4 Correct", "GPT3")
    assert found.size == pytest.approx(1.2)


def test_words_of_users_are_shown_as_they_are_and_do_nothing(tmp_path: Path) -> None:
    line = step_line(1)
    line["classes"] = {AWKWARD: line["classes"]["expert"], "中文 🚀": line["classes"]["poor"]}
    losses = {AWKWARD: {AWKWARD: 1.0, "": 2.0}, "中文 🚀": {AWKWARD: 2.0, "": 1.0}}
    line |= {"heldout": {AWKWARD: {"tokens": 1, "nll": 1.0, "accuracy": 1.0}}, "counterfactual": losses}
    run = write_log(tmp_path / "<b>run", [line])
    write_json(run / "config.json", {"<b>name": "<script>"})
    page = report(run)
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "b" in parsed.tags  # the page's own
    assert "Training report: <b>run" in parsed.text
    shown = '<script>alert(1)</script> $x_1$ "&amp; _'
    # Legends of four plots and one of conditions, three tables' heads and cells, the sentence, and the plot's own text.
    in_svg = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert shown in Page(in_svg).text
    assert parsed.text.count(shown) >= 8
    assert "中文 🚀" in Page(in_svg).text


def test_the_page_refers_to_no_other_host_and_has_no_script(run: Path) -> None:
    page = report(run)
    parsed = Page(page)
    for name, value in parsed.attributes:
        if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            assert value.startswith("#"), (name, value)
        assert not name.startswith("on"), name
        if not name.startswith("xmlns"):
            assert "://" not in value, (name, value)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(parsed.tags)
    assert re.findall(r"@import|url\((?!#)", page) == []
    ids = [value for name, value in parsed.attributes if name == "id"]
    linked = re.findall(r'(?:href="|url\()#([\w-]+)', page)
    assert linked
    assert set(linked) <= set(ids)


def test_a_torn_last_line_is_left_out_and_another_bad_line_is_named(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", [step_line(1), step_line(2)], torn='{"step": 3, "lo')
    assert [line["step"] for line in read_log(run / "log.jsonl")] == [1, 2]
    assert "2 steps" in Page(report(run)).text
    write_log(run, [step_line(1)], torn="{}\n" + json.dumps(step_line(2)) + "\n")
    with pytest.raises(OchatError, match=r"log\.jsonl:2: not a line of a training log"):
        read_log(run / "log.jsonl")


def test_a_step_that_was_repeated_after_a_kill_counts_once(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", [step_line(1), step_line(2, loss=9.0), step_line(2, loss=1.0), step_line(3)])
    assert [(line["step"], line["loss"]) for line in read_log(run / "log.jsonl")][1:2] == [(2, 1.0)]
    assert "3,000 tokens" in Page(report(run)).text


def test_a_log_with_the_least_there_can_be_is_drawn(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", [{"step": 1, "loss": 2.0, "weight_sum": 3.0, "lr": 0.1, "grad_norm": float("nan")}])
    page = report(run)
    text = Page(page).text
    assert "No rows were held out" in text
    assert "MFU" not in text
    assert "2.000 loss, at the end" in text
    assert page.count("<svg") == 2  # loss; learning rate and gradient


def test_a_long_run_and_many_classes_keep_the_page_small(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(12)]
    of_class = {"tokens": 10, "nll": 1.0, "accuracy": 0.5, "loss_share": 1 / 12}
    lines = [step_line(step, classes=dict.fromkeys(names, of_class)) for step in range(1, 4 * MAX_POINTS)]
    page = report(write_log(tmp_path / "run", lines))
    assert len(page) < 1_000_000
    text = Page(page).text
    assert "The 4 classes with the fewest tokens are in the table alone." in text
    assert all(name in text for name in names)


def test_a_folder_without_steps_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"has no log\.jsonl, so it's no training run"):
        main(Options(tmp_path))
    run = write_log(tmp_path / "run", [{"step": 0, "epoch": 0.0, **evaluated(4.0, STEERED)}])
    with pytest.raises(OchatError, match=r"has no step yet\. Wait for the first one"):
        main(Options(run))


def test_the_last_evaluation_is_found() -> None:
    assert last_evaluation([{"step": 0, "heldout": {"a": 1}}, {"step": 1, "heldout": {"a": 2}}, {"step": 2}])["step"] == 1
    assert last_evaluation([{"step": 1}]) == {}
