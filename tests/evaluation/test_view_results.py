"""Tables, the page and the files that are made of results; the figures are counted by hand."""

import csv
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ochat.errors import DataError, OchatError
from ochat.evaluation import compare
from ochat.evaluation.card import CARD, GROK
from ochat.evaluation.results import Row, find_runs
from ochat.evaluation.tasks import PRIVATE
from ochat.evaluation.view_results import Options, main, scores


def row(task_type: str, number: int, correct: bool, **more: object) -> Row:
    given: dict[str, object] = {"question": f"question {number}", "reply": f"reply <{number}>", "answer": "A", "found": True}
    given |= {"correct": correct, "task_type": task_type, "task_name": f"{task_type}/file", "row": number, "label": ["A"]}
    return Row(**given | {"compatible": correct} | more)  # type: ignore[arg-type]


def write(folder: Path, condition: str, rows: list[Row]) -> Path:
    folder.mkdir(parents=True)
    (folder / "grades.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
    config = {"id": "toy", "root": "/models/toy-7b", "condition": condition}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    first = [row("zs/agieval", i, i < 6, found=i < 9, finish="length" if i == 9 else "stop") for i in range(10)]
    first += [row("fs_cothub/mmlu", i, i < 1, compatible=True) for i in range(4)]
    second = [row("zs/agieval", i, i < 2) for i in range(10)] + [row("fs_cothub/mmlu", i, i < 2) for i in range(4)]
    write(tmp_path / "runs" / "a", "GPT4 Correct", first)
    write(tmp_path / "runs" / "b", "Code", second)
    return tmp_path / "runs"


def test_the_cards_table_shows_measured_and_reported_rows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Options((results,), tasks=True))
    out = capsys.readouterr().out
    line, _ = (line for line in out.splitlines() if line.startswith("toy-7b, GPT4 Correct  "))  # in the card's and Grok's
    assert line.split()[3:] == ["-", "-", "60.0†", "-", "-", "25.0†", "-", "-", "-"]
    (line,) = (
        line for line in out.splitlines() if line.startswith("toy-7b, GPT4 Correct, original's grader") and "60.0" in line
    )
    assert line.split()[5:] == ["-", "-", "60.0†", "-", "-", "100.0†", "-", "-", "-"]
    assert "\n† toy-7b, GPT4 Correct: a subset of the questions: MMLU 4 of 13,985, AGIEval 10 of 2,546\n" in out
    assert re.search(r"OpenChat-3.5 \* +61.6 +7.81 +47.4", out)
    assert re.search(r"toy-7b, GPT4 Correct: AGIEval +10 of 2,546 +60.0% \[31.3, 83.2\] +60.0% +10.0% +10.0%", out)
    assert re.search(r"zs/agieval/file +60.0% +20.0%", out)


def test_what_was_asked_whole_has_no_dagger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", "", [row("coding/humaneval", i, True) for i in range(164)])
    main(Options((tmp_path / "runs",)))
    out = capsys.readouterr().out
    assert "100.0" in out
    assert "†" not in out


def test_averages_are_the_cards() -> None:
    reported = {
        "OpenChat-3.5": 61.6,
        "ChatGPT (March)": 61.5,
        "OpenHermes 2.5": 59.3,
        "OpenOrca Mistral": 52.7,
        "Zephyr-β": 34.6,
    }
    rows = CARD.reported_scores()
    assert {name: round(CARD.average(rows[name]) or 0, 1) for name in reported} == reported
    assert CARD.average(rows["Mistral"]) is None
    grok = {name: round(GROK.average(row) or 0, 1) for name, row in GROK.reported_scores().items()}
    assert grok == {"OpenChat-3.5-0106": 61.0, "OpenChat-3.5": 56.4, "Grok-0 (33B)": 44.5, "Grok-1 (314B)": 55.8}


def test_the_page_holds_every_reply_escaped_and_no_address(results: Path, tmp_path: Path) -> None:
    main(Options((results,), html=tmp_path / "page.html", examples=0))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("reply &lt;3&gt;") == 4
    assert "reply <" not in page
    assert "the original’s grader says right" in page
    assert "http:" not in page
    assert "https:" not in page
    open_elements = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, _: object) -> None:
            if tag not in ("meta", "link", "br"):
                open_elements.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_elements.pop() == tag

        def handle_startendtag(self, tag: str, attributes: object) -> None:
            pass

    Check().feed(page)
    assert open_elements == []


def test_the_page_says_how_many_questions_it_leaves_out(results: Path, tmp_path: Path) -> None:
    main(Options((results,), html=tmp_path / "page.html", examples=3))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "8 questions are left out" in page
    assert "zs/agieval/file: 3 of 10" in page


def test_a_reply_is_shown_as_it_is_and_with_what_it_was_taken_as(tmp_path: Path) -> None:
    reply = "</pre><script>alert(1)</script><img src=x onerror=alert(1)> \ud83d\0 日本語"
    rows = [row("zs/agieval", 0, True, reply=reply), row("zs/agieval", 1, False, reply="x" * 10**6, answer="<b>", label="'\"<")]
    write(tmp_path / "runs", "<i>condition</i>", rows)
    main(Options((tmp_path / "runs",), html=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page) < 50_000
    assert "992,000 characters left out" in page
    assert "日本語" in page
    assert "right, taken as A" in page
    assert "wrong, taken as &lt;b&gt;" in page
    assert not any(tag in page for tag in ("<script", "<img", "<b>&lt;", "<i>condition"))


def test_runs_without_a_question_in_common_and_of_the_same_name_stand_on_one_page(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(results / "c", "Code", [row("zs/math", 0, True), row("zs/agieval", 99, True)])
    main(Options((results,), html=tmp_path / "page.html"))
    out, page = capsys.readouterr().out, (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (out, page):
        assert f"toy-7b, Code [{results / 'b'}]" in text
        assert f"toy-7b, Code [{results / 'c'}]" in text
    assert "Differences to the first" in page


def test_a_comparison_says_what_it_leaves_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = write(results / "c", "none", [row("zs/agieval", i, True) for i in range(8, 13)])
    compare.main(compare.Options((results / "a", some)))
    out = capsys.readouterr().out
    assert re.search(r"toy-7b, none +2  1.000", out)
    assert "toy-7b, none: left out are questions, 12 that only the first has and 3 that only it has" in out


def test_of_gpqa_the_page_shows_figures_alone(tmp_path: Path) -> None:
    write(tmp_path / "runs", "", [row(PRIVATE, 0, True, question="secret", reply="secret")])
    main(Options((tmp_path / "runs",), html=tmp_path / "page.html", examples=0))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "GPQA" in page
    assert "secret" not in page


def test_the_table_for_other_programs_has_a_line_a_file(results: Path, tmp_path: Path) -> None:
    main(Options((results,), csv=tmp_path / "table.csv"))
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["condition"], line["benchmark"], line["n"], line["n_correct"], line["n_compatible"]) for line in lines] == [
        ("GPT4 Correct", "MMLU", "4", "1", "4"),
        ("GPT4 Correct", "AGIEval", "10", "6", "6"),
        ("Code", "MMLU", "4", "2", "2"),
        ("Code", "AGIEval", "10", "2", "2"),
    ]


def test_two_runs_are_compared_on_the_questions_that_both_have(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare.main(compare.Options((results / "a", results / "b"), json=tmp_path / "figures.json"))
    first, second = json.loads((tmp_path / "figures.json").read_text())
    by_name = {row["benchmark"]: row for row in second["rows"]}
    assert by_name["AGIEval"]["difference"]["value"] == pytest.approx(-0.4)
    assert by_name["AGIEval"]["p"] == pytest.approx(2 / 2**4)  # four questions, all of them for the first
    assert by_name["mean of benchmarks"]["difference"]["value"] == pytest.approx((-0.4 + 0.25) / 2)
    assert first["rows"][0]["difference"] is None
    assert "toy-7b, Code" in capsys.readouterr().out


def test_runs_of_other_questions_and_a_single_run_are_not_compared(results: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", "", [row("zs/math", 0, True)])
    with pytest.raises(OchatError, match="no question in common"):
        compare.main(compare.Options((results / "a", other)))
    with pytest.raises(OchatError, match="hold one evaluation"):
        compare.main(compare.Options((other,)))


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="No results in"):
        main(Options((tmp_path,)))
    folder = write(tmp_path / "bad", "", [row("zs/math", 0, True)])
    (folder / "grades.jsonl").write_text('{"question": "?", "surprise": 1}\n')
    with pytest.raises(DataError, match=r"grades.jsonl:1: not a grade"):
        main(Options((tmp_path,)))


def test_scores_are_by_benchmark(results: Path) -> None:
    first, _ = find_runs([results])
    assert scores(first) == {"fs_cothub/mmlu": 25.0, "zs/agieval": 60.0}
    assert scores(first, original=True) == {"fs_cothub/mmlu": 100.0, "zs/agieval": 60.0}


def test_inspects_viewer_reads_our_logs(results: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    main(Options((results,), inspect=tmp_path / "logs"))
    read = log.read_eval_log(str(tmp_path / "logs" / "1-zs-agieval.eval"))
    assert read.eval.task == "AGIEval"
    assert sum(sample.scores["strict"].value == "C" for sample in read.samples) == 6
