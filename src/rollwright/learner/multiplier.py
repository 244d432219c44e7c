"""A limit on what episodes cost: the section `constraint`, and the multiplier that holds it, with its state.

    J_C      mean cost of the last `window` episodes
    lambda   grows while J_C is above `limit`, shrinks while it is below; once per step, before the update
    A        (A_R - lambda A_C) / (1 + lambda)

Source: arXiv:2310.12773 (PPO-Lagrangian of Safe RLHF: window, step in log space, cap).
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from rollwright.config import Config, Readers
from rollwright.contracts import ConfigError, Group, Trajectory, Turn
from rollwright.maths import constrained_advantages, linear_dual_step, log_dual_step

log = logging.getLogger(__name__)

ALL_COSTS = "*"
_FILE = "constraint.json"
ALARM_STEPS = 50
"""So many steps at its cap, and the multiplier is said to hold nothing: the policy is then trained on cost alone."""


class ConstraintSettings(Config):
    """A limit on one named cost of the world. `constraint=NAME` is short for `constraint.cost=NAME`."""

    cost: str = Field(
        "", description="Name of a cost of the world, or * for the sum of all of them; empty = no constraint."
    )
    limit: float = Field(0.0, description="Most that an episode may cost on average: d.")
    dual_step: Literal["log", "linear"] = Field(
        "log", description="Step of the multiplier: on its logarithm (Safe RLHF), or on itself, down to 0."
    )
    initial: float = Field(1.0, ge=0, description="Multiplier lambda at the start.")
    rate: float = Field(0.1, gt=0, description="Step size of the multiplier.")
    floor: float = Field(1e-4, gt=0, description="log: least multiplier, from which it can come back.")
    most: float = Field(5.0, gt=0, description="Largest multiplier.")
    window: int = Field(128, ge=1, description="Number of latest episodes whose mean cost is compared with the limit.")
    delay: int = Field(0, ge=0, description="Number of initial steps that leave the multiplier as it is.")

    shorthand = "cost"
    only_for: ClassVar[Readers] = {"floor": {"dual_step": ("log",)}}

    @model_validator(mode="after")
    def _starts_within(self) -> ConstraintSettings:
        if self.initial > self.most or (self.dual_step == "log" and self.floor > self.most):
            raise ValueError(
                f"`constraint.initial={self.initial:g}` and `constraint.floor={self.floor:g}` lie at or below "
                f"`constraint.most={self.most:g}`"
            )
        return self

    @property
    def on(self) -> bool:
        """Whether there is a constraint at all."""
        return bool(self.cost)


class Multiplier:
    """lambda of one run, a part of its checkpoints. Every rank holds the same one.

    Args:
        writes: whether this process writes checkpoints.
    """

    def __init__(self, settings: ConstraintSettings, *, writes: bool = True) -> None:
        self.settings, self.writes = settings, writes
        self.value = settings.initial
        self._costs: deque[float] = deque(maxlen=settings.window)
        self._steps = self._at_cap = 0

    @property
    def mean_cost(self) -> float | None:
        """J_C of the window; None before the first episode."""
        return math.fsum(self._costs) / len(self._costs) if self._costs else None

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        """Take in a step's episodes and move the multiplier; -> metrics.

        Raises:
            ConfigError: no turn of these episodes has the cost: another name is meant, or another world.
        """
        played = [t for group in groups for t in group.trajectories if not t.stop_reason.is_fault and t.turns]
        self._require_known(played)
        found = [math.fsum(map(self.cost_at, t.turns)) for t in played]
        self._costs.extend(found)
        self._move()
        over = [float(cost > self.settings.limit) for cost in found]
        metrics = {"constraint/multiplier": self.value}
        if found:
            metrics |= {"constraint/cost_mean": math.fsum(found) / len(found)}
            metrics |= {"constraint/over_limit_frac": math.fsum(over) / len(over)}
        return metrics | ({} if self.mean_cost is None else {"constraint/window_cost_mean": self.mean_cost})

    def cost_at(self, turn: Turn) -> float:
        """What a turn costs: the one named cost, or the sum of all."""
        named = self.settings.cost
        return math.fsum(turn.costs.values()) if named == ALL_COSTS else turn.costs.get(named, 0.0)

    def tells_apart(self, group: Group) -> bool:
        """Whether members of a group cost unlike amounts: it teaches something then, even at equal returns."""
        return len({math.fsum(map(self.cost_at, t.turns)) for t in group.trajectories if t.learnable}) > 1

    def mix(self, rewards: Tensor, costs: Tensor) -> Tensor:
        """[N] advantages of reward and of cost -> [N]."""
        return constrained_advantages(rewards, costs, self.value)

    def _move(self) -> None:
        settings = self.settings
        self._steps += 1
        if self.mean_cost is None or self._steps <= settings.delay:
            return
        if settings.dual_step == "log":
            self.value = log_dual_step(
                self.value,
                cost=self.mean_cost,
                limit=settings.limit,
                rate=settings.rate,
                floor=settings.floor,
                most=settings.most,
            )
        else:
            self.value = linear_dual_step(
                self.value, cost=self.mean_cost, limit=settings.limit, rate=settings.rate, most=settings.most
            )
        self._at_cap = self._at_cap + 1 if self.value >= settings.most else 0
        if self._at_cap == ALARM_STEPS:
            log.warning(
                "the multiplier of cost %s has stood at its cap of %g for %d steps, and episodes still cost %.3g on "
                "average (limit %g): no policy that is found keeps the limit. Raise `constraint.limit`, or "
                "`constraint.most` if the reward still rules",
                settings.cost,
                settings.most,
                ALARM_STEPS,
                self.mean_cost,
                settings.limit,
            )

    def _require_known(self, played: Sequence[Trajectory]) -> None:
        names = sorted({name for t in played for turn in t.turns for name in turn.costs})
        known = bool(names) if self.settings.cost == ALL_COSTS else self.settings.cost in names
        if played and not known:
            raise ConfigError(
                f"`constraint.cost={self.settings.cost}`: no turn of {len(played)} episodes has that cost; "
                f"{'they have ' + ', '.join(names) if names else 'this world counts no costs'}. Name one of them, or "
                "use a world that has it (StepResult.costs)"
            )

    def save_state(self, folder: Path) -> None:
        """Write multiplier and window into a checkpoint."""
        if self.writes:
            state = {"value": self.value, "costs": list(self._costs), "steps": self._steps, "at_cap": self._at_cap}
            (folder / _FILE).write_text(json.dumps(state), encoding="utf-8")

    def load_state(self, folder: Path) -> None:
        """The inverse of `save_state`."""
        state = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        self.value, self._steps, self._at_cap = state["value"], state["steps"], state["at_cap"]
        self._costs = deque(state["costs"], maxlen=self.settings.window)
