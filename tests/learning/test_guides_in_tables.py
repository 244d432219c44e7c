"""RLGF with tables in place of networks (arXiv:2306.11816): what a guide's prefixes find, and where its endings stop.

A lock that guessing does not open; and a tree of two choices. On its left the guide's leaf pays 0.6, the other one 0.
On its right the best leaf pays 1, and the guide takes the one that pays 0.2: it earns 0.6 behind the left and 0.2
behind the right.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import pytest

from rollwright.contracts import Environment, Observation, StepResult, Task
from rollwright.envs.text import combination_lock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _guided_table import train

PAYS = {("left", "left"): 0.6, ("left", "right"): 0.0, ("right", "left"): 0.2, ("right", "right"): 1.0}


class Tree:
    """An environment of two moves."""

    def __init__(self) -> None:
        self.moves: tuple[str, ...] = ()

    def reset(self, task: Task, seed: int) -> Observation:
        self.moves = ()
        return Observation(text="root")

    def step(self, action: str) -> StepResult:
        self.moves = (*self.moves, action)
        if len(self.moves) == 2:
            return StepResult(observation="end", reward=PAYS[self.moves], terminated=True, success=True)
        return StepResult(observation=action)

    def fingerprint(self) -> str:
        return "/".join(self.moves)

    def snapshot(self) -> bytes:
        return self.fingerprint().encode()

    def restore(self, state: bytes) -> None:
        self.moves = tuple(part for part in state.decode().split("/") if part)

    def close(self) -> None: ...


class TreeWorld:
    """The tree, and a guide that always goes left."""

    name, execution, snapshots, instructions, max_turns = "tree", "inline", "exact", "", 2

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"{split}/tree", split=split)]  # type: ignore[arg-type]

    def make(self) -> Tree:
        return Tree()

    def teacher(self, task: Task) -> TreeWorld:
        return self

    def act(self, env: Environment, observation: Observation) -> str:
        return "left"

    def close(self) -> None: ...


def returns(method: str) -> float:
    found = [
        train(TreeWorld(), ("left", "right"), method=method, seed=seed, env_steps=3000, episodes=16, rate=0.2)  # type: ignore[arg-type]
        for seed in range(2)
    ]
    return fmean(one["returns"] for one in found)


@pytest.mark.slow
def test_aggrevated_follows_the_guide_to_the_left_and_never_learns_the_last_action() -> None:
    """The best leaf pays 1, but the right subtree looks like 0.2: that is what the guide makes of it.

    With k <= L - 1 the last action of an episode is never inside a prefix: on the left the policy still guesses, and
    earns (0.6 + 0) / 2 alone. A guess in both turns earns 0.45.
    """
    assert 0.25 < returns("aggrevated") < 0.37


@pytest.mark.slow
def test_prefixes_of_a_guide_open_a_lock_of_fourteen_dials() -> None:
    """One wrong digit ends the episode: a policy that guesses opens it once in 16384 tries, and plays about 600."""
    lock = combination_lock.build(lengths=(14,), digits=2, slip="over", max_turns=14, wording="compact")
    found = train(lock, lock.digits, method="ppo++", seed=0, env_steps=10_000, episodes=24)
    assert found["success"] > 0.9 and found["episodes"] < 700
