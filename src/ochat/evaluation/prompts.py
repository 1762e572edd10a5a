"""The original's prompts, rebuilt from the benchmarks' own questions byte for byte.

A function takes a benchmark's own question and gives the line of the layout's file. What the original did to its questions by
hand can't be rebuilt: its choice of BIG-bench's examples, and its options for TruthfulQA; nor can the few-shot examples of MATH."""

import re
from collections.abc import Mapping
from typing import Any  # what the benchmarks' files hold


def agieval(question: Mapping[str, Any]) -> dict[str, Any]:
    """A line of AGIEval's data/v1 as the original asked it."""
    letters = [chr(65 + number) for number in range(len(question["options"]))]  # each option opens with its own
    passage, options = question["passage"] or "", " ".join(question["options"])
    prompt = f"{passage}Q: {question['question']} Answer Choices: {options}\nA: Among A through {letters[-1]}, the answer is"
    return {"question": prompt, "label": [question["label"]], "options": letters}


def bbh(examples: str, question: Mapping[str, str]) -> dict[str, Any]:
    """A question of BIG-Bench-Hard after the examples of its cot-prompts file."""
    _, _, shots = examples.partition("\n-----\n")
    prompt = f"{shots}\n\nQ: {question['input']}\nA: Let's think step by step."
    options = re.findall(r"^\([A-Z]\)", question["input"].partition("Options:\n")[2], re.MULTILINE)
    return {"question": prompt, "label": [question["target"]], "options": options or None}


def mmlu(examples: str, question: str, choices: list[str], answer: int) -> dict[str, Any]:
    """A question of MMLU after its subject's examples. An option "None" was read as no value, and asked as "nan"."""
    letters = ["(A)", "(B)", "(C)", "(D)"]
    options = " ".join(f"{a} {'nan' if b == 'None' else b}" for a, b in zip(letters, choices, strict=True))
    prompt = f"{examples}\n\n{question}\n{options} \nA: Let's think step by step."
    return {"question": prompt, "label": letters[answer], "options": letters}


def gsm8k(examples: str, question: Mapping[str, str]) -> dict[str, Any]:
    """A line of GSM8K's test.jsonl after the eight examples."""
    label = question["answer"].partition("#### ")[2]
    return {"question": f"{examples}Question: {question['question']}\n", "label": [label], "options": None}
