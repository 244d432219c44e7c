"""Rollouts against TRL's tool loop and against the queueing bound: the same episodes, latencies and run.

The environment only waits: 0.1 s, or log-normal and Pareto latencies drawn from a fixed seed. Generation is free (a
scripted engine here, a patched `_generate_single_turn` there), so what is timed is scheduling, tokenisation and the
record; one case has a real tiny model on both sides. A blocking call is `time.sleep` in a worker thread (ours) or an
ordinary tool (TRL), an async one is `asyncio.sleep` in a coroutine (both).

No schedule can end before the bound: the longest episode, or all latencies over the slots, whichever is more.
TRL's loop samples once more after the last tool answer; that sample is made free, to its advantage.

    python benchmarks/rollouts.py             table; also written to benchmarks/results/rollouts.md
    python benchmarks/rollouts.py --json      one final JSON line: ours, peer (seconds), ratio, bound, over_bound
"""

from __future__ import annotations

from rollwright.generation.launch_env import prepare_environment

prepare_environment()  # before torch is imported

import argparse  # noqa: E402
import asyncio  # noqa: E402
import heapq  # noqa: E402
import random  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Literal  # noqa: E402

from _common import command, machine, publish, spread, table  # noqa: E402
from _trl import grpo_trainer  # noqa: E402

from rollwright.codec import ChatCodec  # noqa: E402
from rollwright.contexts import AppendOnly  # noqa: E402
from rollwright.env import StepResult  # noqa: E402
from rollwright.generation.base import Engine  # noqa: E402
from rollwright.generation.scripted import ScriptedEngine  # noqa: E402
from rollwright.generation.select import make_engine  # noqa: E402
from rollwright.models import load_tokenizer  # noqa: E402
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits  # noqa: E402
from rollwright.tiny import make_tiny_model  # noqa: E402
from rollwright.types import Task  # noqa: E402

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


def heavy_tailed(seed: int, *, episodes: int = 64, turns: int = 4) -> tuple[tuple[float, ...], ...]:
    """Half log-normal (median 30 ms, sigma 1), half Pareto (from 20 ms, shape 1.5), no call above 2 s."""
    rng = random.Random(seed)

    def wait() -> float:
        drawn = rng.lognormvariate(-3.5, 1.0) if rng.random() < 0.5 else 0.02 * rng.paretovariate(1.5)
        return min(drawn, 2.0)

    return tuple(tuple(wait() for _ in range(turns)) for _ in range(episodes))


def cases(seed: int) -> list[Case]:
    flat, tail = ((0.1,),) * 64, heavy_tailed(seed)
    return [
        Case(name="64 x 0.1 s", kind="blocking", latencies=flat),
        Case(name="64 x 0.1 s", kind="async", latencies=flat),
        Case(name="heavy tail, 4 turns, 64 slots", kind="blocking", latencies=tail),
        Case(name="heavy tail, 4 turns, 64 slots", kind="async", latencies=tail),
        Case(name="heavy tail, 4 turns, 16 slots", kind="blocking", latencies=tail, slots=16),
        Case(name="64 x 0.1 s, tiny model samples", kind="blocking", latencies=flat, model=True),
    ]


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
    from rollwright.generation.base import Sampling

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


def measure(case: Case, folder: Path, repeats: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Medians over pairs; the first pair of each side warms up (threads, environments, caches) and is left out."""
    engine = make_engine("transformers", model_path=folder, context_length=512) if case.model else None
    ours, peer = Ours(case, folder, engine), Peer(case, folder)
    times: dict[str, list[float]] = {"ours": [], "peer": [], "ours_generation": [], "peer_generation": []}
    try:
        for repeat in range(repeats + 1):
            for name, side in (("ours", ours), ("peer", peer))[:: 1 if repeat % 2 else -1]:
                if name == "peer" and repeat == 0 and not case.model:
                    continue  # nothing to warm up: it sleeps
                took, generated = side.seconds()
                if repeat:
                    times[name].append(took)
                    times[f"{name}_generation"].append(generated)
    finally:
        ours.close()
        if engine is not None:
            engine.close()
    row = _row(case, times)
    log(f"{case.name}, {case.kind}: {row}")
    return row


def _row(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    ours, peer = spread(times["ours"]), spread(times["peer"])
    free = [t - g for t, g in zip(times["ours"], times["ours_generation"], strict=True)]
    return {
        "case": case.name,
        "kind": case.kind,
        "slots": case.slots,
        "ours": round(ours["median"], 4),
        "ours_low": round(ours["low"], 4),
        "ours_high": round(ours["high"], 4),
        "ours_without_generation": round(spread(free)["median"], 4),
        "ours_generation": round(spread(times["ours_generation"])["median"], 4),
        "peer": round(peer["median"], 4),
        "peer_generation": round(spread(times["peer_generation"])["median"], 4),
        "ratio": round(spread([p / o for o, p in zip(times["ours"], times["peer"], strict=True)])["median"], 2),
        "bound": round(case.bound, 4),
        "first_come": round(case.first_come, 4),
        "over_bound": round(spread(free)["median"] / case.bound, 3),
    }


def report(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    columns = ["case", "call", "ours s [low, high]", "of it generation", "TRL s", "of it generation", "TRL / ours"]
    columns += ["bound s", "ours without generation / bound", "first come, no overhead s"]
    lines = [
        [
            r["case"],
            r["kind"],
            f"{r['ours']:.3f} [{r['ours_low']:.3f}, {r['ours_high']:.3f}]",
            f"{r['ours_generation']:.3f}",
            f"{r['peer']:.2f}",
            f"{r['peer_generation']:.2f}",
            r["ratio"],
            f"{r['bound']:.3f}",
            r["over_bound"],
            f"{r['first_come']:.3f}",
        ]
        for r in rows
    ]
    return "\n".join(
        [
            "# Rollouts: against TRL's tool loop and the queueing bound",
            "",
            f"`{command()}`",
            "",
            f"{machine('torch', 'transformers', 'trl')}.",
            f"Medians of {arguments.repeats} pairs after one warm-up; latencies from seed {arguments.seed}.",
            "",
            table(columns, lines),
            "",
            "The bound: the longest episode, or all latencies over the slots, whichever is more; with fewer slots than "
            "episodes no on-line scheduler can promise it, so the last column gives what the order asked for costs "
            "without any overhead.",
            "",
            "TRL 1.16 waits for the tools of one episode before it starts those of the next, async or not (it gathers "
            "only the parallel calls of a single answer), so its time is the sum of all latencies. Every answer counts "
            "as a tool call on its side (a tokenizer that parses it so); its sample after the last tool answer is "
            "free. Its time runs from tokenised prompts to complete episodes; environments are reset before it starts.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name contains this text; writes no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        texts = [ANSWER, ACTION, RULES, *(question(index) for index in range(64))]
        folder = make_tiny_model(Path(scratch) / "model", texts=texts, hidden=64, layers=2, context_length=512)
        chosen = [case for case in cases(arguments.seed) if arguments.only in case.name]
        rows = [measure(case, folder, arguments.repeats, lambda line: print(line, flush=True)) for case in chosen]
    if arguments.only:
        return
    head = rows[0]
    summary = {"unit": "seconds for 64 episodes of one blocking 0.1 s call, generation free"}
    summary |= {key: head[key] for key in ("ours", "peer", "ratio", "bound", "over_bound")}
    summary |= {"target_ours": 0.15, "target_over_bound": 1.1, "cases": rows}
    publish("rollouts", report(rows, arguments), summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
