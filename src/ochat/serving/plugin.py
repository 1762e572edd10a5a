"""Tell vLLM of the tokenizer mode `openchat`: our renderer, which knows the templates, with vLLM's own tokenizer for text.

vLLM calls `register` in every process that it spawns, through the entry point `vllm.general_plugins`; so this imports next to
nothing. What we build on isn't a stable interface: `check_hooks` names what a newer vLLM has taken away."""

import multiprocessing
import os
import pkgutil
import threading
from contextlib import suppress

from packaging.version import Version

from ochat.errors import OchatError
from ochat.serving import held_replies
from ochat.serving.expected_warnings import hide_if_told

TOKENIZER_MODE = "openchat"
# The launcher leaves the model type in vLLM's `additional_config` under this key.
MODEL_TYPE_KEY = "ochat_model_type"

# All that we replace or override in vLLM, and what has moved, its newer place first.
HOOKS = (
    "vllm.renderers.registry:RENDERER_REGISTRY.register",
    "vllm.tokenizers.registry:TokenizerRegistry.register",
    "vllm.tokenizers.hf:CachedHfTokenizer",
    "vllm.renderers.base:BaseRenderer.render_messages",
    "vllm.renderers.base:BaseRenderer.render_messages_async",
    "vllm.renderers.base:BaseRenderer.get_eos_token_id",
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.from_new_request",
    "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.decode_next",
    "vllm.v1.engine.output_processor:RequestState.from_new_request",
    "vllm.v1.structured_output.backend_guidance:GuidanceGrammar.accept_tokens",
    "vllm.v1.structured_output.backend_guidance:GuidanceGrammar.check_error",
    "vllm.v1.structured_output.backend_guidance:GuidanceBackend.__post_init__",
    "vllm.v1.structured_output.backend_guidance:GuidanceBackend.compile_grammar",
    "vllm.v1.structured_output.backend_guidance:serialize_guidance_grammar",
    "vllm.v1.structured_output.backend_guidance:validate_guidance_grammar",
    "vllm.v1.structured_output.request:get_structured_output_key",
    "vllm.v1.engine.async_llm:AsyncLLM.add_request",
    "vllm.exceptions:GracefulHTTPError",
    "vllm.exceptions:QueueOverflowError",
    "vllm.exceptions:VLLMClientError",
    "vllm.exceptions:VLLMValidationError",
    "vllm.entrypoints.openai.responses.protocol:ResponsesRequest.input_item_parsing",
    "vllm.v1.engine.async_llm:AsyncLLM.shutdown",
    "vllm.v1.engine.async_llm:AsyncLLM.errored",
    "vllm.entrypoints.launchers.api_server.entry:run_server_worker",
    "vllm.entrypoints.launchers.launcher:setup_server",
    "vllm.entrypoints.common.cli_args:make_arg_parser or vllm.entrypoints.launchers.cli_args:make_arg_parser",
)


def register() -> None:
    """Register the tokenizer mode, once a process."""
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    if TOKENIZER_MODE not in RENDERER_REGISTRY.renderers:  # vLLM warns of a second time
        RENDERER_REGISTRY.register(TOKENIZER_MODE, "ochat.serving.renderer", "OpenChatRenderer")
        TokenizerRegistry.register(TOKENIZER_MODE, "vllm.tokenizers.hf", "CachedHfTokenizer")
        with suppress(ImportError, AttributeError):  # check_hooks tells, where it matters
            held_replies.install(TOKENIZER_MODE)
        end_with_parent()
        hide_if_told(os.environ)


def end_with_parent() -> None:
    """From now on, this process ends when the one that started it has been killed, if it's one of a server's.

    vLLM's engine, whose server was killed, stayed, and with it the model in memory (0.32.0). A pipe from the parent tells; Linux's
    PR_SET_PDEATHSIG would tell of the end of the thread that started the process, too."""
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith(("EngineCore", "ApiServer_")):
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ochat-end-with-parent").start()


def check_version(version: str, allows_untested: bool = False) -> None:
    """Raise OchatError for a vLLM that serving wasn't tested with, unless that is allowed: the hooks may be there and do another
    thing."""
    if not (allows_untested or (0, 32) <= Version(version).release[:2] < (0, 34)):
        hooks = ", ".join(hook.rpartition(":")[2] for hook in HOOKS)
        raise OchatError(
            f"vLLM {version} isn't tested with ochat, which is made for 0.32 and 0.33. These may have changed: {hooks}. Install one "
            "of the two, or pass --allow-untested-vllm and run the tests of serving."
        )


def check_hooks(hooks: tuple[str, ...] = HOOKS) -> None:
    """Raise OchatError, naming it, where this vLLM lacks something that we hook into."""
    for hook in hooks:
        for place in hook.split(" or "):
            try:
                pkgutil.resolve_name(place)
                break
            except (ImportError, AttributeError) as error:
                problem = error
        else:
            raise OchatError(
                f"This vLLM has no {hook}, which serving needs ({problem}). Install vLLM 0.32 or 0.33."
            ) from problem
