"""A thousand broken files: import ends each in a message with file, line and remedy, or in counted rows left out."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
import pytest

from ochat.conversation import read_conversations
from ochat.data.import_rows import Options, main
from ochat.errors import OchatError

N_FILES, SEED = 1000, 0


def _turns(role: str, content: str, user: str, assistant: str) -> list[dict[str, object]]:
    return [{role: user, content: "Hi"}, {role: assistant, content: "Hello"}]


GOOD: list[Callable[[], dict[str, object]]] = [
    lambda: {"items": _turns("role", "content", "user", "assistant"), "condition": "GPT4"},
    lambda: {"messages": _turns("role", "content", "user", "assistant")},
    lambda: {"messages": [{**turn, "loss_weight": 0.5} for turn in _turns("role", "content", "user", "assistant")]},
    lambda: {"conversations": _turns("from", "value", "human", "gpt"), "id": "a"},
    lambda: {"instruction": "Hi", "input": "", "output": "Hello"},
    lambda: {"question": "Hi", "answer": "Hello"},
    lambda: {"conversation": [{"input": "Hi", "output": "Hello"}]},
    lambda: {"data": ["Hi", "Hello"]},
    lambda: {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"},
    lambda: {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
    lambda: {"prompt": "Hi", "completion": "Hello", "label": True},
]
JUNK = [
    None,
    True,
    7,
    -1.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "\ud83d",
    [],
    {},
    [[]],
    [None],
    {"a": {"b": [1]}},
    [[1, 2]],
]


def _places(value: object) -> list[tuple[dict[object, object] | list[object], object]]:
    """Each (container, key) inside a value."""
    found: list[tuple[dict[object, object] | list[object], object]] = []
    if isinstance(value, dict | list):
        for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
            found += [(value, key), *_places(inner)]
    return found


def _spoil(row: dict[str, object], random: Random) -> object:
    """The row with one thing in it made wrong."""
    container, key = random.choice(_places(row))
    messages = next((value for value in row.values() if isinstance(value, list) and value and isinstance(value[0], dict)), None)
    turn = random.choice(messages) if messages else row
    match random.randrange(9):
        case 0:
            container[key] = random.choice(JUNK)  # type: ignore[index]  # a key of this container
        case 1:
            del container[key]  # type: ignore[arg-type]  # the same
        case 2:
            turn[random.choice(["wieght", "contnet", "", "\ud83d", "a" * 5000])] = 0.5
        case 3 if random.random() < 0.3:
            turn["tool_calls"] = random.choice([[{"function": {"name": "f", "arguments": "{"}}], "x", [None], {"a": 1}, 5])
        case 3:
            turn["weight"] = random.choice([float("nan"), -1, "1", True, float("inf"), 1e7, [1]])
        case 4:
            turn[random.choice(["role", "from"])] = random.choice(["narrator", "tool", "", 5, None, "\x1b[31m"])
        case 5 if messages:
            messages[:0] = [{"role": "system", "content": "S"}] * random.choice([1, 2])
        case 6 if messages:
            del messages[1:]
        case 7:
            return random.choice(JUNK)
        case _:
            deep: object = 1
            for _ in range(random.choice([10, 900, 3000])):
                deep = [deep]
            container[key] = deep  # type: ignore[index]  # a key of this container
    return row


def _dumped(value: object) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return '{"items": ' + "[" * 3000 + "]" * 3000 + "}"


def _broken(random: Random) -> bytes:
    """A file of a few rows, with something wrong in it or with it."""
    make = random.choice(GOOD)
    rows: list[object] = [make() for _ in range(random.choice([1, 2, 5]))]
    if random.random() < 0.7:
        rows[random.randrange(len(rows))] = _spoil(make(), random)
    as_array = random.random() < 0.25
    indent = random.choice([None, 2])
    texts = [_dumped(row) for row in rows]
    if as_array:
        content = ("[" + (",\n" if indent else ", ").join(texts) + "]").encode()
    else:
        content = "".join(text + "\n" for text in texts).encode()
    match random.randrange(16):
        case 0:
            content = content[: random.randrange(len(content))]
        case 1:
            at = random.randrange(len(content))
            content = content[:at] + random.choice([b"\xe9", b"\x00", b"\n", b'"', b"]", b"\xff\xfe"]) + content[at:]
        case 2:
            content = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
        case 3:
            content = content.decode().encode(random.choice(["utf-16", "utf-16-be", "utf-32"]))
        case 4:
            content = random.choice(
                [b"", b"\n", b" ", b"\xef\xbb\xbf", b"[]", b"[", b"{", b"null", b'"', b"PAR1", b"\x1f\x8b", b"(\xb5/\xfd"]
            )
        case 5 if random.random() < 0.5:
            content = content.replace(b"Hello", b"Hell\xf6")  # as Latin-1 has it
        case 5:
            content = random.randbytes(random.choice([1, 100, 3000]))
        case 6:
            content = gzip.compress(content)
            content = content[: random.randrange(1, len(content))]
        case 7:
            content = gzip.compress(content)
            at = random.randrange(2, len(content))
            content = content[:at] + random.randbytes(3) + content[at + 3 :]
        case 8:
            content = b"a,b\n" + random.choice([b'1,"2', b"1", b"1,2,3", b"\xe9,1", b'1,"2"3', b"", b"x,y"]) + b"\n"
        case 9:
            content = b"prompt,completion\nHi,Hello\n" + random.choice([b'Hi,"', b"Hi", b",", b"\xe9,x", b"Hi,x,y"]) + b"\n"
        case 10:
            sink = pyarrow.BufferOutputStream()
            table = pyarrow.table({"question": ["Hi", None], "answer": random.choice([["Hello", "x"], [1, 2], [b"\xe9", b""]])})
            pyarrow.parquet.write_table(table, sink)
            content = bytearray(sink.getvalue().to_pybytes())
            for _ in range(random.choice([0, 1, 20])):
                content[random.randrange(4, len(content))] = random.randrange(256)
            content = bytes(content[: random.choice([len(content), len(content) // 2])])
        case _:
            pass
    return content


def test_a_thousand_broken_files_end_in_messages_or_in_counted_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = Random(SEED)
    source, output, rejects = Path("in.jsonl"), Path("rows.jsonl"), Path("rows.jsonl.rejects.jsonl")
    ends: Counter[str] = Counter()
    for number in range(N_FILES):
        source.write_bytes(_broken(random))
        for skip in (False, True):
            options = Options(
                (source,),
                output,
                skip_invalid=skip,
                allow_extra_keys=random.random() < 0.2,
                tools_as_text=random.random() < 0.2,
                cap=random.choice([None, 1]),
            )
            try:
                main(options)
            except OchatError as error:
                message = str(error)
                # file, line or row, what is wrong, what to do
                assert re.search(r"in\.jsonl(:(\d+( \(row \d+\))?|row \d+))?: .+\. .+\.$", message), (number, message)
                assert message.isprintable(), (number, message)
                assert len(message) < 1000, (number, message)
                assert not output.exists(), number  # whole or not at all
                assert not rejects.exists(), number
                ends["refused, all rows" if skip else "refused"] += 1
                continue
            rows = list(read_conversations(output))
            assert rows, number
            if not skip:
                ends["all rows kept"] += 1
            else:
                read, kept, rejected = map(
                    int, re.findall(r"(\d+) rows? read = (\d+) kept \+ (\d+) rejected", capsys.readouterr().out)[0]
                )
                assert read == kept + rejected, number
                told = [json.loads(line) for line in rejects.read_text().splitlines()]
                assert len(told) == rejected, number
                assert all(one["place"].startswith("in.jsonl:") and one["problem"] and "row" in one for one in told), number
                ends["some rows left out" if rejected else "all rows kept"] += 1
            output.unlink()
            rejects.unlink(missing_ok=True)
    assert ends.total() == 2 * N_FILES
    # The files are broken in many ways, not all in one.
    assert min(ends[end] for end in ("refused", "refused, all rows", "some rows left out", "all rows kept")) > 100, ends
