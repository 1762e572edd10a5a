"""A few rows of each public data set that is known by name, made up by its schema."""

import json
from pathlib import Path

from ochat.data.sets import set_named


def share(model: str | None, reply: str) -> dict[str, object]:
    items = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": reply}]
    return {"id": reply, "items": items, "title": "T", "avatarUrl": "", "views": 3, "hash": [1, 2]} | (
        {} if model is None else {"model": model}
    )


def orca(condition: str, question: str, answer: str, system: str = "") -> dict[str, object]:
    return {"system": system, "instruction": question, "response": answer, "condition": condition}


PAIRS = [{"source": "X", "conversation": [{"input": "Hi", "output": "Hello"}, {"input": "\nAnd?", "output": "Yes"}]}]
ROWS: dict[str, list[dict[str, object]]] = {
    "openchat/openchat_sharegpt4_dataset": [
        share("Model: GPT-4", "a"),
        share("Model: Default (GPT-3.5)", "b"),
        share("", "c"),
        share(None, "d"),
    ],
    "imone/OpenOrca_FLAN": [
        orca("GPT4", "Capital of France?", "It is a large city. The answer is Paris.", "You are an assistant."),
        orca("FLAN", "Capital of France?", "Paris"),
        orca("GPT4", "Is it good?", "No, it isn't."),
        orca("FLAN", "Is it good?", "yes"),
        orca("GPT4", "Nobody else answers?", "Well."),
    ],
    "LDJnr/Pure-Dove": PAIRS,
    "LDJnr/Verified-Camel": PAIRS,
    "LDJnr/LessWrong-Amplify-Instruct": PAIRS,
    "tiedong/goat": [
        {"instruction": "12 + 30", "input": "12 + 30", "output": "12 + 30 = 42", "answer": "42"},
        # not what the format knows it by, yet a row of the set
        {"instruction": "3 times 0?", "input": "3 x 0 ", "output": "3 * 0 = 0", "answer": "zero"},
    ],
    "glaiveai/glaive-code-assistant": [{"question": "Bold in Bash?", "answer": "Yes"}],
    "meta-math/MetaMathQA": [
        {"type": "GSM_SV", "query": "1+1?", "original_question": "1+x?", "response": "2\n#### 2\nThe answer is: 2"},
        {"type": "GSM_SV", "query": "", "original_question": "1+x?", "response": "2"},
    ],
    "OpenAssistant/oasst_top1_2023-08-25": [
        {"text": "<|im_start|>user\nHi\nyou<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"}
    ],
    "TIGER-Lab/MathInstruct": [
        {"source": f"data/{source}.json", "instruction": f"{source}?", "output": "1"}
        for source in (
            "CoT/aqua_rat",
            "PoT/MATH_train",
            "CoT/college_math",
            "CoT/math50k_camel",
            "CoT/gsm_rft",
            "PoT/TheoremQA",
        )
    ],
}
EXPECTED = {
    "openchat/openchat_sharegpt4_dataset": {("sharegpt-gpt4", "GPT4", 1.0): 1, ("sharegpt-gpt3", "GPT3", 0.1): 3},
    "imone/OpenOrca_FLAN": {("orca-correct", "GPT4 Correct", 1.0): 1, ("orca-gpt4", "GPT4", 1.0): 2, ("flan", "Human", 1.0): 2},
    "LDJnr/Pure-Dove": {("pure-dove", "GPT4", 1.0): 1},
    "LDJnr/Verified-Camel": {("verified-camel", "GPT4 Correct", 1.0): 1},
    "LDJnr/LessWrong-Amplify-Instruct": {("lesswrong", "GPT4", 1.0): 1},
    "tiedong/goat": {("goat", "GPT4 Correct", 1.0): 2},
    "glaiveai/glaive-code-assistant": {("glaive-code", "Code", 1.0): 1},
    "meta-math/MetaMathQA": {("metamath", "GPT4 Correct", 1.0): 1},
    "OpenAssistant/oasst_top1_2023-08-25": {("oasst", "Human", 1.0): 1},
    "TIGER-Lab/MathInstruct": {("mathinstruct", "GPT4 Correct", 1.0): 2, ("mathinstruct-unchecked", "GPT4", 1.0): 1},
}


def write_copy(copies: Path, id: str) -> Path:
    """The folder of a local copy that holds the set's rows."""
    folder = copies / id
    folder.mkdir(parents=True, exist_ok=True)
    name = (set_named(id).files or ("train.json",))[0]
    (folder / name).write_text(json.dumps(ROWS[id], indent=1), encoding="utf-8")
    return folder
