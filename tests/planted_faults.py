"""Faults on the way of C-RLFT, for tests that have to see them: what a process of an experiment calls first, with the fault in it.

Those processes begin by themselves (`spawn`), so a patch of the test's own process wouldn't reach them; what they call first is named
to them, and they find it here."""

from ochat import template
from ochat.conversation import Message
from ochat.experiment import ablation


def begin_without_conditions(parent: int) -> None:
    """Lose the condition between a row and its prompt, in training and when asked."""

    def no_condition(self: template.ConversationTemplate, condition: str, inference: bool) -> str:
        return ""

    template.ConversationTemplate._condition_at = no_condition  # type: ignore[method-assign]  # the fault
    ablation._begin(parent)


def begin_without_weights(parent: int) -> None:
    """Lose the weight between a row and its loss: what is learned at all weighs 1."""

    def one_weight(item: Message) -> float:
        return 1.0 if item.weight else 0.0

    template._training_weight = one_weight
    ablation._begin(parent)
