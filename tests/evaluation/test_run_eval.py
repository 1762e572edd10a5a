"""Asking over HTTP against a small server of the tests' own: conditions are sent, nothing is asked twice, errors are one line."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ochat.errors import DataError, OchatError
from ochat.evaluation.run_eval import Options, main, read_correct

QUESTIONS = [
    {"question": "Tea 42, rice 17?", "options": ["tea", "rice"], "label": ["rice"]},
    {"question": "Salt 1, soap 2?", "options": ["salt", "soap"], "label": ["salt"]},
]


class Server(ThreadingHTTPServer):
    """Answers "rice" under any condition but GPT3, and keeps what it was asked. It stands for a server, not for a part of ours."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, object]] = []
        self.failures: list[int] = []  # statuses to answer with first
        self.models: object = {"data": [{"id": "toy", "root": "/models/first"}]}
        self.broken: object = None  # answered in place of a completion; bytes as they are
        self.reply = "rice"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.answer(200, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if self.server.failures:
            self.answer(self.server.failures.pop(), {"error": {"message": "not now"}})
            return
        reply = "tea" if body.get("condition") == "GPT3" else self.server.reply
        completion = {"choices": [{"message": {"content": reply}}]}
        self.answer(200, completion if self.server.broken is None else self.server.broken)

    def answer(self, status: int, body: object) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
    assert capsys.readouterr().out.startswith("1 of 2 replies are from before\n")
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


def test_a_busy_server_is_asked_again(options: dict[str, object], server: Server, tmp_path: Path) -> None:
    server.failures = [503, 429]
    main(Options(**options))
    assert len(server.asked) == 4
    assert read_correct(tmp_path / "out") == [True, False]


def test_a_refused_question_ends_the_run_with_the_servers_words(options: dict[str, object], server: Server) -> None:
    server.failures = [400, 400]
    with pytest.raises(OchatError, match=r"400 .*not now"):
        main(Options(**options))


def test_no_server_is_one_line_with_a_remedy(options: dict[str, object]) -> None:
    with pytest.raises(OchatError, match="Start one: ochat serve"):
        main(Options(**options | {"base_url": "http://127.0.0.1:9/v1"}))


def test_a_bad_question_is_named(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "x", "label": ["a"], "options": ["a"]}\n{"question": "x"}\n')
    with pytest.raises(DataError, match=r"questions.jsonl:2: label"):
        main(Options(**options))


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
