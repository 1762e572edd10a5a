import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ochat.conversation import MAX_WEIGHT, Conversation, Message, read_conversations
from ochat.errors import DataError

GOOD = b'{"items": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "weight": 1}]}\n'
COMPRESSED = gzip.compress(GOOD * 100)

rows = st.builds(
    Conversation,
    items=st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["user", "assistant"]),
            content=st.text(),
            weight=st.none() | st.floats(0, MAX_WEIGHT),
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    condition=st.text(),
    system=st.text(),
    class_name=st.text(),
)


def read(path: Path) -> list[tuple[str, Conversation]]:
    return list(read_conversations(path))


def a_row(**fields: object) -> bytes:
    return json.dumps({"items": [{"role": "user", "content": "Hi"}], **fields}).encode()


def a_message(**fields: object) -> bytes:
    return a_row(items=[{"role": "user", "content": "Hi", **fields}])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_each_row_comes_with_its_file_and_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD * 2) if name.endswith(".gz") else GOOD * 2)
    row = Conversation(items=(Message(role="user", content="Hi"), Message(role="assistant", content="Hello", weight=1.0)))
    assert read(path) == [(f"{path}:1", row), (f"{path}:2", row)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"items": [', "not JSON"),
        (b"Hi", "not JSON"),
        (b"\x00\x00", "not JSON"),
        (b"", "the line is empty"),
        (b" \t", "the line is empty"),
        (b"[" * 100_000, "nested too deep"),
        (a_message(weight=0).replace(b"0", b"1" * 5000), "a number is too long"),
        (b'{"items": "\xe9"}', "not UTF-8"),
        (b"[]", "Conversation"),
        (b"null", "Conversation"),
        (b"{}", "items: Field required"),
        (a_row(items=[]), "items: there is no message."),
        (a_row(items=["Hi"]), "items.0: "),
        (a_row(sistem="Be brief."), "sistem: Extra inputs are not permitted"),
        (a_row(condition=None), "condition: Input should be a valid string"),
        (a_row(condition="\ud800"), "condition: half of a character"),
        (a_row(system="\ud800"), "system: half of a character"),
        (a_row(**{"class": "\ud800"}), "class: half of a character"),
        (a_row(**{"\ud800": 1}), "valid string"),
        (a_message(content="a\udc00b"), "items.0.content: half of a character"),
        (a_message(content=None), "items.0.content: Input should be a valid string"),
        (a_message(content=7), "items.0.content: Input should be a valid string"),
        (a_message(role="system"), "items.0.role: Input should be 'user' or 'assistant'"),
        (a_message(role="User"), "items.0.role: Input should be 'user' or 'assistant'"),
        (a_message(wieght=1), "items.0.wieght: Extra inputs are not permitted"),
        (a_message(weight=-0.5), "items.0.weight: Input should be greater than or equal to 0. Found -0.5. A row is"),
        (a_message(weight=float("nan")), "items.0.weight: Input should be a finite number. Found nan."),
        (a_message(weight=float("inf")), "items.0.weight: Input should be a finite number."),
        (a_message(weight=0).replace(b"0", b"1e999"), "items.0.weight: Input should be a finite number."),
        (a_message(weight=10**400), "items.0.weight: Input should be a valid number."),
        (a_message(weight="much"), "items.0.weight: Input should be a valid number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("absent.jsonl", None, ""),
        ("absent.jsonl.gz", None, ""),
        ("plain.jsonl.gz", GOOD, ""),
        ("cut.jsonl.gz", COMPRESSED[:-20], r"(:\d+)?"),
        ("checksum.jsonl.gz", COMPRESSED[:-8] + b"\x00" * 8, r":100"),
        ("damaged.jsonl.gz", COMPRESSED[:30] + bytes(byte ^ 0xFF for byte in COMPRESSED[30:40]) + COMPRESSED[40:], r"(:\d+)?"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, place: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}{place}: can't be read \(.+\)\. Check the path and the file\.$"):
        read(path)


def test_a_folder_is_not_a_file_of_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read(tmp_path)


def test_rows_before_a_bad_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n")
    reader = read_conversations(path)
    assert next(reader)[0] == f"{path}:1"
    with pytest.raises(DataError, match=":2: the line is empty"):
        next(reader)


@given(row=rows)
def test_a_row_written_is_the_row_read(tmp_path_factory: pytest.TempPathFactory, row: Conversation) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(row.to_json() + "\n", encoding="utf-8", newline="\n")
    assert [read_row for _, read_row in read(path)] == [row]


def test_a_row_keeps_the_name_of_its_class() -> None:
    row = Conversation.model_validate({"items": [{"role": "user", "content": "Hi"}], "class": "expert"})
    assert row.class_name == "expert"
    assert json.loads(row.to_json())["class"] == "expert"


def test_a_conversation_cannot_be_changed() -> None:
    row = Conversation(items=(Message(role="user", content="Hi"),))
    with pytest.raises(ValueError, match="frozen"):
        row.condition = "Code"  # type: ignore[misc]  # the very thing that must fail


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl\.zst: \.zst is read by `ochat data import` alone\. Unpack it"):
        list(read_conversations(tmp_path / "rows.jsonl.zst"))
