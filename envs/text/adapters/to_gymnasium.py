"""Our worlds as `gymnasium.Env`: text observations, text actions, one reward."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from rollwright.contracts import ConfigError, MissingDependency, Split, Task, World, as_observation, episode_seed
from rollwright.envs.text.adapters.blocking import BlockingEnvironment

if TYPE_CHECKING:
    import gymnasium

CHARSET = frozenset(string.printable)
"""Printable ASCII, what most worlds say. A world with other letters needs its own `charset`."""


def to_gymnasium(
    world: World, *, split: Split = "train", max_length: int = 8192, charset: frozenset[str] = CHARSET
) -> gymnasium.Env[str, str]:
    """A Gymnasium environment that plays the tasks of one split.

    `reset(seed=n)` plays task n modulo the number of tasks, from a start state of that split fixed by n; without a
    seed it draws n. `options={"task": id}` names the task. The observation is the goal and the state; `info` has the
    task, the named parts of the reward, and the verdict.

    Raises:
        MissingDependency: gymnasium is not installed.
        ConfigError: the split has no task.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency("to_gymnasium needs gymnasium: pip install 'rollwright[text]'") from error
    tasks = list(world.tasks(split))
    if not tasks:
        raise ConfigError(f"{world.name} has no task in {split!r}")
    # Gymnasium's checker refuses observations outside the space, hence the bound on length and letters.
    space = gymnasium.spaces.Text(max_length, charset=charset)

    # Within the function, since the base class is only there where gymnasium is installed.
    class WorldEnv(gymnasium.Env[str, str]):
        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 the base class has it so

        def __init__(self) -> None:
            self.observation_space = self.action_space = space
            self._played = BlockingEnvironment(world)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            # From Gymnasium's own generator, so that a seed given once fixes all later episodes.
            number = int(self.np_random.integers(2**31)) if seed is None else seed
            task = _task_of(tasks, number, (options or {}).get("task"))
            first = self._played.reset(task, episode_seed(split, "gymnasium", number))
            # A Gymnasium observation has one text, so the goal stands before the state.
            text = f"{first.goal}\n{first.text}" if first.goal else first.text
            return text[:max_length], {"task": task.id, "instructions": world.instructions}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            result = self._played.step(action)
            text = as_observation(result.observation).text
            info = {"rewards": result.rewards, "success": result.success, **result.notes}
            # One number, as Gymnasium has it; the parts are in `info`.
            earned = sum(result.rewards.values())
            return text[:max_length], earned, result.terminated, result.truncated, info

        def close(self) -> None:
            self._played.close()

    return WorldEnv()


def _task_of(tasks: list[Task], number: int, name: str | None) -> Task:
    if name is None:
        return tasks[number % len(tasks)]
    found = [task for task in tasks if task.id == name]
    if not found:
        raise ValueError(f"no task is called {name!r}; the first are {', '.join(t.id for t in tasks[:5])}")
    return found[0]
