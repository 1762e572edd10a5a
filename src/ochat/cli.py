"""The command line: a table of commands, each imported only when it is called.

`ochat --help` therefore loads neither torch nor vLLM. A command's module has a dataclass `Options`, from which its flags are
made, and `main(options)`. `serve` alone reads its own arguments, since every flag of vLLM is a flag of it."""

import difflib
import importlib
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    module: str
    summary: str
    reads_argv: bool = False  # the module's main takes the raw arguments
    goes_on: str = ""  # what an interrupted command's user is told of repeating it


GOES_ON = "Repeat the command to go on."
COMMANDS = {
    "quickstart": Command(
        "ochat.experiment.quickstart", "the whole loop on a toy task: data, training, grades, a served model", goes_on=GOES_ON
    ),
    "data import": Command("ochat.data.import_rows", "rows of other formats -> conversations of one class"),
    "data clean": Command(
        "ochat.data.clean.clean_rows", "drop duplicates and benchmark questions, mend turns and scraped texts; all counted"
    ),
    "data recipe": Command("ochat.data.recipe", "a known mix of public data sets as a file to edit"),
    "data build": Command(
        "ochat.data.build", "a recipe -> rows: each source imported, all cleaned, and, if asked, tokenized", goes_on=GOES_ON
    ),
    "data report": Command(
        "ochat.data.report.report_rows", "what a model will learn from this data, and what to mend: a page, a table"
    ),
    "data tokenize": Command("ochat.data.tokenize", "conversations -> a data set of tokens and weights", goes_on=GOES_ON),
    "data export": Command("ochat.data.export", "conversations or a data set -> what other trainers read"),
    "model base": Command("ochat.model.base", "the embedded base model as a folder"),
    "model add-tokens": Command("ochat.model.add_tokens", "give a base model the control tokens of a model type"),
    "model merge": Command("ochat.model.merge", "a LoRA adapter and its base -> one model"),
    "model export": Command("ochat.model.export", "a model as a GGUF file, for llama.cpp"),
    "model card": Command("ochat.model.card", "make a checkpoint's README.md again"),
    "model push": Command("ochat.model.push", "upload a checkpoint to the hub"),
    "template show": Command("ochat.template_show", "text, tokens and weights of conversations"),
    "train run": Command(
        "ochat.training.train",
        "fine-tune a model with C-RLFT",
        goes_on="Repeat the command to go on from its last saved state, if there is one.",
    ),
    "train report": Command("ochat.training.report", "what a run learned, as one HTML page"),
    "eval run": Command(
        "ochat.evaluation.run_eval", "ask a model questions under conditions and grade its replies", goes_on=GOES_ON
    ),
    "eval fetch": Command("ochat.evaluation.fetch", "the benchmarks' questions, in the original's layout"),
    "eval compare": Command("ochat.evaluation.compare", "is one evaluation better than another, or is it chance?"),
    "eval grade": Command("ochat.evaluation.grade", "grade replies from a file, strictly or as the original did"),
    "eval judge": Command(
        "ochat.evaluation.judge", "MT-Bench and Vicuna bench scored by a judge of your choice", goes_on=GOES_ON
    ),
    "eval view": Command("ochat.evaluation.view_results", "tables like the model card's, and a page of every reply"),
    "serve": Command("ochat.serving.openai_api_server", "serve a model with OpenAI's API on vLLM", reads_argv=True),
    "keys create": Command("ochat.serving.keys_create", "make a client's key for the server, with limits"),
    "keys list": Command("ochat.serving.keys_list", "whose keys there are"),
    "keys revoke": Command("ochat.serving.keys_revoke", "take a key back; a running server knows within a second"),
    "chat": Command("ochat.client.chat", "chat in the terminal with any OpenAI-compatible server"),
    "audit": Command(
        "ochat.client.audit", "what an OpenAI-compatible server does with strangers, forged tokens and bad requests"
    ),
    "ui": Command("ochat.ui.run", "the chat page on this machine, in front of any server with OpenAI's API"),
    "experiment ablation": Command(
        "ochat.experiment.ablation",
        "does C-RLFT beat each simpler use of the same data? Every arm, trained and asked",
        goes_on=GOES_ON,
    ),
    "doctor": Command(
        "ochat.experiment.doctor", "what this machine can run, what is missing, and whether training is right on it"
    ),
}

CONFIG_HELP = "--config FILE reads any of these options from a YAML file of the same names; those on the command line win."


def usage() -> str:
    """The text of `ochat --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  ochat {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "ochat: from chat data of mixed quality to a served, evaluated model, by C-RLFT.\n\n"
        f"{rows}\n\nEach command tells its options with --help. The README has a first example."
    )


def find_command(words: list[str]) -> tuple[str, list[str]]:
    """The command that the words open with, and the words after it. Raises SystemExit, naming near commands, for none."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    typed = " ".join(words[:2] if len(words) > 1 and not words[1].startswith("-") else words[:1])
    nouns = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    near = nouns or difflib.get_close_matches(typed, COMMANDS, n=3, cutoff=0.4) or list(COMMANDS)
    raise SystemExit(f"ochat: unknown command {typed!r}. Did you mean: {', '.join(near)}? All commands: ochat --help")


def main(argv: list[str] | None = None) -> None:
    """Run one command; a user's mistake ends it with one line and status 1."""
    try:
        run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `ochat … | head` has read enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + 13) from None


def run(words: list[str]) -> None:
    """Run the command that the words of a command line name."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if words[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"ochat {version('ochat-crlft')}")
        return
    of_noun = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if of_noun and words[1:] in ([], ["-h"], ["--help"]):
        print("\n".join(f"ochat {name}  {COMMANDS[name].summary}" for name in of_noun))
        return
    name, rest = find_command(words)
    run_command(f"ochat {name}", COMMANDS[name], rest)


def run_command(prog: str, command: Command, argv: list[str]) -> None:
    """Parse the arguments, run the command's main, and turn a user's mistake into one line."""
    from ochat.errors import OchatError

    try:
        module = importlib.import_module(command.module)
        if command.reads_argv:
            module.main(argv)
            return
        import tyro

        from ochat.config_file import defaults, take_config

        path, flags = take_config(argv)
        options = tyro.cli(
            module.Options,
            prog=prog,
            description=f"{command.summary}\n{CONFIG_HELP}",
            args=flags,
            default=defaults(module.Options, path) if path else None,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        module.main(options)
    except BrokenPipeError:
        raise
    except OchatError as error:
        raise SystemExit(f"ochat: {error}") from error
    except OSError as error:  # of a file that nobody thought of
        where = f"{error.filename}: " if error.filename else ""
        remedy = "Check the path, its permissions, and that its disk isn't full."
        raise SystemExit(f"ochat: {where}{error.strerror or error}. {remedy}") from error
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # after the terminal's ^C
        print(f"{start}ochat: interrupted. {command.goes_on}".rstrip(), file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
