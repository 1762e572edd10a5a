import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ochat.errors import ModelError
from ochat.registry import MODEL_TYPE_FILE, MODEL_TYPES, ModelType, detect_model_type, load_template, model_type

NAMES = {
    "openchat_3.6": "openchat_3.6",
    "openchat_v3.2": "openchat_v3.2",
    "openchat_v3.2_mistral": "openchat_v3.2_mistral",
    "openchat_3.5": "openchat_v3.2_mistral",
    "openchat_v3.2_gemma_new": "openchat_v3.2_gemma_new",
    "openchat_3.5_gemma_new": "openchat_v3.2_gemma_new",
    "openchat_smollm2": "openchat_smollm2",
    "chatml_8192": "chatml_8192",
    "zephyr_mistral": "zephyr_mistral",
    "gemma_it": "gemma_it",
    "llama3_instruct": "llama3_instruct",
}


def test_each_name_means_one_type() -> None:
    assert {name: model_type(name).name for name in NAMES} == NAMES
    served = [name for kind in MODEL_TYPES for name in kind.served_names]
    assert sorted(served) == sorted(NAMES)


@pytest.mark.parametrize("name", ["openchat_3.7", "", "OPENCHAT_3.5", "openchat"])
def test_an_unknown_type_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_type(name)
    message = str(caught.value)
    assert message.startswith(f"Unknown model type {name!r}. Known: ")
    assert message.endswith(". Pass one with --model-type.")
    assert all(known in message for known in NAMES)


@pytest.mark.parametrize(("name", "type_name"), NAMES.items())
def test_a_folder_says_its_type(tmp_path: Path, name: str, type_name: str) -> None:
    (tmp_path / MODEL_TYPE_FILE).write_text(json.dumps({"model_type": name}))
    assert detect_model_type(tmp_path).name == type_name


OPENCHAT_CARD = (
    "{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + "
    "'<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("token", "template", "expected"),
    [
        ("<|end_of_turn|>", OPENCHAT_CARD, "openchat_v3.2_mistral"),
        ("<end_of_turn>", OPENCHAT_CARD, "openchat_v3.2_gemma_new"),
        ("<|eot_id|>", "{{ '<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n' }}", "openchat_3.6"),
        ("<|eot_id|>", "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}", "llama3_instruct"),
        ("<|im_end|>", "{{ '<|im_start|>assistant\n' }}", "chatml_8192"),
        ("<end_of_turn>", "{{ '<start_of_turn>model\n' }}", "gemma_it"),
        ("</s>", "{{ '<|assistant|>' }}", "zephyr_mistral"),
        ("</s>", "[INST] {{ message['content'] }} [/INST]", None),
        ("<|im_end|>", OPENCHAT_CARD, None),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_a_folder_without_the_file_is_known_by_its_tokens_and_template(
    token: str, template: str, expected: str | None, in_file: bool, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": token}, {"content": "<s>"}]}))
    if in_file:
        (tmp_path / "chat_template.jinja").write_text(template)
    else:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    if expected:
        assert detect_model_type(tmp_path).name == expected
    else:
        with pytest.raises(ModelError, match="no chat template that does"):
            detect_model_type(tmp_path)


def test_a_given_type_wins_over_the_folders(tmp_path: Path) -> None:
    assert detect_model_type(tmp_path, "gemma_it").name == "gemma_it"
    (tmp_path / MODEL_TYPE_FILE).write_text('{"model_type": "openchat_3.6"}')
    assert detect_model_type(tmp_path, "gemma_it").name == "gemma_it"
    with pytest.raises(ModelError, match="Unknown model type 'gemma'"):
        detect_model_type(tmp_path, "gemma")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            None,
            r"has no openchat\.json that tells its model type, and no chat template that does\. Pass one with --model-type: openchat_3\.6, ",
        ),
        (b"", r"openchat\.json: expected {\"model_type\": \"…\"} \(.+\)\. Mend the file or pass --model-type\."),
        (b"\xff", r"openchat\.json: expected "),
        (b"{}", r"openchat\.json: expected .+KeyError"),
        (b"[]", r"openchat\.json: expected "),
        (b'"openchat_3.5"', r"openchat\.json: expected "),
        (b"null", r"openchat\.json: expected "),
        (b'{"model_type": "mistral"}', "Unknown model type 'mistral'"),
        (b'{"model_type": 3.5}', "Unknown model type 3.5"),
        (b'{"model_type": ["openchat_3.5"]}', r"Unknown model type \['openchat_3.5'\]"),
    ],
)
def test_a_folder_that_does_not_tell_its_type_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / MODEL_TYPE_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        detect_model_type(tmp_path)


@pytest.mark.parametrize("kind", MODEL_TYPES, ids=lambda kind: kind.name)
def test_a_type_is_whole(toy_folder: Callable[..., Path], kind: ModelType) -> None:
    assert kind.format.end_of_turn in kind.tokens
    assert kind.format.takes_condition is bool(kind.conditions) is bool(kind.format.default_condition)
    assert not kind.format.takes_condition or "{condition} " in kind.format.user_prefix
    assert kind.max_context > 0
    assert kind.learning_rate > 0
    assert detect_model_type(toy_folder(kind.name)) is kind
    template = load_template(kind, toy_folder(kind.name))
    for condition in (kind.format.default_condition, *kind.conditions):
        assert template.check_condition(condition) == condition
    # Those of its marks that look like control tokens are ones; the original's Zephyr writes its roles in plain letters.
    marks = template.tokenizer.encode_marks([kind.format.user_prefix, kind.format.assistant_prefix])
    n_marks = [len(template.tokenizer.control_ids(ids)) for ids in marks]
    assert n_marks == [sum(prefix.count(token) for token in kind.tokens) for prefix in (kind.format.user_prefix,) * 2]


def test_the_default_condition_is_one_that_the_type_knows() -> None:
    assert [kind.name for kind in MODEL_TYPES if kind.conditions and kind.format.default_condition not in kind.conditions] == []
