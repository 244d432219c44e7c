"""A scripted teacher as a distribution: what it would have written at each state that a policy met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rollwright.contracts import ConfigError, Taught, Trajectory, World, as_observation
from rollwright.models import ChatCodec


def script_logprobs(
    world: World, trajectories: Sequence[Trajectory], codec: ChatCodec, *, sureness: float, vocabulary: int
) -> dict[str, list[tuple[float, ...]]]:
    """Id of each trajectory -> log-probs of its turns' tokens by the world's scripted teacher, smoothed.

    Every episode is played again in an environment of its own, and the script is asked before each action. Its own
    token has the probability `sureness`, the others of the `vocabulary` share the rest. After a token that is not the
    script's, what it would have written is not known: NaN.

    Raises:
        ConfigError: a task without a teacher.
    """
    found = {}
    own, other = math.log(sureness), math.log((1 - sureness) / (vocabulary - 1))
    for trajectory in trajectories:
        asked = world.teacher(trajectory.task) if isinstance(world, Taught) else None
        if asked is None:
            raise ConfigError(f"task {trajectory.task.id!r} of {world.name} has no teacher for distill.teacher=script")
        # Inline worlds give plain values: `require_teachable` lets no others in.
        env: Any = world.make()
        observation = as_observation(env.reset(trajectory.task, trajectory.seed))
        scores = []
        try:
            for turn in trajectory.turns:
                said: Any = asked.act(env, observation)
                scores.append(_smoothed(turn.action_ids, codec.encode_action(said), own, other))
                step = env.step(turn.action)
                if turn is not trajectory.turns[-1]:
                    observation = as_observation(step.observation)
        finally:
            env.close()
        found[trajectory.id] = scores
    return found


def _smoothed(said: Sequence[int], script: Sequence[int], own: float, other: float) -> tuple[float, ...]:
    scores, along = [], True
    for place, token in enumerate(said):
        along = along and place < len(script)
        scores.append((own if token == script[place] else other) if along else math.nan)
        along = along and token == script[place]
    return tuple(scores)
