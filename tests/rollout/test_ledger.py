"""The speed ledger: each lane adds up to the wall time, and every second lies where it belongs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation, StepResult
from rollwright.contracts.record import Span, Task
from rollwright.generation.engine import Generation, Sampling, TimedEngine
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.rollout.ledger import (
    Ledger,
    Occupancy,
    Reading,
    generator_lane,
    learner_lane,
)
from rollwright.run_io.time_ledger import GENERATOR_PARTS, LEARNER_PARTS, time_shares


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_whole_is_in_one_state_at_a_time_the_engine_before_the_world() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    clock.now += 1  # nothing in flight
    occupancy.move(None, "environment")
    occupancy.move(None, "environment")
    clock.now += 2  # both at their worlds
    occupancy.move("environment", "engine")
    clock.now += 4  # one at the engine, one at its world
    occupancy.move("engine", None)
    clock.now += 8  # the other still at its world
    occupancy.move("environment", None)
    clock.now += 16
    assert occupancy.seconds() == {"engine": 4.0, "environment": 10.0, "queue": 17.0}


def test_the_generators_lane_by_hand() -> None:
    before = Reading(lane={"engine": 1.0, "environment": 1.0, "queue": 1.0}, work=(1.0, 1.0))
    after = Reading(lane={"engine": 11.0, "environment": 5.0, "queue": 7.0}, work=(3.0, 7.0))
    entries = generator_lane(before, after)
    expected = {"prefill": 2.0, "decode": 6.0, "engine": 2.0, "environment": 4.0, "queue": 6.0}
    assert entries == {f"ledger/generator_{part}_s": seconds for part, seconds in expected.items()}
    untold = generator_lane(before, Reading(lane=after.lane, work=None))
    assert untold["ledger/generator_engine_s"] == 10.0 and len(untold) == 3


def test_the_learners_lane_by_hand() -> None:
    timings = {"collect": 5.0, "greedy": 1.0, "update": 2.0, "sync": 0.5, "step": 10.0}
    entries = learner_lane({f"time/{name}_s": seconds for name, seconds in timings.items()}, wall_s=10.0)
    expected = {"wait": 6.0, "score": 0.0, "learn": 2.0, "sync": 0.5, "other": 1.5}
    assert entries == {f"ledger/learner_{part}_s": seconds for part, seconds in expected.items()}


def test_shares_are_over_the_whole_run() -> None:
    wait, learn = "ledger/learner_wait_s", "ledger/learner_learn_s"
    rows = [{wait: 1.0, learn: 3.0}, {"step": 3.0}, {wait: 4.0}]
    assert time_shares(rows) == {"learner": {"wait": 0.625, "score": 0.0, "learn": 0.375, "sync": 0.0, "other": 0.0}}


class SlowWorld:
    """Three steps of 30 ms each."""

    name, instructions, snapshots, max_turns, execution = "slow", "", "none", 3, "async"

    def tasks(self, split: str) -> list[Task]:
        return [Task(id="slow", split="train")]

    def make(self) -> SlowWorld:
        return self

    async def reset(self, task: Task, seed: int) -> str:
        return "begin"

    async def step(self, action: str) -> StepResult:
        await asyncio.sleep(0.03)
        return StepResult(observation="go on")

    async def fingerprint(self) -> str:
        return ""

    async def close(self) -> None: ...


class SlowEngine:
    """Every answer takes 20 ms."""

    name, version, context_length = "slow", 0, 64

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        await asyncio.sleep(0.02)
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(1,), logprobs=(-0.5,), finish_reason="stop", spans=(span,), generate_s=0.02)


class PlainContext:
    def observe(self, observation: Observation) -> tuple[()]:
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return (1,)

    def act(self, generation: Generation) -> str:
        return "act"


def test_both_lanes_of_real_episodes_add_up_to_the_wall_time() -> None:
    world, engine = SlowWorld(), SlowEngine()
    made = Collector(
        world,
        EngineActor(engine),
        PlainContext,
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=3),
        faults=FaultLog(None),
    )
    ledger = Ledger(made.occupancy, engine)
    ledger.begin()
    made.collect([GroupRequest(key="g", task=world.tasks("train")[0], seed=1, size=1)])
    entries = ledger.end({"time/collect_s": 0.01})
    made.close()
    generator = sum(seconds for name, seconds in entries.items() if name.startswith("ledger/generator"))
    learner = sum(seconds for name, seconds in entries.items() if name.startswith("ledger/learner"))
    assert generator == pytest.approx(learner, abs=1e-9)
    assert entries["ledger/generator_engine_s"] >= 3 * 0.02 and entries["ledger/generator_environment_s"] >= 3 * 0.03
    assert made.occupancy._at == {"engine": 0, "environment": 0}, "an episode that ended is nowhere"


def test_the_engines_tell_prefill_from_decode(tmp_path: Path) -> None:
    model, _ = load_policy(make_tiny_model(tmp_path / "tiny", texts=["a b c"], hidden=32, layers=1))
    engine = TransformersEngine(model, context_length=64, stop_token_ids=())
    assert isinstance(engine, TimedEngine) and engine.work_seconds() == (0.0, 0.0)

    def generate(tokens: int) -> None:
        asyncio.run(engine.generate((1, 2), Sampling(max_tokens=tokens), request_id="r"))

    generate(1)
    generate(1)  # the answer comes out a moment before its step ends, so the first one is noted by now
    prefill, decode = engine.work_seconds()
    assert prefill > 0 and decode == 0
    generate(5)
    assert engine.work_seconds()[1] > 0
    engine.close()


def test_the_parts_of_a_lane_are_those_it_is_made_of() -> None:
    lanes = generator_lane(
        Reading(lane={"engine": 0.0, "environment": 0.0, "queue": 0.0}, work=(0.0, 0.0)),
        Reading(lane={"engine": 1.0, "environment": 0.0, "queue": 0.0}, work=(0.0, 0.0)),
    )
    assert set(lanes) == {f"ledger/generator_{part}_s" for part in GENERATOR_PARTS}
    assert set(learner_lane({}, wall_s=1.0)) == {f"ledger/learner_{part}_s" for part in LEARNER_PARTS}
