"""`ochat chat`: talk to any OpenAI-compatible server in the terminal, and hold conditions side by side.

What is typed is edited by prompt_toolkit, columns are drawn by rich; what is ours are the conversation and its commands."""

import difflib
import json
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ochat.client.connection import NoAnswer, Server, served_models
from ochat.client.reply import Reply, printable
from ochat.client.subject import field as field_of
from ochat.errors import OchatError
from ochat.files import make_folder

HELP = """/condition [NAME]     ask under another condition; alone, list them; "default" for the server's own
/side A | B [| …]     answer each message under several conditions, side by side; /side off keeps the first
/model [NAME]         ask another model; alone, list them
/system [TEXT]        set the system prompt; alone, remove it
/set NAME [VALUE]     a field of the requests, such as: /set temperature 0.2; without a value, remove it
/retry                ask the last message again
/undo                 take back the last message and its reply
/new                  begin a new conversation
/save FILE            add the conversation to a file of messages, which `ochat data import` reads
/quit                 leave; Ctrl-D does too

Enter sends. Alt-Enter or Ctrl-J breaks the line; pasted lines stay together. Ctrl-C stops a reply and keeps what came of it.
The arrows fetch what you typed before. Begin with a blank to send a text that starts with "/"."""


@dataclass(frozen=True)
class Options:
    url: Annotated[str, tyro.conf.Positional] = "http://localhost:18888/v1"
    """an OpenAI-compatible server; its key, if it wants one, is read from OPENAI_API_KEY"""
    model: str = ""
    """served model; the server's first when left out"""
    condition: str = ""
    """the condition to ask under; the server's default when left out"""
    system: str = ""
    """system prompt"""
    temperature: float | None = None
    """0 for the likeliest reply; the server's default when left out"""
    max_tokens: int | None = None
    """tokens of a reply, at most"""


@dataclass
class Side:
    """A conversation under a condition; there are several when conditions are held side by side."""

    condition: str
    messages: list[dict[str, str]] = field(default_factory=list)


class Chat:
    """What is asked next, and of whom."""

    def __init__(self, server: Server, models: list[str], conditions: list[str], options: Options) -> None:
        self.server, self.models, self.conditions = server, models, conditions
        self.model = options.model or models[0]
        self.system = options.system
        self.sides = [Side(options.condition)]
        given = {"temperature": options.temperature, "max_tokens": options.max_tokens}
        self.fields: dict[str, object] = {name: value for name, value in given.items() if value is not None}

    def request(self, side: Side) -> dict[str, object]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        condition = {"condition": side.condition} if side.condition else {}
        return {"model": self.model, "messages": [*messages, *side.messages], **self.fields, **condition}

    def say(self, text: str) -> None:
        for side in self.sides:
            side.messages.append({"role": "user", "content": text})

    def take_back(self) -> str:
        """Remove the last message of the user and what came after it; returns its text, "" where there's none."""
        text = ""
        for side in self.sides:
            if any(message["role"] == "user" for message in side.messages):
                while (last := side.messages.pop())["role"] != "user":
                    pass
                text = last["content"]
        return text

    def status(self) -> str:
        """One line on what is asked."""
        shown = " | ".join(side.condition or "default" for side in self.sides)
        fields = "".join(f" · {name} {value}" for name, value in self.fields.items())
        model = self.model.rpartition("/")[2] if self.model.startswith("/") else self.model  # llama.cpp names the file
        return printable(f"{model} · condition {shown}{fields}{' · system prompt' if self.system else ''}")


def main(options: Options) -> None:
    server = Server(options.url, os.environ.get("OPENAI_API_KEY", ""))
    models = [model["id"] for model in served_models(server)]
    if not models and not options.model:
        raise OchatError(f"{server.url} lists no model. Name one with --model.")
    chat = Chat(server, models, known_conditions(server), options)
    if sys.stdin.isatty():
        talk(chat)
    else:
        ask_once(chat, sys.stdin.read())


def known_conditions(server: Server) -> list[str]:
    """The conditions that the server tells, the default first; none where it has no such route."""
    try:
        value = server.ask("GET", "/v1/conditions").json()
    except NoAnswer:
        return []
    names = [field_of(entry, "id") for entry in field_of(value, "data") or []]
    return [printable(name) for name in names if isinstance(name, str)]


def ask_once(chat: Chat, text: str) -> None:
    """Answer what was piped in: the reply goes to stdout as it is, and nothing else."""
    if not text.strip():
        raise OchatError("There's no message on standard input. Pipe one, or start `ochat chat` in a terminal.")
    chat.say(text)
    problem = Printer(make_console()).single(chat)
    print()
    if problem:
        raise OchatError(problem)


def make_console() -> Console:
    """Where replies and what is said about them are shown. FORCE_COLOR, which CI sets, makes no terminal of a pipe."""
    return Console(highlight=False, emoji=False, force_terminal=sys.stdout.isatty())


def talk(chat: Chat) -> None:
    """Read, send and show until the person leaves."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.formatted_text import HTML
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    lines = [*COMMANDS, *(f"/condition {name}" for name in chat.conditions), *(f"/model {name}" for name in chat.models)]
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history_file())),
        multiline=True,
        key_bindings=keys,
        completer=WordCompleter(lines, sentence=True),
        complete_while_typing=False,
        bottom_toolbar=lambda: f" {chat.status()} · /help",
        prompt_continuation="      ",
    )
    console = make_console()
    console.print(f"{chat.status()} · {chat.server.url}", style="bold", markup=False)
    console.print("Enter sends, Ctrl-C stops a reply, Ctrl-D leaves. /help tells the rest.", style="dim")
    printer = Printer(console)
    draft = ""
    while True:
        try:
            text = session.prompt(HTML("\n<b>you ›</b> "), default=draft)
        except KeyboardInterrupt:
            draft = ""
            continue
        except EOFError:
            return
        draft = ""
        if not text.strip():
            continue
        if text.startswith("/"):
            try:
                if run_command(chat, text, console):
                    continue
            except SystemExit:
                return
        else:
            chat.say(text.strip())
        problem = printer.side_by_side(chat) if len(chat.sides) > 1 else printer.single(chat)
        if problem:
            console.print(problem, style="red", markup=False)
            draft = chat.take_back()  # to be sent again, or changed


def history_file() -> Path:
    """Where what was typed is kept, for its owner alone."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "ochat"
    make_folder(folder)
    path = folder / "chat_history"
    path.touch(mode=0o600)
    return path


class Printer:
    """Shows replies as they come, and adds them to the conversation."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def single(self, chat: Chat) -> str:
        """Show the reply to the last message; returns what went wrong, "" for nothing."""
        shown = shown_thoughts = 0
        running, news = begin(chat)
        (reply,) = running
        waiting = self.console.status("", spinner="dots")  # nothing where stdout is no terminal
        waiting.start()
        for _ in until_done(running, news):
            thoughts, text = reply.thoughts if self.console.is_terminal else "", reply.text  # they grow meanwhile
            if text or thoughts or reply.is_done:
                waiting.stop()
            self._think(thoughts[shown_thoughts:])
            if thoughts and text and not shown:
                self._write("\n\n")
            self._write(text[shown:])
            shown_thoughts, shown = len(thoughts), len(text)
        if self.console.is_terminal:
            self.console.print()
            self._told([reply])
        return keep(chat, running)

    def _think(self, thoughts: str) -> None:
        if thoughts:
            self.console.print(printable(thoughts), end="", style="dim", markup=False, soft_wrap=True)
            self.console.file.flush()

    def _write(self, text: str) -> None:
        """Write what is the reply's, past rich, which would make blanks of its tabs."""
        self.console.file.write(printable(text) if self.console.is_terminal else text)
        self.console.file.flush()

    def side_by_side(self, chat: Chat) -> str:
        """The same in columns. While they grow, their ends are shown; whole when all are there."""
        names = [side.condition or "default" for side in chat.sides]
        running, news = begin(chat)
        with Live(console=self.console, transient=True, refresh_per_second=12, vertical_overflow="crop") as live:
            for _ in until_done(running, news):
                live.update(self._columns(names, running, rows=max(self.console.height - 6, 4)))
        self.console.print(self._columns(names, running))
        self._told(running)
        return keep(chat, running)

    def _columns(self, names: list[str], running: list[Reply], rows: int = 0) -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0))
        width = max(self.console.width // len(names) - 2, 10)
        cells = []
        for name, reply in zip(names, running, strict=True):
            table.add_column(Text(name), ratio=1, overflow="fold")
            lines = Text(printable(reply.text or reply.thoughts)).wrap(self.console, width)
            cells.append(Text("\n").join(lines[-rows:]))
        table.add_row(*cells)
        return table

    def _told(self, running: list[Reply]) -> None:
        told = []
        for reply in running:
            speed = f", {reply.n_tokens / reply.seconds:.0f} a second" if reply.n_tokens and reply.seconds else ""
            count = f"{reply.n_tokens} tokens{speed}" if reply.n_tokens is not None else f"{reply.seconds:.1f} s"
            ending = {"length": " (cut at the most tokens)", "": " (stopped)"}.get(reply.finish_reason, "")
            told.append("" if reply.problem else f"{count}{ending}")
        self.console.print(" | ".join(told), style="dim", markup=False)


def begin(chat: Chat) -> tuple[list[Reply], "queue.Queue[Reply]"]:
    """The replies of all sides to what was said last, on their way, and the queue of their news."""
    news: queue.Queue[Reply] = queue.Queue()
    return [Reply(chat.server, chat.request(side), news) for side in chat.sides], news


def until_done(running: list[Reply], news: "queue.Queue[Reply]") -> Iterator[None]:
    """Yield whenever there's more to show, the last time when all replies are whole. Ctrl-C stops them."""

    def stop(*_: object) -> None:
        for reply in running:
            reply.stop()

    before = signal.signal(signal.SIGINT, stop)  # an exception would come in the middle of printing
    try:
        done = False
        while not done:
            done = all(reply.is_done for reply in running)
            if not done:
                news.get()
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def keep(chat: Chat, running: list[Reply]) -> str:
    """Add the replies to the conversation; where one failed, none is, and what went wrong is returned."""
    problem = next((reply.problem for reply in running if reply.problem), "")
    if not problem:
        for side, reply in zip(chat.sides, running, strict=True):
            side.messages.append({"role": "assistant", "content": reply.text})
    return problem


def run_command(chat: Chat, text: str, console: Console) -> bool:
    """Do what a line that begins with "/" says; False where the last message is to be asked again."""
    name, _, rest = text.strip().partition(" ")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        console.print(f"There's no {name}.{hint} /help lists all.", style="red", markup=False)
        return True
    told = COMMANDS[name](chat, rest.strip())
    if told:
        console.print(told, markup=False)
    return told is not None


def _condition(chat: Chat, name: str) -> str:
    if not name:
        if not chat.conditions:
            return "The server doesn't tell its conditions. Name any: /condition GPT4 Correct"
        return "\n".join(f"{'*' if name == chat.sides[0].condition else ' '} {name}" for name in chat.conditions)
    chat.sides[0].condition = "" if name == "default" else name
    del chat.sides[1:]
    return _unlisted(chat, [name]) or f"Condition: {name}"


def _unlisted(chat: Chat, names: list[str]) -> str:
    unknown = [name for name in names if chat.conditions and name not in (*chat.conditions, "default", "none")]
    if not unknown:
        return ""
    named, them = " and ".join(map(repr, unknown)), "it" if len(unknown) == 1 else "them"
    return f"The server doesn't list {named}; it may refuse {them}. It lists: {', '.join(chat.conditions)}"


def _side(chat: Chat, rest: str) -> str:
    if rest in ("", "off"):
        del chat.sides[1:]
        return "One reply a message." if rest else "Name conditions: /side GPT4 Correct | GPT3"
    names = [name.strip() for name in rest.split("|")]
    if len(names) < 2 or not all(names):
        return "Name two conditions or more, with | between them: /side GPT4 Correct | GPT3"
    said = chat.sides[0].messages
    chat.sides = [Side("" if name == "default" else name, list(said)) for name in names]
    return _unlisted(chat, names) or f"Side by side: {' | '.join(names)}"


def _model(chat: Chat, name: str) -> str:
    if not name:
        return "\n".join(f"{'*' if name == chat.model else ' '} {printable(name)}" for name in chat.models)
    chat.model = name
    return f"Model: {name}" if name in chat.models else f"Model: {name}, which the server doesn't list."


def _system(chat: Chat, text: str) -> str:
    chat.system = text
    return "System prompt set." if text else "No system prompt."


def _set(chat: Chat, rest: str) -> str:
    name, _, value = rest.partition(" ")
    if not name:
        return "Name a field: /set temperature 0.2"
    if not value:
        chat.fields.pop(name, None)
        return f"{name}: the server's default"
    try:
        chat.fields[name] = json.loads(value)
    except ValueError:
        chat.fields[name] = value
    return f"{name}: {json.dumps(chat.fields[name], ensure_ascii=False)}"


def _retry(chat: Chat, _: str) -> str | None:
    text = chat.take_back()
    if not text:
        return "There's no message to ask again."
    chat.say(text)
    return None


def _undo(chat: Chat, _: str) -> str:
    return "Taken back." if chat.take_back() else "There's nothing to take back."


def _new(chat: Chat, _: str) -> str:
    for side in chat.sides:
        side.messages.clear()
    return "A new conversation."


def _save(chat: Chat, name: str) -> str:
    if not name:
        return "Name a file: /save talk.jsonl"
    rows = []
    for side in chat.sides:
        system = [{"role": "system", "content": chat.system}] if chat.system else []
        rows.append({"messages": [*system, *side.messages], **({"condition": side.condition} if side.condition else {})})
    try:
        with Path(name).expanduser().open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        return f"{name} can't be written ({error.strerror}). Name another file."
    return f"{len(rows)} {'conversation' if len(rows) == 1 else 'conversations'} added to {name}"


def _quit(_: Chat, __: str) -> str:
    raise SystemExit


COMMANDS: dict[str, Callable[[Chat, str], str | None]] = {
    "/help": lambda _, __: HELP,
    "/condition": _condition,
    "/side": _side,
    "/model": _model,
    "/system": _system,
    "/set": _set,
    "/retry": _retry,
    "/undo": _undo,
    "/new": _new,
    "/save": _save,
    "/quit": _quit,
}
