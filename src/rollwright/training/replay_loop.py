"""The loop of every method that learns from stored turns: collect, remember, draw, fit, update, sync, finish.

A recipe says what it draws, what its critics are fitted to and how its policy is updated; all else is here. The stored
turns may come in three phases (WSRL), which say what a step collects, learns from, and may change:

    offline    steps 0 to offline_steps - 1: nothing is collected, the stores are learned from
    warm-up    the policy as it stands collects into the run's own buffer, and nothing is updated,
               until more than max(warmup_turns, batch size) turns lie there besides the newest
    online     collect and update; with `retain: false` the buffer holds the warm-up's and the online turns alone

Learner, critics and optimisers live through all three, moments included. What offline data buys after the switch is
mainly protection from targets that are wrong where the policy now goes; turns of the policy's own buy the same.

Sources: arXiv:2412.07762 (WSRL), arXiv:2302.02948 (RLPD: half of each batch from the stores).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rollwright.contracts import ConfigError, Group
from rollwright.models import ChatCodec
from rollwright.store import TrajectoryStore, data_checks
from rollwright.store.replay import OnlineReplaySettings, Transition, TurnTable, valid_turns
from rollwright.training.loop import Training

Array = NDArray[Any]
Metrics = dict[str, float]


class ReplayMethod:
    """One method, in the verbs of a step. A recipe overrides those that its paper has.

    Attributes:
        phases: of the stored turns, where the method has them: they say when it collects and when it may learn.
        draws: of this step, fixed by the run's seed and the step, so that a resumed run draws the same.
        policy_moves: false where the policy stands still and a critic acts with it: nothing is handed to the engine.
    """

    phases: ReplayPhases | None = None
    draws: np.random.Generator
    policy_moves: ClassVar[bool] = True

    def begin(self, step: int) -> bool:
        """Enter a step. -> whether it collects episodes."""
        return self.phases is None or self.phases.begin(step)

    def may_learn(self, groups: Sequence[Group]) -> bool:
        """The step's episodes are stored. -> whether anything may change in it."""
        return self.phases is None or self.phases.may_update()

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """Choose what this step learns from."""

    def fit(self) -> Metrics:
        """Fit the critics."""
        return {}

    def update(self) -> Metrics:
        """Update the policy."""
        return {}

    def metrics(self) -> Metrics:
        """What is logged of every step, whether it learned or not."""
        return {} if self.phases is None else self.phases.metrics()


class PhasedMethod(ReplayMethod):
    """A method whose stored turns come in the phases of WSRL.

    Attributes:
        turns: numbers of the turns of `table` that this step may draw.
        offline_frac: share of a draw that comes from the stores; None = whatever their numbers make of it.
    """

    phases: ReplayPhases
    turns: Array
    offline_frac: float | None = None

    @property
    def table(self) -> TurnTable:
        """What this step learns from."""
        return self.phases.table

    def sample(self, size: int) -> list[Transition]:
        """Turns of any age, with replacement; none where there is none, as the first steps may bring none."""
        if not len(self.turns):
            return []
        places = self.phases.draw(self.draws, self.turns, size, offline_frac=self.offline_frac)
        return self.table.transitions(places)


def replay_loop(run: Training, method: ReplayMethod) -> None:
    """All steps of a run."""
    for step in run.steps():
        groups = run.score(run.collect(step)) if method.begin(step) else []
        # Before anything is drawn: methods read this step's episodes from the store like all others.
        run.remember(step, groups)
        metrics: Metrics = {}
        if method.may_learn(groups):
            # Drawing and fitting count as the learner's time.
            with run.learning():
                metrics = learn_from_stored(method, step, groups, seed=run.config.run.seed)
            if method.policy_moves:
                run.sync()
        run.finish(step, groups, metrics | method.metrics())


def learn_from_stored(method: ReplayMethod, step: int, groups: Sequence[Group], *, seed: int) -> Metrics:
    """What a step learns from what is stored; the critics first, as the policy's update reads them."""
    method.draws = np.random.default_rng([seed, step])
    method.draw(step, groups)
    metrics = method.fit()
    return metrics | method.update()


class ReplayPhases:
    """The phases of one run, read off its store: a resumed run stands in the phase it was in.

    Args:
        store: the run's own, which grows.
        batch_size: turns of one critic step; the warm-up is at least as long where there is one.

    Attributes:
        own: the turns that this run collected.

    Raises:
        ConfigError: stores are named that no step would learn from.
    """

    def __init__(
        self, settings: OnlineReplaySettings, store: TrajectoryStore, *, offline_steps: int, batch_size: int
    ) -> None:
        if settings.stores and not settings.retain and not offline_steps:
            raise ConfigError(
                "replay.retain=false forgets replay.stores after the offline steps, and there are none: set "
                "algorithm.offline_steps, or leave replay.stores empty"
            )
        self.settings, self.offline_steps, self.batch_size = settings, offline_steps, batch_size
        self.own = TurnTable(store, may_be_empty=True)
        # The run's own store comes last, and `draw` tells own turns by that place.
        everything = TurnTable(*settings.stores, store, may_be_empty=True) if settings.stores else self.own
        self._everything: TurnTable | None = everything
        self._step = 0

    @property
    def table(self) -> TurnTable:
        """What the current step learns from."""
        return self.own if self._everything is None else self._everything

    def require_usable(self, codec: ChatCodec, policy: nn.Module, outcomes: Callable[[], Array] | None = None) -> None:
        """The stores must be this model's, and where steps learn from nothing else, tell good episodes from bad ones.

        Args:
            outcomes: -> [S] what the trajectories of the table are judged by; None = by their return.

        Raises:
            DataError: they are not, or do not.
        """
        data_checks.require_own_tokens(self.settings.stores, self.table, codec, policy)
        if self.offline_steps:
            data_checks.require_outcomes(self.table, valid_turns(self.table), outcomes() if outcomes else None)

    def begin(self, step: int) -> bool:
        """Enter a step; whether it collects. Offline data is let go of where the first online step begins."""
        self._step = step
        if step >= self.offline_steps and not self.settings.retain:
            # `table` is the run's own turns from here on.
            self._everything = None
        return step >= self.offline_steps

    def may_update(self) -> bool:
        """Take in what was collected; whether this step may change anything."""
        # Without stores the two are one table, and the second call finds nothing new.
        self.own.refresh()
        self.table.refresh()
        if self._step < self.offline_steps:
            return True
        return is_warm(len(valid_turns(self.own)), self.settings.warmup_turns, self.batch_size)

    def draw(self, draws: np.random.Generator, turns: Array, size: int, *, offline_frac: float | None = None) -> Array:
        """[size] of these turns of the table, with replacement.

        Args:
            offline_frac: share that comes from the stores (RLPD has a half), rounded down, as long as both kinds are
                among the turns; None = whatever their numbers make of it.
        """
        if offline_frac is None or self._everything is None:
            return draws.choice(turns, size)
        # [n] whether this run has collected the turn.
        own = self.table.sources[self.table.owners()[turns]] == len(self.table.stores) - 1
        if own.all() or not own.any():
            return draws.choice(turns, size)
        stored = int(size * offline_frac)
        parts = draws.choice(turns[~own], stored), draws.choice(turns[own], size - stored)
        # Mixed, as a caller may cut one draw into many batches and each needs both kinds.
        return draws.permutation(np.concatenate(parts))

    def metrics(self) -> dict[str, float]:
        """What the buffer holds."""
        turns = len(valid_turns(self.table))
        own = len(valid_turns(self.own))
        return {
            "replay/turns_count": float(turns),
            "replay/offline_frac": (turns - own) / max(1, turns),
            "replay/warmup_frac": min(1.0, own / self.settings.warmup_turns) if self.settings.warmup_turns else 1.0,
        }


def is_warm(num_turns: int, warmup_turns: int, batch_size: int) -> bool:
    """Whether updates may begin with so many turns collected: the newest comes after more than max(K, batch) others.

    Always true without a warm-up.
    """
    return warmup_turns == 0 or num_turns - 1 > max(warmup_turns, batch_size)
