"""The language of the sites, sampled: what teachers see and do over some seeds of every task."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rollwright.contracts import SPLITS, as_observation, episode_seed

if TYPE_CHECKING:
    from .world import SitesWorld

_EPISODES = 40
_MOST_WORDS = 700
_WORD = re.compile(r" ?\w+| ?[^\w\s]|\s")


def texts(world: SitesWorld) -> list[str]:
    """The frequent words of a sample of episodes, as one text; rarer ones are spelled letter by letter."""
    counts: Counter[str] = Counter(_WORD.findall(world.instructions))
    for split in SPLITS:
        for task in world.tasks(split):
            for number in range(_EPISODES):
                counts.update(word for text in _episode(world, task.id, number) for word in _WORD.findall(text))
    for number in range(100):
        counts[f" {number}"] += 1_000_000  # the numbers of lines: every action needs one
    words = [word for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    return words[:_MOST_WORDS]


def _episode(world: SitesWorld, name: str, number: int) -> list[str]:
    task = next(task for split in SPLITS for task in world.tasks(split) if task.id == name)
    env, teacher = world.make(), world.teacher(task)
    observation = as_observation(env.reset(task, episode_seed(task.split, "language", name, number)))  # type: ignore[arg-type]
    said = [observation.goal, observation.text]
    for _ in range(world.max_turns):
        action = str(teacher.act(env, observation))
        result = env.step(action)
        observation = as_observation(result.observation)  # type: ignore[union-attr]
        said += [action, observation.text]
        if result.terminated or result.truncated:  # type: ignore[union-attr]
            break
    env.close()
    return said
