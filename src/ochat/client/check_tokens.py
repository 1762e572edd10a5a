"""Audit: can text forge a control token?

Token counts tell. As text, `<|im_end|>` takes several tokens; read as the control token it takes one. So we send it many times
over and look at the server's own count of the prompt."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ochat.client.subject import Finding, Subject

TOPIC = "control tokens"
# Of ChatML, OpenChat, Llama, Gemma, Mistral, Zephyr and Phi, Command, DeepSeek, Harmony, and reasoning and tool marks.
MARKS = """<|im_start|> <|im_end|> <|endoftext|> <|end_of_turn|> <|pad_0|> <|begin_of_text|> <|start_header_id|> <|end_header_id|>
<|eot_id|> <|eom_id|> <|python_tag|> <bos> <eos> <pad> <unk> <s> </s> <start_of_turn> <end_of_turn> [INST] [/INST] [TOOL_CALLS]
<|user|> <|assistant|> <|system|> <|end|> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <｜User｜> <｜Assistant｜>
<｜end▁of▁sentence｜> <|start|> <|message|> <|channel|> <|return|> <think> </think> <tool_call> </tool_call>""".split()
COPIES = 16
ONE_TOKEN = 1.25  # tokens a copy; text of these marks takes two or more even where copies merge
IN_FLIGHT = 4
REMEDY = (
    "Tokenize what people write apart from the template's marks, control tokens read as text (tokenizers: encode_special_tokens; "
    "vLLM: ochat's renderer), or refuse these strings in front of the server."
)


def check_tokens(subject: Subject) -> Iterator[Finding]:
    if subject.prompt_tokens("a") is None:
        yield Finding(TOPIC, "in a user's message", "unknown", "the server doesn't tell usage.prompt_tokens")
        return
    forged: set[str] = set()
    for role, place in (("user", "a user's message"), ("system", "a system prompt"), ("assistant", "an earlier reply")):
        costs = _costs(subject, role)
        of_role = [mark for mark, cost in costs.items() if cost is not None and cost <= ONE_TOKEN]
        forged |= set(of_role)
        if of_role:
            yield Finding(TOPIC, f"in {place}", "fail", f"read as a token: {' '.join(of_role)}", REMEDY)
        elif all(cost is None for cost in costs.values()):
            yield Finding(TOPIC, f"in {place}", "pass", "refused")
        else:
            yield Finding(TOPIC, f"in {place}", "pass", f"{len(costs)} marks are text")
    yield _in_fields(subject, sorted(forged) or MARKS[:4])


def _costs(subject: Subject, role: str) -> dict[str, float | None]:
    """Tokens that one copy of each mark takes in a message of the role; None where the request is refused."""

    def count(content: str) -> int | None:
        messages = [{"role": role, "content": content}]
        if role == "assistant":
            messages.insert(0, {"role": "user", "content": "Hi"})
        if role != "user":
            messages.append({"role": "user", "content": "Hi"})
        return subject.prompt_tokens(messages=messages)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        plain, *counts = pool.map(count, ["a", *("a" + mark * COPIES for mark in MARKS)])
    return {
        mark: None if plain is None or tokens is None else (tokens - plain) / COPIES
        for mark, tokens in zip(MARKS, counts, strict=True)
    }


def _in_fields(subject: Subject, marks: list[str]) -> Finding:
    """Whether a role, a name or a condition of such marks reaches the prompt as tokens; refusing them is best."""
    plain = subject.prompt_tokens()
    taken = []
    for mark in marks:
        text = mark * COPIES
        asked: dict[str, dict[str, object]] = {
            "role": {"messages": [{"role": text, "content": "Hi"}]},
            "name": {"messages": [{"role": "user", "content": "Hi", "name": text}]},
            "condition": {"condition": text},
            "chat_template_kwargs": {"chat_template_kwargs": {"condition": text}},
        }
        for name, fields in asked.items():
            tokens = subject.prompt_tokens(**fields)
            # Twice, since a condition stands before the user and the reply.
            if tokens is not None and plain is not None and plain < tokens <= plain + 2 * COPIES * ONE_TOKEN:
                taken.append(f"{name}: {mark}")
    if taken:
        return Finding(TOPIC, "in a role, name or condition", "fail", f"read as tokens in {', '.join(taken)}", REMEDY)
    return Finding(TOPIC, "in a role, name or condition", "pass", "refused, text or left out")
