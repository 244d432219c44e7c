"""What a step saw of the attempts in its episodes: accuracy, what changed, how much was edited, the KL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from statistics import fmean

import torch
from torch import Tensor

from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts import ConfigError, Group, Turn
from rollwright.maths import attempt_metrics, edit_ratio

log = logging.getLogger(__name__)
RIGHT = 0.5
"""An attempt that earned more than this was right: attempts earn 0 or 1."""


def attempt_numbers(turns: Sequence[Turn]) -> Tensor:
    """[U] the number of each turn's attempt."""
    return torch.tensor([turn.attempt for turn in turns])


def require_reward_per_attempt(groups: Sequence[Group]) -> None:
    """Raises ConfigError where the reward judges episodes as wholes: every first attempt would then seem wrong."""
    for trajectory in (t for group in groups for t in group.trajectories):
        if trajectory.score is not None and trajectory.score.turn_parts is None:
            raise ConfigError(
                f"the reward `{trajectory.score.verifier}` gives one score for the whole episode, and SCoRe compares "
                "what each attempt earned by itself: use reward.name=env, or a reward that gives `turn_parts`"
            )


def observed_attempts(groups: Sequence[Group]) -> dict[str, float]:
    """Accuracy of both attempts, what changed between them, and how much of the text was edited.

    Accuracies count an attempt as right above half a point. Where attempts earn something between 0 and 1 that is said
    once, and their share is `attempts/graded_frac`.
    """
    # An episode that ended with its first attempt has nothing to compare.
    pairs = [(t.turns[0], t.turns[1]) for g in groups for t in g.trajectories if t.learnable and len(t.turns) == 2]
    if not pairs:
        return {}
    found = attempt_metrics([a.reward > RIGHT for a, _ in pairs], [b.reward > RIGHT for _, b in pairs])
    edits = [edit_ratio(a.action_ids, b.action_ids) for a, b in pairs]
    told = {
        "attempts/accuracy_first": found["accuracy_first"],
        "attempts/accuracy_second": found["accuracy_second"],
        "attempts/delta": found["delta"],
        "attempts/wrong_to_right": found["wrong_to_right"],
        "attempts/right_to_wrong": found["right_to_wrong"],
        "attempts/edit_ratio_mean": fmean(edits),
        "attempts/unedited_frac": fmean(edit == 0 for edit in edits),
    }
    graded = fmean(turn.reward not in (0.0, 1.0) for pair in pairs for turn in pair)
    if graded:
        _say_graded()
        told["attempts/graded_frac"] = graded
    return told


def attempt_kl_metrics(batch: TokenBatch, kl: Tensor) -> dict[str, float]:
    """Mean log-ratio to the reference over the first and over the second attempts, in nats per attempt. kl: [U]."""
    attempts = attempt_numbers(batch.turns)
    named = {"attempts/kl_first": kl[attempts == 0], "attempts/kl_second": kl[attempts == 1]}
    return {name: float(values.mean()) for name, values in named.items() if len(values)}


@cache
def _say_graded() -> None:
    log.warning(
        "attempts earn rewards other than 0 and 1: the method goes on with them as they are, but its accuracies count "
        "an attempt as right above %s; see attempts/graded_frac",
        RIGHT,
    )
