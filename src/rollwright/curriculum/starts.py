"""Where episodes begin: at the task's own initial state, or where an earlier episode passed by.

    place(groups of a step):  while step < `steps`:  with probability `frac` a group begins at a state of its kind
    learn(groups):            what was played leaves states for later groups, where the kind keeps some

`starts.name` chooses the kind: `snapshots` of the best episodes, a `guide_prefix`, own `failures`, or `restarts` behind
own solved and failed episodes (`start_states`, `guide_starts`). All members of a group share the start, so that group
baselines stay valid. An episode that does not begin at an initial state may be cut after `max_turns` turns (student
trajectory truncation): a truncation, without a verdict. Evaluation never sees any of this.

Sources: arXiv:2403.00673 (SnapshotRL, S3RL), arXiv:2306.11816 (RLGF), arXiv:2502.02508 (Satori).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rollwright.contracts import Group, RunFolderError, Task, Waypoint, WorldMark
from rollwright.curriculum.curriculum_settings import StartSettings
from rollwright.curriculum.guide_starts import GuidePrefixes, PlayGuide
from rollwright.curriculum.samplers import draws_of
from rollwright.curriculum.start_states import (
    FAILED,
    SOLVED,
    FailureStates,
    RestartStates,
    SnapshotStates,
    StartStates,
)
from rollwright.rollout import GroupRequest

_FILE = "starts.json"
KIND_OF: Mapping[str, str] = {
    "snapshots": "snapshot",
    "guide_prefix": "guide_prefix",
    "failures": "failure",
    "restarts": "restart",
}
"""What `starts.name` asks for -> what the record of an episode says (`Start.kind`)."""


class StartPool:
    """The start states of a run. Made by `Training` where `starts.name` is not "initial"; a part of its checkpoints.

    Args:
        seed: of the run; draws depend on it, the step, the group and what was learned, on nothing else.
        horizon: H, the turn limit of an episode from its initial state.
        writes: whether this process writes checkpoints; every rank holds the same states.
        mark: the world that is played; states of another one are refused.
    """

    def __init__(
        self,
        settings: StartSettings,
        *,
        seed: int,
        horizon: int,
        writes: bool = True,
        mark: WorldMark | None = None,
    ) -> None:
        self.settings, self.seed, self.horizon, self.writes, self.mark = settings, seed, horizon, writes, mark
        self.states: StartStates | None = None
        self.guide: GuidePrefixes | None = None
        if settings.name == "snapshots":
            self.states = SnapshotStates(settings, horizon=horizon)
        elif settings.name == "failures":
            self.states = FailureStates(settings)
        elif settings.name == "restarts":
            self.states = RestartStates(settings)

    def is_open(self, step: int) -> bool:
        """Whether groups of this step may begin elsewhere than at the initial state, and leave states."""
        return not self.settings.steps or step < self.settings.steps

    def guided_by(self, play: PlayGuide, knows: Callable[[Task], bool]) -> None:
        """Say who plays the prefixes of `guide_prefix`, once the run's parts are there.

        Args:
            knows: whether the guide can play a task; groups of other tasks begin at the initial state.
        """
        backward = self.settings.backward_every
        self.guide = GuidePrefixes(self.settings.frac, seed=self.seed, play=play, knows=knows, backward_every=backward)

    def reflect_by(self, reflections: Sequence[tuple[int, ...]]) -> None:
        """Say what the first action of a restart may begin with, as token ids."""
        if isinstance(self.states, RestartStates):
            self.states.reflections = list(reflections)

    def draw(self, step: int, index: int) -> Waypoint | None:
        """Where group `index` of this step begins; None for the task's own initial state, or where a guide decides."""
        # A generator per group: every rank finds the same start without asking the others.
        rng = draws_of(self.seed, "starts", step, index)
        if self.states is None or not self.is_open(step) or rng.random() >= self.settings.frac:
            return None
        return self.states.draw(rng)

    def place(self, requests: Sequence[GroupRequest], step: int, first: int = 0) -> list[GroupRequest]:
        """The requests as they are, or of the task, seed and state of a start, with the turn limit that holds there.

        Args:
            first: the number of the first of them within the step.
        """
        if not self.is_open(step):
            return list(requests)
        if self.guide is not None:
            found = self.guide.starts(requests, step, first)
        else:
            found = [self.draw(step, first + place) for place in range(len(requests))]
        every = self.states.every if self.states is not None else 0
        return [
            self._placed(replace(request, waypoint_every=every), start)
            for request, start in zip(requests, found, strict=True)
        ]

    def _placed(self, request: GroupRequest, start: Waypoint | None) -> GroupRequest:
        if start is None:
            return request
        limit, cut = self.limit_from(start), self.settings.max_turns > 0
        # All members of a group share the start, its task and its seed, so that group baselines stay valid.
        return replace(request, task=start.task, seed=start.seed, start=start, max_turns=limit, cut=cut)

    def limit_from(self, start: Waypoint) -> int:
        """The turns of an episode that begins there: `starts.max_turns`, or what is left of the whole limit."""
        # At least 1: `Episode.max_turns` reads 0 as no limit of its own. The limit may be lower than it once was.
        return self.settings.max_turns or max(1, self.horizon - len(start.passed))

    def learn(self, groups: Sequence[Group]) -> None:
        """Take in the states of episodes with a way."""
        if self.states is not None:
            self.states.learn(groups)

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Where these groups began, and how both kinds fared: their success is not the same quantity."""
        kind = KIND_OF[self.settings.name]
        begun = [(group, group.start) for group in groups if group.start is not None]
        metrics = {f"starts/{kind}_frac": len(begun) / max(1, len(groups))}
        if self.states is not None:
            metrics["starts/waypoints_count"] = float(self.states.count)
        if self.guide is not None:
            metrics |= self.guide.metrics()
        if begun:
            metrics["starts/prefix_turns_mean"] = float(np.mean([len(start.passed) for _, start in begun]))
        parts: dict[str, list[Group]] = {
            "initial": [group for group in groups if group.start is None],
            kind: [group for group, _ in begun],
        }
        if kind == "restart":
            parts |= {
                "restart_solved": [group for group, start in begun if start.status == SOLVED],
                "restart_failed": [group for group, start in begun if start.status == FAILED],
            }
        for name, part in parts.items():
            if judged := _verdicts(part):
                metrics[f"starts/{name}_success_frac"] = float(np.mean(judged))
        return metrics

    def save_state(self, folder: Path) -> None:
        """Write everything that draws depend on into a checkpoint."""
        # All ranks hold the same states and share one checkpoint folder: one file is enough.
        if self.writes:
            mark = asdict(self.mark) if self.mark else None
            saved = {"kind": self.settings.name, "world": mark, "rows": self.states.rows() if self.states else []}
            (folder / _FILE).write_text(json.dumps(saved), encoding="utf-8")

    def load_state(self, folder: Path) -> None:
        """The inverse of `save_state`.

        Raises:
            RunFolderError: the states are of another world, or of another version of it.
        """
        saved = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        # Before there was more than one kind the file held the rows alone.
        rows = saved if isinstance(saved, list) else self._rows_of(saved, folder)
        if self.states is not None:
            self.states.take_rows(rows)

    def _rows_of(self, saved: Mapping[str, Any], folder: Path) -> list[Any]:
        world = saved["world"]
        if world and self.mark and (kept := WorldMark(**world)) != self.mark:
            raise RunFolderError(
                f"the start states in {folder} are of {_named(kept)}, and this run plays {_named(self.mark)}: an "
                "episode that begins at one of them would stand in a state that is no longer the same. Start a new run "
                "(another `run.folder`), or go back to the world that the checkpoint was made with"
            )
        return list(saved["rows"])


def _named(mark: WorldMark) -> str:
    return f"{mark.name} version {mark.version} ({mark.fingerprint})"


def _verdicts(groups: Sequence[Group]) -> list[bool]:
    return [t.success for g in groups for t in g.trajectories if t.learnable and t.success is not None]
