"""`ochat model push`: upload a checkpoint to the hub, when asked and not before.

What goes is said first: the files that a model's users need, and nothing else of the folder. The token comes from the hub's own
login and is never shown; it is not an option, since command lines are seen by others and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ochat.errors import ModelError

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "README.md", "LICENSE*")
LOGIN = "Run `hf auth login` with a token that may write, or set HF_TOKEN"


@dataclass(frozen=True)
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    """folder of the checkpoint, such as RUN/final"""
    repo: str
    """where to, OWNER/NAME; made if it isn't there"""
    private: bool = True
    """a repository that is made now is seen by its owner alone; --no-private for everyone"""


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint or adapter that its users need. Raises ModelError where the folder is neither, or not whole."""
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in files}
    lacks = [name for name in ("tokenizer.json", "chat_template.jinja") if name not in names]
    lacks += [] if names & {"config.json", "adapter_config.json"} else ["config.json"]
    lacks += [] if any(path.suffix == ".safetensors" for path in files) else ["weights (.safetensors)"]
    if lacks:
        raise ModelError(f"{folder} is no checkpoint: it has no {', no '.join(lacks)}. Give a checkpoint, such as RUN/final.")
    return files


def main(options: Options) -> None:
    files = checkpoint_files(options.folder)
    others = sorted(path.name for path in options.folder.iterdir() if path not in files)
    size = sum(path.stat().st_size for path in files)
    print(f"Uploading {len(files)} files, {size / 1e6:,.1f} MB, to {options.repo}: {', '.join(path.name for path in files)}")
    if others:
        print(f"Left out: {', '.join(others)}")
    print(upload(options.folder, files, options.repo, options.private))


def upload(folder: Path, files: list[Path], repo: str, private: bool) -> str:
    """Upload files of a folder in one commit; returns the address of the repository. Raises ModelError, in one line."""
    from huggingface_hub import HfApi, errors, get_token

    # Of the HTTP library that this version of the hub's client uses.
    network_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # not re-exported by name
    if not get_token():
        raise ModelError(f"{repo}: there is no login for the hub here. {LOGIN}.")
    hub = HfApi()
    try:
        made = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=folder, allow_patterns=[path.name for path in files])
    except errors.HFValidationError as error:
        raise ModelError(f"--repo {repo} is no repository's name. Give OWNER/NAME.") from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError("The hub is switched off by HF_HUB_OFFLINE. Unset it, and repeat.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        remedy = LOGIN if status in (401, 403) else "Repeat it; what was uploaded is kept"
        raise ModelError(f"{repo}: the hub refused it with status {status}. {remedy}.") from error
    except network_error as error:
        raise ModelError(f"The hub at {hub.endpoint} can't be reached ({error}). Repeat it with a network.") from error
    return made.url
