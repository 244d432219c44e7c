"""Stored successes that a phase of training learns from again, told apart by the policy that the phase began with.

While its reference stands still, a phase replays the same turns: those of successes stored before it began whose
actions the reference finds neither certain nor surprising. Sources: arXiv:2411.02337.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from rollwright.batching import TokenBatch
from rollwright.critics.replay_updates import stored_batch
from rollwright.learner import FixedPolicy
from rollwright.store import replay
from rollwright.store.replay import ReplaySettings


class SuccessReplaySettings(ReplaySettings):
    """Which old successes are learned from again."""

    # In the paper's words a perplexity in [1/0.95, 1/0.5).
    low: float = Field(
        0.5, ge=0, le=1, description="Lower bound of a replayed turn's mean token probability under the reference."
    )
    high: float = Field(0.95, ge=0, le=1, description="Upper bound of that probability.")
    # At most twice the current phase's turns, as in WebRL.
    ratio: float = Field(2.0, ge=0, description="Maximum number of replayed turns per new turn; 0 = no replay.")
    one_per_task: bool = Field(False, description="Keep only the latest success of each task.")

    @model_validator(mode="after")
    def _the_band_holds_something(self) -> SuccessReplaySettings:
        if self.ratio and self.low >= self.high:
            raise ValueError(
                f"no turn lies above `replay.low={self.low}` and at most at `replay.high={self.high}`; without replay, "
                "set `replay.ratio=0`"
            )
        return self


class SuccessReplay:
    """The turns that the phase of now may replay; a part of checkpoints.

    Args:
        table: the run's own episodes and further stores.
        reference: renewed when a phase begins, and itself a part of checkpoints.
        name: of its file in a checkpoint.
    """

    def __init__(
        self, table: replay.TurnTable, reference: FixedPolicy, settings: SuccessReplaySettings, *, name: str = "phase"
    ) -> None:
        self.table, self.reference, self.settings, self.name = table, reference, settings, name
        self._eligible: np.ndarray | None = None
        self._stored = 0  # trajectories before the phase

    def begin(self) -> None:
        """A phase begins: the policy of now becomes the reference, what is stored by now may be replayed."""
        # First, so that all that was stored before the phase counts as old.
        self.table.refresh()
        self._stored, self._eligible = len(self.table.trajectories), None
        self.reference.renew()

    def draw(
        self, valid: np.ndarray, labels: np.ndarray, *, num_current: int, draws: np.random.Generator
    ) -> np.ndarray:
        """Turns to replay beside `num_current` new ones.

        Args:
            valid: [n] all turns that may be learned from.
            labels: [S] 0/1 outcome of every trajectory of the table.
        """
        # Once per phase: scoring costs a forward pass, and while the reference stands still nothing changes.
        if self._eligible is None:
            self._eligible = self._in_band(valid, labels)
        return replay.cap_relative(self._eligible, num_current=num_current, ratio=self.settings.ratio, rng=draws)

    @property
    def num_eligible(self) -> int:
        """Turns that may be replayed; 0 before the first `draw` of a phase."""
        return 0 if self._eligible is None else len(self._eligible)

    def _in_band(self, valid: np.ndarray, labels: np.ndarray) -> np.ndarray:
        # The table appends, so the trajectories of before the phase have the first numbers.
        old = np.flatnonzero(labels[: self._stored] == 1)
        if self.settings.one_per_task:
            old = replay.latest_per_task(self.table, among=old)
        turns = replay.keep_trajectories(self.table, old, among=valid)
        # Nothing would be drawn, so nothing is scored.
        if not len(turns) or not self.settings.ratio:
            return turns[:0]
        mean = mean_logprobs(self.reference, self.table, turns)
        return replay.in_perplexity_band(turns, mean, low=self.settings.low, high=self.settings.high)

    def save_state(self, folder: Path) -> None:
        """Where the phase began."""
        if self.reference.learner.ranks.first:
            (folder / f"{self.name}.json").write_text(json.dumps({"first": self._stored}), encoding="utf-8")

    def load_state(self, folder: Path) -> None:
        """The replayed turns are found again: by the same reference, among the same trajectories."""
        self._stored = int(json.loads((folder / f"{self.name}.json").read_text(encoding="utf-8"))["first"])


class Scores(Protocol):
    """A policy that can score actions: the learner's, or a fixed one."""

    def logprobs(self, batch: TokenBatch) -> Tensor:
        """[N] of the batch's tokens."""


def mean_logprobs(policy: Scores, table: replay.TurnTable, turns: np.ndarray) -> np.ndarray:
    """[n] mean log-prob of each turn's chosen action tokens under this policy: minus the log of its perplexity."""
    # Weights play no part in scoring.
    batch = stored_batch(table.transitions(turns), [0.0] * len(turns))
    return np.array([float(row.mean()) for row in batch.by_turn(policy.logprobs(batch))])
