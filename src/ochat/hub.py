"""Find a model's files: a folder as it is, or a hub id through the hub's local cache.

Everything else takes folders, so no other module knows of the hub or of the network."""

from pathlib import Path

from ochat.errors import ModelError

TOKENIZER_FILES = ["*.json", "*.jinja"]
MODEL_FILES = [*TOKENIZER_FILES, "*.safetensors"]  # safetensors alone: a pickle would run its author's code


def model_folder(name: str, patterns: list[str] = MODEL_FILES) -> Path:
    """The folder of a model, downloaded if `name` is a hub id that isn't in the cache.

    Raises ModelError, in one line, when it's neither a folder nor an id that can be had from here."""
    path = Path(name).expanduser()
    if name and path.is_dir():  # "" would be the current folder
        return path
    owner, _, rest = name.partition("/")
    # `runs/base` where `runs` is a folder is a path mistyped, not an id.
    if not name or "/" in rest or name.startswith((".", "/", "~")) or path.exists() or (rest and Path(owner).is_dir()):
        raise ModelError(
            f"{name or 'The empty name'} is not a folder. Give a model's folder or a hub id such as openchat/openchat_3.5."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(f"{name} asks for your consent on its page first. Give it there, and run `hf auth login`.") from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(f"{name} is neither a folder nor a model on the hub. Check the spelling.") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name} is not in the hub's cache and the hub can't be reached. Give the folder of a downloaded model, or "
            "`ochat model base --output DIR` for the embedded one."
        ) from error
