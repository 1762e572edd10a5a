"""One conversation's way through every stage, on the CPU: read this last, and you have seen the whole.

A row becomes tokens and weights, a stored row, a packed batch, a loss, a trained checkpoint; a request becomes a prompt, a reply
and a grade. At each stage stands the value that the next one gets. The model has two layers and learns this one row by heart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import tiny_model
from transformers import AutoModelForCausalLM

from ochat.conversation import Conversation, read_conversations
from ochat.data import tokenize
from ochat.data.dataset import Dataset
from ochat.data.packing import plan
from ochat.evaluation.graders.choice import grade_choice
from ochat.questions import Question
from ochat.registry import detect_model_type, load_template, model_type, trained_conditions
from ochat.serving.messages import read_messages
from ochat.tokenizer import load_tokenizer
from ochat.training import train
from ochat.training.batch import dataset_batch
from ochat.training.checkpoint import save_checkpoint
from ochat.training.config import Options

KIND = model_type("openchat_smollm2")
QUESTION = Question(question="Tea or rice?", options=("tea", "rice"), label=("rice",))
ROW = {
    "items": [
        {"role": "user", "content": "Tea or rice?", "weight": 0.0},
        {"role": "assistant", "content": "rice", "weight": 0.5},
    ],
    "condition": "GPT3",
    "system": "",
    "class": "suboptimal",
}


def test_one_conversation_from_row_to_grade(tmp_path: Path, toy_folder: Callable[..., Path]) -> None:
    # A base model: random weights, a toy tokenizer, the control tokens of its type.
    tokens_folder, base = toy_folder(KIND.name), tmp_path / "base"
    save_checkpoint(tiny_model(load_tokenizer(tokens_folder).vocab_size), tokens_folder, KIND, base)

    # Row: one line of JSON, checked.
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    ((place, conversation),) = read_conversations(rows)
    assert place == f"{rows}:1"
    assert conversation == Conversation.model_validate(ROW)

    # Tokens + weights: marks weigh 0, the answer and its end of turn weigh the message's weight.
    template = load_template(KIND, base)
    tokens, weights = template.tokens_and_weights(conversation)
    text = "<|im_start|>GPT3 user\nTea or rice?<|im_end|>\n<|im_start|>GPT3 assistant\nrice<|im_end|>"
    assert template.tokenizer.decode(tokens) == text
    answer = len(template.tokenizer.encode_text(["rice"])[0]) + 1
    assert weights == [0.0] * (len(tokens) - answer) + [0.5] * answer

    # Data set: ids, and the weights as runs.
    tokenize.main(tokenize.Options((rows,), str(base), tmp_path / "data"))
    dataset = Dataset(tmp_path / "data")
    ids, run_lengths, run_weights = dataset.row(0)
    assert ids.tolist() == tokens
    assert sum(run_lengths) == len(tokens)
    assert (run_lengths[-1], run_weights[-1]) == (answer, 0.5)
    assert dataset.weight_sums == [0.5 * answer]

    # Packed batch: the plan's only step; each learned token is the label of the one before it.
    steps = plan(dataset.lengths, epochs=1, batch_tokens=256, pack_tokens=256, seed=0)
    assert len(steps) == 1
    batch = dataset_batch(dataset, steps.step_rows(0))
    assert batch.input_ids.tolist() == [tokens]
    assert batch.labels.tolist() == tokens[-answer:]
    assert batch.learned.tolist() == list(range(len(tokens) - answer - 1, len(tokens) - 1))

    # Loss: w · nll, as the plain formula has it.
    train.main(Options(str(base), tmp_path / "data", tmp_path / "run", epochs=60, lr=1e-2, batch_tokens=256, dtype="float32"))
    final = tmp_path / "run" / "final"
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(base)
    log_p = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    nll = [-log_p[position, label].item() for position, label in zip(batch.learned, batch.labels, strict=True)]
    assert first["loss"] == pytest.approx(sum(0.5 * value for value in nll) / (0.5 * answer), rel=1e-4)

    # Checkpoint: what every tool reads, and the end of turn ends a reply.
    assert detect_model_type(final) == KIND
    assert trained_conditions(final) == ("GPT3",)  # which a server therefore knows
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "openchat.json"} <= {p.name for p in final.iterdir()}
    generation = json.loads((final / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == template.end_of_turn
    assert load_file(final / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()

    # Prompt: the server's ids are the first training tokens of that conversation under that condition.
    asked = read_messages([{"role": "user", "content": QUESTION.question}], condition="GPT3")
    prompt = load_template(KIND, final).prompt(asked)
    assert prompt == tokens[:-answer]

    # Reply and grade.
    trained = AutoModelForCausalLM.from_pretrained(final)
    ids = torch.tensor([prompt])
    (output,) = trained.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert output[-1] == template.end_of_turn
    reply = template.tokenizer.decode(output[len(prompt) : -1].tolist()).removeprefix(" ")
    grade = grade_choice(QUESTION, reply)
    assert (grade.answer, grade.found, grade.correct) == ("rice", True, True)
