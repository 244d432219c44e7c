"""Stored episodes shown to the context code a second time: with other observations, or with actions they lacked.

A method that changes what the policy reads (a line about the wanted return) or what it did (labels for a log without
actions) must give it in training the very ids that it will be given when it acts. So nothing is patched into stored
ids: the stored messages go through the same context again, and whatever cannot be reproduced is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rollwright.contracts import DataError, Message, Observation, Trajectory, Turn
from rollwright.generation import Generation
from rollwright.rollout.contexts import Context

NewContext = Callable[[], Context]
# As `WindowedContext.messages` writes it.
_DID = "Did: "


def shown_texts(trajectory: Trajectory) -> list[str]:
    """What each turn of the policy was shown, a window's line of earlier actions taken off.

    The goal that stands above an observation stays part of the text.

    Raises:
        DataError: a turn has no observation on record.
    """
    texts = []
    for place, turn in enumerate(trajectory.turns):
        users = [message.content for message in turn.observed if message.role == "user"]
        if not users:
            raise DataError(
                f"turn {place} of trajectory {trajectory.id} has no observation on record (`observed` is empty): what "
                "was seen cannot be read off; store the messages with the episodes"
            )
        # The first turn has no earlier actions: a last line `Did: ...` there is the world's own.
        texts.append(_without_history(users[-1]) if place else users[-1])
    return texts


def _without_history(text: str) -> str:
    """The observation without the last line of a window, which lists earlier actions."""
    head, _, line = text.rpartition("\n")
    return head if line.startswith(_DID) else text


def rerender(
    trajectory: Trajectory,
    new_context: NewContext,
    *,
    texts: Sequence[str] | None = None,
    actions: Sequence[tuple[int, ...]] | None = None,
) -> tuple[Turn, ...]:
    """The turns with the prompts that the context gives for these observations and actions.

    Args:
        new_context: makes the context of one episode (`assembly.context_factory`).
        texts: one observation per turn; None = those on record.
        actions: one action per turn, as ids; None = those on record, log-probs and spans with them.

    Raises:
        DataError: see `shown_texts`. ContextOverflow: a prompt is too long for the context.
    """
    context, turns = new_context(), []
    shown = shown_texts(trajectory) if texts is None else texts
    given: Sequence[tuple[int, ...] | None] = [None] * len(trajectory.turns) if actions is None else actions
    for turn, text, ids in zip(trajectory.turns, shown, given, strict=True):
        # No goal: it stands in the recorded text already and would be shown twice.
        observed: tuple[Message, ...] = context.observe(Observation(text=text))
        # Nobody sampled these ids, so there are no log-probs to keep; the spans of the old ids do not fit.
        acted = turn if ids is None else replace(turn, action_ids=ids, action_logprobs=(0.0,) * len(ids), spans=())
        # Room for this very action, not for the longest: the answer is known.
        prompt = context.prompt_ids(len(acted.action_ids))
        said = context.act(_as_generation(acted))
        turns.append(replace(acted, prompt_ids=prompt, observed=observed, text=said if ids is not None else turn.text))
    return tuple(turns)


def _as_generation(turn: Turn) -> Generation:
    return Generation(
        token_ids=turn.action_ids, logprobs=turn.action_logprobs, finish_reason=turn.finish, spans=turn.spans
    )


def require_same_prompts(trajectory: Trajectory, new_context: NewContext) -> None:
    """The context must give exactly the ids that were stored, else what is trained on is not what will be read.

    Raises:
        DataError: it does not.
    """
    for place, (turn, again) in enumerate(zip(trajectory.turns, rerender(trajectory, new_context), strict=True)):
        if turn.prompt_ids != again.prompt_ids:
            raise DataError(
                f"turn {place} of trajectory {trajectory.id} was collected from a prompt of {len(turn.prompt_ids)} "
                f"tokens that this context does not give ({len(again.prompt_ids)} tokens): another tokenizer, chat "
                "template, world.options, rollout.context or rollout.history; set them as the collection had them"
            )
