"""Whether the sources of another vLLM have all that serving builds on and imports, without installing it:

pip download --no-deps vllm==0.33.0 && unzip -q vllm-0.33.0-*.whl -d other
OCHAT_OTHER_VLLM=other pytest tests/serving/test_other_vllm.py

Where there's no build of it for CPUs, its Python code may run over the compiled part of the one that is installed, if that fits; this tells
more than reading does. It takes the packages that the other needs and the installed doesn't (0.33.0: orjson):

find other/vllm -name '*.so' -size +1M -delete && cp .venv/lib/python3*/site-packages/vllm/_C*.so other/vllm
sed -i 's/^Version: 0.33.0$/&+cpu/' other/vllm-*.dist-info/METADATA && pip install --no-deps --target other orjson
PYTHONPATH=other:src pytest tests/serving"""

import ast
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import ochat
from ochat.serving.plugin import HOOKS
from ochat.serving.request_checks import _CLASSES, _INNER_CLASSES

# What is read of vLLM without being imported, as its sources have it.
READ = {
    "vllm/v1/engine/output_processor.py": (
        "self.external_req_id =",
        "self.prompt_len =",
        "self.num_cached_tokens =",
        "self.detokenizer =",
    ),
    "vllm/v1/engine/detokenizer.py": ("def num_output_tokens(", "self.output_text ="),
    "vllm/v1/engine/__init__.py": ("external_req_id:", "cache_salt:", "prompt_token_ids:"),
    "vllm/config/scheduler.py": ("max_num_seqs:",),
    "vllm/config/parallel.py": ("data_parallel_size:",),
    "vllm/entrypoints/launchers/launcher.py": ("app.state.server = server",),
    "vllm/entrypoints/openai/completion/serving.py": ('"cmpl-',),
    "vllm/entrypoints/generate/base/serving.py": ('GenerationError("Internal server error")',),
}
OTHER = os.environ.get("OCHAT_OTHER_VLLM", "")
SERVING = Path(ochat.__path__[0]) / "serving"


def built_on() -> Iterator[str]:
    """`module:name` of all that we need; what has moved, in either place."""
    yield from HOOKS
    for classes in _CLASSES.values():
        yield from (f"vllm.entrypoints.{place}" for place in classes)
    for classes in _INNER_CLASSES.values():
        yield from (place for place in classes if place.startswith("vllm."))
    for path in SERVING.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm."):
                yield from (f"{node.module}:{name.name}" for name in node.names if name.name != "cli_args")


def is_in(sources: Path, place: str) -> bool:
    """Whether the module or package names it."""
    module, _, names = place.partition(":")
    path = sources.joinpath(*module.split("."))
    files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else list(path.glob("*.py"))
    text = "\n".join(file.read_text() for file in files)
    return (path / f"{names}.py").is_file() or all(
        re.search(rf"^\s*(async def|def|class)? ?{name}\b|import {name}\b", text, re.MULTILINE) for name in names.split(".")
    )


@pytest.fixture(params=["installed", "other"])
def sources(request: pytest.FixtureRequest) -> Path:
    """The folder that vLLM's package is in."""
    if request.param == "other":
        if not OTHER:
            pytest.skip("OCHAT_OTHER_VLLM names no folder of sources")
        return Path(OTHER)
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).parent


def test_its_sources_have_all_that_serving_builds_on(sources: Path) -> None:
    places = sorted(set(built_on()))
    assert len(places) > 30
    gone = [place for place in places if not any(is_in(sources, one) for one in place.split(" or "))]
    assert gone == []
    assert not is_in(sources, "vllm.v1.engine.async_llm:AsyncLLM.no_such_thing")


def test_its_sources_have_what_serving_reads(sources: Path) -> None:
    gone = [(path, name) for path, names in READ.items() for name in names if name not in (sources / path).read_text()]
    assert gone == []
