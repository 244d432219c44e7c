"""The record everything else is a function of: Task, Turn, Trajectory, Group. Plain data, no torch.

A turn and its conventions are in `turn`, messages and pictures in `content`: all of the record is had from here.
Returns are computed when read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, get_args

from rollwright.contracts.choices import require_choice
from rollwright.contracts.turn import (
    ACT,
    FINISHES,
    PRODUCERS,
    ROLES,
    Attachment,
    Finish,
    ImagePart,
    Message,
    Part,
    PlacedReward,
    Producer,
    Role,
    SamplerMask,
    Span,
    TextPart,
    Timings,
    Turn,
    whole,
)

__all__ = [
    "ACT",
    "FINISHES",
    "MAX_REWARD",
    "ORIGINS",
    "PRODUCERS",
    "ROLES",
    "SPLITS",
    "START_KINDS",
    "Attachment",
    "Branch",
    "Finish",
    "Group",
    "ImagePart",
    "Message",
    "Origin",
    "Part",
    "Passed",
    "PlacedReward",
    "Producer",
    "Role",
    "SamplerMask",
    "Score",
    "Shown",
    "Span",
    "Split",
    "Start",
    "StartKind",
    "StopReason",
    "Task",
    "TextPart",
    "Timings",
    "Trajectory",
    "Turn",
    "Way",
    "Waypoint",
    "WorldMark",
    "whole",
]

Split = Literal["train", "validation", "test"]
# Taken from the types, so that a list and its type cannot part.
SPLITS: tuple[Split, ...] = get_args(Split)
Origin = Literal["policy", "scripted", "human", "teacher", "log"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
StartKind = Literal["initial", "snapshot", "guide_prefix", "restart", "failure"]
START_KINDS: tuple[StartKind, ...] = get_args(StartKind)

MAX_REWARD = 1e30
"""Larger rewards would turn into infinity in the learner's float32 sums."""


class StopReason(StrEnum):
    """Why an episode ended. Only the first four may be learned from; the others are faults, never scores."""

    TERMINATED = "terminated"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    TIMEOUT = "timeout"
    ENV_ERROR = "env_error"
    ENGINE_ERROR = "engine_error"
    ABORTED = "aborted"

    @property
    def is_fault(self) -> bool:
        """Whether something of ours broke: such an episode is never scored and never learned from."""
        return self in (StopReason.ENV_ERROR, StopReason.ENGINE_ERROR, StopReason.ABORTED)

    @property
    def is_truncation(self) -> bool:
        """A limit ended the episode, not the task: a critic may bootstrap from the last state."""
        return self in (StopReason.MAX_TURNS, StopReason.MAX_TOKENS, StopReason.TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to be done. Task and seed together fix an episode's start.

    `id` is unique within its world and made `whole`; `params` must be JSON. A task belongs to one split for good.
    """

    id: str
    split: Split
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen dataclass has no other way to change its own field. An id goes into files and hashes as UTF-8.
        object.__setattr__(self, "id", whole(self.id))
        if self.split not in SPLITS:
            raise ValueError(f"task {self.id!r} has split {self.split!r}; expected one of {', '.join(SPLITS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A verifier's or reward model's judgement of one trajectory.

    `value` None means "cannot tell": such a trajectory is dropped and counted, never taken for a 0.
    `parts` explain the value and are placed on the last turn; `turn_parts[i]` on turn i, where given.
    `turn_parts_at[i]` says where inside the action of turn i pieces of its parts lie, where it is not its last token.

    Raises:
        ValueError: the value is not finite, or parts are placed that no `turn_parts` name.
    """

    value: float | None
    verifier: str
    parts: Mapping[str, float] = field(default_factory=dict)
    turn_parts: tuple[Mapping[str, float], ...] | None = None
    turn_parts_at: tuple[tuple[PlacedReward, ...], ...] | None = None
    message: str = ""

    def __post_init__(self) -> None:
        # A NaN would spread from one episode to the advantages of its whole group.
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"verifier {self.verifier!r} gave {self.value}; use None where it cannot tell")
        if self.turn_parts_at is not None and self.turn_parts is None:
            raise ValueError(f"verifier {self.verifier!r} places parts inside actions and gave no turn_parts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where an episode began, and how much lay before it that is no turn of it.

    `initial`: the task's own state. `snapshot`: a state of an earlier episode. `guide_prefix`: where a guide had
    written the first turns, or the first tokens of an answer. `restart`: a step of an earlier attempt, which goes on
    from there. `failure`: a state shortly before an earlier episode failed. `prefix_turns` turns lay before the first
    one, and the first `prefix_tokens` tokens of the first action were given too; `source` is the id of the episode that
    the state came from.

    Raises:
        ValueError: an unknown kind, or a negative length.
    """

    kind: StartKind = "initial"
    prefix_turns: int = 0
    prefix_tokens: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, START_KINDS, what="start kind")
        if min(self.prefix_turns, self.prefix_tokens) < 0:
            raise ValueError(f"a start lies after {self.prefix_turns} turns, {self.prefix_tokens} tokens: 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Where an episode left another one that was forked while it was played.

    The first `turn` turns, and the first `token` ids of the action after them, are those of the episode `parent`, and
    are kept here too: whoever counts them over a tree counts them once.

    Raises:
        ValueError: no parent, or a negative place.
    """

    parent: str
    turn: int
    token: int = 0

    def __post_init__(self) -> None:
        if not self.parent or min(self.turn, self.token) < 0:
            place = f"turn {self.turn}, token {self.token}"
            raise ValueError(f"a branch names its parent and a place in it, got {self.parent!r}, {place}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldMark:
    """Which world an episode was played in, so that figures of unlike worlds are told apart.

    `version` is what the world says of itself, `fingerprint` a hash of its options and tasks (`world_mark`).
    """

    name: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One whole episode. `success` is the task's own verdict, None where it has none.

    `world` is None where nobody said which world it was, `branch` where the episode was forked from no other.
    `next_prompt_ids` is what the policy would have been given next where a limit cut the episode: a critic bootstraps
    from it. Empty where the task ended the episode, or where the prompt no longer fits.

    Raises:
        ValueError: the branch lies behind the last turn.
    """

    id: str
    task: Task
    seed: int
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    success: bool | None = None
    score: Score | None = None
    origin: Origin = "policy"
    policy: str = ""
    # -1 where nobody counts versions of weights: a script, a person, a log.
    version: int = -1
    world: WorldMark | None = None
    start: Start = field(default_factory=Start)
    branch: Branch | None = None
    temperature: float = 1.0
    has_actions: bool = True
    fault: str = ""
    retries: int = 0
    wall_s: float = 0.0
    next_prompt_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.branch is not None and self.branch.turn > len(self.turns):
            place = f"turn {self.branch.turn} of {self.branch.parent}"
            raise ValueError(f"{self.id} branches off at {place} and has {len(self.turns)} turns itself")

    @property
    def rewards(self) -> list[float]:
        """[num_turns] the reward of each turn."""
        return [turn.reward for turn in self.turns]

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of rewards."""
        # fsum rounds once, so that ten rewards of 0.1 make 1.0 and equal episodes have equal returns.
        return math.fsum(self.rewards)

    @property
    def costs(self) -> dict[str, float]:
        """Undiscounted sum of each named cost."""
        # A dict in place of a set: names keep their order, and files of a run do not differ by it.
        names = dict.fromkeys(name for turn in self.turns for name in turn.costs)
        return {name: math.fsum(turn.costs.get(name, 0.0) for turn in self.turns) for name in names}

    @property
    def attempts(self) -> tuple[tuple[Turn, ...], ...]:
        """The turns of each attempt at the task, in the order of their numbers; one where there is one attempt."""
        numbers = sorted({turn.attempt for turn in self.turns})
        return tuple(tuple(turn for turn in self.turns if turn.attempt == number) for number in numbers)

    @property
    def num_action_tokens(self) -> int:
        """Tokens that were acted with, over all turns."""
        return sum(sum(turn.action_mask) for turn in self.turns)

    @property
    def learnable(self) -> bool:
        """False for faults, for episodes without a turn, and where the verifier could not tell."""
        # No score at all is another case: nobody has judged the episode yet.
        undecided = self.score is not None and self.score.value is None
        return not self.stop_reason.is_fault and bool(self.turns) and self.has_actions and not undecided

    @property
    def had_no_room(self) -> bool:
        """The first prompt was too long for the context: nobody acted, so nothing is known about the policy."""
        return self.stop_reason is StopReason.MAX_TOKENS and not self.turns

    def returns_to_go(self, gamma: float) -> list[float]:
        """[num_turns] discounted return from each turn on, one step of `gamma` per turn."""
        result: list[float] = []
        carried = 0.0
        # From the end: each return is the next one, discounted once.
        for reward in reversed(self.rewards):
            carried = reward + gamma * carried
            result.append(carried)
        return result[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a world showed once, before a context cut or framed it."""

    text: str
    goal: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """One turn that lies behind a waypoint: what was shown, the state's fingerprint, and what was answered."""

    shown: Shown
    state_key: str
    action: str
    action_ids: tuple[int, ...]
    finish: Finish = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waypoint:
    """A state in the middle of an earlier episode, and the way to it: another episode can begin there.

    `source` is the id of that episode, `prompt_digest` names the prompt that its policy was given here. `snapshot` is
    None where the world can only be brought here by doing `passed` again. `kind` says why episodes begin here.
    `forced_ids` are the first tokens of the first action, which nobody chooses. `status` is what became of the episode
    `source`: 1 solved, -1 failed, 0 where that is no matter.

    Raises:
        ValueError: an unknown kind or status.
    """

    source: str
    task: Task
    seed: int
    passed: tuple[Passed, ...]
    shown: Shown
    state_key: str
    prompt_digest: str
    snapshot: bytes | None = None
    kind: StartKind = "snapshot"
    forced_ids: tuple[int, ...] = ()
    status: int = 0

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, START_KINDS, what="start kind")
        if self.status not in (-1, 0, 1):
            raise ValueError(f"the status of a start is -1 (failed), 0 or 1 (solved), got {self.status}")

    @property
    def start(self) -> Start:
        """What the record of an episode that begins here says of it."""
        turns, tokens = len(self.passed), len(self.forced_ids)
        return Start(kind=self.kind, prefix_turns=turns, prefix_tokens=tokens, source=self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What an episode was shown before each of its turns; snapshots of some of its states, by number of the turn."""

    shown: tuple[Shown, ...]
    snapshots: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The trajectories of one task and one start state.

    `start` is where they began, None for the task's own initial state. `ways` holds, by trajectory id, what later
    episodes need to begin on the way; it is kept in memory only, and only where it was asked for.
    """

    id: str
    task: Task
    seed: int
    trajectories: tuple[Trajectory, ...]
    start: Waypoint | None = None
    # Snapshots can be megabytes of bytes, which no `repr` and no comparison should go through.
    ways: Mapping[str, Way] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Members are compared with each other by their return, which means something only from one start.
        strangers = [t.id for t in self.trajectories if t.task.id != self.task.id or t.seed != self.seed]
        if strangers:
            raise ValueError(f"group {self.id} of task {self.task.id!r}, seed {self.seed} holds others: {strangers}")

    @property
    def returns(self) -> list[float]:
        """[K] undiscounted returns."""
        return [trajectory.total_reward for trajectory in self.trajectories]

    def with_trajectories(self, trajectories: Sequence[Trajectory]) -> Group:
        """The same group with other members."""
        return replace(self, trajectories=tuple(trajectories))
