"""The parity gate of a run: before an update, does the engine have the learner's weights?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from rollwright.batching import TokenBatch, segment_of
from rollwright.contracts import Group, Turn
from rollwright.generation import Engine, Sampled, check_parity, measure_parity
from rollwright.learner import Learner
from rollwright.models import causal_lm, facts_of, resolve_precision
from rollwright.training.loop_config import LoopConfig

log = logging.getLogger(__name__)
# The check costs a forward pass of the learner, so a few turns have to do.
NUM_TURNS = 8


def pass_gate(
    groups: Sequence[Group], engine: Engine, learner: Learner, *, dtype: Literal["float32", "bfloat16"]
) -> dict[str, float]:
    """Compare the engine's log-probs of a few turns with the learner's. All ranks call.

    Args:
        dtype: the lower precision of the two sides.

    Returns:
        Metrics; empty where no turn was sampled wholly from the engine's weights of now.

    Raises:
        ParityError: engine and learner disagree.
    """
    chosen = _chosen(groups, version=engine.version)
    # All ranks hold the same groups, so all of them return here or none does: `logprobs` below waits for every rank.
    if not chosen:
        return {}
    # Each turn is a sequence of its own, as log-probs need no whole episodes.
    batch = TokenBatch.of([segment_of(turn, sequence=place) for place, turn in enumerate(chosen)])
    logprobs = [row.tolist() for row in batch.by_turn(learner.logprobs(batch))]
    parity = measure_parity([Sampled.of_turn(turn) for turn in chosen], logprobs)
    # For the message: what one of the two sides may compute otherwise.
    facts = facts_of(causal_lm(learner.policy).config)
    check_parity(parity, dtype=dtype, where=f"at engine version {engine.version}", facts=facts)
    log.info("parity gate passed: %s", parity)
    return {"engine/parity_max": parity.max_difference, "engine/parity_mean": parity.mean_difference}


def _chosen(groups: Sequence[Group], *, version: int) -> list[Turn]:
    """A few turns, spread over all of them; what older weights sampled says nothing about these."""
    played = [u for g in groups for t in g.trajectories if t.learnable for u in t.turns if u.version == version]
    # Where others wrote a part, the engine has no log-probs of it to compare.
    turns = [turn for turn in played if all(turn.policy_mask)]
    # Evenly spaced, as neighbouring turns belong to one episode and look alike.
    return turns[:: max(1, len(turns) // NUM_TURNS)][:NUM_TURNS]


def lower_precision(config: LoopConfig) -> Literal["float32", "bfloat16"]:
    """The one of engine and learner that rounds more."""
    both = {resolve_precision(config.engine.dtype), resolve_precision(config.learner.precision)}
    return "float32" if both == {"float32"} else "bfloat16"
