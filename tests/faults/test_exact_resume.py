"""A run that is killed and resumed ends with the bits of the run that was not; what that rests on, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from rollwright.contracts.environment import Observation, episode_seed
from rollwright.contracts.errors import ConfigError, EngineFault, ReplayMismatch, RunFolderError
from rollwright.contracts.record import Span
from rollwright.envs.text.maze import build as build_maze
from rollwright.generation.engine import Ask, Generation, Sampling
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import Collector, FaultLog, GroupRequest, Journal, Limits, RoundsActor
from rollwright.rollout.actors import Decision
from rollwright.rollout.contexts import Windowed
from rollwright.run_io.checkpoint import Checkpoints
from rollwright.run_io.tracking import RunFolder, Tracker
from rollwright.training.resumption import random_state, refuse_changes, set_random_state

ROOT = Path(__file__).parents[2]
MAZE = {"wording": "compact", "maze": "umaze"}


def decision(turn: int = 0, *, text: str = "at 1,1", attempt: int = 0, seed: int = 5) -> Decision:
    return Decision(
        prompt_ids=(1, 2, turn),
        sampling=Sampling(seed=seed),
        request_id=f"e/{turn}",
        observation=Observation(text=text),
        env=None,
        episode="e",
        attempt=attempt,
    )


ANSWER = Generation(
    token_ids=(3, 4), logprobs=(-0.1, -1 / 3), finish_reason="stop", spans=(Span(start=0, end=2, version=7),)
)


def test_a_journal_gives_back_exactly_what_was_sampled(tmp_path: Path) -> None:
    Journal(tmp_path / "j", run="a").record([(decision(0), ANSWER), (decision(1), ANSWER)], version=7)
    journal = Journal(tmp_path / "j", run="a")
    assert journal.load() == 2
    again = journal.recall(decision(1), version=7)
    assert again is not None and (again.token_ids, again.logprobs, again.spans) == (
        (3, 4),
        (-0.1, -1 / 3),
        ANSWER.spans,
    )
    for other in (decision(2), decision(1, attempt=1), decision(1, seed=6)):
        assert journal.recall(other, version=7) is None
    assert journal.recall(decision(1), version=8) is None, "other weights sample something else"


def test_a_world_that_does_not_repeat_itself_is_a_fault_and_its_episode_is_given_up(tmp_path: Path) -> None:
    Journal(tmp_path / "j", run="a").record([(decision(0), ANSWER), (decision(1), ANSWER)], version=7)
    journal = Journal(tmp_path / "j", run="a")
    journal.load()
    with pytest.raises(ReplayMismatch, match="e/0"):
        journal.recall(decision(0, text="at 2,2"), version=7)
    assert journal.recall(decision(1), version=7) is None


def test_a_torn_line_ends_the_journal_and_new_lines_follow_the_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = Journal(path, run="a")
    first.record([(decision(0), ANSWER)], version=7)
    first.record([(decision(1), ANSWER)], version=7)
    path.write_bytes(path.read_bytes()[:-20])
    second = Journal(path, run="a")
    assert second.load() == 1
    second.record([(decision(2), ANSWER)], version=7)
    third = Journal(path, run="a")
    assert third.load() == 2 and third.recall(decision(2), version=7) is not None


def test_a_journal_of_other_settings_is_not_used(tmp_path: Path) -> None:
    Journal(tmp_path / "j", run="a").record([(decision(0), ANSWER)], version=7)
    assert Journal(tmp_path / "j", run="b").load() == 0


def test_a_changed_digit_ends_the_journal(tmp_path: Path) -> None:
    """A log-prob or an id of its own would be trained on as if it had been sampled."""
    path = tmp_path / "j"
    journal = Journal(path, run="a")
    for turn in range(3):
        journal.record([(decision(turn), ANSWER)], version=7)
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]  # of the heading and three lines
    for place in [p for p in range(len(whole)) if whole[p : p + 1].isdigit()]:
        path.write_bytes(whole[:place] + (b"1" if whole[place : place + 1] != b"1" else b"2") + whole[place + 1 :])
        again = Journal(path, run="a")
        known = again.load()
        assert known == sum(place > end for end in ends[1:3]), place
        for turn in range(known):
            found = again.recall(decision(turn), version=7)
            assert found is not None and found.logprobs == ANSWER.logprobs and found.token_ids == ANSWER.token_ids


def test_a_journal_that_follows_another_checkpoint_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "j", run="a")
    journal.clear(after=4)
    journal.record([(decision(0), ANSWER)], version=7)
    assert Journal(tmp_path / "j", run="a").load(after=4) == 1
    assert Journal(tmp_path / "j", run="a").load(after=2) == 0, "the newest checkpoint was damaged"
    assert "follows the checkpoint of step 4 and the run goes on from step 2" in caplog.text


def test_a_journal_of_an_older_release_is_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", run="a")
    journal.record([(decision(0), ANSWER)], version=7)
    rows = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    plain = [{k: v for k, v in row.items() if k not in ("seal", "sealed", "after")} for row in rows]
    (tmp_path / "j").write_text("".join(json.dumps(row) + "\n" for row in plain))
    assert Journal(tmp_path / "j", run="a").load(after=4) == 1


def test_a_cleared_journal_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", run="a")
    journal.record([(decision(0), ANSWER)], version=7)
    journal.clear()
    assert not (tmp_path / "j").exists() and Journal(tmp_path / "j", run="a").load() == 0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    world = build_maze(**MAZE)
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=world.texts(), hidden=64, layers=2)
    model, tokenizer = load_policy(folder)
    codec = ChatCodec(tokenizer)
    engine = TransformersEngine(model, context_length=256, stop_token_ids=codec.stop_token_ids)
    yield engine, codec
    engine.close()


def asks(count: int) -> list[Ask]:
    return [
        Ask(prompt_ids=tuple(range(3, 8 + i % 4)), sampling=Sampling(max_tokens=6, seed=i), request_id=str(i))
        for i in range(count)
    ]


def test_a_whole_batch_is_the_same_bits_whatever_was_asked_before(engine) -> None:
    sampler, _ = engine
    first = asyncio.run(sampler.generate_together(asks(9)))
    asyncio.run(sampler.generate_together(asks(3)))
    second = asyncio.run(sampler.generate_together(asks(9)))
    assert [(a.token_ids, a.logprobs) for a in first] == [(a.token_ids, a.logprobs) for a in second]


def test_one_bad_ask_does_not_sink_the_batch(engine) -> None:
    sampler, _ = engine
    good = asks(2)
    bad = Ask(prompt_ids=(), sampling=Sampling(), request_id="bad")
    answers = asyncio.run(sampler.generate_together([good[0], bad, good[1]]))
    assert isinstance(answers[1], EngineFault) and isinstance(answers[0], Generation)
    assert isinstance(answers[2], Generation)


def play(engine, *, delays: random.Random, journal: Journal | None = None, parallel: int = 5):
    """Eight episodes in rounds, in a world that answers after a random while."""
    sampler, codec = engine
    world = build_maze(**MAZE)
    world.execution = "thread"
    original = world.make

    def make():
        env = original()
        step = env.step

        def slow(action: str):
            time.sleep(delays.random() * 0.01)
            return step(action)

        env.step = slow
        return env

    world.make = make
    actor = RoundsActor(sampler, engine_call_s=60, journal=journal)
    made = Collector(
        world,
        actor,
        Windowed(codec=codec, instructions="", context_length=256, history=2),
        sampling=Sampling(max_tokens=4, stop_token_ids=tuple(codec.stop_token_ids)),
        limits=Limits(max_turns=5),
        faults=FaultLog(None),
        parallel_episodes=parallel,
    )
    task = world.tasks("train")[0]
    try:
        groups = made.collect(
            [GroupRequest(key=f"g{i}", task=task, seed=episode_seed("train", i), size=4) for i in (0, 1)]
        )
    finally:
        made.close()
    return [
        (t.id, [(u.action_ids, u.action_logprobs, u.prompt_ids) for u in t.turns])
        for g in groups
        for t in g.trajectories
    ]


def test_rounds_give_the_same_bits_whatever_the_world_s_pace(engine) -> None:
    assert play(engine, delays=random.Random(1)) == play(engine, delays=random.Random(2))


def test_a_replayed_play_asks_the_engine_only_for_what_is_missing(engine, tmp_path: Path) -> None:
    written = Journal(tmp_path / "j", run="a")
    whole = play(engine, delays=random.Random(1), journal=written)
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:4]))  # the heading and three rounds
    journal = Journal(tmp_path / "j", run="a")
    known = journal.load()
    assert known == 15, "three rounds of five slots"
    assert play(engine, delays=random.Random(3), journal=journal) == whole
    assert journal.recalled == known
    rewritten = Journal(tmp_path / "j", run="a")
    assert rewritten.load() == Journal(tmp_path / "j", run="a").load() > known


def test_random_generators_come_back(tmp_path: Path) -> None:
    state = json.loads(json.dumps(random_state()))
    drawn = (random.random(), float(numpy.random.rand()), float(torch.rand(1)))
    set_random_state(state)
    assert drawn == (random.random(), float(numpy.random.rand()), float(torch.rand(1)))


def test_metrics_are_rewound_to_the_byte_and_kept_aside(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, config_yaml="")
    tracker = Tracker(folder)
    tracker.log(0, {"a/b": 1.0})
    position = tracker.position
    tracker.log(40, {"a/b": 2.0})  # an evaluation counts other steps than the loop
    assert tracker.rewind(position) > 0 and tracker.rewind(position) == 0
    assert json.loads(folder.metrics.read_text())["step"] == 0
    assert json.loads((tmp_path / "metrics.superseded.jsonl").read_text())["step"] == 40


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    from rollwright.training.loop_config import LoopConfig

    config = LoopConfig.model_validate({"world": {"name": "text.maze"}})
    saved = {"config": config.model_dump(mode="json"), "world_size": 2}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, lambda folder: None, saved)
    found = checkpoints.latest()
    assert found is not None
    refuse_changes(found, config, world_size=2, folder=tmp_path)
    with pytest.raises(ConfigError, match="written by 2 processes and 1 were started"):
        refuse_changes(found, config, world_size=1, folder=tmp_path)
    other = LoopConfig.model_validate({"world": {"name": "text.maze"}, "learner": {"learning_rate": 0.5}})
    with pytest.raises(ConfigError, match=r"learner\.learning_rate"):
        refuse_changes(found, other, world_size=2, folder=tmp_path)
    del saved["config"]["learner"]["learning_rate"], saved["config"]["rollout"]["refills"]  # by an older version
    checkpoints.save(2, lambda folder: None, saved)
    older = checkpoints.latest()
    assert older is not None and older.step == 2
    refuse_changes(older, config, world_size=2, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"other settings: learner\.learning_rate\."):
        refuse_changes(older, other, world_size=2, folder=tmp_path)


def benchmark(*words: str) -> dict:
    command = [sys.executable, "benchmarks/resume.py", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, env={**os.environ})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    found = benchmark("--kills", "5", "--folder", str(tmp_path))
    assert found["kills"] == 5 and found["differences"] == 0
    assert found["compared"]["trajectories"] >= 100 and found["compared"]["state"] >= 50
    assert len(found["kills_by_phase"]) >= 3


@pytest.mark.long
def test_must_resume_refuses_an_empty_folder(run_recipe: Callable[..., None], tmp_path: Path) -> None:
    words = ["model.path=tiny", "run.resume=must", f"run.folder={tmp_path}"]
    with pytest.raises(RunFolderError, match="no usable checkpoint"):
        run_recipe("grpo.py", "text/maze_grpo.yaml", *words)


def ranks_of(launcher: int) -> list[int]:
    """The processes under a launcher that run the recipe."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [launcher]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    ours = []
    for pid in found[1:]:
        with contextlib.suppress(OSError):
            if b"recipes/grpo.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                ours.append(pid)
    return ours


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_that_dies_ends_the_run_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_tiny_model(tmp_path / "tiny", texts=build_maze(wording="compact").texts(), hidden=32, layers=1)
    words = [f"model.path={tmp_path / 'tiny'}", f"run.folder={run}", "run.steps=100000", "run.checkpoint_every=1"]
    words += ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.max_turns=2", "rollout.schedule=rounds"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu_zero1.yaml"]
    command += ["recipes/grpo.py", "recipes/text/maze_grpo.yaml", *words]
    with (tmp_path / "log").open("wb") as log:
        launcher = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        while not list((run / "checkpoints").glob("step_*")):
            assert launcher.poll() is None, (tmp_path / "log").read_text()[-4000:]
            time.sleep(0.5)
        os.kill(ranks_of(launcher.pid)[-1], signal.SIGKILL)
        assert launcher.wait(timeout=600) != 0
    finally:
        for pid in [*ranks_of(launcher.pid), launcher.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert Checkpoints(run / "checkpoints").latest() is not None
