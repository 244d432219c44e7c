"""From settings to what reads stored episodes: the model to start from, and the prompts that it would be given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rollwright.models import ModelSettings, open_codec, policy_folder
from rollwright.rollout import RolloutSettings, context_factory
from rollwright.training.open_world import WorldSettings, close_world, open_world

if TYPE_CHECKING:
    from rollwright.models import ChatCodec
    from rollwright.rollout import NewContext

_UNLIMITED = 1 << 30


def open_context(
    world: WorldSettings, model: ModelSettings, rollout: RolloutSettings, run_folder: Path
) -> tuple[Path, ChatCodec, NewContext]:
    """The folder of the starting policy, its codec, and what makes the context of one stored episode.

    Nothing is cut: what was cut is cut already, and an episode that no longer fits is left out where it is trained on.
    """
    opened = open_world(world)
    try:
        start = policy_folder(model, opened, run_folder)
        codec = open_codec(start, run_folder)
        uncut = rollout.model_copy(update={"max_observation_tokens": 0})
        return start, codec, context_factory(uncut, codec, opened, context_length=_UNLIMITED)
    finally:
        close_world(opened)
