import json
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import psutil
import pytest
from live_server import START_SECONDS, Server, environment
from sandboxes import needs_sandbox

from ochat.errors import ModelError, OchatError, TemplateError
from ochat.serving import openai_api_server
from ochat.serving.keys import Key, hashed, write_keys
from ochat.serving.openai_api_server import (
    check_model,
    choose_model,
    explain,
    fit_to_cpu,
    main,
    prepare_environment,
    take_keys,
)
from ochat.serving.plugin import check_hooks, check_version

# Importing vLLM takes long, so one process does all that needs it but no server.
ONE_PROCESS = """
import contextlib, io, json, sys
from ochat.errors import OchatError
from ochat.serving.openai_api_server import main
from ochat.serving.plugin import register

def ends(arguments):
    try:
        main(arguments)
    except OchatError as error:
        return str(error)

refused = [ends(arguments) for arguments in json.load(sys.stdin)]
with contextlib.redirect_stdout(io.StringIO()) as help, contextlib.suppress(SystemExit):
    main(["--help=all"])
register()
register()
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.registry import TokenizerRegistry
classes = RENDERER_REGISTRY.load_renderer_cls("openchat"), TokenizerRegistry.load_tokenizer_cls("openchat")

# The engine's whole table of routes, those of its developers' mode too, behind the gateway alone.
import asyncio, os
import httpx
from ochat.serving.openai_api_server import make_parser
os.environ["VLLM_SERVER_DEV_MODE"] = "1"
from vllm.entrypoints.launchers.app import build_app
args = make_parser().parse_args(["--enable-tokenizer-info-endpoint"])
args.api_key, args.middleware, args.tokenizer_mode = ["secret"], ["ochat.serving.gateway.Gateway"], "auto"
app = build_app(args, ("generate", "transcription", "realtime", "render", "embed", "classify", "score"), None)

def walk(routes):
    for route in routes:
        inner = next((found.routes for found in (route, getattr(route, "original_router", None)) if getattr(found, "routes", None)), None)
        if inner:
            yield from walk(inner)
        if getattr(route, "path", None):
            yield from ((method, route.path) for method in getattr(route, "methods", None) or ["GET", "POST"])

async def statuses():
    from ochat.serving.routes import routes_at
    answers = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for method, path in sorted({*walk(app.routes)}):
            listed = method in routes_at(path)
            keyless = await client.request(method, path, json={})
            keyed = None if listed else await client.request(method, path, json={}, headers={"authorization": "Bearer secret"})
            answers[f"{method} {path}"] = listed, keyless.status_code, keyed and keyed.status_code
    return answers

# With a vLLM that is open to pages of all origins.
from ochat.serving import openai_api_server
cli_args = openai_api_server.cli_args()
make_arg_parser = cli_args.make_arg_parser

def make_open(parser):
    made = make_arg_parser(parser)
    made.set_defaults(allowed_origins=["*"])
    return made

cli_args.make_arg_parser = make_open
origins = [make_parser().parse_args(words).allowed_origins for words in ([], ["--allowed-origins", '["https://app.example.org"]'])]

logs = [make_parser().parse_args(words).enable_log_requests for words in (
    [], ["--disable-log-requests"], ["--enable-log-requests"], ["--enable-log-requests", "--disable-log-requests"]
)]

found = {"refused": refused, "logs": logs, "help": help.getvalue(), "classes": [found.__name__ for found in classes], "origins": origins}
print(json.dumps({**found, "routes": asyncio.run(statuses())}))
"""

REFUSED = {
    "unknown option --prot. Did you mean: --port": "--model MODEL --prot 1",
    "unknown option --max-model. Did you mean: --max-model-len": "--model MODEL --max-model 8",
    "argument --port: invalid int value: 'x'": "--model MODEL --port x",
    "No model given. Give its folder": "",
    "Two models given, a and b": "a --model b",
    "/no/such/folder is not a folder": "--model /no/such/folder",
    "Unknown model type 'openchat_3.7'": "--model MODEL --model-type openchat_3.7",
    "--tokenizer-mode can't be changed": "--model MODEL --tokenizer-mode hf",
    "--chat-template can't be used": "--model MODEL --chat-template x.jinja",
    "--revision can't be used": "--model MODEL --revision x",
    "--grpc can't be used": "--model MODEL --grpc",
    "--default-chat-template-kwargs can't be used": '--model MODEL --default-chat-template-kwargs {"a":1}',
    "--host 0.0.0.0 lets others call this server": "--model MODEL --host 0.0.0.0",
    "/no/keys can't be read": "--model MODEL --api-key-file /no/keys",
    "--usage-log /no/usage can't be written": "--model MODEL --usage-log /no/usage",
    "--request-log /no/requests can't be written": "--model MODEL --request-log /no/requests",
    "--max-in-flight is 0. Give more than 0.": "--model MODEL --max-in-flight 0",
    "--request-timeout is -1. Give more than 0.": "--model MODEL --request-timeout -1",
    "--log-max-mb is 0": "--model MODEL --log-max-mb 0",
    # The last, and the only one that comes so far: what it says on the way is looked at too.
    "Port PORT is in use": "--model MODEL --log-file LOG --engine-use-ray --worker-use-ray --api-keys secret --port PORT",
}


@pytest.fixture(scope="module")
def one_process(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process above found; keys of REFUSED with the taken port filled in are under `expected`, all that it showed under
    `terminal`, and what went to its log file under `log`."""
    log = tmp_path_factory.mktemp("one_process") / "log"
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        filled = {"PORT": port, "MODEL": str(checkpoint), "LOG": str(log)}
        words = [[filled.get(word, word) for word in line.split()] for line in REFUSED.values()]
        result = subprocess.run(
            [sys.executable, "-c", ONE_PROCESS],
            input=json.dumps(words),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=START_SECONDS,
        )
    assert result.returncode == 0, result.stderr
    assert "already registered" not in result.stdout + result.stderr
    *shown, found = result.stdout.splitlines()
    terminal = "\n".join([*shown, result.stderr])
    expected = [start.replace("PORT", port) for start in REFUSED]
    return {**json.loads(found), "expected": expected, "terminal": terminal, "log": log.read_text()}


def test_the_card_names_and_the_folder_name_are_served(server: Server) -> None:
    models = server.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["openchat_3.5", "openchat_v3.2_mistral", "tiny"]
    assert {model["max_model_len"] for model in models} == {8192}  # the type's: the model's own is longer
    for model in models:
        assert server.chat(model=model["id"]).json()["model"] == "openchat_3.5"
    assert server.chat(model="gpt-4").status_code == 404


def test_the_server_says_where_it_listens_and_what_it_chose(server: Server) -> None:
    assert f"ochat: serving openchat_3.5 on {server.url}/v1\n" in server.log.read_text()
    assert server.log.read_text().count("ochat: Ray isn't used") == 1
    assert "ochat: on the CPU: eager mode, " in server.log.read_text()


def test_the_worker_runs_inside_the_engines_process(server: Server) -> None:
    text = server.log.read_text()
    assert "(EngineCore pid=" in text
    assert "(Worker" not in text  # as vLLM's lines begin that come from a worker's own process


def test_clients_are_told_which_checkpoint_is_served(server: Server, checkpoint: Path) -> None:
    models = server.get("/v1/models").json()["data"]
    assert {model["root"] for model in models} == {str(checkpoint.resolve())}


def test_the_official_client_gets_replies_plain_and_streamed(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client:
        plain = client.chat.completions.create(
            model="openchat_3.5",
            messages=[{"role": "user", "content": "Implement quicksort using C++"}],
            extra_body={"condition": "Code", "return_token_ids": True},
            max_tokens=4,
            temperature=0,
        )
        assert plain.model_extra is not None
        card = [1, 7596, 1247, 28747, 26256, 2936, 7653, 1413, 334, 1680, 32000, 7596, 21631, 28747]
        assert plain.model_extra["prompt_token_ids"] == card
        with client.chat.completions.create(
            model="openchat_3.5",
            messages=[{"role": "user", "content": "Implement quicksort using C++"}],
            extra_body={"condition": "Code"},
            max_tokens=4,
            temperature=0,
            stream=True,
        ) as stream:
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert streamed == plain.choices[0].message.content != ""


def test_arguments_that_cannot_work_are_refused_by_name(one_process: dict[str, Any]) -> None:
    for message, expected in zip(one_process["refused"], one_process["expected"], strict=True):
        assert message.startswith(expected)


def test_with_a_log_file_nothing_but_errors_comes_to_the_terminal(one_process: dict[str, Any]) -> None:
    for line in ("ochat: Ray isn't used", "ochat: whoever lists this machine's processes", "ochat: on the CPU: "):
        assert one_process["log"].count(line) == 1
        assert line not in one_process["terminal"]
    assert "ochat: " not in one_process["terminal"]  # its errors were caught, and the terminal has the found things' line again


def test_pages_of_other_origins_are_let_in_by_name_alone_whatever_vllm_does(one_process: dict[str, Any]) -> None:
    assert one_process["origins"] == [[], ["https://app.example.org"]]


def test_requests_are_logged_where_that_was_said_last(one_process: dict[str, Any]) -> None:
    assert one_process["logs"] == [False, False, True, False]


def test_help_lists_our_options_beside_vllms(one_process: dict[str, Any]) -> None:
    for option in ("--model-type", "--api-keys", "--engine-use-ray", "--port", "--max-model-len", "--disable-log-requests"):
        assert option in one_process["help"]


def test_this_vllm_has_every_hook_and_takes_our_tokenizer_mode_once(one_process: dict[str, Any]) -> None:
    assert one_process["classes"] == ["OpenChatRenderer", "CachedHfTokenizer"]  # main has checked the hooks before


def test_nothing_in_the_engines_whole_table_of_routes_answers_a_stranger(one_process: dict[str, Any]) -> None:
    routes = one_process["routes"]
    assert len(routes) > 60
    assert {"POST /invocations", "POST /sleep", "POST /collective_rpc", "POST /v1/chat/completions"} <= set(routes)
    for name, (is_listed, keyless, keyed) in routes.items():
        if name == "GET /health":
            assert keyless == 200
        elif is_listed:
            assert keyless == 401, name
        else:
            assert keyless in (404, 405), name
            assert keyed in (404, 405), name
    assert sum(is_listed for is_listed, *_ in routes.values()) >= 10


@pytest.mark.parametrize("gone", ["json:JSONDecoder.no_such_hook", "json.no_such_module:x"])
def test_a_hook_that_is_gone_is_named(gone: str) -> None:
    with pytest.raises(OchatError, match=f"This vLLM has no {gone}"):
        check_hooks(("json:JSONDecoder.decode", gone))


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "0.34.0rc1", "1.0"])
def test_an_untested_vllm_is_refused_with_what_may_have_changed(version: str) -> None:
    with pytest.raises(OchatError, match=f"vLLM {version} isn't tested.*get_eos_token_id.*--allow-untested-vllm"):
        check_version(version)
    check_version(version, allows_untested=True)
    for tested in ("0.32.0", "0.33.1+cpu"):
        check_version(tested)


# One process as well, in which vLLM must not be imported.
EARLY = """
import json, sys
from ochat.errors import OchatError
from ochat.serving.openai_api_server import main

for arguments in json.load(sys.stdin):
    try:
        main(arguments)
    except OchatError as error:
        print(error)
assert not [name for name in ("vllm", "torch") if name in sys.modules]
"""


def test_a_wrong_model_is_told_before_vllm_is_imported(model: Path, tmp_path: Path) -> None:
    found = {
        "No model given": [],
        "No model given. Give its folder": ["--port", "1", "--max-in-flight", "3"],
        "argument --model: expected one argument": ["--model"],
        "argument --port: invalid int value: 'abc'": ["--model", str(model), "--port", "abc"],
        "--max-in-flight is 0": ["--model", str(model), "--max-in-flight", "0"],
        "--usage-log /no/usage can't be written": ["--model", str(model), "--usage-log", "/no/usage"],
        "/no/keys can't be read": ["--model", str(model), "--api-key-file", "/no/keys"],
        "nowhere is not in the hub's cache": ["--model", "nowhere"],
        f"{tmp_path}/nowhere is not a folder": [f"{tmp_path}/nowhere", "--port", "1"],
        f"{tmp_path}/absent is not a folder": ["--port", "1", f"--model={tmp_path}/absent"],
        "The empty name is not a folder": ["--model", ""],
        "Two models given": [str(model), "--model", "b"],
        "Unknown model type 'x'": ["--model", str(model), "--model_type", "x"],
        f"{tmp_path} has no tokenizer.json": ["--model", str(model), "--tokenizer", str(tmp_path)],
        f"{tmp_path}/config.json can't be read": [
            "--model",
            str(tmp_path),
            "--model-type=openchat_3.5",
            f"--tokenizer={model}",
        ],
    }
    result = subprocess.run(
        [sys.executable, "-c", EARLY], input=json.dumps([*found.values()]), capture_output=True, text=True, env=environment()
    )
    assert result.returncode == 0, result.stderr
    for line, start in zip(result.stdout.splitlines(), found, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    "arguments",
    [
        ["MODEL", "--prot", "1"],
        ["--help"],
        ["--model", "nowhere", "--help=all"],
        ["--model", "nowhere", "--config", "x.yaml"],
        ["--port", "8000", "nowhere"],
    ],
)
def test_what_vllms_parser_must_read_is_left_to_it(arguments: list[str], model: Path) -> None:
    check_model([word.replace("MODEL", str(model)) for word in arguments])


def fitted(given: dict[str, str], **sizes: Any) -> tuple[Namespace, str]:
    """What fit_to_cpu makes of arguments and of the environment, and its line."""
    defaults = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    args = Namespace(**{**defaults, "enforce_eager": True, "kv_cache_memory_bytes": 2**30, "model": ".", **sizes})
    line = fit_to_cpu(args, given)
    return args, line


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    [
        ({}, {}, "0"),
        ({"tensor_parallel_size": 2}, {}, None),
        ({"pipeline_parallel_size": 2}, {}, None),
        ({"data_parallel_size": 2}, {}, None),
        ({}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, "1"),
        ({}, {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}, None),
    ],
)
def test_a_lone_worker_on_the_cpu_needs_no_process(sizes: dict[str, int], given: dict[str, str], expected: str | None) -> None:
    fitted(given, **sizes)
    assert given.get("VLLM_ENABLE_V1_MULTIPROCESSING") == expected


def test_several_workers_on_the_cpu_get_cores_of_their_own() -> None:
    given: dict[str, str] = {}
    _, line = fitted(given, tensor_parallel_size=2)
    first, second = given["VLLM_CPU_OMP_THREADS_BIND"].split("|")
    assert not set(first.split(",")) & set(second.split(","))
    assert f"threads on cores {first}|{second}" in line


def test_the_cpus_choices_are_told_and_the_users_own_stay() -> None:
    args, line = fitted({"OMP_NUM_THREADS": "3"})
    assert line == "ochat: on the CPU: eager mode, 3 threads, 1 GiB for the KV cache."
    args, line = fitted({"VLLM_CPU_KVCACHE_SPACE": "2"}, kv_cache_memory_bytes=None)
    assert args.kv_cache_memory_bytes is None
    assert "2 GiB for the KV cache" in line
    args, line = fitted({}, kv_cache_memory_bytes=None)
    assert 2**29 <= args.kv_cache_memory_bytes <= 2**32


@pytest.mark.parametrize(
    ("eager", "given", "expected"), [(True, {}, "1"), (False, {}, None), (True, {"TORCH_COMPILE_DISABLE": "0"}, "0")]
)
def test_in_eager_mode_nothing_is_compiled_at_the_first_request_for_it(
    eager: bool, given: dict[str, str], expected: str | None
) -> None:
    fitted(given, enforce_eager=eager)
    assert given.get("TORCH_COMPILE_DISABLE") == expected


def keyed(environ: dict[str, str], **given: Any) -> Namespace:
    """What take_keys makes of arguments and of the environment."""
    defaults = {"api_key": None, "api_keys": [], "api_key_file": None, "host": "localhost", "uds": None, "request_log": None}
    more = {"i_know_this_is_open": False, "api_server_count": None, "data_parallel_size": 1}
    args = Namespace(**{**defaults, **more, **given})
    take_keys(args, environ)
    return args


def test_keys_are_left_in_the_arguments_by_their_hashes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"OCHAT_API_KEYS": "c, d", "VLLM_API_KEY": "e"}
    args = keyed(environ, api_key=["a"], api_keys=["b"])
    assert [key.sha256 for key in args.ochat_keys] == [hashed(key) for key in "abcde"]
    assert (args.api_key, args.api_keys, environ) == (None, [], {})
    assert "whoever lists this machine's processes can read --api-keys" in capsys.readouterr().err
    keyed({"OCHAT_API_KEYS": "c"})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", None])
def test_a_server_without_keys_is_not_opened_to_others_by_accident(host: str | None) -> None:
    with pytest.raises(OchatError, match=r"asks for no key.*--i-know-this-is-open"):
        keyed({}, host=host)
    keyed({}, host=host, i_know_this_is_open=True)
    keyed({"OCHAT_API_KEYS": "k"}, host=host)
    keyed({}, host=host, uds="/run/x")


def test_what_several_api_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [Key(name="a", sha256=hashed("a"), concurrent=1)])
    keyed({}, api_key_file=file)
    for several in ({"api_server_count": 2}, {"data_parallel_size": 2}):
        with pytest.raises(OchatError, match="a has limits, which several API processes can't hold"):
            keyed({}, api_key_file=file, **several)
        with pytest.raises(OchatError, match="--request-log"):
            keyed({}, request_log=tmp_path / "x", **several)


@pytest.mark.parametrize("variable", ["VLLM_SERVER_DEV_MODE", "VLLM_USE_RUST_FRONTEND"])
def test_a_setting_that_bypasses_the_gateway_is_refused(variable: str) -> None:
    prepare_environment({variable: "0"})
    with pytest.raises(OchatError, match=f"{variable} would .* Unset it"):
        prepare_environment({variable: "1"})


def test_a_front_end_that_bypasses_the_template_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "ochat.serving.openai_api_server", "--model", "x"]
    variables = {**environment(), "VLLM_USE_RUST_FRONTEND": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=START_SECONDS)
    assert result.returncode == 1
    assert result.stderr == "ochat: VLLM_USE_RUST_FRONTEND would bypass the template and the checks of requests. Unset it.\n"


def test_a_missing_vllm_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OchatError, match=r"Serving needs `vllm`.*pip install -e '.\[serve\]'"):
        main([])


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("", "ochat"), ("other", "other,ochat"), ("ochat,other", "ochat,other")]
)
def test_a_list_of_plugins_that_the_user_set_gets_ours_too(given: str | None, expected: str | None) -> None:
    variables = {} if given is None else {"VLLM_PLUGINS": given}
    prepare_environment(variables)
    assert variables.get("VLLM_PLUGINS") == expected


def test_the_log_level_is_the_users_or_else_warnings() -> None:
    given, none = {"VLLM_LOGGING_LEVEL": "DEBUG"}, dict[str, str]()
    prepare_environment(given)
    prepare_environment(none)
    assert (given["VLLM_LOGGING_LEVEL"], none["VLLM_LOGGING_LEVEL"]) == ("DEBUG", "WARNING")


def test_processes_are_spawned_unless_the_user_says_else() -> None:  # a forked engine has no plugin's watch over its parent
    given, none = {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}, dict[str, str]()
    prepare_environment(given)
    prepare_environment(none)
    assert (given["VLLM_WORKER_MULTIPROC_METHOD"], none["VLLM_WORKER_MULTIPROC_METHOD"]) == ("fork", "spawn")


def test_an_unknown_option_without_a_near_name_is_still_named() -> None:
    assert (
        explain("unrecognized arguments: --zzzzzz=1 2", ["--port"])
        == "unknown option --zzzzzz. All options: ochat serve --help=all"
    )


def chosen(model: Path | str, **given: object) -> Namespace:
    """What choose_model makes of a model, the other arguments being vLLM's defaults."""
    defaults = dict.fromkeys(("model_tag", "tokenizer", "served_model_name", "additional_config", "max_model_len"))
    args = Namespace(**{**defaults, "model": str(model), "model_type": "", **given})
    choose_model(args)
    return args


@pytest.fixture
def model(tmp_path: Path, toy_folder: Callable[..., Path]) -> Path:
    """A model's folder as far as the launcher reads it."""
    folder = shutil.copytree(toy_folder("openchat_3.5"), tmp_path / "final")
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    return folder


@pytest.mark.parametrize(("length", "expected"), [(32768, 8192), (8192, None), (512, None), (None, None)])
def test_the_context_is_the_types_where_the_models_own_is_longer(length: int | None, expected: int | None, model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": length}))
    assert chosen(model).max_model_len == expected
    assert chosen(model, max_model_len=100).max_model_len == 100


def test_clients_learn_the_models_whole_path(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert chosen("./final").model == str(model.resolve())


def test_names_of_the_users_come_first(model: Path) -> None:
    args = chosen(model, served_model_name=["mine", "final"], additional_config={"a": 1})
    assert args.served_model_name == ["mine", "final", "openchat_3.5", "openchat_v3.2_mistral"]
    assert args.additional_config == {"a": 1, "ochat_model_type": "openchat_v3.2_mistral"}


def test_conditions_that_the_template_cannot_take_are_refused(model: Path) -> None:
    chosen(model, conditions=["Mine", "none"], default_condition="Mine")
    for given, found in (
        ({"conditions": ["Code", "<|end_of_turn|>"]}, "holds a control token"),
        ({"default_condition": "x" * 1000}, "must be one line"),
        ({"default_condition": "auto"}, "can't be 'auto'"),
    ):
        with pytest.raises(OchatError, match=found):
            chosen(model, **given)


def test_conditions_for_a_type_without_any_are_refused(tmp_path: Path, toy_folder: Callable[..., Path]) -> None:
    folder = shutil.copytree(toy_folder("chatml_8192"), tmp_path / "final")
    (folder / "config.json").write_text("{}")
    chosen(folder)
    with pytest.raises(OchatError, match="takes no condition; found 'Code'"):
        chosen(folder, default_condition="Code")


def test_a_model_that_does_not_fit_its_type_is_refused_before_it_loads(model: Path) -> None:
    with pytest.raises(TemplateError, match="no token"):
        chosen(model, model_type="openchat_3.6")
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json can't be read"):
        chosen(model)
    (model / "openchat.json").unlink()
    with pytest.raises(ModelError, match="Pass one with --model-type"):
        chosen(model)


@pytest.mark.parametrize(
    ("looks", "begins", "ends"),
    [
        ([[], ["EngineCore_DP0"], []], False, True),
        ([["EngineCore"], ["EngineCore"], ["EngineCore"]], True, False),
        ([["EngineCore"], []], True, False),  # it has gone while the server was told to begin: others see to that
        ([["SpawnProcess-1"], [], ["SpawnProcess-2"]], True, False),  # no engine
    ],
)
def test_a_start_without_its_engine_is_ended(
    looks: list[list[str]], begins: bool, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`looks`: the names of the children that are alive, look by look; then the server has begun, or never does."""
    ended = []

    class Ended(BaseException):
        pass

    def leave(status: int) -> None:
        ended.append(status)
        raise Ended

    has_begun, left = threading.Event(), iter(looks)

    def children() -> list[SimpleNamespace]:
        names = next(left, None)
        if names is None or (begins and names == looks[-1]):
            has_begun.set()
        return [SimpleNamespace(name=name) for name in names or ()]

    monkeypatch.setattr("multiprocessing.active_children", children)
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(openai_api_server, "ENGINE_GONE_SECONDS", 0.05)
    with suppress(Ended):
        openai_api_server.end_without_engine(has_begun)
    assert ended == [1] * ends


def test_a_signal_before_anything_is_served_ends_the_process_and_its_children() -> None:
    code = """
        import multiprocessing, signal, time
        from ochat.serving.openai_api_server import stop_at_once
        if __name__ == "__main__":
            signal.signal(signal.SIGTERM, stop_at_once)
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            print(child.pid, flush=True)
            time.sleep(60)
            """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        child.wait(20)


@needs_sandbox
def test_a_containers_first_process_ends_by_its_signal_too() -> None:
    code = """
        import os, signal, time
        from ochat.serving.openai_api_server import stop_at_once
        signal.signal(signal.SIGTERM, stop_at_once)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        print("it lives on, as", os.getpid())
        """
    contained = ["bwrap", "--unshare-pid", "--as-pid-1", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    ended = subprocess.run(
        [*contained, sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, ""), ended.stderr
