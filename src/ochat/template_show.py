"""`ochat template show`: see what a model will read, token by token, and what it will learn from."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import tyro

from ochat.conversation import read_conversations
from ochat.errors import DataError, TemplateError
from ochat.hub import TOKENIZER_FILES, model_folder
from ochat.registry import detect_model_type, load_template
from ochat.template import ConversationTemplate

# Weight 0 is dim; what is learned from is green, and bold where it counts in full.
_DIM, _GREEN, _BOLD_GREEN, _RESET = "\033[2m", "\033[32m", "\033[1;32m", "\033[0m"
# C0 but tab and newline, delete, and C1.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Options:
    file: Annotated[Path, tyro.conf.Positional]
    """conversations, one JSON object a line (.gz too)"""
    tokenizer: str
    """folder or hub id of the tokenizer"""
    model_type: str = ""
    """model type; read from the tokenizer's folder when left out"""
    inference: bool = False
    """the prompt for a reply instead of the training row"""
    json: bool = False
    """print {"tokens", "weights"} a line, in the file's order"""


def rendered(path: Path, template: ConversationTemplate, inference: bool) -> Iterator[tuple[str, list[int], list[float]]]:
    """Yield `(place, tokens [n], weights [n])` for each row; raises DataError at the first that can't be rendered."""
    for place, conversation in read_conversations(path):
        try:
            if inference:
                prompt = template.prompt(conversation)
                yield place, prompt, [0.0] * len(prompt)
            else:
                yield place, *template.tokens_and_weights(conversation)
        except TemplateError as error:
            raise DataError(f"{place}: {error}") from error


def coloured(template: ConversationTemplate, tokens: list[int], weights: list[float], colour: bool) -> str:
    """The tokens as text, grouped by weight, control characters as escapes: a terminal would obey those of the data."""
    parts = []
    for weight, group in groupby(zip(tokens, weights, strict=True), key=lambda pair: pair[1]):
        text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], template.tokenizer.decode([token for token, _ in group]))
        style = _DIM if weight == 0 else _BOLD_GREEN if weight >= 1 else _GREEN
        parts.append(f"{style}{text}{_RESET}" if colour else text)
    return "".join(parts)


def main(options: Options) -> None:
    folder = model_folder(options.tokenizer, TOKENIZER_FILES)
    template = load_template(detect_model_type(folder, options.model_type), folder)
    colour = sys.stdout.isatty()
    for place, tokens, weights in rendered(options.file, template, options.inference):
        if options.json:
            print(json.dumps({"tokens": tokens, "weights": weights}))
            continue
        runs = [(weight, len(list(group))) for weight, group in groupby(weights)]
        print(f"{place}: {len(tokens)} tokens, weight sum {sum(weights):g}")
        print(coloured(template, tokens, weights, colour))
        print(f"ids      {tokens}")
        print("weights  " + ", ".join(f"{weight:g} x {count}" for weight, count in runs) + "\n")
