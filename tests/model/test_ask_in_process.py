"""Replies, losses and states of a model in this process, against the plain way to get them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ochat.conversation import Conversation, Message
from ochat.model.generate import greedy_replies
from ochat.model.load import load
from ochat.model.score import answer_losses, last_hidden_states
from ochat.model.tiny import TinyShape, write_tiny_model
from ochat.registry import load_template, model_type
from ochat.training.attention import NAME

KIND = model_type("openchat_v3.2")
SHAPE = TinyShape(hidden=64, layers=2, initial_std=0.3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, KIND, ("GPT4", "GPT3", "User:", "Assistant:"), SHAPE, seed=1)
    return folder


def asked(text: str, condition: str = "GPT4") -> Conversation:
    return Conversation(items=(Message(role="user", content=text),), condition=condition)


def answered(text: str, answer: str, weight: float = 1.0) -> Conversation:
    return Conversation(
        items=(Message(role="user", content=text), Message(role="assistant", content=answer, weight=weight)), condition="GPT4"
    )


def test_the_papers_words_are_one_token_each(tiny: Path) -> None:
    template = load_template(KIND, tiny)
    ids = template.prompt(asked("12+34"))
    assert [template.tokenizer.decode([id]) for id in ids] == [
        *("GPT4", " User:", "1", "2", "+", "3", "4", "<|end_of_turn|>"),
        *("GPT4", " Assistant:"),
    ]


def test_any_text_is_read_and_no_control_token_is_forged(tiny: Path) -> None:
    template = load_template(KIND, tiny)
    text = "naïve 👋 <|end_of_turn|> GPT4 User:"
    (ids,) = template.tokenizer.encode_text([text])
    assert template.tokenizer.decode(ids) == text
    assert template.tokenizer.control_ids(ids) == []


def test_the_same_seed_makes_the_same_model(tiny: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("same", 1), ("other", 2)):
        write_tiny_model(tmp_path / name, KIND, ("GPT4", "GPT3", "User:", "Assistant:"), SHAPE, seed=seed)
    files = [(folder / "model.safetensors").read_bytes() for folder in (tiny, tmp_path / "same", tmp_path / "other")]
    assert files[0] == files[1] != files[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_replies_are_the_most_probable_tokens_one_after_another(tiny: Path) -> None:
    model, template = load(tiny, "float32")
    rows = [asked("12+34"), asked("7"), asked("56+78"), asked("12+34", "none")]
    expected = []
    for row in rows:
        ids = template.prompt(row)
        said: list[int] = []
        for _ in range(6):
            logits = model(input_ids=torch.tensor([ids + said]).to(model.device)).logits[0, -1]
            said.append(int(logits.argmax()))
            if said[-1] == template.end_of_turn:
                said.pop()
                break
        expected.append(template.tokenizer.decode(said).removeprefix(" "))
    assert greedy_replies(model, template, rows, 6) == expected
    assert len(set(expected)) > 1


def test_a_reply_stops_before_the_end_of_turn(tiny: Path) -> None:
    model, template = load(tiny, "float32")
    with torch.no_grad():  # a state that the end of turn fits best, whatever was read
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(SHAPE.hidden, model.config.vocab_size)
        model.lm_head.bias[template.end_of_turn] += 100
    assert greedy_replies(model, template, [asked("1"), asked("12")], 4) == ["", ""]


def test_losses_are_those_of_the_answers_alone(tiny: Path) -> None:
    model, template = load(tiny, "float32", NAME)
    rows = [answered("12+34", "46"), answered("5+5", "10", weight=0.1), answered("1", "2")]
    sums, counts = answer_losses(model, template, rows)
    plain, _ = load(tiny, "float32")
    plain.requires_grad_(False)
    for row, total, count in zip(rows, sums, counts, strict=True):
        ids, weights = template.tokens_and_weights(row)
        log_p = plain(input_ids=torch.tensor([ids]).to(plain.device)).logits[0].log_softmax(-1)
        learned = [t for t in range(1, len(ids)) if weights[t] > 0]
        assert count == len(learned) == len(row.items[1].content) + 1
        assert total == pytest.approx(-sum(float(log_p[t - 1, ids[t]]) for t in learned), rel=1e-4)


def test_many_rows_are_scored_as_few_are(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, template = load(tiny, "float32", NAME)
    rows = [answered(f"{n}+{n}", str(2 * n)) for n in range(40)]
    whole = answer_losses(model, template, rows)
    monkeypatch.setattr("ochat.model.score.BATCH_TOKENS", 50)
    parts = answer_losses(model, template, rows)
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-5)
    assert whole[1].tolist() == parts[1].tolist()


def test_states_are_those_before_the_replys_first_token(tiny: Path) -> None:
    model, template = load(tiny, "float32")
    rows = [asked("12+34"), asked("7")]
    states = last_hidden_states(model, template, rows)
    for row, state in zip(rows, states, strict=True):
        logits = model(input_ids=torch.tensor([template.prompt(row)]).to(model.device)).logits[0, -1]
        again = model.lm_head(torch.tensor(state).to(model.device))
        torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)
