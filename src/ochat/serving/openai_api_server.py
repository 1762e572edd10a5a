"""Serve a model with OpenAI's API: vLLM's own server with our renderer, gateway and defaults.

Every option of vLLM is an option here. Nothing here handles a request: see renderer.py and gateway.py."""

import argparse
import difflib
import errno
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ochat.errors import ModelError, OchatError, require
from ochat.hub import MODEL_FILES, TOKENIZER_FILES, model_folder
from ochat.registry import ModelType, detect_model_type, load_template
from ochat.serving.gateway_options import add_flags
from ochat.serving.plugin import MODEL_TYPE_KEY, TOKENIZER_MODE, check_hooks

if TYPE_CHECKING:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

USAGE = "ochat serve --model DIR [options]"
DESCRIPTION = """Serve a model with OpenAI's API on vLLM, rendered by its model type's template.

All options of vLLM are options here. --help=ochat lists ours, --help=all all of them.
VLLM_LOGGING_LEVEL=INFO in the environment makes vLLM tell what it does."""
CPU_KV_CACHE_BYTES = 2 * 1024**3
DRAIN_SECONDS = 30
# vLLM's options that would take the template away, and what to do instead.
UNFIT_OPTIONS = {
    "chat_template": "the model type has its own template. Choose the type with --model-type.",
    "revision": "the template's tokenizer wouldn't follow. Download that revision and give its folder.",
    "tokenizer_revision": "the template's tokenizer wouldn't follow. Download that revision and give its folder.",
    "grpc": "gRPC requests bring their own tokens, past the template. Leave it out.",
}


def prepare_environment(environ: MutableMapping[str, str]) -> None:
    """What vLLM reads from the environment, set before vLLM is imported; the user's own settings stay."""
    if environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise OchatError("VLLM_USE_RUST_FRONTEND would bypass the template and the checks of requests. Unset it.")
    plugins = environ.get("VLLM_PLUGINS")
    if plugins is not None and "ochat" not in plugins.split(","):
        environ["VLLM_PLUGINS"] = ",".join(filter(None, (plugins, "ochat")))
    environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def check_model(argv: list[str]) -> None:
    """Refuse a model that can't be served before vLLM is imported, which takes many seconds.

    Where the arguments are more than these few options can read, vLLM's parser and choose_model tell."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for names in (["--model"], ["--tokenizer"], ["--model-type", "--model_type"], ["--config"]):
        parser.add_argument(*names)
    try:
        given, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return
    if given.config or any(word.split("=")[0] in ("-h", "--help") for word in argv):
        return
    # A later word may be the value of an option that only vLLM knows.
    model_tag = argv[0] if argv and not argv[0].startswith("-") else None
    if given.model is not None or model_tag is not None or not argv:
        find_model(given.model, model_tag, given.tokenizer, given.model_type or "", patterns=TOKENIZER_FILES)


def make_parser() -> "FlexibleArgumentParser":
    """vLLM's parser with our defaults and our few options."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise OchatError(explain(message, self._option_string_actions))

    parser = make_arg_parser(Parser(prog="ochat serve", usage=USAGE, description=DESCRIPTION, allow_abbrev=False))
    ours = parser.add_argument_group("ochat", "Options of ochat; all others are vLLM's.")
    ours.add_argument("--model-type", default="", help="the model type, where the model's openchat.json doesn't tell it")
    ours.add_argument(
        "--api-keys", nargs="+", action="extend", default=[], metavar="KEY", help="keys, one of which a client gives"
    )
    ours.add_argument(
        "--engine-use-ray", action="store_true", help="run the engine's workers on Ray, where the device allows it"
    )
    ours.add_argument("--worker-use-ray", action="store_true", help="the same")
    ours.add_argument("--disable-log-requests", action="store_true", help="don't log requests, which is the default")
    add_flags(ours)
    parser.set_defaults(model=None, host="localhost", port=18888, tokenizer_mode=TOKENIZER_MODE, shutdown_timeout=DRAIN_SECONDS)
    if current_platform.is_cpu():  # compiling takes a minute there and gains next to nothing
        parser.set_defaults(enforce_eager=True, kv_cache_memory_bytes=CPU_KV_CACHE_BYTES)
    return parser


def run_worker_in_engine(args: Namespace, environ: MutableMapping[str, str]) -> None:
    """On the CPU, let a lone worker run inside the engine's process and not in one more.

    A process less is loaded, a third of the start-up time on two cores, and its tokens needn't cross to the engine. vLLM's CPU
    platform starts it all the same unless this variable is 0 (vllm/platforms/cpu.py, 0.32.0); else that changes offline use
    alone, and brings a warning on random seeds. Several workers need processes, as does a user's own binding of threads to cores, which
    vLLM applies to workers' processes alone."""
    alone = args.tensor_parallel_size == args.pipeline_parallel_size == args.data_parallel_size == 1
    if alone and "VLLM_CPU_OMP_THREADS_BIND" not in environ:
        environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def explain(message: str, options: Mapping[str, object]) -> str:
    """argparse's complaint with a remedy: near names for an unknown option."""
    _, found, arguments = message.partition("unrecognized arguments: ")
    if not found:
        return f"{message}. All options: ochat serve --help=all"
    unknown = [word.split("=")[0] for word in arguments.split() if word.startswith("-")] or arguments.split()
    near = [name for word in unknown for name in difflib.get_close_matches(word, options, n=3)]
    hint = f"Did you mean: {', '.join(near)}? " if near else ""
    return f"unknown option {', '.join(unknown)}. {hint}All options: ochat serve --help=all"


def read_arguments(argv: list[str]) -> Namespace:
    """The arguments as vLLM's server takes them. Raises OchatError for what can't work, before a model loads."""
    from vllm.platforms import current_platform

    try:
        args: Namespace = make_parser().parse_args(argv)
    except (ValueError, OSError) as error:  # a bad --config file
        raise OchatError(f"{error}. All options: ochat serve --help=all") from error
    if args.tokenizer_mode.lower() != TOKENIZER_MODE:
        raise OchatError("--tokenizer-mode can't be changed: the model type's template comes with it. Leave it out.")
    for name, reason in UNFIT_OPTIONS.items():
        if getattr(args, name):
            raise OchatError(f"--{name.replace('_', '-')} can't be used: {reason}")
    if not 0 <= args.port < 65536:
        raise OchatError(f"--port is {args.port}. Give one below 65536.")
    if args.disable_log_requests and args.enable_log_requests:
        raise OchatError("--disable-log-requests and --enable-log-requests contradict each other. Give one.")
    if args.engine_use_ray or args.worker_use_ray:
        if current_platform.ray_device_key:
            args.distributed_executor_backend = "ray"
        else:
            print("ochat: Ray isn't used: vLLM has no support for it on this device.", file=sys.stderr)
    args.api_key = [*(args.api_key or []), *args.api_keys] or list(filter(None, [os.environ.get("VLLM_API_KEY")]))
    args.middleware = ["ochat.serving.gateway.Gateway", "ochat.serving.page_mount.PageMount", *args.middleware]
    choose_model(args)
    return args


def choose_model(args: Namespace) -> None:
    """Find the model, its type and its tokenizer, and fill in what follows from them."""
    named, folder, tokenizer, kind = find_model(args.model, args.model_tag, args.tokenizer, args.model_type)
    name = folder.name if Path(named).expanduser().is_dir() else named
    args.model = args.model_tag = str(folder)
    args.tokenizer = str(tokenizer)
    args.served_model_name = list(dict.fromkeys([*(args.served_model_name or []), *kind.served_names, name]))
    args.additional_config = {**(args.additional_config or {}), MODEL_TYPE_KEY: kind.name}
    if args.max_model_len is None:
        args.max_model_len = shorter_context(kind, folder)


def find_model(
    model: str | None, model_tag: str | None, tokenizer: str | None, model_type: str, patterns: list[str] = MODEL_FILES
) -> tuple[str, Path, Path, ModelType]:
    """The model's name as given, its folder and its tokenizer's, and its type. Raises OchatError where one can't be had.

    The folders are absolute: the server tells them to clients, who know a checkpoint by them."""
    if model_tag is not None and model is not None and model_tag != model:
        raise OchatError(f"Two models given, {model_tag} and {model}. Give one.")
    named = model if model_tag is None else model_tag
    if named is None:
        raise OchatError("No model given. Give its folder: ochat serve --model DIR")
    folder = model_folder(named, patterns).resolve()
    tokenizer_folder = folder if tokenizer is None else model_folder(tokenizer, TOKENIZER_FILES).resolve()
    kind = detect_model_type(folder, model_type)
    load_template(kind, tokenizer_folder)  # says in one line what vLLM would say in a trace
    shorter_context(kind, folder)
    return named, folder, tokenizer_folder, kind


def shorter_context(kind: ModelType, folder: Path) -> int | None:
    """The type's context where the model's own is longer, else None: vLLM reads the model's own, scaling and all."""
    path = folder / "config.json"
    try:
        length = json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} can't be read ({error}). Give the folder of a whole model, such as RUN/final.") from error
    return kind.max_context if isinstance(length, int) and length > kind.max_context else None


def serve(args: Namespace) -> None:
    """Run vLLM's server until it is told to stop."""
    import uvloop
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.api_server.entry import run_server

    if args.headless or (args.api_server_count or args.data_parallel_size) > 1:
        ServeSubcommand.cmd(args)
        return
    address = args.uds or f"http{'s' if args.ssl_keyfile else ''}://{args.host}:{args.port}/v1"
    lines = iter([f"ochat: serving {args.served_model_name[0]} on {address}"])

    async def say_once() -> None:
        for line in lines:
            print(line, flush=True)

    # uvicorn calls callback_notify when it has begun to listen. Without a limit for connections that stay open, a server whose
    # engine has gone waits for its clients for ever (vLLM 0.32.0).
    limit = args.shutdown_timeout or 5
    uvloop.run(run_server(args, timeout_graceful_shutdown=limit, callback_notify=say_once))


def main(argv: list[str] | None = None) -> None:
    """Serve a model; returns when the server has stopped. Raises OchatError for a user's mistake."""
    require("vllm", "serve", "Serving")
    prepare_environment(os.environ)
    argv = sys.argv[1:] if argv is None else argv
    check_model(argv)
    check_hooks()
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.platforms import current_platform

    cli_env_setup()
    args = read_arguments(argv)
    if current_platform.is_cpu():
        run_worker_in_engine(args, os.environ)
    configure_logging_from_args(args)
    try:
        validate_parsed_serve_args(args)
    except (ValueError, TypeError) as error:
        raise OchatError(f"{error}. All options: ochat serve --help=all") from error
    try:
        serve(args)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OchatError(f"Port {args.port} is in use. Stop what uses it, or give another with --port.") from error


if __name__ == "__main__":
    try:
        main()
    except OchatError as error:
        raise SystemExit(f"ochat: {error}") from error
