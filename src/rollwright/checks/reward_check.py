"""Proof that a reward keeps its contract: `check_reward(build(), groups)` in a test of yours."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rollwright.contracts import (
    ContractViolation,
    Group,
    Reward,
    Score,
    StatefulReward,
    StopReason,
    Trajectory,
    breach,
    score_group,
)


def check_reward(reward: Reward, groups: Sequence[Group], *, tolerance: float = 1e-6) -> None:
    """Score the groups in several ways and report every breach of the contract at once.

    Checked: one Score per trajectory, finite or None; parts that sum to the value; the same scores for the same group,
    in whatever order its trajectories come (each at its own place), and whether or not a faulted episode lies among
    them; nothing in the group changed. A reward with state is set back to its first state before each scoring.

    Args:
        reward: the reward to check.
        groups: what it is to score. Faulted trajectories are left out, as in training. Groups of several different
            trajectories show most.
        tolerance: how far scores that ought to be equal may be apart, in the reward's unit.

    Raises:
        ContractViolation: lists what is broken, in which group, and what to do.
        ValueError: no group has a trajectory that could be scored, so nothing would be proven.
    """
    checker = _RewardChecker(reward, tolerance)
    # Training scores no faulted episode, so a reward need not cope with one as the main case.
    judged = [
        g.with_trajectories([t for t in g.trajectories if not t.stop_reason.is_fault and t.turns]) for g in groups
    ]
    if not any(group.trajectories for group in judged):
        raise ValueError("no trajectory to score in any group: give at least one that ended without a fault")
    # A bad name does not end the check: it says nothing about the scores.
    checker.check_name()
    for group in judged:
        if group.trajectories:
            checker.check_group(group)
    if checker.found:
        lines = [f"{problem} [{places[0]}, seen {len(places)}x]" for problem, places in checker.found.items()]
        raise ContractViolation(f"reward {type(reward).__name__}", lines)


class _RewardChecker:
    """Collects violations. Made and used by `check_reward` alone, for one reward."""

    def __init__(self, reward: Reward, tolerance: float) -> None:
        self.found: dict[str, list[str]] = {}
        self._reward = reward
        self._tolerance = tolerance
        # A deep copy: `state_dict` may hand out the reward's own lists, which scoring then changes.
        self._state = copy.deepcopy(reward.state_dict()) if isinstance(reward, StatefulReward) else None

    def _report(self, problem: str, where: str) -> None:
        self.found.setdefault(problem, []).append(where)

    def check_name(self) -> None:
        if not hasattr(self._reward, "name") or not isinstance(self._reward.name, str) or not self._reward.name:
            self._report("name must be text that is not empty: records and metrics use it", "reward")

    def check_group(self, group: Group) -> None:
        where = f"group {group.id}"
        # Groups are frozen, but the dicts inside them are not.
        untouched = copy.deepcopy(group)
        scores = self._score(group, where)
        if scores is None:
            return
        if group != untouched:
            self._report("score() changed the group it was given: treat trajectories as read-only", where)
        whole = [
            self._check_score(trajectory, score, f"{where}, trajectory {trajectory.id}")
            for trajectory, score in zip(group.trajectories, scores, strict=True)
        ]
        # Broken scores would differ from themselves (NaN), and the comparisons below would only repeat the same news.
        if not all(whole):
            return
        again = self._score(group, where)
        self._compare(scores, again, "at the second call; draw no chance and keep no count", where)
        # The reverse order finds scores that lean on a place in the group, such as a first episode as the baseline.
        turned = self._score(group.with_trajectories(group.trajectories[::-1]), where)
        said = "with the trajectories in another order; score each for itself or against the whole group"
        # Reversed back, so that each score is compared with that of the same trajectory.
        self._compare(scores, turned[::-1] if turned else None, said, where)
        self._check_faults_are_left_out(group, scores, where)

    def _set_back(self) -> None:
        if self._state is not None and isinstance(self._reward, StatefulReward):
            self._reward.load_state_dict(copy.deepcopy(self._state))

    def _score(self, group: Group, where: str) -> list[Score] | None:
        """The scores from the first state, or None where they are unusable (and noted)."""
        self._set_back()
        try:
            # `list` runs generators to their end here, where their errors are caught.
            scores = list(self._reward.score(group))
        except Exception as error:
            self._report(f"score() raised {error!r}; give Score(value=None) where it cannot tell", where)
            return None
        # Foreign objects first: the length and the values of a list mean nothing where its items are no scores.
        strangers = [breach(score, 0) for score in scores if not isinstance(score, Score)]
        for problem in strangers:
            self._report(problem[0] if problem else "", where)
        if strangers:
            return None
        if len(scores) != len(group.trajectories):
            said = f"score() gave {len(scores)} scores for {len(group.trajectories)} trajectories: one each, in order"
            self._report(said, where)
            return None
        return scores

    def _check_score(self, trajectory: Trajectory, score: Score, where: str) -> bool:
        """Whether the score can be compared with others."""
        if problem := breach(score, len(trajectory.turns)):
            self._report(problem[0], f"{where}: {problem[1]}")
            return False
        if score.value is not None:
            self._check_sum("parts", [score.parts] if score.parts else None, score.value, where)
            self._check_sum("turn_parts", score.turn_parts, score.value, where)
        return True

    def _check_sum(self, name: str, parts: Sequence[Mapping[str, float]] | None, value: float, where: str) -> None:
        if parts is None:
            return
        # `fsum` adds without rounding errors, so the tolerance is the reward's alone.
        total = math.fsum(number for part in parts for number in part.values())
        if not self._near(total, value):
            self._report(f"{name} must sum to the value", f"{where}: {total} for {value}")

    def _check_faults_are_left_out(self, group: Group, scores: list[Score], where: str) -> None:
        """Scored as in training: a faulted sibling keeps no score and moves nobody else's."""
        first = group.trajectories[0]
        # No turns, as an environment that fails at reset leaves it.
        fault = replace(first, id=f"{first.id}/fault", stop_reason=StopReason.ENV_ERROR, turns=(), score=None)
        self._set_back()
        try:
            scored = score_group(group.with_trajectories([fault, *group.trajectories]), self._reward)
        except Exception as error:
            self._report(f"scoring as in training raised {type(error).__name__}: see its contract", f"{where}: {error}")
            return
        # `score_group` must have left the fault out, so these lie in the order of `scores` again.
        got = [t.score for t in scored.trajectories if not t.stop_reason.is_fault]
        self._compare(scores, [score for score in got if score], "with a faulted episode in the group", where)

    def _compare(self, expected: list[Score], got: list[Score] | None, when: str, where: str) -> None:
        for i, (a, b) in enumerate(zip(expected, got or [], strict=False)):
            if not self._near(a.value, b.value) or not self._same_parts(a, b):
                self._report(f"the score is another {when}", f"{where}, place {i}: {a.value} became {b.value}")
                # One place is enough: a reward that leans on the order differs at most places.
                return

    def _same_parts(self, a: Score, b: Score) -> bool:
        if (a.turn_parts is None) != (b.turn_parts is None):
            return False
        # The parts of the whole and the parts of every turn are compared alike, by name.
        pairs = zip((a.parts, *(a.turn_parts or ())), (b.parts, *(b.turn_parts or ())), strict=False)
        return all(p.keys() == q.keys() and all(self._near(p[key], q[key]) for key in p) for p, q in pairs)

    def _near(self, a: float | None, b: float | None) -> bool:
        # Undecided equals undecided only; it is never near to a number.
        if a is None or b is None:
            return a is b
        # An absolute bound: a relative one would call 0 and 1e-12 unlike.
        return math.isclose(a, b, rel_tol=0.0, abs_tol=self._tolerance)
