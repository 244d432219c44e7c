"""The recipe that collects: it fills the gaps of a damaged store, keeps what a reward cannot score, and says so."""

from __future__ import annotations

import json
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.errors import FaultBudgetExceeded
from rollwright.contracts.record import Group, Score, StopReason, Trajectory
from rollwright.contracts.reward import EnvReward
from rollwright.methods.store_filling import worth_of_store
from rollwright.recipes import collect
from rollwright.store.trajectory_store import TrajectoryStore

SMALL = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
SHORT = ["collect.by=random", "world.options.max_turns=3", "collect.per_task=3", "collect.shard=4"]

Run = Callable[..., TrajectoryStore]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """(*words): the store of a short collection of random walks; always the same folder."""
    monkeypatch.chdir(Path(__file__).parents[2])

    def collected(*words: str) -> TrajectoryStore:
        collect.main(["recipes/text/maze_collect.yaml", *SMALL, *SHORT, f"run.folder={tmp_path / 'run'}", *words])
        return TrajectoryStore(tmp_path / "run" / "trajectories")

    return collected


def played(store: TrajectoryStore) -> dict[str, Any]:
    """What was done in each episode, by its name; refuses a name that is there twice."""
    names = Counter(row["id"] for _, row in store.headers())
    assert set(names.values()) == {1}, names
    return {t.id: [turn.action_ids for turn in t.turns] for t in store.iter_trajectories()}


class Moody:
    """The world's own reward, except for the episodes for which `fails` says so."""

    name = "moody"

    def __init__(self, fails: Callable[[Trajectory], bool], *, raises: bool) -> None:
        self.fails, self.raises = fails, raises

    def score(self, group: Group) -> Sequence[Score]:
        scores = EnvReward().score(group)
        if not any(self.fails(t) for t in group.trajectories):
            return scores
        if self.raises:
            raise OSError("the judge is down")
        return [replace(score, value=None, message="who knows") for score in scores]


@pytest.mark.parametrize("table", ["turns", "trajectories"])
@pytest.mark.parametrize("lost", [0, 1])
def test_the_episodes_of_a_damaged_shard_are_played_again(run: Run, table: str, lost: int) -> None:
    before = run()
    whole = played(before)
    numbers = before.shard_numbers()
    assert numbers == [0, 1, 2]
    file = before.folder / table / f"{lost:06d}.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    after = run()
    assert played(after) == whole, "the lost four, and only those, with the very same actions"
    assert after.shard_numbers() == [number for number in range(4) if number != lost]
    assert run().shard_numbers() == after.shard_numbers(), "nothing is left to play"


def test_a_reward_that_raises_costs_no_episode(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Moody(lambda t: t.id.endswith("/1"), raises=True)
    monkeypatch.setattr(collect, "open_reward", lambda _: reward)
    store = run("rollout.max_fault_frac=1")
    by_name = {t.id: t for t in store.iter_trajectories()}
    assert len(by_name) == len(played(store)) >= 9
    assert {name for name, t in by_name.items() if not t.learnable} == {n for n in by_name if n.endswith("/1")}
    lines = [json.loads(line) for line in (tmp_path / "run" / "faults.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"reward"} and len(lines) == len(by_name) // 3
    assert all("the judge is down" in line["fault"] for line in lines)


def test_a_reward_that_fails_too_often_stops_after_the_shard_is_stored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "open_reward", lambda _: Moody(lambda t: True, raises=True))
    with pytest.raises(FaultBudgetExceeded, match="reward"):
        run("collect.per_task=30", "collect.shard=24", "rollout.max_fault_frac=0.5")
    stored = list(TrajectoryStore(tmp_path / "run" / "trajectories").iter_trajectories())
    assert len(stored) == 24 and not any(t.learnable for t in stored)
    assert {t.score.message.split(":")[0] for t in stored if t.score} == {"no score"}


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_dead_judge_is_told_of(
    run: Run, closed_port: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{{url: 'http://127.0.0.1:{closed_port}/v1', model: m, cache: null, retries: 0}}"
    store = run("reward.name=judge", f"reward.options={options}")
    said = capsys.readouterr().out.splitlines()[-2]
    assert f"{len(store)} episodes" in said and f"{len(store)} UNDECIDED" in said
    assert "no return known" in said and "mean return" not in said
    [record] = [r for r in caplog.records if "undecided" in r.message or "NOTHING" in r.message]
    assert (
        record.levelno == logging.ERROR and "did not answer" in record.message and "rollwright score" in record.message
    )


def test_some_undecided_episodes_are_told_of_and_have_no_part_in_the_mean(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collect, "open_reward", lambda _: Moody(lambda t: not t.id.endswith("/0"), raises=False))
    store = run()
    said = capsys.readouterr().out.splitlines()[-2]
    doubts = 2 * len(store) // 3
    kept = [t.total_reward for t in store.iter_trajectories() if t.learnable]
    assert f"{doubts} UNDECIDED" in said and f"mean return {sum(kept) / len(kept):.3f}" in said
    [record] = [r for r in caplog.records if "undecided" in r.message]
    assert record.levelno == logging.WARNING and "who knows" in record.message and f"{doubts} of" in record.message


def test_a_sound_collection_is_not_warned_of(
    run: Run, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    store = run()
    said = capsys.readouterr().out.splitlines()[-2]
    assert "mean return" in said and "UNDECIDED" not in said and "faulted" not in said
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(store) == len(played(store))


def test_a_faulted_episode_has_no_part_in_the_mean(run: Run, tmp_path: Path) -> None:
    [first, *_] = run().iter_trajectories()
    store = TrajectoryStore(tmp_path / "other")
    broken = replace(first, id="broken", stop_reason=StopReason.ENV_ERROR, score=None)
    store.append([first, broken])
    assert f"mean return {first.total_reward:.3f}" in worth_of_store(store)
    assert "2 episodes" in worth_of_store(store) and "1 faulted or empty" in worth_of_store(store)
