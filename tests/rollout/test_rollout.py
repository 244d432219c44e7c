"""Episodes, many at once: token truth, faults as data, deadlines, groups in order, the watchdog."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import EngineFault, FaultBudgetExceeded, StalledRollout
from rollwright.contracts.record import Span, StopReason, Task
from rollwright.envs.text.guess_number import build as build_guess
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import (
    Collector,
    EngineActor,
    FaultLog,
    GroupRequest,
    Limits,
    TeacherActor,
    rollout_metrics,
    score_or_note,
)
from rollwright.rollout.contexts import AppendOnly, Windowed

TEXTS = ["Guess a number from 1 to 16.", *map(str, range(17)), "Higher.", "Lower.", "Correct.", "Answer with one whole"]
SAMPLING = Sampling(max_tokens=4)
FAST = Limits(max_turns=4, episode_s=20.0, env_call_s=0.5, engine_call_s=0.5)


class FixedEngine:
    """Answers every prompt with the same ids, one log-prob of -0.5 each; or does whatever `behave` does."""

    name, version, context_length = "fixed", 3, 512

    def __init__(self, ids: tuple[int, ...] = (5, 1), behave: object = None) -> None:
        self.ids, self.behave, self.prompts = ids, behave, []

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        self.prompts.append(prompt_ids)
        if self.behave is not None:
            await self.behave(request_id)
        span = Span(start=0, end=len(self.ids), version=self.version)
        return Generation(token_ids=self.ids, logprobs=(-0.5,) * len(self.ids), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


class PlainContext:
    """A context without a tokenizer: the prompt is the number of observations so far."""

    def __init__(self) -> None:
        self.seen = 0

    def observe(self, observation: Observation) -> tuple[()]:
        self.seen += 1
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return tuple(range(self.seen))

    def act(self, generation: Generation) -> str:
        return "8"


class StubEnv:
    """Misbehaves on demand. `script` says per step: ok, win, crash, hang, slow."""

    def __init__(self, world: StubWorld) -> None:
        self.world = world
        self.step_number = 0
        self.closed = 0

    def reset(self, task: Task, seed: int) -> str:
        self.step_number = 0
        return "start"

    def step(self, action: str) -> StepResult:
        todo = self.world.next_behaviour(self)
        self.step_number += 1
        if todo == "crash":
            raise RuntimeError("the browser is gone")
        if todo == "hang":
            self.world.let_go.wait(60.0)
            self.world.hung_to_the_end = True
        if todo == "win":
            return StepResult(observation="won", reward=1.0, terminated=True, success=True)
        return StepResult(observation="go on")

    def fingerprint(self) -> str:
        return str(self.step_number)

    def close(self) -> None:
        self.closed += 1


class StubWorld:
    name, instructions, snapshots, max_turns = "stub", "", "none", 4

    def __init__(self, behaviours: list[str], execution: str = "thread") -> None:
        self.behaviours, self.execution = iter(behaviours), execution
        self.environments: list[StubEnv] = []
        self.closed = False
        self.let_go, self.hung_to_the_end = threading.Event(), False

    def next_behaviour(self, env: StubEnv) -> str:
        return next(self.behaviours, "win")

    def tasks(self, split: str) -> list[Task]:
        return [Task(id="stub", split="train")]

    def make(self) -> StubEnv:
        self.environments.append(StubEnv(self))
        return self.environments[-1]

    def close(self) -> None:
        self.closed = True
        self.let_go.set()


def collector(world: object, engine: object = None, *, limits: Limits = FAST, **changes: object) -> Collector:
    faults = changes.pop("faults", None) or FaultLog(None, max_frac=1.0)
    return Collector(
        world,
        EngineActor(engine or FixedEngine()),
        changes.pop("new_context", PlainContext),
        sampling=changes.pop("sampling", SAMPLING),
        limits=limits,
        faults=faults,
        **changes,
    )


def one(world: object, engine: object = None, **changes: object):
    made = collector(world, engine, **changes)
    try:
        return made.play([made.request("e", Task(id="stub", split="train"), 7)])[0]
    finally:
        made.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatCodec, TransformersEngine]]:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=TEXTS, hidden=32, layers=1)
    model, tokenizer = load_policy(folder)
    codec = ChatCodec(tokenizer)
    engine = TransformersEngine(model, context_length=512, stop_token_ids=codec.stop_token_ids)
    yield codec, engine
    engine.close()


@pytest.mark.parametrize("kind", [AppendOnly, Windowed])
def test_what_is_recorded_is_what_was_sampled(tiny, kind) -> None:
    codec, engine = tiny
    world = build_guess()
    context = kind(codec=codec, instructions=world.instructions, context_length=512)
    made = collector(world, engine, limits=Limits(max_turns=5, engine_call_s=60), new_context=context)
    task = world.tasks("train")[0]
    groups = made.collect(
        [GroupRequest(key=f"g{i}", task=task, seed=episode_seed("train", i), size=3) for i in range(4)]
    )
    made.close()
    assert [g.id for g in groups] == ["g0", "g1", "g2", "g3"]
    for trajectory in (t for g in groups for t in g.trajectories):
        assert trajectory.stop_reason in (StopReason.TERMINATED, StopReason.MAX_TURNS)
        for before, after in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            if kind is AppendOnly:  # the next prompt starts with the previous prompt and exactly the sampled ids
                history = before.prompt_ids + before.action_ids
                assert after.prompt_ids[: len(history)] == history
        for turn in trajectory.turns:
            assert len(turn.action_ids) == len(turn.action_logprobs) == len(turn.action_mask)
            assert turn.text == codec.decode_action(turn.action_ids)
            assert turn.finish == ("stop" if turn.action_ids[-1] in codec.stop_token_ids else "length")


def test_the_same_key_gives_the_same_episodes_whatever_else_runs(tiny) -> None:
    codec, engine = tiny
    world = build_guess()
    context = Windowed(codec=codec, instructions="", context_length=512)
    task = world.tasks("train")[0]
    request = GroupRequest(key="same", task=task, seed=episode_seed("train", 1), size=4)
    other = GroupRequest(key="other", task=task, seed=episode_seed("train", 2), size=4)
    texts = []
    for requests in ([request], [other, request]):
        made = collector(world, engine, limits=Limits(max_turns=4, engine_call_s=60), new_context=context)
        group = made.collect(requests)[-1]
        made.close()
        texts.append([[turn.action_ids for turn in t.turns] for t in group.trajectories])
    assert texts[0] == texts[1]
    assert len({str(t) for t in texts[0]}) > 1, "members of a group must draw differently"


def test_teachers_act_through_the_same_loop(tiny) -> None:
    codec, _ = tiny
    world = build_guess(max_turns=8)
    context = AppendOnly(codec=codec, instructions="", context_length=512)
    made = Collector(
        world,
        TeacherActor(world, codec.encode_action),
        context,
        sampling=SAMPLING,
        limits=Limits(max_turns=8),
        faults=FaultLog(None),
    )
    played = made.play([made.request(str(i), world.tasks("train")[0], episode_seed("train", i)) for i in range(5)])
    made.close()
    assert all(t.success and t.origin == "teacher" for t in played)
    turn = played[0].turns[-1]
    assert turn.spans[0].producer == "dataset" and turn.action_mask[-1] and not any(turn.policy_mask)


def test_a_crash_is_a_fault_retried_in_a_fresh_environment(tmp_path: Path) -> None:
    world = StubWorld(["ok", "crash", "win"])
    log = FaultLog(tmp_path / "faults.jsonl", max_frac=1.0)
    trajectory = one(world, faults=log)
    assert trajectory.success and trajectory.stop_reason is StopReason.TERMINATED and trajectory.retries == 1
    assert len(world.environments) == 2 and world.environments[0].closed >= 1
    line = json.loads((tmp_path / "faults.jsonl").read_text())
    assert line["stop_reason"] == "env_error" and "the browser is gone" in line["fault"] and line["turns"] == 1


def test_a_fault_that_stays_is_never_scored() -> None:
    trajectory = one(StubWorld(["crash"] * 9), retries=1)
    assert trajectory.stop_reason is StopReason.ENV_ERROR and trajectory.success is None
    assert trajectory.retries == 1 and not trajectory.learnable


def test_a_hanging_environment_is_given_up_after_its_deadline() -> None:
    world = StubWorld(["hang", "win"])
    made = collector(world, retries=1)
    [trajectory] = made.play([made.request("e", Task(id="stub", split="train"), 7)])
    assert trajectory.success and trajectory.retries == 1
    assert not world.hung_to_the_end, "the retry must not wait for the hanging call"
    made.close()


def test_a_hanging_engine_is_a_fault_of_the_engine() -> None:
    async def hang(_: str) -> None:
        await asyncio.sleep(30)

    trajectory = one(StubWorld([]), FixedEngine(behave=hang), retries=0)
    assert trajectory.stop_reason is StopReason.ENGINE_ERROR and "no answer within 0.5 s" in trajectory.fault


def test_an_engine_error_is_recorded() -> None:
    async def fail(_: str) -> None:
        raise EngineFault("out of memory")

    trajectory = one(StubWorld([]), FixedEngine(behave=fail), retries=0)
    assert trajectory.stop_reason is StopReason.ENGINE_ERROR and trajectory.fault == "out of memory"


def test_limits_are_truncations_and_count_as_failed() -> None:
    trajectory = one(StubWorld(["ok"] * 9))
    assert trajectory.stop_reason is StopReason.MAX_TURNS and len(trajectory.turns) == 4
    last = trajectory.turns[-1]
    assert trajectory.next_prompt_ids and trajectory.next_prompt_ids != last.prompt_ids, "a critic bootstraps from it"
    assert trajectory.turns[-1].truncated and not trajectory.turns[-1].terminated and trajectory.success is False
    slow = Limits(max_turns=100, episode_s=0.0, env_call_s=0.5, engine_call_s=0.5)
    assert one(StubWorld(["ok"] * 9), limits=slow).stop_reason is StopReason.TIMEOUT


def test_a_prompt_without_room_ends_the_episode_as_max_tokens(tiny) -> None:
    codec, engine = tiny
    context = AppendOnly(codec=codec, instructions="", context_length=40)
    world = build_guess(max_turns=50)
    made = collector(world, engine, limits=Limits(max_turns=50, engine_call_s=60), new_context=context)
    [trajectory] = made.play([made.request("long", world.tasks("train")[0], episode_seed("train", 0))])
    made.close()
    assert trajectory.stop_reason in (StopReason.MAX_TOKENS, StopReason.TERMINATED)
    assert all(len(t.prompt_ids) + SAMPLING.max_tokens <= 40 for t in trajectory.turns)


def test_an_episode_whose_first_prompt_leaves_no_room_has_no_verdict(tiny) -> None:
    codec, engine = tiny
    world = build_guess(max_turns=50)
    short = AppendOnly(codec=codec, instructions="", context_length=5)
    made = collector(world, engine, limits=Limits(max_turns=50, engine_call_s=60), new_context=short)
    [trajectory] = made.play([made.request("long", world.tasks("train")[0], episode_seed("train", 0))])
    made.close()
    assert trajectory.had_no_room and trajectory.success is None and not trajectory.learnable


def test_each_turn_carries_the_state_it_was_decided_in_and_nothing_is_asked_after_the_end() -> None:
    class Asked(StubEnv):
        asked: list[int]

        def fingerprint(self) -> str:
            self.asked.append(self.step_number)
            return super().fingerprint()

    class World(StubWorld):
        def make(self) -> StubEnv:
            env = Asked(self)
            env.asked = asked
            return env

    for behaviours, expected in ((["ok", "ok", "win"], [0, 1, 2]), (["ok"] * 9, [0, 1, 2, 3])):
        asked: list[int] = []
        trajectory = one(World(behaviours))
        assert [turn.state_key for turn in trajectory.turns] == [str(state) for state in expected]
        assert asked == expected, "a world that has ended may have no state left to name"


def test_too_many_faults_stop_the_run_with_the_table() -> None:
    made = collector(StubWorld(["crash"] * 99), retries=0, faults=FaultLog(None, max_frac=0.5, grace=4))
    task = Task(id="stub", split="train")
    with pytest.raises(FaultBudgetExceeded, match="environment"):
        made.play([made.request(str(i), task, i) for i in range(8)])
    made.close()


def test_the_watchdog_names_who_waits() -> None:
    async def hang(_: str) -> None:
        await asyncio.sleep(30)

    limits = Limits(max_turns=2, env_call_s=60.0, engine_call_s=60.0)
    made = collector(StubWorld([]), FixedEngine(behave=hang), limits=limits, stall_s=0.4)
    with pytest.raises(StalledRollout, match=r"e waits for engine\.generate"):
        made.play([made.request("e", Task(id="stub", split="train"), 1)])
    made.close()


def test_environments_are_reused_and_all_closed_at_the_end() -> None:
    world = StubWorld(["win"] * 20)
    made = collector(world, parallel_episodes=2)
    task = Task(id="stub", split="train")
    made.play([made.request(str(i), task, i) for i in range(10)])
    made.close()
    made.close()
    assert len(world.environments) <= 2 and world.closed and all(env.closed for env in world.environments)


def test_metrics_leave_faults_out_of_the_means() -> None:
    made = collector(StubWorld(["win", "crash"], execution="inline"), retries=0, parallel_episodes=1)
    group = made.collect([GroupRequest(key="g", task=Task(id="stub", split="train"), seed=1, size=2)])[0]
    made.close()
    metrics = rollout_metrics([group])
    assert metrics["rollout/env_error_frac"] == 0.5
    assert metrics["rollout/success_frac"] == 1.0 and metrics["reward/total_mean"] == 1.0


def test_a_group_that_lost_members_is_refilled_and_the_lost_ones_stay_in_the_record() -> None:
    made = collector(
        StubWorld(["win", "crash", "win", "win"], execution="inline"), retries=0, refills=1, parallel_episodes=1
    )
    [group] = made.collect([GroupRequest(key="g", task=Task(id="stub", split="train"), seed=1, size=3)])
    made.close()
    assert [t.id for t in group.trajectories] == ["g/0", "g/1", "g/2", "g/3"]
    assert [t.learnable for t in group.trajectories] == [True, False, True, True]


def test_threads_that_hang_are_replaced_however_many_there_are() -> None:
    world = StubWorld(["hang"] * 6 + ["win"] * 9)
    made = collector(world, retries=0, parallel_episodes=2, limits=Limits(max_turns=4, env_call_s=0.3))
    task = Task(id="stub", split="train")
    played = made.play([made.request(str(i), task, i) for i in range(9)])
    made.close()
    assert sum(t.stop_reason is StopReason.ENV_ERROR for t in played) == 6
    assert sum(bool(t.success) for t in played) == 3, "calls that hang must not use up the threads of the others"


def test_an_inline_world_that_hangs_stops_the_run_and_shows_where() -> None:
    world = StubWorld(["hang"], execution="inline")
    made = collector(world, limits=Limits(max_turns=4, env_call_s=0.1))
    made._loop.blocked_s = 0.5
    with pytest.raises(StalledRollout, match=r"(?s)blocked.*let_go\.wait"):
        made.play([made.request("e", Task(id="stub", split="train"), 1)])
    world.let_go.set()
    made.close()


def test_a_coroutine_that_ignores_its_cancellation_is_left_behind() -> None:
    from rollwright.run_io.workers import bounded

    async def stubborn() -> None:
        for _ in range(30):
            try:
                await asyncio.sleep(1.0)
            except asyncio.CancelledError:
                continue

    async def main() -> float:
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            await bounded(stubborn(), 0.1, grace_s=0.2)
        return time.monotonic() - before

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) < 5.0


def test_a_reward_that_fails_is_a_fault_and_nobody_learns_from_its_group(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def score(self, group: object) -> list[object]:
            raise OSError("the judge is down")

    log = FaultLog(tmp_path / "faults.jsonl", max_frac=0.5, grace=1)
    made = collector(StubWorld(["win", "win"]), faults=log)
    [group] = made.collect([GroupRequest(key="g", task=Task(id="stub", split="train"), seed=1, size=2)])
    made.close()
    log.max_frac = 1.0
    scored = score_or_note(group, Broken(), log)
    assert not any(t.learnable for t in scored.trajectories) and scored.trajectories[0].turns[0].reward == 1.0
    assert all(t.score is not None and t.score.value is None for t in scored.trajectories)
    line = json.loads((tmp_path / "faults.jsonl").read_text())
    assert line["kind"] == "reward" and "the judge is down" in line["fault"] and log.lost == 2
    log.max_frac = 0.5
    with pytest.raises(FaultBudgetExceeded, match="reward"):
        score_or_note(group, Broken(), log)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        ("go on", 1.0, True),
        StepResult(observation=b"\xff\x00"),  # type: ignore[arg-type]
        StepResult(observation="go on", reward=float("nan")),
        StepResult(observation="go on", reward={"env": "much"}),  # type: ignore[dict-item]
        StepResult(observation="go on", reward=1e300),
        StepResult(observation="go on", reward=10**400),
        StepResult(observation="go on", reward=10**5000),
    ],
)
def test_garbage_from_a_world_is_a_fault_and_no_turn(answer: object) -> None:
    class Garbage(StubEnv):
        def step(self, action: str) -> StepResult:
            return answer  # type: ignore[return-value]

    class World(StubWorld):
        def make(self) -> StubEnv:
            return Garbage(self)

    trajectory = one(World([]), retries=0)
    assert trajectory.stop_reason is StopReason.ENV_ERROR and "expected" in trajectory.fault and not trajectory.turns
