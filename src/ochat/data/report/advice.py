"""What to worry about, from what was found: each warning in plain words, with what to do about it.

The limits are ours: where we would look twice. None of them changes or drops a row."""

from collections.abc import Iterator

from ochat.data.licences import is_non_commercial
from ochat.data.problem import counted
from ochat.data.report.findings import Advice, ClassFindings, Findings
from ochat.page import one_line

SMALL_SHARE, LARGE_SHARE, HALF = 0.01, 0.6, 0.5  # of the loss
NOTICED_SHARE = 0.01  # of rows: duplicates, refusals, cut rows
TELLING_AUC = 0.8
FEW_EFFECTIVE = 0.1  # effective rows / rows
MANY_OTHER_LANGUAGES = 0.05


def advice(found: Findings, weight_for_half: float) -> list[Advice]:
    """The warnings, those about the classes first. `weight_for_half`: the sub-optimal classes' weight for half of the loss."""
    return [*_classes(found), *_loss(found, weight_for_half), *_form(found), *_rows(found), *_licences(found)]


def named(name: str) -> str:
    """A class's name in a sentence."""
    return one_line(name) or "(none)"


def percent(share: float) -> str:
    """A share, small ones with a digit more."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _list(names: list[str]) -> str:
    return ", ".join(map(named, names))


def _classes(found: Findings) -> Iterator[Advice]:
    if (unnamed := found.classes.get("")) is not None:
        yield Advice(
            f"{counted(unnamed.rows, 'row has', 'rows have')} neither a class nor a condition; here that is the class (none).",
            "Give one: `ochat data import` with --class and --condition, or with --classes and a table of rules.",
        )
    if found.unknown_classes:
        rows = sum(found.classes[name].rows for name in found.unknown_classes)
        yield Advice(
            f"{counted(rows, 'row is', 'rows are')} of classes that the table lacks: {_list(found.unknown_classes)}.",
            "Add these classes to the table, or mend the rows' `class`.",
        )
    if len(found.classes) == 1:
        yield Advice(
            "All rows are of one class, so there is no contrast that a condition could teach.",
            "Add rows of another quality under a class of their own, or train on these as plain fine-tuning.",
        )
    owners: dict[str, list[str]] = {}
    for name, of_class in found.classes.items():
        for condition in of_class.conditions:
            owners.setdefault(condition, []).append(name)
    for condition, names in owners.items():
        if len(names) > 1:
            shown = f"the condition “{one_line(condition)}”" if condition else "no condition"
            yield Advice(
                f"{_list(names)} are learned under {shown}: the model can't tell them apart, and imitates their mixture.",
                "Give each class a condition of its own, unless that is what you want.",
            )
        elif not condition and len(found.classes) > 1:
            yield Advice(
                f"{named(names[0])} has rows without a condition.",
                "Give the class one with `ochat data import --condition`; a reply can then be asked for under it.",
            )
    if found.default_condition and found.default_condition not in owners and len(found.classes) > 1:
        yield Advice(
            f"No class is learned under “{found.default_condition}”, which the server asks {found.model_type} under by default.",
            f"Import the good class with --condition {found.default_condition!r}, or always ask under a condition of your own.",
        )


def _loss(found: Findings, weight_for_half: float) -> Iterator[Advice]:
    if not found.sub_optimal and len(found.classes) > 1:
        yield Advice(
            "All classes weigh the same, so poor replies teach as much as good ones, token by token.",
            "Import the sub-optimal class with a smaller --weight, such as 0.1; --best NAME shows here what that would change.",
        )
    share = sum(found.classes[name].weights.loss_share for name in found.sub_optimal)
    if share > LARGE_SHARE:
        yield Advice(
            f"{percent(share)} of the loss is of sub-optimal classes ({_list(found.sub_optimal)}): they drive the training.",
            f"A class weight of {weight_for_half:.2g} would bring them to half. More good rows help too.",
        )
    for name, of_class in found.classes.items():
        weights = of_class.weights
        if weights.loss_share < SMALL_SHARE and len(found.classes) > 1:
            yield Advice(
                f"{named(name)} has {weights.loss_share:.2%} of the loss: it teaches next to nothing.",
                "Raise its weight, add rows, or leave the class out.",
            )
        if of_class.rows >= 100 and 0 < weights.effective_rows < FEW_EFFECTIVE * of_class.rows:
            yield Advice(
                f"{named(name)} counts as {counted(round(weights.effective_rows), 'row')}, not {of_class.rows:,}: a few long or heavy ones rule it.",
                "Cut long rows (`ochat data clean --max-length`), level the weights, or train with --per-sequence-loss.",
            )


def _form(found: Findings) -> Iterator[Advice]:
    for name, told in found.told_by_replies.items():
        if told.auc < TELLING_AUC:
            continue
        sign = told.signs[0]
        more = "more" if sign.in_class > sign.in_others else "less"
        yield Advice(
            f"Mere form tells the replies of {named(name)} (AUC {told.auc:.2f}), most of all {sign.name}: "
            f"{sign.in_class:.3g} on average, against {sign.in_others:.3g}. The condition will mean “{more} of that” first.",
            "Look whether that is quality. If not, balance the classes in it: choose rows of like form from each.",
        )
    for name, told in found.told_by_prompts.items():
        if told.auc >= TELLING_AUC:
            yield Advice(
                f"The prompts of {named(name)} alone give it away (AUC {told.auc:.2f}): what was asked and how well it was answered "
                "are mixed up, and the condition may come to mean the kind of question.",
                "Add rows of both classes on the same prompts.",
            )


def _rows(found: Findings) -> Iterator[Advice]:
    rows = found.total("rows")
    if found.exact and found.near:
        across = sum(n for one in (found.exact, found.near) for reason, n in one.by_reason.items() if "another" in reason)
        n = sum(n for one in (found.exact, found.near) for n in one.by_class.values())
        if across:
            yield Advice(
                f"{counted(across, 'row says', 'rows say')} the same, or nearly, as a row of another class: both conditions teach that text.",
                "`ochat data clean` keeps the one with the larger weight.",
            )
        if n - across > NOTICED_SHARE * rows:
            yield Advice(
                f"{counted(n - across, 'row repeats', 'rows repeat')} another of the same class, which so counts more than once.",
                "`ochat data clean` drops them.",
            )
    if found.contamination and found.contamination.rows_by_benchmark:
        by_benchmark = found.contamination.rows_by_benchmark
        names = list(by_benchmark)
        shown = ", ".join(map(one_line, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Advice(
            f"{counted(sum(by_benchmark.values()), 'row holds', 'rows hold')} questions of benchmarks ({shown}): grades on those would measure memory.",
            "`ochat data clean --questions` with the same files drops them.",
        )
    for name, of_class in found.classes.items():
        yield from _of_texts(name, of_class)
    mains = {name: next(iter(one.texts.languages), "") for name, one in found.classes.items() if one.texts}
    if len({language for language in mains.values() if language not in ("", "unsure", "none")}) > 1:
        shown = ", ".join(f"{named(name)} {language}" for name, language in mains.items())
        yield Advice(
            f"The classes are mostly of different languages ({shown}): the condition will mean the language.",
            "Keep one language with `ochat data clean --languages`, or balance them.",
        )
    unlearned = found.total("unlearned_rows")
    if unlearned + found.dropped_rows:
        yield Advice(
            f"{counted(unlearned + found.dropped_rows, 'row has', 'rows have')} nothing to learn: no weight above 0"
            + (", or it was cut off." if found.max_tokens else "."),
            "`ochat data tokenize` leaves them out. If you meant to learn from them, give their replies a weight.",
        )
    if found.cut_rows > NOTICED_SHARE * rows:
        yield Advice(
            f"{counted(found.cut_rows, 'row is', 'rows are')} cut to {found.max_tokens:,} tokens, which loses {found.cut_tokens:,}: the model learns to stop short.",
            "`ochat data clean --max-length` drops, cuts or splits them between turns; or a larger --max-tokens.",
        )


def _of_texts(name: str, of_class: ClassFindings) -> Iterator[Advice]:
    texts = of_class.texts
    if texts is None:
        return
    if texts.refusals > NOTICED_SHARE * of_class.rows:
        yield Advice(
            f"{counted(texts.refusals, 'row')} of {named(name)} ({percent(texts.refusals / of_class.rows)}) {'holds' if texts.refusals == 1 else 'hold'} a refusal.",
            "Look at some with `ochat data clean --steps refusals --show 20`, which drops them too.",
        )
    if texts.empty_replies:
        yield Advice(
            f"{counted(texts.empty_replies, 'row')} of {named(name)} {'has' if texts.empty_replies == 1 else 'have'} an empty reply, which teaches to say nothing.",
            "The step turns of `ochat data clean` takes empty turns out.",
        )
    languages = list(texts.languages.items())
    others = sum(share for language, share in languages[1:] if language not in ("unsure", "none"))
    if others > MANY_OTHER_LANGUAGES:
        shown = ", ".join(f"{language} {percent(share)}" for language, share in languages[:4])
        yield Advice(
            f"{named(name)} has several languages: {shown}.", "If that isn't meant, `ochat data clean --languages` keeps some."
        )


def _licences(found: Findings) -> Iterator[Advice]:
    restricted = [
        f"{named(name)} ({one_line(one.licence)})" for name, one in found.classes.items() if is_non_commercial(one.licence)
    ]
    if restricted:
        yield Advice(
            f"Licences that forbid commercial use: {', '.join(restricted)}.",
            "Keep the model for research, and say so in its card; or leave these rows out.",
        )
