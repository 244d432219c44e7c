"""A Gymnasium environment with text observations and text (or few, named) actions as one of our worlds.

Observations must be strings, or be turned into one by `describe`. Actions are strings, or numbers of a Discrete space,
which are then named by `actions`. Text that the action space does not contain, or that the environment declines, is the
policy's slip. Snapshots are by replay: the actions so far are played again and every observation is compared, so an
environment that is not deterministic says so instead of being restored wrongly.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

from rollwright.contracts import (
    ConfigError,
    Environment,
    EnvironmentFault,
    Execution,
    FingerprintKind,
    MissingDependency,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    split_of_seed,
    state_key,
    whole,
)
from rollwright.envs.text.adapters.foreign import SLIP, Declined, may_decline, named_function, sendable, warn_of_raising


class GymnasiumEnvironment:
    """Plays a Gymnasium environment. The episode's seed is handed to its `reset`."""

    def __init__(self, world: GymnasiumWorld, env: Any) -> None:
        self._world, self._env = world, env
        self._seed: int | None = None
        self._actions: list[str] = []
        self._said: list[str] = []
        self._seen, self._raised = "", 0
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        """Reset the foreign environment. Raises ValueError for a seed of another split."""
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        self._begin(seed)
        return Observation(text=self._said[0], goal=self._world.goal)

    def _begin(self, seed: int) -> None:
        # Some environments take no seed beyond a signed 32-bit number.
        found, _ = self._env.reset(seed=seed % 2**31)
        self._seed, self._actions, self._said, self._over = seed, [], [self._world.describe(found)], False
        self._seen, self._raised = self._said[0], 0

    def step(self, action: str) -> StepResult:
        """Take an action; what the other side declines is a slip. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        # Before it is tried: a slip uses up a turn, and a replay must repeat it.
        self._actions.append(action)
        cut = len(self._actions) >= self._world.max_turns
        try:
            found, reward, terminated, truncated, info = self._act(action)
        except Declined as slip:
            self._said.append(str(slip))
            self._raised += slip.raised
            self._over = cut
            if cut:
                warn_of_raising(self._world.name, self._raised, len(self._actions))
            return StepResult(observation=self._said[-1], truncated=cut, success=False if cut else None)
        self._seen = self._world.describe(found)
        self._said.append(self._seen)
        # The environment's own end comes first: an episode that ends in its last turn is not cut.
        terminated, cut = bool(terminated), (cut or bool(truncated)) and not terminated
        self._over = terminated or cut
        # Only at the end: a threshold on rewards in between would call progress a success.
        success = self._world.judge(float(reward), terminated, info) if self._over else None
        return StepResult(
            observation=self._said[-1], reward=float(reward), terminated=terminated, truncated=cut, success=success
        )

    def _act(self, action: str) -> Any:
        """What the environment answers.

        Raises:
            Declined: this is no action of the environment. A named action always is one: it cannot be declined.
        """
        # The space is asked first: many environments do not check what they are given.
        move = self._world.translate(sendable(action), self._env.action_space)
        with nullcontext() if self._world.is_named else may_decline():
            return self._env.step(move)

    def fingerprint(self) -> str:
        """Seed and actions fix a deterministic environment; what it looks like inside cannot be seen from here."""
        if self._world.fingerprint_kind == "state":
            # The last observation and the last sentence, which differ after a slip.
            return state_key(self._seen, self._said[-1], str(self._over))
        return state_key(str(self._seed), *self._actions, str(self._over))

    def snapshot(self) -> bytes:
        """Seed and actions, from which the episode is played again."""
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
            # The first difference tells where the environment draws its own chance.
            place = next(i for i, (a, b) in enumerate(zip(self._said, saved["said"], strict=False)) if a != b)
            raise EnvironmentFault(f"replay differs at moment {place}: this environment is not fixed by its seed")

    def close(self) -> None:
        """Close the foreign environment."""
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
        fingerprint_kind: FingerprintKind,
        said: Sequence[str],
    ) -> None:
        self.name, self.instructions, self.goal, self.max_turns = name, instructions, goal, max_turns
        self.describe, self.fingerprint_kind = describe, fingerprint_kind
        self._make, self._actions, self._success_from = make, actions, success_from
        if actions:
            # Set on the instance: a world without names must not look as if it could act at random.
            self.random_action = self._any_name
        if said:  # a small language, all of it known: a tiny model can be made for it
            self.texts = lambda: [instructions, goal, SLIP, *(actions or ()), *said]

    def _any_name(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A named action is always valid. Where actions are text, nobody knows which are: no `random_action` then."""
        return draws.choice(list(self._actions or ()))

    def tasks(self, split: Split) -> list[Task]:
        """The one task of a split."""
        return [Task(id=f"{split}/{self.name}", split=split)]

    def make(self) -> GymnasiumEnvironment:
        """A fresh environment around a fresh foreign one."""
        return GymnasiumEnvironment(self, self._make())

    @property
    def is_named(self) -> bool:
        """Whether actions are names of numbers, in place of free text."""
        return self._actions is not None

    def translate(self, action: str, space: Any) -> Any:
        """What the environment calls the action.

        Raises:
            Declined: it is none of the names, or not in the environment's space of actions.
        """
        # Names are compared without blanks and case, free text exactly.
        move = action if self._actions is None else self._actions.get(action.strip().lower())
        if move is None or not space.contains(move):
            raise Declined(SLIP)
        return move

    def judge(self, reward: float, terminated: bool, info: Mapping[str, Any]) -> bool | None:
        """The verdict at the end: what `info` says of success, else the last reward against `success_from`."""
        # The two spellings in use, the second one that of robotics environments.
        for key in ("success", "is_success"):
            said: Any = info.get(key)
            said = said.item() if hasattr(said, "item") else said  # NumPy has a bool of its own
            if isinstance(said, bool):
                return said
        return None if self._success_from is None else terminated and reward >= self._success_from

    def close(self) -> None:
        """Each environment closes its own."""


def build(
    *,
    env: str | Callable[[], Any],
    env_options: Mapping[str, Any] | None = None,
    actions: Sequence[str] | None = None,
    describe: str | Callable[[Any], str] | None = None,
    success_from: float | None = None,
    instructions: str = "",
    goal: str = "",
    max_turns: int = 50,
    fingerprint: Literal["actions", "observation"] = "actions",
) -> GymnasiumWorld:
    """A world out of a Gymnasium environment.

    Args:
        env: its registered id, `package.module:make`, or a function that makes one.
        env_options: keyword arguments for making it.
        actions: names of the actions of a Discrete space, in its order; None where actions are text.
        describe: observation to text: a text with {} where the observation goes, `package.module:function`, or the
            function itself; None where it is text already.
        success_from: the last reward from which a terminated episode counts as a success; None for no verdict, unless
            the environment's `info` has a `success`.
        instructions: the rules, and what an action looks like. By default the names of the actions.
        goal: what is to be done.
        max_turns: actions before the episode is cut.
        fingerprint: what names a state. "actions": seed and all actions so far, right for any environment, but no state
            is met twice. "observation": the text that is shown; right only where it tells everything that matters.

    Raises:
        ConfigError: the environment's actions need names, have another number of them, or are neither text nor
            Discrete; or `describe` is nothing of the above.
        MissingDependency: gymnasium is not installed.
    """
    if fingerprint not in ("actions", "observation"):
        raise ConfigError(f"fingerprint={fingerprint!r}: expected `actions` or `observation`")
    make, text_of = _maker(env, dict(env_options or {})), _describer(describe)
    # Made once to look at its spaces: a mistake in the options is told at the start.
    made = make()
    named = _names(env, made.action_space, actions)
    said = _descriptions(made.observation_space, text_of) if named else []
    made.close()
    return GymnasiumWorld(
        name=f"gymnasium.{env if isinstance(env, str) else getattr(env, '__name__', 'env')}",
        make=make,
        actions=named,
        describe=text_of,
        success_from=success_from,
        instructions=instructions or (f"Answer with one of: {', '.join(actions)}." if actions else ""),
        goal=goal,
        max_turns=max_turns,
        fingerprint_kind="state" if fingerprint == "observation" else "history",
        said=said,
    )


def _names(env: object, space: Any, actions: Sequence[str] | None) -> dict[str, int] | None:
    """Name -> number of a Discrete space; None for actions that are text."""
    count, first = getattr(space, "n", None), int(getattr(space, "start", 0))
    # By the names of classes, so that gymnasium need not be imported for an environment that a function makes.
    if not {"Discrete", "Text"} & {kind.__name__ for kind in type(space).__mro__}:
        raise ConfigError(
            f"env={env!r} has actions in a space {type(space).__name__}; expected Discrete (with `actions`) or Text"
        )
    if (count is None) != (actions is None) or (actions is not None and len(actions) != count):
        raise ConfigError(
            f"env={env!r} has {'text as' if count is None else count} actions, but `actions` has "
            f"{len(actions or [])} names; expected {'none' if count is None else f'{count}, in the order of the space'}"
        )
    # A Discrete space may begin at another number than 0.
    named = None if actions is None else {name.strip().lower(): first + i for i, name in enumerate(actions)}
    if named is not None and len(named) != len(actions or []):
        raise ConfigError(f"actions={list(actions or [])} has a name twice (case does not count); each needs its own")
    return named


def _descriptions(space: Any, text_of: Callable[[Any], str]) -> list[str]:
    """The texts of all observations, where they are few numbers."""
    count = getattr(space, "n", None)
    if count is None or "start" not in vars(space) or count > 10_000:  # `n` alone could also be a MultiBinary's
        return []
    first = int(getattr(space, "start", 0))
    return [text_of(first + i) for i in range(int(count))]


def _describer(describe: str | Callable[[Any], str] | None) -> Callable[[Any], str]:
    if describe is None:
        return _as_text
    if not isinstance(describe, str):
        return lambda found: whole(describe(found))
    if "{}" in describe:
        # `replace` and no `format`: other braces in the text are meant as they stand.
        return lambda found: whole(describe.replace("{}", str(found)))
    if ":" not in describe:
        raise ConfigError(
            f"describe={describe!r}: expected a text with {{}} where the observation goes, or `package.module:function`"
        )
    function = named_function(describe, "describe")
    return lambda found: whole(function(found))


def _as_text(observation: Any) -> str:
    if not isinstance(observation, str):
        raise ConfigError(
            f"an observation is {type(observation).__name__}, not text: give `describe` to turn it into text, such as "
            '"cell {}" or `package.module:function`'
        )
    return whole(observation)


def _maker(env: str | Callable[[], Any], options: dict[str, Any]) -> Callable[[], Any]:
    if callable(env):
        return lambda: env(**options)
    if ":" in env:
        found = named_function(env, "env")
        return lambda: found(**options)
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency("text.from_gymnasium needs gymnasium: pip install 'rollwright[text]'") from error
    try:
        # Looks the id up without making anything.
        gymnasium.spec(env)
    except gymnasium.error.Error as error:
        raise ConfigError(f"env={env!r} cannot be made: {error}") from error
    return lambda: gymnasium.make(env, **options)
