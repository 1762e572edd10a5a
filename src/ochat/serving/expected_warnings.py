"""vLLM's warnings on a CPU that follow from what we chose there, or that nobody can act on: some fifteen lines at each start, among
which one that matters would be lost. VLLM_LOGGING_LEVEL in the environment brings them back."""

import logging
import warnings
from collections.abc import Mapping
from functools import partial

# The launcher sets it, and the plugin finds it in every process that vLLM spawns.
HIDES_EXPECTED = "OCHAT_HIDES_EXPECTED_WARNINGS"
# vLLM 0.32.0: who says it, and how it begins.
EXPECTED = {
    "vllm.config.vllm": (
        "Enforce eager set",
        "TORCH_COMPILE_DISABLE is set",
        "Inductor compilation was disabled",
        "Model Runner V2 requires Triton",
    ),
    "vllm.engine.arg_utils": ("The global random seed is set",),
    "vllm.platforms.cpu": ("Triton is not installed", "Reset SSM cache type"),
    "torch._library.triton": ("Triton not available",),
}


def hide_if_told(environ: Mapping[str, str]) -> None:
    """From now on hide the expected warnings in this process, if the launcher's variable says so and the engine runs on a CPU: on a GPU some of them
    matter."""
    if HIDES_EXPECTED not in environ:
        return
    from vllm.platforms import current_platform  # the launcher imports this module before vLLM

    if not current_platform.is_cpu():
        return
    for name, beginnings in EXPECTED.items():
        logging.getLogger(name).addFilter(partial(_is_unexpected, beginnings))
    warnings.filterwarnings("ignore", "`torch.distributed.reduce_op` is deprecated", FutureWarning)


def _is_unexpected(beginnings: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(beginnings)
