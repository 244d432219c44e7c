"""A Gymnasium environment with text observations and text (or few, named) actions as one of our worlds.

Observations must be strings, or be turned into one by `describe`. Actions are strings, or numbers of a Discrete space,
which are then named by `actions`. Snapshots are by replay: the actions so far are played again and every observation
is compared, so an environment that is not deterministic says so instead of being restored wrongly.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollwright.env import Execution, Observation, SnapshotKind, StepResult, split_of_seed, state_key
from rollwright.errors import ConfigError, EnvironmentFault, MissingDependency
from rollwright.types import Split, Task

SLIP = "That is not one of the actions."


class GymnasiumEnvironment:
    """Plays a Gymnasium environment. The episode's seed is handed to its `reset`."""

    def __init__(self, world: GymnasiumWorld, env: Any) -> None:
        self._world, self._env = world, env
        self._seed: int | None = None
        self._actions: list[str] = []
        self._said: list[str] = []
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._begin(seed)
        return Observation(text=self._said[0], goal=self._world.goal)

    def _begin(self, seed: int) -> None:
        found, _ = self._env.reset(seed=seed % 2**31)
        self._seed, self._actions, self._said, self._over = seed, [], [self._world.describe(found)], False

    def step(self, action: str) -> StepResult:
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        self._actions.append(action)
        cut = len(self._actions) >= self._world.max_turns
        known, move = self._world.translate(action)
        if not known:
            self._said.append(SLIP)
            self._over = cut
            return StepResult(observation=SLIP, truncated=cut, success=False if cut else None)
        found, reward, terminated, truncated, info = self._env.step(move)
        self._said.append(self._world.describe(found))
        cut = (cut or truncated) and not terminated
        self._over = terminated or cut
        success = self._world.judge(float(reward), terminated, info) if self._over else None
        return StepResult(
            observation=self._said[-1], reward=float(reward), terminated=terminated, truncated=cut, success=success
        )

    def fingerprint(self) -> str:
        """Seed and actions fix a deterministic environment; what it looks like inside cannot be seen from here."""
        return state_key(str(self._seed), *self._actions, str(self._over))

    def snapshot(self) -> bytes:
        return json.dumps({"seed": self._seed, "actions": self._actions, "said": self._said}).encode()

    def restore(self, state: bytes) -> None:
        """Play the actions again.

        Raises:
            EnvironmentFault: an observation came out differently: the environment is not deterministic.
        """
        saved = json.loads(state)
        self._begin(saved["seed"])
        for action in saved["actions"]:
            self.step(action)
        if self._said != saved["said"]:
            place = next(i for i, (a, b) in enumerate(zip(self._said, saved["said"], strict=False)) if a != b)
            raise EnvironmentFault(f"replay differs at moment {place}: this environment is not fixed by its seed")

    def close(self) -> None:
        self._env.close()


class GymnasiumWorld:
    """One task a split; the seed draws the start. Build it with `build`."""

    execution: Execution = "thread"
    snapshots: SnapshotKind = "replay"

    def __init__(
        self,
        *,
        name: str,
        make: Callable[[], Any],
        actions: Mapping[str, int] | None,
        describe: Callable[[Any], str],
        success_from: float | None,
        instructions: str,
        goal: str,
        max_turns: int,
    ) -> None:
        self.name, self.instructions, self.goal, self.max_turns = name, instructions, goal, max_turns
        self.describe = describe
        self._make, self._actions, self._success_from = make, actions, success_from

    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=f"{split}/{self.name}", split=split)]

    def make(self) -> GymnasiumEnvironment:
        return GymnasiumEnvironment(self, self._make())

    def translate(self, action: str) -> tuple[bool, Any]:
        """Whether it is an action, and what the environment calls it."""
        if self._actions is None:
            return True, action
        number = self._actions.get(action.strip().lower())
        return number is not None, number

    def judge(self, reward: float, terminated: bool, info: Mapping[str, Any]) -> bool | None:
        """The verdict at the end: what `info` says of success, else the last reward against `success_from`."""
        for key in ("success", "is_success"):
            if isinstance(info.get(key), bool):
                return bool(info[key])
        return None if self._success_from is None else terminated and reward >= self._success_from

    def close(self) -> None:
        """Each environment closes its own."""


def build(
    *,
    env: str | Callable[[], Any],
    env_options: Mapping[str, Any] | None = None,
    actions: Sequence[str] | None = None,
    describe: Callable[[Any], str] | None = None,
    success_from: float | None = None,
    instructions: str = "",
    goal: str = "",
    max_turns: int = 50,
) -> GymnasiumWorld:
    """A world out of a Gymnasium environment.

    Args:
        env: its registered id, `package.module:make`, or a function that makes one.
        env_options: keyword arguments for making it.
        actions: names of the actions 0, 1, ... of a Discrete space; None where actions are text.
        describe: observation to text; None where it is text already.
        success_from: the last reward from which a terminated episode counts as a success; None for no verdict, unless
            the environment's `info` has a `success`.
        instructions: the rules, and what an action looks like. By default the names of the actions.
        goal: what is to be done.
        max_turns: actions before the episode is cut.

    Raises:
        ConfigError: the environment's actions need names, or have another number of them.
        MissingDependency: gymnasium is not installed.
    """
    make = _maker(env, dict(env_options or {}))
    made = make()
    count = getattr(made.action_space, "n", None)
    made.close()
    if (count is None) != (actions is None) or (actions is not None and len(actions) != count):
        raise ConfigError(f"env {env!r} has {count or 'text'} actions, but {len(actions or [])} names were given")
    named = {name.strip().lower(): i for i, name in enumerate(actions)} if actions is not None else None
    return GymnasiumWorld(
        name=f"gymnasium.{env if isinstance(env, str) else getattr(env, '__name__', 'env')}",
        make=make,
        actions=named,
        describe=describe or _as_text,
        success_from=success_from,
        instructions=instructions or (f"Answer with one of: {', '.join(actions)}." if actions else ""),
        goal=goal,
        max_turns=max_turns,
    )


def _as_text(observation: Any) -> str:
    if not isinstance(observation, str):
        raise ConfigError(
            f"an observation is {type(observation).__name__}, not text: give `describe` to turn it into text"
        )
    return observation


def _maker(env: str | Callable[[], Any], options: dict[str, Any]) -> Callable[[], Any]:
    if callable(env):
        return lambda: env(**options)
    if ":" in env:
        module, _, attribute = env.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        return lambda: found(**options)
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency("text.from_gymnasium needs gymnasium: pip install 'rollwright[text]'") from error
    return lambda: gymnasium.make(env, **options)
