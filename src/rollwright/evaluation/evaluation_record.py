"""What one evaluation found: a row per episode, so that any two evaluations can be paired later."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from rollwright.contracts import DataError, Split, StopReason, Trajectory, split_of_seed
from rollwright.maths import edit_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """One episode. `success` is None where it faulted, where its first prompt left no room for an action, or where the
    task gave no verdict; such rows are never scored. `num_tokens` (sampled) and `wall_s` are None where the record is
    older or foreign. `attempt` numbers the episodes from one start; `attempt_rewards` is what each attempt *within* the
    episode earned, and `attempt_edits` the edit ratio from each to the next (`edit_ratio` of their tokens). Both are
    empty where the world has one attempt. `env_calls` is given where a search called the world beside the episode's own
    turns; `num_tokens` are then those of the whole search."""

    task: str
    seed: int
    attempt: int
    success: bool | None
    total_return: float
    num_turns: int
    stop_reason: StopReason
    trajectory: str = ""
    fault: str = ""
    num_tokens: int | None = None
    wall_s: float | None = field(default=None, compare=False)  # a clock's reading: the same episode took another time
    attempt_rewards: tuple[float, ...] = ()
    attempt_edits: tuple[float, ...] = ()
    env_calls: int | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """What pairs it with the same episode of another evaluation."""
        return self.task, self.seed, self.attempt

    @property
    def is_fault(self) -> bool:
        """Whether the episode broke, so that it says nothing about the policy."""
        return self.stop_reason.is_fault

    @property
    def had_no_room(self) -> bool:
        """The first prompt did not fit into the context: the policy never acted, so it is no failure of its."""
        return self.stop_reason is StopReason.MAX_TOKENS and self.num_turns == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All episodes of one policy version, under one way of sampling, on one split.

    `temperature` 0 is greedy; -1 means that a log of another tool does not state it. `version` -1 means that the policy
    has no weight versions (a script, a teacher). `world`, `world_version` and `world_fingerprint` say where it was
    played (`world_mark`); "" where nobody said. `origin` "foreign" is a log of another tool, whose samples are the
    tasks.
    """

    name: str
    split: Split
    policy: str
    version: int
    temperature: float
    rows: tuple[EpisodeRow, ...]
    sampling: Mapping[str, Any]
    world: str = ""
    world_version: str = ""
    world_fingerprint: str = ""
    origin: Literal["own", "foreign"] = "own"

    @property
    def greedy(self) -> bool:
        """Whether it sampled at temperature 0."""
        return self.temperature == 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order they were first played."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    @property
    def num_attempts(self) -> int:
        """Episodes per start state, at most."""
        # Attempts count from 0; an evaluation without rows has 0 of them.
        return max((row.attempt for row in self.rows), default=-1) + 1

    @property
    def scored(self) -> tuple[EpisodeRow, ...]:
        """The episodes in which the policy acted and nothing faulted."""
        return tuple(row for row in self.rows if not (row.is_fault or row.had_no_room))

    @property
    def faults(self) -> Counter[StopReason]:
        """How many episodes each kind of fault took."""
        return Counter(row.stop_reason for row in self.rows if row.is_fault)

    @property
    def fault_frac(self) -> float:
        """Share of episodes that broke."""
        return sum(self.faults.values()) / max(1, len(self.rows))


def record_evaluation(
    trajectories: Sequence[Trajectory], *, name: str, split: Split, sampling: Mapping[str, Any] | None = None
) -> Evaluation:
    """Turn played episodes into an evaluation. Repeats of a task and seed are numbered as attempts, in order.

    Args:
        name: file name of the record, such as `test-step-000040`.
        split: "validation" to tune by, "test" for the number that is reported.
        sampling: further sampling parameters worth keeping (top-p, action length).

    Raises:
        DataError: no episode; a seed of another split; more than one policy, weight version, temperature or world.
    """
    # The name becomes that of a file in the run folder.
    if not re.fullmatch(r"[\w.-]+", name):
        raise DataError(f"{name!r} cannot name an evaluation: use letters, digits, dot, dash and underscore")
    if not trajectories:
        raise DataError(f"evaluation {name!r} has no episode: give at least one task and one seed")
    # A record under the wrong split could choose a checkpoint by the test starts.
    _check_split(trajectories, split)
    attempts: Counter[tuple[str, int]] = Counter()
    rows = []
    # An episode that ended with its first attempt counts as one of several where others went on.
    several = any(len(trajectory.attempts) > 1 for trajectory in trajectories)
    for trajectory in trajectories:
        start = (trajectory.task.id, trajectory.seed)
        # The players give episodes in the order of the requests, so the numbers are those that were asked for.
        rows.append(_row(trajectory, attempts[start], several=several))
        attempts[start] += 1
    # An episode that broke early may not know its policy or its world; where all broke, they have to do.
    played = [t for t in trajectories if not t.stop_reason.is_fault] or trajectories
    world, world_version, fingerprint = _only("worlds", (_mark_of(trajectory) for trajectory in played), name)
    return Evaluation(
        name=name,
        split=split,
        policy=_only("policies", (t.policy for t in played), name),
        version=_pinned_version(played, name),
        temperature=_only("temperatures", (t.temperature for t in played), name),
        rows=tuple(rows),
        sampling=dict(sampling or {}),
        world=world,
        world_version=world_version,
        world_fingerprint=fingerprint,
    )


def _row(trajectory: Trajectory, attempt: int, *, several: bool) -> EpisodeRow:
    rewards, edits = _by_attempt(trajectory) if several else ((), ())
    return EpisodeRow(
        task=trajectory.task.id,
        seed=trajectory.seed,
        attempt=attempt,
        success=None if trajectory.stop_reason.is_fault or trajectory.had_no_room else trajectory.success,
        total_return=trajectory.total_reward,
        num_turns=len(trajectory.turns),
        stop_reason=trajectory.stop_reason,
        trajectory=trajectory.id,
        fault=trajectory.fault,
        num_tokens=trajectory.num_action_tokens,
        # Fractions of a millisecond are noise, and rows stay short.
        wall_s=round(trajectory.wall_s, 3),
        attempt_rewards=rewards,
        attempt_edits=edits,
    )


def _by_attempt(trajectory: Trajectory) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What each attempt earned, and the edit ratio of its action tokens to those of the one before."""
    rewards = tuple(math.fsum(turn.reward for turn in turns) for turns in trajectory.attempts)
    said = [[token for turn in turns for token in turn.action_ids] for turns in trajectory.attempts]
    return rewards, tuple(round(edit_ratio(one, two), 6) for one, two in pairwise(said))


def _mark_of(trajectory: Trajectory) -> tuple[str, str, str]:
    """Name, version and fingerprint of the world that it was played in."""
    mark = trajectory.world
    return ("", "", "") if mark is None else (mark.name, mark.version, mark.fingerprint)


def _check_split(trajectories: Sequence[Trajectory], split: Split) -> None:
    for trajectory in trajectories:
        found = split_of_seed(trajectory.seed)
        if found != split:
            raise DataError(
                f"seed {trajectory.seed} of task {trajectory.task.id!r} belongs to split {found!r}, but this "
                f"evaluation is of {split!r}: draw its seeds with `held_out_seeds`"
            )


def _pinned_version(trajectories: Iterable[Trajectory], name: str) -> int:
    """The one weight version every token was sampled from."""
    seen: set[int] = set()
    for trajectory in trajectories:
        spans = [span for turn in trajectory.turns for span in turn.spans if span.producer == "policy"]
        # A script's turns have no spans of the policy, and an episode without a turn has none at all.
        seen |= {span.version for span in spans} or {trajectory.version}
    return _only("weight versions", seen, name)


def _only(what: str, values: Iterable[Any], name: str) -> Any:
    # Sorted for the message, which should not differ from run to run.
    found = sorted(set(values))
    if len(found) > 1:
        raise DataError(
            f"evaluation {name!r} mixes {what} {', '.join(map(repr, found))}: its score would belong to none of them. "
            "Hold the weights still while evaluating, or evaluate each apart"
        )
    return found[0]
