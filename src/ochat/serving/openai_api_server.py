"""Serve a model with OpenAI's API: vLLM's own server with our renderer, gateway and defaults.

Every option of vLLM is an option here. Nothing here handles a request: see renderer.py and gateway.py."""

import argparse
import difflib
import errno
import multiprocessing
import os
import secrets
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, NoReturn

from ochat.errors import OchatError, require
from ochat.hub import TOKENIZER_FILES
from ochat.serving.cpu import GIB, available_memory, kv_cache_bytes, thread_binding, usable_cores, weight_bytes
from ochat.serving.expected_warnings import HIDES_EXPECTED
from ochat.serving.fatal import ENGINE_DIED, NOT_STARTED
from ochat.serving.gateway_options import KEYS_ARGUMENT, LOOPBACK, SECRET_ARGUMENT, GatewayOptions, add_flags, options_of
from ochat.serving.keys import KeyStore, named_keys
from ochat.serving.log_file import redirect
from ochat.serving.plugin import TOKENIZER_MODE, check_hooks, check_version
from ochat.serving.say import say
from ochat.serving.served_model import choose_model, find_model
from ochat.serving.usage_log import RequestLog, UsageLog

if TYPE_CHECKING:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

USAGE = "ochat serve --model DIR [options]"
DESCRIPTION = """Serve a model with OpenAI's API on vLLM, rendered by its model type's template.

All options of vLLM are options here. --help=ochat lists ours, --help=all all of them.
VLLM_LOGGING_LEVEL=INFO in the environment makes vLLM tell what it does."""
DRAIN_SECONDS = 30
ENGINE_GONE_SECONDS = 15
KEYS_VARIABLE = "OCHAT_API_KEYS"
THREADS_BIND = "VLLM_CPU_OMP_THREADS_BIND"
KV_CACHE_SPACE = "VLLM_CPU_KVCACHE_SPACE"
# vLLM's options that would take the template away, and what to do instead.
UNFIT_OPTIONS = {
    "default_chat_template_kwargs": "the condition has an option of its own, --default-condition.",
    "chat_template": "the model type has its own template. Choose the type with --model-type.",
    "revision": "the template's tokenizer wouldn't follow. Download that revision and give its folder.",
    "tokenizer_revision": "the template's tokenizer wouldn't follow. Download that revision and give its folder.",
    "grpc": "gRPC requests bring their own tokens, past the template. Leave it out.",
}
# Settings of vLLM's that would leave the gateway or the template out.
BYPASSES = {
    "VLLM_USE_RUST_FRONTEND": "bypass the template and the checks of requests",
    "VLLM_SERVER_DEV_MODE": "open routes that stop, empty and rewrite the engine",
}


def prepare_environment(environ: MutableMapping[str, str]) -> None:
    """What vLLM reads from the environment, set before vLLM is imported; the user's own settings stay."""
    for name, what in BYPASSES.items():
        if environ.get(name, "0").lower() not in ("", "0", "false"):
            raise OchatError(f"{name} would {what}. Unset it.")
    plugins = environ.get("VLLM_PLUGINS")
    if plugins is not None and "ochat" not in plugins.split(","):
        environ["VLLM_PLUGINS"] = ",".join(filter(None, (plugins, "ochat")))
    if "VLLM_LOGGING_LEVEL" not in environ:
        environ["VLLM_LOGGING_LEVEL"] = "WARNING"
        environ[HIDES_EXPECTED] = "1"
    environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # as vLLM's own command does


def check_model(argv: list[str]) -> None:
    """Refuse a model, keys or logs that can't be used before vLLM is imported, which takes most of a minute.

    Where the arguments are more than these few options can read, vLLM's parser and choose_model tell."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for names in (["--model"], ["--tokenizer"], ["--model-type", "--model_type"], ["--config"], ["--host"]):
        parser.add_argument(*names)
    parser.add_argument("--port", type=int)
    add_flags(parser.add_argument_group())
    try:
        given, others = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise OchatError(f"{error}. All options: ochat serve --help=all") from error
    if given.config or any(word.split("=")[0] in ("-h", "--help") for word in argv):
        return
    # A later word may be the value of an option that only vLLM knows.
    model_tag = argv[0] if argv and not argv[0].startswith("-") else None
    may_be_named = any(not word.startswith("-") for word in others)
    options = options_of(given)
    check_logs(options)
    if options.api_key_file:
        KeyStore((), options.api_key_file)
    if given.model is not None or model_tag is not None or not may_be_named:
        find_model(given.model, model_tag, given.tokenizer, given.model_type or "", patterns=TOKENIZER_FILES)


def cli_args() -> ModuleType:
    """vLLM's module of arguments, where 0.33 has it or where 0.32 has."""
    try:
        from vllm.entrypoints.common import cli_args as found
    except ImportError:
        from vllm.entrypoints.launchers import cli_args as found
    return found


def make_parser() -> "FlexibleArgumentParser":
    """vLLM's parser with our defaults and our few options."""
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise OchatError(explain(message, self._option_string_actions))

    parser = cli_args().make_arg_parser(Parser(prog="ochat serve", usage=USAGE, description=DESCRIPTION, allow_abbrev=False))
    ours = parser.add_argument_group("ochat", "Options of ochat; all others are vLLM's.")
    ours.add_argument("--model-type", default="", help="the model type, where the model's openchat.json doesn't tell it")
    ours.add_argument("--allow-untested-vllm", action="store_true", help="serve with a vLLM that ochat wasn't tested with")
    ours.add_argument(
        "--api-keys", nargs="+", action="extend", default=[], metavar="KEY", help="keys, seen by whoever lists processes"
    )
    ours.add_argument("--log-file", type=Path, help="all lines of the server go there, none to the terminal")
    ours.add_argument("--stream-period", type=int, metavar="TOKENS", help="tokens in each event of a stream")
    ours.add_argument(
        "--engine-use-ray", action="store_true", help="run the engine's workers on Ray, where the device allows it"
    )
    ours.add_argument("--worker-use-ray", action="store_true", help="the same")
    if "--disable-log-requests" not in parser._option_string_actions:  # vLLM 0.33 has it
        ours.add_argument(
            "--disable-log-requests",
            dest="enable_log_requests",
            action="store_false",
            default=argparse.SUPPRESS,
            help="don't log requests, which is the default",
        )
    add_flags(ours)
    parser.set_defaults(model=None, host="localhost", port=18888, tokenizer_mode=TOKENIZER_MODE, shutdown_timeout=DRAIN_SECONDS)
    parser.set_defaults(allowed_origins=[])  # vLLM's own default too, in 0.32; it was every origin once
    if current_platform.is_cpu():  # compiling takes a minute there and gains next to nothing
        parser.set_defaults(enforce_eager=True)
    return parser


def fit_to_cpu(args: Namespace, environ: MutableMapping[str, str]) -> str:
    """Choose threads and the KV cache's room by the machine, where the user hasn't; returns a line that says what is used.

    With VLLM_ENABLE_V1_MULTIPROCESSING=0 a lone worker runs inside the engine's process: one process less is loaded, a third of the
    start-up time on two cores, and tokens needn't cross to the engine. vLLM's CPU platform starts that process unless the variable
    is 0 (vllm/platforms/cpu.py, 0.32.0); for the rest it changes offline use alone, and brings a warning on random seeds. Several
    workers need processes, as does a user's own binding of threads to cores, which vLLM applies to workers' processes alone."""
    workers = args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size
    cores = usable_cores()
    if workers == 1 and THREADS_BIND not in environ:
        environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        environ.setdefault("OMP_NUM_THREADS", str(cores))
    elif args.data_parallel_size == 1:  # vLLM's own choice wants a NUMA node for each worker
        environ.setdefault(THREADS_BIND, thread_binding(sorted(os.sched_getaffinity(0))[:cores], workers))
    if args.kv_cache_memory_bytes is None and KV_CACHE_SPACE not in environ:
        args.kv_cache_memory_bytes = kv_cache_bytes(available_memory(), weight_bytes(Path(args.model)))
    room = environ.get(KV_CACHE_SPACE) or f"{(args.kv_cache_memory_bytes or 0) / GIB:.3g}"
    threads = (
        f"threads on cores {environ[THREADS_BIND]}"
        if THREADS_BIND in environ
        else f"{environ.get('OMP_NUM_THREADS', cores)} threads"  # with several engines vLLM sets them
    )
    if args.enforce_eager:  # else vLLM's functions for logprobs and sampling are still compiled when first asked for
        environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    mode = "eager mode" if args.enforce_eager else "compiled"
    return f"ochat: on the CPU: {mode}, {threads}, {room} GiB for the KV cache."


def explain(message: str, options: Mapping[str, object]) -> str:
    """argparse's complaint with a remedy: near names for an unknown option."""
    _, found, arguments = message.partition("unrecognized arguments: ")
    if not found:
        return f"{message}. All options: ochat serve --help=all"
    unknown = [word.split("=")[0] for word in arguments.split() if word.startswith("-")] or arguments.split()
    near = [name for word in unknown for name in difflib.get_close_matches(word, options, n=3)]
    hint = f"Did you mean: {', '.join(near)}? " if near else ""
    return f"unknown option {', '.join(unknown)}. {hint}All options: ochat serve --help=all"


def parse(argv: list[str]) -> Namespace:
    """The arguments as they were given. Raises OchatError for what no parser can take."""
    try:
        args: Namespace = make_parser().parse_args(argv)
    except (ValueError, OSError) as error:  # a bad --config file
        raise OchatError(f"{error}. All options: ochat serve --help=all") from error
    return args


def complete(args: Namespace) -> None:
    """Make the arguments what vLLM's server takes. Raises OchatError for what can't work, before a model loads."""
    from vllm.platforms import current_platform

    if args.tokenizer_mode.lower() != TOKENIZER_MODE:
        raise OchatError("--tokenizer-mode can't be changed: the model type's template comes with it. Leave it out.")
    for name, reason in UNFIT_OPTIONS.items():
        if getattr(args, name):
            raise OchatError(f"--{name.replace('_', '-')} can't be used: {reason}")
    if not 0 <= args.port < 65536:
        raise OchatError(f"--port is {args.port}. Give one below 65536.")
    if args.engine_use_ray or args.worker_use_ray:
        if current_platform.ray_device_key:
            args.distributed_executor_backend = "ray"
        else:
            say("Ray isn't used: vLLM has no support for it on this device.")
    if args.stream_period is not None:
        args.stream_interval = args.stream_period
    # With "auto" the first request that needs a backend would choose it for all that come. With xgrammar, vLLM's first choice, three
    # quantifiers inside each other kept the engine from everybody for a minute, as in `(([a-z]{1,10}){1,10} ?){1,10}` (vLLM 0.32.0).
    if args.structured_outputs_config.backend == "auto":
        args.structured_outputs_config.backend = "guidance"
    args.middleware = ["ochat.serving.gateway.Gateway", "ochat.serving.page_mount.PageMount", *args.middleware]
    take_keys(args, os.environ)
    check_logs(options_of(args))
    choose_model(args)


def take_keys(args: Namespace, environ: MutableMapping[str, str]) -> None:
    """Leave the keys' hashes in the arguments, and the keys themselves nowhere. Raises OchatError where the server would be
    open to strangers or a key's limits couldn't be held."""
    typed = [*(args.api_key or ()), *args.api_keys]
    if typed:
        say(
            "whoever lists this machine's processes can read --api-keys. Give them in a file (--api-key-file) or in the "
            f"environment ({KEYS_VARIABLE}, with commas)."
        )
    named = [*environ.pop(KEYS_VARIABLE, "").split(","), environ.pop("VLLM_API_KEY", "")]
    args.api_key, args.api_keys = None, []
    keys = named_keys(filter(None, [*typed, *map(str.strip, named)]))
    setattr(args, KEYS_ARGUMENT, keys)
    setattr(args, SECRET_ARGUMENT, secrets.token_hex(32))
    n_processes = args.api_server_count or args.data_parallel_size
    if n_processes > 1 and args.request_log:
        raise OchatError("--request-log can't be rotated by several API processes. Leave it out, or: --api-server-count 1")
    store = KeyStore(keys, args.api_key_file, allows_limits=n_processes == 1)
    if store.is_empty and not args.i_know_this_is_open and args.host not in LOOPBACK and not args.uds:
        raise OchatError(
            f"--host {args.host or '0.0.0.0'} lets others call this server, and it asks for no key. Make one with "
            "`ochat keys create` and give --api-key-file, or say that you want it so: --i-know-this-is-open"
        )


def check_logs(options: GatewayOptions) -> None:
    """Raise OchatError where a log can't be written, before a model loads."""
    if options.usage_log:
        UsageLog(options.usage_log).close()
    if options.request_log:
        RequestLog(options.request_log, options.log_max_mb, options.log_max_count).close()


def end_without_engine(has_begun: threading.Event) -> None:
    """End the process where the engine has ended before the server began.

    vLLM 0.32.0 waited for ever where both of its processes were told to stop in that time. It has ENGINE_GONE_SECONDS to end by itself
    and to say why, as it does after most errors."""
    had_engine = False
    while not has_begun.wait(0.5):
        has_engine = any(child.name.startswith("EngineCore") for child in multiprocessing.active_children())
        if had_engine and not has_engine and not has_begun.wait(ENGINE_GONE_SECONDS):
            say("the engine has ended before the server began. The server ends.")
            os._exit(1)
        had_engine |= has_engine


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """End this process by the signal, and its engine with it: nothing is served yet, so nothing has to be drained."""
    for child in multiprocessing.active_children():
        child.kill()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # the first process of a container isn't ended by its own signal


def serve(args: Namespace) -> None:
    """Run vLLM's server until it is told to stop."""
    import uvloop
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.entrypoints.launchers.launcher import setup_server
    from vllm.utils.system_utils import decorate_logs

    if args.headless or (args.api_server_count or args.data_parallel_size) > 1:
        ServeSubcommand.cmd(args)
        return
    address = args.uds or f"http{'s' if args.ssl_keyfile else ''}://{args.host}:{args.port}/v1"
    lines = iter([f"ochat: serving {args.served_model_name[0]} on {address}"])
    has_begun = threading.Event()
    threading.Thread(target=end_without_engine, args=(has_begun,), daemon=True, name="ochat-start").start()

    async def say_once() -> None:
        has_begun.set()
        for line in lines:
            print(line, flush=True)

    # What vLLM's run_server does but for its handler of SIGTERM, whose KeyboardInterrupt got lost while the engine started, so that
    # the server served all the same (0.32.0). These two hold until the server begins, which has handlers of its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_at_once)
    decorate_logs("APIServer", skip_if_decorated=True)
    listens_on, socket = setup_server(args, reuse_port=False)
    # uvicorn calls callback_notify when it has begun to listen. Requests have ended before uvicorn shuts down (lifecycle.py);
    # without a limit for connections that stay open it would wait for their clients for ever (vLLM 0.32.0).
    uvloop.run(run_server_worker(listens_on, socket, args, timeout_graceful_shutdown=5, callback_notify=say_once))


def main(argv: list[str] | None = None) -> None:
    """Serve a model; returns when the server has stopped. Raises OchatError for a user's mistake."""
    require("vllm", "serve", "Serving")
    signal.signal(signal.SIGTERM, stop_at_once)  # a container's first process would take no notice of it
    prepare_environment(os.environ)
    argv = sys.argv[1:] if argv is None else argv
    check_model(argv)
    from vllm.version import __version__

    check_version(__version__, allows_untested="--allow-untested-vllm" in argv)
    check_hooks()
    args = parse(argv)
    restore = redirect(args.log_file, args.log_max_mb, args.log_max_count) if args.log_file else lambda: None
    try:
        complete(args)
        start(args)
    except OchatError:
        restore()  # the terminal's user is told
        raise
    if NOT_STARTED.is_set():
        restore()
        raise SystemExit("ochat: the server couldn't begin; its last lines say why.")
    if ENGINE_DIED.is_set():
        restore()
        raise SystemExit("ochat: the engine died, and the server ended with it.")


def start(args: Namespace) -> None:
    """Serve with these arguments until told to stop."""
    from vllm.logger import configure_logging_from_args
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        print(fit_to_cpu(args, os.environ), flush=True)
    configure_logging_from_args(args)
    try:
        cli_args().validate_parsed_serve_args(args)
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
