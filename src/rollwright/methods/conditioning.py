"""Return-conditioned behaviour: each turn is shown how much the episode still earned; acting asks for a return.

    training    return-to-go R_t = r_t + R_{t+1} of every stored turn -> its level -> one line under the observation
    acting      the line of the wanted return, from which every reward that arrives is taken off

The levels are quantiles of the returns-to-go on record, so every level is equally often seen in training.
Sources: arXiv:2106.01345 (Decision Transformer), arXiv:2310.19308 (MBRCSL, whose second half this is).
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rollwright.contracts import (
    DataError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    Trajectory,
    World,
    fingerprint_kind,
    version_of,
)
from rollwright.contracts import as_observation as plain
from rollwright.rollout import NewContext, require_same_prompts, rerender, shown_texts

LEVEL = "{level}"
_DIGITS = 6
"""Returns are compared to so many: added up from the front and from the end they differ in the last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnLevels:
    """Returns-to-go as levels 1 to `count`, and the line that tells the policy which one is wanted.

    edges: [count - 1] ascending; a return at or above the k-th edge has a level above k.
    line: with `{level}` in it, and `{levels}` where it wants to say how many there are.
    """

    edges: tuple[float, ...]
    line: str = "Wanted return: level {level} of {levels}."

    def __post_init__(self) -> None:
        if LEVEL not in self.line or "\n" in self.line:
            raise ValueError(f"the line must be one line with {LEVEL} in it, got {self.line!r}")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must ascend, got {self.edges}")

    @classmethod
    def of(cls, returns_to_go: Sequence[float], *, count: int, **more: Any) -> ReturnLevels:
        """At most `count` levels, each with about as many of these returns.

        Raises:
            DataError: all returns are equal: nothing tells good from bad.
        """
        values = np.asarray(returns_to_go, np.float64)
        if not len(values) or np.ptp(values) == 0:
            raise DataError(
                f"all {len(values)} returns-to-go are {values[0] if len(values) else 'missing'}: conditioning on them "
                "says nothing; collect a mixture of good and bad episodes, or score the store with a reward"
            )
        # Rounded before the levels are cut, as `level` rounds too: otherwise a return could fall beside its own edge.
        values = values.round(_DIGITS)
        # Edges are returns on record. `unique` merges those within a run of equal returns, which leaves fewer levels.
        edges = np.unique(np.sort(values)[np.arange(1, count) * len(values) // count])
        # An edge at the smallest return would leave the level below it empty.
        # Where the smallest return fills the quantiles, the largest alone makes a second level.
        return cls(edges=tuple(float(edge) for edge in edges if edge > values.min()) or (float(values.max()),), **more)

    @property
    def count(self) -> int:
        """How many levels there are."""
        return len(self.edges) + 1

    def level(self, wanted: float) -> int:
        """1 for the lowest returns, `count` for the highest."""
        # To the right of an equal edge: a return on the k-th edge has a level above k.
        return bisect_right(self.edges, round(wanted, _DIGITS)) + 1

    def under(self, text: str, wanted: float) -> str:
        """An observation with the line for this return as its last one."""
        # `replace` and not `format`: the line may hold other braces.
        said = self.line.replace(LEVEL, str(self.level(wanted))).replace("{levels}", str(self.count))
        return f"{text}\n{said}"


def conditioned(trajectory: Trajectory, new_context: NewContext, levels: ReturnLevels) -> Trajectory:
    """The episode as it reads when each turn is shown its own return-to-go.

    The prompts are those that `ReturnTargets` would have led to had just that return been wanted at the start, id by
    id, which holds since R_t - r_t = R_{t+1}.

    Raises:
        DataError: the context does not reproduce the stored prompts (another tokenizer, template or setting).
    """
    require_same_prompts(trajectory, new_context)
    pairs = zip(shown_texts(trajectory), trajectory.returns_to_go(1.0), strict=True)
    texts = [levels.under(text, to_go) for text, to_go in pairs]
    # The stored prompt after a cut lacks the line of the return, so it no longer belongs to this episode.
    return replace(trajectory, turns=rerender(trajectory, new_context, texts=texts), next_prompt_ids=())


class TargetedEnvironment:
    """An environment whose observations end with the return that is still wanted."""

    def __init__(self, inner: Environment, targets: ReturnTargets) -> None:
        self.inner, self.targets = inner, targets
        self.wanted = targets.target

    def reset(self, task: Task, seed: int) -> Any:
        """Begin the episode, with the target in its first observation."""
        # One environment plays many episodes, and each takes its rewards off the target.
        self.wanted = self.targets.target
        # The methods of a world may be coroutines or not, which `_then` takes care of.
        return _then(self.inner.reset(task, seed), self._shown)

    def step(self, action: str) -> Any:
        """Act, with what is left of the target in the next observation."""
        return _then(self.inner.step(action), self._stepped)

    def _stepped(self, result: StepResult) -> StepResult:
        self.wanted -= sum(result.rewards.values())
        return replace(result, observation=self._shown(result.observation))

    def _shown(self, observation: Observation | str) -> Observation:
        seen = plain(observation)
        # The text is cut first: a context that cuts the end would take the line with it.
        return replace(seen, text=self.targets.levels.under(self.targets.shorten(seen.text), self.wanted))

    def fingerprint(self) -> Any:
        """The world's own fingerprint."""
        # The same state with another return wanted is another state to the policy.
        return _then(self.inner.fingerprint(), lambda key: f"{key}/{self.targets.levels.level(self.wanted)}")

    def close(self) -> Awaitable[None] | None:
        """Close the world's environment."""
        return self.inner.close()


class ReturnTargets:
    """A world in which a return is asked for. Wrap the world that is to be played; it is closed with this one.

    Args:
        target: wanted at the start of every episode.
        shorten: cuts an observation before the line is put under it, as the context would have done without the line.
    """

    # An inner snapshot does not hold what is still wanted, so none are offered.
    snapshots: SnapshotKind = "none"

    def __init__(
        self, world: World, levels: ReturnLevels, target: float, *, shorten: Callable[[str], str] = lambda text: text
    ) -> None:
        self.inner, self.levels, self.target, self.shorten = world, levels, target, shorten
        self.name, self.instructions = world.name, world.instructions
        self.max_turns = world.max_turns
        self.execution: Execution = world.execution
        self.fingerprint_kind = fingerprint_kind(world)
        self.version = version_of(world)

    def tasks(self, split: Split) -> Sequence[Task]:
        """The world's own tasks."""
        return self.inner.tasks(split)

    def make(self) -> Any:
        """An environment of the inner world, with the line."""
        return _then(self.inner.make(), lambda env: TargetedEnvironment(env, self))

    def close(self) -> Awaitable[None] | None:
        """Close the world."""
        return self.inner.close()


def _then(value: Any, change: Callable[[Any], Any]) -> Any:
    """`change(value)`, now or once the value is there."""
    # A coroutine is handed on and not awaited here, so that this function serves both kinds of worlds.
    if not inspect.isawaitable(value):
        return change(value)

    async def later() -> Any:
        return change(await value)

    return later()
