"""A checkpoint with its template, ready to be asked in this process."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from ochat.registry import detect_model_type, load_template
from ochat.template import ConversationTemplate
from ochat.training.checkpoint import load_model


def load(folder: Path, dtype: str, attention: str = "sdpa") -> tuple[PreTrainedModel, ConversationTemplate]:
    """The model, on the CUDA device if there is one, and its template. dtype: "bfloat16" or "float32".

    Raises ModelError where the folder is no model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(str(folder), getattr(torch, dtype), attention).to(device).eval()
    return model, load_template(detect_model_type(folder), folder)
