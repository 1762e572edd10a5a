"""`ochat audit URL`: what any OpenAI-compatible server does with strangers, forged tokens, fields, bad requests and hang-ups.

It is asked from outside, as a client asks, and needs nothing of the server's but its address and a key. Each check says what was
found and what would mend it."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ochat.client.check_cancellation import check_cancellation
from ochat.client.check_errors import check_errors
from ochat.client.check_fields import check_fields
from ochat.client.check_routes import check_routes
from ochat.client.check_tokens import check_tokens
from ochat.client.connection import Server, served_models
from ochat.client.reply import printable
from ochat.client.subject import Finding, Subject, field
from ochat.errors import OchatError

CHECKS: dict[str, Callable[[Subject], Iterator[Finding]]] = {
    "keys": check_routes,
    "tokens": check_tokens,
    "fields": check_fields,
    "errors": check_errors,
    "cancellation": check_cancellation,
}
FAULTS_FOUND = 3  # the exit status; 1 is an audit that couldn't be made, 2 a wrong command line
_STYLES = {"pass": "green", "fail": "bold red", "note": "yellow", "unknown": "dim"}


@dataclass(frozen=True)
class Options:
    url: Annotated[str, tyro.conf.Positional]
    """the server's address, such as http://localhost:18888/v1"""
    key: str = ""
    """one of its keys, if it has any; read from OPENAI_API_KEY when left out, which shows in no process list"""
    model: str = ""
    """served model; the server's first when left out"""
    only: tuple[str, ...] = ()
    """some of keys, tokens, fields, errors, cancellation; all when left out"""
    json: bool = False
    """print {"url", "model", "findings": [{"topic", "check", "verdict", "found", "remedy"}]}"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.only if name not in CHECKS]
        if unknown:
            raise OchatError(f"--only has {unknown[0]!r}. Give some of: {', '.join(CHECKS)}.")


def main(options: Options) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=False, width=None if os.isatty(1) else 120)
    subject = make_subject(options)
    findings = []
    chosen = [check for name, check in CHECKS.items() if not options.only or name in options.only]
    for number, check in enumerate(chosen, 1):
        for finding in check(subject):
            findings.append(finding)
            place = f"{finding.topic} ({number} of {len(chosen)})"
            print(f"{place}: {finding.check}: {finding.verdict}", file=sys.stderr, flush=True)
    if options.json:
        told = {"url": subject.server.url, "model": subject.model, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        console.print(table(findings))
        counts: Counter[str] = Counter(finding.verdict for finding in findings)
        console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES if counts[verdict]))
    if any(finding.verdict == "fail" for finding in findings):
        raise SystemExit(FAULTS_FOUND)


def make_subject(options: Options) -> Subject:
    """The server, asked once as a client asks. Raises OchatError where that fails: then there's nothing to audit."""
    server = Server(options.url, options.key or os.environ.get("OPENAI_API_KEY", ""), timeout=120)
    models = served_models(server)
    named = [model for model in models if model["id"] == options.model] if options.model else models
    if not named:
        listed = ", ".join(model["id"] for model in models) or "none"
        raise OchatError(f"{server.url} doesn't list a model {options.model!r}. It lists: {listed}. Choose with --model.")
    context = named[0].get("max_model_len") or field(named[0], "meta", "n_ctx_train")  # of vLLM and of llama.cpp
    subject = Subject(server, named[0]["id"], context if isinstance(context, int) else None)
    answer = subject.chat()
    if not answer.ok:
        raise OchatError(f"A plain chat request got {answer.status or 'no answer'}: {answer.error_message()} Check the server.")
    return subject


def table(findings: list[Finding]) -> Table:
    """The findings for people."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    for heading, ratio in (("topic", None), ("check", None), ("", None), ("found, and what to do", 1)):
        made.add_column(heading, ratio=ratio, overflow="fold")
    for number, finding in enumerate(findings):
        new = number == 0 or findings[number - 1].topic != finding.topic
        found = Text(printable(finding.found))  # it has words of the server's
        if finding.remedy and finding.verdict in ("fail", "note"):
            found.append(f"\n→ {finding.remedy}", style="italic")
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        made.add_row(finding.topic if new else "", finding.check, verdict, found)
    return made
