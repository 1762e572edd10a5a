"""Import: other formats become our rows of one class; bad rows are named, and nothing is lost in silence."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.conversation import Conversation, read_conversations
from ochat.data.import_plan import plan_of
from ochat.data.import_report import Counts
from ochat.data.import_rows import Options, import_row, main
from ochat.data.problem import RowProblem
from ochat.data.read import read_all
from ochat.errors import DataError, OchatError


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


OPENAI = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "No.", "weight": 0},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes."},
    ]
}
OURS = {"items": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}], "condition": "GPT4"}


def test_openai_messages_become_a_row_of_the_class(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OPENAI),), output, condition="GPT3", weight=0.1, class_name="chat"))
    ((_, row),) = read_conversations(output)
    assert (row.system, row.condition, row.class_name) == ("Be brief.", "GPT3", "chat")
    assert [(item.role, item.weight) for item in row.items] == [
        ("user", 0.0),
        ("assistant", 0.0),  # a message that is not to be learned from stays so
        ("user", 0.0),
        ("assistant", 0.1),
    ]


def test_a_replaced_condition_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OURS, OURS),), output, condition="GPT3"))
    assert "2 of them had another condition, now 'GPT3'" in capsys.readouterr().out
    assert {row.condition for _, row in read_conversations(output)} == {"GPT3"}


def test_rows_keep_their_condition_when_none_is_given(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", OURS),), output))
    ((_, row),) = read_conversations(output)
    assert (row.condition, row.class_name, row.items[1].weight) == ("GPT4", "GPT4", 1.0)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "hello"}, "found `text`, which is no known format"),
        ({"mesages": []}, "Did you mean `messages`?"),
        ([1], "found [1]. Give an object"),
        ([[1, 2], [0, 1]], "Import the conversations that they were made of"),
        ({**OURS, "conditon": "GPT4"}, "unknown field 'conditon'. Did you mean `condition`?"),
        (
            {"items": [{"role": "user", "content": "Hi", "wieght": 1}]},
            "unknown field 'wieght' in `items[0]`. Did you mean `weight`?",
        ),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, row: object, problem: str) -> None:
    output = tmp_path / "rows.jsonl"
    source = written(tmp_path / "in.jsonl", OURS, row)
    with pytest.raises(DataError, match=r"in\.jsonl:2") as raised:
        main(Options((source,), output))
    assert problem in str(raised.value)
    assert list(tmp_path.iterdir()) == [source]


def test_the_classes_weight_scales_every_weight(tmp_path: Path) -> None:
    items = [{"role": "user", "content": "Hi", "weight": 0.5}, {"role": "assistant", "content": "Oh", "weight": 2}]
    output = tmp_path / "rows.jsonl"
    main(Options((written(tmp_path / "in.jsonl", {"items": items}),), output, weight=0.1))
    ((_, row),) = read_conversations(output)
    assert [item.weight for item in row.items] == pytest.approx([0.05, 0.2])


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    source, output = written(tmp_path / "in.jsonl", OURS), tmp_path / "thesis.txt"
    output.write_text("years of work")
    with pytest.raises(OchatError, match="holds no conversations"):
        main(Options((source,), output))
    assert output.read_text() == "years of work"
    for _ in range(2):  # rows may be imported anew
        main(Options((source,), tmp_path / "rows.jsonl"))


def test_rows_are_not_written_as_plain_text_under_a_name_in_gz(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"Leave out \.gz"):
        Options((tmp_path,), tmp_path / "rows.jsonl.gz")


@pytest.mark.parametrize("condition", ["<|im_end|>", "GPT4 <|eot_id|>", "</s>"])
def test_a_condition_with_a_control_token_of_any_model_type_is_refused(condition: str, tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"--condition is .*, which holds the control token .*\. Give plain words\."):
        Options((tmp_path / "in.jsonl",), tmp_path / "out.jsonl", condition=condition)


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", OURS)
    with pytest.raises(OchatError, match="is an input too"):
        Options((source,), source)


def test_a_negative_class_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match="--weight"):
        Options((tmp_path,), tmp_path, weight=-0.1)


PAIR = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}


def imported(source: Path, **options: object) -> list[Conversation]:
    output = source.parent / "rows.jsonl"
    main(Options((source,), output, **options))  # type: ignore[arg-type]  # each option's own type
    return [row for _, row in read_conversations(output)]


def test_an_error_says_how_to_go_on_without_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--skip-invalid\.$"):
        imported(written(tmp_path / "in.jsonl", {"text": "hello"}))


def test_skipped_rows_are_counted_by_reason_and_kept_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.jsonl", OURS, {"text": "a"}, {"text": "b"}, [1], OURS)
    source.write_bytes(source.read_bytes() + b'{"items": "\xe9"}\n')
    assert len(imported(source, skip_invalid=True)) == 2
    out = capsys.readouterr().out
    assert "6 rows read = 2 kept + 4 rejected" in out
    assert "2 rejected: no known format" in out
    assert "1 rejected: not UTF-8" in out
    rejects = [json.loads(line) for line in (tmp_path / "rows.jsonl.rejects.jsonl").read_text().splitlines()]
    assert [(line["place"], line["row"]) for line in rejects] == [
        (f"{source}:2", {"text": "a"}),
        (f"{source}:3", {"text": "b"}),
        (f"{source}:4", [1]),
        (f"{source}:6", '{"items": "\\xe9"}'),
    ]
    assert all(line["problem"] and line["reason"] for line in rejects)


def test_a_rejects_file_never_tells_of_an_older_import(tmp_path: Path) -> None:
    imported(written(tmp_path / "in.jsonl", OURS, [1]), skip_invalid=True)
    imported(written(tmp_path / "in.jsonl", OURS), skip_invalid=True)
    assert (tmp_path / "rows.jsonl.rejects.jsonl").read_text() == ""


def test_an_import_that_leaves_out_nothing_removes_an_older_ones_rejects(tmp_path: Path) -> None:
    imported(written(tmp_path / "in.jsonl", OURS, [1]), skip_invalid=True)
    rejects = tmp_path / "rows.jsonl.rejects.jsonl"
    with pytest.raises(DataError):
        imported(written(tmp_path / "in.jsonl", OURS, [1]))
    assert rejects.read_text().count("\n") == 1  # of the output that is still there
    imported(written(tmp_path / "in.jsonl", OURS))
    assert not rejects.exists()


def test_nothing_is_written_where_every_row_is_rejected(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [1], [2])
    with pytest.raises(DataError, match=r"in\.jsonl:1: found \[1\].*All 2 rows were rejected"):
        imported(source, skip_invalid=True)
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_fields_are_left_out_and_counted_where_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {**OPENAI, "stars": 5, "messages": [{**message, "wieght": 0.5} for message in OPENAI["messages"]]}
    assert len(imported(written(tmp_path / "in.jsonl", row, row), allow_extra_keys=True)) == 2
    assert "Fields left out: messages[].wieght (10), stars (2)" in capsys.readouterr().out


def test_what_data_sets_say_about_a_row_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(written(tmp_path / "in.jsonl", {**OURS, "id": 7, "source": "web"}, {**OURS, "id": None}))
    assert "Fields left out: id (1), source (1)" in capsys.readouterr().out


def test_what_a_format_drops_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [("gpt", "…and so on."), ("human", "Hi"), ("gpt", "Hello")]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    imported(written(tmp_path / "in.jsonl", row, row))
    assert "2 times: leading assistant turn dropped" in capsys.readouterr().out


def test_an_empty_answer_or_question_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = {"instruction": "Say nothing.", "output": " "}, {"instruction": "", "output": "Why?"}
    imported(written(tmp_path / "in.jsonl", *empty, {"instruction": "Hi", "output": "Hello"}))
    out = capsys.readouterr().out
    assert "1 of them has an empty answer" in out
    assert "1 of them has an empty question" in out


def test_a_pair_becomes_two_classes_each_with_its_condition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = imported(written(tmp_path / "in.jsonl", PAIR), weight=0.5)
    assert [(row.class_name, row.condition, row.items[1].weight) for row in rows] == [
        ("chosen", "chosen", 0.5),
        ("rejected", "rejected", 0.5),
    ]
    assert "2 conversations made of them" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["condition", "class_name"])
def test_one_class_for_both_answers_of_a_pair_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(OchatError, match=r"classes of their own \(chosen, rejected\)"):
        imported(written(tmp_path / "in.jsonl", PAIR), **{option: "GPT4"})


def test_a_forced_format_takes_its_rows_only(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": "Because.", "response": "So."}
    assert (
        imported(written(tmp_path / "in.jsonl", row), format="Question/Response", allow_extra_keys=True)[0].items[1].content
        == "So."
    )
    with pytest.raises(OchatError, match="Did you mean: question/answer"):
        imported(tmp_path / "in.jsonl", format="question/anser")
    with pytest.raises(DataError, match="found `question`, `answer`, `response`, which isn't ShareGPT conversations"):
        imported(tmp_path / "in.jsonl", format="ShareGPT conversations")


def test_a_weight_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    row = {"messages": [{"role": "assistant", "content": "Hi", "weight": 1e6}]}
    with pytest.raises(DataError, match=r"in\.jsonl:1: a weight of 1e\+06 times 10"):
        imported(written(tmp_path / "in.jsonl", row), weight=10.0)


def test_a_folder_that_holds_the_output_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "rows.jsonl", OURS)
    with pytest.raises(OchatError, match="which import writes"):
        main(Options((tmp_path,), tmp_path / "rows.jsonl"))


def test_a_folder_of_files_of_different_formats_is_imported_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    written(folder / "b.jsonl", OPENAI)
    written(folder / "a.jsonl", OURS, OURS)
    main(Options((folder,), tmp_path / "rows.jsonl"))
    out = capsys.readouterr().out
    assert "2 rows of ochat items" in out
    assert "1 row of OpenAI messages" in out


# What each file of other people's data gives: rows kept, and rows rejected by reason.
REAL = {
    "alpaca_davinci003_52k": (52_002, {}),
    "alpaca_eval_805_multi_model": (0, {"no known format": 805}),
    "alpaca_gpt4_found": (0, {"unknown field 'from'": 9_954}),
    "alpaca_aligned_5k": (0, {"no known format": 5_000}),
    "arena_hard_v01_gpt4_gpt35": (0, {"no known format": 500}),
    "codealpaca_2k_davinci003": (2_017, {}),
    "crlft_demo_train_9500": (9_500, {}),
    "crlft_demo_heldout_250": (0, {"no known format": 250}),
    "dolly_3k_human": (2_996, {}),
    "fastchat_dummy_conversation": (500, {}),
    "goat_generated_200": (203, {}),
    "gpteacher_codegen_gpt4": (4_535, {}),
    "gpteacher_roleplay_gpt4": (1_923, {}),
    "gsm8k_train": (7_473, {}),
    "llamafactory_glaive_toolcall_en_demo": (109, {"tools": 191}),
    "llamafactory_kto_en_demo": (300, {}),
    "llamafactory_v1_sft_demo_loss_weight": (500, {}),
    "oasst_en_100_tree": (0, {"no known format": 100}),
    "oasst_top1_form_zh_derived": (200, {}),
    "real_rows_glaive_code_assistant": (1, {}),
    "real_rows_mathinstruct": (2, {}),
    "real_rows_metamathqa": (1, {}),
    "sharegpt_v3_sample_200": (200, {}),
    "vicuna80_multi_model": (0, {"no known format": 80}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_give_the_same_counts_every_time(test_file: Callable[[str], Path], name: str) -> None:
    kept, rejected = REAL[name]
    plan = plan_of(Options((Path(),), Path("unused.jsonl"), skip_invalid=True))
    counts = Counts()
    for place, value in read_all(test_file(f"train/{name}.jsonl.gz")):
        counts.n_read += 1
        try:
            counts.add(import_row(value, plan))
        except RowProblem as problem:
            counts.reject(place, problem)
    assert (counts.formats.total(), dict(counts.rejected), counts.n_read) == (kept, rejected, kept + sum(rejected.values()))


def test_one_prompt_with_two_answers_goes_through_a_columns_file(
    test_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, output = tmp_path / "columns.yaml", tmp_path / "rows.jsonl"
    columns.write_text("prompt: [instruction, input]\nanswer: {output_gpt4: GPT4, output_davinci003: GPT3}\n")
    main(Options((test_file("train/alpaca_aligned_5k.jsonl.gz"),), output, columns=columns, allow_extra_keys=True))
    rows = [row for _, row in read_conversations(output)]
    assert Counter(row.condition for row in rows) == {"GPT4": 5000, "GPT3": 5000}
    assert rows[0].items[0] == rows[1].items[0]
    assert rows[0].items[0].content.endswith("plants, and minerals\nOak tree, copper ore, elephant")
    assert "10,000 conversations made of them" in capsys.readouterr().out


def test_what_a_row_level_weight_or_score_needs_is_told(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    for field, remedy in (("weight", "A --columns file takes a row's weight"), ("score", "--classes makes classes of it")):
        with pytest.raises(DataError, match=rf"in\.jsonl:1: unknown field '{field}'\. {remedy}"):
            main(Options((written(tmp_path / "in.jsonl", {**row, field: 0.5}),), tmp_path / "out.jsonl"))


def test_a_rejected_row_that_stands_for_the_rest_of_its_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.json"
    source.write_text('[{"prompt": "a", "completion": "b"}, {"prompt" "a"}, {"prompt": "c", "completion": "d"}]')
    main(Options((source,), tmp_path / "out.jsonl", skip_invalid=True))
    assert "1 rejected: the array is broken, and the rest of its file isn't read" in capsys.readouterr().out


def test_a_file_named_twice_or_an_output_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OchatError, match=r"a\.jsonl is named twice"):
        Options((tmp_path / "a.jsonl", tmp_path / "a.jsonl"), tmp_path / "out.jsonl")
    with pytest.raises(OchatError, match="Name a file to write"):
        Options((tmp_path / "a.jsonl",), Path(""))


@pytest.mark.parametrize("condition", [" GPT4", "a\nb", "x" * 129])
def test_a_condition_that_no_template_takes_is_refused_at_once(tmp_path: Path, condition: str) -> None:
    with pytest.raises(OchatError, match="Give one line of at most 128 characters without outer blanks"):
        Options((tmp_path / "a.jsonl",), tmp_path / "out.jsonl", condition=condition)


def test_a_file_that_is_one_object_around_its_rows_is_told(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    for name in ("data", "examples"):
        source.write_text(json.dumps({"version": 1, name: [{"prompt": "a", "completion": "b"}]}, indent=2))
        with pytest.raises(
            DataError, match=rf"in\.json:1 \(row 1\): `{name}` lists objects.*give that list alone, as a JSON array"
        ):
            main(Options((source,), tmp_path / "out.jsonl"))
