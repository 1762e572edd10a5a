"""What became of the rows of an import: counted as they come, and told in a few lines."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ochat.conversation import Conversation
from ochat.data.classes import ClassTable, Factors, Match, factor_table
from ochat.data.formats import RowFormat
from ochat.data.import_plan import Exclusion, Plan
from ochat.data.problem import RowProblem, counted, shown

MAX_NAMES = 1000  # of fields that are counted apart: rows that use keys as values would fill the memory
SHOWN_NAMES = 20


class Made(NamedTuple):
    given: Conversation
    row: Conversation | None
    """as one of its class; None where no rule of a table gives it one"""
    match: Match | None = None
    """the class that a table gave it"""


class Imported(NamedTuple):
    format: RowFormat
    conversations: list[Made]
    notes: tuple[str, ...]
    left_out: list[str]


@dataclass
class Counts:
    """What became of the rows."""

    n_read: int = 0
    excluded: Counter[Exclusion] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # conversations by class
    n_capped: int = 0
    n_written: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    first_problem: str = ""
    notes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    n_replaced: int = 0
    n_conditioned: int = 0
    n_unlearned: int = 0
    n_unasked: int = 0
    n_empty: int = 0
    factors: dict[str, Factors] = field(default_factory=dict)  # by class of a table
    rules: Counter[int] = field(default_factory=Counter)  # conversations that each gave a class
    others: Counter[tuple[int, str]] = field(default_factory=Counter)  # values that a rule's column had and didn't list
    n_final: int = 0
    n_unassigned: int = 0
    first_unassigned: str = ""

    def add(self, imported: Imported) -> None:
        self.formats[imported.format.name] += 1
        self.notes.update(imported.notes)
        for name in imported.left_out:
            self.left_out[name if name in self.left_out or len(self.left_out) < MAX_NAMES else "others"] += 1

    def reject(self, place: str, problem: RowProblem) -> None:
        self.rejected[problem.reason] += 1
        self.first_problem = self.first_problem or f"{place}: {problem}"

    def add_match(self, given: Conversation, match: Match | None) -> None:
        if match is None:
            self.n_final += 1
        else:
            self.rules[match.rule] += 1
            if match.other is not None and ((match.rule, match.other) in self.others or len(self.others) < MAX_NAMES):
                self.others[match.rule, match.other] += 1
            self.factors.setdefault(match.class_name, Factors()).add(given)

    def add_unassigned(self, place: str) -> None:
        self.n_unassigned += 1
        self.first_unassigned = self.first_unassigned or place

    def add_conversation(self, given: Conversation, row: Conversation) -> None:
        self.n_written += 1
        self.n_replaced += bool(given.condition) and given.condition != row.condition
        self.n_conditioned += bool(row.condition)
        self.n_unlearned += not any(item.weight for item in row.items)
        self.n_unasked += any(item.role == "user" and not item.content.strip() for item in row.items)
        self.n_empty += any(item.role == "assistant" and not item.content.strip() for item in row.items)


def _line(n: int, one: str, many: str) -> str:
    return counted(n, one, many, width=9)


def _of_them(n: int) -> str:
    return _line(n, "of them has", "of them have")


def class_lines(counts: Counts, table: ClassTable) -> list[str]:
    """The classes with both factors of their weights, and what each rule did."""
    lines = [f"{'class':<16} {'condition':<16} {'rows':>9} {'message weight':>14} x {'class weight':>12} = {'effective':>9}"]
    for name, condition, rows, message, weight, effective in factor_table(counts.factors, table):
        reason = f"   {table.classes[name].reason}" if table.classes[name].reason else ""
        lines.append(f"{name:<16} {condition:<16} {rows:>9,} {message:>14.4g} x {weight:>12.4g} = {effective:>9.4g}{reason}")
    for number, rule in enumerate(table.rules, start=1):
        column = rule.reads()
        hint = "" if counts.rules[number] or column is None else f"; is there a column {column!r}?"
        about = f"column {column!r}" if column else "the conversation"
        lines.append(f"{counts.rules[number]:>9,} by rule {number} ({rule.by}, {about}){hint}")
        others = Counter({value: count for (of_rule, value), count in counts.others.items() if of_rule == number})
        lines += [f"{count:>13,} with another value there: {shown(value)}" for value, count in others.most_common(SHOWN_NAMES)]
    if table.fallback is not None and table.rules:
        lines.append(f"{counts.rules[0]:>9,} by no rule, so of the fallback {table.fallback!r}")
    if counts.n_final:
        lines.append(f"{counts.n_final:>9,} in our format without a class, taken as they are")
    if counts.n_unassigned:
        lines.append(
            f"{counts.n_unassigned:>9,} left out, since no rule gives them a class; the first is {counts.first_unassigned}"
        )
    return lines


def report(counts: Counts, plan: Plan) -> str:
    """What was read, and what became of it."""
    options, table = plan.options, plan.table
    lines = []
    if plan.known:
        lines += [f"{plan.known.id}; licence: {plan.known.licence}", *plan.known.notes]
    lines += [_line(count, f"row of {name}", f"rows of {name}") for name, count in counts.formats.most_common()]
    for one in plan.exclude:
        hint = "" if counts.excluded[one] or plan.known else f"; is there a column {one.column!r}?"
        lines.append(_line(counts.excluded[one], "row", "rows") + f" excluded by {one}{hint}")
    lines += [f"{counts.dropped[name]:>9,} dropped of class {name}" for name in options.drop_class]
    if table:
        lines += class_lines(counts, table)
    if counts.n_written != counts.formats.total():
        lines.append(_line(counts.n_written, "conversation", "conversations") + " made of them")
    if not options.condition and counts.n_conditioned < counts.n_written:
        lines.append(_of_them(counts.n_conditioned) + " a condition; the others teach the bare prompt")
    if counts.n_replaced:
        now = "their class's" if table else repr(options.condition)
        lines.append(f"{counts.n_replaced:>9,} of them had another condition, now {now}")
    if counts.n_unlearned:
        lines.append(_of_them(counts.n_unlearned) + " no message with a weight above 0, so nothing is learned there")
    if counts.n_empty:
        lines.append(_of_them(counts.n_empty) + " an empty answer, which teaches to say nothing")
    if counts.n_unasked:
        lines.append(_of_them(counts.n_unasked) + " an empty question")
    lines += [_line(count, "time", "times") + f": {note}" for note, count in counts.notes.most_common()]
    if counts.left_out:
        names = [f"{shown(name)[1:-1]} ({count:,})" for name, count in counts.left_out.most_common(SHOWN_NAMES)]
        more = f" and {len(counts.left_out) - SHOWN_NAMES:,} more" if len(counts.left_out) > SHOWN_NAMES else ""
        lines.append(f"Fields left out: {', '.join(names)}{more}")
    if options.skip_invalid or plan.exclude:
        excluded = f" + {counts.excluded.total():,} excluded" if plan.exclude else ""
        lines.append(
            f"{_line(counts.n_read, 'row', 'rows')} read = {counts.formats.total():,} kept{excluded} + {counts.rejected.total():,} rejected"
        )
    if options.skip_invalid:
        lines += [f"{count:>9,} rejected: {reason}" for reason, count in counts.rejected.most_common()]
        lines.append(f"Wrote {options.rejects}: each rejected row, its place and its problem")
    n_written = counts.n_written - counts.n_capped
    if counts.n_capped:
        lines.append(f"{counts.n_capped:>9,} left out by the cap: {n_written:,} were drawn of those above, by their prompts")
    if table:
        lines.append(f"Wrote {options.output}: {counted(n_written, 'conversation')} of the classes of {plan.origin}")
        return "\n".join(lines)
    weight = 1.0 if options.weight is None else options.weight
    lines.append(f"Wrote {options.output}: condition {options.condition or 'as given'}, weight {weight:g} times the rows' own")
    return "\n".join(lines)
