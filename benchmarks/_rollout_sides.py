"""The two sides of `rollouts.py`: our collector and TRL's tool loop, both over environments that only wait."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from _trl import grpo_trainer

from rollwright.contracts import StepResult, Task
from rollwright.generation import Engine, ScriptedEngine
from rollwright.models import ChatCodec, load_tokenizer
from rollwright.rollout import AppendOnly, Collector, EngineActor, FaultLog, Limits

Kind = Literal["blocking", "async"]
ANSWER, ACTION, RULES = "Go on.", "wait", "Wait until you are told to stop."
ACTION_TOKENS = 8
GROUP = 8


def question(episode: int) -> str:
    """The members of a group of 8 are asked the same."""
    return f"What now, group {episode // GROUP}?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Episodes of waits: `latencies[e][t]` seconds for turn t of episode e, `slots` episodes at a time."""

    name: str
    kind: Kind
    latencies: tuple[tuple[float, ...], ...]
    slots: int = 64
    model: bool = False

    @property
    def bound(self) -> float:
        """No schedule is shorter, in seconds."""
        episodes = [sum(episode) for episode in self.latencies]
        return max(max(episodes), sum(episodes) / self.slots)

    @property
    def first_come(self) -> float:
        """What a scheduler without overhead takes that starts the episodes in the order asked for."""
        free = [0.0] * self.slots
        for episode in self.latencies:
            heapq.heapreplace(free, free[0] + sum(episode))
        return max(free)


class BlockingWait:
    """Waits in `time.sleep`. The seed is the episode's index."""

    def __init__(self, case: Case) -> None:
        self.case, self.waits = case, iter(())

    def reset(self, task: Task, seed: int) -> str:
        self.left = list(self.case.latencies[seed])
        return question(seed)

    def step(self, action: str) -> StepResult:
        time.sleep(self.left.pop(0))
        return StepResult(observation=ANSWER, terminated=not self.left)

    def fingerprint(self) -> str:
        return str(len(self.left))

    def close(self) -> None:
        """Nothing is held."""


class AsyncWait:
    """The same in `asyncio.sleep`."""

    def __init__(self, case: Case) -> None:
        self.inner = BlockingWait(case)

    async def reset(self, task: Task, seed: int) -> str:
        return self.inner.reset(task, seed)

    async def step(self, action: str) -> StepResult:
        await asyncio.sleep(self.inner.left.pop(0))
        return StepResult(observation=ANSWER, terminated=not self.inner.left)

    async def fingerprint(self) -> str:
        return self.inner.fingerprint()

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class WaitingWorld:
    """Hands out waiting environments of one kind."""

    case: Case
    name: str = "waiting"
    instructions: str = RULES
    snapshots: str = "none"
    max_turns: int = 64

    @property
    def execution(self) -> str:
        return "thread" if self.case.kind == "blocking" else "async"

    def tasks(self, split: str) -> list[Task]:
        return [Task(id="wait", split="train")]

    def make(self) -> Any:
        if self.case.kind == "blocking":
            return BlockingWait(self.case)

        async def made() -> AsyncWait:
            return AsyncWait(self.case)

        return made()

    def close(self) -> None:
        """Nothing is held."""


class Ours:
    """A collector kept over the repeats, as in a run."""

    def __init__(self, case: Case, folder: Path, engine: Engine | None) -> None:
        self.case = case
        codec = ChatCodec(load_tokenizer(folder))
        action = codec.encode_action(ACTION)
        self.engine = engine or ScriptedEngine([ACTION], lambda _: action)
        world: Any = WaitingWorld(case)
        self.collector = Collector(
            world,
            EngineActor(self.engine),
            AppendOnly(codec=codec, instructions=RULES, context_length=512),
            sampling=_sampling(codec),
            limits=Limits(max_turns=64),
            faults=FaultLog(None),
            parallel_episodes=case.slots,
        )
        self.task = world.tasks("train")[0]
        self.round = 0

    def seconds(self) -> tuple[float, float]:
        """Wall clock of all episodes, and generation's share of the slowest one."""
        self.round += 1
        keys = enumerate(self.case.latencies)
        requests = [self.collector.request(f"{self.round}/{i}", self.task, i) for i, _ in keys]
        began = time.perf_counter()
        played = self.collector.play(requests)
        took = time.perf_counter() - began
        expected = [len(episode) for episode in self.case.latencies]
        assert [len(t.turns) for t in played] == expected, "an episode ended early: the times would mean nothing"
        generated = max(sum(turn.timings.engine_wait_s + turn.timings.generate_s for turn in t.turns) for t in played)
        return took, generated if self.case.model else 0.0

    def close(self) -> None:
        self.collector.close()


def _sampling(codec: ChatCodec) -> Any:
    from rollwright.generation import Sampling

    return Sampling(max_tokens=ACTION_TOKENS, stop_token_ids=tuple(codec.stop_token_ids))


class ToolWait:
    """TRL's environment: `reset` and one tool. The episode's index comes with its row of the data set."""

    case: Case

    def reset(self, index: int, **row: object) -> str:
        self.left = list(self.case.latencies[index])
        return question(index)

    def act(self, text: str) -> str:
        """
        Act.

        Args:
            text: The action.

        Returns:
            What the environment answers.
        """
        time.sleep(self.left.pop(0))
        return ANSWER


class AsyncToolWait:
    """The same as a coroutine, which TRL runs on an event loop."""

    case: Case

    def reset(self, index: int, **row: object) -> str:
        self.left = list(self.case.latencies[index])
        return question(index)

    async def act(self, text: str) -> str:
        """
        Act.

        Args:
            text: The action.

        Returns:
            What the environment answers.
        """
        await asyncio.sleep(self.left.pop(0))
        return ANSWER


@dataclass
class Peer:
    """TRL's trainer up to the point where the episodes are complete; its generation apart, or free."""

    case: Case
    folder: Path
    calls: int = 0
    generated: float = 0.0
    looped: float = 0.0
    trainer: Any = field(init=False)

    def __post_init__(self) -> None:
        from datasets import Dataset

        environment: Any = ToolWait if self.case.kind == "blocking" else AsyncToolWait
        environment.case = self.case
        episodes, turns = len(self.case.latencies), len(self.case.latencies[0])
        prompt = [{"role": "system", "content": RULES}, {"role": "user", "content": ""}]
        self.rows = [{"prompt": prompt, "index": index} for index in range(episodes)]
        self.trainer = grpo_trainer(
            self.folder,
            output=self.folder.parent / "trl",
            rewards=lambda completions, **_: [0.0] * len(completions),
            dataset=Dataset.from_list(self.rows),
            environment=environment,
            per_device_train_batch_size=episodes,
            num_generations=GROUP,
            max_steps=1,
            max_completion_length=400,
            max_tool_calling_iterations=turns,
        )
        self.trainer.generation_config.max_new_tokens = ACTION_TOKENS
        self.answer = self.trainer.processing_class.encode(f"{ACTION}<|im_end|>", add_special_tokens=False)
        self._real_turn = self.trainer._generate_single_turn
        self.trainer._generate_single_turn = self._turn
        self._real_generate = self.trainer._generate
        self.trainer._generate = self._timed_generate

    def _turn(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        closing = self.calls == 1 + len(self.case.latencies[0])
        if closing or not self.case.model:
            return [list(self.answer) for _ in prompt_ids], None
        began = time.perf_counter()
        sampled = self._real_turn(prompt_ids, *args, **kwargs)
        self.generated += time.perf_counter() - began
        return sampled

    def _timed_generate(self, prompts: list[Any]) -> Any:
        began = time.perf_counter()
        result = self._real_generate(prompts)
        self.looped = time.perf_counter() - began
        return result

    def seconds(self) -> tuple[float, float]:
        self.calls, self.generated = 0, 0.0
        self.trainer.model.train()
        self.trainer._generate_and_score_completions(self.rows)
        environments = self.trainer.environments
        assert not any(environment.left for environment in environments), "not every tool call was made"
        return self.looped, self.generated
