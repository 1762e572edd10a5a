"""Which conditions a request may ask under, and which it gets when it names none.

A misspelt condition would be answered, in no particular style; so a name that the model doesn't know is an error."""

from dataclasses import dataclass
from typing import Any

from ochat.conversation import NO_CONDITION
from ochat.registry import ModelType
from ochat.serving.gateway_options import GatewayOptions
from ochat.serving.refusal import bad_request
from ochat.serving.routes import Route

AUTO_IS_RESERVED = "`condition` can't be 'auto': vLLM reads that as absent. Give another name."


@dataclass(frozen=True)
class Conditions:
    """The conditions of a server or of one of its keys. `default` "" is for a model type that takes none."""

    known: tuple[str, ...]
    default: str
    allows_any: bool = False

    def narrowed(self, known: tuple[str, ...], default: str, allows_any: bool = False) -> "Conditions":
        """With a list or a default of its own; a default that isn't in the list joins it."""
        if not self.default or not (known or default):
            return self
        allows_any = allows_any or (self.allows_any and not known)
        known = known or self.known
        default = default or (self.default if self.default in known else known[0])
        return Conditions(known if default in known else (default, *known), default, allows_any)

    def listing(self, model_type: str) -> dict[str, object]:
        """What `GET /v1/conditions` answers."""
        data = [{"id": name} for name in self.known]
        return {"object": "list", "model_type": model_type, "default": self.default or None, "data": data}

    def check(self, condition: str) -> str:
        """The condition of the reply, the default for "". Raises Refusal for one that isn't known here."""
        if condition == "auto":
            raise bad_request(AUTO_IS_RESERVED, "condition")
        if not self.default:
            if condition not in ("", NO_CONDITION):
                raise bad_request(f"This model type takes no condition; found {condition!r}. Leave it out.", "condition")
            return ""
        if not condition:
            return self.default
        if condition not in self.known and not self.allows_any:
            raise bad_request(f"Unknown condition {condition[:128]!r}. Known: {', '.join(self.known)}.", "condition")
        return condition


def server_conditions(kind: ModelType | None, options: GatewayOptions, trained: tuple[str, ...] = ()) -> Conditions:
    """The server's conditions, by its model type, what the checkpoint was trained under, and its options. Without a type, under another
    tokenizer mode of vLLM's, there are none."""
    if kind is None or not kind.format.takes_condition:
        return Conditions((), "")
    known = tuple(dict.fromkeys((*kind.conditions, *trained, NO_CONDITION)))
    of_type = Conditions(known, kind.format.default_condition, options.allow_any_condition)
    return of_type.narrowed(options.conditions, options.default_condition, options.allow_any_condition)


def take_condition(request: dict[str, Any], route: Route, conditions: Conditions) -> str:
    """The condition that a request is answered under, "" where none applies. In the request it is moved to where vLLM keeps the
    template's options. Raises Refusal for one that isn't a string, isn't known, or would have no effect."""
    given = request.pop("condition", None)
    if route.conversation is None or route.conversation not in request:
        if given is not None:
            raise bad_request(
                f"`condition` has no effect on this request to {route.path}. Leave it out, or send messages to "
                "/v1/chat/completions.",
                "condition",
            )
        return ""
    options = request.get("chat_template_kwargs")
    if options is not None and not isinstance(options, dict):
        raise bad_request("`chat_template_kwargs` must be an object. Give one or leave it out.", "chat_template_kwargs")
    inner = (options or {}).get("condition")
    for condition in (given, inner):
        if condition is not None and not isinstance(condition, str):
            raise bad_request(f"`condition` is {str(condition)[:128]!r}. Give a string such as 'Code'.", "condition")
    if given is not None and inner is not None and given != inner:
        raise bad_request("`condition` and `chat_template_kwargs.condition` differ. Give one of them.", "condition")
    condition = conditions.check(given or inner or "")
    if condition:
        request["chat_template_kwargs"] = {**(options or {}), "condition": condition}
    return condition
