"""Whether a step taught the policy anything and, if not, why: said at the first such step, and again at the end.

A run can be in order in every part and learn nothing: siblings fare alike, every prompt overflows, a filter lets
nobody pass. No part fails, so no part speaks. So each step is looked at here, for the loops of all recipes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollwright.batching import can_whiten, estimator_needs, members_to_learn_from, policy_return, policy_turns
from rollwright.contracts import ContextOverflow, Group, StopReason, Trajectory
from rollwright.rollout import is_informative
from rollwright.training.loop_config import LoopConfig

log = logging.getLogger(__name__)

TAUGHT = "optim/taught_count"
_PATIENCE = 3  # batches: another draw of tasks may have shorter prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Why a step taught nothing. `kind` counts alike reasons together; a wait is part of the method and no warning."""

    kind: str
    text: str
    wait: bool = False


@dataclass(kw_only=True)
class Lessons:
    """Takes note of every step of one process. Made by `Training`, lives for the run.

    Args:
        speaks: false on every rank but the first.
    """

    config: LoopConfig
    speaks: bool = True
    reasons: Counter[str] = field(default_factory=Counter)
    texts: dict[str, Idle] = field(default_factory=dict)
    steps: int = 0
    batches_without_room: int | None = 0
    """From the first on; None once an episode had room for an action."""

    def take(
        self, step: int, groups: Sequence[Group], metrics: Mapping[str, float], *, signal: bool | None = None
    ) -> dict[str, float]:
        """Look at a step that has ended; a reason that is new is warned of.

        Args:
            groups: all that were played, scored.
            metrics: what the recipe logs of the step.
            signal: whether any action token had an advantage other than 0; None where the recipe did not say.

        Returns:
            `optim/taught_count`: 1, or 0 where the policy (or the critic that acts with it) learned nothing.

        Raises:
            ContextOverflow: no prompt of any batch so far left room for an action, and none is going to.
        """
        self.steps += 1
        self._require_room(groups)
        # A KL inside the rewards gives tokens an advantage that says nothing about the task.
        if signal and _only_kl(self.config, groups):
            signal = False
        if taught(metrics, self.area, signal):
            return {TAUGHT: 1.0}
        idle = reason(self.config, groups, metrics, signal=signal)
        self.reasons[idle.kind] += 1
        # The first of a kind is told at once; `end` counts how often it came back.
        if idle.kind not in self.texts:
            self.texts[idle.kind] = idle
            if self.speaks and not idle.wait:
                log.warning("step %d of %d taught the policy nothing: %s", step + 1, self.config.run.steps, idle.text)
        return {TAUGHT: 0.0}

    def _require_room(self, groups: Sequence[Group]) -> None:
        """Nothing that is learned makes a first prompt shorter: a run whose batches all lack room ends."""
        # A fault says nothing about the length of a prompt.
        played = [t for group in groups for t in group.trajectories if not t.stop_reason.is_fault]
        if not played or self.batches_without_room is None:
            return
        if not all(t.had_no_room for t in played):
            self.batches_without_room = None
            return
        self.batches_without_room += 1
        # A run of fewer steps than that has to be told as well.
        if self.batches_without_room >= min(_PATIENCE, self.config.run.steps):
            raise ContextOverflow(
                f"none of the first {self.batches_without_room} batches held an action: in all {len(played)} episodes "
                f"of the last one, too, the first prompt left no room for `rollout.max_action_tokens="
                f"{self.config.rollout.max_action_tokens}` within `engine.max_context="
                f"{self.config.engine.max_context}`. Raise the second as far as the model's positions allow, lower the "
                "first, or shorten prompts (`rollout.max_observation_tokens`, `world.options`)"
            )

    @property
    def area(self) -> str:
        """Whose gradient tells: the policy's, or the critic's where the policy stands still (ILQL, MC)."""
        return "critic" if "learner.learning_rate" in type(self.config).unread else "optim"

    def end(self) -> None:
        """Say what share of the steps taught nothing, and why."""
        if text := self.summary():
            log.warning("%s", text)

    def summary(self) -> str:
        """One paragraph, empty where there is nothing to say."""
        idle = self.reasons.total()
        # A wait is worth mentioning only if the run did nothing else.
        if not (self.speaks and idle) or (idle < self.steps and all(self.texts[kind].wait for kind in self.reasons)):
            return ""
        listed = "; ".join(f"{count} x {self.texts[kind].text}" for kind, count in self.reasons.most_common())
        if idle < self.steps:
            return f"{idle} of {self.steps} steps taught the policy nothing: {listed}"
        return f"nothing was learned in all {idle} steps, the policy is the one they began with: {listed}"


def taught(metrics: Mapping[str, float], area: str, signal: bool | None) -> bool:
    """Whether something moved, and by what the episodes earned."""
    # Without an update there is no gradient norm.
    return signal is not False and metrics.get(f"{area}/grad_norm", 0.0) != 0


def _only_kl(config: LoopConfig, groups: Sequence[Group]) -> bool:
    """Whether only the KL inside their rewards tells episodes apart: it pulls, and teaches nothing of the task."""
    algorithm: Any = getattr(config, "algorithm", None)
    if not getattr(algorithm, "kl_in_reward", 0):
        return False
    # Siblings are told apart by their returns alone; an estimator without siblings sees any reward.
    if estimator_needs(algorithm.advantage, "siblings"):
        return not any(map(is_informative, groups))
    return not any(reward for g in groups for t in members_to_learn_from(g) for _, reward in policy_turns(t))


def reason(
    config: LoopConfig, groups: Sequence[Group], metrics: Mapping[str, float], *, signal: bool | None = None
) -> Idle:
    """Why nothing was learned in such a step: the first cause that is found, what comes earlier in a step first."""
    for found in _causes(config, groups, metrics, signal):
        return found
    return Idle(kind="unknown", text="no update was made, and none of the known causes applies")


def _causes(
    config: LoopConfig, groups: Sequence[Group], metrics: Mapping[str, float], signal: bool | None
) -> Iterator[Idle]:
    everyone = [t for group in groups for t in group.trajectories]
    # Offline steps have no episodes.
    if everyone:
        yield from _played(config, everyone)
    yield from _replayed(metrics)
    if everyone:
        yield from _compared(config, groups, metrics, signal)
    if metrics.get("optim/grad_norm") == 0:
        yield Idle(kind="gradient", text="the gradient was exactly 0: every advantage is 0, or every token is masked")
    if any(name.endswith("/grad_norm") and value for name, value in metrics.items()):
        yield Idle(kind="critic", text="only a critic was fitted", wait=True)


def _played(config: LoopConfig, everyone: Sequence[Trajectory]) -> Iterator[Idle]:
    """Episodes that nobody can learn from."""
    many = f"all {len(everyone)} episodes"
    if all(t.stop_reason.is_fault for t in everyone):
        yield Idle(kind="faults", text=f"{many} were lost to faults, see faults.jsonl and docs/faults.md")
    whole = [t for t in everyone if not t.stop_reason.is_fault]
    if whole and all(t.stop_reason is StopReason.MAX_TOKENS for t in whole):
        acted = "before the first action" if not any(t.turns for t in whole) else "before the task could end them"
        yield Idle(
            kind="context",
            text=f"{many} were cut {acted}, since prompt and action did not fit into engine.max_context="
            f"{config.engine.max_context}: raise it, or shorten prompts (rollout.history, rollout.context=windowed, "
            "rollout.max_observation_tokens)",
        )
    # A score without a value means that the reward was asked and could not tell.
    if whole and all(t.score is not None and t.score.value is None for t in whole):
        yield Idle(kind="undecided", text=f"the reward {config.reward.name} could not tell for any episode")
    if whole and not any(t.learnable and policy_turns(t) for t in whole):
        # `many` without its leading "all".
        yield Idle(kind="unlearnable", text=f"none of {many[4:]} holds an action that can be learned from")


_REPLAYED: tuple[tuple[str, Callable[[float], bool], Idle], ...] = (
    (
        "replay/turns_count",
        lambda count: count == 0,
        Idle(kind="no turns", text="there is no turn to learn from, neither stored nor collected"),
    ),
    (
        "bc/turns_count",
        lambda count: count == 0,
        Idle(kind="nothing to imitate", text="no episode passed the filter, so there is nothing to imitate"),
    ),
    (
        "digirl/trajectories_kept_count",
        lambda count: count == 0,
        Idle(
            kind="no successes",
            text="no trajectory passed the first filter, so there is no success to imitate: begin with a policy that "
            "sometimes succeeds, or with replay.stores that hold successes",
        ),
    ),
    (
        "digirl/steps_kept_frac",
        lambda share: share == 0,
        Idle(kind="no steps", text="no step of the kept trajectories passed the second filter, so none is imitated"),
    ),
    (
        "policy/filtered_frac",
        lambda share: share == 1,
        Idle(
            kind="filter",
            text="algorithm.correction or algorithm.sequence_filter left out every action token: widen the band or "
            "raise the cap, and see policy/sampler_gap_mean",
        ),
    ),
    (
        "webrl/positive_frac",
        lambda share: share == 0,
        Idle(
            kind="no positives", text="no turn has a positive target, and algorithm.form=released learns from no other"
        ),
    ),
    (
        "replay/warmup_frac",
        lambda share: share < 1,
        Idle(kind="warm-up", text="the buffer warms up (replay.warmup_turns)", wait=True),
    ),
)
"""Metric, the value that says that the policy had nothing to learn from, and the words for it."""


def _replayed(metrics: Mapping[str, float]) -> Iterator[Idle]:
    for name, says_so, idle in _REPLAYED:
        if name in metrics and says_so(metrics[name]):
            yield idle


def _compared(
    config: LoopConfig, groups: Sequence[Group], metrics: Mapping[str, float], signal: bool | None
) -> Iterator[Idle]:
    """Episodes that an estimator of groups cannot tell apart."""
    algorithm: Any = getattr(config, "algorithm", None)
    advantage = getattr(algorithm, "advantage", "")
    if estimator_needs(advantage, "siblings"):
        if config.rollout.group_size == 1:
            yield Idle(
                kind="group size",
                text=f"algorithm.advantage={advantage} compares the episodes of a group, and rollout.group_size=1 "
                "leaves each alone: use 2 or more, or algorithm.advantage=reinforce++",
            )
        if all(len(members_to_learn_from(group)) < 2 for group in groups):
            yield Idle(kind="alone", text="no group has two members left to compare, see faults.jsonl")
        if not any(map(is_informative, groups)):
            yield Idle(kind="tied", text=_tied(groups))
    elif signal is False:
        source = "comes of the KL in the reward" if getattr(algorithm, "kl_in_reward", 0) else "is 0"
        yield Idle(kind="no advantage", text=f"every advantage {source}: {_earned(groups)}")
    if metrics.get("optim/skipped_count"):
        least = getattr(algorithm, "min_groups", 1)
        # With min_groups=1 a step may also be skipped because there is no spread to divide by.
        if least == 1 and not can_whiten(groups):
            yield Idle(kind="one token", text="a single action token was left, and whitening compares two or more")
        yield Idle(kind="few groups", text=f"fewer groups than algorithm.min_groups={least} can teach")


def _tied(groups: Sequence[Group]) -> str:
    cut = all(t.stop_reason is StopReason.MAX_TURNS for g in groups for t in g.trajectories if t.learnable)
    limit = ", and every one of them ran into the turn limit (rollout.max_turns)" if cut else ""
    return (
        f"the members of each of the {len(groups)} groups earned the same ({_earned(groups)}){limit}, so nothing tells "
        "better from worse: choose tasks within reach (curriculum=band), larger groups (rollout.group_size), or a "
        "better start"
    )


def _earned(groups: Sequence[Group]) -> str:
    returns = [policy_return(t) for g in groups for t in members_to_learn_from(g)]
    low, high = min(returns, default=0.0), max(returns, default=0.0)
    return f"every episode earned {low:g}" if low == high else f"from {low:g} to {high:g}"
