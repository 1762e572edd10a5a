"""Count what the engine did for each request: without parsing its reply, and where its client has left too.

vLLM makes one RequestState for each choice of a request, in the process and in the task that handles the request, just before it
goes to the engine. We note it with the request of this task; the counts are read from it at the end. The prefix cache's salt is
set there too, which covers every route. Read from vLLM 0.32.0 (v1/engine/output_processor.py, async_llm.py)."""

import hashlib
import hmac
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Protocol


class EngineRequest(Protocol):
    """vLLM's EngineCoreRequest, as far as it's used."""

    cache_salt: str | None


class Detokenizer(Protocol):
    """vLLM's IncrementalDetokenizer, as far as it's used."""

    output_text: str

    def num_output_tokens(self) -> int: ...


class State(Protocol):
    """vLLM's RequestState, as far as it's used."""

    external_req_id: str
    prompt_len: int
    num_cached_tokens: int
    detokenizer: Detokenizer | None


class Meter:
    """What the engine does for one request."""

    def __init__(self, cache_salt: bytes | None = None) -> None:
        self._states: list[State] = []
        self.refusal: tuple[int, str] | None = None  # the status and words with which the engine didn't take it
        self._salt = cache_salt

    def note(self, request: EngineRequest, state: State) -> None:
        """Begin to count one choice."""
        self._states.append(state)
        if self._salt is not None:
            request.cache_salt = salted(self._salt, request.cache_salt)

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many choices it has."""
        return sum({state.external_req_id: state.prompt_len for state in self._states}.values())

    @property
    def cached_tokens(self) -> int:
        return sum({state.external_req_id: state.num_cached_tokens for state in self._states}.values())

    @property
    def completion_tokens(self) -> int:
        return sum(state.detokenizer.num_output_tokens() for state in self._states if state.detokenizer)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def texts(self) -> list[str]:
        """The replies as far as they have come."""
        return [getattr(state.detokenizer, "output_text", "") for state in self._states]


def salted(secret: bytes, given: str | None) -> str:
    """A salt that only this server and key can make, out of a client's own, if it gave one."""
    return hmac.digest(secret, (given or "").encode(), hashlib.sha256).hex()


CURRENT: ContextVar[Meter | None] = ContextVar("ochat_meter", default=None)


def install(engine: Any) -> None:
    """From now on, note each request of vLLM's AsyncLLM with its task's Meter, one that it refuses too."""
    _note_refusals(engine)
    from vllm.v1.engine.output_processor import RequestState

    original = RequestState.from_new_request
    if getattr(original, "is_metered", False):
        return

    def from_new_request(cls: type, /, *args: object, **kwargs: object) -> State:
        state: State = original(*args, **kwargs)
        meter = CURRENT.get()
        if meter is not None:
            request = kwargs["request"] if "request" in kwargs else args[1]
            meter.note(request, state)  # type: ignore[arg-type]  # vLLM's own class
        return state

    from_new_request.is_metered = True  # type: ignore[attr-defined]  # a mark on a function
    RequestState.from_new_request = classmethod(from_new_request)


def _note_refusals(engine: Any) -> None:
    """From now on, note with its Meter why vLLM's AsyncLLM refuses a request. In a stream vLLM tells that as an error of its own."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError

    add = engine.add_request

    async def add_request(*args: object, **kwargs: object) -> object:
        try:
            return await add(*args, **kwargs)
        except (VLLMClientError, GracefulHTTPError) as error:
            if meter := CURRENT.get():
                meter.refusal = getattr(error, "http_status", HTTPStatus.BAD_REQUEST), str(error)
            raise

    engine.add_request = add_request
