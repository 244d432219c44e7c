"""Return conditioning (arXiv:2106.01345, Decision Transformer) where its weaknesses are known.

Where chance decides, who asks for luck gambles and loses. Where no episode shows the whole way nothing joins its
halves, until rollouts in the exact model that arrive are imitated (arXiv:2310.19308). The policy is a table of what
was done under each prompt; levels, prompts and targets are the recipe's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rollwright.contracts.environment import Environment, Execution, Observation, SnapshotKind, StepResult, World
from rollwright.contracts.record import Split, Task, Trajectory
from rollwright.generation.engine import Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.methods.conditioning import ReturnLevels, ReturnTargets, conditioned
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits, RandomActor
from rollwright.rollout.contexts import Windowed

Rule = Callable[[str, str, random.Random], tuple[str | None, float]]
"""(state, action, this episode's draws) -> (the next state, None where the task is over; reward)."""


class Place:
    """An environment of a few named states."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def reset(self, task: Task, seed: int) -> Observation:
        self.state, self.draws = str(task.params["start"]), random.Random(seed)
        return Observation(text=self.state)

    def step(self, action: str) -> StepResult:
        after, reward = self.rule(self.state, action, self.draws)
        self.state = after or "over"
        return StepResult(observation=Observation(text=self.state), reward=reward, terminated=after is None)

    def fingerprint(self) -> str:
        return self.state

    def close(self) -> None: ...


class Places:
    """The world of that environment."""

    name, instructions, max_turns = "places", "", 4
    execution: Execution = "inline"
    snapshots: SnapshotKind = "none"

    def __init__(self, rule: Rule, actions: Sequence[str]) -> None:
        self.rule, self.actions = rule, actions

    def tasks(self, split: Split) -> list[Task]:
        return []

    def make(self) -> Environment:
        return Place(self.rule)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return draws.choice(self.actions)

    def close(self) -> None: ...


CODEC = ChatCodec(tiny_tokenizer(["start A M over safe risky on stop nothing\nWanted return: level 1 of 2 3 4 5."]))
CONTEXT = Windowed(codec=CODEC, instructions="", context_length=1 << 20, history=0)


def read(ids: Sequence[int]) -> str:
    return str(CODEC.tokenizer.decode(list(ids)))


def play(
    world: World, actor: EngineActor | RandomActor, start: str, count: int, tmp_path: Path, *, name: str
) -> list[Trajectory]:
    collector = Collector(
        world,
        actor,
        CONTEXT,
        sampling=Sampling(max_tokens=8),
        limits=Limits(max_turns=4),
        faults=FaultLog(tmp_path / f"{name}.jsonl", max_frac=0.0),
    )
    task = Task(id=start, split="train", params={"start": start})
    try:
        return collector.play([collector.request(f"{name}/{k}", task, k) for k in range(count)])
    finally:
        collector.close()


class Imitated:
    """What was done under each prompt, by the episodes as they read with their returns; asked for prompts unseen."""

    def __init__(self, data: Sequence[Trajectory], levels: int) -> None:
        self.levels = ReturnLevels.of([to_go for t in data for to_go in t.returns_to_go(1.0)], count=levels)
        self.table: dict[tuple[int, ...], Counter[str]] = {}
        self.unseen: list[str] = []
        for trajectory in data:
            for turn in conditioned(trajectory, CONTEXT, self.levels).turns:
                self.table.setdefault(turn.prompt_ids, Counter())[turn.text] += 1

    def act(self, prompt_ids: tuple[int, ...], request_id: str) -> str:
        if prompt_ids not in self.table:
            self.unseen.append(read(prompt_ids))
            return "nothing"
        return self.table[prompt_ids].most_common(1)[0][0]

    def play(self, world: World, start: str, count: int, tmp_path: Path, *, target: float) -> list[Trajectory]:
        engine = ScriptedEngine(self.act, CODEC.encode_action)
        told = ReturnTargets(world, self.levels, target)
        return play(told, EngineActor(engine), start, count, tmp_path, name=f"asked for {target:g}")


def earned(episodes: Sequence[Trajectory]) -> float:
    return sum(t.total_reward for t in episodes) / len(episodes)


def done(episodes: Sequence[Trajectory]) -> set[str]:
    return {turn.text for t in episodes for turn in t.turns}


def gamble(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    return None, 0.6 if action == "safe" else float(draws.random() < 0.5)


def sure_thing(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    return None, 0.6 if action == "safe" else 1.0


def test_who_asks_for_luck_gambles_and_loses(tmp_path: Path) -> None:
    """Safe pays 0.6, risky 1 half of the time: asked for 1 it earns 0.5, asked for 0.6 just that."""
    world = Places(gamble, ["safe", "risky"])
    data = play(world, RandomActor(world, CODEC.encode_action), "start", 200, tmp_path, name="data")
    assert done(data) == {"safe", "risky"} and max(t.total_reward for t in data) == 1.0
    policy = Imitated(data, levels=4)
    lucky = policy.play(world, "start", 400, tmp_path, target=1.0)
    assert done(lucky) == {"risky"} and earned(lucky) == pytest.approx(0.5, abs=0.06)
    modest = policy.play(world, "start", 50, tmp_path, target=0.6)
    assert done(modest) == {"safe"} and earned(modest) == pytest.approx(0.6) and not policy.unseen
    plain = Places(sure_thing, ["safe", "risky"])
    sure = Imitated(play(plain, RandomActor(plain, CODEC.encode_action), "start", 50, tmp_path, name="sure"), levels=4)
    assert earned(sure.play(plain, "start", 20, tmp_path, target=1.0)) == 1.0, "where nothing is left to chance"


def two_steps(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    if action != "on":
        return None, 0.0
    return ("M", 0.5) if state == "A" else (None, 1.0)


def test_no_episode_shows_the_way_until_one_is_played(tmp_path: Path) -> None:
    """A -> M pays 0.5 in some episodes and M -> the goal 1 in others: nobody stood in A with 1.5 to go.

    Of rollouts in the exact model those above the data's best return are kept; who imitates them always arrives.
    """
    world = Places(two_steps, ["on", "stop"])

    def halves(prompt_ids: tuple[int, ...], request_id: str) -> str:
        return "stop" if request_id.startswith("from A") and "M" in read(prompt_ids) else "on"

    shown = EngineActor(ScriptedEngine(halves, CODEC.encode_action))
    data = [t for s in "AM" for t in play(world, shown, s, 10, tmp_path, name=f"from {s}")]
    best = max(t.total_reward for t in data)
    assert [t.total_reward for t in data] == [0.5] * 10 + [1.0] * 10 and len(data[0].turns) == 2
    policy = Imitated(data, levels=3)
    assert earned(policy.play(world, "M", 5, tmp_path, target=1.0)) == 1.0 and not policy.unseen
    assert earned(policy.play(world, "A", 5, tmp_path, target=1.5)) == 0.0
    assert len(policy.unseen) == 5 and all("A" in said and "level 3 of 3" in said for said in policy.unseen)

    rollouts = play(world, RandomActor(world, CODEC.encode_action), "A", 40, tmp_path, name="rollouts")
    kept = [t for t in rollouts if t.total_reward > best]
    assert 0 < len(kept) < 40
    joined = Imitated(kept, levels=2)
    assert earned(joined.play(world, "A", 20, tmp_path, target=1.5)) == 1.5 and not joined.unseen
    joined.play(world, "A", 1, tmp_path, target=1.0)
    assert len(joined.unseen) == 1, "in A only 1.5 was ever to go, in M 1: the first reward is taken off"
