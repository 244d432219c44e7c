"""Evaluation, store and report on what a real engine does in a real world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.contracts.record import Group, Trajectory
from rollwright.envs.text.guess_number import build as build_guess
from rollwright.evaluation import Evaluation, compare, evaluate, save_evaluation, summarise
from rollwright.generation.engine import Sampling
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits, TeacherActor
from rollwright.rollout.contexts import AppendOnly
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.view import write_report, write_transcripts

TEXTS = ["Guess a number from 1 to 16.", *map(str, range(17)), "Higher.", "Lower.", "Correct.", "Answer with one whole"]

Played = tuple[Evaluation, list[Trajectory]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatCodec, TransformersEngine]]:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=TEXTS, hidden=32, layers=1)
    model, tokenizer = load_policy(folder)
    codec = ChatCodec(tokenizer)
    engine = TransformersEngine(model, context_length=512, stop_token_ids=codec.stop_token_ids)
    yield codec, engine
    engine.close()


def judged(codec: ChatCodec, engine: TransformersEngine | None, name: str, temperature: float = 0.0) -> Played:
    """The policy, or without an engine the world's teacher, on the same held-out starts."""
    world = build_guess(max_turns=8)
    made = Collector(
        world,
        EngineActor(engine) if engine is not None else TeacherActor(world, codec.encode_action),
        AppendOnly(codec=codec, instructions=world.instructions, context_length=512),
        sampling=Sampling(max_tokens=4),
        limits=Limits(max_turns=8, engine_call_s=60),
        faults=FaultLog(None),
    )
    sampling = Sampling(max_tokens=4, temperature=temperature)
    try:
        return evaluate(made.play, world.tasks("test"), name=name, split="test", sampling=sampling, seeds_per_task=8)
    finally:
        made.close()


def test_the_same_weights_on_the_same_starts_give_the_same_record(tiny: tuple[ChatCodec, TransformersEngine]):
    codec, engine = tiny
    for temperature in (0.0, 1.0):
        first, second = (judged(codec, engine, "x", temperature)[0] for _ in range(2))
        assert first.rows == second.rows and first.version == engine.version
        assert first.temperature == temperature


def test_a_run_from_episodes_to_verdict_and_report(
    tiny: tuple[ChatCodec, TransformersEngine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    codec, engine = tiny
    policy, episodes = judged(codec, engine, "policy", temperature=1.0)
    teacher, shown = judged(codec, None, "teacher", temperature=1.0)
    success = summarise(teacher).success
    assert success is not None and success.point == 1.0  # bisection of 16 numbers needs 5 of the 8 turns
    assert compare(policy, teacher, name_a="policy", name_b="teacher").verdict().startswith("teacher is better")

    store = TrajectoryStore(tmp_path / "trajectories")
    store.append(episodes, tag="eval_policy")
    store.append(shown, tag="eval_teacher")
    assert list(TrajectoryStore(tmp_path / "trajectories", mode="read").iter_trajectories()) == episodes + shown

    one = Group(id="g", task=shown[0].task, seed=shown[0].seed, trajectories=(shown[0],))
    assert "reward" in write_transcripts([one], tmp_path / "transcripts" / "step_0.txt").read_text()
    files = [str(save_evaluation(found, tmp_path)) for found in (policy, teacher)]
    assert cli.main(["compare", *files]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("teacher is better than policy")
    assert "Guess" in write_report(tmp_path).read_text()
