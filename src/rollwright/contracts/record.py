"""The record everything else is a function of: Task, Turn, Trajectory, Group. Plain data, no torch.

Conventions that hold everywhere:
- `action_logprobs[i]` belongs to `action_ids[i]` given `prompt_ids + action_ids[:i]`, natural logarithm, under the
  distribution *actually sampled from* (temperature included).
- A reward lies on the last token of the action that earned it. Returns are computed when read.
- `action_ids` hold what the acting policy chose; a span says where a guide, a dataset or force wrote instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
Origin = Literal["policy", "scripted", "human", "teacher", "log"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
Producer = Literal["policy", "guide", "forced", "dataset"]
PRODUCERS: tuple[Producer, ...] = get_args(Producer)
Finish = Literal["stop", "length"]
FINISHES: tuple[Finish, ...] = get_args(Finish)
StartKind = Literal["initial", "snapshot"]
START_KINDS: tuple[StartKind, ...] = get_args(StartKind)

MAX_REWARD = 1e30
"""Larger rewards would turn into infinity in the learner's float32 sums."""


def whole(text: str) -> str:
    """The text as UTF-8 and every tokenizer can hold it: the border that text from outside passes.

    JSON and JavaScript cut and spell text by UTF-16 units. Two halves of a sign beside each other become the sign, a
    lone half becomes U+FFFD.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


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
        return self in (StopReason.ENV_ERROR, StopReason.ENGINE_ERROR, StopReason.ABORTED)

    @property
    def is_truncation(self) -> bool:
        """A limit ended the episode, not the task: a critic may bootstrap from the last state."""
        return self in (StopReason.MAX_TURNS, StopReason.MAX_TOKENS, StopReason.TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in plain text that is whole (see `whole`), wherever it comes from."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", whole(self.content))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A picture or file that belongs to an observation, named by the hash of its content."""

    sha256: str
    media_type: str
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to be done. Task and seed together fix an episode's start.

    `id` is unique within its world and made `whole`; `params` must be JSON. A task belongs to one split for good.
    """

    id: str
    split: Split
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", whole(self.id))
        if self.split not in SPLITS:
            raise ValueError(f"task {self.id!r} has split {self.split!r}; expected one of {', '.join(SPLITS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens `start` to `end` (exclusive) of an action: the weights they were sampled from, and who wrote them."""

    start: int
    end: int
    version: int
    producer: Producer = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds of one turn."""

    engine_wait_s: float = 0.0
    generate_s: float = 0.0
    env_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action of the policy, and what it earned.

    `observed` holds the messages that were new to the policy in this turn; `prompt_ids` everything it was given.
    `state_key` is the environment's fingerprint of the state *before* the action (GiGPO's anchor, loop detection).
    `text` is all that was said; `acted` what of it the world was given as the action, None where that is the same.
    `values` maps a critic's name to one value per action token. `env_rewards` keep what the environment paid where
    another reward was laid in `rewards`; None where that is the same.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    action_logprobs: tuple[float, ...]
    text: str
    acted: str | None = None
    observed: tuple[Message, ...] = ()
    spans: tuple[Span, ...] = ()
    finish: Finish = "stop"
    rewards: Mapping[str, float] = field(default_factory=dict)
    env_rewards: Mapping[str, float] | None = None
    terminated: bool = False
    truncated: bool = False
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    state_key: str = ""
    attempt: int = 0
    attachments: tuple[Attachment, ...] = ()
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        if len(self.action_ids) != len(self.action_logprobs):
            raise ValueError(f"{len(self.action_ids)} action ids but {len(self.action_logprobs)} log-probs")
        bad = [name for name, value in self.rewards.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(f"reward parts must be finite, got { ({name: self.rewards[name] for name in bad}) }")
        if self.rewards and any(self.rewards.values()) and self.action_ids and not self.action_mask[-1]:
            raise ValueError("a reward lies on a forced token, which no loss ever sees: it would vanish")

    @property
    def action(self) -> str:
        """What the world was given: all that was said, or what came after the thought."""
        return self.text if self.acted is None else self.acted

    @property
    def reward(self) -> float:
        """The sum of the named parts."""
        return math.fsum(self.rewards.values())

    @property
    def paid(self) -> Mapping[str, float]:
        """What the environment itself paid for this turn, whatever reward was laid on it since."""
        return self.rewards if self.env_rewards is None else self.env_rewards

    @property
    def action_mask(self) -> tuple[bool, ...]:
        """[len(action_ids)] false where a token was forced: nobody chose it, so nothing is learned from it."""
        return self._mask_of("policy", "guide", "dataset")

    @property
    def policy_mask(self) -> tuple[bool, ...]:
        """[len(action_ids)] true where the trained policy itself sampled the token; no span given means all of it."""
        return self._mask_of("policy")

    def _mask_of(self, *producers: Producer) -> tuple[bool, ...]:
        if not self.spans:
            return (True,) * len(self.action_ids)
        mask = [False] * len(self.action_ids)
        for span in self.spans:
            if span.producer in producers:
                mask[span.start : span.end] = [True] * (span.end - span.start)
        return tuple(mask)

    @property
    def version(self) -> int:
        """The oldest weight version among the policy's tokens; -1 where no version is known."""
        return min((span.version for span in self.spans if span.producer == "policy"), default=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A verifier's or reward model's judgement of one trajectory.

    `value` None means "cannot tell": such a trajectory is dropped and counted, never taken for a 0.
    `parts` explain the value and are placed on the last turn; `turn_parts[i]` on turn i, where given.
    """

    value: float | None
    verifier: str
    parts: Mapping[str, float] = field(default_factory=dict)
    turn_parts: tuple[Mapping[str, float], ...] | None = None
    message: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"verifier {self.verifier!r} gave {self.value}; use None where it cannot tell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where an episode began: at the task's initial state or from a snapshot after `prefix_turns` turns."""

    kind: StartKind = "initial"
    prefix_turns: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One whole episode. `success` is the task's own verdict, None where it has none.

    `next_prompt_ids` is what the policy would have been given next where a limit cut the episode: a critic bootstraps
    from it. Empty where the task ended the episode, or where the prompt no longer fits.
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
    version: int = -1
    start: Start = field(default_factory=Start)
    temperature: float = 1.0
    has_actions: bool = True
    fault: str = ""
    retries: int = 0
    wall_s: float = 0.0
    next_prompt_ids: tuple[int, ...] = ()

    @property
    def rewards(self) -> list[float]:
        """[num_turns] the reward of each turn."""
        return [turn.reward for turn in self.turns]

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of rewards."""
        return math.fsum(self.rewards)

    @property
    def num_action_tokens(self) -> int:
        return sum(sum(turn.action_mask) for turn in self.turns)

    @property
    def learnable(self) -> bool:
        """False for faults, for episodes without a turn, and where the verifier could not tell."""
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
    None where the world can only be brought here by doing `passed` again.
    """

    source: str
    task: Task
    seed: int
    passed: tuple[Passed, ...]
    shown: Shown
    state_key: str
    prompt_digest: str
    snapshot: bytes | None = None


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
    ways: Mapping[str, Way] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        strangers = [t.id for t in self.trajectories if t.task.id != self.task.id or t.seed != self.seed]
        if strangers:
            raise ValueError(f"group {self.id} of task {self.task.id!r}, seed {self.seed} holds others: {strangers}")

    @property
    def returns(self) -> list[float]:
        """[K] undiscounted returns."""
        return [trajectory.total_reward for trajectory in self.trajectories]

    def with_trajectories(self, trajectories: Sequence[Trajectory]) -> Group:
        return replace(self, trajectories=tuple(trajectories))
