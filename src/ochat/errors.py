"""The errors that a person may see.

Each message says what was found, where, and what to do. The command line prints the message alone; a trace of our own code
would hide it, so a trace means a mistake of ours."""

import importlib.util


class OchatError(Exception):
    """Something that the user can put right; the message ends in the remedy."""


class DataError(OchatError):
    """A row, a file or a data set that can't be used as it is; the message opens with its place, `file:line`."""


class TemplateError(OchatError):
    """A conversation or condition that the model type's template can't express."""


class ModelError(OchatError):
    """A model or tokenizer that is absent or doesn't fit what was asked of it."""


def require(module: str, extra: str, purpose: str) -> None:
    """Say in one line which extra is missing when the top-level `module` isn't installed."""
    if importlib.util.find_spec(module) is None:
        raise OchatError(f"{purpose} needs `{module}`, which isn't installed. Run: pip install -e '.[{extra}]'")
