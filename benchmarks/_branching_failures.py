"""Failure replay against episodes from the initial state: tabular Q-learning on a lock that one wrong digit blocks.

A table and not a network, so that nothing but the start of an episode decides. The episodes go through the real
collector, start pool and lock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollwright.contracts import Group, Message, Span, episode_seed
from rollwright.curriculum import StartPool, StartSettings
from rollwright.envs.text import combination_lock
from rollwright.generation import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits

DIALS, BUDGET, EPISODES = 14, 8000, 24
TITLE = "Failure replay: a table learns a lock of 14 dials with and without it"
ABOUT = (
    f"A lock of {DIALS} dials with two digits, blocked by one wrong digit; opening pays 1. Tabular Q-learning\n"
    f"(epsilon 0.2, discount 0.95, step 0.5) in batches of {EPISODES} episodes, until {BUDGET} environment calls are\n"
    "spent. The table is then read greedily from the first dial. Epsilon and discount are those of the snapshot\n"
    "experiment (`tests/learning/test_starts_learning.py`); nothing was tuned for the arms."
)
ARMS = {
    "initial": "every episode begins at the first dial",
    "failures": "three in four begin one turn before an own failure (`starts=failures`, `frac=0.75`, `back=1`)",
}
METRICS = {
    "opened": "share of the seeds in which the lock opens",
    "dials": "dials that the greedy table turns rightly before its first wrong digit",
    "calls": "environment calls of the training",
}
CLAIMS = [
    ("failures", "initial", "opened", "failure replay opens the lock more often"),
    ("failures", "initial", "dials", "failure replay learns more of the dials"),
]


class Latest:
    """A context of the latest observation alone, as numbers of characters."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Any) -> tuple[Message, ...]:
        """Take in what is shown."""
        self.ids = tuple(map(ord, observation.text))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        """What is shown."""
        return self.ids

    def act(self, generation: Generation) -> str:
        """The digit that was chosen."""
        return "".join(map(chr, generation.token_ids))


class DigitTable:
    """Q-learning behind the engine's contract: a number for every dial and digit."""

    name, version, context_length = "table", 0, 10_000

    def __init__(self, seed: int) -> None:
        self.q, self.seed = np.zeros((DIALS, 2)), seed

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str) -> Generation:
        """A digit, epsilon-greedy."""
        q, draws = self.q[dial_of(prompt_ids)], random.Random(f"{self.seed}/{request_id}")
        explores = draws.random() < 0.2 or q[0] == q[1]
        digit = draws.randrange(2) if explores else int(q.argmax())
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(ord(str(digit)),), logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def learn(self, groups: Sequence[Group]) -> None:
        """One pass over each episode, from its end."""
        for turns in (trajectory.turns for group in groups for trajectory in group.trajectories):
            after: int | None = None
            for turn in reversed(turns):
                dial, digit = dial_of(turn.prompt_ids), int(turn.text)
                target = turn.reward + (0.0 if after is None else 0.95 * self.q[after].max())
                self.q[dial, digit] += 0.5 * (target - self.q[dial, digit])
                after = dial

    def load_weights(self, weights: Any, *, version: int) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing is held."""


def dial_of(prompt_ids: Sequence[int]) -> int:
    """The dial that a prompt shows, from 0."""
    return int("".join(map(chr, prompt_ids)).rsplit("dial ", 1)[1].split(".")[0]) - 1


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    world, table = combination_lock.build(lengths=[DIALS], slip="over", max_turns=DIALS), DigitTable(seed)
    settings = StartSettings(name="failures", frac=0.75, back=1) if arm == "failures" else StartSettings()
    pool = StartPool(settings, seed=seed, horizon=DIALS)
    collector = Collector(
        world,
        EngineActor(table),
        Latest,
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=DIALS),
        faults=FaultLog(None),
    )
    calls = step = 0
    while calls < BUDGET:
        task = world.tasks("train")[0]
        asked = [
            GroupRequest(key=f"{step}/{index}", task=task, seed=episode_seed("train", seed, step, index), size=1)
            for index in range(EPISODES)
        ]
        groups = collector.collect(pool.place(asked, step))
        table.learn(groups)
        pool.learn(groups)
        calls += sum(len(trajectory.turns) for group in groups for trajectory in group.trajectories)
        step += 1
    collector.close()
    dials = right_dials(table, world.combinations[DIALS])
    return {"opened": float(dials == DIALS), "dials": float(dials), "calls": float(calls)}


def right_dials(table: DigitTable, combination: Sequence[int]) -> int:
    """Dials from the first one on for which the table prefers the right digit; a tie is no preference."""
    for dial, right in enumerate(combination):
        if not table.q[dial, right] > table.q[dial, 1 - right]:
            return dial
    return len(combination)
