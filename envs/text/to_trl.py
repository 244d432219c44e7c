"""Our worlds for TRL's `GRPOTrainer(environment_factory=...)`: a class with `reset`, one tool, and the reward.

    factory = environment_factory(world)
    rows = prompt_rows(world, split="train", count=256)
    GRPOTrainer(model=..., environment_factory=factory, train_dataset=Dataset.from_list(rows), ...)

TRL calls `reset` with the columns of a row, offers `act` to the model as a tool, and asks `get_reward` at the end. What
is said after the end of an episode is an observation like any other and earns nothing. The model and its chat template
must be able to call tools. Tested with TRL 1.16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollwright.env import World, episode_seed
from rollwright.envs.text.blocking import BlockingEnvironment
from rollwright.types import SPLITS, Task

OVER = "The episode is over."


def prompt_rows(world: World, *, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows for TRL's dataset: the instructions as a prompt, a task (in turn) and a seed of the split.

    Raises:
        ValueError: no such split, or it has no task.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; expected one of {', '.join(SPLITS)}")
    tasks = list(world.tasks(split))
    if not tasks:
        raise ValueError(f"{world.name} has no task in {split!r}")
    rules = f"{world.instructions} Call the tool `act` with one action at a time."
    prompt = [{"role": "system", "content": rules.strip()}, {"role": "user", "content": ""}]
    return [
        {
            "prompt": prompt,
            "task": tasks[i % len(tasks)].id,
            "split": split,
            "seed": episode_seed(split, "trl", seed, i),
        }
        for i in range(count)
    ]


def environment_factory(world: World) -> Callable[[], Any]:
    """The class that TRL makes one instance of per rollout. Its public methods are all that TRL looks at."""
    by_name: dict[tuple[str, str], Task] = {(t.split, t.id): t for split in SPLITS for t in world.tasks(split)}

    class WorldTools:
        def __init__(self) -> None:
            self._played = BlockingEnvironment(world)
            self._earned = 0.0
            self._over = True

        def reset(self, *, task: str, split: str, seed: int, **columns: Any) -> str:
            """Begin the episode of this row; other columns, such as the prompt, are not needed."""
            first = self._played.reset(by_name[split, task], int(seed))
            self._earned, self._over = 0.0, False
            return f"{first.goal}\n{first.text}" if first.goal else first.text

        def act(self, action: str) -> str:
            """Take one action in the world and see what happens.

            Args:
                action: The action, as the instructions describe it.

            Returns:
                What is observed after the action.
            """
            if self._over:
                return OVER
            result = self._played.step(str(action))
            self._earned += sum(result.rewards.values())
            self._over = result.terminated or result.truncated
            text = result.observation if isinstance(result.observation, str) else result.observation.text
            return f"{text}\n{OVER}" if self._over else text

        def get_reward(self) -> float:
            return self._earned

    return WorldTools
