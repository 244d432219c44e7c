"""Running ahead for real: k = 0 is the synchronous loop bit for bit, spans tell the truth, no fault becomes a hang."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rollwright.batching.credit import flatten
from rollwright.batching.packing import segment_of
from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import StalledRollout
from rollwright.contracts.record import Group, Span
from rollwright.curriculum.samplers import UniformCurriculum
from rollwright.envs.text.guess_number import build as build_guess
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import grpo
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.rollout.contexts import Windowed
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.run_io.tracking import read_metrics
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.collection import Collection, OnPolicy, Requests
from rollwright.training.loop import Training
from rollwright.training.pipeline import Pipeline

TEXTS = ["Guess a number from 1 to 16.", *map(str, range(17)), "Higher.", "Lower.", "Correct.", "Answer with one whole"]
STEPS, GROUPS, MEMBERS, SEED = 3, 2, 4, 11
PATIENT = Limits(max_turns=4, episode_s=600.0, env_call_s=300.0, engine_call_s=300.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=TEXTS, hidden=32, layers=1)


class Parts:
    """Engine, collector and learner of a small run. One episode at a time is one order of arithmetic."""

    def __init__(self, folder: Path, *, parallel_episodes: int) -> None:
        model, tokenizer = load_policy(folder)
        codec = ChatCodec(tokenizer)
        self.world = build_guess()
        self.engine = TransformersEngine(model, context_length=128, stop_token_ids=codec.stop_token_ids)
        self.collector = Collector(
            self.world,
            EngineActor(self.engine),
            Windowed(codec=codec, instructions="", context_length=128),
            sampling=Sampling(max_tokens=4),
            limits=PATIENT,
            faults=FaultLog(None),
            parallel_episodes=parallel_episodes,
        )
        self.learner = Learner(Accelerator(cpu=True), load_policy(folder)[0], learning_rate=1e-2, token_budget=512)
        self.curriculum = UniformCurriculum(self.world.tasks("train"), seed=SEED)

    def pipeline(self, max_staleness: int) -> Collection:
        settings = RolloutSettings(groups_per_step=GROUPS, group_size=MEMBERS, max_staleness=max_staleness)
        requests = Requests(settings, self.curriculum, seed=SEED)
        if not max_staleness:
            return OnPolicy(requests, self.collector.collect)
        return Pipeline(requests, self.collector.start, version=lambda: self.engine.version, steps=STEPS)

    def learn(self, groups: list[Group]) -> None:
        """A game that a random policy never wins teaches nothing, so even ids are praised here and odd ones blamed."""
        batch = flatten(groups)
        ids = torch.tensor([token for turn in batch.turns for token in turn.action_ids])
        self.learner.update(batch.with_columns(advantages=1.0 - 2.0 * (ids % 2)), PolicyObjective())
        self.engine.load_weights(self.learner.weights(), version=self.engine.version + 1)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.learner.weights()}

    def close(self) -> None:
        self.collector.close()
        self.engine.close()


@pytest.fixture
def make_parts(folder: Path) -> Iterator[Callable[..., Parts]]:
    made: list[Parts] = []

    def make(**settings: Any) -> Parts:
        made.append(Parts(folder, **settings))
        return made[-1]

    yield make
    for parts in made:
        parts.close()


def actions(groups: list[Group]) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(t.id, turn.version, turn.action_ids) for g in groups for t in g.trajectories for turn in t.turns]


def test_with_k_0_the_numbers_are_those_of_the_plain_loop_bit_for_bit(make_parts: Callable[..., Parts]) -> None:
    plain, piped = make_parts(parallel_episodes=1), make_parts(parallel_episodes=1)
    pipeline = piped.pipeline(0)
    for step in range(STEPS):
        tasks = plain.curriculum.next(step, GROUPS)
        requests = [
            GroupRequest(key=f"{SEED}/{step}/{i}", task=task, seed=episode_seed("train", SEED, step, i), size=MEMBERS)
            for i, task in enumerate(tasks)
        ]
        collected, taken = plain.collector.collect(requests), pipeline.take(step)
        assert actions(collected) == actions(taken)
        assert {turn.version for g in taken for t in g.trajectories for turn in t.turns} == {step}
        plain.learn(collected)
        piped.learn(taken)
    left, right = plain.weights(), piped.weights()
    assert all(torch.equal(left[name], right[name]) for name in left)
    begun = make_parts(parallel_episodes=1).weights()
    assert not all(torch.allclose(left[name], begun[name], atol=1e-3) for name in left), "nothing was learned at all"


def test_every_token_was_sampled_from_the_weights_its_span_names(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(parallel_episodes=8)
    pipeline = parts.pipeline(2)
    policies, turns, ages = [copy.deepcopy(parts.learner.policy)], [], []
    for step in range(STEPS):
        groups = pipeline.take(step)
        turns += [turn for g in groups for t in g.trajectories for turn in t.turns]
        metrics = pipeline.metrics()
        ages.append(metrics["rollout/staleness_max"])
        assert metrics["rollout/stale_frac"] == 0
        parts.learn(groups)
        policies.append(copy.deepcopy(parts.learner.policy))
    pipeline.close()
    assert max(ages) >= 1, "the generator should have been ahead of the learner"
    assert max(ages) <= 2
    scorers = [Learner(Accelerator(cpu=True), policy, learning_rate=1.0) for policy in policies]
    wrong = 0.0
    for turn in turns:
        batch = TokenBatch.of([segment_of(turn, sequence=0)])
        by_version = [scorer.logprobs(batch) for scorer in scorers]
        for span in turn.spans:
            said = torch.tensor(turn.action_logprobs[span.start : span.end])
            errors = [float((said - row[span.start : span.end]).abs().max()) for row in by_version]
            assert errors[span.version] < 1e-3
            wrong = max(wrong, *errors)
    assert wrong > 1e-2, "the versions must differ, or this test shows nothing"


class OneAnswer:
    """An engine that does whatever `behave` does, then answers."""

    name, version, context_length = "one", 0, 128

    def __init__(self, behave: Callable[[], Any]) -> None:
        self.behave = behave

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        await self.behave()
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(1,), logprobs=(-0.5,), finish_reason="stop", spans=(span,))


def ahead_with(engine: OneAnswer, folder: Path, limits: Limits, **settings: Any) -> tuple[Collector, Pipeline]:
    world = build_guess()
    codec = ChatCodec(load_policy(folder)[1])
    collector = Collector(
        world,
        EngineActor(engine),
        Windowed(codec=codec, instructions="", context_length=128),
        sampling=Sampling(max_tokens=1),
        limits=limits,
        faults=FaultLog(None, max_frac=1.0),
        **settings,
    )
    keys = RolloutSettings(groups_per_step=2, group_size=2, max_staleness=2)
    tasks = UniformCurriculum(world.tasks("train"), seed=0)
    return collector, Pipeline(Requests(keys, tasks, seed=0), collector.start, version=lambda: 0, steps=9)


def test_a_bug_in_the_generator_ends_the_learners_wait_with_its_own_error(folder: Path) -> None:
    async def bug() -> None:
        raise ZeroDivisionError("a bug of ours")

    collector, pipeline = ahead_with(OneAnswer(bug), folder, PATIENT)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        pipeline.take(0)
    pipeline.close()
    collector.close()


def test_a_generator_that_does_not_move_ends_the_wait_with_who_waits_for_whom(folder: Path) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    collector, pipeline = ahead_with(OneAnswer(hang), folder, PATIENT, stall_s=1.0)
    with pytest.raises(StalledRollout, match=r"waits for engine\.generate"):
        pipeline.take(0)
    pipeline.close()
    collector.close()


def test_what_is_in_flight_is_given_up_when_the_run_ends(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(parallel_episodes=2)
    pipeline = parts.pipeline(2)
    pipeline.take(0)
    pipeline.close()
    parts.collector.stop()
    assert not parts.collector._plays and not parts.collector._statuses
    assert parts.collector.occupancy._at == {"engine": 0, "environment": 0}


@pytest.mark.slow
def test_a_run_that_was_ahead_goes_on_after_a_stop(tmp_path: Path) -> None:
    words = ["recipes/text/maze_grpo.yaml", "model.path=tiny", f"run.folder={tmp_path}", "rollout.max_staleness=2"]
    words += ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.max_turns=4", "evaluation.seeds_per_task=1"]
    words += ["evaluation.max_turns=2", "algorithm.drop_equal_groups=false", "run.checkpoint_every=1"]
    grpo.main([*words, "run.steps=2"])
    grpo.main([*words, "run.steps=4"])
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert all((row.get("time/evaluate_s", 0.0) > 0) == ("eval/success_frac" in row) for row in lines)
    rows = [row for row in lines if "rollout/staleness_max" in row]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["rollout/staleness_max"] <= 2 for row in rows)
    assert rows[2]["rollout/staleness_max"] == 0, "what ran ahead is played anew, by the weights of the checkpoint"
    for lane in ("generator", "learner"):
        total = sum(seconds for name, seconds in rows[1].items() if name.startswith(f"ledger/{lane}"))
        assert total == pytest.approx(rows[1]["time/step_s"], abs=0.05)
    headers = TrajectoryStore(tmp_path / "trajectories", mode="read").headers()
    names = [row["id"] for _, row in headers if row["tag"].startswith("step_")]
    assert len(names) == len(set(names)) == 4 * 2 * 2


@pytest.mark.slow
def test_a_run_that_stops_on_an_error_has_stored_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["recipes/text/maze_grpo.yaml", "model.path=tiny", f"run.folder={tmp_path}", "rollout.max_staleness=2"]
    words += ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.max_turns=4", "evaluation.seeds_per_task=1"]
    words += ["evaluation.max_turns=2", "algorithm.drop_equal_groups=false", "run.checkpoint_every=1", "run.steps=3"]
    finished, sync = [], Training.sync

    def fail(run: Training) -> None:
        if run.next_step == 1:
            raise RuntimeError("the network is gone")
        sync(run)

    noted = FaultLog.finished
    with monkeypatch.context() as patched:
        patched.setattr(Training, "sync", fail)
        patched.setattr(FaultLog, "finished", lambda log, t: (finished.append(t.id), noted(log, t))[-1])
        with pytest.raises(RuntimeError, match="the network is gone"):
            grpo.main(words)
    stored = list(TrajectoryStore(tmp_path / "trajectories", mode="read").iter_trajectories(split="train"))
    unused = [t for t in stored if t.score is not None and t.score.verifier == "staleness"]
    groups = Counter(name.rpartition("/")[0] for name in finished)  # of one that was not whole nothing can be used
    assert {name for name in finished if groups[name.rpartition("/")[0]] == 2} <= {t.id for t in stored}
    assert len(unused) >= 4 and not any(t.learnable for t in unused)
    grpo.main(words)
    names = [t.id for t in TrajectoryStore(tmp_path / "trajectories", mode="read").iter_trajectories(split="train")]
    assert len(names) == len(set(names)) == 3 * 2 * 2, "those were set aside when their steps were played anew"
