"""Asking over HTTP against a small server of the tests' own: conditions are sent, nothing is asked twice, errors are one line."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import pytest
from chat_server import Server

from ochat.errors import DataError, OchatError
from ochat.evaluation.journal import request_key
from ochat.evaluation.run_eval import Options, main, read_correct

QUESTIONS = [
    {"question": "Tea 42, rice 17?", "options": ["tea", "rice"], "label": ["rice"]},
    {"question": "Salt 1, soap 2?", "options": ["salt", "soap"], "label": ["salt"]},
]


@pytest.fixture
def options(tmp_path: Path, server: Server) -> dict[str, object]:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    return {"questions": questions, "output": tmp_path / "out", "base_url": f"http://127.0.0.1:{server.server_port}/v1"}


def test_the_condition_is_sent_and_changes_the_grades(options: dict[str, object], server: Server, tmp_path: Path) -> None:
    main(Options(**options, condition="GPT3"))
    main(Options(**options | {"output": tmp_path / "default"}))
    assert [body.get("condition") for body in server.asked] == ["GPT3", "GPT3", None, None]
    assert read_correct(tmp_path / "out") == [False, False]
    assert read_correct(tmp_path / "default") == [True, False]
    summary = json.loads((tmp_path / "default" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["n_questions"], summary["n_found"], summary["accuracy"]["value"]) == (2, 1, 0.5)


def test_what_was_answered_is_not_asked_again(
    options: dict[str, object], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(**options))
    journal = tmp_path / "out" / "replies.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:9])  # killed while it wrote the second
    assert "from before" not in capsys.readouterr().out
    main(Options(**options))
    assert "1 of 2 replies are from before\n" in capsys.readouterr().out
    assert len(server.asked) == 3
    assert len(journal.read_bytes().splitlines()) == 2
    assert read_correct(tmp_path / "out") == [True, False]


def test_questions_without_options_are_graded_by_the_last_number(
    options: dict[str, object], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "6*7?", "label": ["42"]}\n{"question": "6*8?", "label": ["48"]}\n')
    server.reply = "It's 042."
    main(Options(**options))
    assert read_correct(tmp_path / "out") == [True, False]


def test_a_label_that_is_neither_option_nor_number_is_named(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "6*7?", "label": ["42"]}\n{"question": "?", "label": ["many"]}\n')
    with pytest.raises(OchatError, match=r"questions.jsonl:2: the question has no options and its label is no number"):
        main(Options(**options))


@pytest.mark.parametrize("statuses", [[503, 429], [520, 529]])
def test_a_busy_server_is_asked_again(statuses: list[int], options: dict[str, object], server: Server, tmp_path: Path) -> None:
    server.failures = statuses
    main(Options(**options))
    assert len(server.asked) == 4
    assert read_correct(tmp_path / "out") == [True, False]


def test_a_refused_question_ends_the_run_with_the_servers_words(options: dict[str, object], server: Server) -> None:
    server.failures = [400, 400]
    with pytest.raises(OchatError, match=r"400 .*not now"):
        main(Options(**options))


def test_what_the_server_says_is_shown_without_its_json(options: dict[str, object], server: Server) -> None:
    said = {"message": "Unknown condition 'GPT33'.\n\x1b[2JKnown: GPT3.", "type": "BadRequestError", "code": 400}
    server.refused = ("GPT33", json.dumps({"error": said}).encode())
    with pytest.raises(OchatError) as caught:
        main(Options(**options, condition="GPT33"))
    assert str(caught.value) == (
        f"{server.url}/chat/completions didn't answer a question: 400 Unknown condition 'GPT33'. �[2JKnown: GPT3. "
        "Check the options."
    )


def test_a_refused_run_leaves_its_folder_to_the_corrected_one(
    options: dict[str, object], server: Server, tmp_path: Path
) -> None:
    server.refused = ("GPT33", b"{}")
    with pytest.raises(OchatError, match="400"):
        main(Options(**options, condition="GPT33"))
    main(Options(**options, condition="GPT3"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["condition"] == "GPT3"
    with pytest.raises(OchatError, match="another model or condition"):  # now there are replies
        main(Options(**options, condition="GPT33"))


def test_no_server_is_one_line_with_a_remedy(options: dict[str, object]) -> None:
    with pytest.raises(OchatError, match="Start one: ochat serve"):
        main(Options(**options | {"base_url": "http://127.0.0.1:9/v1"}))


def test_a_bad_question_is_named(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "x", "label": ["a"], "options": ["a"]}\n{"question": "x"}\n')
    with pytest.raises(DataError, match=r"questions.jsonl:2: label"):
        main(Options(**options))


def test_a_misspelt_folder_is_named_where_no_server_answers(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ochat.evaluation.run_eval.BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(OchatError, match=r"--model nope is no folder.*127.0.0.1:9/v1 .*Check --model"):
        main(Options(**options | {"base_url": "", "model": "nope"}))
    with pytest.raises(OchatError, match="No OpenAI-compatible server") as caught:
        main(Options(**options | {"base_url": "http://127.0.0.1:9/v1", "model": "nope"}))
    assert "no folder" not in str(caught.value)


@pytest.mark.parametrize("other", [{"id": "toy", "root": "/models/second"}, {"id": "other", "root": "/models/first"}])
def test_replies_of_another_model_are_not_taken_for_this_ones(
    other: dict[str, str], options: dict[str, object], server: Server, tmp_path: Path
) -> None:
    main(Options(**options))
    server.models = {"data": [other]}
    with pytest.raises(
        OchatError, match=r"out holds replies of another model or condition \(toy from /models/first, condition left out\)"
    ):
        main(Options(**options))
    (tmp_path / "out" / "config.json").unlink()
    with pytest.raises(OchatError, match=r"another model or condition \(config.json doesn't tell which\)"):
        main(Options(**options))
    assert len(server.asked) == 2


def test_another_condition_wants_a_folder_of_its_own(options: dict[str, object]) -> None:
    main(Options(**options))
    with pytest.raises(OchatError, match="another model or condition"):
        main(Options(**options, condition="GPT3"))


def test_a_folder_of_something_else_is_left_alone(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    with pytest.raises(OchatError, match="Choose another --output"):
        main(Options(**options))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_the_config_of_something_else_is_left_alone(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(OchatError, match="Choose another --output"):
        main(Options(**options))
    assert (tmp_path / "out" / "config.json").read_text() == '{"model_type": "llama"}'


def test_a_model_without_a_root_is_known_by_its_name(options: dict[str, object], server: Server, tmp_path: Path) -> None:
    server.models = {"data": [{"id": "toy"}]}
    main(Options(**options))
    main(Options(**options, model="toy"))
    assert len(server.asked) == 2
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"id": "toy", "root": "", "condition": ""}


@pytest.mark.parametrize("body", [b"<html>\nSign in\n</html>", {"choices": []}, [], {"choices": [{"message": {"content": 5}}]}])
def test_what_is_no_completion_ends_in_one_line(body: object, options: dict[str, object], server: Server) -> None:
    server.broken = body
    with pytest.raises(OchatError, match="didn't answer a question: 200, but not as OpenAI's API does: ") as caught:
        main(Options(**options))
    assert "\n" not in str(caught.value)
    assert len(server.asked) <= 2  # each once at most: asked again, it would say the same


@pytest.mark.parametrize("models", [[], {}, {"data": []}, {"data": ["toy"]}, "models", b"<html>"])
def test_what_is_no_list_of_models_ends_in_one_line(models: object, options: dict[str, object], server: Server) -> None:
    server.models = models
    with pytest.raises(OchatError, match="/models didn't list models"):
        main(Options(**options))


def test_half_of_a_character_and_odd_line_ends_are_replies_too(
    options: dict[str, object], server: Server, tmp_path: Path
) -> None:
    server.reply = "\ud83d\u2028\u0085rice"
    main(Options(**options))
    main(Options(**options))
    assert len(server.asked) == 2
    assert read_correct(tmp_path / "out") == [True, False]


def test_grades_are_read_line_by_line_and_not_at_a_line_end_of_unicode(tmp_path: Path) -> None:
    text = "".join(json.dumps({"reply": "a\u2028b\u0085c", "correct": c}, ensure_ascii=False) + "\n" for c in (True, False))
    (tmp_path / "grades.jsonl").write_text(text, encoding="utf-8")
    assert read_correct(tmp_path) == [True, False]


@pytest.fixture
def benchmarks(tmp_path: Path, data_path: Path, server: Server) -> dict[str, object]:
    return {"output": tmp_path / "out", "data_path": data_path, "base_url": server.url}


def test_each_benchmark_is_asked_with_its_own_limits_and_graded_twice(benchmarks: dict[str, object], server: Server) -> None:
    server.reply = "A"
    main(Options(**benchmarks, eval_sets=("zs", "fs_cothub")))
    by_prompt = {str(body["messages"][0]["content"])[:2]: body for body in server.asked}
    assert (by_prompt["Q:"]["max_tokens"], by_prompt["Q:"].get("stop")) == (32, None)
    assert (by_prompt["Qu"]["max_tokens"], by_prompt["Qu"]["stop"]) == (512, ["\n\nQ:", "\nQuestion:"])
    assert len(server.asked) == 14  # the second file repeats two questions of the first
    summary = json.loads((Path(str(benchmarks["output"])) / "summary.json").read_text())
    agieval = summary["benchmarks"]["zs/agieval"]
    assert (agieval["n"], agieval["n_correct"], agieval["n_compatible"]) == (12, 12, 12)
    assert {name: count["n"] for name, count in agieval["tasks"].items()} == {"zs/agieval/first": 10, "zs/agieval/second": 2}


def test_card_parity_takes_the_limits_off_and_asks_under_the_cards_conditions(
    benchmarks: dict[str, object], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.conditions = ["GPT4 Correct", "Math Correct"]
    main(Options(**benchmarks, card_parity=True, parallel=1))
    assert [body.get("max_tokens") for body in server.asked] == [4096] * 4 + [None] * 14
    assert {body.get("condition") for body in server.asked if "Question:" in str(body)} == {"Math Correct"}
    assert not any("stop" in body for body in server.asked)
    assert "under 'Math Correct', as the model card's run: GSM8K" in capsys.readouterr().out


def test_a_condition_that_the_model_does_not_know_is_not_sent(benchmarks: dict[str, object], server: Server) -> None:
    server.conditions = ["GPT4 Correct"]
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    assert [body.get("condition") for body in server.asked] == [None] * 4


def test_the_second_turn_of_a_chat_follows_the_reply_to_the_first(benchmarks: dict[str, object], server: Server) -> None:
    server.reply = lambda body: f"reply {len(body['messages'])}"
    main(Options(**benchmarks, eval_sets=("mt_bench",)))
    second = next(body for body in server.asked if len(body["messages"]) == 3)
    assert [message["content"] for message in second["messages"][1:]] == ["reply 1", "Shorter."]
    assert sorted(body["temperature"] for body in server.asked) == [0, 0, 0.7, 0.7]
    answers = (Path(str(benchmarks["output"])) / "mt_bench-answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["choices"] for line in answers] == [[{"index": 0, "turns": ["reply 1", "reply 3"]}]] * 2
    main(Options(**benchmarks, eval_sets=("mt_bench",)))
    assert len(server.asked) == 4


def test_conditions_are_compared_with_the_first_beside_a_control(
    benchmarks: dict[str, object], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda body: "A" if body.get("condition") == "GPT4 Correct" else "B"
    main(Options(**benchmarks, eval_sets=("zs",), conditions=("GPT4 Correct", "Code", "none")))
    output = Path(str(benchmarks["output"]))
    figures = json.loads((output / "comparison.json").read_text())
    assert [run["condition"] for run in figures] == ["GPT4 Correct", "Code", "none", "4TPG tcerroC"]
    assert [run["rows"][0]["accuracy"]["value"] for run in figures] == [1, 0, 0, 0]
    assert figures[1]["rows"][0]["difference"]["value"] == -1
    assert figures[1]["rows"][0]["p"] == pytest.approx(2 / 2**12)
    out = capsys.readouterr().out
    assert "toy" not in out.split("control")[0]
    assert "first, 4TPG tcerroC (control)" in out


@pytest.mark.parametrize(("known", "warned"), [([], True), (["Code"], False)])
def test_a_condition_that_the_server_may_ignore_is_said(
    known: list[str], warned: bool, benchmarks: dict[str, object], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.conditions = known
    main(Options(**benchmarks, eval_sets=("zs",), condition="Code"))
    assert ("'Code' may have no effect" in capsys.readouterr().out) == warned


def test_a_sweep_stops_where_the_server_does_not_echo_the_condition(benchmarks: dict[str, object], server: Server) -> None:
    server.echoes = False
    with pytest.raises(OchatError, match=r"doesn't say that it answered under the condition 'Code'.*ochat serve"):
        main(Options(**benchmarks, conditions=("Code", "none")))
    assert len(server.asked) == 1


def test_a_sweep_goes_without_a_control_where_the_server_refuses_unknown_conditions(
    benchmarks: dict[str, object], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refused = ("4TPG", b'{"error": "Unknown condition"}')
    main(Options(**benchmarks, eval_sets=("zs",), conditions=("GPT4 Correct", "none")))
    assert "no control: the server takes known conditions only" in capsys.readouterr().out
    assert len(json.loads((Path(str(benchmarks["output"])) / "comparison.json").read_text())) == 2


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(benchmarks: dict[str, object], server: Server) -> None:
    server.failures, server.retry_after = [429], "1.2"
    started = time.monotonic()
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    assert time.monotonic() - started >= 1.2


@pytest.mark.parametrize(
    ("words", "n_cut"),
    [(b"This model's maximum context length is 8 tokens.", 1), (b'{"error": {"code": "content_filter", "message": "no"}}', 0)],
)
def test_a_question_that_a_server_cannot_answer_is_counted_and_the_rest_goes_on(
    words: bytes, n_cut: int, benchmarks: dict[str, object], server: Server
) -> None:
    server.reply = "It is 7."
    server.refused = ("3 + 3", words)
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    summary = json.loads((Path(str(benchmarks["output"])) / "summary.json").read_text())
    assert (summary["n"], summary["n_found"], summary["n_cut"]) == (4, 3, n_cut)
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    assert len(server.asked) == 4


def test_replies_cut_by_their_length_are_counted(benchmarks: dict[str, object], server: Server) -> None:
    server.finish = "length"
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    summary = json.loads((Path(str(benchmarks["output"])) / "summary.json").read_text())
    assert (summary["n_cut"], summary["n_tokens"]) == (4, 8)


def test_the_originals_result_file_is_written_and_taken_over(
    benchmarks: dict[str, object], server: Server, tmp_path: Path
) -> None:
    server.reply = "The answer is 4"
    file = tmp_path / "original.json"
    main(Options(**benchmarks, eval_sets=("fs_cothub",), output_file=file))
    entries = json.loads(file.read_text())
    assert [entry["is_correct"] for entry in entries] == [False, False, True, False]
    assert entries[0]["task_type"] == "fs_cothub/gsm8k"
    entries[1]["response"] = ""
    file.write_text(json.dumps(entries))
    main(Options(**benchmarks | {"output": tmp_path / "again"}, eval_sets=("fs_cothub",), continue_from=file))
    assert len(server.asked) == 5


def test_benchmarks_may_be_asked_into_a_folder_one_after_another(benchmarks: dict[str, object], server: Server) -> None:
    server.reply = "A"
    main(Options(**benchmarks, eval_sets=("zs",)))
    main(Options(**benchmarks, eval_sets=("fs_cothub",)))
    summary = json.loads((Path(str(benchmarks["output"])) / "summary.json").read_text())
    assert {name: found["n"] for name, found in summary["benchmarks"].items()} == {"fs_cothub/gsm8k": 4, "zs/agieval": 12}
    main(Options(**benchmarks, eval_sets=("zs",), subset="50%"))
    summary = json.loads((Path(str(benchmarks["output"])) / "summary.json").read_text())
    assert {name: found["n"] for name, found in summary["benchmarks"].items()} == {"fs_cothub/gsm8k": 4, "zs/agieval": 6}


def test_the_originals_result_file_holds_nothing_of_gpqa(benchmarks: dict[str, object], server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data" / "eval_data" / "zs" / "gpqa" / "diamond.jsonl"
    path.parent.mkdir()
    path.write_text('{"question": "secret", "options": ["A", "B"], "label": ["A"], "_metadata": "secret"}\n')
    server.reply = "The correct answer is A, secret"
    main(Options(**benchmarks, eval_sets=("zs/gpqa",), output_file=tmp_path / "original.json"))
    text = (tmp_path / "original.json").read_text()
    assert "secret" not in text
    assert json.loads(text)[0]["is_correct"]
    assert "secret" not in (Path(str(benchmarks["output"])) / "grades.jsonl").read_text()


def test_a_sweep_of_a_chat_benchmark_ends_with_answers_for_a_judge(
    benchmarks: dict[str, object], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Options(**benchmarks, eval_sets=("mt_bench",), conditions=("Code", "none")))
    assert capsys.readouterr().out.count("answers for a judge") == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"subset": "10"}, "--subset is '10'"),
        ({"subset": "0%"}, "--subset is '0%'"),
        ({"conditions": ("Code",)}, "two or more"),
        ({"conditions": ("Code", "code")}, "differ in their letters"),
        ({"condition": "a", "conditions": ("b", "c")}, "Put all of them"),
        ({"parallel": 0}, "--parallel is 0"),
        ({"questions": Path("x"), "eval_sets": ("zs",)}, "Give one of the two"),
        ({"card_parity": True, "max_tokens": 5}, "Leave out --max-tokens"),
        ({"conditions": ("b", "c"), "output_file": Path("x")}, "of one condition"),
    ],
)
def test_options_that_cannot_work_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(OchatError, match=told):
        Options(**given)


def test_killed_ten_times_it_asks_nothing_twice_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    n = 240
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{i} + 0?", "label": [str(i)]}) + "\n" for i in range(n)))
    server.reply = lambda body: f"It's {body['messages'][0]['content'].split()[0]}."
    processes = multiprocessing.get_context("forkserver")  # starts in no time, and a kill ends it as any other
    processes.set_forkserver_preload(["ochat.evaluation.run_eval", "ochat.evaluation.ask"])

    def started(output: Path) -> multiprocessing.process.BaseProcess:
        options = Options(questions=questions, base_url=server.url, parallel=4, output=output)
        process = processes.Process(target=main, args=(options,))
        process.start()
        return process

    def finish(output: Path) -> None:
        process = started(output)
        process.join()
        assert process.exitcode == 0

    finish(tmp_path / "whole")
    journal, draw = tmp_path / "killed" / "replies.jsonl", random.Random(0)
    server.busy, server.asked, server.answered = 0.1, [], []
    kept: set[str] = set()
    for _ in range(10):
        seen, wanted, n_asked = len(kept), draw.randint(1, 20), len(server.asked)
        process = started(tmp_path / "killed")
        while (journal.read_bytes().count(b"\n") if journal.is_file() else 0) < seen + wanted:
            assert process.is_alive()
            time.sleep(0.002)  # leaves the processor to the two that work
        process.kill()
        process.join()
        entries = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        again = {request_key(body) for body in server.asked[n_asked:]} & kept
        assert not again
        kept = {entry["key"] for entry in entries}
    finish(tmp_path / "killed")
    lines = {folder: (tmp_path / folder / "replies.jsonl").read_text().splitlines() for folder in ("whole", "killed")}
    assert sorted(lines["killed"]) == sorted(lines["whole"])
    assert len(lines["killed"]) == n
    # Beyond one answer each, only those on their way to a process that was killed.
    assert n <= len(server.answered) <= n + 10 * 4
    assert read_correct(tmp_path / "killed") == [True] * n
    assert len(server.asked) > len(server.answered)  # it was busy at times
