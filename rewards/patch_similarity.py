"""SWE-RL's rule: how similar the policy's patch is to the true one. No program is run.

The last action must hold one thought in <think>...</think> and edit blocks in <solution>...</solution>. What breaks the
format earns -1, as does an edit that changes nothing or whose search is not found. Otherwise the reward is the mean,
over all files that either patch changes, of the similarity of the two diffs, in [0, 1]. A patch so long or repetitive
that it cannot be compared within the limit earns 0.

A task's params hold `files` (path -> text before) and `oracle` (path -> text after).
Source: arXiv:2502.18449 (SWE-RL), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from rollwright.contracts import ConfigError, Group, Score, Task, Trajectory
from rollwright.envs.code.sandbox.rules import rule
from rollwright.rewards.patch_rule import (
    FORMAT_PENALTY,
    FormatError,
    apply_edits,
    diff_reward,
    diffs,
    parse_answer,
    patch_reward,
    similarity,
)

__all__ = [
    "FORMAT_PENALTY",
    "FormatError",
    "PatchSimilarityReward",
    "apply_edits",
    "build",
    "diff_reward",
    "diffs",
    "parse_answer",
    "patch_reward",
    "similarity",
]


class PatchSimilarityReward:
    """SWE-RL's reward of the last action. No score for a task without `files` and `oracle`."""

    name = "patch_similarity"

    def __init__(self, *, must_be_unique: bool) -> None:
        self._must_be_unique = must_be_unique

    def score(self, group: Group) -> Sequence[Score]:
        """How near each episode's patch comes to the task's own fix."""
        return [self._score(group.task, trajectory) for trajectory in group.trajectories]

    def _score(self, task: Task, trajectory: Trajectory) -> Score:
        files, oracle = task.params.get("files"), task.params.get("oracle")
        if not _are_texts(files) or not _are_texts(oracle):
            said = f"task {task.id!r} has no files and oracle in its params: path -> text"
            return Score(value=None, verifier=self.name, message=said)
        # In a box with a limit of time and memory: the policy chooses what is compared.
        called = rule("rollwright.rewards.patch_rule")(
            "patch_reward_of", trajectory.turns[-1].action, dict(files), dict(oracle), self._must_be_unique
        )
        # 0 and not None: the policy must not escape judgement by writing what cannot be judged.
        if called.how != "value":
            return Score(value=0.0, verifier=self.name, message=f"the patch cannot be compared: {called.message}")
        value, wrong = called.value
        return Score(value=float(value), verifier=self.name, message=str(wrong))


def _are_texts(value: object) -> TypeGuard[Mapping[str, str]]:
    return isinstance(value, Mapping) and all(isinstance(text, str) for item in value.items() for text in item)


def build(*, must_be_unique: bool = False) -> PatchSimilarityReward:
    """Similarity to the true patch.

    Args:
        must_be_unique: a search that occurs more than once breaks the format; the published rule replaces all.

    Raises:
        ConfigError: the option is no truth value.
    """
    # From YAML, "no" as text would be true.
    if not isinstance(must_be_unique, bool):
        raise ConfigError(f"patch_similarity needs must_be_unique true or false, got {must_be_unique!r}")
    return PatchSimilarityReward(must_be_unique=must_be_unique)
