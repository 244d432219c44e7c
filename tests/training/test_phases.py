"""WSRL's warm-up: when updates begin, what the buffer holds, that weights rest meanwhile; the recipes that offer it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Task, Trajectory
from rollwright.recipes import archer, digirl
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import valid_turns
from rollwright.store.replay.replay_settings import OnlineReplaySettings
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.replay_loop import ReplayPhases, is_warm
from tests import builders

RECIPES = {"digirl": digirl, "archer": archer}
TASK = Task(id="train/t", split="train")


def episode(name: str, num_turns: int, *, split: str = "train") -> Trajectory:
    turn = builders.turn((1, 2), (3,), logprobs=-0.1, text="a")
    return builders.episode(name, *[turn] * num_turns, task=f"{split}/t", split=split, success=True)


def phases(folder: Path, *, offline: int = 0, batch: int = 32, **settings: Any) -> tuple[ReplayPhases, TrajectoryStore]:
    if offline:
        TrajectoryStore(folder / "offline").append([episode(f"old {k}", 10) for k in range(offline)])
        settings["stores"] = [str(folder / "offline")]
    store = TrajectoryStore(folder / "own")
    found = ReplayPhases(OnlineReplaySettings(**settings), store, offline_steps=2 if offline else 0, batch_size=batch)
    return found, store


def names(found: ReplayPhases) -> set[int]:
    return set(found.table.owners()[valid_turns(found.table)].tolist())


def test_the_first_update_comes_with_the_52nd_turn() -> None:
    # 0-based turn t, K = 50, batch of 32: none while t <= 50, the first at t = 51, when 52 are stored
    assert next(n for n in range(60) if is_warm(n, 50, 32)) == 52
    assert next(n for n in range(300) if is_warm(n, 50, 128)) == 130, "a batch must be there"
    assert is_warm(0, 0, 128)


def test_a_fixed_share_of_a_batch_comes_from_the_stores(tmp_path: Path) -> None:
    """One offline turn in eleven, half of each batch; all of it while there is one kind; uniform without a share."""
    found, store = phases(tmp_path, offline=1)
    found.begin(0)
    found.may_update()
    draws = np.random.default_rng(0)
    turns = valid_turns(found.table)
    assert set(found.draw(draws, turns, 50, offline_frac=0.5).tolist()) == set(range(10)), "nothing of its own yet"
    store.append([episode("own", 100)])
    found.begin(2)
    found.may_update()
    turns = valid_turns(found.table)
    mixed = found.draw(draws, turns, 64, offline_frac=0.5)
    assert (mixed < 10).sum() == 32 and (mixed[:32] < 10).sum() not in (0, 32), "a batch in parts is mixed too"
    assert (found.draw(draws, turns, 64, offline_frac=0.0) >= 10).all()
    assert (found.draw(draws, turns, 11_000) < 10).mean() == pytest.approx(10 / 110, abs=0.02)


def test_nothing_is_updated_until_enough_turns_are_collected(tmp_path: Path) -> None:
    found, store = phases(tmp_path, warmup_turns=50)
    for step, (num_turns, may) in enumerate(((30, False), (21, False), (1, True))):
        assert found.begin(step)
        store.append([episode(f"e{step}", num_turns)])
        assert found.may_update() == may
    assert found.metrics() == {
        "replay/turns_count": 52.0,
        "replay/offline_frac": 0.0,
        "replay/warmup_frac": 1.0,
    }


def test_held_out_episodes_do_not_warm_anything_up(tmp_path: Path) -> None:
    found, store = phases(tmp_path, warmup_turns=5, batch=1)
    found.begin(0)
    store.append([episode("judged", 40, split="test")])
    assert not found.may_update() and found.metrics()["replay/warmup_frac"] == 0.0


def test_offline_data_is_let_go_of_at_the_switch(tmp_path: Path) -> None:
    found, store = phases(tmp_path, offline=3, warmup_turns=4, retain=False, batch=1)
    for step in (0, 1):
        assert not found.begin(step) and found.may_update()
        assert found.metrics()["replay/offline_frac"] == 1.0 and len(valid_turns(found.table)) == 30
    assert found.begin(2)
    store.append([episode("warm", 4)])
    assert not found.may_update() and len(valid_turns(found.table)) == 4
    found.begin(3)
    store.append([episode("online", 6)])
    assert found.may_update() and len(valid_turns(found.table)) == 10
    assert found.metrics()["replay/offline_frac"] == 0.0
    assert found.table.stores[0].folder == store.folder and len(found.table.stores) == 1


def test_retained_offline_data_stays(tmp_path: Path) -> None:
    found, store = phases(tmp_path, offline=3, warmup_turns=4, batch=1)
    found.begin(2)
    store.append([episode("warm", 6)])
    assert found.may_update() and len(valid_turns(found.table)) == 36
    assert found.metrics()["replay/offline_frac"] == pytest.approx(30 / 36)


def test_a_resumed_run_stands_where_it_stood(tmp_path: Path) -> None:
    found, store = phases(tmp_path, offline=3, warmup_turns=20, retain=False, batch=1)
    found.begin(2)
    store.append([episode("warm", 15)])
    assert not found.may_update()
    settings = OnlineReplaySettings(stores=[str(tmp_path / "offline")], warmup_turns=20, retain=False)
    again = ReplayPhases(settings, TrajectoryStore(tmp_path / "own"), offline_steps=2, batch_size=1)
    again.begin(3)
    assert not again.may_update() and len(valid_turns(again.table)) == 15


def test_stores_that_no_step_would_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="offline_steps"):
        ReplayPhases(
            OnlineReplaySettings(stores=["x"], retain=False),
            TrajectoryStore(tmp_path),
            offline_steps=0,
            batch_size=1,
        )


def run_recipe(name: str, folder: Path, *words: str) -> Path:
    settings = f"recipes/text/maze_{name}.yaml"
    common = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "rollout.max_turns=5"]
    common += ["rollout.groups_per_step=4", "rollout.parallel_episodes=4", "run.checkpoint_every=1"]
    common += ["run.keep_checkpoints=9", "evaluation.seeds_per_task=1", "evaluation.max_turns=3", "run.steps=3"]
    RECIPES[name].main([settings, *common, *words, f"run.folder={folder}"])
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a model folder, or of a checkpoint."""
    if (saved := folder / "learner.pt").exists():
        held = torch.load(saved, weights_only=True)["policy"]["weights"]
        return {name.removeprefix("model."): value for name, value in held.items()}  # the learner's shell
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digirl", ["step_critic.batch_size=8", "algorithm.actor=awr", "~algorithm.top_frac"]),
        ("archer", ["critic.batch_size=8", "critic.updates=2", "algorithm.warmup_steps=0"]),
    ],
)
def test_weights_rest_bit_by_bit_while_the_buffer_warms_up(name: str, words: list[str], tmp_path: Path) -> None:
    """Four episodes of at most five turns a step: one step is too few for 24 turns, two steps are not."""
    words = [*words, "algorithm.batch_size=8", "algorithm.actor_updates=2", "replay.warmup_turns=24"]
    folder = run_recipe(name, tmp_path / "run", *words)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "replay/turns_count" in row]
    assert rows[0]["replay/turns_count"] <= 20 and rows[0]["replay/warmup_frac"] < 1
    assert rows[1]["replay/turns_count"] > 25 and rows[1]["replay/warmup_frac"] == 1
    updated = ["optim/loss" in row or "optim/grad_norm" in row for row in rows]
    assert updated == [False, True, True]
    saved = [weights(step) for step in sorted((folder / "checkpoints").glob("step_*"))]
    begun, first = weights(folder / "tiny_model"), saved[0]
    both = begun.keys() & first.keys()
    assert len(both) >= 5 and all(torch.equal(begun[key], first[key]) for key in both)
    assert any(not torch.equal(saved[0][key], saved[1][key]) for key in saved[0]), "after it, learning begins"
