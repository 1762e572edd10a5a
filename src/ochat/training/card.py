"""The model card of a checkpoint: what it is, how to ask it, what it learned from, as the README.md of its folder.

A card that was written by hand soon says something else than its model does, so all that can be computed is: the token ids come
from this tokenizer, the tables from this run's files. What isn't known is called unknown. No torch here: a card can be made
wherever the small files are."""

import json
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml

from ochat.conversation import NO_CONDITION, Conversation, Message
from ochat.data.licences import is_non_commercial
from ochat.registry import ModelType
from ochat.template import ConversationTemplate

CARD_FILE = "README.md"
DATA_FILE = "data.json"  # in a run's folder: a copy of its data set's meta.json
# A card that has this line is ours, and may be made again; another README.md is somebody's own.
MARK = "<!-- Made by `ochat model card`, which overwrites this file. -->"
PORT = 18888
# In the run's settings, but told elsewhere in the card.
_TOLD_ELSEWHERE = {"model", "data", "output", "model_type"}
CITATION = """\
@inproceedings{wang2024openchat,
  title = {OpenChat: Advancing Open-source Language Models with Mixed-Quality Data},
  author = {Wang, Guan and Cheng, Sijie and Zhan, Xianyuan and Li, Xiangang and Song, Sen and Liu, Yang},
  booktitle = {The Twelfth International Conference on Learning Representations (ICLR 2024)},
  year = {2024},
  url = {https://arxiv.org/abs/2309.11235}
}"""


@dataclass(frozen=True)
class Evaluation:
    """The score that one folder of `ochat eval run` holds."""

    name: str
    condition: str
    n_questions: int
    n_found: int  # replies that named an option
    value: float
    low: float  # 95 % interval
    high: float


@dataclass(frozen=True)
class CardFacts:
    """What is known of a checkpoint besides its type and tokenizer; whatever is left out is called unknown."""

    name: str = "."  # what readers type for the checkpoint: a hub id, or "." for its own folder
    base_model: str = ""  # as the run named it
    base_is_local: bool = False  # a folder of one machine, so no id that others could follow
    is_adapter: bool = False
    licence: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)  # the data set's meta.json
    source_licences: Mapping[str, str] = field(default_factory=dict)  # by path or name, as in the data's `sources`
    settings: Mapping[str, Any] = field(default_factory=dict)  # the run's config.json
    last_evaluation: Mapping[str, Any] = field(default_factory=dict)  # the log's last line that has one
    evaluations: Sequence[Evaluation] = ()


def card_text(kind: ModelType, template: ConversationTemplate, facts: CardFacts) -> str:
    """The whole README.md, front matter first."""
    parts = [
        _front_matter(facts),
        MARK,
        _introduction(kind, facts),
        _serving(kind, facts),
        _tokens(kind, template, facts),
        _conditions(kind, facts),
        _training(facts),
        _sources(facts),
        _results(facts),
        _limitations(kind),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """A user's text as Markdown that shows it and means nothing else: one line, no markup, no end of a table's cell."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#$~])", r"\\\1", escaped)


def _front_matter(facts: CardFacts) -> str:
    fields: dict[str, object] = {}
    if facts.licence:
        fields["license"] = facts.licence
    if facts.base_model and not facts.base_is_local:
        fields["base_model"] = facts.base_model
    fields |= {
        "library_name": "peft" if facts.is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["openchat", "C-RLFT", "ochat", *(["lora"] if facts.is_adapter else [])],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _introduction(kind: ModelType, facts: CardFacts) -> str:
    title = "This model" if facts.name == "." else plain(facts.name)
    noun = "adapter (LoRA) for a chat model" if facts.is_adapter else "chat model"
    base = _code(_without_place(facts.base_model)) if facts.base_model else "an unknown base model"
    lines = [
        f"# {title}",
        "",
        _wrapped(
            f"{'An' if facts.is_adapter else 'A'} {noun} of the type `{kind.name}`, fine-tuned from {base} with C-RLFT "
            "(conditioned reinforcement-learning fine-tuning, [arXiv 2309.11235](https://arxiv.org/abs/2309.11235)), a method for "
            "data of mixed quality: each class of the data is learned under its own condition and with its own weight, and the "
            "model is then asked under the condition of the good class."
        ),
    ]
    if restricted := _non_commercial(facts):
        names = ", ".join(f"{plain(name)} ({plain(licence)})" for name, licence in restricted)
        lines += ["", _wrapped(f"**Research only.** Licences that forbid commercial use: {names}.")]
    if not facts.licence:
        lines += ["", "The licence of this model is unknown: none was given when this card was made."]
    return "\n".join(lines)


def _non_commercial(facts: CardFacts) -> list[tuple[str, str]]:
    named = [("this model", facts.licence), *((name, licence) for name, _, licence in _listed_sources(facts))]
    return [(name, licence) for name, licence in named if is_non_commercial(licence)]


def _serving(kind: ModelType, facts: CardFacts) -> str:
    here = [
        "`.` stands for this folder, from inside of it. Elsewhere, give its path or its id on the hub instead.",
        "",
    ]
    if facts.is_adapter:
        opening = _wrapped(
            "This folder holds an adapter. Make a whole model of it first with `ochat model merge`, and serve that folder."
        )
        command = [opening]
    else:
        command = [
            *(here if facts.name == "." else []),
            "```bash",
            f"ochat serve --model {shlex.quote(facts.name)} --port {PORT}",
            "```",
        ]
    lines = ["## Serving", "", *command, "", "Ask it as OpenAI's API is asked:", "", _curl(kind, None)]
    if kind.format.takes_condition:
        told = f"Without a `condition`, it answers under {_code(kind.format.default_condition)}. To ask under another one:"
        lines += ["", told, "", _curl(kind, _other_condition(kind, facts))]
    return "\n".join(lines)


def _curl(kind: ModelType, condition: str | None) -> str:
    body: dict[str, object] = {"model": kind.served_names[0]}
    if condition is not None:
        body["condition"] = condition
    body["messages"] = [{"role": "user", "content": "What is 15% of 240?"}]
    return "\n".join(
        [
            "```bash",
            f"curl http://localhost:{PORT}/v1/chat/completions \\",
            '  -H "Content-Type: application/json" \\',
            f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
            "```",
        ]
    )


def _other_condition(kind: ModelType, facts: CardFacts) -> str:
    """A condition to show that isn't the default: one of the data's, or else one that the type is known by."""
    candidates = [*facts.data.get("conditions", ()), *kind.conditions]
    return next((c for c in candidates if c not in ("", NO_CONDITION, kind.format.default_condition)), NO_CONDITION)


_TURNS = (("user", "Hello"), ("assistant", "Hi"), ("user", "How are you today?"))


def _tokens(kind: ModelType, template: ConversationTemplate, facts: CardFacts) -> str:
    """A block of Python whose assertions hold for this tokenizer: ids as serving computes them, asked of transformers."""
    messages = [{"role": role, "content": content} for role, content in _TURNS]

    def ids(n_turns: int, condition: str = "") -> list[int]:
        items = tuple(Message.model_validate(message) for message in messages[:n_turns])
        return template.prompt(Conversation(items=items, condition=condition))

    code = [
        "from transformers import AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({_literal(facts.name)})",
        "messages = [",
        *(f"    {json.dumps(message)}," for message in messages),
        "]",
        "ids = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)",
        *_assertion(ids(1)),
        "ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)",
        *_assertion(ids(3)),
    ]
    if kind.format.takes_condition:
        condition = _other_condition(kind, facts)
        code += [
            "ids = tokenizer.apply_chat_template(",
            f"    messages[:1], add_generation_prompt=True, return_dict=False, condition={_literal(condition)}",
            ")",
            *_assertion(ids(1, condition)),
        ]
    code.append(f"assert tokenizer.eos_token_id == {template.end_of_turn}  # {kind.format.end_of_turn} ends each turn")
    lines = ["## The prompt, in tokens", "", "What the model reads, computed with its own tokenizer:", ""]
    lines += ["```python", *code, "```"]
    if not facts.is_adapter:
        lines += ["", "Without a server:", "", "```python", *_generation(facts), "```"]
    return "\n".join(lines)


def _assertion(ids: Sequence[int]) -> list[str]:
    wrapped = textwrap.wrap(", ".join(map(str, ids)), width=100)
    return ["assert ids == [", *(f"    {line}" for line in wrapped), "]"]


def _generation(facts: CardFacts) -> list[str]:
    name = _literal(facts.name)
    return [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({name})",
        f'model = AutoModelForCausalLM.from_pretrained({name}, dtype="auto")',
        'messages = [{"role": "user", "content": "What is 15% of 240?"}]',
        "ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)",
        "reply = model.generate(torch.tensor([ids]), max_new_tokens=64)[0, len(ids) :]",
        "print(tokenizer.decode(reply, skip_special_tokens=True))",
    ]


def _conditions(kind: ModelType, facts: CardFacts) -> str:
    if not kind.format.takes_condition:
        return "## Conditions\n\nThis model type takes no conditions: a request that names one is refused."
    default = kind.format.default_condition
    lines = ["## Conditions", "", f"- when a request names none: {_code(default)}"]
    seen = facts.data.get("conditions")
    if seen is None:
        known = ", ".join(map(_code, kind.conditions))
        lines.append(f"- in the training data: unknown (the type is known by {known})")
    else:
        shown = ", ".join("none (the bare prompt)" if c in ("", NO_CONDITION) else _code(c) for c in seen)
        lines.append(f"- in the training data: {shown}")
    lines.append(f'- `"{NO_CONDITION}"` asks for the bare prompt. Other words are accepted, and mean nothing to the model.')
    if seen is not None and default not in seen:
        lines += ["", _wrapped(f"**The default, {plain(default)}, was not in the training data**: name a condition that was.")]
    return "\n".join(lines)


def _training(facts: CardFacts) -> str:
    lines = ["## Training"]
    classes = facts.data.get("classes") or {}
    if classes:
        lines += ["", *_class_table(facts, classes)]
    else:
        lines += ["", "The classes of the training data are unknown."]
    if facts.last_evaluation.get("heldout"):
        lines += ["", *_heldout_table(facts.last_evaluation)]
    settings = {name: value for name, value in facts.settings.items() if name not in _TOLD_ELSEWHERE}
    if settings:
        lines += ["", "| setting | value |", "|---|---|"]
        lines += [f"| {plain(name)} | {plain(_setting(value))} |" for name, value in settings.items()]
    else:
        lines += ["", "The settings of the training run are unknown."]
    return "\n".join(lines)


def _class_table(facts: CardFacts, classes: Mapping[str, Mapping[str, float]]) -> list[str]:
    conditions = facts.data.get("class_conditions", {})
    all_weights = sum(of_class["weight_sum"] for of_class in classes.values()) or 1.0
    lines = ["| class | conditions | rows | learned tokens | weight | share of the weights |", "|---|---|---|---|---|---|"]
    for name, of_class in sorted(classes.items()):
        told = ", ".join(plain(c) or "none" for c in conditions[name]) if name in conditions else "unknown"
        weight = of_class["weight_sum"] / of_class["learned_tokens"] if of_class["learned_tokens"] else 0.0
        numbers = f"{of_class['rows']:,} | {of_class['learned_tokens']:,} | {weight:.4g}"
        lines.append(f"| {plain(name) or '(none)'} | {told} | {numbers} | {of_class['weight_sum'] / all_weights:.1%} |")
    note = "The weight is the mean over the learned tokens: the answers and their ends of turn."
    rows = [facts.data.get("train_rows"), facts.data.get("heldout_rows"), facts.data.get("tokens")]
    if None not in rows:
        note += " {:,} rows were trained on and {:,} held out; together they have {:,} tokens.".format(*rows)
    return [*lines, "", _wrapped(note)]


def _heldout_table(line: Mapping[str, Any]) -> list[str]:
    lines = ["| class | held-out tokens | loss | accuracy |", "|---|---|---|---|"]
    for name, of_class in sorted(line["heldout"].items()):
        lines.append(
            f"| {plain(name) or '(none)'} | {of_class['tokens']:,} | {of_class['nll']:.3f} | {of_class['accuracy']:.1%} |"
        )
    note = (
        f"On held-out answers, after step {line['step']:,}: the mean loss of a token in nats, and how often the model's first "
        "choice was the token."
    )
    return [*lines, "", _wrapped(note)]


def _setting(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, str):
        return _without_place(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _listed_sources(facts: CardFacts) -> list[tuple[str, str, str]]:
    """Name, SHA-256 and licence ("" for unknown) of each file of the data set."""
    kept = facts.data.get("licences") or {}
    sources = facts.data.get("sources") or {}
    found = []
    for path, sha256 in sources.items():
        name = PurePath(path).name
        keys = (path, name)
        given = [licences[key] for licences in (facts.source_licences, kept) for key in keys if key in licences]
        found.append((name, str(sha256), given[0] if given else ""))
    return found


def _sources(facts: CardFacts) -> str:
    lines = ["## Data", ""]
    sources = _listed_sources(facts)
    if not sources:
        return "\n".join([*lines, "The sources of the training data and their licences are unknown."])
    lines += ["| file | SHA-256 | licence |", "|---|---|---|"]
    for name, sha256, licence in sources:
        note = " (research only)" if is_non_commercial(licence) else ""
        lines.append(f"| {plain(name)} | {_code(sha256[:16])}… | {plain(licence) or 'unknown'}{note} |")
    return "\n".join(lines)


def _results(facts: CardFacts) -> str:
    lines = ["## Evaluation", ""]
    if not facts.evaluations:
        return "\n".join([*lines, "This model has not been evaluated, or no result was given when this card was made."])
    lines += ["| evaluation | condition | questions | answered | accuracy [95 % interval] |", "|---|---|---|---|---|"]
    for one in facts.evaluations:
        score = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
        counts = f"{one.n_questions:,} | {one.n_found:,}"
        lines.append(f"| {plain(one.name)} | {plain(one.condition) or 'the default'} | {counts} | {score} |")
    note = "Graded by `ochat eval run`. A reply counts as answered where an option of the question was found in it."
    return "\n".join([*lines, "", note])


def _limitations(kind: ModelType) -> str:
    lines = [
        "- It makes mistakes and states them as facts, and has the base model's limits and biases.",
        "- A class's weight and condition say where an answer came from. No single answer was graded.",
        "- It was not trained to refuse harmful requests beyond what its base model and data teach.",
        "- `ochat serve` keeps control tokens that users type as plain text. The chat template, used by itself as above, can't: "
        f"text that holds `{kind.format.end_of_turn}` ends its turn there.",
    ]
    if kind.format.takes_condition:
        lines.insert(
            2, "- A condition makes a kind of answer likelier. It guarantees nothing, and a misspelt one is not noticed."
        )
    return "\n".join(["## Limitations", "", *(_wrapped(line, indent="  ") for line in lines)])


def _without_place(name: str) -> str:
    """A path without the folders of one machine: the last part of an absolute one, others as they are."""
    return PurePath(name).name if name.startswith(("/", "~")) else name


def _code(text: str) -> str:
    """Text as a span of code, in more backticks than it holds itself."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if "`" in text else ""
    return f"{ticks}{blank}{' '.join(text.split())}{blank}{ticks}"


def _literal(text: str) -> str:
    """A Python string; JSON's escapes of letters beyond 16 bits would be two letters there."""
    return json.dumps(text, ensure_ascii=False)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, width=120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
