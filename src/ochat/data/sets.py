"""Public data sets by name: what is peculiar to each, as a table of data.

They are those that OpenChat 3.5's model card names. No table of their conditions was ever published; the conditions and weights
here are ours, after what its authors said of them: `GPT4 Correct` for answers of GPT-4's quality that were checked, `GPT4` for others of it,
`Code`, `Human`, and from OpenChat 3.5-1210 on `Math Correct`. GPT-3.5's answers weigh 0.1, as in the paper.

An entry says what the import's options could say too, and each option given takes its place. Licences are the data sets' own
words where they were seen, else marked as reported; whoever trains on a set should read its page."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ochat.data.formats import RowFormat, format_named
from ochat.errors import OchatError

MATH_CONDITION = "Math Correct"


@dataclass(frozen=True)
class SetClass:
    name: str
    condition: str
    weight: float = 1.0
    is_math: bool = False
    """its condition is `Math Correct` where that is asked for"""


@dataclass(frozen=True, eq=False)  # each is one of a kind
class DataSet:
    id: str
    format: str
    needs: tuple[str, ...]
    """columns by which its rows are known"""
    licence: str
    classes: tuple[SetClass, ...]
    """where there are rules, they give rows their classes; otherwise there is one"""
    rules: tuple[Mapping[str, object], ...] = ()
    """as in a file of classes"""
    files: tuple[str, ...] = ()
    """those of its files that hold its rows, where others hold other things"""
    exclude: tuple[tuple[str, str], ...] = ()
    """COLUMN=PATTERN of rows to leave out, and why"""
    cap: int | None = None
    notes: tuple[str, ...] = ()

    def row_format(self) -> RowFormat:
        """The set's format, known by the set's columns."""
        known = format_named(self.format)
        return replace(known, name=f"{known.name} of {self.id}", detect=lambda row: all(name in row for name in self.needs))

    def table(self, *, math_condition: bool) -> dict[str, Any]:
        """The set's classes and rules, as a file of classes has them."""
        classes = [
            {
                "name": one.name,
                "condition": MATH_CONDITION if one.is_math and math_condition else one.condition,
                "weight": one.weight,
            }
            for one in self.classes
        ]
        return {"classes": classes, "rules": list(self.rules)} | ({} if self.rules else {"fallback": self.classes[0].name})


_CAPYBARA = ("conversation",)

SETS = (
    DataSet(
        "openchat/openchat_sharegpt4_dataset",
        format="ochat items",
        needs=("items",),
        licence="not known; chats that people shared from ChatGPT",
        classes=(SetClass("sharegpt-gpt4", "GPT4"), SetClass("sharegpt-gpt3", "GPT3", 0.1)),
        # Other models' names differ from crawl to crawl, and some rows have none: the original took all of them for GPT-3.5.
        rules=(
            {
                "by": "column",
                "column": "model",
                "classes": {"Model: GPT-4": "sharegpt-gpt4"},
                "others": "sharegpt-gpt3",
            },
        ),
        files=("sharegpt_clean.json",),
        notes=("OpenChat 3.5 was trained without GPT-3.5's answers: drop the class sharegpt-gpt3 to do the same.",),
    ),
    DataSet(
        "imone/OpenOrca_FLAN",
        format="instruction/response",
        needs=("instruction", "response", "condition"),
        licence="reported MIT",
        classes=(
            SetClass("orca-correct", "GPT4 Correct"),
            SetClass("orca-gpt4", "GPT4"),
            SetClass("flan", "Human"),
        ),
        # Its FLAN rows answer the same questions as its GPT-4 rows: where the two agree, the answer counts as checked.
        rules=(
            {"by": "agreement", "column": "condition", "judged": "GPT4", "right": "orca-correct"},
            {"by": "column", "column": "condition", "classes": {"GPT4": "orca-gpt4"}, "others": "flan"},
        ),
        notes=("The rows are read twice: GPT-4's answers are compared with FLAN's.",),
    ),
    DataSet(
        "LDJnr/Pure-Dove",
        format="LDJnr input/output pairs",
        needs=_CAPYBARA,
        licence="reported Apache-2.0",
        classes=(SetClass("pure-dove", "GPT4"),),
    ),
    DataSet(
        "LDJnr/Verified-Camel",
        format="LDJnr input/output pairs",
        needs=_CAPYBARA,
        licence="reported Apache-2.0",
        classes=(SetClass("verified-camel", "GPT4 Correct"),),
    ),
    DataSet(
        "LDJnr/LessWrong-Amplify-Instruct",
        format="LDJnr input/output pairs",
        needs=_CAPYBARA,
        licence="reported Apache-2.0",
        classes=(SetClass("lesswrong", "GPT4"),),
    ),
    DataSet(
        "tiedong/goat",
        format="goat arithmetic",
        needs=("instruction", "output", "answer"),
        licence="reported Apache-2.0",
        classes=(SetClass("goat", "GPT4 Correct", is_math=True),),
        cap=50_000,
        notes=("1.7 million rows of arithmetic would be most of any mix, so a part is drawn; a cap of 0 takes all.",),
    ),
    DataSet(
        "glaiveai/glaive-code-assistant",
        format="question/answer",
        needs=("question", "answer"),
        licence="Apache-2.0",
        classes=(SetClass("glaive-code", "Code"),),
        notes=("glaive-code-assistant-v3 holds these rows too: take one of the two.",),
    ),
    DataSet(
        "meta-math/MetaMathQA",
        format="query/response",
        needs=("query", "response"),
        licence="MIT",
        classes=(SetClass("metamath", "GPT4 Correct", is_math=True),),
        exclude=(("query=", "rows without a question"),),
    ),
    DataSet(
        "OpenAssistant/oasst_top1_2023-08-25",
        format="ChatML text",
        needs=("text",),
        licence="Apache-2.0",
        classes=(SetClass("oasst", "Human"),),
        notes=("20 languages: `ochat data clean --languages` keeps those that are named.",),
    ),
    DataSet(
        "TIGER-Lab/MathInstruct",
        format="Alpaca instruction/output",
        needs=("source", "instruction", "output"),
        licence="MIT, with parts of other licences",
        classes=(SetClass("mathinstruct", "GPT4 Correct", is_math=True), SetClass("mathinstruct-unchecked", "GPT4")),
        rules=(
            {
                "by": "column",
                "column": "source",
                "classes": {"*camel*": "mathinstruct-unchecked", "*college_math*": "mathinstruct-unchecked"},
                "others": "mathinstruct",
            },
        ),
        exclude=(
            ("source=*camel*", "Camel-Math is CC BY-NC 4.0"),
            ("source=*gsm_rft*", "GSM8K-RFT has no licence"),
            ("source=*TheoremQA*", "TheoremQA's questions are a benchmark"),
        ),
    ),
)


def set_named(name: str) -> DataSet:
    """The set of this id, or of the part of it after the owner, whatever its case. Raises OchatError, naming near ones, for none."""
    names = {known: one for one in SETS for known in (one.id.lower(), one.id.lower().partition("/")[2])}
    if name.lower() in names:
        return names[name.lower()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    told = list(dict.fromkeys(names[one].id for one in near)) or [one.id for one in SETS]
    raise OchatError(f"Unknown --set {name!r}. Did you mean: {', '.join(told)}?")


def set_of(path: Path) -> DataSet | None:
    """The set whose id stands in the path, as a hub id or as folders of a local copy."""
    return next((one for one in SETS if f"/{one.id}/" in f"/{path.as_posix()}/"), None)
