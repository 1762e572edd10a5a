"""The model types, as plain data: the format of the prompt, the context length and the conditions that a type knows.

The marks of the original's types are the original's to the byte (docs/decisions/0002-template-marks.md)."""

import json
from dataclasses import dataclass
from pathlib import Path

from ochat.errors import ModelError
from ochat.template import ConversationTemplate, TemplateFormat
from ochat.tokenizer import load_tokenizer

# A checkpoint says its model type in this file, as the original's do.
MODEL_TYPE_FILE = "openchat.json"


@dataclass(frozen=True)
class ModelType:
    """What a family of chat models has in common."""

    name: str
    format: TemplateFormat
    max_context: int  # tokens
    aliases: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    # Control tokens that a base model of this type may lack; `ochat model add-tokens` adds them.
    tokens: tuple[str, ...] = ()
    # The learning rate at 4e6 supervised tokens a step; it falls with the root of the step's size. The original: 3e-4 / d,
    # d = 6 (Mistral), 5.5 (Gemma), 5.3 (Llama 3), 1 otherwise.
    learning_rate: float = 3e-4

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names that the server answers to, the best known first."""
        return (*self.aliases, self.name)


_OPENCHAT_CONDITIONS = ("GPT4 Correct", "GPT4", "GPT3", "Code", "Human", "Math Correct")


def _openchat_format(end_of_turn: str, default_condition: str) -> TemplateFormat:
    return TemplateFormat(
        user_prefix="{condition} User:",
        assistant_prefix="{condition} Assistant:",
        end_of_turn=end_of_turn,
        default_condition=default_condition,
    )


MODEL_TYPES = (
    ModelType(
        name="openchat_3.6",
        format=TemplateFormat(
            user_prefix="<|start_header_id|>{condition} User<|end_header_id|>\n\n",
            assistant_prefix="<|start_header_id|>{condition} Assistant<|end_header_id|>\n\n",
            system_prefix="<|start_header_id|>System<|end_header_id|>\n\n",
            end_of_turn="<|eot_id|>",
            default_condition="GPT4 Correct",
        ),
        max_context=8192,
        conditions=_OPENCHAT_CONDITIONS,
        learning_rate=3e-4 / 5.3,
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    ModelType(
        name="openchat_v3.2",
        format=_openchat_format("<|end_of_turn|>", "GPT4"),
        max_context=4096,
        conditions=("GPT4", "GPT3"),
        tokens=("<|end_of_turn|>", "<|pad_0|>"),
    ),
    ModelType(
        name="openchat_v3.2_mistral",
        aliases=("openchat_3.5",),
        format=_openchat_format("<|end_of_turn|>", "GPT4 Correct"),
        max_context=8192,
        conditions=_OPENCHAT_CONDITIONS,
        learning_rate=3e-4 / 6,
        tokens=("<|end_of_turn|>", "<|pad_0|>"),
    ),
    ModelType(
        name="openchat_v3.2_gemma_new",
        aliases=("openchat_3.5_gemma_new",),
        format=_openchat_format("<end_of_turn>", "GPT4 Correct"),
        max_context=8192,
        conditions=_OPENCHAT_CONDITIONS,
        learning_rate=3e-4 / 5.5,
        tokens=("<end_of_turn>",),
    ),
    ModelType(
        # The embedded base model's type: its own ChatML with the condition before each role.
        name="openchat_smollm2",
        format=TemplateFormat(
            user_prefix="<|im_start|>{condition} user\n",
            assistant_prefix="<|im_start|>{condition} assistant\n",
            system_prefix="<|im_start|>system\n",
            end_of_turn="<|im_end|>",
            separator="\n",
            default_condition="GPT4 Correct",
        ),
        max_context=8192,
        conditions=("GPT4 Correct", "GPT3", "Code"),
        tokens=("<|im_start|>", "<|im_end|>"),
        # Ours, for small steps: 5e-4 at 300 supervised tokens a step, the setting of examples/nonce.
        learning_rate=0.058,
    ),
    ModelType(
        name="chatml_8192",
        format=TemplateFormat(
            user_prefix="<|im_start|>user\n",
            assistant_prefix="<|im_start|>assistant\n",
            system_prefix="<|im_start|>system\n",
            end_of_turn="<|im_end|>",
        ),
        max_context=8192,
        tokens=("<|im_start|>", "<|im_end|>"),
    ),
    ModelType(
        name="zephyr_mistral",
        format=TemplateFormat(
            user_prefix="<|user|>\n", assistant_prefix="<|assistant|>\n", system_prefix="<|system|>\n", end_of_turn="</s>"
        ),
        max_context=8192,
        tokens=("</s>",),
        learning_rate=3e-4 / 6,
    ),
    ModelType(
        name="gemma_it",
        format=TemplateFormat(
            user_prefix="<start_of_turn>user\n",
            assistant_prefix="<start_of_turn>model\n",
            system_prefix=None,
            end_of_turn="<end_of_turn>",
        ),
        max_context=8192,
        tokens=("<start_of_turn>", "<end_of_turn>"),
        learning_rate=3e-4 / 5.5,
    ),
    ModelType(
        name="llama3_instruct",
        format=TemplateFormat(
            user_prefix="<|start_header_id|>user<|end_header_id|>\n\n",
            assistant_prefix="<|start_header_id|>assistant<|end_header_id|>\n\n",
            system_prefix="<|start_header_id|>system<|end_header_id|>\n\n",
            end_of_turn="<|eot_id|>",
        ),
        max_context=8192,
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        learning_rate=3e-4 / 5.3,
    ),
)


def control_token_in(text: str) -> str:
    """A control token of any model type that the text holds, "" for none: what an import can tell, which knows no tokenizer."""
    return next((token for kind in MODEL_TYPES for token in kind.tokens if token in text), "")


def model_type(name: str) -> ModelType:
    """The model type of that name or alias; raises ModelError, listing the known ones."""
    for candidate in MODEL_TYPES:
        if name in candidate.served_names:
            return candidate
    known = ", ".join(name for candidate in MODEL_TYPES for name in candidate.served_names)
    raise ModelError(f"Unknown model type {name!r}. Known: {known}. Pass one with --model-type.")


def detect_model_type(folder: Path, given: str = "") -> ModelType:
    """The type that was given, or else the one in the folder's openchat.json, or else the only one whose marks the tokenizer and
    its chat template have; raises ModelError where nothing tells."""
    if given:
        return model_type(given)
    path = folder / MODEL_TYPE_FILE
    if not path.is_file():
        found = _types_by_marks(folder)
        if len(found) == 1:
            return found[0]
        known = ", ".join(name for candidate in MODEL_TYPES for name in candidate.served_names)
        raise ModelError(
            f"{folder} has no {MODEL_TYPE_FILE} that tells its model type, and no chat template that does. Pass one with "
            f"--model-type: {known}."
        )
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f'{path}: expected {{"model_type": "…"}} ({error!r}). Mend the file or pass --model-type.') from error
    return model_type(name)


def trained_conditions(folder: Path) -> tuple[str, ...]:
    """The conditions that a checkpoint's openchat.json says it was trained under; none where it doesn't tell."""
    try:
        told = json.loads((folder / MODEL_TYPE_FILE).read_text(encoding="utf-8")).get("conditions", ())
    except (OSError, ValueError, AttributeError):
        return ()
    return tuple(told) if isinstance(told, list) and all(isinstance(name, str) for name in told) else ()


def _types_by_marks(folder: Path) -> list[ModelType]:
    """The types whose tokens a folder's tokenizer has, and whose opening of a reply its chat template has."""
    try:
        added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        tokens = {token["content"] for token in added}
        jinja, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
        template = jinja.read_text("utf-8") if jinja.is_file() else json.loads(config.read_text("utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    ends = {kind.name: kind.format.prefix("assistant", kind.format.default_condition).strip() for kind in MODEL_TYPES}
    return [kind for kind in MODEL_TYPES if tokens.issuperset({kind.format.end_of_turn}) and ends[kind.name] in str(template)]


def load_template(kind: ModelType, folder: Path) -> ConversationTemplate:
    """The template of a model type with the tokenizer of a folder."""
    return ConversationTemplate(kind.format, load_tokenizer(folder))
