"""What a world gave back, checked before any of it becomes part of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rollwright.contracts import (
    MAX_REWARD,
    Attachment,
    EnvironmentFault,
    Observation,
    StepResult,
    as_observation,
    whole,
)


def checked(answer: object) -> StepResult:
    """What `step` gave, if it is what the contract says: nothing else may become a turn, let alone a reward.

    Its observation is text that a tokenizer takes, as with `checked_observation`.

    Raises:
        EnvironmentFault: it is no StepResult, its observation is no text, or a reward is no finite number.
    """
    if not isinstance(answer, StepResult):
        raise EnvironmentFault(f"step() gave {_short(answer)}, expected a StepResult")
    seen = checked_observation(answer.observation)
    try:
        bad = {name: value for name, value in answer.rewards.items() if not math.isfinite(value)}
    except (TypeError, ValueError):
        raise EnvironmentFault(f"step() gave the reward {_short(answer.reward)}, expected numbers") from None
    if bad or any(abs(value) > MAX_REWARD for value in answer.rewards.values()):
        raise EnvironmentFault(f"step() gave the reward {_short(answer.reward)}, expected finite numbers")
    if not _are_costs(answer.costs):
        raise EnvironmentFault(f"step() gave the costs {_short(answer.costs)}, expected named finite numbers")
    return answer if seen == as_observation(answer.observation) else replace(answer, observation=seen)


def _are_costs(costs: object) -> bool:
    """Whether these are named numbers, bounded as rewards are."""
    try:
        return isinstance(costs, Mapping) and all(
            isinstance(name, str) and math.isfinite(value) and abs(value) <= MAX_REWARD for name, value in costs.items()
        )
    except (TypeError, ValueError, OverflowError):
        return False


def checked_observation(answer: object) -> Observation:
    """What the policy is to be shown, made whole (see `whole`).

    Raises:
        EnvironmentFault: it is neither text nor an Observation.
    """
    if isinstance(answer, str) or (isinstance(answer, Observation) and isinstance(answer.text, str)):
        seen = as_observation(answer)
        if not isinstance(seen.attachments, tuple) or not all(isinstance(a, Attachment) for a in seen.attachments):
            raise EnvironmentFault(f"the world attached {_short(seen.attachments)}, expected a tuple of Attachment")
        return replace(seen, text=whole(seen.text), goal=whole(seen.goal))
    raise EnvironmentFault(f"the world showed {_short(answer)}, expected text or an Observation")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]}..."
