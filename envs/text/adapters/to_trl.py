"""Our worlds for TRL's `GRPOTrainer(environment_factory=...)`: a class with `reset`, one tool, and the reward.

    factory = environment_factory(world)
    rows = prompt_rows(world, split="train", count=256)
    tokenizer = tool_tokenizer("runs/sft/policy")
    GRPOTrainer(model=..., processing_class=tokenizer, environment_factory=factory,
                train_dataset=Dataset.from_list(rows), ...)

TRL calls `reset` with the columns of a row, offers `act` to the model as a tool, and asks `get_reward` at the end. What
is said after the end of an episode is an observation like any other and earns nothing. Where the environment breaks,
the reward is None, which TRL leaves out. Tested with TRL 1.16.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from rollwright.contracts import SPLITS, Observation, Task, World, as_observation, episode_seed
from rollwright.envs.text.adapters.blocking import BlockingEnvironment
from rollwright.envs.text.adapters.tool_template import tool_tokenizer

__all__ = ["BROKEN", "OVER", "environment_factory", "prompt_rows", "tool_tokenizer"]

log = logging.getLogger(__name__)
OVER = "The episode is over."
BROKEN = f"The environment broke. {OVER}"
_STARTS = 3  # how often an episode is begun, each time in a fresh environment, before its fault ends the run


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
    # TRL's model acts by tool calls only, which the world's own rules do not know of.
    rules = f"{world.instructions} Call the tool `act` with one action at a time."
    # TRL appends what `reset` returns to the last user message.
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
    # With the split: ids are unique within a split only.
    by_name: dict[tuple[str, str], Task] = {(t.split, t.id): t for split in SPLITS for t in world.tasks(split)}

    class WorldTools:
        def __init__(self) -> None:
            self._played: BlockingEnvironment | None = None
            self._earned: float | None = 0.0
            self._over = True

        def reset(self, *, task: str, split: str, seed: int, **columns: Any) -> str:
            """Begin the episode of this row; other columns, such as the prompt, are not needed."""
            first = self._begin(by_name[split, task], int(seed))
            self._earned, self._over = 0.0, False
            return f"{first.goal}\n{first.text}" if first.goal else first.text

        def _begin(self, task: Task, seed: int) -> Observation:
            # A browser or server may fail once, and a fault here would end TRL's run.
            for left in reversed(range(_STARTS)):
                try:
                    # Kept from episode to episode until it breaks.
                    self._played = self._played or BlockingEnvironment(world)
                    return self._played.reset(task, seed)
                except Exception as error:
                    self._break(error)
                    if not left:
                        raise
            raise AssertionError("the last start returns or raises")

        def _break(self, error: Exception) -> None:
            """An episode that broke is worth nothing that could be compared, and its environment is not used again."""
            log.warning("an episode of %s broke and is left out: %r", world.name, error)
            # None and not 0: the rollout has not failed, it is unknown.
            self._earned, self._over = None, True
            broken, self._played = self._played, None
            if broken is not None:
                try:
                    broken.close()
                except Exception as failed:
                    log.warning("closing a broken environment of %s failed: %r", world.name, failed)

        def act(self, action: str) -> str:
            """Take one action in the world and see what happens.

            Args:
                action: The action, as the instructions describe it.

            Returns:
                What is observed after the action.
            """
            # The model may go on calling the tool; nothing of that may be paid.
            if self._over or self._played is None:
                return OVER
            try:
                result = self._played.step(_as_text(action))
            except Exception as error:  # TRL would take it for the model's mistake and go on
                self._break(error)
                return BROKEN
            self._earned = (self._earned or 0.0) + sum(result.rewards.values())
            self._over = result.terminated or result.truncated
            text = as_observation(result.observation).text
            return f"{text}\n{OVER}" if self._over else text

        def get_reward(self) -> float | None:
            return self._earned

    return WorldTools


def _as_text(argument: object) -> str:
    """What a model's JSON gave as the action. A list or a mapping is none, and the world answers it like any slip."""
    # A number is what a model's JSON makes of an action such as 7.
    return str(argument) if isinstance(argument, str | int | float) else ""
